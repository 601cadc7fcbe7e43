//! One value, read as the type of its setting.
//!
//! Every reader continues after a problem: `None` means that the problem has been reported. Values from the
//! environment are always texts, so each type has a textual form too.

use std::ops::RangeInclusive;
use std::time::Duration;

use bytesize::ByteSize;

use super::duration;
use super::problem::Findings;
use super::spot::{Origin, Spot};
use super::tree::{self, Node, Value};

/// The value of a key.
pub(super) struct ConfigValue<'f> {
    pub(super) spot: Spot,
    pub(super) findings: &'f Findings,
    pub(super) value: Value,
}

/// One text of a list.
pub(super) struct Word {
    pub(super) text: String,
    pub(super) spot: Spot,
}

impl AsRef<str> for Word {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl<'f> ConfigValue<'f> {
    /// Reports a fault in the value.
    pub(super) fn fault(&self, message: impl Into<String>) {
        self.findings.fault(&self.spot, message);
    }

    /// Reports the expected type; always returns `None`.
    pub(super) fn expected<T>(&self, what: &str) -> Option<T> {
        self.fault(match self.value {
            Value::Other(kind) => format!("must be {what}, not {kind}"),
            Value::Table(_) => format!("must be {what}, not a table"),
            Value::List(_) => format!("must be {what}, not a list"),
            Value::Text(_) | Value::Integer(_) | Value::Flag(_) => format!("must be {what}"),
        });
        None
    }

    fn in_bounds<T: PartialOrd>(
        &self,
        value: T,
        bounds: &RangeInclusive<T>,
        write: impl Fn(&T) -> String,
    ) -> Option<T> {
        if bounds.contains(&value) {
            return Some(value);
        }
        self.fault(format!("must be between {} and {}", write(bounds.start()), write(bounds.end())));
        None
    }

    /// Returns the text if it came from the environment, where it may stand for another type.
    fn variable_text(&self) -> Option<&str> {
        match (&self.value, &self.spot.origin) {
            (Value::Text(text), Origin::Variable(_)) => Some(text.trim()),
            _ => None,
        }
    }

    /// Returns the value as a text.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Table(_) | Value::List(_) | Value::Integer(_) | Value::Flag(_) | Value::Other(_) => {
                self.expected("a text")
            }
        }
    }

    /// Returns the value as parsed from a text.
    pub(super) fn parsed<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        parse(self.text()?).map_err(|message| self.fault(message)).ok()
    }

    /// Returns the value as `true` or `false`.
    pub(super) fn flag(&self) -> Option<bool> {
        match (&self.value, self.variable_text()) {
            (Value::Flag(flag), _) => Some(*flag),
            (_, Some("true")) => Some(true),
            (_, Some("false")) => Some(false),
            _ => self.expected("`true` or `false`"),
        }
    }

    /// Returns the value as an integer.
    pub(super) fn integer<T>(&self, bounds: RangeInclusive<T>) -> Option<T>
    where
        T: Copy + Into<i64> + TryFrom<i64>,
    {
        let number = match (&self.value, self.variable_text()) {
            (Value::Integer(number), _) => Some(*number),
            (_, Some(text)) => text.parse().ok(),
            _ => None,
        };
        let Some(number) = number else { return self.expected("a whole number") };
        let bounds = (*bounds.start()).into()..=(*bounds.end()).into();
        T::try_from(self.in_bounds(number, &bounds, i64::to_string)?).ok()
    }

    /// Returns the value as a duration with its unit.
    pub(super) fn duration(&self, bounds: RangeInclusive<Duration>) -> Option<Duration> {
        let duration = match &self.value {
            Value::Text(text) => duration::parse(text),
            _ => None,
        };
        match duration {
            Some(duration) => {
                self.in_bounds(duration, &bounds, |bound| format!("`{}`", duration::in_words(*bound)))
            }
            None => self.expected("a duration with its unit, such as `500ms`, `10m` or `14d`"),
        }
    }

    /// Returns the value as a number of bytes.
    pub(super) fn bytes(&self, bounds: RangeInclusive<u64>) -> Option<u64> {
        let bytes = match &self.value {
            Value::Text(text) => text.trim().parse::<ByteSize>().ok().map(|size| size.as_u64()),
            Value::Integer(bytes) => u64::try_from(*bytes).ok(),
            _ => None,
        };
        match bytes {
            Some(bytes) => self.in_bounds(bytes, &bounds, |bound| format!("`{}`", ByteSize(*bound))),
            None => self.expected("a size such as `256MiB`"),
        }
    }

    /// Returns the items of a list, of any type; any other value counts as a list of one. From the environment also
    /// comma-separated texts.
    pub(super) fn items(self) -> Option<Vec<ConfigValue<'f>>> {
        let Self { spot, findings, value } = self;
        let nodes = match value {
            Value::List(nodes) => nodes,
            Value::Text(text) if matches!(spot.origin, Origin::Variable(_)) => {
                let list = text.trim();
                if list.starts_with('[') {
                    let Some(nodes) = tree::parse_list(list, &spot.origin) else {
                        findings.fault(&spot, "must be a list");
                        return None;
                    };
                    nodes
                } else {
                    let items = list.split(',').map(str::trim).filter(|item| !item.is_empty());
                    let node = |item: &str| Node {
                        value: Value::Text(item.to_owned()),
                        origin: spot.origin.clone(),
                    };
                    items.map(node).collect()
                }
            }
            value => return Some(vec![ConfigValue { spot, findings, value }]),
        };
        let item = |(at, Node { value, origin }): (usize, Node)| ConfigValue {
            spot: Spot { path: spot.child(&at.to_string()), origin },
            findings,
            value,
        };
        Some(nodes.into_iter().enumerate().map(item).collect())
    }

    /// Returns one text or a list of texts; from the environment also a comma-separated list.
    pub(super) fn words(self) -> Option<Vec<Word>> {
        if let Some(text) = self.variable_text() {
            if !text.starts_with('[') {
                let word = |text: &str| Word { text: text.to_owned(), spot: self.spot.clone() };
                return Some(
                    text.split(',').map(str::trim).filter(|text| !text.is_empty()).map(word).collect(),
                );
            }
            return match tree::parse_list(text, &self.spot.origin) {
                Some(nodes) => list_of_words(&self.spot, self.findings, nodes),
                None => self.expected("a list"),
            };
        }
        match self.value {
            Value::Text(text) => Some(vec![Word { text, spot: self.spot }]),
            Value::List(nodes) => list_of_words(&self.spot, self.findings, nodes),
            Value::Table(_) | Value::Integer(_) | Value::Flag(_) | Value::Other(_) => {
                self.expected("a list of texts")
            }
        }
    }
}

fn list_of_words(list: &Spot, findings: &Findings, nodes: Vec<Node>) -> Option<Vec<Word>> {
    let word = |(at, Node { value, origin }): (usize, Node)| {
        let spot = Spot { path: list.child(&at.to_string()), origin };
        match value {
            Value::Text(text) => Some(Word { text, spot }),
            value => ConfigValue { spot, findings, value }.expected("a text"),
        }
    };
    // Collected twice, so that the first faulty item does not hide the rest.
    let words: Vec<_> = nodes.into_iter().enumerate().map(word).collect();
    words.into_iter().collect()
}

/// Reads a list with a parser that stops at its first fault, and still reports every fault.
pub(super) fn parse_words<T>(
    words: &[Word],
    findings: &Findings,
    parse: impl Fn(&[Word]) -> Result<T, (usize, String)>,
) -> Option<T> {
    let (first, message) = match parse(words) {
        Ok(parsed) => return Some(parsed),
        Err(fault) => fault,
    };
    findings.fault(&words[first].spot, message);
    for word in &words[first + 1..] {
        if let Err((_, message)) = parse(std::slice::from_ref(word)) {
            findings.fault(&word.spot, message);
        }
    }
    None
}
