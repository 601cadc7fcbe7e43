//! `okta-worker mcp`: the subtools of one connection as tools for a model, over stdin and stdout.
//!
//! Each call is an invocation through the queue, so that a hundred agents share one budget; this process sends
//! nothing to Okta and reads no Okta credential. Messages to people go to stderr: stdout belongs to the protocol.

mod calls;
mod server;
mod transport;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rmcp::ServiceExt as _;
use tokio::time::sleep;

use crate::config::{Config, ConnectionSection};
use crate::domain::ids::{ConnectionName, Lane};
use crate::event::{Event, Observer};
use crate::rabbit::{RpcClient, own_user};
use crate::tools::catalogue::{CATALOGUE, CatalogueEntry};

use super::completions;
use super::configuration::{load_without_tokens, unknown_connection};
use super::exit::{DONE, NotBegun};
use super::signals::StopRequests;
use calls::Calls;
use server::Server;
use transport::LineTransport;

/// Serves the subtools of a connection to a model, over MCP on stdin and stdout.
///
/// The tools are the subtools that the connection enables and, if `[callers]` is configured, that it permits to the
/// broker user. Each call goes through the queue to a running worker, so this command needs no Okta credential.
///
/// In your MCP client's settings, write `"command": "okta-worker"`, and the words of the command line as the list
/// `"args"`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The connection whose subtools are served.
    #[arg(long, value_name = "NAME", add = completions::connections())]
    connection: String,
    /// The longest time for a call, in seconds. Use the time that your MCP client allows for a tool.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    timeout: u32,
}

/// The time for answers to go out after the client has closed its end.
const LEAVING_MAX: Duration = Duration::from_millis(400);

pub(super) async fn run(source: Option<PathBuf>, arguments: Arguments) -> Result<u8, NotBegun> {
    let failed = |why: String| NotBegun(format!("failed to serve: {why}"));
    // First of all: a signal without a listener kills the process, and its sender takes that for a failure.
    let mut stop = StopRequests::listen()?;
    let config = load_without_tokens(source.as_deref())?.config;
    let calls = Arc::new(Calls::default());
    let (transport, mut ended) = LineTransport::new(tokio::io::stdin(), tokio::io::stdout());
    let serving = async {
        let server = server(&config, &arguments, Arc::clone(&calls)).await?;
        let serving = server.serve(transport).await.map_err(|error| failed(error.to_string()))?;
        serving.waiting().await.map(drop).map_err(|error| failed(error.to_string()))
    };
    tokio::pin!(serving);
    let left = async {
        let _ = ended.wait_for(|is_over| *is_over).await;
        sleep(LEAVING_MAX).await;
    };
    tokio::select! {
        biased;
        served = &mut serving => served?,
        () = stop.next() => {}
        () = left => {}
    }
    calls.stop().await;
    Ok(DONE)
}

/// Connects, and builds the server for the connection's subtools.
async fn server(config: &Config, arguments: &Arguments, calls: Arc<Calls>) -> Result<Server, NotBegun> {
    let name = &arguments.connection;
    let connection = config.connections.iter().find(|known| known.name.as_str() == name);
    let connection = connection.ok_or_else(|| unknown_connection(config, name))?;
    let user = own_user(config.broker.url.expose()).map_err(|ended| NotBegun(ended.to_string()))?;
    let enabled = enabled(config, connection, &user)?;
    let asker = RpcClient::open(&config.broker, Arc::new(Stderr)).await.map_err(NotBegun)?;
    let timeout = Duration::from_secs(arguments.timeout.into());
    let broker = config.broker.clone();
    Ok(Server::new(connection.name.clone(), enabled, (user, timeout), (broker, asker, calls)))
}

/// Returns the subtools that the connection enables and the caller may use.
fn enabled(
    config: &Config,
    connection: &ConnectionSection,
    user: &str,
) -> Result<Vec<&'static CatalogueEntry>, NotBegun> {
    let mut lists = vec![&connection.subtools];
    if !config.callers.is_open() {
        let Some(caller) = config.callers.0.get(user) else {
            return Err(NotBegun(format!(
                "`callers.{user}` is missing: the broker user `{user}` may call nothing"
            )));
        };
        let may = |name: &ConnectionName| caller.connections.contains(name);
        if !may(&connection.name) || !caller.lanes.contains(&Lane::Interactive) {
            let name = &connection.name;
            let message =
                format!("`callers.{user}` may not use connection `{name}` and its lane `interactive`");
            return Err(NotBegun(message));
        }
        lists.push(&caller.subtools);
    }
    let is_given = |entry: &&CatalogueEntry| lists.iter().all(|list| list.allows(entry.manifest));
    Ok(CATALOGUE.iter().filter(is_given).collect())
}

/// An observer that reports on stderr why calls are delayed.
struct Stderr;

impl Observer for Stderr {
    fn note(&self, event: &Event<'_>) {
        if let Event::Broker { connected, why } = event {
            let what = if *connected { "the broker is there again" } else { "lost the broker" };
            complain!("okta-worker mcp: {what} ({why})");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the tools that a user is offered, or the refusal.
    fn offered(callers: &str, user: &str) -> Result<Vec<&'static str>, String> {
        let text = format!(
            "[connections.prod]\ndomain = \"acme.okta.com\"\napi_token = \"x\"\nsubtools = [\"read\", \"write\"]\n{callers}"
        );
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.toml"), text).unwrap();
        let config = crate::config::load(Some(dir.path()), []).unwrap().config;
        let entries = enabled(&config, &config.connections[0], user).map_err(|NotBegun(why)| why)?;
        Ok(entries.iter().map(|entry| entry.manifest.name).collect())
    }

    #[test]
    fn a_caller_is_offered_what_the_connection_enables_and_it_may_use() {
        let all = offered("", "anybody").unwrap();
        assert!(all.contains(&"suspend_user") && !all.contains(&"delete_user"), "{all:?}");
        let few = "[callers.bot]\nconnections = [\"prod\"]\nsubtools = [\"get_user\", \"delete_user\"]\n";
        assert_eq!(offered(few, "bot"), Ok(vec!["get_user"]));
        assert!(offered(few, "somebody").unwrap_err().contains("`callers.somebody` is missing"));
        let bulk = format!("{few}lanes = [\"bulk\"]\n");
        assert!(offered(&bulk, "bot").unwrap_err().contains("lane `interactive`"));
    }
}
