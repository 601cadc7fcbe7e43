//! An org that counts otherwise than the table says: suspending has a bucket of its own, and updating a user
//! is counted with listing them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use okta_worker::budget::gate::{Gate, GateSettings};
use okta_worker::budget::gossip::Gossip;
use okta_worker::budget::permit::{Ask, Budget, WhenBusy};
use okta_worker::budget::pure::window::{Observation, QuotaShare};
use okta_worker::domain::bucket::RateHeaders;
use okta_worker::domain::ids::Lane;
use okta_worker::event::Observers;
use tokio::time::{Instant, sleep};

use crate::budget::on_virtual_time;
use crate::world::prod;

const LENGTH: Duration = Duration::from_secs(60);
const LIMIT: u32 = 240;

const LIST: (Method, &str) = (Method::GET, "/api/v1/users");
const UPDATE: (Method, &str) = (Method::POST, "/api/v1/users/{userId}");
const SUSPEND: (Method, &str) = (Method::POST, "/api/v1/users/{userId}/lifecycle/suspend");

/// One counter of Okta's.
#[derive(Debug, Default)]
struct Counter {
    opened: Option<Instant>,
    used: u32,
    accepted: [u32; WINDOWS],
    refused: [u32; WINDOWS],
}

/// How long it is told.
const WINDOWS: usize = 10;

/// By then it is known who is counted with whom.
const LEARNED: usize = 5;

impl Counter {
    fn take(&mut self, begun: Instant) -> Observation {
        const EPOCH: i64 = 1_772_442_000;
        let now = Instant::now();
        if self.opened.is_none_or(|opened| now >= opened + LENGTH) {
            (self.opened, self.used) = (Some(now), 0);
        }
        let second = |at: Instant| EPOCH + i64::try_from((at - begun).as_secs()).unwrap();
        let reset = second(self.opened.unwrap() + LENGTH);
        let date = Some(jiff::Timestamp::from_second(second(now)).unwrap());
        let passes = self.used < LIMIT;
        self.used += u32::from(passes);
        let rate = RateHeaders { limit: LIMIT, remaining: LIMIT - self.used, reset, date };
        let window = ((now - begun).as_secs() / 60) as usize;
        let tally = if passes { &mut self.accepted } else { &mut self.refused };
        tally[window.min(WINDOWS - 1)] += 1;
        if passes { Observation::Rate(rate) } else { Observation::Spent(Some(rate)) }
    }
}

/// Sends requests of one kind, one after the other, for as long as it is told.
async fn send(
    gate: Arc<Gate>,
    counter: Arc<Mutex<Counter>>,
    route: (Method, &'static str),
    begun: Instant,
    seed: u64,
) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (method, route) = (&route.0, route.1);
    let ask = Ask {
        method,
        route,
        lane: Lane::Bulk,
        caller: None,
        not_after: None,
        leave_at: None,
        emits: false,
        when_busy: WhenBusy::Wait,
    };
    while begun.elapsed() < LENGTH * u32::try_from(WINDOWS).unwrap() {
        let permit = gate.admit(ask).await.expect("nobody is in a hurry");
        sleep(Duration::from_millis(rng.u64(20..80))).await;
        let told = counter.lock().unwrap().take(begun);
        sleep(Duration::from_millis(rng.u64(40..300))).await;
        permit.heard(told);
    }
}

#[test]
fn a_worker_learns_what_an_org_counts_together_and_is_not_refused() {
    for senders in [8, 16, 32] {
        learns_what_is_counted_together(senders);
    }
}

/// With so many that send by each route at once.
fn learns_what_is_counted_together(senders: u64) {
    on_virtual_time(async move {
        let share = QuotaShare { capacity_percent: 100, length: LENGTH };
        let gate = Gate::new(GateSettings::new(prod(), share), Arc::new(Observers(Vec::new())));
        let [together, suspending] = [(); 2].map(|()| Arc::new(Mutex::new(Counter::default())));
        let begun = Instant::now();
        let mut sending = tokio::task::JoinSet::new();
        for seed in 0..senders {
            for (route, counter) in [(LIST, &together), (UPDATE, &together), (SUSPEND, &suspending)] {
                sending.spawn(send(Arc::clone(&gate), Arc::clone(counter), route, begun, seed));
            }
            sleep(Duration::from_millis(1700)).await; // or all windows would open together
        }
        let done = tokio::time::timeout(LENGTH * 13, sending.join_all()).await;
        assert!(done.is_ok(), "nobody waits for ever");
        let signals = gate.tell();
        assert!(signals.iter().all(|signal| signal.ledger != "user_write"), "it is counted with the others");
        for counter in [together, suspending] {
            let counter = counter.lock().unwrap();
            assert_eq!(counter.refused, [0; WINDOWS], "{counter:?}");
            // Nothing is counted twice, or the window would not be used up.
            assert!(
                counter.accepted[LEARNED..WINDOWS - 1].iter().all(|used| *used >= LIMIT * 9 / 10),
                "{counter:?}"
            );
        }
    });
}
