//! The values that `--set` gives to all rows.

use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::domain::json::{self, Object};

use super::column::{Column, SubtoolArguments, Unfit, known_are, shown};
use super::hints;

/// Values that are the same in all rows.
#[derive(Clone, Default)]
pub(super) struct Fixed {
    columns: Vec<Column>,
    values: Map<String, Value>,
}

impl Fixed {
    /// Parses the values of `--set`, each `PATH=VALUE`.
    ///
    /// # Errors
    /// If one is not an argument of the subtool, or not of its type; the description repeats no value.
    pub fn read(set: &[String], known: &SubtoolArguments) -> Result<Self, String> {
        let mut fixed = Self::default();
        for text in set {
            let (name, text) = text.split_once('=').ok_or(
                "`--set` takes a path and a value, such as `--set group_id=00g1emaKYZTWRYYRRTSK`, and one has no `=`",
            )?;
            let column = Column::parse(name, known).map_err(|unfit| fixed.misfit(name, unfit, known))?;
            let failed = |why: &str| format!("`--set {}`: {why}", column.name);
            if fixed.clashes(&column) {
                return Err(failed("is given more than once"));
            }
            let value = column.value(text).map_err(|why| failed(&format!("its value {why}")))?;
            let value = value.ok_or_else(|| failed("has no value; `\\null` clears"))?;
            column.put(value, &mut fixed.values);
            fixed.columns.push(column);
        }
        Ok(fixed)
    }

    /// Describes an invalid path.
    fn misfit(&self, name: &str, unfit: Unfit, known: &SubtoolArguments) -> String {
        let hint = hints::hint(name, known, &self.columns).filter(|_| unfit.may_be_misspelt());
        let hint = match hint {
            Some(column) => format!(", did you mean `--set {}=…`?", column.name),
            None if unfit == Unfit::Unknown => format!(", {}", known_are(known)),
            None => String::new(),
        };
        let named = match shown(name) {
            Some(name) => format!("`--set {name}`:"),
            None => "`--set`: the path of a value".to_owned(),
        };
        format!("{named} {}{hint}", unfit.words(known))
    }

    /// Returns true if there are no values.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Returns the paths that have a value.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Returns the arguments that every row has.
    pub fn values(&self) -> &Map<String, Value> {
        &self.values
    }

    /// Returns true if a column holds a fixed value, or a part of one.
    pub fn clashes(&self, column: &Column) -> bool {
        self.columns.iter().any(|own| own.clashes(column))
    }

    /// Returns the fixed column that a path below `arguments` leads to.
    pub fn at(&self, path: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.is_at(path))
    }

    /// Adds the values to arguments that have none at their paths.
    ///
    /// # Errors
    /// The path at which the arguments already have a value, or are not an object.
    pub fn add_to(&self, arguments: &RawValue) -> Result<Box<RawValue>, String> {
        add(&self.values, arguments, "")
    }

    /// Adds the values to a digest; the order of the options does not matter.
    pub fn digest(&self, hasher: &mut Sha256) {
        hasher.update(json::to_vec(&self.values));
    }
}

fn add(values: &Map<String, Value>, to: &RawValue, under: &str) -> Result<Box<RawValue>, String> {
    let mut object: Object = serde_json::from_str(to.get()).map_err(|_| under.to_owned())?;
    for (name, value) in values {
        let path = if under.is_empty() { name.clone() } else { format!("{under}.{name}") };
        let added = match (value, object.get(name)) {
            (_, None) => json::to_raw(value),
            (Value::Object(values), Some(there)) => add(values, there, &path)?,
            (_, Some(_)) => return Err(path),
        };
        object.set(name, added);
    }
    Ok(json::to_raw(&object))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::catalogue::find;

    fn read(set: &[&str], subtool: &str) -> Result<Fixed, String> {
        let set: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
        Fixed::read(&set, &SubtoolArguments::of(find(subtool).unwrap()))
    }

    #[test]
    fn values_have_the_types_of_columns() {
        let fixed = read(
            &[
                "group_ids=00g1;00g2",
                "profile.isContractor:boolean=true",
                "activate=false",
                "profile.title=a=b",
                "type_id= oty1 ",
                "profile.manager=\\null",
            ],
            "create_user",
        )
        .unwrap();
        let expected = serde_json::json!({
            "group_ids": ["00g1", "00g2"], "profile": {"isContractor": true, "title": "a=b", "manager": null},
            "activate": false, "type_id": "oty1",
        });
        assert_eq!(Value::Object(fixed.values().clone()), expected);
    }

    #[test]
    fn what_cannot_be_set_is_named_without_its_value() {
        let rows: [(&[&str], &str, &str); 9] = [
            (&["hunter2"], "get_user", "one has no `=`"),
            (
                &["group=hunter2"],
                "add_user_to_group",
                "`--set group`: `add_user_to_group` has no such argument, did you mean `--set group_id=…`?",
            ),
            (&["x y=hunter2"], "get_user", "`--set`: the path of a value is not the path of an argument"),
            (&["colour=hunter2"], "get_user", "`get_user` has no such argument, known are `user_id`"),
            (&["profile=hunter2"], "create_user", "`--set profile`: is an object"),
            (&["activate=hunter2"], "create_user", "`--set activate`: its value is no boolean"),
            (&["profile.age:years=hunter2"], "create_user", "names no type"),
            (&["user_id="], "get_user", "`--set user_id`: has no value"),
            (
                &["profile.a=hunter2", "profile.a.b=hunter2"],
                "create_user",
                "`--set profile.a.b`: is given more than once",
            ),
        ];
        for (set, subtool, words) in rows {
            let said = read(set, subtool).err().expect(words);
            assert!(said.contains(words) && !said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn values_are_added_to_what_a_row_says_and_never_replace_it() {
        let fixed = read(&["activate=false", "profile.title=VP"], "create_user").unwrap();
        let added = |text: &str| fixed.add_to(&RawValue::from_string(text.to_owned()).unwrap());
        assert_eq!(
            added("{\"x\":1e3}").unwrap().get(),
            r#"{"x":1e3,"activate":false,"profile":{"title":"VP"}}"#
        );
        let text = r#"{"profile":{"n":1e3}}"#;
        assert_eq!(added(text).unwrap().get(), r#"{"profile":{"n":1e3,"title":"VP"},"activate":false}"#);
        let clashes = [
            (r#"{"activate":null}"#, "activate"),
            (r#"{"profile":{"title":"x"}}"#, "profile.title"),
            (r#"{"profile":7}"#, "profile"),
            (r#"{"a":1,"a":2}"#, ""),
        ];
        for (text, path) in clashes {
            assert_eq!(added(text).unwrap_err(), path, "{text}");
        }
    }
}
