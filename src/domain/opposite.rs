//! Names that look alike and mean the opposite.
//!
//! People and models in a hurry accept a suggestion for a wrong name. Invariant: a known name is not
//! suggested if the wrong name is as near to its opposite.

/// Pairs of words that undo each other, or do different things to the same object.
const PAIRS: [(&str, &str); 22] = [
    ("activate", "deactivate"),
    ("activate", "reactivate"),
    ("reactivate", "deactivate"),
    ("suspend", "unsuspend"),
    ("lock", "unlock"),
    ("block", "unlock"),
    ("assign", "unassign"),
    ("assign", "remove"),
    ("add", "remove"),
    ("create", "delete"),
    ("update", "delete"),
    ("include", "exclude"),
    ("enable", "disable"),
    ("allow", "deny"),
    ("grant", "revoke"),
    ("expire", "reset"),
    ("before", "after"),
    ("since", "until"),
    ("start", "stop"),
    ("min", "max"),
    ("read", "write"),
    ("asc", "desc"),
];

/// Prefixes that reverse the meaning of a word.
const PREFIXES: [&str; 7] = ["de", "dis", "ex", "in", "non", "re", "un"];

/// Words that negate the rest of a name.
const NEGATIONS: [&str; 10] =
    ["no", "non", "not", "dont", "do", "never", "without", "skip", "disable", "exclude"];

/// The lead, in letters, that a known word needs over its opposite: a slip is one or two letters, so a closer word may
/// be meant as the opposite. Pairs that differ by less need a lead of their own distance.
const MARGIN: usize = 2;

/// Splits a name into lower-case words, at signs and between a lower-case and an upper-case letter.
pub fn words(name: &str) -> Vec<String> {
    let (mut words, mut word, mut was_small) = (Vec::new(), String::new(), false);
    for c in name.chars() {
        if (!c.is_alphanumeric() || (c.is_uppercase() && was_small)) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        was_small = c.is_lowercase() || c.is_numeric();
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// Returns the edit distance between two words, in letters.
pub fn distance(one: &str, other: &str) -> usize {
    strsim::damerau_levenshtein(one, other)
}

/// Returns true if a wrong name may mean the opposite of a known one, or something else altogether.
pub fn is_opposite(wrong: &str, known: &str) -> bool {
    let (wrong, known) = (words(wrong), words(known));
    if wrong.len() == known.len() {
        return wrong.iter().zip(&known).any(|(wrong, known)| turns(wrong, known));
    }
    let rest = |longer: &[String], shorter: &[String]| {
        longer.iter().any(|word| NEGATIONS.contains(&word.as_str()) && !shorter.contains(word))
    };
    rest(&wrong, &known) || rest(&known, &wrong)
}

/// Returns true if a word may mean the opposite of a known one.
fn turns(wrong: &str, known: &str) -> bool {
    if wrong == known {
        return false;
    }
    let is_prefixed = |longer: &str, shorter: &str| {
        longer.strip_suffix(shorter).is_some_and(|prefix| PREFIXES.contains(&prefix))
    };
    let mut opposites = PAIRS.iter().filter_map(|(one, other)| match () {
        () if *one == known => Some(*other),
        () if *other == known => Some(*one),
        () => None,
    });
    is_prefixed(wrong, known)
        || is_prefixed(known, wrong)
        || opposites.any(|opposite| {
            let margin = MARGIN.min(distance(known, opposite));
            distance(wrong, opposite) < distance(wrong, known) + margin
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fall_apart_at_signs_and_large_letters() {
        for name in ["get_user_2", "getUser2", "GetUser-2", "get user.2"] {
            let words = words(name);
            assert_eq!(words[..2], ["get", if name == "getUser2" { "user2" } else { "user" }], "{name}");
        }
        assert_eq!(words("__"), [""; 0]);
    }

    #[test]
    fn what_takes_something_back_is_not_taken_for_a_slip() {
        let rows = [
            ("deactivate", "activate", true),
            ("dactivate", "activate", true),
            ("eactivate", "activate", true),
            ("activat", "activate", false),
            ("deactivat", "deactivate", false),
            ("reactivate", "deactivate", true),
            ("feactivate", "deactivate", true),
            ("reactivat", "deactivate", true),
            ("exclude_deprovisioned", "include_deprovisioned", true),
            ("includ_deprovisioned", "include_deprovisioned", false),
            ("include_provisioned", "include_deprovisioned", true),
            ("no_send_email", "send_email", true),
            ("dont_send_email", "send_email", true),
            ("skip_email", "send_email", false), // not near enough by its letters
            ("send_emial", "send_email", false),
            ("userId", "user_id", false),
            ("nonprod", "prod", true),
            ("non-prod", "prod", true),
            ("prd", "prod", false),
            ("lock_user", "unlock_user", true),
            ("unlok_user", "unlock_user", false),
        ];
        for (wrong, known, opposite) in rows {
            assert_eq!(is_opposite(wrong, known), opposite, "{wrong} {known}");
        }
    }
}
