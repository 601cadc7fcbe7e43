//! The layers that settings are read from: the defaults, the user's files by name, the environment.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::problem::{ConfigProblem, Findings};
use super::spot::Origin;
use super::tree::{self, Node, Table, Value};

/// Every key with its default and its meaning; also the lowest layer.
pub const DEFAULT: &str = include_str!("../../config/worker.toml");

/// The largest file that is read, for settings and secrets. Both have a few kilobytes; a limit keeps a
/// wrong path (a log, a device) from filling the memory.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The prefix of every variable that sets a key.
const PREFIX: &str = "OKTA_WORKER__";

/// The environment, as passed in.
pub(super) type Variables = BTreeMap<String, String>;

/// Returns all layers merged.
pub(super) fn merged(source: Option<&Path>, variables: &Variables, findings: &Findings) -> Table {
    let mut settings = tree::parse(DEFAULT, None, findings);
    for file in source.map_or_else(Vec::new, |source| files(source, findings)) {
        match read_text(&file) {
            Ok(text) => tree::overlay(&mut settings, tree::parse(&text, Some(&file), findings)),
            Err(message) => findings.tear(whole_file(&file, message)),
        }
    }
    let environment = environment(variables, &settings, findings);
    tree::overlay(&mut settings, environment);
    settings
}

/// Returns the file itself, or the `*.toml` files of a directory by name.
fn files(source: &Path, findings: &Findings) -> Vec<PathBuf> {
    if !source.is_dir() {
        return vec![source.to_owned()];
    }
    let entries = match std::fs::read_dir(source) {
        Ok(entries) => entries,
        Err(error) => {
            findings.tear(whole_file(source, format!("failed to list: {error}")));
            return Vec::new();
        }
    };
    let is_settings = |path: &PathBuf| {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden && path.extension().is_some_and(|extension| extension == "toml") && !path.is_dir()
    };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(is_settings).collect();
    files.sort();
    if files.is_empty() {
        findings.tear(whole_file(source, "holds no `*.toml` file".to_owned()));
    }
    files
}

fn whole_file(file: &Path, message: String) -> ConfigProblem {
    ConfigProblem { file: Some(file.to_owned()), line: None, path: String::new(), message }
}

/// Reads the text of a file, up to the limit.
///
/// # Errors
/// The fault, without the name of the file and without its content.
pub(super) fn read_text(file: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    std::fs::File::open(file)
        .and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("failed to read: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("holds more than {FILE_BYTES_MAX} bytes"));
    }
    // Without the error's own bytes, which may be a secret's.
    String::from_utf8(bytes)
        .map_err(|error| format!("is not UTF-8 (byte {})", error.utf8_error().valid_up_to()))
}

/// Returns the settings from the environment. Unknown keys are found when the settings are read.
fn environment(variables: &Variables, settings: &Table, findings: &Findings) -> Table {
    let mut layer = Table::new();
    for (name, text) in variables {
        let Some(rest) = name.strip_prefix(PREFIX) else { continue };
        let path = place(rest, settings).and_then(|path| insert(&mut layer, &path, name, text));
        if let Err(message) = path {
            findings.push(ConfigProblem { file: None, line: None, path: name.clone(), message });
        }
    }
    layer
}

/// Returns the keys that a variable's name stands for.
fn place(name: &str, settings: &Table) -> Result<Vec<String>, String> {
    let mut keys: Vec<_> = name.split("__").map(str::to_ascii_lowercase).collect();
    if keys.iter().any(String::is_empty) {
        return Err("fits no key".to_owned());
    }
    match keys.as_mut_slice() {
        [section, connection, ..] if section == "connections" => *connection = connection.replace('_', "-"),
        [section, caller, ..] if section == "callers" => *caller = caller_name(caller, settings)?,
        _ => {}
    }
    Ok(keys)
}

/// Returns the caller that a variable means: the matching one from the files, otherwise a new one.
fn caller_name(folded: &str, settings: &Table) -> Result<String, String> {
    let fold = |name: &str| name.to_ascii_lowercase().replace(['-', '.'], "_");
    let mut fitting = match settings.get("callers") {
        Some(Node { value: Value::Table(callers), .. }) => {
            callers.keys().filter(|name| fold(name) == folded).collect()
        }
        _ => Vec::new(),
    };
    match (fitting.pop(), fitting.pop()) {
        (None, _) => Ok(folded.replace('_', "-")),
        (Some(name), None) => Ok(name.clone()),
        (Some(one), Some(other)) => Err(format!("fits both the caller `{other}` and the caller `{one}`")),
    }
}

fn insert(layer: &mut Table, path: &[String], name: &str, text: &str) -> Result<(), String> {
    let origin = || Origin::Variable(name.to_owned());
    let (key, above) = path.split_last().ok_or("fits no key")?;
    let mut table = layer;
    for step in above {
        let node = table
            .entry(step.clone())
            .or_insert_with(|| Node { value: Value::Table(Table::new()), origin: origin() });
        table = match &mut node.value {
            Value::Table(table) => table,
            Value::Text(_) | Value::List(_) | Value::Integer(_) | Value::Flag(_) | Value::Other(_) => {
                return Err(contradicts(&node.origin));
            }
        };
    }
    if let Some(taken) = table.get(key) {
        return Err(contradicts(&taken.origin));
    }
    table.insert(key.clone(), Node { value: Value::Text(text.to_owned()), origin: origin() });
    Ok(())
}

fn contradicts(origin: &Origin) -> String {
    match origin {
        Origin::Variable(other) => format!("contradicts `{other}`"),
        Origin::Default | Origin::File(..) => "is set twice".to_owned(),
    }
}
