//! `[broker]`: connection to RabbitMQ, and settings of its use.

use std::cmp::Ordering;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use super::entry::{ConfigValue, parse_words};
use super::layers::Variables;
use super::secret::{self, Written};
use super::section::Section;
use super::spot::{Origin, Spot};
use crate::domain::invocation::BODY_BYTES_MAX;
use crate::domain::secret::Secret;
use crate::policy::reply_to::ReplyPolicy;
use crate::rabbit::{BrokerSettings, user_and_vhost};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// The shortest retention of parked messages: anything less is gone before an operator can look.
const DEAD_TTL_MIN: Duration = Duration::from_secs(60);

/// The highest prefetch: further messages can wait in the queue as well, and a crash redelivers all at once.
const PREFETCH_MAX: u16 = 1000;

/// The smallest memory for messages: at least one of the largest size must fit.
const HELD_BYTES_MIN: u64 = BODY_BYTES_MAX as u64;

/// The largest memory for messages: beyond it the unit is a typing mistake.
const HELD_BYTES_MAX: u64 = 1 << 40;

/// The longest TTL: RabbitMQ refuses one of 2^32 milliseconds (49.7 days) and more.
const DEAD_TTL_MAX: Duration = Duration::from_secs(49 * 86_400);

/// The most parked messages: RabbitMQ keeps an entry per message of a quorum queue in memory, on each of its nodes.
const DEAD_MAX_MAX: u32 = 10_000_000;

/// The longest time for a list: RabbitMQ closes the channel of a consumer that has not acknowledged a message
/// for 30 minutes, so a list must end well before.
const LIST_TIME_MAX: Duration = Duration::from_secs(25 * 60);

/// The settings of `[broker]`.
pub(super) struct BrokerSection {
    pub(super) settings: BrokerSettings,
    pub(super) reply_to: ReplyPolicy,
    pub(super) interactive_deadline: Duration,
    pub(super) list_time_max: Duration,
}

/// Reads `[broker]`.
pub(super) fn read(mut section: Section<'_>, variables: &Variables) -> Option<BrokerSection> {
    let (url, urls) = (section.need("url"), section.take("urls"));
    let urls = nodes(url, urls, variables);
    let prefetch = section.need("prefetch").and_then(|entry| entry.integer(1..=PREFETCH_MAX));
    let held = section.need("held_bytes_max").and_then(|entry| entry.bytes(HELD_BYTES_MIN..=HELD_BYTES_MAX));
    let declare = section.need("declare").and_then(|entry| entry.flag());
    let deadline = section.need("interactive_deadline").and_then(|entry| entry.duration(SECOND..=DAY));
    let dead_ttl = section.need("dead_ttl").and_then(|entry| entry.duration(DEAD_TTL_MIN..=DEAD_TTL_MAX));
    let dead_max = section.need("dead_max").and_then(|entry| entry.integer(1..=DEAD_MAX_MAX));
    let list_time = section.need("list_time_max").and_then(|entry| entry.duration(SECOND..=LIST_TIME_MAX));
    let findings = section.findings;
    let reply_to = section
        .need("reply_to")
        .and_then(ConfigValue::words)
        .and_then(|words| parse_words(&words, findings, ReplyPolicy::parse));
    let ca_file = section.need("ca_file").and_then(|entry| ca_file(&entry));
    let management = section.need("management").and_then(|entry| management(&entry));
    section.close();
    let settings = BrokerSettings {
        url: urls.as_ref()?.0.clone(),
        other_urls: urls?.1,
        ca_file: ca_file?,
        management: management?,
        prefetch: prefetch?,
        held_bytes_max: held?,
        declare: declare?,
        dead_ttl: dead_ttl?,
        dead_max: dead_max?,
    };
    Some(BrokerSection {
        settings,
        reply_to: reply_to?,
        interactive_deadline: deadline?,
        list_time_max: list_time?,
    })
}

/// Returns the AMQP URIs, from `url` alone or from `urls`: the first one and the rest.
fn nodes(
    one: Option<ConfigValue<'_>>,
    several: Option<ConfigValue<'_>>,
    variables: &Variables,
) -> Option<(Secret, Vec<Secret>)> {
    let Some(several) = several else { return Some((url(one?, variables)?, Vec::new())) };
    if let Some(one) = one
        && !matches!(one.spot.origin, Origin::Default)
    {
        match is_variable(&one.spot).cmp(&is_variable(&several.spot)) {
            // The environment wins.
            Ordering::Greater => return Some((url(one, variables)?, Vec::new())),
            Ordering::Less => {}
            Ordering::Equal => {
                several.fault("stands beside `url`: give one of them");
                return None;
            }
        }
    }
    let (spot, findings) = (several.spot.clone(), several.findings);
    // Collected twice, so that the first faulty one does not hide the rest.
    let read: Vec<_> =
        several.items()?.into_iter().map(|entry| (entry.spot.clone(), url(entry, variables))).collect();
    let mut urls = Vec::new();
    for (at, url) in read {
        let url = url?;
        let first = urls.first().unwrap_or(&url);
        if user_and_vhost(first.expose()).ok() != user_and_vhost(url.expose()).ok() {
            findings.fault(&at, "must name the same user and virtual host as the first one");
            return None;
        }
        urls.push(url);
    }
    if urls.is_empty() {
        findings.fault(&spot, "must hold a URI");
        return None;
    }
    let first = urls.remove(0);
    Some((first, urls))
}

fn is_variable(spot: &Spot) -> bool {
    matches!(spot.origin, Origin::Variable(_))
}

const UNENCODED: &str = "special characters in the user or the password must be percent-encoded: `#` as `%23`, `/` as \
                         `%2f`, `?` as `%3f`, `@` as `%40`";

/// Returns true if a parser would cut a URI short, because its password holds a character that is not
/// percent-encoded: AMQP URIs have no fragment, and no `@` but the one after the password.
fn is_cut_short(uri: &str) -> bool {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let (authority, behind) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    uri.contains('#') || authority.matches('@').count() > 1 || behind.contains('@')
}

/// Reads the AMQP URI. Problems do not repeat it, since it may hold a password.
fn url(entry: ConfigValue<'_>, variables: &Variables) -> Option<Secret> {
    let findings = entry.findings;
    let found = secret::read(entry, variables)?;
    if is_cut_short(found.secret.expose()) {
        findings.fault(&found.spot, UNENCODED);
        return None;
    }
    let uri: Option<Uri> = found.secret.expose().parse().ok();
    let uri = uri.filter(|uri| matches!(uri.scheme_str(), Some("amqp" | "amqps")));
    let Some(authority) = uri.as_ref().and_then(Uri::authority).filter(|place| !place.host().is_empty())
    else {
        let message = "must be a URI such as `amqps://user:password@rabbit.example.com:5671/%2f`";
        findings.fault(&found.spot, message);
        return None;
    };
    let login = authority.as_str().rsplit_once('@').map_or("", |(login, _)| login);
    let has_password = login.split_once(':').is_some_and(|(_, password)| !password.is_empty());
    // guest/guest is RabbitMQ's default, valid only from this machine, and public.
    if found.written == Written::Literally && has_password && login != "guest:guest" {
        findings.warn(format!(
            "{} holds a literal password: `{{ env = \"NAME\" }}` or `{{ file = \"/path\" }}` keeps it out of the file",
            found.spot.path
        ));
    }
    Some(found.secret)
}

/// Reads the URL of the management API; an empty text means none.
fn management(entry: &ConfigValue<'_>) -> Option<Option<String>> {
    let text = entry.text()?;
    if text.is_empty() {
        return Some(None);
    }
    let uri = text.parse::<Uri>().ok().filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")));
    let authority = uri.as_ref().and_then(Uri::authority).map(http::uri::Authority::as_str);
    if authority.is_none_or(|authority| authority.contains('@')) {
        entry.fault("must be a URL without a user, such as `http://127.0.0.1:15672`");
        return None;
    }
    Some(Some(text.to_owned()))
}

/// Reads the path of the trusted certificates; an empty text means the system's.
fn ca_file(entry: &ConfigValue<'_>) -> Option<Option<PathBuf>> {
    let text = entry.text()?;
    if text.is_empty() {
        return Some(None);
    }
    let file = PathBuf::from(text);
    if !file.is_file() {
        entry.fault(format!("there is no file `{}`", file.display()));
        return None;
    }
    Some(Some(file))
}
