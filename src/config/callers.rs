//! `[callers.<name>]`: permissions of callers, by the broker user they publish as.

use std::collections::{BTreeSet, HashMap};

use super::connection;
use super::entry::{ConfigValue, Word, parse_words};
use super::problem::Findings;
use super::section::Section;
use crate::domain::ids::{ConnectionName, Lane, excerpt};
use crate::domain::invocation::nearest;
use crate::policy::authorization::{AllowList, CallerPermissions, Callers};

/// The longest name of a broker user: `user_id` is an AMQP short string.
const USER_BYTES_MAX: usize = 255;

/// Reads all callers.
pub(super) fn read(section: Section<'_>, connections: &BTreeSet<String>) -> Option<Callers> {
    let callers: Vec<_> = section
        .by_name()
        .map(|(name, entry)| {
            let is_user = !name.trim().is_empty() && name.len() <= USER_BYTES_MAX;
            if !is_user {
                entry.fault(format!("must be the name of a broker user, 1 to {USER_BYTES_MAX} bytes"));
            }
            caller(entry, connections).filter(|_| is_user).map(|caller| (name, caller))
        })
        .collect();
    callers.into_iter().collect::<Option<HashMap<_, _>>>().map(Callers)
}

fn caller(entry: ConfigValue<'_>, known: &BTreeSet<String>) -> Option<CallerPermissions> {
    let mut section = entry.section()?;
    let findings = section.findings;
    let connections = section.need("connections").and_then(|entry| {
        let words = listed(entry, "it may use no connection")?;
        let names: Vec<_> = words.iter().map(|word| known_connection(word, known, findings)).collect();
        names.into_iter().collect()
    });
    let subtools = section.need("subtools").and_then(|entry| {
        let words = listed(entry, "it may use no subtool")?;
        parse_words(&words, findings, AllowList::parse)
    });
    let lanes = match section.take("lanes") {
        Some(entry) => {
            listed(entry, "it may use no lane").and_then(|words| parse_words(&words, findings, lanes))
        }
        None => Some(Lane::ALL.to_vec()),
    };
    let max_per_minute = connection::max_per_minute(&mut section);
    section.close();
    Some(CallerPermissions {
        connections: connections?,
        subtools: subtools?,
        lanes: lanes?,
        max_per_minute: max_per_minute?,
    })
}

/// Returns the texts of a list, with a warning if it is empty.
fn listed(entry: ConfigValue<'_>, consequence: &str) -> Option<Vec<Word>> {
    let (path, findings) = (entry.spot.path.clone(), entry.findings);
    let words = entry.words()?;
    if words.is_empty() {
        findings.warn(format!("{path} is empty: {consequence}"));
    }
    Some(words)
}

fn known_connection(word: &Word, known: &BTreeSet<String>, findings: &Findings) -> Option<ConnectionName> {
    if !known.contains(&word.text) {
        let hint = nearest(&word.text, known.iter().map(String::as_str))
            .map_or_else(String::new, |near| format!(", did you mean `{near}`?"));
        findings.dangling(&word.spot, format!("there is no connection `{}`{hint}", excerpt(&word.text)));
        return None;
    }
    // A known connection with an invalid name has already been reported.
    ConnectionName::parse(&word.text).ok()
}

fn lanes(words: &[Word]) -> Result<Vec<Lane>, (usize, String)> {
    let lane = |(at, word): (usize, &Word)| {
        Lane::parse(&word.text).ok_or_else(|| (at, "must be `interactive` or `bulk`".to_owned()))
    };
    words.iter().enumerate().map(lane).collect()
}
