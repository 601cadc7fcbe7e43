//! Hazards of broker policies: keys that make our queues lose or refuse messages.
//!
//! Policies and operator policies override a queue's own arguments. The lower one of two limits applies; for
//! `overflow`, the policy's value applies (RabbitMQ 3.10.8 and 4.0.5).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The keys and values of a policy, or the arguments of a queue.
pub type PolicyKeys = Map<String, Value>;

/// A queue and the policies in effect on it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Governed {
    /// The name.
    pub queue: String,
    /// The queue's own arguments.
    pub arguments: PolicyKeys,
    /// The names of the policies in effect.
    pub policies: Vec<String>,
    /// Their combined definition.
    pub definition: PolicyKeys,
}

/// One hazard that policies cause for queues.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hazard {
    /// The names of the policies.
    pub policies: Vec<String>,
    /// The consequence.
    pub what: String,
    /// The affected queues.
    pub queues: Vec<String>,
}

/// Returns the hazards of these queues, with equal ones grouped.
pub fn hazards(governed: &[Governed]) -> Vec<Hazard> {
    let mut found: BTreeMap<(Vec<String>, String), Vec<String>> = BTreeMap::new();
    for queue in governed {
        for what in of_queue(queue) {
            found.entry((queue.policies.clone(), what)).or_default().push(queue.queue.clone());
        }
    }
    found.into_iter().map(|((policies, what), queues)| Hazard { policies, what, queues }).collect()
}

fn of_queue(governed: &Governed) -> Vec<String> {
    /// The limits that do harm if they are lower than the queue's own: key, unit and consequence.
    const LIMITS: [(&str, &str, &str); 3] = [
        (
            "message-ttl",
            "ms",
            "messages that wait longer are dropped, and those in a delay tier come back too early",
        ),
        ("expires", "ms", "a queue that is unused for this time is deleted, with all its messages"),
        (
            "delivery-limit",
            "",
            "a message is given up after so many deliveries, and each restart of a worker counts as one",
        ),
    ];
    let Governed { arguments, definition, .. } = governed;
    let lower = |key: &str| {
        let number = |keys: &PolicyKeys, key: &str| keys.get(key).and_then(Value::as_i64);
        let limit = number(definition, key)?;
        number(arguments, &format!("x-{key}")).is_none_or(|own| limit < own).then_some(limit)
    };
    let mut found: Vec<_> = LIMITS
        .iter()
        .filter_map(|(key, unit, what)| {
            Some(format!("`{key}` of {} {unit}: {what}", lower(key)?).replace(" :", ":"))
        })
        .collect();
    let text = |keys: &PolicyKeys, key: &str| keys.get(key).and_then(Value::as_str).map(str::to_owned);
    let overflow = text(definition, "overflow").or_else(|| text(arguments, "x-overflow"));
    let refuses = overflow.as_deref().is_some_and(|overflow| overflow.starts_with("reject-publish"));
    let what = match refuses {
        true => {
            "beyond it messages are refused: producers wait, and so do the delay tiers of all connections"
        }
        false => "beyond it the oldest messages are dropped (`overflow` is `drop-head`)",
    };
    let lengths = ["max-length", "max-length-bytes"];
    found.extend(lengths.iter().filter_map(|key| Some(format!("`{key}` of {}: {what}", lower(key)?))));
    let is_at_least_once = text(arguments, "x-dead-letter-strategy").as_deref() == Some("at-least-once");
    if is_at_least_once && !refuses {
        let what = "`overflow` other than `reject-publish`: dead letters may be lost on their way";
        found.push(what.to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn governed(queue: &str, arguments: Value, definition: Value) -> Governed {
        let keys = |value: Value| value.as_object().cloned().unwrap_or_default();
        let (queue, policies) = (queue.to_owned(), vec!["p".to_owned()]);
        Governed { queue, arguments: keys(arguments), policies, definition: keys(definition) }
    }

    #[test]
    fn what_loses_or_refuses_messages_is_named_and_nothing_else() {
        let work = json!({"x-overflow": "reject-publish", "x-delivery-limit": 10,
                          "x-dead-letter-strategy": "at-least-once"});
        let dead = json!({"x-overflow": "drop-head", "x-message-ttl": 1000, "x-max-length": 5});
        for (arguments, definition, starts) in [
            (&work, json!({}), &[][..]),
            (&work, json!([]), &[]),
            (&work, json!({"queue-mode": "lazy", "ha-mode": "all", "dead-letter-exchange": "x"}), &[]),
            (&work, json!({"message-ttl": 60_000}), &["`message-ttl` of 60000 ms: "]),
            (&work, json!({"expires": 1}), &["`expires` of 1 ms: "]),
            (&work, json!({"delivery-limit": 10}), &[]),
            (&work, json!({"delivery-limit": 3}), &["`delivery-limit` of 3: a message is given up"]),
            (&work, json!({"max-length": 9}), &["`max-length` of 9: beyond it messages are refused"]),
            (
                &work,
                json!({"max-length-bytes": 9, "overflow": "drop-head"}),
                &["`max-length-bytes` of 9: beyond it the oldest", "`overflow` other than"],
            ),
            (&work, json!({"overflow": "drop-head"}), &["`overflow` other than `reject-publish`"]),
            (&dead, json!({"message-ttl": 1000, "max-length": 5}), &[]),
            (
                &dead,
                json!({"message-ttl": 999, "max-length": 4}),
                &["`message-ttl` of 999 ms", "`max-length` of 4: beyond it the oldest messages are dropped"],
            ),
        ] {
            let found = of_queue(&governed("q", arguments.clone(), definition.clone()));
            let as_expected = found.len() == starts.len()
                && found.iter().zip(starts).all(|(found, start)| found.starts_with(start));
            assert!(as_expected, "{definition}: {found:?}");
        }
    }

    #[test]
    fn what_a_policy_does_to_several_queues_is_said_once() {
        let ttl = || json!({"message-ttl": 1});
        let all = [governed("a", json!({}), ttl()), governed("b", json!({}), ttl())];
        let found = hazards(&all);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (&found[0].policies[..], &found[0].queues[..]),
            (&["p".to_owned()][..], &["a".to_owned(), "b".to_owned()][..])
        );
    }
}
