//! `docs/retries.md`: every decision after an answer, during a pause and while a worker stops.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use okta_worker::domain::ids::Lane;
use okta_worker::policy::backoff::{LAG, LOCAL, RetryRules, WAIT_IN_HAND_MAX};
use okta_worker::policy::classify::{FailureKind, LimitKind, Meaning};
use okta_worker::policy::decide::{
    Attempt, Failed, HELD_MAX, Held, Situation, Step, WhilePaused, decide, decide_while_paused,
    leaves_when_draining,
};
use okta_worker::policy::pause::PauseReason;
use okta_worker::tools::Idempotency;

const FILE: &str = "docs/retries.md";

const CLASSES: [Idempotency; 5] = [
    Idempotency::Read,
    Idempotency::Set,
    Idempotency::Create,
    Idempotency::Transition,
    Idempotency::NonIdempotent,
];

/// One combination of everything that a decision depends on besides the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    class: Idempotency,
    is_bulk: bool,
    is_last: bool,
    is_redelivered: bool,
}

impl Case {
    fn lane(self) -> Lane {
        if self.is_bulk { Lane::Bulk } else { Lane::Interactive }
    }

    /// Attempts that earlier deliveries have spent.
    fn earlier(self) -> u32 {
        if self.is_last { RetryRules::default().attempts_max - 1 } else { 0 }
    }

    /// The state after so many of the same answer to a request of this class.
    fn attempt(self, meaning: Meaning, times: u32) -> Attempt {
        let is_read = self.class == Idempotency::Read;
        let mut attempt = Attempt::new(self.earlier(), self.is_redelivered && !is_read);
        for _ in 0..times {
            attempt.sent(is_read);
            attempt.answered(meaning, is_read, 0);
        }
        attempt
    }
}

fn cases() -> impl Iterator<Item = Case> {
    let bools = [false, true];
    CLASSES.into_iter().flat_map(move |class| {
        bools.into_iter().flat_map(move |is_bulk| {
            bools.into_iter().flat_map(move |is_last| {
                bools.map(move |is_redelivered| Case { class, is_bulk, is_last, is_redelivered })
            })
        })
    })
}

/// An answer in words, its meaning, Okta's `Retry-After` and the time until the deadline.
#[derive(Clone, Copy)]
struct Answer {
    name: &'static str,
    meaning: Meaning,
    /// The number of them in a row.
    times: u32,
    /// True if the same request can ask for a smaller page.
    is_smaller: bool,
    asked: Option<Duration>,
    left: Option<Duration>,
}

fn answers() -> Vec<Answer> {
    let minute = Duration::from_secs(60);
    let plain =
        |name, meaning| Answer { name, meaning, times: 1, is_smaller: false, asked: None, left: None };
    let failed = |name, kind| plain(name, Meaning::Failed(kind));
    vec![
        plain("a success, or a refusal that a retry would not change", Meaning::Answered),
        plain("401: Okta refuses the credential", Meaning::Refused(PauseReason::Unauthorized)),
        plain("403: Okta refuses a scope that it accepted before", Meaning::Refused(PauseReason::Forbidden)),
        plain("429: the window of the bucket is used up", Meaning::Limited(LimitKind::Window)),
        plain("429: too many concurrent requests", Meaning::Limited(LimitKind::Concurrency)),
        failed("no connection: the request was not sent", FailureKind::NotSent),
        failed("no answer: the request may have been executed", FailureKind::NoAnswer),
        failed("500 or another 5xx", FailureKind::ServerError),
        failed("502 or 504", FailureKind::Gateway),
        failed("an answer that is not Okta's, such as a proxy's page", FailureKind::NotOkta),
        failed("503", FailureKind::Unavailable),
        Answer { asked: Some(minute), ..failed("503 with `Retry-After: 60`", FailureKind::Unavailable) },
        Answer {
            asked: Some(minute),
            left: Some(minute / 2),
            ..failed("503 with `Retry-After: 60`, 30 s before the deadline", FailureKind::Unavailable)
        },
        failed("503 E0000010: Okta is in read-only mode", FailureKind::ReadOnly),
        failed("409 or 423: Okta is still setting up an object", FailureKind::Busy),
        failed("404 about an object that this worker has just created", FailureKind::Lag),
        Answer {
            times: LAG.attempts_max + 1,
            ..failed("404 about a newly created object, after the last retry", FailureKind::Lag)
        },
        failed("an answer beyond the size limit", FailureKind::TooLarge),
        Answer {
            is_smaller: true,
            ..failed(
                "an answer beyond the size limit, where a smaller page can be requested",
                FailureKind::TooLarge,
            )
        },
        failed("the worker's machine lacks a resource, such as open files", FailureKind::Local),
        Answer {
            times: LOCAL.attempts_max,
            ..failed("the worker's machine lacks a resource, after the last retry", FailureKind::Local)
        },
    ]
}

fn in_words(wait: Duration) -> String {
    match (wait.as_secs(), wait.subsec_millis()) {
        (0, millis) => format!("{millis} ms"),
        (seconds, 0) if seconds >= 60 && seconds % 60 == 0 => format!("{} min", seconds / 60),
        (seconds, 0) => format!("{seconds} s"),
        (seconds, millis) => format!("{seconds}.{:03} s", millis),
    }
}

fn failure(Failed { code, effect, is_final, retry_in }: Failed) -> String {
    let mut text = format!("fail: `{}`, effect `{}`", code.as_str(), effect.as_str());
    if is_final {
        text += ", not retryable";
    }
    if let Some(wait) = retry_in {
        write!(text, ", `retry_at` in {}", in_words(wait)).unwrap();
    }
    text
}

/// The decision for one case in words; waits are those of the largest jitter.
fn decision(answer: &Answer, case: Case) -> String {
    let attempt = case.attempt(answer.meaning, answer.times);
    let situation = Situation {
        idempotency: case.class,
        lane: case.lane(),
        may_leave: true,
        is_read: case.class == Idempotency::Read,
        is_smaller: answer.is_smaller && case.class == Idempotency::Read,
        asked: answer.asked,
        left: answer.left,
        good_answers: 0,
        retry: RetryRules::default(),
    };
    let step = decide(&attempt, answer.meaning, &situation, 1.0);
    let text = match step {
        Step::Continue => "the subtool continues with the answer".to_owned(),
        Step::RetryIn(Duration::ZERO) => "wait for the next window".to_owned(),
        Step::RetryIn(wait) => format!("retry within {}", in_words(wait)),
        Step::DelayFor(wait) => format!("delay queue, about {}", in_words(wait)),
        Step::ReconcileIn(wait) => format!("reconcile within {}", in_words(wait)),
        Step::HandBack => "back to the queue".to_owned(),
        Step::Pause(reason) => format!("pause the connection: `{}`", reason.as_str()),
        Step::Probe => {
            let elsewhere = Situation { good_answers: 1, ..situation };
            let Step::GiveUp(failed) = decide(&attempt, answer.meaning, &elsewhere, 1.0) else {
                panic!("a connection that works leaves nothing but failing")
            };
            format!(
                "probe; if that fails, pause the connection: `unreachable`; otherwise {}",
                failure(failed)
            )
        }
        Step::GiveUp(failed) => failure(failed),
    };
    format!("{text} | {}", attempt.spent() - case.earlier())
}

/// The rows of one answer, without its name; "any" stands for every value that gives the same.
fn rows(answer: &Answer) -> Vec<String> {
    let mut by_class: BTreeMap<Vec<String>, Vec<Idempotency>> = BTreeMap::new();
    for class in CLASSES {
        let table = cases().filter(|case| case.class == class).map(|case| decision(answer, case)).collect();
        by_class.entry(table).or_default().push(class);
    }
    let mut groups: Vec<_> = by_class.into_values().collect();
    groups.sort();
    let mut rows = Vec::new();
    for classes in groups {
        let names = match classes.len() == CLASSES.len() {
            true => "any".to_owned(),
            false => classes.iter().map(|class| class.as_str()).collect::<Vec<_>>().join(", "),
        };
        let of_class: Vec<_> = cases().filter(|case| case.class == classes[0]).collect();
        let depends = |of: fn(Case) -> Case| {
            of_class.iter().any(|case| decision(answer, *case) != decision(answer, of(*case)))
        };
        let by_lane = depends(|case| Case { is_bulk: !case.is_bulk, ..case });
        let by_attempt = depends(|case| Case { is_last: !case.is_last, ..case });
        let by_delivery = depends(|case| Case { is_redelivered: !case.is_redelivered, ..case });
        for case in of_class {
            let repeats = (case.is_bulk && !by_lane)
                || (case.is_last && !by_attempt)
                || (case.is_redelivered && !by_delivery);
            if repeats {
                continue;
            }
            let either = |depends: bool, is: bool, names: [&'static str; 2]| match depends {
                true => names[usize::from(is)],
                false => "any",
            };
            let lane = either(by_lane, case.is_bulk, ["interactive", "bulk"]);
            let attempt = either(by_attempt, case.is_last, ["earlier", "last"]);
            let delivery = either(by_delivery, case.is_redelivered, ["first", "repeated"]);
            rows.push(format!("{names} | {lane} | {attempt} | {delivery} | {}", decision(answer, case)));
        }
    }
    rows
}

fn paused() -> String {
    let mut text = String::from("| pause | lane | this delivery has | next step |\n|---|---|---|---|\n");
    let said = |is_read| {
        let mut attempt = Attempt::new(0, false);
        attempt.sent(is_read);
        attempt.answered(Meaning::Answered, is_read, 0);
        attempt.delivered(is_read, true);
        attempt
    };
    let mut in_doubt = Attempt::new(0, false);
    in_doubt.sent(false);
    in_doubt.answered(Meaning::Failed(FailureKind::NoAnswer), false, 0);
    let states = [
        ("only sent reads", said(true)),
        ("sent a write that Okta accepted", said(false)),
        ("sent a `create`, `transition` or `emit` whose outcome is unknown", in_doubt),
    ];
    for reason in PauseReason::ALL {
        for lane in [Lane::Interactive, Lane::Bulk] {
            for (state, attempt) in states {
                let step = |held| {
                    let step = decide_while_paused(&attempt, reason, (lane, true), Idempotency::Create, held);
                    match step {
                        WhilePaused::HandBack => "back to the queue".to_owned(),
                        WhilePaused::HoldFor(most) => format!("hold for at most {}", in_words(most)),
                        WhilePaused::GiveUp(failed) => failure(failed),
                    }
                };
                let (now, later) = (step(Held::No), step(Held::TooLong));
                let then = if now == later { now } else { format!("{now}, then {later}") };
                writeln!(text, "| `{}` | {} | {state} | {then} |", reason.as_str(), lane.as_str()).unwrap();
            }
        }
    }
    text
}

fn draining() -> String {
    let mut text =
        String::from("| the message waits, and so far | next step | attempts used |\n|---|---|---|\n");
    let none = Attempt::new(0, false);
    let after = |is_read, meaning| {
        let mut attempt = none;
        attempt.sent(is_read);
        attempt.answered(meaning, is_read, 0);
        attempt
    };
    let mut written = after(false, Meaning::Answered);
    written.delivered(false, true);
    let states = [
        ("nothing was sent", none),
        ("a read was answered", after(true, Meaning::Answered)),
        ("a read failed", after(true, Meaning::Failed(FailureKind::Gateway))),
        ("a request met a rate limit", after(false, Meaning::Limited(LimitKind::Window))),
        ("a write was accepted", written),
        ("the outcome of a write is unknown", after(false, Meaning::Failed(FailureKind::NoAnswer))),
    ];
    for (name, attempt) in states {
        let (step, spent) = match leaves_when_draining(&attempt) {
            true => ("back to the queue", attempt.spent().to_string()),
            false => ("the worker finishes it", "as usual".to_owned()),
        };
        writeln!(text, "| {name} | {step} | {spent} |").unwrap();
    }
    text
}

fn page() -> String {
    let RetryRules { attempts_max, base, cap } = RetryRules::default();
    let mut text = format!(
        "# Retries\n\nWritten by `UPDATE_DOCS=1 cargo test --test golden`: every decision of `src/policy/decide.rs`, \
         with the default settings ({attempts_max} attempts; full-jitter exponential backoff from {} to {}). The \
         tables show the longest wait after a first attempt; jitter shortens it, and each further attempt doubles it. \
         If a wait is longer than {} and the invocation has written nothing, the message waits in a delay queue.\n\n\
         * *Class*: the idempotency class of the subtool ([subtools.md](subtools.md)).\n\
         * *Attempt*: `last` if no attempt is left after the one that failed, else `earlier`.\n\
         * *Delivery*: `first`, or `repeated` if an earlier delivery may have run the message.\n\
         * *Attempts used*: the attempts that the answer adds to the count. A delay, a rate limit, a return to the \
         queue and a stopping worker use none.\n\
         * *Reconcile*: read in Okta whether the write took effect; if it did not, send it again, which is another \
         attempt.\n\
         * *Probe*: one cheap request that shows whether the connection works.\n\
         * *Pause*: the circuit breaker opens for the connection, until a probe succeeds.\n\
         * *Back to the queue*: a copy of the message goes to the end of its queue.\n\n## After an answer\n\n",
        in_words(base),
        in_words(cap),
        in_words(WAIT_IN_HAND_MAX),
    );
    text += "| answer | class | lane | attempt | delivery | next step | attempts used |\n|---|---|---|---|---|---|---|\n";
    let mut tables: Vec<(Vec<&str>, Vec<String>)> = Vec::new();
    for answer in answers() {
        let of_answer = rows(&answer);
        match tables.iter_mut().find(|(_, rows)| *rows == of_answer) {
            Some((names, _)) => names.push(answer.name),
            None => tables.push((vec![answer.name], of_answer)),
        }
    }
    for (names, rows) in tables {
        for row in rows {
            writeln!(text, "| {} | {row} |", names.join("; ")).unwrap();
        }
    }
    write!(
        text,
        "\n## While the connection is paused\n\nA pause stops only the invocations that it concerns: `read_only` does \
         not stop reads, and `forbidden` stops only subtools that need the lost scope. Attempts that failed for the \
         reason of the pause are not counted. *Hold*: the worker keeps the message unacknowledged; if it cannot \
         publish a copy of the message, it holds the message for at most {} and then fails the invocation.\n\n{}\n\
         ## While the worker stops\n\n{}",
        in_words(HELD_MAX),
        paused(),
        draining(),
    )
    .unwrap();
    text
}

#[test]
fn the_page_of_retries_is_what_the_worker_decides() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&file, page()).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(there == page(), "{FILE} is out of date: run `UPDATE_DOCS=1 cargo test --test golden`");
}

#[test]
fn neither_a_rate_limit_nor_a_delay_nor_a_drain_spends_an_attempt() {
    for meaning in [Meaning::Limited(LimitKind::Window), Meaning::Limited(LimitKind::Concurrency)] {
        for case in cases() {
            assert_eq!(case.attempt(meaning, 1).spent(), case.earlier(), "{case:?}");
        }
    }
    for case in cases() {
        let mut attempt = Attempt::new(case.earlier(), false);
        attempt.sent(true);
        assert_eq!(attempt.spent(), case.earlier(), "{case:?}");
        assert_eq!(attempt.total(), attempt.spent() + 1, "the answer tells of it");
    }
}

#[test]
fn failures_that_a_pause_explains_are_no_attempts() {
    let mut attempt = Attempt::new(1, false);
    for _ in 0..3 {
        attempt.sent(true);
        attempt.answered(Meaning::Failed(FailureKind::NotSent), true, 7);
    }
    assert_eq!(attempt.spent(), 4);
    attempt.paused();
    assert_eq!(attempt.spent(), 1);
    // A good answer in between shows that the failures before it were the invocation's own.
    attempt.sent(true);
    attempt.answered(Meaning::Failed(FailureKind::NotSent), true, 7);
    attempt.sent(true);
    attempt.answered(Meaning::Answered, true, 7);
    attempt.delivered(true, true);
    attempt.paused();
    assert_eq!((attempt.spent(), attempt.total()), (2, 3));
}

#[test]
fn a_request_that_this_machine_could_not_send_begins_no_attempt() {
    for is_read in [true, false] {
        let untouched = Attempt::new(0, false);
        let mut attempt = untouched;
        attempt.sent(is_read);
        assert_eq!(attempt.total(), 1, "it is on its way");
        attempt.answered(Meaning::Failed(FailureKind::Local), is_read, 0);
        assert_eq!((attempt.total(), attempt.doubt()), (0, untouched.doubt()));
        // A failed attempt stays one, and the next request still begins another.
        attempt.sent(is_read);
        attempt.answered(Meaning::Failed(FailureKind::NotSent), is_read, 0);
        attempt.sent(is_read);
        attempt.answered(Meaning::Failed(FailureKind::Local), is_read, 0);
        assert_eq!((attempt.total(), attempt.spent()), (1, 1));
        attempt.sent(is_read);
        assert_eq!(attempt.total(), 2);
    }
}
