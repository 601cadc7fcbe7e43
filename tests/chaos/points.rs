//! Every point of the story × {SIGKILL, panic, connection cut}.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use okta_worker::worker::failpoint::Point;

use super::caller::Message;
use super::checker::{Asked, Verdict};
use super::judge::{CHAOS, Judge};
use super::load::{Invocation, crowd, org_arguments, prepare, texts};
use super::node::ours;
use super::proxy::Which;
use super::report::{is_long, passed};
use super::run::Run;
use super::world::{BROKER_URL, Start, World};

/// What happens when a message has come to a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Kill,
    Panic,
    Cut,
}

/// All of them.
const POINTS: [Point; 12] = [
    Point::Delivered,
    Point::Judged,
    Point::Admitted,
    Point::Answered,
    Point::Concluded,
    Point::Publishing,
    Point::Confirmed,
    Point::Parking,
    Point::Copying,
    Point::Copied,
    Point::Done,
    Point::Acknowledged,
];

/// Invocations of a run of the short form, and of each in which messages must be put aside: those take their time.
const COUNT: usize = 24;

/// So many may be asked for in a window of each bucket.
const LIMIT: u32 = 50;

/// The same where messages must be put aside.
const LIMIT_CROWDED: u32 = 4;

/// How long a run may take, the machine being slow.
fn when_busy() -> Duration {
    Duration::from_secs(if is_long() { 300 } else { 90 })
}

/// One message that is there to be parked, because nobody can read it and nobody is to be told.
fn poison(id: &str) -> Invocation {
    let asked = Asked { id: id.to_owned(), is_poison: true, ..Asked::default() };
    Invocation { asked, message: Message::of("prod.bulk", "no JSON").id(id) }
}

/// One run; the verdict of the checker.
async fn at(point: Point, deed: Deed, count: usize, seed: u64) -> Verdict {
    let node = ours().expect("asked before");
    let is_crowded = matches!(point, Point::Copying | Point::Copied);
    let (count, limit) = if is_crowded { (COUNT, LIMIT_CROWDED) } else { (count, LIMIT) };
    let world = World::with(&texts(&org_arguments(limit))).await;
    let mut load = prepare(&world.org, "p", count, seed).await;
    load.insert(count / 2, poison("poison"));
    if is_crowded {
        load.extend(crowd(COUNT));
    }
    let judge = Judge::new().await;
    let (proxy, url) = world.proxied(node);
    let chaos = judge.order(point);
    let settings = [(BROKER_URL, &*url), ("OKTA_WORKER__BROKER__PREFETCH", "8"), (CHAOS, &*chaos)];
    let mut worker = world.worker_with(&Start { variables: &settings, ..Start::default() });
    let mut run = Run::begin(&world).await;
    run.send(load).await;
    // Only the poison is parked, and few are put aside; at other points some go before.
    let are_few = is_crowded || point == Point::Parking;
    let pass = if are_few { 0 } else { usize::try_from(seed % 4).expect("it is below 4") };
    let standing = tokio::time::timeout(when_busy(), judge.stop(pass)).await;
    let standing =
        standing.unwrap_or_else(|_| panic!("no message came to {point:?}: {:?}", proxy.accepted()));
    match deed {
        Deed::Kill => worker = world.start(&Start::default()), // the first one by SIGKILL
        Deed::Panic => standing.panic().await,
        Deed::Cut => {
            proxy.cut(Which::All);
            standing.go().await;
        }
    }
    let judge = tokio::spawn(Arc::new(judge).let_pass());
    let (mut verdict, history) = run.end(vec![worker], 1, when_busy()).await;
    judge.abort();
    // A bug while an invocation talks with Okta is answered, and kept for people to look at.
    let is_kept = deed == Deed::Panic && matches!(point, Point::Admitted | Point::Answered);
    let internal = history.answered.iter().filter(|answer| answer.code.as_deref() == Some("internal"));
    let internal: Vec<_> = internal.map(|answer| answer.id.clone()).collect();
    assert_eq!(internal.len(), usize::from(is_kept), "{point:?} {deed:?}, seed {seed}: {internal:?}");
    for list in [&mut verdict.parked, &mut verdict.failed, &mut verdict.unknown] {
        list.retain(|id| !internal.contains(id));
    }
    verdict
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_every_point_a_kill_a_panic_and_a_cut_lose_nothing_and_do_nothing_twice() {
    if ours().is_none() {
        return;
    }
    let (count, seed) = (if is_long() { 500 } else { COUNT }, fastrand::u64(..));
    println!("seed {seed}, {count} invocations at each point");
    let mut rng = fastrand::Rng::with_seed(seed);
    let cells =
        POINTS.into_iter().flat_map(|point| [Deed::Kill, Deed::Panic, Deed::Cut].map(|deed| (point, deed)));
    let cells: Vec<_> = cells.map(|(point, deed)| (point, deed, rng.u64(..))).collect();
    let runs = stream::iter(cells).map(|(point, deed, seed)| async move {
        (point, deed, seed, tokio::spawn(at(point, deed, count, seed)).await)
    });
    let verdicts: Vec<_> = runs.buffer_unordered(6).collect().await;
    let mut bad = Vec::new();
    for (point, deed, seed, ended) in verdicts {
        match ended {
            Ok(verdict) if verdict.is_good() => {}
            Ok(verdict) => bad.push(format!("{point:?} {deed:?}, seed {seed}: {verdict:?}")),
            Err(_) => bad.push(format!("{point:?} {deed:?}, seed {seed}: a panic, as above")),
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
    passed("1", &format!("36 runs of {count}, seed {seed}"));
}
