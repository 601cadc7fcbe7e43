//! `[connections.<name>]`: address and credential of an Okta org, and the subtools allowed there.

use std::time::Duration;

use super::credential;
use super::entry::{ConfigValue, parse_words};
use super::host::{self, Reach};
use super::layers::Variables;
use super::secret::SecretLookup;
use super::section::Section;
use crate::budget::pure::constants::CONCURRENT_MAX;
use crate::domain::ids::ConnectionName;
use crate::okta::Endpoint;
use crate::policy::authorization::AllowList;

/// Default part of each limit that the workers use: the last tenth is for the org's other
/// clients.
const CAPACITY_PERCENT: u8 = 90;

/// The window in which Okta counts requests.
const OKTA_WINDOW: Duration = Duration::from_secs(60);

/// The shortest window: Okta announces a window's end in whole seconds, so a shorter one would already be over.
const WINDOW_MIN: Duration = Duration::from_secs(1);

/// The longest window: with a longer one a test would never see its end.
const WINDOW_MAX: Duration = Duration::from_secs(3600);

/// The highest ceiling, beyond any limit that Okta announces.
const PER_MINUTE_MOST: u32 = 1_000_000;

/// The most concurrent requests: Okta's own limit is 75 for a whole org; more is for tests.
const CONCURRENT_MOST: u32 = 1_000;

/// One Okta org, and the subtools allowed there.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectionSection {
    /// The name, which is part of queue names and routing keys.
    pub name: ConnectionName,
    /// The address and the credential.
    pub endpoint: Endpoint,
    /// The allowed subtools.
    pub subtools: AllowList,
    /// The percentage of each announced limit that may be used up, including other clients' requests.
    pub capacity_percent: u8,
    /// The length of the org's rate-limit window.
    pub rate_limit_window: Duration,
    /// The most requests per minute, for all workers together.
    pub max_per_minute: Option<u32>,
    /// The most concurrent requests, for all workers together.
    pub concurrent_max: u32,
}

/// Reads one connection.
pub(super) fn read(
    name: &str,
    entry: ConfigValue<'_>,
    tokens: SecretLookup,
    variables: &Variables,
) -> Option<ConnectionSection> {
    let parsed_name = ConnectionName::parse(name).map_err(|message| entry.fault(message)).ok();
    let mut section = entry.section()?;
    let place = place(&mut section);
    let reach = place.as_ref().map(|place| place.reach);
    let credential = credential::read(&mut section, reach, tokens, variables);
    let subtools = subtools(&mut section);
    let capacity = match section.take("capacity_percent") {
        Some(entry) => entry.integer(1..=100_u8),
        None => Some(CAPACITY_PERCENT),
    };
    let window = match section.take("rate_limit_window") {
        Some(entry) => window(&entry, reach),
        None => Some(OKTA_WINDOW),
    };
    let max_per_minute = max_per_minute(&mut section);
    let concurrent_max = match section.take("concurrent_max") {
        Some(entry) => entry.integer(1..=CONCURRENT_MOST),
        None => Some(CONCURRENT_MAX),
    };
    section.close();
    Some(ConnectionSection {
        name: parsed_name?,
        endpoint: Endpoint { base_url: place?.text, credential: credential? },
        subtools: subtools?,
        capacity_percent: capacity?,
        rate_limit_window: window?,
        max_per_minute: max_per_minute?,
        concurrent_max: concurrent_max?,
    })
}

/// Reads an optional ceiling of our own.
pub(super) fn max_per_minute(section: &mut Section<'_>) -> Option<Option<u32>> {
    match section.take("max_per_minute") {
        Some(entry) => entry.integer(1..=PER_MINUTE_MOST).map(Some),
        None => Some(None),
    }
}

/// Reads the address of the org: `base_url` takes precedence over `domain`.
fn place(section: &mut Section<'_>) -> Option<host::BaseUrl> {
    let base_url = section.take("base_url");
    let domain = section.take("domain");
    if base_url.is_none() && domain.is_none() {
        section.findings.missing(&section.spot, "domain", "is missing");
    }
    let domain = domain.map(|entry| entry.parsed(host::domain));
    match (base_url, domain) {
        (Some(entry), None | Some(Some(_))) => entry.parsed(host::base_url),
        (Some(entry), Some(None)) => {
            // Parsed nonetheless, to report its faults.
            entry.parsed(host::base_url);
            None
        }
        (None, domain) => {
            let text = format!("https://{}", domain??);
            Some(host::BaseUrl { text, reach: Reach::Network })
        }
    }
}

fn subtools(section: &mut Section<'_>) -> Option<AllowList> {
    let entry = section.need("subtools")?;
    let path = entry.spot.path.clone();
    let words = entry.words()?;
    if words.is_empty() {
        section.findings.warn(format!("{path} is empty: nothing may be done there"));
    }
    parse_words(&words, section.findings, AllowList::parse)
}

fn window(entry: &ConfigValue<'_>, reach: Option<Reach>) -> Option<Duration> {
    let window = entry.duration(WINDOW_MIN..=WINDOW_MAX)?;
    if window != OKTA_WINDOW && reach == Some(Reach::Network) {
        entry.fault("must be `60s`, as Okta counts; another length is accepted for a loopback base_url only");
        return None;
    }
    Some(window)
}
