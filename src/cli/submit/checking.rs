//! Validation of every row before the first one is sent, with the worker's own parser.

mod repeats;

use crate::domain::ids::ConnectionName;
use crate::domain::json::Object;
use crate::domain::result::{ErrorCode, Failure};
use crate::policy::authorization::AllowList;
use crate::worker::check_body;

use super::rows::{FilePlace, Next, Row, RowProblem, RowReader, Rows, Unreadable, shown};
use repeats::Repeats;

/// The most problems shown: enough to correct a file and check it again.
const PROBLEMS_MAX: usize = 25;

/// A file whose rows are all valid.
#[derive(Debug)]
pub(super) struct Checked {
    /// The SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// The number of rows.
    pub rows: u64,
    /// The oddities of the file that do not prevent sending it.
    pub warnings: Vec<String>,
}

/// The problems of a file: the first few, and the number of further ones.
#[derive(Debug, Default)]
struct RowProblems {
    shown: Vec<RowProblem>,
    more: u64,
}

impl RowProblems {
    fn add(&mut self, problem: RowProblem) {
        // A problem in a value set for all rows is reported once.
        if matches!(problem.place, FilePlace::Set(_)) && self.shown.contains(&problem) {
            return;
        }
        match self.shown.len() < PROBLEMS_MAX {
            true => self.shown.push(problem),
            false => self.more += 1,
        }
    }

    /// Formats all problems; `None` if there are none.
    fn words(&self) -> Option<String> {
        let mut lines: Vec<String> = self.shown.iter().map(|problem| format!("  {problem}")).collect();
        if self.more > 0 {
            lines.push(format!("  and {} more", self.more));
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// A connection, and the subtools that it enables.
pub(super) type Enabled<'a> = (&'a ConnectionName, &'a AllowList);

/// Reads the whole file and checks every row, against the connection's enabled subtools if they are known.
///
/// # Errors
/// A description of every problem, with line and column.
pub(super) fn check(plan: &RowReader, enabled: Option<Enabled<'_>>) -> Result<Checked, String> {
    let name = plan.file.display();
    let unreadable = |error: Unreadable| match error {
        Unreadable::Io(error) => format!("failed to read `{name}`: {error}"),
        // Any further problem may follow from this one.
        Unreadable::Malformed(problem) => format!("`{name}` is refused, nothing was sent:\n  {problem}"),
    };
    let (mut rows, heading) = Rows::open(plan).map_err(unreadable)?;
    let (mut problems, mut repeats) = (RowProblems::default(), Repeats::new());
    heading.into_iter().for_each(|problem| problems.add(problem));
    loop {
        match rows.next().map_err(unreadable)? {
            Next::Row(row) if rows.is_readable() => match check_row(&rows, &row, enabled) {
                Ok(()) => repeats.note(&row),
                Err(problem) => problems.add(problem),
            },
            Next::Row(_) => {} // wrong like every other one
            Next::Faulty(found) => found.into_iter().for_each(|problem| problems.add(problem)),
            Next::End => break,
        }
    }
    if let Some(words) = problems.words() {
        return Err(format!("`{name}` is refused, nothing was sent:\n{words}"));
    }
    let count = rows.count();
    if count == 0 {
        return Err(format!("`{name}` has no rows"));
    }
    let doubts = rows.doubts().iter().map(ToString::to_string);
    let warnings = doubts.chain(repeats.words()).map(|words| format!("`{name}`: {words}")).collect();
    let sha256 = rows.digest().map_err(|error| unreadable(error.into()))?;
    Ok(Checked { sha256, rows: count, warnings })
}

fn check_row(rows: &Rows, row: &Row, enabled: Option<Enabled<'_>>) -> Result<(), RowProblem> {
    judge(&row.body, enabled).map_err(|Failure { path, message, .. }| {
        match path.as_deref().map(|path| (path, rows.place_of(row.line, path))) {
            Some((_, Some(place))) => RowProblem { place, what: message },
            Some((path, None)) => {
                let path = shown(path).map_or_else(String::new, |path| format!(" (`{path}`)"));
                RowProblem { place: FilePlace::Line(row.line), what: format!("{message}{path}") }
            }
            None => RowProblem { place: FilePlace::Line(row.line), what: message },
        }
    })
}

/// Applies the worker's own checks to a body.
fn judge(body: &[u8], enabled: Option<Enabled<'_>>) -> Result<(), Failure> {
    if asks_for_pages(body) {
        let message = "a row has one result, and this asks for one per page";
        return Err(Failure::new(ErrorCode::InvalidMessage, message).at(Some("options.stream")));
    }
    check_body(body, enabled)
}

fn asks_for_pages(body: &[u8]) -> bool {
    const STREAM: &[u8] = b"stream";
    if !body.windows(STREAM.len()).any(|window| window == STREAM) {
        return false; // nearly always, and then nothing is parsed
    }
    let options = serde_json::from_slice::<Object>(body)
        .ok()
        .and_then(|body| serde_json::from_str::<Object>(body.get("options")?.get()).ok());
    options.is_some_and(|options| options.get("stream").is_some_and(|stream| stream.get() == "true"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::catalogue;

    /// The extension of the file's name, which determines its format.
    const CSV: &str = "csv";
    const JSON_LINES: &str = "jsonl";

    fn checked(form: &str, subtool: Option<&str>, text: &str) -> Result<u64, String> {
        checked_for(&AllowList::all(), form, subtool, text)
    }

    fn checked_for(
        subtools: &AllowList,
        form: &str,
        subtool: Option<&str>,
        text: &str,
    ) -> Result<u64, String> {
        judged(subtools, form, subtool, text, &[]).map(|checked| checked.rows)
    }

    fn judged(
        subtools: &AllowList,
        form: &str,
        subtool: Option<&str>,
        text: &str,
        set: &[&str],
    ) -> Result<Checked, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(format!("people.{form}"));
        std::fs::write(&file, text).unwrap();
        let entry = subtool.map(|name| catalogue::find(name).unwrap());
        let prod = ConnectionName::parse("prod").unwrap();
        let set: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
        let checked =
            RowReader::new(file, entry, None, &set).and_then(|plan| check(&plan, Some((&prod, subtools))));
        checked.map_err(|said| said.replace(dir.path().to_str().unwrap(), ""))
    }

    #[test]
    fn every_problem_is_named_with_line_and_column() {
        let text = "user_id,profile.title,profile.nick\nana,Boss,\n,x,y\nme,x,\nbo,x\nzoe,,\n";
        let said = checked(CSV, Some("update_user"), text).unwrap_err();
        let expected = "`/people.csv` is refused, nothing was sent:\n  \
            line 3, column 1 (`user_id`): `user_id` is missing\n  \
            line 4, column 1 (`user_id`): must be an id, not `me`\n  \
            line 5: it has 2 cells, and the header has 3\n  \
            line 6, column 2 (`profile.title`): give `profile`, `credentials`, `type_id` or `realm_id`";
        assert_eq!(said, expected);
    }

    #[test]
    fn a_bad_header_is_said_once_and_a_crowd_of_problems_is_counted() {
        let text = format!("usr_id,activate\n{}", "ana,x\n".repeat(50));
        let said = checked(CSV, Some("get_user"), &text).unwrap_err();
        assert_eq!(said.lines().count(), 3, "{said}");
        let text = format!("user_id,send_email\n{}", "ana,x\n".repeat(50));
        let said = checked(CSV, Some("activate_user"), &text).unwrap_err();
        assert_eq!(said.lines().count(), 2 + PROBLEMS_MAX, "{said}");
        assert!(said.ends_with("  and 25 more"), "{said}");
    }

    #[test]
    fn a_row_that_the_connection_does_not_enable_is_a_problem() {
        let writers = AllowList::parse(&["write"]).unwrap();
        let text = "user_id,profile.title,credentials.password.value\nana,Boss,\nbo,,hunter2\n";
        let said = checked_for(&writers, CSV, Some("update_user"), text).unwrap_err();
        let what = "connection `prod` does not enable the kind `credentials`, which this argument needs";
        assert!(
            said.ends_with(&format!("\n  line 3, column 3 (`credentials.password.value`): {what}")),
            "{said}"
        );
        assert_eq!(said.lines().count(), 2, "{said}");
        let body = r#"{"subtool":"delete_group","arguments":{"group_id":"00g1"}}"#;
        let said = checked_for(&writers, JSON_LINES, None, body).unwrap_err();
        assert!(
            said.ends_with("line 1: connection `prod` does not enable `delete_group` (`subtool`)"),
            "{said}"
        );
    }

    #[test]
    fn whole_bodies_are_judged_as_the_worker_judges_them() {
        let rows = [
            (r#"{"subtool":"get_usr"}"#, "unknown subtool `get_usr`, did you mean `get_user`? (`subtool`)"),
            (r#"{"arguments":{}}"#, "`subtool` is missing (`subtool`)"),
            (
                r#"{"subtool":"get_user","arguments":{"user_id":"."}}"#,
                "must be an id, not `.` (`arguments.user_id`)",
            ),
            (
                r#"{"subtool":"get_user","arguments":{"user_id":"a"},"options":{"stream":true}}"#,
                "a row has one result, and this asks for one per page (`options.stream`)",
            ),
            (
                r#"{"subtool":"get_user","arguments":{"user_id":"a"},"options":{"count_only":true}}"#,
                "`count_only` is for lists, and `get_user` is none (`options.count_only`)",
            ),
        ];
        for (body, what) in rows {
            let said = checked(JSON_LINES, None, body).unwrap_err();
            assert!(said.ends_with(&format!("  line 1: {what}")), "{said}");
        }
        let good = r#"{"subtool":"get_user","arguments":{"user_id":"a"},"options":{"reason":"T-1"}}"#;
        assert_eq!(checked(JSON_LINES, None, good), Ok(1));
        assert_eq!(checked(JSON_LINES, None, "\n\n"), Err("`/people.jsonl` has no rows".to_owned()));
    }
    #[test]
    fn cells_that_cannot_be_told_apart_are_the_only_thing_that_is_said() {
        let text = "user_id,profile.title\n,x\nana@example.com,\"VP\nben@example.com,Manager\n";
        let said = checked(CSV, Some("update_user"), text).unwrap_err();
        let expected = "`/people.csv` is refused, nothing was sent:\n  \
            line 3, column 2 (`profile.title`): the quotation mark that opens here is never closed";
        assert_eq!(said, expected);
    }

    #[test]
    fn what_is_wrong_with_a_value_of_all_rows_is_said_once() {
        let text = format!("user_id\n{}", "ana\n".repeat(50));
        let said =
            judged(&AllowList::all(), CSV, Some("add_user_to_group"), &text, &["group_id=a/b"]).unwrap_err();
        assert_eq!(said.lines().count(), 2, "{said}");
        assert!(said.contains("  `--set group_id`: must be an id"), "{said}");
    }

    #[test]
    fn what_is_odd_is_a_warning() {
        let text = "profile.login,profile.email,profile.firstname,profile.lastName\n\
                    ana@x.example,a@x.example,Ana,A\nbo@x.example,b@x.example,Bo,B\nAna@x.example,c@x.example,Ana,C\n";
        let checked = judged(&AllowList::all(), CSV, Some("create_user"), text, &[]).unwrap();
        let expected = [
            "`/people.csv`: line 1, column 3 (`profile.firstname`): every org has `profile.firstName`; is it another attribute?",
            "`/people.csv`: 1 row is for the same as an earlier one: row 3 (line 4) as row 1 (line 2)",
        ];
        let warnings: Vec<String> = checked
            .warnings
            .iter()
            .map(|said| format!("`/{}", said.rsplit_once("/people").map_or("", |(_, rest)| rest)))
            .collect();
        assert_eq!(warnings, expected.map(|said| said.replace("`/people", "`/")));
        assert_eq!(checked.rows, 3);
    }
}
