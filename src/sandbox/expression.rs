//! Okta's filter language: parsed once, checked against what an endpoint allows, then evaluated on each item.
//!
//! Attribute names are case-sensitive, operators are not; `and` binds tighter than `or`; texts are JSON strings. Knows
//! nothing of users, groups or events: an item is anything with attributes.

use std::borrow::Cow;
use std::cmp::Ordering;

use jiff::Timestamp;
use serde_json::Value;

/// The greatest nesting depth of parentheses; a request line is not long enough for more.
const DEPTH_MAX: usize = 100;

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Equal,
    NotEqual,
    StartsWith,
    EndsWith,
    Contains,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Present,
}

/// A parsed filter.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expression {
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Compare { attribute: String, operator: Operator, value: Value },
}

/// The case sensitivity of text comparisons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CaseSensitivity {
    Sensitive,
    Insensitive,
}

/// The value of an attribute.
#[derive(Debug, Clone)]
pub(super) enum Field<'a> {
    Text(Cow<'a, str>),
    Time(Timestamp),
    Json(&'a Value),
    /// Several values, of which one match is enough.
    Any(Vec<Field<'a>>),
}

/// An item that a filter can be evaluated on.
pub(super) trait Item {
    /// Returns the attribute, if the item has it.
    fn field(&self, attribute: &str) -> Option<Field<'_>>;
}

impl Expression {
    /// Parses a filter; the error says where parsing stopped.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: text.trim_start(), depth: 0 };
        let expression = parser.alternatives()?;
        if parser.rest.is_empty() { Ok(expression) } else { Err(parser.stuck("the end")) }
    }

    /// Returns all comparisons in the filter.
    pub(super) fn comparisons(&self) -> Vec<(&str, Operator, &Value)> {
        match self {
            Self::And(left, right) | Self::Or(left, right) => {
                let mut all = left.comparisons();
                all.extend(right.comparisons());
                all
            }
            Self::Compare { attribute, operator, value } => vec![(attribute, *operator, value)],
        }
    }

    /// Returns true if the item matches.
    pub(super) fn admits(&self, item: &impl Item, case: CaseSensitivity) -> bool {
        match self {
            Self::And(left, right) => left.admits(item, case) && right.admits(item, case),
            Self::Or(left, right) => left.admits(item, case) || right.admits(item, case),
            Self::Compare { attribute, operator, value } => match item.field(attribute) {
                Some(field) => holds(&field, *operator, value, case),
                None => *operator == Operator::NotEqual,
            },
        }
    }
}

/// Returns true if a comparison holds for the value of an attribute.
fn holds(field: &Field<'_>, operator: Operator, value: &Value, case: CaseSensitivity) -> bool {
    match field {
        Field::Any(fields) if operator == Operator::NotEqual => {
            fields.iter().all(|field| holds(field, operator, value, case))
        }
        Field::Any(fields) => fields.iter().any(|field| holds(field, operator, value, case)),
        Field::Text(text) => match (operator, value) {
            (Operator::Present, _) => !text.is_empty(),
            (_, Value::String(wanted)) => text_holds(text, operator, wanted, case),
            (Operator::NotEqual, _) => true,
            _ => false,
        },
        Field::Time(time) => match (operator, value) {
            (Operator::Present, _) => true,
            (_, Value::String(wanted)) => wanted.parse::<Timestamp>().is_ok_and(|wanted| {
                order_holds(time.as_millisecond().cmp(&wanted.as_millisecond()), operator)
            }),
            _ => false,
        },
        Field::Json(Value::Null) => operator == Operator::NotEqual,
        Field::Json(Value::String(text)) => holds(&Field::Text(Cow::Borrowed(text)), operator, value, case),
        Field::Json(Value::Array(items)) => {
            holds(&Field::Any(items.iter().map(Field::Json).collect()), operator, value, case)
        }
        Field::Json(Value::Number(number)) => match (operator, value) {
            (Operator::Present, _) => true,
            (_, Value::Number(wanted)) => number
                .as_f64()
                .zip(wanted.as_f64())
                .and_then(|(number, wanted)| number.partial_cmp(&wanted))
                .is_some_and(|order| order_holds(order, operator)),
            _ => operator == Operator::NotEqual,
        },
        Field::Json(Value::Bool(truth)) => match operator {
            Operator::Present => true,
            Operator::Equal => *value == Value::Bool(*truth) || *value == Value::String(truth.to_string()),
            Operator::NotEqual => *value != Value::Bool(*truth),
            _ => false,
        },
        Field::Json(Value::Object(_)) => operator == Operator::Present,
    }
}

fn text_holds(text: &str, operator: Operator, wanted: &str, case: CaseSensitivity) -> bool {
    let fold = |text: &str| text.to_lowercase();
    match (operator, case) {
        (Operator::Equal, CaseSensitivity::Sensitive) => text == wanted,
        (Operator::Equal, CaseSensitivity::Insensitive) if text.is_ascii() && wanted.is_ascii() => {
            text.eq_ignore_ascii_case(wanted)
        }
        (Operator::StartsWith, CaseSensitivity::Sensitive) => text.starts_with(wanted),
        (Operator::EndsWith, CaseSensitivity::Sensitive) => text.ends_with(wanted),
        (Operator::Contains, CaseSensitivity::Sensitive) => text.contains(wanted),
        (Operator::StartsWith, CaseSensitivity::Insensitive) => fold(text).starts_with(&fold(wanted)),
        (Operator::EndsWith, CaseSensitivity::Insensitive) => fold(text).ends_with(&fold(wanted)),
        (Operator::Contains, CaseSensitivity::Insensitive) => fold(text).contains(&fold(wanted)),
        (operator, CaseSensitivity::Sensitive) => order_holds(text.cmp(wanted), operator),
        (operator, CaseSensitivity::Insensitive) => order_holds(fold(text).cmp(&fold(wanted)), operator),
    }
}

fn order_holds(order: Ordering, operator: Operator) -> bool {
    match operator {
        Operator::Equal => order.is_eq(),
        Operator::NotEqual => order.is_ne(),
        Operator::Greater => order.is_gt(),
        Operator::GreaterOrEqual => order.is_ge(),
        Operator::Less => order.is_lt(),
        Operator::LessOrEqual => order.is_le(),
        Operator::Present => true,
        Operator::StartsWith | Operator::EndsWith | Operator::Contains => false,
    }
}

/// A parser with the unread rest of a filter's text, which always starts at a word.
struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn alternatives(&mut self) -> Result<Expression, String> {
        let mut left = self.conjunctions()?;
        while self.take_word("or") {
            left = Expression::Or(Box::new(left), Box::new(self.conjunctions()?));
        }
        Ok(left)
    }

    fn conjunctions(&mut self) -> Result<Expression, String> {
        let mut left = self.operand()?;
        while self.take_word("and") {
            left = Expression::And(Box::new(left), Box::new(self.operand()?));
        }
        Ok(left)
    }

    fn operand(&mut self) -> Result<Expression, String> {
        if self.take('(') {
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                return Err("too many parentheses".to_owned());
            }
            let inner = self.alternatives()?;
            self.depth -= 1;
            return if self.take(')') { Ok(inner) } else { Err(self.stuck("`)`")) };
        }
        let attribute = self.attribute()?;
        let operator = self.operator()?;
        let value = if operator == Operator::Present { Value::Null } else { self.value()? };
        Ok(Expression::Compare { attribute, operator, value })
    }

    fn attribute(&mut self) -> Result<String, String> {
        let end = self
            .rest
            .find(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '$')))
            .unwrap_or(self.rest.len());
        if end == 0 {
            return Err(self.stuck("an attribute"));
        }
        let attribute = self.rest[..end].to_owned();
        self.advance(end);
        Ok(attribute)
    }

    fn operator(&mut self) -> Result<Operator, String> {
        const WORDS: [(&str, Operator); 10] = [
            ("eq", Operator::Equal),
            ("ne", Operator::NotEqual),
            ("sw", Operator::StartsWith),
            ("ew", Operator::EndsWith),
            ("co", Operator::Contains),
            ("gt", Operator::Greater),
            ("ge", Operator::GreaterOrEqual),
            ("lt", Operator::Less),
            ("le", Operator::LessOrEqual),
            ("pr", Operator::Present),
        ];
        for (word, operator) in WORDS {
            if self.take_word(word) {
                return Ok(operator);
            }
        }
        Err(self.stuck("an operator"))
    }

    /// Parses a JSON string, number or boolean.
    fn value(&mut self) -> Result<Value, String> {
        let mut values = serde_json::Deserializer::from_str(self.rest).into_iter::<Value>();
        match values.next() {
            Some(Ok(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_)))) => {
                let end = values.byte_offset();
                self.advance(end);
                Ok(value)
            }
            _ => Err(self.stuck("a value")),
        }
    }

    fn take(&mut self, c: char) -> bool {
        let taken = self.rest.starts_with(c);
        if taken {
            self.advance(c.len_utf8());
        }
        taken
    }

    /// Consumes a word, in any case, if it stands alone.
    fn take_word(&mut self, word: &str) -> bool {
        let taken = self.rest.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word))
            && !self.rest[word.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '.');
        if taken {
            self.advance(word.len());
        }
        taken
    }

    fn advance(&mut self, bytes: usize) {
        self.rest = self.rest[bytes..].trim_start();
    }

    fn stuck(&self, expected: &str) -> String {
        format!("expected {expected}, {} characters before the end", self.rest.chars().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Doc(Value);

    impl Item for Doc {
        fn field(&self, attribute: &str) -> Option<Field<'_>> {
            self.0.get(attribute).map(Field::Json)
        }
    }

    fn admits(filter: &str) -> bool {
        let doc = Doc(serde_json::json!({ "a": "Ann", "n": 3, "t": true, "l": ["x", "y"], "z": null }));
        Expression::parse(filter).unwrap().admits(&doc, CaseSensitivity::Insensitive)
    }

    #[test]
    fn and_binds_tighter_than_or() {
        assert!(admits(r#"a eq "ann" or a eq "b" and n eq 9"#));
        assert!(!admits(r#"(a eq "ann" or a eq "b") and n eq 9"#));
        assert!(admits(r#"l EQ "y" AND t eq true AND n ge 3"#));
        assert!(admits(r#"a co "NN" and a sw "a" and a ew "n" and a pr and z ne "q""#));
        assert!(!admits("z pr"));
        assert!(!admits("missing pr"));
    }

    #[test]
    fn texts_are_json_strings() {
        let expression = Expression::parse(r#"a eq "say \"hi\" \u00e9""#).unwrap();
        assert_eq!(expression.comparisons()[0].2, "say \"hi\" é");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "a",
            "a eq",
            r#"a eq "x"#,
            "a is 3",
            "(a pr",
            "a pr)",
            "a pr b pr",
            r#"a eq "x" and"#,
            "a eq x",
        ] {
            assert!(Expression::parse(text).is_err(), "{text}");
        }
        assert!(Expression::parse(&"(".repeat(10_000)).is_err());
    }
}
