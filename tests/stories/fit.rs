//! What fits goes at once, and what does not is spread evenly over the window.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use okta_worker::budget::gate::{Gate, GateSettings};
use okta_worker::budget::gossip::{Census, Gossip};
use okta_worker::budget::permit::{Ask, Budget, WhenBusy};
use okta_worker::budget::pure::window::QuotaShare;
use okta_worker::domain::ids::Lane;
use okta_worker::event::Observers;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::counted::{Counted, LENGTH};
use crate::world::prod;

/// From sending to the answer.
const LATENCY: Duration = Duration::from_millis(100);

/// A gate before a bucket, and when requests passed it.
#[derive(Clone)]
struct Bucket {
    gate: Arc<Gate>,
    begun: Instant,
    counted: Arc<Mutex<Counted>>,
    passed: Arc<Mutex<Vec<Duration>>>,
}

impl Bucket {
    fn new(limit: u32) -> Self {
        let share = QuotaShare { capacity_percent: 100, length: Duration::from_millis(LENGTH) };
        Self {
            gate: Gate::new(GateSettings::new(prod(), share), Arc::new(Observers(Vec::new()))),
            begun: Instant::now(),
            counted: Arc::new(Mutex::new(Counted::new(limit))),
            passed: Arc::default(),
        }
    }

    /// One bulk invocation of so many requests, each of them waiting in line.
    async fn invoke(self, calls: u32) {
        self.invoke_by(WhenBusy::Delay, calls).await;
    }

    async fn invoke_by(self, first: WhenBusy, calls: u32) {
        for call in 0..calls {
            let when_busy = if call == 0 { first } else { WhenBusy::Wait };
            let (method, route) = (&http::Method::GET, "/api/v1/users/{userId}");
            let ask = Ask {
                method,
                route,
                lane: Lane::Bulk,
                caller: None,
                not_after: None,
                leave_at: None,
                emits: false,
                when_busy,
            };
            let permit = self.gate.admit(ask).await.expect("so few are not put aside");
            self.passed.lock().unwrap().push(self.begun.elapsed());
            sleep(LATENCY / 2).await;
            let at = u64::try_from(self.begun.elapsed().as_millis()).unwrap();
            let told = self.counted.lock().unwrap().take(at);
            sleep(LATENCY / 2).await;
            permit.heard(told);
        }
        self.gate.concluded(Lane::Bulk, calls);
    }

    /// So many come together; when the requests of all of them passed, from then on.
    async fn crowd(&self, invocations: u32, calls: u32) -> Vec<Duration> {
        let came = self.begun.elapsed();
        self.passed.lock().unwrap().clear();
        let crowd: JoinSet<()> = (0..invocations).map(|_| self.clone().invoke(calls)).collect();
        crowd.join_all().await;
        let passed = self.passed.lock().unwrap();
        passed.iter().map(|at| *at - came).collect()
    }
}

/// How many passed before.
fn before(passed: &[Duration], end: Duration) -> usize {
    passed.iter().filter(|at| **at < end).count()
}

#[tokio::test(start_paused = true)]
async fn twenty_on_an_idle_bucket_go_at_once() {
    let passed = Bucket::new(600).crowd(20, 1).await;
    assert_eq!(passed.len(), 20);
    // One finds out what there is; then no more are in hand than may be all there are.
    assert_eq!(before(&passed, 7 * LATENCY), 20, "{passed:?}");
}

#[tokio::test(start_paused = true)]
async fn the_first_of_ten_thousand_are_spread_over_the_window() {
    let bucket = Bucket::new(600);
    bucket.clone().invoke(1).await;
    let mut crowd = JoinSet::new();
    for _ in 0..32 {
        let bucket = bucket.clone();
        crowd.spawn(async move {
            loop {
                bucket.clone().invoke_by(WhenBusy::Wait, 1).await;
            }
        });
    }
    for _ in 0..12 {
        sleep(Duration::from_millis(10)).await;
        bucket.gate.counted(Census { workers: 1, queued: 10_000 });
        sleep(Duration::from_secs(5) - Duration::from_millis(10)).await;
    }
    crowd.abort_all();
    let passed = bucket.passed.lock().unwrap().clone();
    // Ten a second; at first nobody had counted.
    for second in 5..58 {
        let begin = Duration::from_secs(second);
        let count = before(&passed, begin + Duration::from_secs(1)) - before(&passed, begin);
        assert!((8..=12).contains(&count), "{count} in second {second}: {passed:?}");
    }
    assert_eq!(bucket.counted.lock().unwrap().refused, 0);
}

#[tokio::test(start_paused = true)]
async fn a_list_counts_as_often_as_it_calls() {
    const LIMIT: u32 = 120;
    let mut at_once = Vec::new();
    for calls in [1, 8] {
        let bucket = Bucket::new(LIMIT);
        for _ in 0..240 / calls {
            bucket.clone().invoke(calls).await; // what an invocation calls is learned
        }
        sleep(2 * Duration::from_millis(LENGTH)).await;
        bucket.clone().invoke(1).await; // a new window
        let passed = bucket.crowd(12, calls).await;
        at_once.push(before(&passed, 10 * LATENCY));
    }
    // Twelve fit into half of 120, and twelve times eight do not.
    assert_eq!(at_once[0], 12);
    assert!(at_once[1] <= 48, "{at_once:?}: two a second follow what was in hand");
}
