//! Whether every row could be run, found out before the first one is sent: by the worker's own way of reading.

use crate::domain::answer::{ErrorCode, Failure};
use crate::domain::ids::ConnectionName;
use crate::domain::json::Object;
use crate::policy::permit::AllowList;
use crate::worker::check_body;

use super::rows::{Next, Plan, Problem, Row, Rows};

/// More than this is not read by whoever must mend the file.
const PROBLEMS_MAX: usize = 25;

/// A file whose rows can all be run.
#[derive(Debug)]
pub(super) struct Checked {
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
    /// How many rows it has.
    pub rows: u64,
}

/// What is wrong with a file: the first few problems, and how many more there are.
#[derive(Debug, Default)]
struct Problems {
    shown: Vec<Problem>,
    more: u64,
}

impl Problems {
    fn add(&mut self, problem: Problem) {
        match self.shown.len() < PROBLEMS_MAX {
            true => self.shown.push(problem),
            false => self.more += 1,
        }
    }

    /// All of it in words; `None`: nothing is wrong.
    fn words(&self) -> Option<String> {
        let mut lines: Vec<String> = self.shown.iter().map(|problem| format!("  {problem}")).collect();
        if self.more > 0 {
            lines.push(format!("  and {} more", self.more));
        }
        (!lines.is_empty()).then(|| lines.join("\n"))
    }
}

/// A connection, and what it enables.
pub(super) type Enabled<'a> = (&'a ConnectionName, &'a AllowList);

/// Reads the whole file and checks every row, for a connection if it is known what that enables.
///
/// # Errors
/// Everything that is wrong with it, with line and column, in words.
pub(super) fn check(plan: &Plan, enabled: Option<Enabled<'_>>) -> Result<Checked, String> {
    let name = plan.file.display();
    let failed = |error: std::io::Error| format!("failed to read `{name}`: {error}");
    let (mut rows, header) = Rows::open(plan).map_err(failed)?;
    let mut problems = Problems::default();
    header.into_iter().for_each(|problem| problems.add(problem));
    loop {
        match rows.next() {
            Ok(Next::Row(row)) if rows.is_readable() => {
                if let Err(problem) = check_row(&rows, &row, enabled) {
                    problems.add(problem);
                }
            }
            Ok(Next::Row(_)) => {} // wrong like every other one
            Ok(Next::Faulty(found)) => found.into_iter().for_each(|problem| problems.add(problem)),
            Ok(Next::End) => break,
            Err(error) => {
                let said = problems.words().map_or_else(String::new, |words| format!("\n{words}"));
                return Err(format!("{}{said}", failed(error)));
            }
        }
    }
    if let Some(words) = problems.words() {
        return Err(format!("`{name}` is refused, nothing was sent:\n{words}"));
    }
    let count = rows.count();
    if count == 0 {
        return Err(format!("`{name}` has no rows"));
    }
    Ok(Checked { sha256: rows.digest().map_err(failed)?, rows: count })
}

fn check_row(rows: &Rows, row: &Row, enabled: Option<Enabled<'_>>) -> Result<(), Problem> {
    let problem = |path: Option<&str>, message: String| {
        let column = path.and_then(|path| rows.column(path));
        let what = match (&column, path) {
            (None, Some(path)) => format!("{message} (`{path}`)"),
            (Some(_), _) | (None, None) => message,
        };
        Problem { line: row.line, column, what }
    };
    judge(&row.body, enabled).map_err(|failure| problem(failure.path.as_deref(), failure.message))
}

/// The worker's own checks of a body.
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
    use crate::cli::submit::rows::Form;
    use crate::tools::catalogue;

    fn checked(form: Form, subtool: Option<&str>, text: &str) -> Result<u64, String> {
        checked_for(&AllowList::all(), form, subtool, text)
    }

    fn checked_for(
        subtools: &AllowList,
        form: Form,
        subtool: Option<&str>,
        text: &str,
    ) -> Result<u64, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("people");
        std::fs::write(&file, text).unwrap();
        let entry = subtool.map(|name| catalogue::find(name).unwrap());
        let prod = ConnectionName::parse("prod").unwrap();
        let checked = check(&Plan { file, form, entry }, Some((&prod, subtools)));
        checked.map(|checked| checked.rows).map_err(|said| said.replace(dir.path().to_str().unwrap(), ""))
    }

    #[test]
    fn every_problem_is_named_with_line_and_column() {
        let text = "user_id,profile.title,profile.nick\nana,Boss,\n,x,y\nme,x,\nbo,x\nzoe,,\n";
        let said = checked(Form::Csv, Some("update_user"), text).unwrap_err();
        let expected = "`/people` is refused, nothing was sent:\n  \
            line 3, column 1 (`user_id`): `user_id` is missing\n  \
            line 4, column 1 (`user_id`): must be an id, not `me`\n  \
            line 5: it has 2 cells, and the header has 3\n  \
            line 6, column 2 (`profile.title`): give `profile`, `credentials` or both";
        assert_eq!(said, expected);
    }

    #[test]
    fn a_bad_header_is_said_once_and_a_crowd_of_problems_is_counted() {
        let text = format!("usr_id,activate\n{}", "ana,x\n".repeat(50));
        let said = checked(Form::Csv, Some("get_user"), &text).unwrap_err();
        assert_eq!(said.lines().count(), 3, "{said}");
        let text = format!("user_id,send_email\n{}", "ana,x\n".repeat(50));
        let said = checked(Form::Csv, Some("activate_user"), &text).unwrap_err();
        assert_eq!(said.lines().count(), 2 + PROBLEMS_MAX, "{said}");
        assert!(said.ends_with("  and 25 more"), "{said}");
    }

    #[test]
    fn a_row_that_the_connection_does_not_enable_is_a_problem() {
        let writers = AllowList::parse(&["write"]).unwrap();
        let text = "user_id,profile.title,credentials.password.value\nana,Boss,\nbo,,hunter2\n";
        let said = checked_for(&writers, Form::Csv, Some("update_user"), text).unwrap_err();
        let what = "connection `prod` does not enable the kind `credentials`, which this argument needs";
        assert!(
            said.ends_with(&format!("\n  line 3, column 3 (`credentials.password.value`): {what}")),
            "{said}"
        );
        assert_eq!(said.lines().count(), 2, "{said}");
        let body = r#"{"subtool":"delete_group","arguments":{"group_id":"00g1"}}"#;
        let said = checked_for(&writers, Form::JsonLines, None, body).unwrap_err();
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
            let said = checked(Form::JsonLines, None, body).unwrap_err();
            assert!(said.ends_with(&format!("  line 1: {what}")), "{said}");
        }
        let good = r#"{"subtool":"get_user","arguments":{"user_id":"a"},"options":{"reason":"T-1"}}"#;
        assert_eq!(checked(Form::JsonLines, None, good), Ok(1));
        assert_eq!(checked(Form::JsonLines, None, "\n\n"), Err("`/people` has no rows".to_owned()));
    }
}
