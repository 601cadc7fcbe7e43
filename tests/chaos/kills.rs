//! Workers are killed and restarted at random while others work on, and the broker is, too.

use std::time::{Duration, Instant};

use fastrand::Rng;
use okta_worker::worker::failpoint::Point;
use serde_json::json;

use super::caller::Message;
use super::checker::{Asked, Verdict};
use super::judge::{CHAOS, Judge};
use super::load::{ANSWERS, Invocation, org_arguments, prepare, resets, texts};
use super::node::{Node, Place, alone, ours};
use super::proxy::Which;
use super::report::{is_long, passed};
use super::run::{Run, in_hand};
use super::world::{BROKER_URL, Start, Worker, World};

/// How long anything may take, the machine being slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// The workers of one org.
struct Crew<'a> {
    world: &'a World,
    workers: Vec<Worker>,
    rng: Rng,
    /// Those that interrupted work.
    kills: usize,
}

impl<'a> Crew<'a> {
    fn new(world: &'a World, seed: u64) -> Self {
        let workers = (0..3).map(|_| world.worker()).collect();
        Self { world, workers, rng: Rng::with_seed(seed), kills: 0 }
    }

    /// One of them is gone from one moment to the next, and another takes its place. One that has work, if there is any.
    fn kill(&mut self) {
        let at_work: Vec<_> =
            (0..self.workers.len()).filter(|which| in_hand(&self.workers[*which]) > 0).collect();
        self.kills += usize::from(!at_work.is_empty());
        let which = self.rng.choice(at_work).unwrap_or_else(|| self.rng.usize(..self.workers.len()));
        self.workers[which] = self.world.start(&Start::default());
    }

    /// One of them is told to stop, and is replaced; the next time it is another's turn.
    fn roll(&mut self) {
        let mut leaving = self.workers.remove(0);
        self.workers.push(self.world.worker());
        leaving.process.signal("TERM");
        let told = Instant::now();
        assert_eq!(leaving.process.wait().code(), Some(0), "{}", leaving.process.stderr());
        assert!(told.elapsed() < Duration::from_secs(30), "within the time an orchestrator gives");
    }
}

/// Sends a load and kills a worker every so often until all is answered, and once each stops and kills the node,
/// if it is ours alone; the verdict, and how many of the kills interrupted work.
async fn killing(
    world: &World,
    node: Option<&Node>,
    (count, pause, kills_max, seed): (usize, Duration, usize, u64),
) -> (Verdict, usize) {
    let mut load = prepare(&world.org, "k", count, seed).await;
    let mut crew = Crew::new(world, seed);
    let mut run = Run::begin(world).await;
    // A worker is killed right after each part is sent, while there surely is work.
    while !load.is_empty() {
        let later = load.split_off(load.len().min(count.div_ceil(4)));
        run.send(std::mem::replace(&mut load, later)).await;
        crew.kill();
    }
    let deadline = Instant::now() + Duration::from_secs(600);
    let mut answered = 0;
    let mut deeds = ["kill", "stop"].into_iter().zip(1..).peekable();
    while answered < count {
        assert!(Instant::now() < deadline, "{answered} of {count} answered, {} kills", crew.kills);
        tokio::time::sleep(pause).await;
        answered = run.gather().await;
        if crew.kills < kills_max {
            crew.kill();
        }
        if let Some(node) = node
            && let Some((deed, _)) = deeds.next_if(|(_, third)| 3 * answered > third * count)
        {
            node.run(deed, &[]);
            node.run("start", &[]);
            run.connect().await;
        }
    }
    assert!(node.is_none() || deeds.next().is_none(), "the broker was killed once and stopped once");
    let (verdict, _) = run.end(crew.workers, 0, PATIENCE).await;
    (verdict, crew.kills)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_are_killed_at_random_and_nothing_is_lost_or_done_twice() {
    if ours().is_none() {
        return;
    }
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let (verdict, kills, count) = if is_long() {
        let Some(node) = alone().await else { return };
        let world = World::at(Place::on(&node), &texts(&org_arguments(30)));
        let load = (5_000, Duration::from_secs(2), usize::MAX, seed);
        let (verdict, kills) = killing(&world, Some(&node), load).await;
        assert!(kills >= 50, "{kills} kills interrupted work");
        (verdict, kills, 5_000)
    } else {
        let world = World::with(&texts(&org_arguments(20))).await;
        let (verdict, kills) = killing(&world, None, (200, Duration::from_secs(1), 8, seed)).await;
        assert!(kills > 0, "no kill interrupted work");
        (verdict, kills, 200)
    };
    assert!(verdict.is_good(), "seed {seed}: {verdict:#?}");
    assert!(100 * verdict.unknown_emits <= count, "seed {seed}: {verdict:#?}");
    let Verdict { unknown_emits, answered_again, .. } = verdict;
    let figures = format!(
        "{count} invocations, {kills} kills that interrupted work: lost 0, parked 0, twice 0, unexpected 0; \
         {unknown_emits} `outcome_unknown`, {answered_again} answered more than once; seed {seed}"
    );
    passed("2", &figures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rolling_restarts_under_load_park_nothing_and_lose_nothing() {
    if ours().is_none() {
        return;
    }
    let (count, restarts) = if is_long() { (1_000, 20) } else { (60, 3) };
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let world = World::with(&texts(&org_arguments(20))).await;
    let load = prepare(&world.org, "r", count, seed).await;
    let mut crew = Crew::new(&world, seed);
    let mut run = Run::begin(&world).await;
    run.send(load).await;
    for _ in 0..restarts {
        crew.roll();
    }
    let (verdict, history) = run.end(crew.workers, 0, PATIENCE).await;
    assert!(verdict.is_good(), "seed {seed}: {verdict:#?}");
    assert_eq!((verdict.unknown_emits, verdict.answered_again), (0, 0), "who stops in order leaves no doubt");
    let figures =
        format!("{restarts} restarts, {} answers, exit code 0 each; seed {seed}", history.answered.len());
    passed("3", &figures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_the_message_that_kills_workers_is_parked_and_its_caller_is_told() {
    if ours().is_none() {
        return;
    }
    const KILLER: &str = "killer";
    let count = if is_long() { 200 } else { 60 };
    let seed = fastrand::u64(..);
    let world = World::with(&texts(&org_arguments(50))).await;
    let mut load = prepare(&world.org, "g", count, seed).await;
    let message = Message::new("prod.bulk", "get_user", &json!({ "user_id": "nobody@chaos.example" }));
    let message = message.id(KILLER).answer_to(ANSWERS);
    let asked = Asked { id: KILLER.to_owned(), is_poison: true, ..Asked::default() };
    load.insert(count / 2, Invocation { asked, message });
    let judge = Judge::new().await;
    let order = judge.order(Point::Judged);
    // Few share its fate, or each of them would have to run alone, too, before it is over.
    let few = ("OKTA_WORKER__BROKER__PREFETCH", "4");
    let start = Start { variables: &[(CHAOS, &*order), few], ..Start::default() };
    let mut worker = world.worker_with(&start);
    let mut run = Run::begin(&world).await;
    run.send(load).await;
    let mut deaths = 0;
    let expected = count + 1;
    // It lies aside before each delivery, for up to a quarter of a minute.
    let deadline = Instant::now() + 2 * PATIENCE;
    while run.gather().await < expected {
        assert!(Instant::now() < deadline, "{deaths} deaths, and {} answers", run.gather().await);
        let Ok(standing) = tokio::time::timeout(Duration::from_millis(100), judge.next()).await else {
            continue;
        };
        if standing.id == KILLER {
            worker = world.start(&start); // the one before by SIGKILL
            deaths += 1;
        } else {
            standing.go().await;
        }
    }
    let passing = tokio::spawn(std::sync::Arc::new(judge).let_pass());
    let (verdict, history) = run.end(vec![worker], 0, PATIENCE).await;
    passing.abort();
    assert!(verdict.is_good(), "seed {seed}: {verdict:#?}");
    let told: Vec<_> = history.answered.iter().filter(|answer| answer.id == KILLER).collect();
    assert_eq!(history.parked, [KILLER], "{told:?}");
    let are_internal = told.iter().all(|answer| answer.code.as_deref() == Some("internal"));
    assert!(!told.is_empty() && are_internal, "{told:?}");
    let figures = format!("{count} good ones answered, {deaths} deaths, one message parked, its caller told");
    passed("18", &figures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_amid_prefetched_password_resets_mails_nobody_twice() {
    const RESETS: usize = 64;
    let Some(node) = ours() else { return };
    let world =
        World::with(&texts(&[org_arguments(200), vec!["--latency".to_owned(), "100".to_owned()]].concat()))
            .await;
    let load = resets(&world.org, RESETS).await;
    let (proxy, url) = world.proxied(node);
    let many = [(BROKER_URL, &*url), ("OKTA_WORKER__BROKER__PREFETCH", "64")];
    let worker = world.worker_with(&Start { variables: &many, ..Start::default() });
    let mut run = Run::begin(&world).await;
    run.send(load).await;
    while run.gather().await < RESETS / 8 {
        tokio::time::sleep(super::child::LOOK_AGAIN).await;
    }
    proxy.cut(Which::All);
    let (verdict, history) = run.end(vec![worker], 0, PATIENCE).await;
    assert!(verdict.is_good(), "{verdict:#?}");
    let mut succeeded: Vec<_> = history
        .answered
        .iter()
        .filter(|answer| answer.status == "succeeded")
        .map(|answer| &answer.id)
        .collect();
    succeeded.sort_unstable();
    succeeded.dedup();
    assert!(
        10 * succeeded.len() >= 9 * RESETS,
        "{} of {RESETS} succeeded: {:#?}",
        succeeded.len(),
        history.answered
    );
    let mails = history.effects.iter().filter(|(kind, _)| kind == "mail.password_reset").count();
    let figures = format!("{} of {RESETS} succeeded, {mails} mails, nobody got two", succeeded.len());
    passed("27", &figures);
}

/// A backlog, and a broker that goes away for each of these times: first in order, then by SIGKILL.
async fn away_for(node: &Node, times: &[Duration]) -> String {
    const MESSAGES: usize = 30;
    let world = World::at(Place::on(node), &texts(&org_arguments(10)));
    let mut figures = Vec::new();
    for (number, time) in times.iter().enumerate() {
        // Somebody who waits does so for ten minutes, unless told otherwise.
        let patient = [("OKTA_WORKER__BROKER__INTERACTIVE_DEADLINE", "1h")];
        let worker = world.worker_with(&Start { variables: &patient, ..Start::default() });
        let load = prepare(&world.org, &format!("away{number}x"), MESSAGES, fastrand::u64(..)).await;
        let mut run = Run::begin(&world).await;
        run.send(load).await;
        node.run(if number % 2 == 0 { "stop" } else { "kill" }, &[]);
        tokio::time::sleep(*time).await;
        node.run("start", &[]);
        let back = Instant::now();
        while !worker.is_ready() {
            assert!(back.elapsed() < PATIENCE, "the worker does not come back: {}", worker.process.stderr());
            tokio::time::sleep(super::child::LOOK_AGAIN).await;
        }
        figures.push(format!("{} s away, ready after {:.1} s", time.as_secs(), back.elapsed().as_secs_f64()));
        run.connect().await;
        let (verdict, _) = run.end(vec![worker], 0, PATIENCE).await;
        assert!(verdict.is_good(), "{time:?}: {verdict:#?}");
    }
    figures.join("; ")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_goes_away_with_a_backlog_is_found_again_and_every_message_answered() {
    let Some(node) = alone().await else { return };
    let long = [2, 2, 30, 600].map(Duration::from_secs);
    let figures = away_for(&node, if is_long() { &long } else { &long[1..3] }).await;
    passed("4", &figures);
    passed("5", "the second time it was killed");
}
