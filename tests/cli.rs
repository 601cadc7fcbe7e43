//! The command line as a newcomer, a shell, a pager and a script meet it.

use std::process::{Command, Stdio};

use clap::CommandFactory as _;
use okta_worker::cli::Cli;

/// What begins every code that colours or moves.
const ESCAPE: char = '\u{1b}';

/// The binary under test, in an environment that says nothing about colours.
fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_okta-worker"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("OKTA_")
            || ["RUST_LOG", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"].contains(&&*name)
        {
            command.env_remove(&*name);
        }
    }
    command.stdin(Stdio::null());
    command
}

/// Exit code and everything written.
fn ran(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("the binary under test can be run");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("it writes UTF-8"))
}

/// Every command with its words: `dead`, `dead list`, …
fn commands() -> Vec<Vec<String>> {
    fn walk(command: &clap::Command, above: &[String], found: &mut Vec<Vec<String>>) {
        for below in command.get_subcommands() {
            let words = [above, &[below.get_name().to_owned()]].concat();
            walk(below, &words, found);
            found.push(words);
        }
    }
    let mut found = Vec::new();
    walk(&Cli::command(), &[], &mut found);
    found
}

#[test]
fn the_definition_of_the_command_line_is_sound() {
    Cli::command().debug_assert();
    let all = commands();
    for words in [&["run"][..], &["dead", "replay"], &["completions"], &["man"]] {
        assert!(all.iter().any(|known| known == words), "{words:?}");
    }
}

#[test]
fn every_command_has_help_of_lines_that_fit_a_terminal() {
    for words in commands() {
        let (code, help) = ran(command().args(&words).arg("--help"));
        assert_eq!(code, Some(0), "{words:?}");
        if words == ["submit"] || words == ["mcp"] {
            continue; // they have none yet
        }
        let long = help.lines().find(|line| line.chars().count() > 100);
        assert_eq!(long, None, "{words:?}");
    }
}

#[test]
fn who_stops_reading_has_read_enough() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("worker.toml");
    std::fs::write(
        &config,
        r#"
[broker]
url = "amqp://guest:guest@127.0.0.1:1/%2f"
[connections.prod]
domain = "acme.okta.com"
base_url = "http://127.0.0.1:1"
api_token = "t0k"
subtools = "all"
"#,
    )
    .unwrap();
    let rows = [
        (&["check"][..], 1),
        (&["call", "get_user", "--connection", "prod", "--args", r#"{"x":1}"#], 2),
        (&["call", "get_user", "--connection", "prud"], 2),
        (&["catalog"], 0),
    ];
    for (words, expected) in rows {
        let closed = || {
            let (reader, writer) = std::io::pipe().unwrap();
            drop(reader);
            writer
        };
        let mut command = command();
        command.arg("--config").arg(&config).args(words).stdout(closed()).stderr(closed());
        assert_eq!(command.status().unwrap().code(), Some(expected), "{words:?}");
    }
}

#[test]
fn an_empty_variable_sets_nothing() {
    let call = ["call", "get_user", "--connection", "prod"];
    let (code, said) = ran(command().args(call).env("OKTA_WORKER_CONFIG", ""));
    assert!(code == Some(2) && said.contains("unknown connection `prod`: none is configured"), "{said}");
    let (code, said) = ran(command().args(call).args(["--config", ""]));
    assert!(code == Some(2) && said.contains("a value is required"), "{said}");
    let sandbox = ["sandbox", "--listen", "nowhere"];
    let (_, said) = ran(command().args(sandbox).env("OKTA_WORKER_SANDBOX_TOKEN", ""));
    assert!(said.contains("'--listen <ADDR>'") && !said.contains("--token"), "{said}");
}

/// Returns the completions that bash is offered for the last of these words.
fn completed(words: &[&str]) -> Vec<String> {
    let index = words.len().to_string();
    let mut asking = command();
    asking.env("_OKTA_WORKER_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n");
    let (code, said) = ran(asking.args(["--", "okta-worker"]).args(words));
    assert_eq!(code, Some(0), "{words:?}: {said}");
    said.lines().map(str::to_owned).collect()
}

#[test]
fn commands_options_subtools_and_connections_are_completed() {
    for words in commands() {
        let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
        let name = words.pop().unwrap();
        words.push("");
        assert!(completed(&words).iter().any(|offered| offered == name), "{words:?}: {name}");
    }
    assert_eq!(completed(&["dead", "list", "--older"]), ["--older-than"]);
    assert_eq!(
        completed(&["call", "list_user_"]),
        ["list_user_groups", "list_user_apps", "list_user_factors"]
    );
    assert_eq!(completed(&["catalog", "get_g"]), ["get_group"]);
    let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    let connection = |name: &str| {
        format!("[connections.{name}]\ndomain = \"a.okta.com\"\napi_token = \"x\"\nsubtools = \"read\"\n")
    };
    std::fs::write(file.path(), connection("prod") + &connection("preview")).unwrap();
    let path = file.path().to_str().unwrap();
    for command in [&["call", "get_user"][..], &["submit", "a.csv"], &["mcp"]] {
        let line = [&["--config", path], command, &["--connection", "pr"]].concat();
        assert_eq!(completed(&line), ["preview", "prod"], "{line:?}");
    }
    assert_eq!(completed(&["--config", "/nowhere", "mcp", "--connection", ""]), [""; 0]);
}

#[test]
fn there_is_a_completion_script_for_every_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, script) = ran(command().args(["completions", shell]));
        assert_eq!(code, Some(0), "{shell}: {script}");
        assert!(
            script.contains("okta-worker") && script.contains("_OKTA_WORKER_COMPLETE"),
            "{shell}: {script}"
        );
    }
    let (code, said) = ran(command().args(["completions", "cmd"]));
    assert!(code == Some(2) && said.contains("bash"), "{said}");
}

#[test]
fn a_shell_reads_the_completions() {
    let (_, script) = ran(command().args(["completions", "bash"]));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), script).unwrap();
    let checked = Command::new("bash").arg("-n").arg(file.path()).status().expect("bash is there");
    assert!(checked.success());
}

#[test]
fn the_manual_page_names_every_command_and_each_has_its_own() {
    let (code, page) = ran(command().arg("man"));
    assert_eq!(code, Some(0), "{page}");
    // Roff writes a hyphen with a backslash.
    let page = page.replace('\\', "");
    assert!(page.contains(".TH okta-worker 1"), "{page}");
    for words in commands().iter().filter(|words| words.len() == 1) {
        assert!(page.contains(&format!("okta-worker-{}(1)", words[0])), "{words:?}");
    }
    for words in commands() {
        let (code, page) = ran(command().arg("man").args(&words));
        let page = page.replace('\\', "");
        assert_eq!(code, Some(0), "{words:?}");
        assert!(page.contains(&format!(".TH okta-worker-{} 1", words.join("-"))), "{words:?}: {page}");
        assert!(page.contains(&format!("okta-worker {}", words.join(" "))), "{words:?}: {page}");
    }
    let (code, said) = ran(command().args(["man", "dance"]));
    assert!(code == Some(2) && said.contains("`dance`"), "{said}");
}

#[test]
fn what_no_terminal_reads_has_no_escape_codes() {
    let rows: [&[&str]; 7] = [
        &["--help"],
        &["dead", "replay", "--help"],
        &["dance"],
        &["call", "get_user"],
        &["call", "get_user", "--connection", "prod"],
        &["check"],
        &["man"],
    ];
    for arguments in rows {
        let (_, said) = ran(command().args(arguments));
        assert!(!said.is_empty() && !said.contains(ESCAPE), "{arguments:?}: {said}");
        let (_, said) = ran(command().args(arguments).env("NO_COLOR", "1").env("CLICOLOR_FORCE", "1"));
        assert!(!said.contains(ESCAPE), "{arguments:?}: {said}");
    }
}

/// What a command writes to a terminal; nothing where none can be had.
fn on_a_terminal(arguments: &str, variables: &[(&str, &str)]) -> Option<String> {
    let mut command = Command::new("script");
    let line = format!("{} {arguments}", env!("CARGO_BIN_EXE_okta-worker"));
    for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "OKTA_WORKER_CONFIG"] {
        command.env_remove(name);
    }
    command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").envs(variables.iter().copied());
    match command.stdin(Stdio::null()).output() {
        Ok(output) => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(_) => {
            println!("not run: there is no `script` (Debian: bsdutils)");
            None
        }
    }
}

#[test]
fn on_a_terminal_there_are_colours_unless_somebody_wants_none() {
    for arguments in ["--help", "dance"] {
        let Some(coloured) = on_a_terminal(arguments, &[]) else { return };
        assert!(coloured.contains(ESCAPE), "{coloured}");
        let plain = on_a_terminal(arguments, &[("NO_COLOR", "1")]).unwrap();
        assert!(!plain.is_empty() && !plain.contains(ESCAPE), "{plain}");
    }
}

#[test]
fn whoever_stops_reading_is_not_told_of_a_panic() {
    for arguments in ["man", "completions zsh", "catalog", "catalog --format asyncapi", "--help"] {
        let line = format!("{} {arguments} | head -n 1 >/dev/null", env!("CARGO_BIN_EXE_okta-worker"));
        let output = Command::new("sh").args(["-c", &line]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains("panicked"), "{arguments}: {said}");
    }
}

/// Where nothing can be written: a full disk for whoever prints.
fn full() -> Option<std::fs::File> {
    let full = std::fs::File::options().write(true).open("/dev/full").ok();
    if full.is_none() {
        println!("skipped: there is no /dev/full here");
    }
    full
}

#[test]
fn what_a_full_disk_does_not_take_is_no_success() {
    for arguments in [&["catalog", "--format", "json-schema"][..], &["completions", "bash"], &["man"]] {
        let Some(full) = full() else { return };
        let output =
            command().args(arguments).stdout(full).output().expect("the binary under test can be run");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("failed to write to standard output: No space left"), "{arguments:?}: {said}");
    }
}

#[test]
fn a_worker_whose_log_finds_a_full_disk_goes_on() {
    let Some(full) = full() else { return };
    // A broker that hangs up: each try to reach it is a line of the log, and a panic would end the worker with the first.
    let broker = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("worker.toml");
    let text = format!(
        "broker.url = \"amqp://{}\"\n[telemetry]\nlisten = \"127.0.0.1:0\"\n[connections.prod]\n\
         domain = \"acme.okta.com\"\napi_token = \"x\"\nsubtools = [\"read\"]\n",
        broker.local_addr().unwrap()
    );
    std::fs::write(&file, text).unwrap();
    let mut worker = command();
    worker.arg("--config").arg(&file).arg("run").stderr(full).stdout(Stdio::null());
    let mut worker = worker.spawn().expect("the binary under test can be run");
    broker.set_nonblocking(true).unwrap();
    let (mut tries, deadline) = (0, std::time::Instant::now() + std::time::Duration::from_secs(60));
    while tries < 4 {
        assert_eq!(worker.try_wait().unwrap(), None, "it ended after {tries} tries");
        assert!(std::time::Instant::now() < deadline, "it gave up after {tries} tries");
        match broker.accept() {
            Ok(_) => tries += 1,
            Err(_) => std::thread::sleep(std::time::Duration::from_millis(20)),
        }
    }
    assert!(Command::new("kill").args(["-s", "TERM", &worker.id().to_string()]).status().unwrap().success());
    assert_eq!(worker.wait().unwrap().code(), Some(0));
}

/// A simulated org in a process of its own, ended with the test.
struct Sandbox {
    process: std::process::Child,
    url: String,
}

impl Sandbox {
    fn start() -> Self {
        let mut process = command()
            .args(["sandbox", "--listen", "127.0.0.1:0", "--users", "3"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary under test can be run");
        let mut said = String::new();
        let stdout = process.stdout.take().expect("it is piped");
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut said)
            .expect("it says where it is");
        let url = said.split_whitespace().last().expect("it ends with the URL").to_owned();
        Self { process, url }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A configuration with this org as the connection `prod`.
fn configured(dir: &std::path::Path, base_url: &str) -> std::path::PathBuf {
    let file = dir.join("worker.toml");
    let text = format!(
        "[broker]\nurl = \"amqp://guest:guest@127.0.0.1:1/%2f\"\n[connections.prod]\nbase_url = \"{base_url}\"\n\
         api_token = \"t0k\"\nsubtools = \"all\"\n"
    );
    std::fs::write(&file, text).expect("a file can be written");
    file
}

#[test]
fn who_forgets_the_configuration_hears_how_to_name_it() {
    let rows = [&["run"][..], &["call", "get_user", "--connection", "prod"]];
    for words in rows {
        let (code, said) = ran(command().args(words));
        assert_eq!(code, Some(2), "{words:?}: {said}");
        assert!(said.contains("`--config FILE`") && said.contains("OKTA_WORKER_CONFIG"), "{words:?}: {said}");
    }
}

#[test]
fn an_org_on_this_machine_is_never_reached_through_a_proxy() {
    let (dir, org) = (tempfile::tempdir().unwrap(), Sandbox::start());
    let file = configured(dir.path(), &org.url);
    let mut command = command();
    for name in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env(name, "http://127.0.0.1:1"); // nobody listens there
    }
    let call = ["call", "list_users", "--connection", "prod", "--args", r#"{"limit":1}"#];
    let (code, said) = ran(command.arg("--config").arg(file).args(call));
    assert!(code == Some(0) && said.contains("\"count\":1"), "{said}");
}

#[test]
fn an_org_that_is_not_reached_is_named_with_the_cause() {
    let dir = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = configured(dir.path(), &format!("http://{free}"));
    let call = ["call", "get_user", "--connection", "prod", "--args", r#"{"user_id":"jane@example.com"}"#];
    let (code, said) = ran(command().arg("--config").arg(file).args(call));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&free.to_string()) && said.to_lowercase().contains("connection refused"), "{said}");
    assert!(!said.contains("jane"), "{said}");
}

#[test]
fn the_catalogue_describes_one_subtool_in_each_format() {
    let (code, page) = ran(command().args(["catalog", "get_user"]));
    assert!(
        code == Some(0) && page.starts_with("## get_user\n") && !page.contains("list_groups\n"),
        "{page}"
    );
    for format in ["json-schema", "mcp", "openai"] {
        let (code, text) = ran(command().args(["catalog", "get_user", "--format", format]));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(code == Some(0) && value.to_string().contains("get_user"), "{text}");
    }
    let (code, said) = ran(command().args(["catalog", "get_usr"]));
    assert!(code == Some(2) && said.contains("did you mean `get_user`?"), "{said}");
    let (code, said) = ran(command().args(["catalog", "get_user", "--format", "asyncapi"]));
    assert!(code == Some(2) && said.contains("not one subtool"), "{said}");
}
