//! The mistakes that newcomers make most, typed as they would, and what the screen says: docs/mistakes.md.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const PAGE: &str = "docs/mistakes.md";

/// A configuration without a fault, for an org that is simulated; `ORG` is its URL.
const GOOD: &str = "\
[connections.prod]
base_url = \"ORG\"
api_token = { env = \"OKTA_API_TOKEN\" }
subtools = \"read\"
";

/// One mistake.
struct Mistake {
    what: &'static str,
    /// A line of [`GOOD`], and the text that replaces it in the file `worker.toml`.
    instead: Option<(&'static str, &'static str)>,
    /// Another file, and what is in it.
    file: Option<(&'static str, &'static [u8])>,
    typed: &'static str,
    /// A part of what the screen shows.
    says: &'static str,
    code: i32,
}

/// The fields that most rows share.
const PLAIN: Mistake = Mistake { what: "", instead: None, file: None, typed: "", says: "", code: 2 };

const ALL: [Mistake; 16] = [
    Mistake {
        what: "no configuration named",
        typed: "okta-worker run",
        says: "no connection is configured: name the configuration by `--config FILE` or OKTA_WORKER_CONFIG",
        ..PLAIN
    },
    Mistake {
        what: "a misspelt key",
        instead: Some(("api_token =", "api_tokn =")),
        typed: "okta-worker --config worker.toml check",
        says: "worker.toml:3: connections.prod.api_tokn: unknown key, did you mean `api_token`?",
        ..PLAIN
    },
    Mistake {
        what: "a variable that is not set",
        typed: "env -u OKTA_API_TOKEN okta-worker --config worker.toml check",
        says: "worker.toml:3: connections.prod.api_token: the environment variable `OKTA_API_TOKEN` is not set",
        ..PLAIN
    },
    Mistake {
        what: "the address of the admin console",
        instead: Some(("base_url = \"ORG\"", "domain = \"https://acme-admin.okta.com/\"")),
        typed: "okta-worker --config worker.toml check",
        says: "connections.prod.domain: must be a host without a scheme, did you mean `acme.okta.com`?",
        ..PLAIN
    },
    Mistake {
        what: "a domain that does not exist",
        instead: Some(("base_url = \"ORG\"", "domain = \"acme.okta.invalid\"")),
        typed: "okta-worker --config worker.toml call list_users --connection prod",
        says: "Okta is not reached: failed to reach Okta: `acme.okta.invalid`: ",
        code: 1,
        ..PLAIN
    },
    Mistake {
        what: "a token that Okta does not know",
        typed: "OKTA_API_TOKEN=wrong okta-worker --config worker.toml call list_users --connection prod",
        says: "connection `prod` is paused: Okta refuses its credential",
        code: 1,
        ..PLAIN
    },
    Mistake {
        what: "a broker password with special characters",
        instead: Some(("[connections", "[broker]\nurl = \"amqp://worker:pa#ss@localhost\"\n[connections")),
        typed: "okta-worker --config worker.toml check",
        says: "broker.url: special characters in the user or the password must be percent-encoded: `#` as `%23`",
        ..PLAIN
    },
    Mistake {
        what: "RabbitMQ does not run",
        instead: Some(("[connections", "[broker]\nurl = \"amqp://guest:guest@127.0.0.1:1\"\n[connections")),
        file: Some(("people.csv", b"user_id\njane@example.com\n")),
        typed: "okta-worker --config worker.toml submit people.csv --connection prod --subtool get_user",
        says: "failed to reach the broker at `127.0.0.1:1` (`broker.url`): IO error: Connection refused",
        ..PLAIN
    },
    Mistake {
        what: "another name of the connection",
        typed: "okta-worker --config worker.toml call get_user --connection prd",
        says: "unknown connection `prd`, did you mean `prod`?",
        ..PLAIN
    },
    Mistake {
        what: "a misspelt subtool",
        typed: "okta-worker --config worker.toml call get_usr --connection prod",
        says: "unknown subtool `get_usr`, did you mean `get_user`?",
        ..PLAIN
    },
    Mistake {
        what: "a subtool that is not enabled",
        typed: r#"okta-worker --config worker.toml call delete_user --connection prod --args '{"user_id":"jane@example.com"}'"#,
        says: "connection `prod` does not enable `delete_user`",
        ..PLAIN
    },
    Mistake {
        what: "another name of an argument",
        typed: r#"okta-worker --config worker.toml call get_user --connection prod --args '{"user":"jane@example.com"}'"#,
        says: "unknown field `user`, known are `user_id`",
        ..PLAIN
    },
    Mistake {
        what: "arguments without quotes around them",
        typed: "okta-worker --config worker.toml call get_user --connection prod --args {user_id:jane}",
        says: "`--args` is not JSON: key must be a string at line 1 column 2; it must be an object in single quotes, such \
               as '{\"user_id\":\"jane@example.com\"}'",
        ..PLAIN
    },
    Mistake {
        what: "a file with semicolons",
        file: Some(("people.csv", b"user_id;profile.title\njane@example.com;Boss\n")),
        typed: "okta-worker --config worker.toml submit people.csv --connection prod --subtool update_user",
        says: "line 1: the separator is commas, and the cells of this line are separated by semicolons: say `--delimiter ';'`",
        ..PLAIN
    },
    Mistake {
        what: "headings for people",
        file: Some(("people.csv", b"Username\njane@example.com\n")),
        typed: "okta-worker --config worker.toml submit people.csv --connection prod --subtool create_user",
        says: "line 1, column 1 (`Username`): `create_user` has no such argument, did you mean `profile.login`?",
        ..PLAIN
    },
    Mistake {
        what: "a workbook instead of CSV",
        file: Some(("people.csv", b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00")),
        typed: "okta-worker --config worker.toml submit people.csv --connection prod --subtool create_user",
        says: "`people.csv` is an Excel workbook or another ZIP archive: save the sheet as `CSV UTF-8`",
        ..PLAIN
    },
];

/// A simulated org over HTTP, which ends with this value.
struct Org {
    process: Child,
    url: String,
}

impl Org {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_okta-worker"))
            .args(["sandbox", "--listen", "127.0.0.1:0", "--token", "right", "--users", "3"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the binary under test can be run");
        let mut said = String::new();
        let output = process.stdout.take().expect("it was piped");
        BufReader::new(output).read_line(&mut said).expect("it says where it listens");
        let url = said.rsplit(' ').next().expect("a line has words").trim().to_owned();
        Self { process, url }
    }
}

impl Drop for Org {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Types a command in a folder; exit code and everything on the screen.
fn typed(command: &str, folder: &Path) -> (Option<i32>, String) {
    let programs = Path::new(env!("CARGO_BIN_EXE_okta-worker")).parent().expect("a file is in a folder");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("bash")
        .args(["-c", command])
        .current_dir(folder)
        .env("PATH", path)
        .env("OKTA_API_TOKEN", "right")
        .env_remove("OKTA_WORKER_CONFIG")
        .env_remove("AMQP_URL")
        .stdin(Stdio::null())
        .output()
        .expect("bash is there");
    (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// Returns a text as the screen shows it inside JSON.
fn as_shown(text: &str) -> String {
    text.replace('"', "\\\"")
}

fn page() -> String {
    let mut page = String::from(
        "# Mistakes, and what the screen says\n\nThe mistakes that newcomers make most, each with the line that names it. \
         Generated by `UPDATE_DOCS=1 cargo test --test mistakes`, which types every command and compares.\n\n\
         | mistake | typed | the screen says |\n|---|---|---|\n",
    );
    for Mistake { what, instead, file, typed, says, .. } in &ALL {
        let cell = |text: &str| format!("`` {} ``", text.replace('|', "\\|").replace('\n', " "));
        let mut given = cell(typed);
        if let Some((_, written)) = instead {
            let line = written.lines().find(|line| !line.starts_with('[')).unwrap_or(written);
            let _ = write!(given, " with {} in `worker.toml`", cell(line.trim_end_matches(" =")));
        }
        if let Some((name, text)) = file.filter(|(_, text)| text.is_ascii() && !text.contains(&0)) {
            let text = String::from_utf8_lossy(text);
            let _ = write!(given, "; `{name}` begins with {}", cell(text.lines().next().unwrap_or_default()));
        }
        let _ = writeln!(page, "| {what} | {given} | {} |", cell(says));
    }
    page
}

#[test]
fn the_screen_names_every_mistake() {
    let org = Org::start();
    let mut missed = Vec::new();
    for Mistake { what, instead, file, typed: command, says, code } in &ALL {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (from, to) = instead.unwrap_or_default();
        let settings = if from.is_empty() { GOOD.to_owned() } else { GOOD.replacen(from, to, 1) };
        let write = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text);
        write("worker.toml", settings.replace("ORG", &org.url).as_bytes()).expect("a file can be written");
        if let Some((name, text)) = file {
            write(name, text).expect("a file can be written");
        }
        let (ended, screen) = typed(command, folder.path());
        if ended != Some(*code) || !(screen.contains(says) || screen.contains(&as_shown(says))) {
            missed.push(format!(
                "{what}: exit code {ended:?}, not {code}\n$ {command}\n{screen}\nlacks: {says}"
            ));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}

#[test]
fn the_page_in_docs_is_up_to_date() {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, page()).expect("the page can be written");
    }
    let there = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert_eq!(there, page(), "{PAGE} is out of date: run `UPDATE_DOCS=1 cargo test --test mistakes`");
}
