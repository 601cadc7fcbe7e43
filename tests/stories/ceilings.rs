//! What `governor` holds: ceilings of our own, buckets that announce nothing, and a fault in the ledger.
//! Each of these fails when nothing but the ledger is asked.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use okta_worker::budget::gate::{CallerCeilings, Gate, GateSettings};
use okta_worker::budget::gossip::{Census, Gossip};
use okta_worker::budget::permit::{Ask, Budget, NotNow, WhenBusy};
use okta_worker::budget::pure::window::{Observation, QuotaShare};
use okta_worker::domain::bucket::{Bucket, RateHeaders};
use okta_worker::domain::ids::Lane;
use okta_worker::event::Observers;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::counted::{Counted, LENGTH};
use crate::world::{Headers, SAM, Setup, prod};

const MINUTE: Duration = Duration::from_secs(60);

/// More than any ceiling here, so that the ledger never holds anybody back.
const PLENTY: u32 = 100_000;

fn terms() -> GateSettings {
    GateSettings::new(prod(), QuotaShare { capacity_percent: 100, length: Duration::from_millis(LENGTH) })
}

fn gate(terms: GateSettings) -> Arc<Gate> {
    Gate::new(terms, Arc::new(Observers(Vec::new())))
}

fn ask(lane: Lane, caller: Option<&'static str>, not_after: Option<Instant>) -> Ask<'static> {
    let (method, route) = (&http::Method::GET, "/api/v1/users/{userId}");
    Ask { method, route, lane, caller, not_after, leave_at: None, emits: false, when_busy: WhenBusy::Wait }
}

/// An org with plenty, and when requests passed.
#[derive(Clone)]
struct Org {
    begun: Instant,
    counted: Arc<Mutex<Counted>>,
    passed: Arc<Mutex<Vec<u64>>>,
}

impl Org {
    fn new(limit: u32) -> Self {
        let counted = Arc::new(Mutex::new(Counted::new(limit)));
        Self { begun: Instant::now(), counted, passed: Arc::default() }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap()
    }

    /// Sixteen at a gate that come again and again until the end.
    fn crowd(&self, gate: &Arc<Gate>, lane: Lane, caller: Option<&'static str>, end: Instant) -> JoinSet<()> {
        let mut crowd = JoinSet::new();
        for _ in 0..16 {
            let (org, gate) = (self.clone(), Arc::clone(gate));
            crowd.spawn(async move {
                while let Ok(permit) = gate.admit(ask(lane, caller, Some(end))).await {
                    org.passed.lock().unwrap().push(org.now());
                    sleep(Duration::from_millis(50)).await;
                    let told = org.counted.lock().unwrap().take(org.now());
                    sleep(Duration::from_millis(50)).await;
                    permit.heard(told);
                }
            });
        }
        crowd
    }

    fn passed(&self) -> Vec<u64> {
        let mut passed = self.passed.lock().unwrap().clone();
        passed.sort_unstable();
        passed
    }
}

/// The most that passed in any time of this length, wherever it begins.
fn most_within(passed: &[u64], length: u64) -> usize {
    let within = |(at, begin): (usize, &u64)| passed.partition_point(|pass| *pass < begin + length) - at;
    passed.iter().enumerate().map(within).max().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn two_workers_of_a_connection_together_keep_its_ceiling_in_every_minute() {
    const MOST: usize = 120;
    for lane in Lane::ALL {
        let (org, end) = (Org::new(PLENTY), Instant::now() + 4 * MINUTE);
        let mut crowds = Vec::new();
        for _ in 0..2 {
            let gate = gate(GateSettings { max_per_minute: Some(MOST as u32), ..terms() });
            gate.counted(Census { workers: 2, queued: 1000 });
            crowds.push(org.crowd(&gate, lane, None, end));
        }
        for crowd in crowds {
            crowd.join_all().await;
        }
        let passed = org.passed();
        assert!(most_within(&passed, 60_000) <= MOST, "{lane}: {}", most_within(&passed, 60_000));
        assert!(passed.len() >= MOST * 4 * 9 / 10, "{lane}: {} of {}", passed.len(), 4 * MOST);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_at_its_ceiling_keeps_it_on_two_workers_and_delays_nobody_else() {
    const MOST: usize = 60;
    let (org, others, end) = (Org::new(PLENTY), Org::new(PLENTY), Instant::now() + 4 * MINUTE);
    let mut crowds = Vec::new();
    for _ in 0..2 {
        let callers = CallerCeilings::new([("hr".to_owned(), MOST as u32)]);
        let gate = gate(GateSettings { callers, ..terms() });
        gate.counted(Census { workers: 2, queued: 0 });
        let others = others.clone();
        crowds.push(org.crowd(&gate, Lane::Interactive, Some("hr"), end));
        let mut visitor = JoinSet::new();
        visitor.spawn(async move {
            sleep(Duration::from_secs(1)).await; // what there is has been found out
            while Instant::now() < end {
                let asked = Instant::now();
                let permit = gate.admit(ask(Lane::Interactive, Some("desk"), None)).await.unwrap();
                assert_eq!(asked.elapsed(), Duration::ZERO, "somebody else's ceiling delays");
                let told = others.counted.lock().unwrap().take(others.now());
                permit.heard(told);
                sleep(Duration::from_millis(333)).await;
            }
        });
        crowds.push(visitor);
    }
    for crowd in crowds {
        crowd.join_all().await;
    }
    let passed = org.passed();
    assert!(most_within(&passed, 60_000) <= MOST, "{}", most_within(&passed, 60_000));
    assert!(passed.len() >= MOST * 4 * 9 / 10, "{} of {}", passed.len(), 4 * MOST);
}

#[tokio::test(start_paused = true)]
async fn a_count_of_workers_that_wavers_grants_nothing_twice() {
    const MOST: usize = 600;
    let (org, end) = (Org::new(PLENTY), Instant::now() + 3 * MINUTE);
    let gate = gate(GateSettings { max_per_minute: Some(MOST as u32), ..terms() });
    gate.counted(Census { workers: 2, queued: 1000 });
    let crowd = org.crowd(&gate, Lane::Bulk, None, end);
    while Instant::now() < end {
        for workers in [3, 2] {
            gate.counted(Census { workers, queued: 1000 });
            sleep(Duration::from_secs(1)).await;
        }
    }
    crowd.join_all().await;
    let passed = org.passed();
    assert!(most_within(&passed, 60_000) <= MOST / 2, "{}", most_within(&passed, 60_000));
    assert!(passed.len() >= 3 * MOST / 3 * 9 / 10, "{}", passed.len());
}

/// What those are told who come to a full ceiling of two a minute with this deadline, and after how long.
async fn told_at_the_ceiling(terms: GateSettings, deadlines: &[u64]) -> Vec<(Result<(), NotNow>, Duration)> {
    let (gate, org) = (gate(terms), Org::new(PLENTY));
    let begun = Instant::now();
    let permit = gate.admit(ask(Lane::Interactive, Some("hr"), None)).await.unwrap();
    permit.heard(org.counted.lock().unwrap().take(0));
    let mut told = JoinSet::new();
    for deadline in deadlines {
        let (gate, by) = (Arc::clone(&gate), begun + Duration::from_secs(*deadline));
        told.spawn(async move {
            let admitted = gate.admit(ask(Lane::Interactive, Some("hr"), Some(by))).await;
            (admitted.map(|permit| permit.heard(Observation::Uncounted)), begun.elapsed())
        });
    }
    let mut told = told.join_all().await;
    told.sort_by_key(|(_, at)| *at);
    told
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_a_ceiling_cannot_make_is_answered_at_once_with_the_time() {
    let callers = CallerCeilings::new([("hr".to_owned(), 2)]);
    for terms in [GateSettings { max_per_minute: Some(2), ..terms() }, GateSettings { callers, ..terms() }] {
        let begun = Instant::now();
        // Two a minute, none of them at once: one each minute. The first of these waits for it, the
        // others cannot make it.
        let told = told_at_the_ceiling(terms, &[600, 30, 30, 50]).await;
        let next = begun + MINUTE;
        let (at_once, late) = told.split_at(3);
        for (told, after) in at_once {
            assert_eq!((told, *after), (&Err(NotNow::NotBefore(next)), Duration::ZERO));
        }
        assert_eq!(late, [(Ok(()), MINUTE)]);
    }
}

#[tokio::test(start_paused = true)]
async fn without_readable_headers_six_hundred_a_minute_go_and_evenly() {
    for headers in [Headers::Missing, Headers::Malformed] {
        let mut world = Setup { headers, ..Setup::default() }.limit(Bucket::UserRead, PLENTY).open();
        for _ in 0..1500 {
            world.ask_bulk("get_user", json!({ "user_id": SAM }));
        }
        world.rest().await;
        let tape = world.tape();
        let asked = tape.lines().filter(|line| line.contains("asked"));
        let at = |line: &str| line[1..].split_once('s').unwrap().0.replace('.', "").parse().unwrap();
        let passed: Vec<u64> = asked.map(at).collect();
        assert_eq!(passed.len(), 1500);
        // Ten a second, and a second's worth that may go at once.
        let (minute, second) = (most_within(&passed, 60_000), most_within(&passed, 1000));
        assert!((590..=610).contains(&minute), "{headers:?}: {minute} in a minute");
        assert!(second <= 20, "{headers:?}: {second} in a second");
        assert_eq!(world.answers(1500).len(), 1500);
        world.close();
    }
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_always_says_yes_is_held_to_twice_the_limit_in_every_length() {
    const LIMIT: u32 = 40;
    // Fresh windows that nobody took anything from; with a limit that wavers, the second lock is another
    // one each time.
    for limits in [[LIMIT, LIMIT], [LIMIT, LIMIT - 1]] {
        let (gate, org, end) = (gate(terms()), Org::new(LIMIT), Instant::now() + 4 * MINUTE);
        let mut count = 0_usize;
        while count < 10_000
            && let Ok(permit) = gate.admit(ask(Lane::Interactive, None, Some(end))).await
        {
            org.passed.lock().unwrap().push(org.now());
            count += 1;
            let limit = limits[count % 2];
            let reset = 2_000_000_000 + 100 * i64::try_from(count).unwrap();
            permit.heard(Observation::Rate(RateHeaders { limit, remaining: limit, reset, date: None }));
        }
        let passed = org.passed();
        // The first went before anything was announced.
        let most = most_within(&passed[1..], LENGTH);
        assert!(most <= 2 * LIMIT as usize, "{limits:?}: {most}");
        assert!(passed.len() >= 4 * LIMIT as usize, "{limits:?}: {}", passed.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_callers_own_bulk_messages_do_not_delay_those_it_waits_for() {
    let callers = CallerCeilings::new([("hr".to_owned(), 60)]);
    let gate = gate(GateSettings { callers, ..terms() });
    let (org, end) = (Org::new(PLENTY), Instant::now() + MINUTE);
    let crowd = org.crowd(&gate, Lane::Bulk, Some("hr"), end);
    sleep(Duration::from_millis(10_500)).await;
    for _ in 0..10 {
        let asked = Instant::now();
        let permit = gate.admit(ask(Lane::Interactive, Some("hr"), None)).await.unwrap();
        assert!(asked.elapsed() <= Duration::from_millis(1_100), "{:?}", asked.elapsed());
        permit.heard(Observation::Nothing);
    }
    crowd.join_all().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_put_aside_spends_nothing_of_what_its_caller_may_send() {
    let callers = CallerCeilings::new([("hr".to_owned(), 60)]);
    let gate = gate(GateSettings { callers, prefetch: 4, ..terms() });
    let mine = |when_busy| Ask { when_busy, ..ask(Lane::Bulk, Some("hr"), None) };
    let others = ask(Lane::Bulk, None, None);
    // The window is spent, and as many wait for the next as may.
    let counted = Arc::new(Mutex::new(Counted::new(1)));
    let permit = gate.admit(others).await.unwrap();
    permit.heard(counted.lock().unwrap().take(0));
    let mut waiting = JoinSet::new();
    for _ in 0..2 {
        let gate = Arc::clone(&gate);
        waiting.spawn(async move { drop(gate.admit(ask(Lane::Bulk, None, None)).await) });
    }
    sleep(Duration::from_millis(100)).await;
    for _ in 0..100 {
        let told = gate.admit(mine(WhenBusy::Delay)).await;
        assert!(matches!(told, Err(NotNow::Delay(_))));
    }
    let asked = Instant::now();
    let (method, route) = (&http::Method::GET, "/api/v1/groups");
    gate.admit(Ask { method, route, ..mine(WhenBusy::Wait) }).await.unwrap().heard(Observation::Nothing);
    assert_eq!(asked.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn few_that_mail_are_on_their_way_at_once_and_each_lane_has_room_of_its_own() {
    let gate = gate(GateSettings { prefetch: 4, ..terms() });
    let mails = |lane, when_busy| Ask { emits: true, when_busy, ..ask(lane, None, None) };
    let soon = |lane, when_busy| timeout(Duration::from_secs(1), gate.admit(mails(lane, when_busy)));
    gate.admit(ask(Lane::Bulk, None, None)).await.unwrap().heard(Counted::new(PLENTY).take(0));
    let mut on_the_way = Vec::new();
    for _ in 0..2 {
        on_the_way.push(soon(Lane::Bulk, WhenBusy::Wait).await.expect("there is room").unwrap());
    }
    assert!(soon(Lane::Bulk, WhenBusy::Wait).await.is_err(), "no more at once");
    soon(Lane::Interactive, WhenBusy::Wait)
        .await
        .expect("it waits behind nobody")
        .unwrap()
        .heard(Observation::Nothing);
    gate.admit(ask(Lane::Bulk, None, None)).await.unwrap().heard(Observation::Nothing); // it mails nothing
    let mut waiting = JoinSet::new();
    for _ in 0..2 {
        let gate = Arc::clone(&gate);
        let mails = mails(Lane::Bulk, WhenBusy::Wait);
        waiting.spawn(async move { gate.admit(mails).await.unwrap().heard(Observation::Nothing) });
    }
    sleep(Duration::from_secs(1)).await;
    let told = soon(Lane::Bulk, WhenBusy::Delay).await.expect("it is told at once");
    assert!(matches!(told, Err(NotNow::Delay(_))), "half of a prefetch waits already");
    drop(on_the_way); // without an answer
    waiting.join_all().await;
    soon(Lane::Bulk, WhenBusy::Wait).await.expect("there is room again").unwrap().heard(Observation::Nothing);
}
