//! The difference between two configurations, and which of its keys a running worker can apply.
//!
//! Names keys but never values, since some are secrets.

use super::connection::ConnectionSection;
use super::settings::Config;
use super::telemetry::Telemetry;
use crate::domain::ids::ConnectionName;
use crate::okta::{Credential, Endpoint, ServiceApp};
use crate::rabbit::BrokerSettings;

/// The difference between the configuration in force and another one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigChange {
    /// The added connections.
    pub added: Vec<ConnectionName>,
    /// The remaining connections with changed keys.
    pub changed: Vec<(ConnectionName, Vec<&'static str>)>,
    /// The removed connections.
    pub removed: Vec<ConnectionName>,
    /// The other changed keys that take effect at once.
    pub live: Vec<&'static str>,
    /// The changed keys that take effect at the next start.
    pub at_restart: Vec<&'static str>,
}

/// Returns the names of the keys whose values differ.
fn differing<const N: usize>(keys: [(&'static str, bool); N]) -> Vec<&'static str> {
    keys.into_iter().filter(|(_, is_same)| !is_same).map(|(key, _)| key).collect()
}

impl ConfigChange {
    /// Returns the changes of a new configuration.
    pub fn between(old: &Config, new: &Config) -> Self {
        let find = |config: &'_ Config, name: &ConnectionName| {
            config.connections.iter().find(|connection| connection.name == *name).cloned()
        };
        let missing = |from: &Config, other: &Config| {
            let names = other.connections.iter().map(|connection| connection.name.clone());
            names.filter(|name| find(from, name).is_none()).collect()
        };
        let changed = new.connections.iter().filter_map(|connection| {
            let keys = connection.keys_otherwise(&find(old, &connection.name)?);
            (!keys.is_empty()).then(|| (connection.name.clone(), keys))
        });
        // Destructured, so that the compiler reports a new key.
        let Config {
            broker:
                BrokerSettings {
                    url,
                    other_urls,
                    ca_file,
                    management,
                    prefetch,
                    held_bytes_max,
                    declare,
                    dead_ttl,
                    dead_max,
                },
            reply_to,
            interactive_deadline,
            list_time_max,
            answer_bytes_max,
            connections: _,
            callers,
            retry,
            telemetry: Telemetry { listen, log_format },
        } = old;
        Self {
            added: missing(old, new),
            changed: changed.collect(),
            removed: missing(new, old),
            live: differing([
                ("broker.reply_to", *reply_to == new.reply_to),
                ("broker.interactive_deadline", *interactive_deadline == new.interactive_deadline),
                ("broker.list_time_max", *list_time_max == new.list_time_max),
                ("callers", *callers == new.callers),
                ("retry", *retry == new.retry),
            ]),
            at_restart: differing([
                ("broker.url", *url == new.broker.url),
                ("broker.urls", *other_urls == new.broker.other_urls),
                ("broker.ca_file", *ca_file == new.broker.ca_file),
                ("broker.management", *management == new.broker.management),
                ("broker.prefetch", *prefetch == new.broker.prefetch),
                ("broker.held_bytes_max", *held_bytes_max == new.broker.held_bytes_max),
                ("broker.declare", *declare == new.broker.declare),
                ("broker.dead_ttl", *dead_ttl == new.broker.dead_ttl),
                ("broker.dead_max", *dead_max == new.broker.dead_max),
                ("okta.answer_bytes_max", *answer_bytes_max == new.answer_bytes_max),
                ("telemetry.listen", *listen == new.telemetry.listen),
                ("telemetry.log_format", *log_format == new.telemetry.log_format),
            ]),
        }
    }

    /// Returns true if nothing changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl ConnectionSection {
    /// Returns the keys in which it differs from another connection of the same name.
    fn keys_otherwise(&self, other: &Self) -> Vec<&'static str> {
        let Self {
            name: _,
            endpoint: Endpoint { base_url, credential },
            subtools,
            capacity_percent,
            rate_limit_window,
            max_per_minute,
            concurrent_max,
        } = self;
        let mut keys = differing([("domain", *base_url == other.endpoint.base_url)]);
        keys.extend(credential.keys_otherwise(&other.endpoint.credential));
        keys.extend(differing([
            ("subtools", *subtools == other.subtools),
            ("capacity_percent", *capacity_percent == other.capacity_percent),
            ("rate_limit_window", *rate_limit_window == other.rate_limit_window),
            ("max_per_minute", *max_per_minute == other.max_per_minute),
            ("concurrent_max", *concurrent_max == other.concurrent_max),
        ]));
        keys
    }

    /// Returns true if its budget settings equal those of another one, so that the budget's state remains valid.
    pub fn has_budget_of(&self, other: &Self) -> bool {
        let budget =
            |of: &Self| (of.capacity_percent, of.rate_limit_window, of.max_per_minute, of.concurrent_max);
        budget(self) == budget(other)
    }
}

impl Credential {
    /// Returns the keys in which it differs from another credential.
    fn keys_otherwise(&self, other: &Self) -> Vec<&'static str> {
        match (self, other) {
            (Self::Token { kind, token }, Self::Token { kind: other_kind, token: other_token }) => {
                differing([("token_type", kind == other_kind), ("token", token == other_token)])
            }
            (Self::ServiceApp(app), Self::ServiceApp(other)) => {
                let ServiceApp { client_id, private_key, key_id, scopes } = app;
                differing([
                    ("service_app.client_id", *client_id == other.client_id),
                    ("service_app.private_key", *private_key == other.private_key),
                    ("service_app.key_id", *key_id == other.key_id),
                    ("service_app.scopes", *scopes == other.scopes),
                ])
            }
            (Self::Token { .. }, Self::ServiceApp(_)) | (Self::ServiceApp(_), Self::Token { .. }) => {
                vec!["token", "service_app"]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("worker.toml");
        std::fs::write(&file, text).unwrap();
        crate::config::load(Some(&file), []).unwrap().config
    }

    fn connection(name: &str, rest: &str) -> String {
        format!("[connections.{name}]\ndomain = \"{name}.okta.com\"\nsubtools = \"read\"\n{rest}\n")
    }

    fn names(names: &[ConnectionName]) -> Vec<&str> {
        names.iter().map(ConnectionName::as_str).collect()
    }

    const TOKEN: &str = "api_token = \"t\"";

    #[test]
    fn connections_come_go_and_change_by_name() {
        let old = config(&[connection("a", TOKEN), connection("b", TOKEN), connection("c", TOKEN)].concat());
        let new = [connection("b", TOKEN), connection("c", "api_token = \"u\""), connection("d", TOKEN)];
        let change = ConfigChange::between(&old, &config(&new.concat()));
        assert_eq!((names(&change.added), names(&change.removed)), (vec!["d"], vec!["a"]));
        assert_eq!(change.changed, [(ConnectionName::parse("c").unwrap(), vec!["token"])]);
        assert!(change.live.is_empty() && change.at_restart.is_empty());
        assert!(ConfigChange::between(&old, &old).is_empty());
    }

    #[test]
    fn a_service_app_is_compared_key_by_key() {
        let key = |name: &str| std::fs::read_to_string(format!("tests/fixtures/{name}")).unwrap();
        let app = |client_id: &str, scope: &str, rest: &str| {
            let key = key("test-only-ec-key.pem");
            let rest = format!(
                "client_id = \"{client_id}\"\nscopes = \"{scope}\"\nprivate_key = \"\"\"{key}\"\"\"\n{rest}"
            );
            config(&connection("a", &format!("[connections.a.service_app]\n{rest}")))
        };
        let (old, token) = (app("0oa1", "okta.users.read", ""), config(&connection("a", TOKEN)));
        let keys =
            |new: &Config| ConfigChange::between(&old, new).changed.pop().map(|(_, keys)| keys.join(" "));
        assert_eq!(keys(&old), None);
        assert_eq!(keys(&token).as_deref(), Some("token service_app"));
        assert_eq!(keys(&app("0oa1", "okta.logs.read", "")).as_deref(), Some("service_app.scopes"));
        let other = app("0oa2", "okta.users.read", "key_id = \"k\"");
        assert_eq!(keys(&other).as_deref(), Some("service_app.client_id service_app.key_id"));
    }

    #[test]
    fn only_other_limits_are_another_budget() {
        let old = config(&connection("a", TOKEN));
        let token = "base_url = \"https://gateway.example.com\"\naccess_token = \"other\"";
        for (rest, keys, has_budget) in [
            (token, vec!["domain", "token_type", "token"], true),
            ("api_token = \"t\"\ncapacity_percent = 50", vec!["capacity_percent"], false),
            ("api_token = \"t\"\nmax_per_minute = 6", vec!["max_per_minute"], false),
            ("api_token = \"t\"\nconcurrent_max = 6", vec!["concurrent_max"], false),
        ] {
            let new = config(&connection("a", rest));
            let change = ConfigChange::between(&old, &new);
            assert_eq!(change.changed, [(ConnectionName::parse("a").unwrap(), keys)]);
            assert_eq!(new.connections[0].has_budget_of(&old.connections[0]), has_budget, "{rest}");
        }
    }

    #[test]
    fn every_other_key_holds_at_once_or_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.pem");
        std::fs::write(&file, "").unwrap();
        let text = format!(
            r#"
[broker]
urls = ["amqp://guest:guest@elsewhere", "amqp://guest:guest@nowhere"]
ca_file = "{}"
management = "http://elsewhere:15672"
prefetch = 31
held_bytes_max = "255MiB"
declare = false
interactive_deadline = "11m"
list_time_max = "11m"
dead_ttl = "13d"
dead_max = 99999
reply_to = "x.*"
[retry]
attempts_max = 6
[telemetry]
listen = "127.0.0.1:1"
log_format = "text"
[callers.x]
connections = ["a"]
subtools = "read"
{}"#,
            file.display(),
            connection("a", TOKEN)
        );
        let change = ConfigChange::between(&config(&connection("a", TOKEN)), &config(&text));
        let live = "broker.reply_to broker.interactive_deadline broker.list_time_max callers retry";
        let at_restart = "broker.url broker.urls broker.ca_file broker.management broker.prefetch broker.held_bytes_max broker.declare \
                          broker.dead_ttl broker.dead_max telemetry.listen telemetry.log_format";
        assert_eq!(change.live.join(" "), live);
        assert_eq!(change.at_restart.join(" "), at_restart);
        assert!(!change.is_empty());
    }
}
