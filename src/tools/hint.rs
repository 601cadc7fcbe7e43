//! Suggestion of a subtool for a wrong name.
//!
//! Invariant: a suggested subtool does nothing but the requested operation; for an ambiguous name, or an operation
//! that no subtool has, there is no suggestion.

use crate::domain::ids::excerpt;
use crate::domain::opposite::{distance, is_opposite, words};

use super::catalogue::{CATALOGUE, names};

/// Synonyms from Okta's SDKs and console, other directories and everyday language.
const SYNONYMS: [(&str, &str); 59] = [
    ("disable_user", "deactivate_user"),
    ("deprovision_user", "deactivate_user"),
    ("offboard_user", "deactivate_user"),
    ("terminate_user", "deactivate_user"),
    ("pause_user", "suspend_user"),
    ("resume_user", "unsuspend_user"),
    ("find_user", "get_user"),
    ("read_user", "get_user"),
    ("fetch_user", "get_user"),
    ("show_user", "get_user"),
    ("lookup_user", "get_user"),
    ("get_users", "list_users"),
    ("find_users", "list_users"),
    ("search_users", "list_users"),
    ("new_user", "create_user"),
    ("edit_user", "update_user"),
    ("modify_user", "update_user"),
    ("change_user", "update_user"),
    ("reset_password", "reset_user_password"),
    ("expire_password", "expire_user_password"),
    ("find_group", "list_groups"),
    ("get_groups", "list_groups"),
    ("find_groups", "list_groups"),
    ("search_groups", "list_groups"),
    ("new_group", "create_group"),
    ("edit_group", "update_group"),
    ("modify_group", "update_group"),
    ("rename_group", "update_group"),
    ("list_group_users", "list_group_members"),
    ("get_group_users", "list_group_members"),
    ("get_group_members", "list_group_members"),
    ("add_group_member", "add_user_to_group"),
    ("assign_user_to_group", "add_user_to_group"),
    ("remove_group_member", "remove_user_from_group"),
    ("get_user_groups", "list_user_groups"),
    ("get_user_apps", "list_user_apps"),
    ("get_apps", "list_apps"),
    ("search_apps", "list_apps"),
    ("get_app_users", "list_app_users"),
    ("add_user_to_app", "assign_user_to_app"),
    ("unassign_user_from_app", "remove_user_from_app"),
    ("get_logs", "list_events"),
    ("list_logs", "list_events"),
    ("search_logs", "list_events"),
    ("clear_sessions", "clear_user_sessions"),
    ("revoke_user_sessions", "clear_user_sessions"),
    ("sign_out_user", "clear_user_sessions"),
    ("logout_user", "clear_user_sessions"),
    ("resend_activation", "reactivate_user"),
    ("resend_activation_email", "reactivate_user"),
    ("reset_factors", "reset_user_factors"),
    ("reset_user_mfa", "reset_user_factors"),
    ("reset_mfa", "reset_user_factors"),
    ("list_factors", "list_user_factors"),
    ("get_user_factors", "list_user_factors"),
    ("add_group_to_app", "assign_group_to_app"),
    ("unassign_group_from_app", "remove_group_from_app"),
    ("get_app_groups", "list_app_groups"),
    ("get_group_apps", "list_group_apps"),
];

/// Words that do not change the meaning of a name.
const SMALL_WORDS: [&str; 8] = ["to", "from", "of", "in", "a", "an", "the", "by"];

/// The longest name examined, in characters.
const NAME_CHARS_MAX: usize = 64;

/// Returns the subtool that a wrong name means, if it is offered.
pub fn meant(wrong: &str, is_offered: impl Fn(&str) -> bool) -> Option<&'static str> {
    let wrong: String = wrong.chars().take(NAME_CHARS_MAX).collect();
    let wrong = words(&wrong).join("_");
    let synonym = SYNONYMS.iter().find(|(theirs, _)| *theirs == wrong).map(|(_, ours)| *ours);
    synonym.or_else(|| nearest(&wrong)).filter(|name| is_offered(name))
}

/// Returns the error message for an unknown subtool.
pub fn unknown(name: &str) -> String {
    let hint = meant(name, |_| true).map_or_else(
        || format!(": `okta-worker catalog` lists the {}", CATALOGUE.len()),
        |near| format!(", did you mean `{near}`?"),
    );
    format!("unknown subtool `{}`{hint}", excerpt(name))
}

/// Returns the subtool whose words match those of a name except for slips; `None` if two are equally close.
fn nearest(wrong: &str) -> Option<&'static str> {
    let mut found: Vec<(usize, &'static str)> =
        names().filter_map(|name| Some((slips(wrong, name)?, name))).collect();
    found.sort_unstable();
    match found[..] {
        [(_, name)] => Some(name),
        [(least, name), (next, _), ..] if least < next => Some(name),
        _ => None,
    }
}

/// Counts the wrong letters of a name; `None` if there are too many in a word or the name may mean something else.
fn slips(wrong: &str, name: &str) -> Option<usize> {
    let telling = |name: &str| -> Vec<String> {
        words(name).into_iter().filter(|word| !SMALL_WORDS.contains(&word.as_str())).collect()
    };
    let (ours, theirs) = (telling(name), telling(wrong));
    if ours.len() != theirs.len() || is_opposite(&theirs.join("_"), &ours.join("_")) {
        return None;
    }
    let mut sum = 0;
    for (theirs, ours) in theirs.iter().zip(&ours) {
        /// The length from which a word may have two wrong letters instead of one.
        const LONG: usize = 7;
        let slips = distance(theirs, ours);
        if slips > if ours.len() < LONG { 1 } else { 2 } {
            return None;
        }
        sum += slips;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::ToolKind;
    use crate::tools::catalogue::find;

    fn hint(wrong: &str) -> Option<&'static str> {
        meant(wrong, |_| true)
    }

    #[test]
    fn slips_and_synonyms_lead_to_what_was_meant() {
        let rows = [
            ("get_usr", Some("get_user")),
            ("crate_user", Some("create_user")),
            ("getUser", Some("get_user")),
            ("GET-USER", Some("get_user")),
            ("list_user", Some("list_users")),
            ("get_users", Some("list_users")),
            ("add_user_group", Some("add_user_to_group")),
            ("deactivat_user", Some("deactivate_user")),
            ("unsuspnd_user", Some("unsuspend_user")),
            ("disable_user", Some("deactivate_user")),
            ("disableUser", Some("deactivate_user")),
            ("unassign_user_from_app", Some("remove_user_from_app")),
            // No subtool does this, or the name is ambiguous.
            ("reactivat_user", Some("reactivate_user")),
            ("enable_user", None),
            ("remove_user", None),
            ("add_user", None),
            ("lock_user", None),
            ("block_user", None),
            ("unblock_user", None),
            ("dactivate_user", None),
            ("eactivate_user", None),
            ("nsuspend_user", None),
            ("unassign_user_to_app", None),
            ("not_delete_user", None),
            ("user", None),
            ("", None),
        ];
        for (wrong, right) in rows {
            assert_eq!(hint(wrong), right, "{wrong}");
        }
        assert_eq!(meant("disable_user", |name| name != "deactivate_user"), None, "it is not offered");
    }

    #[test]
    fn a_synonym_is_no_name_of_ours_and_leads_to_nothing_that_is_gone_for_good() {
        for (theirs, ours) in SYNONYMS {
            assert!(find(theirs).is_none() && words(theirs).join("_") == theirs, "{theirs}");
            let kind = find(ours).unwrap_or_else(|| panic!("no subtool `{ours}`")).manifest.kind;
            let takes_away = ["disable", "deprovision", "offboard", "terminate", "unassign"];
            let says_so = takes_away.iter().any(|word| theirs.starts_with(word));
            assert!(kind != ToolKind::Destructive || (says_so && ours != "delete_user"), "{theirs}");
        }
    }

    /// Returns every text at an edit distance of one: deletion, insertion, substitution, transposition.
    fn edits(name: &str) -> Vec<String> {
        let letters: Vec<char> = ('a'..='z').chain(['_']).collect();
        let chars: Vec<char> = name.chars().collect();
        let mut texts = Vec::new();
        for at in 0..=chars.len() {
            let (before, after) = chars.split_at(at);
            let text = |middle: &[char], skipped: usize| -> String {
                before.iter().chain(middle).chain(after.iter().skip(skipped)).collect()
            };
            texts.extend(letters.iter().map(|letter| text(&[*letter], 0)));
            if let [first, rest @ ..] = after {
                texts.push(text(&[], 1));
                texts.extend(letters.iter().map(|letter| text(&[*letter], 1)));
                texts.extend(rest.first().map(|second| text(&[*second, *first], 2)));
            }
        }
        texts
    }

    /// Verbs that undo each other.
    const CROSSING: [(&str, &str); 6] = [
        ("activate", "deactivate"),
        ("suspend", "unsuspend"),
        ("add", "remove"),
        ("assign", "remove"),
        ("create", "delete"),
        ("update", "delete"),
    ];

    #[test]
    fn no_slip_of_one_or_two_letters_leads_to_the_opposite() {
        let verb = |name: &str| name.split('_').next().unwrap_or_default().to_owned();
        let (mut looked, mut hinted) = (0, 0);
        for name in names() {
            let ours = verb(name);
            let mut slips = edits(name);
            // Two slips in the verb, too.
            let twice: Vec<String> = edits(&ours).iter().flat_map(|verb| edits(verb)).collect();
            slips.extend(twice.iter().step_by(211).map(|verb| format!("{verb}{}", &name[ours.len()..])));
            for slip in slips.into_iter().filter(|slip| find(&words(slip).join("_")).is_none()) {
                looked += 1;
                let Some(hint) = hint(&slip) else { continue };
                hinted += 1;
                let theirs = verb(hint);
                let crosses =
                    CROSSING.iter().any(|pair| *pair == (&*ours, &*theirs) || *pair == (&*theirs, &*ours));
                assert!(!crosses, "`{slip}`, a slip of `{name}`, is taken for `{hint}`");
            }
        }
        assert!(looked > 10_000 && hinted > looked / 4, "{hinted} of {looked}");
    }
}
