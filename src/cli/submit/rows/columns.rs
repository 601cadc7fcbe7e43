//! The columns of a CSV file: the meaning of the cells by the heading.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::cells::trimmed;
use super::column::{Column, SubtoolArguments, Unfit, known_are};
use super::fixed::Fixed;
use super::hints;
use super::opening::not_utf8;

/// The valid columns of a file, by their position.
#[derive(Debug)]
pub(super) struct Columns {
    columns: BTreeMap<usize, Column>,
    /// The number of named columns.
    named: usize,
    /// The number of columns in the heading; spreadsheets leave nameless ones at its end.
    pub count: usize,
    /// True if rows can be read.
    pub are_good: bool,
}

/// A problem in a column: its position from 0, and the description.
pub(super) type ColumnProblem = (usize, String);

impl Columns {
    /// Parses a heading, given the values set for all rows; also returns its problems.
    pub fn read(heading: &[&str], known: &SubtoolArguments, fixed: &Fixed) -> (Self, Vec<ColumnProblem>) {
        let (mut columns, mut faults) = (BTreeMap::<usize, Column>::new(), Vec::new());
        let named = heading.iter().rposition(|name| !trimmed(name).is_empty()).map_or(0, |last| last + 1);
        let mut unfit = Vec::new();
        for (at, name) in heading[..named].iter().enumerate() {
            let column = match Column::parse(name, known) {
                Ok(column) => column,
                Err(why) => {
                    unfit.push((at, why));
                    continue;
                }
            };
            match columns.values().find(|other| other.clashes(&column)) {
                Some(other) if other.path == column.path => {
                    faults.push((at, "stands there twice".to_owned()))
                }
                Some(other) => {
                    faults.push((at, format!("cannot stand beside `{}`, which holds the same", other.name)));
                }
                None if fixed.clashes(&column) => {
                    faults.push((at, "is given to all rows by `--set`: leave one of the two out".to_owned()));
                }
                None => drop(columns.insert(at, column)),
            }
        }
        let taken = columns.values().chain(fixed.columns()).cloned().collect();
        faults.extend(misfits(heading, unfit, known, taken));
        faults.sort_by_key(|(at, _)| *at);
        if faults.is_empty() {
            let missing = known.required.iter().filter(|name| {
                !columns.values().chain(fixed.columns()).any(|column| column.path[0] == **name)
            });
            faults.extend(missing.map(|name| (heading.len(), lacking(name, known))));
        }
        (Self { columns, named, count: heading.len(), are_good: faults.is_empty() }, faults)
    }

    /// Returns true if a row may have this many cells.
    pub fn fit(&self, cells: usize) -> bool {
        (self.named..=self.count).contains(&cells)
    }

    /// Adds the values of a row's cells to the arguments that every row has.
    ///
    /// # Errors
    /// The problems of the cells.
    pub fn arguments<'a>(
        &self,
        cells: impl Iterator<Item = &'a [u8]>,
        fixed: &Fixed,
    ) -> Result<Map<String, Value>, Vec<ColumnProblem>> {
        let (mut arguments, mut faults) = (fixed.values().clone(), Vec::new());
        for (at, cell) in cells.enumerate() {
            let text = std::str::from_utf8(cell);
            let Some(column) = self.columns.get(&at) else {
                if at >= self.named && text.is_ok_and(|text| !trimmed(text).is_empty()) {
                    faults.push((at, "the heading has no name for this column".to_owned()));
                }
                continue;
            };
            match text.map_err(|_| not_utf8()).and_then(|text| column.value(text).map_err(str::to_owned)) {
                Ok(Some(value)) => column.put(value, &mut arguments),
                Ok(None) => {}
                Err(why) => faults.push((at, why)),
            }
        }
        if faults.is_empty() { Ok(arguments) } else { Err(faults) }
    }

    /// Returns the column at a path below `arguments`, or the first one of an object at that path.
    pub fn of_path(&self, path: &str) -> Option<usize> {
        self.columns.iter().find(|(_, column)| column.is_at(path)).map(|(at, _)| *at)
    }

    /// Returns the name of a column.
    pub fn name(&self, at: usize) -> Option<&str> {
        self.columns.get(&at).map(|column| column.name.as_str())
    }

    /// Returns the columns that Okta probably knows by another name, with that name.
    pub fn doubtful(&self, known: &SubtoolArguments) -> Vec<(usize, &'static str)> {
        let attribute = |column: &Column| match column.path.as_slice() {
            [profile, name] if profile == "profile" && known.has_user_profile() => {
                hints::differs_in_case(name)
            }
            _ => None,
        };
        self.columns.iter().filter_map(|(at, column)| Some((*at, attribute(column)?))).collect()
    }
}

/// Describes invalid headings, each with a suggestion that would be valid beside all other columns.
fn misfits(
    heading: &[&str],
    mut unfit: Vec<(usize, Unfit)>,
    known: &SubtoolArguments,
    mut taken: Vec<Column>,
) -> Vec<ColumnProblem> {
    unfit.sort_by_key(|(at, _)| hints::is_second_choice(heading[*at]));
    let mut faults = Vec::new();
    for (at, why) in unfit {
        let hint = hints::hint(trimmed(heading[at]), known, &taken).filter(|_| why.may_be_misspelt());
        let words = match &hint {
            Some(column) => format!("{}, did you mean `{}`?", why.words(known), column.name),
            None if why == Unfit::Unknown => format!("{}, {}", why.words(known), known_are(known)),
            None => why.words(known),
        };
        faults.push((at, words));
        taken.extend(hint);
    }
    faults
}

/// Describes a missing column.
fn lacking(name: &str, known: &SubtoolArguments) -> String {
    if Column::parse(name, known).is_ok() {
        return format!("no column `{name}`, without which no row can be done");
    }
    let such_as = if known.has_user_profile() { format!(", such as `{name}.login`") } else { String::new() };
    format!("no column below `{name}`{such_as}, without which no row can be done")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tools::catalogue::find;

    fn read(heading: &[&str], subtool: &str) -> (Columns, Vec<ColumnProblem>) {
        Columns::read(heading, &SubtoolArguments::of(find(subtool).unwrap()), &Fixed::default())
    }

    fn row(columns: &Columns, cells: &[&str]) -> Result<Value, Vec<ColumnProblem>> {
        let cells = cells.iter().map(|cell| cell.as_bytes());
        columns.arguments(cells, &Fixed::default()).map(Value::Object)
    }

    #[test]
    fn cells_become_arguments_by_the_schema_and_by_what_the_heading_says() {
        let heading = [
            "profile.login",
            "profile.manager.name",
            "activate",
            "group_ids",
            "type_id",
            "next_login",
            "profile.isContractor:boolean",
            "profile.roles:list",
            "profile.age:integer",
        ];
        let (columns, faults) = read(&heading, "create_user");
        assert!(faults.is_empty(), "{faults:?}");
        let cells =
            [" ana@x.example\u{a0}", " 007 ", "FALSE", "00g1; 00g2;", "\\null", "", "true", "a;b", "42"];
        let expected = json!({
            "profile": {"login": "ana@x.example", "manager": {"name": " 007 "}, "isContractor": true,
                        "roles": ["a", "b"], "age": 42},
            "activate": false, "group_ids": ["00g1", "00g2"], "type_id": null,
        });
        assert_eq!(row(&columns, &cells), Ok(expected));
        assert_eq!(row(&columns, &[""; 9]), Ok(json!({})));
        let faults = row(&columns, &["a", "b", "yes", "", "", "", "hunter2", "", "x"]).unwrap_err();
        let boolean = "is no boolean: it must be `true` or `false`".to_owned();
        let integer = "is no integer: it must be a whole number such as `42`".to_owned();
        assert_eq!(faults, [(2, boolean.clone()), (6, boolean), (8, integer)]);
        let faults = columns.arguments([&b"caf\xe9"[..]].into_iter(), &Fixed::default()).unwrap_err();
        assert!(faults[0].1.contains("Windows-1252"), "{faults:?}");
    }

    #[test]
    fn a_number_is_a_number() {
        let (columns, faults) = read(&["user_id", "limit"], "list_user_groups");
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(row(&columns, &["u", "20"]), Ok(json!({"user_id": "u", "limit": 20})));
        let faults = row(&columns, &["u", "many"]).unwrap_err();
        assert_eq!(faults, [(1, "is no integer: it must be a whole number such as `42`".to_owned())]);
    }

    #[test]
    fn every_fault_of_a_heading_has_its_column_and_a_hint() {
        let rows: [(&[&str], &str, usize, &str); 13] = [
            (&["user_id", "usr_id"], "get_user", 1, "`get_user` has no such argument, known are `user_id`"),
            (&["usr_id"], "get_user", 0, "`get_user` has no such argument, did you mean `user_id`?"),
            (
                &["profle.title"],
                "create_user",
                0,
                "`create_user` has no such argument, did you mean `profile.title`?",
            ),
            (
                &["department"],
                "create_user",
                0,
                "`create_user` has no such argument, did you mean `profile.department`?",
            ),
            (
                &["profile.First Name"],
                "create_user",
                0,
                "is not the path of an argument, such as `profile.department`, did you mean `profile.firstName`?",
            ),
            (&["user_id", "user_id"], "get_user", 1, "stands there twice"),
            (&["user_id", " user_id:text"], "get_user", 1, "stands there twice"),
            (
                &["profile.a", "profile.a.b"],
                "create_user",
                1,
                "cannot stand beside `profile.a`, which holds the same",
            ),
            (
                &["profile"],
                "create_user",
                0,
                "is an object: its attributes are columns, such as `profile.department`",
            ),
            (&["user_id", "user_id.x"], "get_user", 1, "leads into an argument that has no attributes"),
            (&["", "user_id"], "get_user", 0, "is not the path of an argument, such as `profile.department`"),
            (
                &["ana@x.example"],
                "get_user",
                0,
                "is a value and no heading: the first line names the arguments, such as `user_id`",
            ),
            (
                &["user_id", "profile.age:years"],
                "update_user",
                1,
                "names no type behind its colon: there are `text`, `boolean`, `integer`, `number`, `list`, `json`",
            ),
        ];
        for (heading, subtool, at, why) in rows {
            assert_eq!(read(heading, subtool).1, [(at, why.to_owned())], "{heading:?}");
        }
        let rows = [
            (
                "activate",
                "create_user",
                "no column below `profile`, such as `profile.login`, without which no row can be done",
            ),
            ("user_id", "add_user_to_group", "no column `group_id`, without which no row can be done"),
        ];
        for (heading, subtool, why) in rows {
            assert_eq!(read(&[heading], subtool).1, [(1, why.to_owned())], "{heading}");
        }
    }

    #[test]
    fn hints_of_one_heading_can_all_be_followed_at_once() {
        let heading = ["E-mail", "Username", "First Name", "Last name", "Name", "Dept"];
        for (subtool, expected) in [
            (
                "create_user",
                [
                    "profile.email",
                    "profile.login",
                    "profile.firstName",
                    "profile.lastName",
                    "profile.displayName",
                    "profile.department",
                ],
            ),
            (
                "update_user",
                [
                    "profile.email",
                    "user_id",
                    "profile.firstName",
                    "profile.lastName",
                    "profile.displayName",
                    "profile.department",
                ],
            ),
        ] {
            let faults = read(&heading, subtool).1;
            let hints: Vec<&str> = faults
                .iter()
                .map(|(_, words)| words.split("did you mean `").nth(1).unwrap().split('`').next().unwrap())
                .collect();
            assert_eq!(hints, expected);
            assert_eq!(read(&hints, subtool).1, []);
        }
        // `deactivate_user` takes one of the two, and the second one is of no use.
        let faults = read(&["E-mail", "Username"], "deactivate_user").1;
        assert!(faults[0].1.contains("known are"), "{faults:?}");
        assert!(faults[1].1.ends_with("did you mean `user_id`?"), "{faults:?}");
    }

    #[test]
    fn what_all_rows_have_is_no_column_and_takes_the_place_of_one() {
        let known = SubtoolArguments::of(find("add_user_to_group").unwrap());
        let fixed = Fixed::read(&["group_id=00g1".to_owned()], &known).unwrap();
        let (columns, faults) = Columns::read(&["user_id"], &known, &fixed);
        assert_eq!(faults, []);
        let arguments = columns.arguments([&b"ana"[..]].into_iter(), &fixed).unwrap();
        assert_eq!(Value::Object(arguments), json!({"user_id": "ana", "group_id": "00g1"}));
        let (_, faults) = Columns::read(&["user_id", "group_id"], &known, &fixed);
        assert_eq!(faults, [(1, "is given to all rows by `--set`: leave one of the two out".to_owned())]);
    }

    #[test]
    fn attributes_that_differ_from_oktas_in_case_alone_are_doubtful() {
        let heading = ["profile.login", "profile.firstname", "profile.Email", "profile.shoeSize"];
        let (columns, faults) = read(&heading, "create_user");
        assert_eq!(faults, []);
        let known = SubtoolArguments::of(find("create_user").unwrap());
        assert_eq!(columns.doubtful(&known), [(1, "firstName"), (2, "email")]);
    }

    #[test]
    fn nameless_columns_at_the_end_are_nothing_while_they_are_empty() {
        let (columns, faults) = read(&["user_id", "", " "], "get_user");
        assert!(faults.is_empty(), "{faults:?}");
        assert_eq!(row(&columns, &["u", "", "\u{a0}"]), Ok(json!({"user_id": "u"})));
        assert_eq!(
            row(&columns, &["u", "x", ""]),
            Err(vec![(1, "the heading has no name for this column".to_owned())])
        );
        assert_eq!([0, 1, 2, 3, 4].map(|cells| columns.fit(cells)), [false, true, true, true, false]);
    }

    #[test]
    fn a_path_leads_to_its_column() {
        let (columns, _) = read(&["profile.login", "group_ids"], "create_user");
        let of =
            ["profile.login", "group_ids.3", "profile.email", "profile"].map(|path| columns.of_path(path));
        assert_eq!(of, [Some(0), Some(1), None, Some(0)]);
    }
}
