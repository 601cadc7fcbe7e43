//! Settings before they have a meaning: nested tables whose values know where they stand.
//!
//! Files are laid over the defaults and the environment over both. Values may be secrets, so nothing
//! here can be printed.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use toml::Spanned;
use toml::de::{DeInteger, DeString, DeTable, DeValue};

use super::problem::{Findings, Problem};

/// Where a value was written.
#[derive(Clone)]
pub(super) enum Origin {
    /// In the defaults.
    Default,
    /// In a file, at a line.
    File(Rc<Path>, usize),
    /// In the environment variable of this name.
    Variable(String),
}

/// A value's dotted path, and where it was written.
#[derive(Clone)]
pub(super) struct Spot {
    pub(super) path: String,
    pub(super) origin: Origin,
}

impl Spot {
    /// The path of a key below this one.
    pub(super) fn child(&self, key: &str) -> String {
        let bare =
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        let key = if bare { key.to_owned() } else { format!("{:?}", crate::domain::text::shortened(key)) };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }
}

/// A value and where it was written.
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// What TOML can say, as far as a setting can use it.
pub(super) enum Value {
    Table(Table),
    List(Vec<Node>),
    /// A text; from the environment it stands for any type that can be written as one.
    Text(String),
    Integer(i64),
    Flag(bool),
    /// Something that no setting takes.
    Other(&'static str),
}

/// Values by key.
pub(super) type Table = BTreeMap<String, Node>;

/// Lays one table over another: the upper one wins key by key, and tables merge.
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

/// Whether a table is a secret's `{ env = … }` or `{ file = … }`.
fn is_reference(table: &Table) -> bool {
    !table.is_empty() && table.keys().all(|key| key == "env" || key == "file")
}

/// Reads one TOML document; without a file, it is the defaults. What is not TOML is found, and the
/// rest of the document returned.
pub(super) fn parse(text: &str, file: Option<&Path>, findings: &Findings) -> Table {
    let document = Document {
        file: file.map(Rc::from),
        starts: text.match_indices('\n').map(|(at, _)| at + 1).collect(),
    };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        let column = text.get(document.start_of(at)..at).map_or(0, |before| before.chars().count()) + 1;
        findings.tear(Problem {
            file: file.map(Path::to_path_buf),
            line: Some(document.line(at)),
            path: String::new(),
            // The error's own text would quote the line, and a secret may stand there.
            message: format!("column {column}: not TOML: {}", error.message().replace('\n', ", ")),
        });
    }
    document.table(table.into_inner())
}

/// The text of one array, as an environment variable may hold it.
pub(super) fn parse_list(text: &str, origin: &Origin) -> Option<Vec<Node>> {
    let value = DeValue::parse(text).ok()?;
    let document = Document { file: None, starts: Vec::new() };
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

/// Turns places in a text into lines of a file.
struct Document {
    file: Option<Rc<Path>>,
    /// Where each line but the first begins.
    starts: Vec<usize>,
}

impl Document {
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
