//! Configuration: what is read from where, and how everything that is wrong is told at once.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use okta_worker::config::{self, Config, ConfigProblems, ConnectionSection, Loaded, LogFormat, Telemetry};
use okta_worker::domain::ids::{ConnectionName, Lane};
use okta_worker::domain::secret::Secret;
use okta_worker::okta::{Credential, Endpoint, ServiceApp, TokenType};
use okta_worker::policy::authorization::{AllowList, CallerPermissions, Callers};
use okta_worker::policy::backoff::RetryRules;
use okta_worker::policy::reply_to::ReplyPolicy;
use okta_worker::rabbit::BrokerSettings;
use tempfile::TempDir;

const PROD: &str = r#"
[connections.prod]
domain = "acme.okta.com"
api_token = { env = "TOKEN" }
subtools = ["read"]
"#;

/// The private key of a service app, of these tests alone.
const KEY: &str = include_str!("fixtures/test-only-ec-key.pem");

/// A connection that a service app opens, with these keys in its section.
fn app(keys: &str) -> String {
    let prod = PROD.replace("api_token = { env = \"TOKEN\" }\n", "");
    format!("{prod}[connections.prod.service_app]\n{keys}\n")
}

const APP: &str = "client_id = \"0oa1\"\nprivate_key = { env = \"KEY\" }\nscopes = [\"okta.users.read\"]";

/// The token that opens a connection.
fn token_of(connection: &ConnectionSection) -> &str {
    match &connection.endpoint.credential {
        Credential::Token { token, .. } => token.expose(),
        Credential::ServiceApp(app) => panic!("no token opens it, but {app:?}"),
    }
}

/// The environment of every test, unless it brings another value.
const TOKEN: (&str, &str) = ("TOKEN", "00token");

fn environment(variables: &[(&str, &str)]) -> Vec<(String, String)> {
    [TOKEN].iter().chain(variables).map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    for (name, text) in files {
        std::fs::write(directory.path().join(name), text).expect("it can be written to");
    }
    directory
}

fn load_files(files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Loaded, ConfigProblems> {
    config::load(Some(directory(files).path()), environment(variables))
}

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigProblems> {
    load_files(&[("worker.toml", text)], variables)
}

fn good(text: &str, variables: &[(&str, &str)]) -> Config {
    load(text, variables).unwrap_or_else(|problems| panic!("{problems}\n{text}")).config
}

/// Paths and messages.
fn bad(text: &str, variables: &[(&str, &str)]) -> Vec<(String, String)> {
    let problems = load(text, variables).err().unwrap_or_else(|| panic!("accepted: {text} {variables:?}"));
    problems.0.into_iter().map(|problem| (problem.path, problem.message)).collect()
}

fn prod_with(key: &str) -> String {
    format!("{PROD}{key}\n")
}

#[test]
fn the_default_file_says_the_defaults_and_nothing_else() {
    let loaded = config::load(None, []).unwrap();
    let expected = Config {
        broker: BrokerSettings {
            url: Secret::new("amqp://guest:guest@127.0.0.1:5672/%2f"),
            other_urls: Vec::new(),
            management: None,
            ca_file: None,
            prefetch: 32,
            held_bytes_max: 256 * 1024 * 1024,
            declare: true,
            dead_ttl: Duration::from_secs(14 * 86_400),
            dead_max: 100_000,
        },
        reply_to: ReplyPolicy::default(),
        interactive_deadline: Duration::from_secs(600),
        list_time_max: Duration::from_secs(600),
        answer_bytes_max: 256 * 1024 * 1024,
        connections: Vec::new(),
        callers: Callers::default(),
        retry: RetryRules::default(),
        telemetry: Telemetry { listen: "127.0.0.1:9464".parse().unwrap(), log_format: LogFormat::Json },
    };
    assert_eq!(loaded, Loaded { config: expected, warnings: Vec::new() });
}

#[test]
fn every_example_in_the_default_file_is_a_setting() {
    let uncommented: String = config::DEFAULT
        .lines()
        .map(|line| match line.strip_prefix('#') {
            // It stands for `url`, which is given.
            Some(example) if example.starts_with("urls = ") => line,
            Some(example) if example.starts_with(|c: char| c == '[' || c.is_ascii_lowercase()) => example,
            _ => line,
        })
        .map(|line| format!("{line}\n"))
        .collect();
    let tokens = [("OKTA_API_TOKEN", "00api"), ("OKTA_ACCESS_TOKEN", "access"), ("OKTA_PRIVATE_KEY", KEY)];
    let Loaded { config, warnings } = load(&uncommented, &tokens).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    let connection = |name: &str, base_url: &str, credential, subtools: &[&str]| ConnectionSection {
        name: ConnectionName::parse(name).unwrap(),
        endpoint: Endpoint { base_url: base_url.to_owned(), credential },
        subtools: AllowList::parse(subtools).unwrap(),
        capacity_percent: 90,
        rate_limit_window: Duration::from_secs(60),
        max_per_minute: (name == "prod").then_some(600),
        concurrent_max: 30,
    };
    let app = ServiceApp {
        client_id: "0oab1c2d3e4f5g6h7i8j".to_owned(),
        private_key: Secret::new(KEY),
        key_id: Some("key-of-2026".to_owned()),
        scopes: ["okta.users.manage", "okta.groups.manage"].map(str::to_owned).to_vec(),
    };
    let made = |kind, token| Credential::Token { kind, token: Secret::new(token) };
    let expected = [
        connection("acme-eu", "https://acme-eu.okta.com", Credential::ServiceApp(app), &["read", "write"]),
        connection("preview", "https://acme.oktapreview.com", made(TokenType::Bearer, "access"), &["read"]),
        connection("prod", "https://acme.okta.com", made(TokenType::Ssws, "00api"), &["read", "write"]),
        connection("sandbox", "http://127.0.0.1:8085", made(TokenType::Ssws, "sandbox-token"), &["all"]),
    ];
    assert_eq!(config.connections, expected);
    let caller = CallerPermissions {
        connections: vec![ConnectionName::parse("prod").unwrap()],
        subtools: AllowList::parse(&["get_user", "reset_user_password"]).unwrap(),
        lanes: vec![Lane::Interactive],
        max_per_minute: Some(60),
    };
    assert_eq!(config.callers, Callers(HashMap::from([("helpdesk-agent".to_owned(), caller)])));
    let defaults = config::load(None, []).unwrap().config;
    assert_eq!((config.broker, config.retry), (defaults.broker, defaults.retry));
}

#[test]
fn what_an_example_shows_as_a_default_is_what_its_absence_means() {
    let bare = good(PROD, &[]);
    let explicit = good(
        &prod_with(
            "capacity_percent = 90\nconcurrent_max = 30\nrate_limit_window = \"60s\"\ntoken_type = \"SSWS\"",
        ),
        &[],
    );
    assert_eq!(bare, explicit);
}

#[test]
fn the_sandbox_file_needs_nothing_and_warns_of_nothing() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/sandbox.toml");
    let Loaded { config, warnings } = config::load(Some(&file), []).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.connections[0].endpoint.base_url, "http://127.0.0.1:8085");
    assert_eq!(token_of(&config.connections[0]), "sandbox-token");
}

#[test]
fn every_bad_setting_is_refused_by_its_path() {
    let management = "must be a URL without a user, such as `http://127.0.0.1:15672`";
    let encoded = "special characters in the user or the password must be percent-encoded: `#` as `%23`, `/` as \
                   `%2f`, `?` as `%3f`, `@` as `%40`";
    let secret_shape = "must be `{ env = \"NAME\" }`, `{ file = \"/path\" }` or a text";
    let duration_shape = "must be a duration with its unit, such as `500ms`, `10m` or `14d`";
    let rows = [
        // Types and bounds.
        ("broker.prefetch = 0", "broker.prefetch", "must be between 1 and 1000"),
        ("broker.prefetch = 1001", "broker.prefetch", "must be between 1 and 1000"),
        ("broker.prefetch = \"32\"", "broker.prefetch", "must be a whole number"),
        ("broker.prefetch = 1.5", "broker.prefetch", "must be a whole number, not a fraction"),
        (
            "broker.prefetch = 99999999999999999999",
            "broker.prefetch",
            "must be a whole number, not an integer beyond 64 bits",
        ),
        ("broker.declare = \"true\"", "broker.declare", "must be `true` or `false`"),
        (
            "broker.held_bytes_max = \"1kB\"",
            "broker.held_bytes_max",
            "must be between `1.0 MiB` and `1.0 TiB`",
        ),
        ("broker.held_bytes_max = \"lots\"", "broker.held_bytes_max", "must be a size such as `256MiB`"),
        ("broker.dead_ttl = \"50d\"", "broker.dead_ttl", "must be between `1m` and `49d`"),
        ("broker.dead_ttl = 14", "broker.dead_ttl", duration_shape),
        ("broker.dead_max = 0", "broker.dead_max", "must be between 1 and 10000000"),
        ("broker.dead_max = \"many\"", "broker.dead_max", "must be a whole number"),
        ("broker.dead_ttl = \"14\"", "broker.dead_ttl", duration_shape),
        ("broker.dead_ttl = \"1 month\"", "broker.dead_ttl", duration_shape),
        ("broker.dead_ttl = \"-1d\"", "broker.dead_ttl", duration_shape),
        (
            "broker.interactive_deadline = \"0s\"",
            "broker.interactive_deadline",
            "must be between `1s` and `1d`",
        ),
        ("broker.list_time_max = \"26m\"", "broker.list_time_max", "must be between `1s` and `25m`"),
        ("broker.ca_file = \"/no/such/file\"", "broker.ca_file", "there is no file `/no/such/file`"),
        (
            "broker.reply_to = [\"hr\", \"^x\"]",
            "broker.reply_to.1",
            "must be a queue name in which `*` stands for any text, such as `agents.*`",
        ),
        ("broker.reply_to = [1]", "broker.reply_to.0", "must be a text"),
        ("broker.reply_to = { a = 1 }", "broker.reply_to", "must be a list of texts, not a table"),
        ("broker = 1", "broker", "must be a table of keys"),
        ("[[broker]]", "broker", "must be a table of keys, not a list"),
        (
            "broker.url = \"http://127.0.0.1\"",
            "broker.url",
            "must be a URI such as `amqps://user:password@rabbit.example.com:5671/%2f`",
        ),
        (
            "broker.url = \"amqp:///x\"",
            "broker.url",
            "must be a URI such as `amqps://user:password@rabbit.example.com:5671/%2f`",
        ),
        ("broker.url = \"amqp://worker:a#b@rabbit/%2f\"", "broker.url", encoded),
        ("broker.url = \"amqp://worker:12#b@rabbit/%2f\"", "broker.url", encoded),
        ("broker.url = \"amqp://worker:1/b@rabbit\"", "broker.url", encoded),
        ("broker.url = \"amqp://worker:1?b@rabbit\"", "broker.url", encoded),
        ("broker.url = \"amqps://worker:a@b@rabbit\"", "broker.url", encoded),
        ("broker.url = \"\"", "broker.url", "must not be empty"),
        ("broker.management = \"15672\"", "broker.management", management),
        ("broker.management = \"http://a:b@rabbit\"", "broker.management", management),
        ("broker.url = 1", "broker.url", secret_shape),
        ("retry.attempts_max = 101", "retry.attempts_max", "must be between 1 and 100"),
        ("retry.base = \"31s\"", "retry.cap", "must not be shorter than `retry.base`"),
        (
            "telemetry.listen = \"localhost\"",
            "telemetry.listen",
            "must be an address and a port, such as `127.0.0.1:9464`",
        ),
        ("telemetry.log_format = \"xml\"", "telemetry.log_format", "must be `json` or `text`"),
        // Unknown keys.
        ("brocker.url = \"amqp://x\"", "brocker", "unknown key, did you mean `broker`?"),
        ("broker.prefetsch = 1", "broker.prefetsch", "unknown key, did you mean `prefetch`?"),
        ("retry.zzz = 1", "retry.zzz", "unknown key"),
        ("\"a b\" = 1", "\"***\"", "unknown key"),
        // Connections.
        (
            "connections.Prod = {}",
            "connections.Prod",
            "`Prod` is not a connection name: [a-z][a-z0-9-]{0,31}",
        ),
        ("connections.x.domain = \"acme.okta.com\"", "connections.x.subtools", "is missing"),
        (
            "connections.x.domain = \"acme.okta.com\"",
            "connections.x.api_token",
            "is missing, exactly one of `api_token`, `access_token` and `service_app` is needed",
        ),
        ("connections.x.subtools = []", "connections.x.domain", "is missing"),
        // Callers.
        ("callers.bot = {}", "callers.bot.connections", "is missing"),
        ("callers.bot = {}", "callers.bot.subtools", "is missing"),
        (
            "callers.bot.connections = [\"sandbox\"]",
            "callers.bot.connections.0",
            "there is no connection `sandbox`",
        ),
        (
            "callers.bot.lanes = [\"bulk\", \"fast\"]",
            "callers.bot.lanes.1",
            "must be `interactive` or `bulk`",
        ),
        (
            "callers.\"a.b\".subtools = \"x\"",
            "callers.\"a.b\".subtools",
            "`x` is neither a kind nor a subtool",
        ),
        ("callers.\"\" = {}", "callers.\"\"", "must be the name of a broker user, 1 to 255 bytes"),
    ];
    for (text, path, message) in rows {
        let problems = bad(text, &[]);
        assert!(problems.contains(&(path.to_owned(), message.to_owned())), "{text}: {problems:#?}");
    }
}

#[test]
fn every_bad_key_of_a_connection_is_refused_and_nothing_else() {
    let rows = [
        ("capacity_percent = 0", "capacity_percent", "must be between 1 and 100"),
        ("capacity_percent = 101", "capacity_percent", "must be between 1 and 100"),
        ("token_type = \"ssws\"", "token_type", "must be `SSWS` or `Bearer`"),
        (
            "access_token = \"x\"",
            "access_token",
            "stands beside `api_token`, exactly one of `api_token`, `access_token` and `service_app` is needed",
        ),
        (
            "service_app = {}",
            "service_app",
            "stands beside `api_token`, exactly one of `api_token`, `access_token` and `service_app` is needed",
        ),
        (
            "rate_limit_window = \"10s\"",
            "rate_limit_window",
            "must be `60s`, as Okta counts; another length is accepted for a loopback base_url only",
        ),
        (
            "base_url = \"http://acme.okta.com\"",
            "base_url",
            "must be https: plain http would show the token to the network; it is accepted for loopback only",
        ),
        (
            "base_url = \"https://acme.okta.com/api/v1\"",
            "base_url",
            "must not hold a path, a query or a fragment",
        ),
        ("base_url = \"https://a:b@acme.okta.com\"", "base_url", "must not hold a user or password"),
        (
            "base_url = \"https://acme-admin.okta.com\"",
            "base_url",
            "must be the host of the org, not of its admin console, did you mean `https://acme.okta.com`?",
        ),
        ("subtool = []", "subtool", "unknown key, did you mean `subtools`?"),
    ];
    for (key, place, message) in rows {
        let expected = vec![(format!("connections.prod.{place}"), message.to_owned())];
        assert_eq!(bad(&prod_with(key), &[]), expected, "{key}");
    }
}

#[test]
fn a_domain_is_a_host_and_nothing_more() {
    let rows = [
        ("", "must not be empty"),
        ("https://acme.okta.com", "must be a host without a scheme, did you mean `acme.okta.com`?"),
        ("acme.okta.com/", "must be a host without a path, did you mean `acme.okta.com`?"),
        ("acme.okta.com:443", "must be a host without a port, did you mean `acme.okta.com`?"),
        ("jane:pw@acme.okta.com", "must be a host without a user, did you mean `acme.okta.com`?"),
        ("acme.okta.com ", "must not hold white space, did you mean `acme.okta.com`?"),
        (
            "Acme-Admin.okta.com",
            "must be the host of the org, not of its admin console, did you mean `acme.okta.com`?",
        ),
        ("acme.okta.com.com", "holds `.com` twice, did you mean `acme.okta.com`?"),
        ("{yourOktaDomain}", "still holds the placeholder of an example"),
        ("yourdomain.okta.com", "still holds the placeholder of an example"),
        ("your-domain.okta.com", "still holds the placeholder of an example"),
        ("acme", "must be a whole host name such as `acme.okta.com`"),
        ("acme..okta.com", "must be a host name such as `acme.okta.com`"),
        ("acmé.okta.com", "must be a host name such as `acme.okta.com`"),
    ];
    for (domain, message) in rows {
        let text = PROD.replace("acme.okta.com", domain);
        assert_eq!(bad(&text, &[]), [("connections.prod.domain".to_owned(), message.to_owned())], "{domain}");
    }
    assert_eq!(
        good(&PROD.replace("acme", "ACME"), &[]).connections[0].endpoint.base_url,
        "https://acme.okta.com"
    );
}

#[test]
fn a_domain_that_only_begins_like_a_placeholder_is_fine() {
    let config = good(&PROD.replace("acme", "yourdomains-inc"), &[]);
    assert_eq!(config.connections[0].endpoint.base_url, "https://yourdomains-inc.okta.com");
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_settings() {
    assert_eq!(good("\u{feff}broker.prefetch = 1", &[]).broker.prefetch, 1);
}

#[test]
fn a_loopback_base_url_may_have_its_own_window_and_a_literal_token() {
    let text = r#"
        connections.x = { base_url = "http://localhost:8085/", api_token = "t", subtools = ["all"], rate_limit_window = "2s" }
    "#;
    let Loaded { config, warnings } = load(text, &[]).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(config.connections[0].endpoint.base_url, "http://localhost:8085");
    assert_eq!(config.connections[0].rate_limit_window, Duration::from_secs(2));
}

#[test]
fn what_is_not_supported_yet_is_refused_rather_than_ignored() {
    for not_yet in config::NOT_YET {
        let path =
            not_yet.path.replace("connections.*", "connections.prod").replace("callers.*", "callers.bot");
        let problems = bad(&format!("{path} = {}\n{PROD}", not_yet.example), &[]);
        assert!(
            problems.contains(&(path.clone(), "is not supported yet".to_owned())),
            "{path}: {problems:?}"
        );
    }
    good("telemetry.otlp_endpoint = \"\"", &[]);
}

#[test]
fn a_service_app_is_read_with_its_key_from_wherever_a_secret_may_be() {
    let files = directory(&[("key.pem", KEY)]);
    let file = format!("{{ file = {:?} }}", files.path().join("key.pem").display().to_string());
    let literal = format!("\"\"\"\n{KEY}\"\"\"");
    for (key, warnings) in [("{ env = \"KEY\" }", 0), (&file, 0), (&literal, 1)] {
        let text = app(&APP.replace("{ env = \"KEY\" }", key));
        let loaded = load(&text, &[("KEY", KEY)]).unwrap_or_else(|problems| panic!("{problems}"));
        let expected = ServiceApp {
            client_id: "0oa1".to_owned(),
            private_key: Secret::new(KEY),
            key_id: None,
            scopes: vec!["okta.users.read".to_owned()],
        };
        assert_eq!(
            loaded.config.connections[0].endpoint.credential,
            Credential::ServiceApp(expected),
            "{key}"
        );
        assert_eq!(loaded.warnings.len(), warnings, "{:?}", loaded.warnings);
    }
    let prefix = "OKTA_WORKER__CONNECTIONS__PROD__SERVICE_APP__";
    let variables =
        [("CLIENT_ID", "0oa2"), ("PRIVATE_KEY", KEY), ("SCOPES", "okta.users.read, okta.logs.read")]
            .map(|(key, value)| (format!("{prefix}{key}"), value));
    let variables = variables.each_ref().map(|(name, value)| (name.as_str(), *value));
    let config = good(&PROD.replace("api_token = { env = \"TOKEN\" }\n", ""), &variables);
    let Credential::ServiceApp(read) = &config.connections[0].endpoint.credential else {
        panic!("it is one")
    };
    assert_eq!((read.client_id.as_str(), read.scopes.len()), ("0oa2", 2));
}

#[test]
fn every_bad_key_of_a_service_app_is_refused_and_nothing_else() {
    let name = "must be a name of 1 to 256 visible ASCII characters without blanks";
    let rows = [
        ("client_id = \"0oa1\"", "client_id = \"0oa…\"", "client_id", name),
        ("client_id = \"0oa1\"", "", "client_id", "is missing"),
        (
            "[\"okta.users.read\"]",
            "[]",
            "scopes",
            "must name at least one scope, such as `okta.users.manage`",
        ),
        ("[\"okta.users.read\"]", "\"okta.users.read okta.logs.read\"", "scopes", name),
        ("[\"okta.users.read\"]", "[\"okta.users.read\", \"a\\\"b\"]", "scopes.1", name),
        ("scopes = [\"okta.users.read\"]", "", "scopes", "is missing"),
        ("private_key = { env = \"KEY\" }", "", "private_key", "is missing"),
        (
            "{ env = \"KEY\" }",
            "{ env = \"NONE\" }",
            "private_key",
            "the environment variable `NONE` is not set",
        ),
        (
            "{ env = \"KEY\" }",
            "{ env = \"TOKEN\" }",
            "private_key",
            "must be a private key in PEM (`-----BEGIN PRIVATE KEY-----`) or as a JWK (a JSON object)",
        ),
        ("scopes", "key_id = \"\"\nscopes", "key_id", name),
        ("scopes", "kid = \"x\"\nscopes", "kid", "unknown key"),
    ];
    for (there, instead, key, message) in rows {
        let expected = vec![(format!("connections.prod.service_app.{key}"), message.to_owned())];
        assert_eq!(bad(&app(&APP.replacen(there, instead, 1)), &[("KEY", KEY)]), expected, "{instead}");
    }
    let beside = format!("token_type = \"Bearer\"\n{}", PROD.replace("api_token = { env = \"TOKEN\" }", ""));
    let beside = beside.replace(
        "token_type = \"Bearer\"\n\n[connections.prod]",
        "[connections.prod]\ntoken_type = \"Bearer\"",
    );
    assert_eq!(
        bad(&format!("{beside}[connections.prod.service_app]\n{APP}"), &[("KEY", KEY)]),
        [(
            "connections.prod.token_type".to_owned(),
            "is for a token: that of a service app is always `Bearer`".to_owned()
        )]
    );
}

#[test]
fn every_problem_of_every_file_and_variable_is_told_at_once() {
    let directory = directory(&[
        ("10-broker.toml", "[broker]\nprefetch = 0\nprefetsch = 1\n"),
        ("20-prod.toml", &PROD.replace("\"read\"", "\"raed\", \"get_user\", \"get_usr\"")),
        (
            "30-callers.toml",
            "[callers.bot]\nconnections = [\"prod\", \"prd\"]\nsubtools = [\n  \"read\",\n  3,\n]\n",
        ),
        ("ignored.txt", "not TOML"),
        (".hidden.toml", "not TOML"),
    ]);
    let variables = environment(&[("OKTA_WORKER__RETRY__CAPS", "1s"), ("OKTA_WORKER__RETRY__BASE", "soon")]);
    let problems = config::load(Some(directory.path()), variables).unwrap_err();
    let shown = problems.to_string().replace(&format!("{}/", directory.path().display()), "");
    let expected = "\
10-broker.toml:2: broker.prefetch: must be between 1 and 1000
10-broker.toml:3: broker.prefetsch: unknown key, did you mean `prefetch`?
20-prod.toml:5: connections.prod.subtools.0: `raed` is neither a kind nor a subtool, did you mean `read`?
20-prod.toml:5: connections.prod.subtools.2: `get_usr` is neither a kind nor a subtool, did you mean `get_user`?
30-callers.toml:2: callers.bot.connections.1: there is no connection `prd`, did you mean `prod`?
30-callers.toml:5: callers.bot.subtools.1: must be a text
OKTA_WORKER__RETRY__BASE: must be a duration with its unit, such as `500ms`, `10m` or `14d`
OKTA_WORKER__RETRY__CAPS: fits no key, did you mean `OKTA_WORKER__RETRY__CAP`?";
    assert_eq!(shown, expected);
}

#[test]
fn a_missing_key_is_told_at_the_header_of_its_section() {
    let problems =
        load("\n[connections.prod]\ndomain = \"acme.okta.com\"\napi_token = { env = \"TOKEN\" }", &[])
            .unwrap_err();
    let [problem] = problems.0.as_slice() else { panic!("{problems}") };
    assert_eq!((problem.line, problem.path.as_str()), (Some(2), "connections.prod.subtools"));
}

#[test]
fn what_is_not_toml_is_told_by_line_and_column_beside_all_other_problems() {
    let files = [
        ("1.toml", "[broker]\nprefetch = 1 2\n"),
        ("2.toml", "[retry]\nattempts_max = 0\n[callers.bot]\nconnections = [\"prod\"]\nsubtools = []\n"),
    ];
    let problems = load_files(&files, &[]).unwrap_err().0;
    let places: Vec<_> = problems
        .iter()
        .map(|problem| {
            (problem.line, problem.path.as_str(), problem.message.starts_with("column 12: not TOML: "))
        })
        .collect();
    // Not told: that there is no connection `prod`; it may stand in what could not be read.
    assert_eq!(places, [(Some(2), "", true), (Some(2), "retry.attempts_max", false)], "{problems:#?}");
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let directory = directory(&[("latin.toml", "")]);
    std::fs::write(directory.path().join("latin.toml"), b"a = \"\xe9\"").unwrap();
    let empty = tempfile::tempdir().unwrap();
    let rows: [(PathBuf, &str); 3] = [
        (directory.path().join("none.toml"), "none.toml: failed to read: No such file or directory"),
        (directory.path().join("latin.toml"), "latin.toml: is not UTF-8 (byte 5)"),
        (empty.path().to_owned(), ": holds no `*.toml` file"),
    ];
    for (source, message) in rows {
        let problems = config::load(Some(&source), []).unwrap_err().to_string();
        assert!(problems.contains(message), "{problems}");
    }
}

#[test]
fn a_later_file_wins_key_by_key_and_tables_merge() {
    let files = [
        (
            "a.toml",
            "[broker]\nprefetch = 1\ndeclare = false\n[connections.prod]\ndomain = \"a.okta.com\"\napi_token = { file = \"/no/such/file\" }\n",
        ),
        (
            "b.toml",
            "[broker]\nprefetch = 2\n[connections.prod]\napi_token = { env = \"TOKEN\" }\nsubtools = \"read\"\n",
        ),
    ];
    let config = load_files(&files, &[]).unwrap().config;
    assert_eq!((config.broker.prefetch, config.broker.declare), (2, false));
    assert_eq!(config.connections[0].endpoint.base_url, "https://a.okta.com");
    assert_eq!(token_of(&config.connections[0]), "00token");
}

#[test]
fn any_key_may_come_from_the_environment() {
    let file = directory(&[("token", "00acme\n")]);
    let token = file.path().join("token").display().to_string();
    let variables = [
        ("OKTA_WORKER__BROKER__PREFETCH", "64"),
        ("OKTA_WORKER__BROKER__DECLARE", "false"),
        ("OKTA_WORKER__BROKER__HELD_BYTES_MAX", "1GiB"),
        ("OKTA_WORKER__BROKER__REPLY_TO", "agents.*, hr"),
        ("OKTA_WORKER__BROKER__URL", "amqps://worker:hunter2@rabbit.example.com"),
        ("OKTA_WORKER__RETRY__BASE", "1s"),
        ("OKTA_WORKER__TELEMETRY__LOG_FORMAT", "text"),
        ("OKTA_WORKER__CONNECTIONS__PROD__DOMAIN", "new.okta.com"),
        ("OKTA_WORKER__CONNECTIONS__PROD__API_TOKEN", "00literal"),
        ("OKTA_WORKER__CONNECTIONS__ACME_EU__DOMAIN", "acme-eu.okta.com"),
        ("OKTA_WORKER__CONNECTIONS__ACME_EU__API_TOKEN__FILE", &token),
        ("OKTA_WORKER__CONNECTIONS__ACME_EU__SUBTOOLS", "[\"read\", \"create_user\"]"),
        ("OKTA_WORKER__CONNECTIONS__ACME_EU__CAPACITY_PERCENT", "50"),
        ("OKTA_WORKER__CALLERS__HELP_DESK_AGENT__SUBTOOLS", "read,write"),
        ("OKTA_WORKER__CALLERS__NEW_BOT__CONNECTIONS", "acme-eu"),
        ("OKTA_WORKER__CALLERS__NEW_BOT__SUBTOOLS", "all"),
        ("OKTA_WORKER_CONFIG", "/etc/okta-worker"),
    ];
    let text = format!("{PROD}\n[callers.\"Help-Desk.Agent\"]\nconnections = [\"prod\"]\nsubtools = []\n");
    let Loaded { config, warnings } = load(&text, &variables).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(
        (config.broker.prefetch, config.broker.declare, config.broker.held_bytes_max),
        (64, false, 1 << 30)
    );
    assert_eq!(config.broker.url.expose(), "amqps://worker:hunter2@rabbit.example.com");
    assert_eq!(config.reply_to, ReplyPolicy::parse(&["agents.*", "hr"]).unwrap());
    assert_eq!(config.retry.base, Duration::from_secs(1));
    assert_eq!(config.telemetry.log_format, LogFormat::Text);
    let [acme, prod] = config.connections.as_slice() else { panic!("{:?}", config.connections) };
    assert_eq!(acme.endpoint.base_url, "https://acme-eu.okta.com");
    assert_eq!(token_of(acme), "00acme");
    assert_eq!(acme.subtools, AllowList::parse(&["read", "create_user"]).unwrap());
    assert_eq!(acme.capacity_percent, 50);
    assert_eq!(prod.endpoint.base_url, "https://new.okta.com");
    assert_eq!(token_of(prod), "00literal");
    assert_eq!(config.callers.0["Help-Desk.Agent"].subtools, AllowList::parse(&["read", "write"]).unwrap());
    assert_eq!(config.callers.0["new-bot"].lanes, Lane::ALL);
}

#[test]
fn a_variable_that_fits_no_key_is_named() {
    let rows = [
        ("OKTA_WORKER__BROKER__PREFECH", "1", "fits no key, did you mean `OKTA_WORKER__BROKER__PREFETCH`?"),
        ("OKTA_WORKER__BROKE__URL", "x", "fits no key, did you mean `OKTA_WORKER__BROKER__URL`?"),
        ("OKTA_WORKER__NOWHERE__AT__ALL", "x", "fits no key"),
        ("OKTA_WORKER__", "x", "fits no key"),
        ("OKTA_WORKER__BROKER__", "x", "fits no key"),
        ("OKTA_WORKER__BROKER", "x", "must be a table of keys"),
        ("OKTA_WORKER__BROKER__PREFETCH__MAX", "1", "must be a whole number, not a table"),
        ("OKTA_WORKER__BROKER__PREFETCH", "many", "must be a whole number"),
        ("OKTA_WORKER__BROKER__DECLARE", "yes", "must be `true` or `false`"),
        ("OKTA_WORKER__BROKER__REPLY_TO", "[\"a\"", "must be a list"),
        (
            "OKTA_WORKER__CONNECTIONS__PROD__SUBTOOLS",
            "read,raed",
            "`raed` is neither a kind nor a subtool, did you mean `read`?",
        ),
        ("OKTA_WORKER__CALLERS__A_B__LANES", "bulk", "fits both the caller `a-b` and the caller `a.b`"),
    ];
    let callers = "[callers]\na-b = { connections = [\"prod\"], subtools = \"read\" }\n\"a.b\" = { connections = [\"prod\"], subtools = \"read\" }";
    for (name, value, message) in rows {
        let problems = bad(&format!("{PROD}{callers}"), &[(name, value)]);
        assert_eq!(problems, [(name.to_owned(), message.to_owned())], "{name}");
    }
    let both = [("OKTA_WORKER__BROKER__URL", "amqp://x"), ("OKTA_WORKER__BROKER__URL__ENV", "X")];
    let contradiction = "contradicts `OKTA_WORKER__BROKER__URL`".to_owned();
    assert_eq!(bad("", &both), [("OKTA_WORKER__BROKER__URL__ENV".to_owned(), contradiction)]);
}

#[test]
fn a_secret_comes_from_a_variable_a_file_or_the_text_itself_and_is_trimmed() {
    let files = directory(&[("token", " 00file\n"), ("empty", "\n")]);
    let path = |name: &str| files.path().join(name).display().to_string();
    let with = |secret: &str| PROD.replace("{ env = \"TOKEN\" }", secret);
    for (secret, expected) in [
        ("{ env = \"TOKEN\" }".to_owned(), "00token"),
        (format!("{{ file = {:?} }}", path("token")), "00file"),
        ("\" 00text \"".to_owned(), "00text"),
    ] {
        assert_eq!(token_of(&good(&with(&secret), &[]).connections[0]), expected, "{secret}");
    }
    let shape = "must be `{ env = \"NAME\" }`, `{ file = \"/path\" }` or a text";
    for (secret, message) in [
        ("{ env = \"NONE\" }".to_owned(), "the environment variable `NONE` is not set".to_owned()),
        ("{ env = \"EMPTY\" }".to_owned(), "the environment variable `EMPTY` is empty".to_owned()),
        ("{ env = \"00token\" }".to_owned(), "`env` must be the name of an environment variable".to_owned()),
        (format!("{{ file = {:?} }}", path("empty")), format!("`{}`: is empty", path("empty"))),
        ("\" \"".to_owned(), "must not be empty".to_owned()),
        ("{}".to_owned(), shape.to_owned()),
        ("{ env = \"A\", file = \"b\" }".to_owned(), shape.to_owned()),
        ("3".to_owned(), shape.to_owned()),
        (
            "\"two words\"".to_owned(),
            "must hold visible ASCII characters only: it travels in a header".to_owned(),
        ),
    ] {
        let problems = bad(&with(&secret), &[("EMPTY", " ")]);
        assert_eq!(problems, [("connections.prod.api_token".to_owned(), message)], "{secret}");
    }
    let missing = bad(&with("{ file = \"/no/such/file\" }"), &[]);
    assert!(missing[0].1.starts_with("`/no/such/file`: failed to read: No such file"), "{missing:?}");
}

#[test]
fn a_broker_of_several_nodes_is_named_by_all_of_them() {
    let urls = |text: &str, variables: &[(&str, &str)]| {
        let broker = good(text, variables).broker;
        let others = broker.other_urls.iter().map(|url| url.expose().to_owned());
        [broker.url.expose().to_owned()].into_iter().chain(others).collect::<Vec<_>>()
    };
    const BOTH: &str = "broker.urls = [\"amqp://w@a\", { env = \"B\" }]";
    let b = ("B", "amqp://w:hunter2@b:5673");
    assert_eq!(urls(BOTH, &[b]), ["amqp://w@a", "amqp://w:hunter2@b:5673"]);
    assert_eq!(urls("broker.urls = \"amqp://a\"", &[]), ["amqp://a"]);
    assert_eq!(urls("broker.urls = { env = \"B\" }", &[b]), ["amqp://w:hunter2@b:5673"]);
    // The environment wins, by whichever key.
    let (one, several) = ("OKTA_WORKER__BROKER__URL", "OKTA_WORKER__BROKER__URLS");
    assert_eq!(urls(BOTH, &[b, (one, "amqp://c")]), ["amqp://c"]);
    for list in ["amqp://c, amqp://d", "[\"amqp://c\", \"amqp://d\"]"] {
        assert_eq!(urls("broker.url = \"amqp://a\"", &[(several, list)]), ["amqp://c", "amqp://d"]);
        assert_eq!(urls(BOTH, &[b, (several, list)]), ["amqp://c", "amqp://d"]);
    }
    let uri = "must be a URI such as `amqps://user:password@rabbit.example.com:5671/%2f`";
    let another = "must name the same user and virtual host as the first one";
    for (text, path, message) in [
        ("broker.urls = []", "broker.urls", "must hold a URI"),
        ("broker.urls = [\"amqp://a\", \"b\"]", "broker.urls.1", uri),
        ("broker.urls = [\"amqp://v@a\", \"amqp://w@b\"]", "broker.urls.1", another),
        ("broker.urls = [\"amqp://a/x\", \"amqp://a/y\"]", "broker.urls.1", another),
        (
            "broker = { url = \"amqp://a\", urls = [\"amqp://b\"] }",
            "broker.urls",
            "stands beside `url`: give one of them",
        ),
    ] {
        assert_eq!(bad(text, &[]), [(path.to_owned(), message.to_owned())], "{text}");
    }
    let warned = load("broker.urls = [\"amqp://w@a\", \"amqp://w:hunter2@b\"]", &[]).unwrap().warnings;
    assert!(
        warned.len() == 1 && warned[0].starts_with("broker.urls.1 holds a literal password"),
        "{warned:?}"
    );
}

#[test]
fn a_token_that_was_copied_with_its_scheme_is_taken_without_it() {
    let with = |value: &str, kind: &str| {
        good(&PROD.replace("{ env = \"TOKEN\" }", &format!("{value:?}\n{kind}")), &[])
    };
    for (value, kind) in
        [("SSWS 00token", ""), (" ssws\t00token\n", ""), ("Bearer 00token", "token_type = \"Bearer\"")]
    {
        assert_eq!(token_of(&with(value, kind).connections[0]), "00token", "{value}");
    }
    let wrong = bad(&PROD.replace("{ env = \"TOKEN\" }", "\"Bearer 00token\""), &[]);
    let message = "begins with `Bearer`, and its `token_type` is `SSWS`: one of them is wrong";
    assert_eq!(wrong, [("connections.prod.api_token".to_owned(), message.to_owned())]);
}

#[test]
fn a_literal_secret_in_a_file_is_warned_of_and_nowhere_else() {
    let literal = PROD.replace("{ env = \"TOKEN\" }", "\"00literal\"");
    let rows = [
        (literal.as_str(), &[][..], &["connections.prod.api_token is a literal: "][..]),
        (PROD, &[("OKTA_WORKER__CONNECTIONS__PROD__API_TOKEN", "00literal")], &[]),
        ("broker.url = \"amqp://worker:hunter2@rabbit\"", &[], &["broker.url holds a literal password: "]),
        ("broker.url = \"amqp://guest:guest@rabbit\"", &[], &[]),
        ("broker.url = \"amqp://rabbit\"", &[], &[]),
        ("broker.url = { env = \"URL\" }", &[("URL", "amqp://worker:hunter2@rabbit")], &[]),
        (
            "connections.x = { base_url = \"http://[::1]:1\", api_token = \"t\", subtools = [] }",
            &[],
            &["connections.x.subtools is empty: "],
        ),
    ];
    for (text, variables, expected) in rows {
        let warnings = load(text, variables).unwrap().warnings;
        let as_expected = warnings.len() == expected.len()
            && warnings.iter().zip(expected).all(|(warning, start)| warning.starts_with(start));
        assert!(as_expected, "{text}: {warnings:?}");
    }
}

#[test]
fn commands_that_send_nothing_to_okta_start_without_its_tokens() {
    let directory = directory(&[("worker.toml", PROD)]);
    let loaded = config::load_without_tokens(Some(directory.path()), []).unwrap();
    assert!(token_of(&loaded.config.connections[0]).is_empty());
    assert!(config::load(Some(directory.path()), []).is_err());
    // Nor need it be said where one would be.
    let bare = PROD.replace("api_token = { env = \"TOKEN\" }\n", "");
    let directory = self::directory(&[("worker.toml", &bare)]);
    assert!(config::load_without_tokens(Some(directory.path()), []).is_ok());
    assert!(config::load(Some(directory.path()), [("TOKEN".to_owned(), "x".to_owned())]).is_err());
    for keys in [APP, &APP.replace("private_key = { env = \"KEY\" }\n", "")] {
        let directory = self::directory(&[("worker.toml", &app(keys))]);
        let loaded = config::load_without_tokens(Some(directory.path()), []).unwrap();
        let Credential::ServiceApp(app) = &loaded.config.connections[0].endpoint.credential else {
            panic!("it is one")
        };
        assert!(app.private_key.is_empty());
        assert!(config::load(Some(directory.path()), []).is_err());
    }
}

#[test]
fn no_secret_is_ever_shown() {
    const PLANTED: [&str; 3] = ["00PlantedToken", "PlantedPassword", "planted-variable"];
    let leaks = |shown: &str| PLANTED.iter().any(|secret| shown.contains(secret));
    let url = "amqp://worker:PlantedPassword@rabbit.example.com";
    let literal = PROD.replace("{ env = \"TOKEN\" }", "\"00PlantedToken\"");
    let loaded = load(&format!("broker.url = \"{url}\"\n{literal}"), &[]).unwrap();
    assert_eq!(token_of(&loaded.config.connections[0]), "00PlantedToken");
    assert!(!leaks(&format!("{loaded:?} {loaded:#?}")));
    let loaded = load(&app(APP), &[("KEY", KEY)]).unwrap();
    let shown = format!("{loaded:?} {loaded:#?}");
    assert!(!KEY.lines().skip(2).any(|line| shown.contains(line)), "{shown}");

    let token = |value: &str| PROD.replace("{ env = \"TOKEN\" }", value);
    let texts = [
        // Secrets in the wrong shape, in the wrong place, and beside what is not TOML.
        token("00PlantedToken"),
        token("\"00PlantedToken"),
        token("\"00PlantedToken\" x"),
        token("'00PlantedToken\"\n"),
        token("\"00PlantedToken\\q\""),
        token("[\"00PlantedToken\"]"),
        token("\"00PlantedToken with a space\""),
        token("{ env = \"00PlantedToken\" }"),
        token("{ env = \"NONE\", value = \"00PlantedToken\" }"),
        prod_with("api_tokn = \"00PlantedToken\""),
        prod_with("00PlantedToken = 1"),
        PROD.replace("\"read\"", "\"00PlantedToken\""),
        format!("{PROD}[callers.a]\nconnections = [\"00PlantedToken\"]\nsubtools = [\"read\"]"),
        "broker.url = \"amqp://worker:Planted#PlantedPassword@rabbit\"".to_owned(),
        "broker.reply_to = [\"^00PlantedToken\"]".to_owned(),
        "broker.prefetch = \"00PlantedToken\"".to_owned(),
        prod_with("access_token = \"00PlantedToken\""),
        prod_with("service_app = { private_key = \"00PlantedToken\" }"),
        app("client_id = \"x\"\nscopes = \"x\"\nprivate_key = \"00PlantedToken\""),
        app("client_id = \"x\"\nscopes = \"x\"\nprivate_key = '{\"kty\": \"RSA\", \"d\": 00PlantedToken}'"),
        app(
            "client_id = \"x\"\nscopes = \"x\"\nprivate_key = \"-----BEGIN PRIVATE KEY-----\\n00PlantedToken\"",
        ),
        app("client_id = \"x\"\nscopes = \"x\"\nprivate_key = \"-----BEGIN 00PlantedToken\""),
        app("client_id = \"x\"\nscopes = \"x\"\nprivate_key = [\"00PlantedToken\"]"),
        app("client_id = \"x\"\nscopes = \"x\"\nprivat_key = \"00PlantedToken\""),
        prod_with("token_type = \"00PlantedToken\""),
        prod_with("base_url = \"https://x:PlantedPassword@acme.okta.com\""),
        PROD.replace("acme.okta.com", "https://x:PlantedPassword@acme.okta.com"),
        PROD.replace("acme.okta.com", "00PlantedToken"),
        "broker.url = \"http://worker:PlantedPassword@rabbit\"".to_owned(),
        "broker.url = \"amqp://worker:PlantedPassword@\"".to_owned(),
        "broker.url = [\"amqp://worker:PlantedPassword@rabbit\"]".to_owned(),
        "broker.urls = [\"amqp://worker:PlantedPassword@\"]".to_owned(),
        "broker.urls = [\"amqp://worker:PlantedPassword@a\", \"amqp://worker2:PlantedPassword@b\"]"
            .to_owned(),
        "telemetry.otlp_endpoint = \"https://x:PlantedPassword@otlp\"".to_owned(),
    ];
    for text in texts {
        let problems = load(&text, &[]).err().unwrap_or_else(|| panic!("accepted: {text}"));
        assert!(!leaks(&format!("{problems} {problems:?}")), "{problems}");
    }
    for name in [
        "OKTA_WORKER__BROKER__URL",
        "OKTA_WORKER__BROKER__URI",
        "OKTA_WORKER__CONNECTIONS__PROD__API_TOKEN__FILE__X",
    ] {
        let problems = load(PROD, &[(name, "planted-variable PlantedPassword")]).unwrap_err();
        assert!(!leaks(&format!("{problems} {problems:?}")), "{problems}");
    }
}
