//! Compares what was asked with what was answered and what was really done, as Jepsen's total-queue does.
//!
//! Pure: a history goes in, what is wrong with it comes out. An effect is a change of state, a mail or a
//! minted secret in the org's own ledger; a request that changed nothing is none.

use std::collections::{BTreeMap, BTreeSet};

/// One invocation as it was asked for.
#[derive(Debug, Clone, Default)]
pub struct Asked {
    /// Its id.
    pub id: String,
    /// Whether the broker has confirmed it.
    pub confirmed: bool,
    /// Whether it mails or mints something.
    pub emits: bool,
    /// The kinds of effect it may have, each once at most.
    pub effects: &'static [&'static str],
    /// On whom or what; `None` for what it creates.
    pub subject: Option<String>,
    /// Whether Okta tells that it changed something: of members and updates it does not.
    pub is_told: bool,
    /// Nothing stands in its way: it succeeds, unless nobody can tell.
    pub must_succeed: bool,
    /// It is there to be parked.
    pub is_poison: bool,
}

/// One answer.
#[derive(Debug, Clone, Default)]
pub struct Answered {
    /// The invocation's id.
    pub id: String,
    /// `succeeded` or `failed`.
    pub status: String,
    /// `applied`, `unchanged`, `none` or `unknown`.
    pub effect: String,
    /// `error.code` of a failure.
    pub code: Option<String>,
    /// The subtool, and what went wrong, for people.
    pub why: String,
    /// `result.id` of a success.
    pub created: Option<String>,
}

/// One effect of the org's ledger: its kind, and on whom or what.
pub type Effect = (String, String);

/// All that happened in a run.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// In any order.
    pub asked: Vec<Asked>,
    /// As they came.
    pub answered: Vec<Answered>,
    /// The ids of parked messages.
    pub parked: Vec<String>,
    /// In the org's order.
    pub effects: Vec<Effect>,
    /// Queues of work that are not empty at the end, and how many messages are there.
    pub left: Vec<(&'static str, u32)>,
}

/// What is wrong, and what merely happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Confirmed and neither answered nor parked.
    pub lost: Vec<String>,
    /// Failed although nothing stood in their way.
    pub failed: Vec<String>,
    /// Parked although nothing was wrong with them.
    pub parked: Vec<String>,
    /// Answers nobody asked for, and effects nobody asked for.
    pub unexpected: Vec<String>,
    /// Effects that happened more often than they were asked for.
    pub twice: Vec<String>,
    /// Said to be applied, and nothing of it in the ledger; or said to be nothing, and there it is.
    pub untrue: Vec<String>,
    /// Two answers to one id that exclude each other.
    pub contradictions: Vec<String>,
    /// `outcome_unknown` or `effect: unknown` of what can be looked up.
    pub unknown: Vec<String>,
    /// Messages left.
    pub left: Vec<(&'static str, u32)>,
    /// `outcome_unknown` of what mails or mints: allowed, and counted.
    pub unknown_emits: usize,
    /// Invocations that were answered more than once: allowed, and counted.
    pub answered_again: usize,
}

impl Verdict {
    /// Whether the promise was kept.
    pub fn is_good(&self) -> bool {
        let lists = [
            &self.lost,
            &self.failed,
            &self.parked,
            &self.unexpected,
            &self.twice,
            &self.untrue,
            &self.contradictions,
            &self.unknown,
        ];
        self.left.is_empty() && lists.iter().all(|list| list.is_empty())
    }
}

/// Looks through a history.
pub fn check(history: &History) -> Verdict {
    let asked: BTreeMap<&str, &Asked> = history.asked.iter().map(|asked| (&*asked.id, asked)).collect();
    let mut answers: BTreeMap<&str, Vec<&Answered>> = BTreeMap::new();
    for answer in &history.answered {
        answers.entry(&answer.id).or_default().push(answer);
    }
    let parked: BTreeSet<&str> = history.parked.iter().map(String::as_str).collect();
    let mut verdict = Verdict { left: history.left.clone(), ..Verdict::default() };
    for (id, asked) in &asked {
        let said = answers.get(id).map(Vec::as_slice).unwrap_or_default();
        if asked.confirmed && said.is_empty() && !(asked.is_poison && parked.contains(id)) {
            verdict.lost.push((*id).to_owned());
        }
        verdict.answered_again += usize::from(said.len() > 1);
        verdict.unknown_emits += usize::from(asked.emits && said.iter().any(|answer| is_unknown(answer)));
        if asked.must_succeed && said.iter().any(|answer| answer.status != "succeeded" && !is_unknown(answer))
        {
            verdict.failed.push((*id).to_owned());
        }
        if !asked.emits && said.iter().any(|answer| is_unknown(answer)) {
            verdict.unknown.push((*id).to_owned());
        }
        if said.iter().any(|one| said.iter().any(|other| excludes(one, other))) {
            verdict.contradictions.push((*id).to_owned());
        }
    }
    let strangers = answers.keys().filter(|id| !asked.contains_key(*id)).map(|id| format!("answer {id}"));
    verdict.unexpected.extend(strangers);
    let good = |id: &&str| !asked.get(*id).is_some_and(|asked| asked.is_poison);
    verdict.parked = parked.iter().filter(|id| good(id)).map(|id| (*id).to_owned()).collect();
    check_effects(history, &answers, &mut verdict);
    verdict
}

/// Compares the ledger with what was asked for and what was said.
fn check_effects(history: &History, answers: &BTreeMap<&str, Vec<&Answered>>, verdict: &mut Verdict) {
    let mut done: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (kind, subject) in &history.effects {
        *done.entry((kind, subject)).or_default() += 1;
    }
    // How often each effect may be there, and how often it must.
    let (mut most, mut least) = (BTreeMap::new(), BTreeMap::new());
    let mut creations: BTreeMap<&str, usize> = BTreeMap::new();
    for asked in &history.asked {
        let said = answers.get(&*asked.id).map(Vec::as_slice).unwrap_or_default();
        let created = said.iter().find_map(|answer| answer.created.as_deref());
        let subject = asked.subject.as_deref().or(created);
        let is_applied = said.iter().any(|answer| answer.effect == "applied");
        for kind in asked.effects {
            match subject {
                Some(subject) => {
                    *most.entry((*kind, subject)).or_insert(0_usize) += 1;
                    *least.entry((*kind, subject)).or_insert(0_usize) +=
                        usize::from(is_applied && asked.is_told);
                }
                None => *creations.entry(kind).or_default() += 1,
            }
        }
    }
    for ((kind, subject), times) in &done {
        let allowed = most.get(&(*kind, *subject)).copied().unwrap_or(0);
        // A creation whose answer never told the id.
        let spare = creations.get_mut(kind).filter(|left| allowed == 0 && **left > 0);
        let allowed = spare.map_or(allowed, |left| {
            *left -= 1;
            1
        });
        if allowed == 0 {
            verdict.unexpected.push(format!("{kind} {subject}"));
        } else if *times > allowed {
            verdict.twice.push(format!("{kind} {subject}: {times} of {allowed}"));
        }
    }
    // Where several asked for the same, one of them may have found it done.
    for ((kind, subject), applied) in &least {
        let times = done.get(&(*kind, *subject)).copied().unwrap_or(0);
        if *applied > 0 && times == 0 {
            verdict.untrue.push(format!("{kind} {subject}: said to be applied"));
        }
    }
}

fn is_unknown(answer: &Answered) -> bool {
    answer.effect == "unknown" || answer.code.as_deref() == Some("outcome_unknown")
}

/// Whether two answers to one invocation cannot both be true. That nobody could tell is no contradiction.
fn excludes(one: &Answered, other: &Answered) -> bool {
    !is_unknown(one)
        && !is_unknown(other)
        && (one.status != other.status || one.code != other.code || one.created != other.created)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(id: &str, subject: &str) -> Asked {
        let (id, subject) = (id.to_owned(), Some(subject.to_owned()));
        let effects = &["user.suspended"];
        Asked { id, subject, confirmed: true, effects, is_told: true, ..Asked::default() }
    }

    fn answered(id: &str, effect: &str) -> Answered {
        let status = if effect == "none" { "failed" } else { "succeeded" }.to_owned();
        Answered { id: id.to_owned(), status, effect: effect.to_owned(), ..Answered::default() }
    }

    fn done(kind: &str, subject: &str) -> Effect {
        (kind.to_owned(), subject.to_owned())
    }

    /// Two that suspend one user, and one that suspends another.
    fn good() -> History {
        History {
            asked: vec![asked("a", "u"), asked("b", "u"), asked("c", "v")],
            answered: vec![answered("a", "applied"), answered("b", "unchanged"), answered("c", "applied")],
            effects: vec![done("user.suspended", "u"), done("user.suspended", "v")],
            ..History::default()
        }
    }

    #[test]
    fn a_good_history_is_good_and_one_answered_twice_is_too() {
        assert!(check(&good()).is_good(), "{:?}", check(&good()));
        let mut again = good();
        again.answered.push(answered("a", "applied"));
        let verdict = check(&again);
        assert!(verdict.is_good() && verdict.answered_again == 1, "{verdict:?}");
    }

    #[test]
    fn what_was_confirmed_and_not_answered_is_lost_and_what_was_not_confirmed_is_not() {
        let mut history = good();
        history.answered.pop();
        assert_eq!(check(&history).lost, ["c"]);
        history.asked[2].confirmed = false;
        assert!(check(&history).is_good());
    }

    #[test]
    fn one_effect_more_than_was_asked_for_is_twice() {
        let mut history = good();
        history.effects.push(done("user.suspended", "v"));
        assert_eq!(check(&history).twice, ["user.suspended v: 2 of 1"]);
        // Two asked for it, so it may be there twice.
        let mut shared = good();
        shared.effects.push(done("user.suspended", "u"));
        assert!(check(&shared).is_good());
    }

    #[test]
    fn what_nobody_asked_for_is_unexpected() {
        let mut history = good();
        history.effects.push(done("user.deleted", "u"));
        history.answered.push(answered("x", "applied"));
        assert_eq!(check(&history).unexpected, ["answer x", "user.deleted u"]);
    }

    #[test]
    fn what_is_said_to_be_applied_is_in_the_ledger() {
        let mut history = good();
        history.effects.pop();
        assert_eq!(check(&history).untrue, ["user.suspended v: said to be applied"]);
    }

    #[test]
    fn a_creation_is_known_by_the_id_it_was_answered_with() {
        let create = Asked { subject: None, effects: &["group.created"], ..asked("g", "") };
        let answer = Answered { created: Some("00g1".to_owned()), ..answered("g", "applied") };
        let mut history = History {
            asked: vec![create],
            answered: vec![answer],
            effects: vec![done("group.created", "00g1")],
            ..History::default()
        };
        assert!(check(&history).is_good(), "{:?}", check(&history));
        history.effects.push(done("group.created", "00g2"));
        assert_eq!(check(&history).unexpected, ["group.created 00g2"]);
    }

    #[test]
    fn what_nothing_stands_in_the_way_of_must_not_fail() {
        let mut history = good();
        history.asked[2].must_succeed = true;
        assert!(check(&history).is_good());
        history.answered[2] = answered("c", "none");
        history.effects.pop();
        assert_eq!(check(&history).failed, ["c"]);
    }

    #[test]
    fn only_what_mails_may_not_know() {
        let mut history = good();
        history.answered[2] = answered("c", "unknown");
        assert_eq!(check(&history).unknown, ["c"]);
        history.asked[2].emits = true;
        let verdict = check(&history);
        assert!(verdict.is_good() && verdict.unknown_emits == 1, "{verdict:?}");
    }

    #[test]
    fn answers_that_exclude_each_other_and_good_messages_that_were_parked_are_wrong() {
        let mut history = good();
        history.answered.push(Answered { code: Some("not_found".to_owned()), ..answered("a", "none") });
        history.parked.push("b".to_owned());
        let verdict = check(&history);
        assert_eq!((verdict.contradictions, verdict.parked), (vec!["a".to_owned()], vec!["b".to_owned()]));
        let mut poison = good();
        poison.asked.push(Asked { id: "p".to_owned(), confirmed: true, is_poison: true, ..Asked::default() });
        poison.parked.push("p".to_owned());
        assert!(check(&poison).is_good(), "{:?}", check(&poison));
    }

    #[test]
    fn a_backlog_that_does_not_end_is_wrong() {
        assert!(!check(&History { left: vec![("q", 1)], ..good() }).is_good());
    }
}
