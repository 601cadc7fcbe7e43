//! The rules of the house, checked on the sources: floors, confined dependencies, sizes, opening words.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The floors, the ground first; the order of `src/lib.rs`.
const FLOORS: [&str; 14] = [
    "domain",
    "tools",
    "catalog",
    "policy",
    "event",
    "budget",
    "worker",
    "sandbox",
    "embedded",
    "telemetry",
    "rabbit",
    "okta",
    "config",
    "cli",
];

/// Floors that see less than all below them.
const NARROW: [(&str, &[&str]); 2] = [
    ("sandbox", &["domain"]), // the world must not know the worker, or it would flatter it
    ("catalog", &["domain", "tools"]), // documents say what the types say
];

/// Which files may name a dependency. ARCHITECTURE.md says why.
const CONFINED: [(&str, &[&str]); 23] = [
    ("aho_corasick", &["src/domain/secret.rs"]),
    ("rmcp", &["src/cli/mcp/"]),
    ("lapin", &["src/rabbit/"]),
    ("async_rs", &["src/rabbit/client/utf8_repair.rs", "src/rabbit/client/stream.rs"]),
    ("reqwest", &["src/okta/wire.rs", "src/rabbit/client/management.rs"]),
    ("ring", &["src/okta/key.rs", "src/sandbox/public_key.rs"]),
    ("rustls_pki_types", &["src/okta/key.rs", "src/sandbox/public_key.rs"]),
    ("governor", &["src/budget/ceiling.rs"]),
    ("backoff", &["src/policy/backoff.rs"]),
    ("prometheus", &["src/telemetry/metrics.rs", "src/telemetry/metrics/"]),
    ("axum", &["src/telemetry/health.rs", "src/telemetry/http_server.rs", "src/sandbox/server.rs"]),
    ("tracing_subscriber", &["src/telemetry/log.rs", "src/telemetry/log_queue.rs"]),
    ("hyper", &["src/telemetry/http_server.rs"]),
    ("hyper_util", &["src/telemetry/http_server.rs"]),
    ("rlimit", &["src/telemetry/descriptors.rs"]),
    ("clap", &["src/cli/"]),
    ("csv", &[]), // it takes what is not well-formed: for comparison in tests alone
    ("clap_complete", &["src/cli/completions.rs"]),
    ("clap_mangen", &["src/cli/man.rs"]),
    ("indicatif", &["src/cli/demo/screen.rs", "src/cli/submit/progress.rs"]),
    ("secrecy", &["src/domain/secret.rs"]),
    ("rustls", &["src/cli/command.rs"]),
    ("toml", &["src/config/"]),
];

/// A file with more code than this usually hides a second noun.
const CODE_LINES_MAX: usize = 400;

/// Floors without IO, clock or waiting.
const PURE: [&str; 4] = ["domain", "tools", "catalog", "policy"];

/// The folder of a floor that is held to the same.
const PURE_FOLDER: &str = "src/budget/pure/";

fn sources() -> BTreeMap<String, String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).expect("the folder is readable") {
            let path = entry.expect("the entry is readable").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join("src"), &mut found);
    let name = |path: &Path| path.strip_prefix(root).expect("below the root").display().to_string();
    let read = |path: &PathBuf| (name(path), fs::read_to_string(path).expect("the file is readable"));
    found.iter().map(read).filter(|(path, _)| !path.contains("/tests/")).collect()
}

/// The code of a file without the module of tests at its end.
fn code(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod tests {").map_or(text, |end| &text[..end])
}

/// Whether `word` stands in the text as a path's first segment: `word::`.
fn names_crate(text: &str, word: &str) -> bool {
    text.match_indices(&format!("{word}::")).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':')
    })
}

/// The floors that a text names by `crate::…`.
fn named_floors(text: &str) -> impl Iterator<Item = &'static str> {
    let text = text.to_owned();
    FLOORS.into_iter().filter(move |floor| {
        [format!("crate::{floor}::"), format!("crate::{floor};"), format!("crate::{floor}}}")]
            .iter()
            .any(|name| text.contains(name.as_str()))
    })
}

fn floor_of(path: &str) -> Option<&str> {
    let below = path.strip_prefix("src/")?;
    FLOORS
        .into_iter()
        .find(|floor| below.strip_prefix(floor).is_some_and(|rest| rest.starts_with('/') || rest == ".rs"))
}

/// The lines of the text without comments.
fn without_comments(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_floor_names_only_floors_below_it() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let Some(own) = floor_of(&path) else { continue };
        let own_level = FLOORS.iter().position(|floor| *floor == own);
        for named in named_floors(&without_comments(code(&text))).filter(|named| *named != own) {
            let is_below = FLOORS.iter().position(|floor| *floor == named) < own_level;
            let is_seen =
                NARROW.iter().find(|(floor, _)| *floor == own).is_none_or(|(_, sees)| sees.contains(&named));
            if !is_below || !is_seen {
                faults.push(format!("{path} names `{named}`"));
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_floor_stands_in_the_plan_in_order() {
    let plan = fs::read_to_string("src/lib.rs").expect("src/lib.rs is readable");
    let named: Vec<_> =
        plan.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert_eq!(named, FLOORS);
}

#[test]
fn the_floor_check_bites() {
    assert_eq!(named_floors("use crate::worker::ports::Okta;").collect::<Vec<_>>(), ["worker"]);
    assert!(names_crate("    lapin::Channel", "lapin"));
    assert!(!names_crate("crate::lapin::x my_lapin::y", "lapin"));
    let file = "mod a;\n#[cfg(test)]\nmod tests;\nuse b::c;\n\n#[cfg(test)]\nmod tests {\n    use d::e;\n}\n";
    assert_eq!(code(file), "mod a;\n#[cfg(test)]\nmod tests;\nuse b::c;\n");
}

#[test]
fn dependencies_stay_in_their_files() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let text = without_comments(code(&text));
        for (dependency, homes) in CONFINED {
            let at_home = homes.iter().any(|home| path.starts_with(home));
            if names_crate(&text, dependency) && !at_home {
                faults.push(format!("{path} names `{dependency}`"));
            }
        }
        let pure =
            path.starts_with(PURE_FOLDER) || floor_of(&path).is_some_and(|floor| PURE.contains(&floor));
        if pure && (names_crate(&text, "tokio") || text.contains("::now()") || text.contains("std::fs")) {
            faults.push(format!("{path} waits, reads a clock or a file"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn no_file_hides_a_second_noun() {
    let long = |(path, text): (String, String)| {
        let lines = without_comments(code(&text)).lines().filter(|line| !line.trim().is_empty()).count();
        (lines > CODE_LINES_MAX).then(|| format!("{path} has {lines} lines of code"))
    };
    let faults: Vec<_> = sources().into_iter().filter_map(long).collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_file_says_first_what_it_is() {
    let silent: Vec<_> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "{silent:#?}");
}

#[test]
fn exceptions_to_lints_have_reasons() {
    let faults: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| {
            text.contains("#[allow(")
                || text.match_indices("#[expect(").any(|(at, _)| {
                    let end = text[at..].find(']').map_or(text.len(), |end| at + end);
                    !text[at..end].contains("reason")
                })
        })
        .map(|(path, _)| path)
        .collect();
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn nothing_is_printed_by_what_panics_when_nobody_reads() {
    for (path, text) in sources() {
        let text = without_comments(&text);
        let found = ["println!", "print!"].iter().any(|name| code(&text).contains(name));
        assert!(!found, "{path} prints by other means than `cli/output.rs`");
    }
}

#[test]
fn tls_is_ring_and_nothing_else() {
    let lock = fs::read_to_string("Cargo.lock").expect("Cargo.lock is readable");
    for unwanted in ["aws-lc-rs", "aws-lc-sys", "openssl-sys", "native-tls"] {
        assert!(!lock.contains(&format!("name = \"{unwanted}\"")), "{unwanted} is in Cargo.lock");
    }
}

#[test]
fn nobody_calls_what_the_client_library_does_badly() {
    /// What it is, and the name it goes by.
    const TRAPS: [(&str, &str); 6] = [
        (
            "after its own recovery a consumer may wait for ever, and what was delivered before comes out again",
            "auto_recover",
        ),
        ("the same", "wait_for_recovery"),
        ("the same", "with_auto_recover"),
        ("it tells of returned messages alone, and not of refused ones", "wait_for_confirms"),
        ("without its flag a nack discards the message", "BasicNackOptions::default"),
        ("without its flag a rejection discards the message", "BasicRejectOptions::default"),
    ];
    for (path, text) in sources() {
        for (why, name) in TRAPS {
            assert!(!without_comments(&text).contains(name), "{path} uses `{name}`: {why}");
        }
    }
}

#[test]
fn what_takes_the_guards_out_still_fits() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut fitting = 0;
    for entry in fs::read_dir(root.join("tests/unguarded.d")).expect("the folder is readable") {
        let path = entry.expect("the entry is readable").path();
        let patch = fs::read_to_string(&path).expect("the file is readable");
        let name = path.display();
        assert!(patch.contains("\nred: --"), "{name} does not say which test must fail");
        let (mut old, mut file) = (String::new(), String::new());
        for line in patch.lines().skip_while(|line| !line.starts_with("--- ")) {
            if let Some(path) = line.strip_prefix("--- a/") {
                file = fs::read_to_string(root.join(path)).expect("the file is there");
            } else if line.starts_with("@@") {
                assert!(file.contains(&std::mem::take(&mut old)), "{name} no longer fits");
            } else if !line.starts_with("+++ ") && !line.starts_with('+') {
                old.push_str(line.get(1..).unwrap_or_default());
                old.push('\n');
            }
        }
        assert!(!old.is_empty() && file.contains(&old), "{name} no longer fits");
        fitting += 1;
    }
    assert!(fitting >= 7, "{fitting} patches");
}
