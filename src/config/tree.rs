//! Untyped settings: nested tables whose values know their origin.
//!
//! Files override the defaults and the environment overrides both. Values may be secrets, so nothing
//! here can be printed.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use toml::Spanned;
use toml::de::{DeInteger, DeString, DeTable, DeValue};

use super::problem::{ConfigProblem, Findings};
use super::spot::Origin;

/// A value and its origin.
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// A TOML value, as far as a setting can use it.
pub(super) enum Value {
    Table(Table),
    List(Vec<Node>),
    /// A text; from the environment it stands for any type with a textual form.
    Text(String),
    Integer(i64),
    Flag(bool),
    /// A value that no setting takes.
    Other(&'static str),
}

/// Values by key.
pub(super) type Table = BTreeMap<String, Node>;

/// Merges one table over another: the upper one wins key by key, and nested tables merge.
pub(super) fn overlay(under: &mut Table, over: Table) {
    for (key, upper) in over {
        let Some(lower) = under.get_mut(&key) else {
            under.insert(key, upper);
            continue;
        };
        match (&mut lower.value, upper.value) {
            // `{ env = … }` over `{ file = … }` replaces it: a secret has one source.
            (Value::Table(below), Value::Table(above)) if !(is_reference(below) && is_reference(&above)) => {
                overlay(below, above);
                if matches!(lower.origin, Origin::Default) {
                    lower.origin = upper.origin;
                }
            }
            (_, value) => *lower = Node { value, origin: upper.origin },
        }
    }
}

/// Returns true if a table is a secret's `{ env = … }` or `{ file = … }`.
fn is_reference(table: &Table) -> bool {
    !table.is_empty() && table.keys().all(|key| key == "env" || key == "file")
}

/// Parses one TOML document; without a file, the defaults. Syntax errors are reported, and the
/// rest of the document is returned.
pub(super) fn parse(text: &str, file: Option<&Path>, findings: &Findings) -> Table {
    let document = SourceLines {
        file: file.map(Rc::from),
        starts: text.match_indices('\n').map(|(at, _)| at + 1).collect(),
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        let column = text.get(document.start_of(at)..at).map_or(0, |before| before.chars().count()) + 1;
        findings.tear(ConfigProblem {
            file: file.map(Path::to_path_buf),
            line: Some(document.line(at)),
            path: String::new(),
            // Not the error's own text, which quotes the line and may repeat a secret.
            message: format!("column {column}: not TOML: {}", error.message().replace('\n', ", ")),
        });
    }
    document.table(table.into_inner())
}

/// Parses the text of one array, from an environment variable.
pub(super) fn parse_list(text: &str, origin: &Origin) -> Option<Vec<Node>> {
    let value = DeValue::parse(text).ok()?;
    let document = SourceLines { file: None, starts: Vec::new() };
    match document.value(value.into_inner()) {
        Value::List(mut nodes) => {
            for node in &mut nodes {
                node.origin = origin.clone();
            }
            Some(nodes)
        }
        Value::Table(_) | Value::Text(_) | Value::Integer(_) | Value::Flag(_) | Value::Other(_) => None,
    }
}

/// Maps offsets of a text to lines of a file.
struct SourceLines {
    file: Option<Rc<Path>>,
    /// The offset at which each line but the first begins.
    starts: Vec<usize>,
}

impl SourceLines {
    fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|start| *start <= at) + 1
    }

    fn start_of(&self, at: usize) -> usize {
        self.line(at).checked_sub(2).map_or(0, |before| self.starts[before])
    }

    fn origin(&self, at: usize) -> Origin {
        match &self.file {
            Some(file) => Origin::File(Rc::clone(file), self.line(at)),
            None => Origin::Default,
        }
    }

    fn table(&self, table: DeTable<'_>) -> Table {
        let entry = |(key, value): (Spanned<DeString<'_>>, Spanned<DeValue<'_>>)| {
            let origin = self.origin(key.span().start);
            (key.into_inner().into_owned(), Node { value: self.value(value.into_inner()), origin })
        };
        table.into_iter().map(entry).collect()
    }

    fn value(&self, value: DeValue<'_>) -> Value {
        match value {
            DeValue::Table(table) => Value::Table(self.table(table)),
            DeValue::Array(items) => {
                let node = |item: Spanned<DeValue<'_>>| {
                    let origin = self.origin(item.span().start);
                    Node { value: self.value(item.into_inner()), origin }
                };
                Value::List(items.into_iter().map(node).collect())
            }
            DeValue::String(text) => Value::Text(text.into_owned()),
            DeValue::Integer(integer) => whole(&integer),
            DeValue::Boolean(flag) => Value::Flag(flag),
            DeValue::Float(_) => Value::Other("a fraction"),
            DeValue::Datetime(_) => Value::Other("a date"),
        }
    }
}

fn whole(integer: &DeInteger<'_>) -> Value {
    i64::from_str_radix(integer.as_str(), integer.radix())
        .map_or(Value::Other("an integer beyond 64 bits"), Value::Integer)
}
