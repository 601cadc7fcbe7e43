//! `okta-worker check`: the configuration, the broker and each org, reported one by one.
//!
//! It changes nothing: on the broker it uses temporary queues of its own. A fact that only a write could show is
//! reported as unchecked, not as passed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;

use crate::config::{Config, ConnectionSection};
use crate::domain::bucket::RateHeaders;
use crate::domain::expected::Expected;
use crate::domain::http::{Request, Response};
use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::okta_error::OktaError;
use crate::domain::topology::{presence_queue, work_queue};
use crate::okta::{AccessScheme, AnswerRoom, Credential, Granted, OktaClient, TokenType};
use crate::policy::classify::{ConnectionFacts, FailureKind, Meaning, classify};
use crate::policy::hazards::Hazard;
use crate::rabbit::{Orphan, QueueStatus, inspect, observed, orphans, policies, try_declaring};
use crate::telemetry::descriptors;
use crate::tools::catalogue::CATALOGUE;
use crate::worker::ports::Okta as _;

use super::configuration::load;
use super::exit::{DONE, FAILED, NotBegun};
use super::run::needed_files;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// RabbitMQ's management API, such as `http://127.0.0.1:15672`, to look for queues without a connection and for
    /// policies that lose or refuse messages. The default is `broker.management` of the configuration.
    #[arg(long, value_name = "URL")]
    management: Option<String>,
}

/// The scopes that a read proves, each with the cheapest such read.
const READS: [(&str, &str); 4] = [
    ("okta.users.read", "/api/v1/users"),
    ("okta.groups.read", "/api/v1/groups"),
    ("okta.apps.read", "/api/v1/apps"),
    ("okta.logs.read", "/api/v1/logs"),
];

/// A printer of findings that remembers if one was bad.
struct Report {
    is_good: bool,
}

impl Report {
    fn good(&self, what: &str, text: impl std::fmt::Display) {
        tell!("  ok         {what}: {text}");
    }

    fn bad(&mut self, what: &str, text: impl std::fmt::Display) {
        self.is_good = false;
        tell!("  FAILED     {what}: {text}");
    }

    fn warning(&self, what: &str, text: impl std::fmt::Display) {
        tell!("  warning    {what}: {text}");
    }

    fn unchecked(&self, what: &str, text: impl std::fmt::Display) {
        tell!("  unchecked  {what}: {text}");
    }
}

pub(super) async fn run(source: Option<PathBuf>, arguments: &Arguments) -> Result<u8, NotBegun> {
    let config = load(source.as_deref())?.config;
    let mut report = Report { is_good: true };
    tell!("configuration");
    match config.connections.len() {
        0 => report.bad("connections", "none: add a section `[connections.<name>]`"),
        count => report.good("connections", format!("{count}, {} callers", config.callers.0.len())),
    }
    check_open_files(&config, &report);
    let room = AnswerRoom::new(config.answer_bytes_max);
    tell!("broker");
    check_broker(&config, &mut report).await;
    let management = arguments.management.as_deref().or(config.broker.management.as_deref());
    check_orphans(&config, management, &mut report).await;
    check_policies(&config, management, &mut report).await;
    for connection in &config.connections {
        tell!("connection {}", connection.name);
        check_connection(connection, &room, &mut report).await;
    }
    Ok(if report.is_good { DONE } else { FAILED })
}

async fn check_broker(config: &Config, report: &mut Report) {
    let found = match inspect(&config.broker, &names(config)).await {
        Ok(found) => found,
        Err(why) => return report.bad("reached", why),
    };
    report.good("reached", format!("{} queues are needed", found.len()));
    let mut missing = 0;
    for (name, found) in &found {
        match found {
            QueueStatus::Right { messages: 0, .. } => {}
            QueueStatus::Right { messages, consumers } => {
                report.good(name, format!("{messages} messages wait, {consumers} consumers"));
            }
            QueueStatus::Missing => missing += 1,
            QueueStatus::Away(why) => report.bad(name, why),
            QueueStatus::Wrong(why) => report.bad(name, why),
        }
    }
    for connection in names(config) {
        let presence = found.iter().find(|(name, _)| *name == presence_queue(&connection));
        if let Some((_, QueueStatus::Right { consumers, .. })) = presence {
            report.good(&format!("workers of {connection}"), format!("{consumers} run"));
        }
    }
    match (missing, config.broker.declare) {
        (0, _) => report.good("queues", "all are there, with the right arguments"),
        (_, true) => match try_declaring(&config.broker, missing).await {
            Ok(()) => report.good("queues", format!("{missing} are not there yet: `run` declares them")),
            Err(why) => {
                report.bad("queues", format!("{missing} are not there, and cannot be declared: {why}"))
            }
        },
        (_, false) => report.bad("queues", format!("{missing} are not there and `broker.declare` is false")),
    }
}

/// Reports whether `run` may open as many files as it may need, if started like this command.
fn check_open_files(config: &Config, report: &Report) {
    descriptors::raise();
    match descriptors::shortage(needed_files(config)) {
        None => report.good("open files", "the limit suffices"),
        Some(shortage) => report.warning("open files", shortage),
    }
}

/// Reports queues of connections that are no longer configured: no worker answers the messages there.
async fn check_orphans(config: &Config, management: Option<&str>, report: &mut Report) {
    const WHAT: &str = "queues without a connection";
    let Some(url) = management else {
        let how = "AMQP cannot list queues: give `--management http://HOST:15672` to have them looked for";
        return report.unchecked(WHAT, how);
    };
    match orphans(&config.broker, url, &names(config)).await {
        Ok(orphans) if orphans.is_empty() => report.good(WHAT, "none"),
        Ok(orphans) => {
            for Orphan { name, messages } in orphans {
                report.bad(WHAT, format!("`{name}` with {messages} messages"));
            }
        }
        Err(why) => report.bad(
            WHAT,
            format!("failed to ask the management API (its user needs the tag `management`): {why}"),
        ),
    }
}

/// Reports policies on the broker that lose or refuse messages.
async fn check_policies(config: &Config, management: Option<&str>, report: &mut Report) {
    const WHAT: &str = "policies";
    const REMEDY: &str = "exclude the worker's queues (`^okta\\.`) from it";
    if let Some(url) = management {
        match policies(&config.broker, url).await {
            Ok(hazards) if hazards.is_empty() => report.good(WHAT, "none loses or refuses messages"),
            Ok(hazards) => {
                for Hazard { policies, what, queues } in hazards {
                    let (names, queues) = (policies.join("` and `"), queues.join("`, `"));
                    report.bad(&format!("policy `{names}`"), format!("{what}; on `{queues}`: {REMEDY}"));
                }
            }
            Err(why) => report.bad(WHAT, format!("failed to ask the management API: {why}")),
        }
        return;
    }
    let Some(connection) = config.connections.first() else { return };
    match observed(&config.broker, &connection.name).await {
        Ok(found) if found.is_empty() => report.unchecked(
            WHAT,
            "none was seen at work in a moment, and AMQP does not tell them: give `--management http://HOST:15672`",
        ),
        Ok(found) => {
            for what in found {
                let like = work_queue(&connection.name, Lane::Bulk);
                report.bad(WHAT, format!("in a queue called like `{like}`, {what}, so a policy says: {REMEDY}"));
            }
        }
        Err(why) => report.unchecked(WHAT, why),
    }
}

fn names(config: &Config) -> Vec<ConnectionName> {
    config.connections.iter().map(|connection| connection.name.clone()).collect()
}

async fn check_connection(connection: &ConnectionSection, room: &Arc<AnswerRoom>, report: &mut Report) {
    let client = match OktaClient::new(&connection.endpoint, room) {
        Ok(client) => client,
        Err(why) => return report.bad("credential", why),
    };
    let granted = match client.granted().await {
        None if check_token(connection, &client, report).await => None,
        Some(Ok(granted)) => {
            let minutes = granted.lifetime.as_secs() / 60;
            let kind = match granted.scheme {
                AccessScheme::Bearer => "bearer tokens: the app does not demand DPoP",
                AccessScheme::Dpop => "bound to this worker's key: the app demands DPoP",
            };
            let good = format!("Okta gives the service app tokens for {minutes} minutes ({kind})");
            report.good("credential", good);
            report.unchecked("role", "a token does not show the role of its application");
            Some(granted)
        }
        Some(Err(why)) => return report.bad("credential", why),
        None => return,
    };
    let allowed = CATALOGUE.iter().filter(|entry| connection.subtools.allows(entry.manifest));
    let scopes: BTreeSet<&str> = allowed.map(|entry| entry.manifest.scope).collect();
    if scopes.is_empty() {
        return report.bad("subtools", "none is enabled");
    }
    for (scope, route) in READS {
        let manage = scope.replace(".read", ".manage");
        if scopes.contains(scope) || scopes.contains(manage.as_str()) {
            check_read(&client, connection, (scope, route), report).await;
        }
    }
    for scope in scopes {
        match &granted {
            Some(granted) => check_scope(connection, granted, scope, report),
            None if scope.ends_with(".manage") => report.unchecked(scope, "only a write shows it"),
            None => {}
        }
    }
}

/// Reports whether a service app has a scope that its subtools need.
fn check_scope(connection: &ConnectionSection, granted: &Granted, scope: &str, report: &mut Report) {
    let has = |scopes: &[String]| {
        let wider = scope.replace(".read", ".manage");
        scopes.iter().any(|there| there == scope || *there == wider)
    };
    let asked = match &connection.endpoint.credential {
        Credential::ServiceApp(app) => &app.scopes[..],
        Credential::Token { .. } => &[],
    };
    match (has(&granted.scopes), has(asked)) {
        // A read has already shown a `.read` scope.
        (true, _) if scope.ends_with(".read") => {}
        (true, _) => report.good(scope, "granted"),
        (false, true) => {
            report.bad(scope, "Okta does not grant it to the app: see `Okta API Scopes` in its console")
        }
        (false, false) => {
            report.bad(scope, "the enabled subtools need it, and `service_app.scopes` does not name it")
        }
    }
}

/// Checks that Okta accepts the token, and reports its owner's roles.
async fn check_token(connection: &ConnectionSection, client: &OktaClient, report: &mut Report) -> bool {
    #[derive(Deserialize)]
    struct Role {
        #[serde(rename = "type")]
        kind: String,
    }
    let is_access_token = is_access_token(connection);
    // An access token of a service has no user.
    let whose = if is_access_token { "/api/v1/org" } else { "/api/v1/users/me" };
    let request = Request::get(whose, &[]).expecting(Expected::Object { id: None });
    match ask(client, &request).await {
        Err(no_answer) => {
            report.bad("credential", no_answer);
            return false;
        }
        Ok(response) if response.status == 401 => {
            report.bad("credential", refusal(&response));
            return false;
        }
        Ok(response) if response.is_success() => report.good("credential", "Okta takes it"),
        Ok(response) => report.unchecked("credential", refusal(&response)),
    }
    if is_access_token {
        report.unchecked("role", "an access token does not show the role of its application");
        return true;
    }
    match ask(client, &Request::get("/api/v1/users/me/roles", &[])).await {
        Ok(response) if response.is_success() => {
            let roles: Vec<String> =
                response.read::<Vec<Role>>().unwrap_or_default().into_iter().map(|role| role.kind).collect();
            match roles.is_empty() {
                true => report.bad("role", "the token's owner has no administrator role"),
                false => report.good("role", roles.join(", ")),
            }
        }
        Ok(response) => report.unchecked("role", refusal(&response)),
        Err(no_answer) => report.unchecked("role", no_answer),
    }
    true
}

/// Asks Okta once; the page of a proxy or of a deleted org does not count as an answer.
async fn ask(client: &OktaClient, request: &Request) -> Result<Response, String> {
    let response = client.send(request).await.map_err(|no_answer| no_answer.to_string())?;
    match classify(request, Ok(&response), ConnectionFacts::NOTHING) {
        Meaning::Failed(FailureKind::NotOkta) => {
            let what = OktaError::read(&response).summary.unwrap_or_default();
            Err(format!("no answer of Okta's, but {}: {what}", response.status))
        }
        Meaning::Answered | Meaning::Refused(_) | Meaning::Limited(_) | Meaning::Failed(_) => Ok(response),
    }
}

/// Reports the result of one read that needs a scope.
async fn check_read(
    client: &OktaClient,
    connection: &ConnectionSection,
    (scope, route): (&str, &'static str),
    report: &mut Report,
) {
    let response = match ask(client, &Request::get(route, &[]).query("limit", 1)).await {
        Ok(response) => response,
        Err(no_answer) => return report.bad(scope, no_answer),
    };
    if !response.is_success() {
        return report.bad(scope, refusal(&response));
    }
    let limit = RateHeaders::read(&response.headers)
        .map_or_else(|| "no limit announced".to_owned(), |rate| format!("limit {} a window", rate.limit));
    // A service application without an administrator role sees no users, and gets no error.
    let is_blind =
        is_access_token(connection) && route == "/api/v1/users" && response.body.trim_ascii() == b"[]";
    match is_blind {
        true => report.bad(scope, "no user is visible: does the application have an administrator role?"),
        false => report.good(scope, limit),
    }
}

/// Returns true if the credential is an OAuth 2.0 access token, given or obtained by a service app.
fn is_access_token(connection: &ConnectionSection) -> bool {
    match &connection.endpoint.credential {
        Credential::Token { kind, .. } => *kind == TokenType::Bearer,
        Credential::ServiceApp(_) => true,
    }
}

fn refusal(response: &Response) -> String {
    let error = OktaError::read(response);
    let code = error.error_code.map_or_else(String::new, |code| format!(" {code}"));
    format!("Okta answered {}{code}: {}", error.status, error.summary.unwrap_or_default())
}
