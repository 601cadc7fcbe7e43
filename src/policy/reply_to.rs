//! The queue names that `reply_to` may hold.
//!
//! The worker publishes through the default exchange, which reaches every queue of the virtual host.
//! Without this rule a caller could have results delivered into `okta.dead` or into another
//! connection's work queue.

use crate::domain::topology::{DIRECT_REPLY, REPLIES};

/// The prefix of our own names; of these, only `okta.replies.*` are reply queues.
const OWN_PREFIX: &str = "okta.";

/// The names of queues that may receive results. Direct reply-to is always allowed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplyPolicy {
    /// Patterns in which `*` stands for any text; an empty list allows any name.
    patterns: Vec<String>,
}

impl ReplyPolicy {
    /// Parses patterns such as `agents.*`; `*` stands for any text.
    ///
    /// # Errors
    /// The index of the first pattern that is empty or holds white space, and a message.
    pub fn parse(patterns: &[impl AsRef<str>]) -> Result<Self, (usize, String)> {
        for (at, pattern) in patterns.iter().map(AsRef::as_ref).enumerate() {
            if pattern.is_empty() || pattern.contains(|c: char| c.is_whitespace() || "^$\\()|[]".contains(c))
            {
                let message = "must be a queue name in which `*` stands for any text, such as `agents.*`";
                return Err((at, message.to_owned()));
            }
        }
        Ok(Self { patterns: patterns.iter().map(|pattern| pattern.as_ref().to_owned()).collect() })
    }

    /// Returns true if the queue with this name may receive results. No pattern allows the worker's own queues.
    pub fn allows(&self, name: &str) -> bool {
        if name.starts_with(DIRECT_REPLY) {
            return true;
        }
        if name.starts_with(OWN_PREFIX) && !(name.starts_with(REPLIES) && name.len() > REPLIES.len()) {
            return false;
        }
        self.patterns.is_empty() || self.patterns.iter().any(|pattern| matches(pattern, name))
    }
}

/// Returns true if the whole text matches the pattern.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|text| {
            (0..=text.len()).filter(|at| text.is_char_boundary(*at)).any(|at| matches(rest, &text[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workers_own_queues_are_never_a_reply_queue() {
        for policy in [ReplyPolicy::default(), ReplyPolicy::parse(&["*"]).unwrap()] {
            for own in ["okta.dead", "okta.invocations.prod.bulk", "okta.replies.", "okta.results.unclaimed"]
            {
                assert!(!policy.allows(own), "{own}");
            }
            for good in ["answers", "okta.replies.submit.1", "amq.gen-x", "amq.rabbitmq.reply-to.g1hkAA"] {
                assert!(policy.allows(good), "{good}");
            }
        }
    }

    #[test]
    fn patterns_match_the_whole_name() {
        let policy = ReplyPolicy::parse(&["agents.*", "hr"]).unwrap();
        assert!(policy.allows("agents.a1") && policy.allows("hr"));
        assert!(!policy.allows("xagents.a1") && !policy.allows("hr2"));
        assert!(policy.allows("amq.rabbitmq.reply-to.g1hkAA"));
        assert!(matches("a*b*c", "a--b--b--c") && !matches("a*b", "a-b-"));
    }

    #[test]
    fn a_regular_expression_is_refused_rather_than_misread() {
        assert_eq!(ReplyPolicy::parse(&["hr", "^agents\\."]).unwrap_err().0, 1);
    }
}
