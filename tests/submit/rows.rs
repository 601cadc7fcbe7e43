//! Files as people have them: what is taken, what is refused and how, and that nothing is sent before.

use serde_json::{Value, json};

use super::child::ran;
use super::{World, groups};

/// People of the simulated org.
const ANA: &str = "ana@x.example";
const BEN: &str = "ben@x.example";

impl World {
    fn write_bytes(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.file(name), bytes).expect("a file can be written");
    }

    /// Creates the two people.
    fn with_people(&self) {
        let person = |login: &str| {
            format!(
                "{}\n",
                json!({"profile": {"login": login, "email": login, "firstName": "A", "lastName": "B"}, "activate": false})
            )
        };
        self.write("people.jsonl", &[ANA, BEN].map(person).concat());
        let (code, stdout, stderr) = ran(&mut self.embedded(&["people.jsonl", "--subtool", "create_user"]));
        assert_eq!(code, 0, "{stdout}{stderr}");
    }

    fn by_row(&self, name: &str) -> Vec<Value> {
        let mut results = self.results(name);
        results.sort_by_key(|result| result["row"].as_u64());
        results
    }
}

#[test]
fn a_csv_file_that_is_not_well_formed_is_refused_before_anything_is_sent() {
    let world = World::new(&[]);
    let heading = "user_id,profile.title\n";
    let opened =
        |line: u64| format!("line {line}, column 2 (`profile.title`): the quotation mark that opens here");
    let follows = |line: u64| format!("line {line}, column 2 (`profile.title`): text follows");
    let rows: [(String, String); 14] = [
        // `cases/open-quote.csv`
        ("user_id,profile.title\nana@example.com,\"VP\nben@example.com,Manager\ncleo@example.com,Director\n".to_owned(), opened(2)),
        (format!("{heading}a,VP\nb,\"Manager\nc,\"Director\"\n"), follows(3)),
        (format!("{heading}a,VP\nb,M\nc,\"D"), opened(4)),
        (format!("{heading}a,\"VP\" x\n"), follows(2)),
        (format!("{heading}a,\"the \\\"big\\\" one\"\n"), follows(2)),
        (format!("{heading}a,\"x\ny\nz\" w\nb,c\n"), follows(2)),
        (format!("{heading}a,the \"big\" one\n"), "line 2, column 2 (`profile.title`): a quotation mark stands".to_owned()),
        (format!("{heading}a, \"VP\"\n"), "line 2, column 2 (`profile.title`): blanks stand before".to_owned()),
        ("user_id,\"profile.title\na,b\n".to_owned(), "line 1, column 2: the quotation mark that opens here".to_owned()),
        (format!("{heading}a,b\nc\n"), "line 3: it has 1 cell, and the header has 2".to_owned()),
        (format!("{heading}a,b,c\n"), "line 2: it has 3 cells, and the header has 2".to_owned()),
        (heading.replace('\n', "\r") + "a,b\r", "line 1, column 2: a carriage return".to_owned()),
        (format!("{heading}a,b\0\n"), "line 2, column 2 (`profile.title`): a NUL byte".to_owned()),
        (format!("{heading}a,b\n{heading}"), "line 3: it is the heading of line 1 once more".to_owned()),
    ];
    for (text, words) in rows {
        for text in [text.clone(), text.replace('\n', "\r\n"), format!("\u{feff}{text}")] {
            world.write("rows.csv", &text);
            let (code, stdout, stderr) = ran(&mut world.embedded(&["rows.csv", "--subtool", "update_user"]));
            assert_eq!((code, stdout.as_str()), (2, ""), "{text:?}: {stderr}");
            assert!(stderr.contains(&words), "{text:?}: {stderr}");
        }
    }
    assert_eq!(world.org.requests(), 0);
    assert!(!world.file("rows.csv.journal").exists() && !world.file("rows.csv.results.jsonl").exists());
}

#[test]
fn encodings_notes_and_delimiters_are_named_and_delimiters_can_be_said() {
    let world = World::new(&[]);
    let text = "user_id;send_email\r\nana@x.example;\r\n";
    let utf16 = |mark: [u8; 2], order: fn(u16) -> [u8; 2]| {
        mark.into_iter().chain(text.encode_utf16().flat_map(order)).collect::<Vec<u8>>()
    };
    let rows: [(Vec<u8>, &[&str]); 9] = [
        (utf16([0xff, 0xfe], u16::to_le_bytes), &["UTF-16", "iconv -f UTF-16 -t UTF-8"]),
        (utf16([0xfe, 0xff], u16::to_be_bytes), &["UTF-16", "CSV UTF-8"]),
        (
            b"user_id\nana@x.example\nbj\xf6rn@x.example\n".to_vec(),
            &["line 3, column 1 (`user_id`): is not UTF-8", "Windows-1252"],
        ),
        (b"PK\x03\x04\x14\0\x06\0".to_vec(), &["Excel workbook"]),
        (format!("sep=;\r\n{text}").into_bytes(), &["line 1: is `sep=`", "`--delimiter ';'`"]),
        (
            format!("#TYPE System.Object\r\n{text}").into_bytes(),
            &["line 1: is the `#TYPE` line", "-NoTypeInformation"],
        ),
        (text.as_bytes().to_vec(), &["line 1", "semicolons", "`--delimiter ';'`"]),
        (text.replace(';', "\t").into_bytes(), &["line 1", "tabs", "`--delimiter tab`"]),
        (text.replace(';', "|").into_bytes(), &["line 1", "vertical bars", "`--delimiter '|'`"]),
    ];
    for (bytes, words) in rows {
        world.write_bytes("rows.csv", &bytes);
        let (code, _, stderr) = ran(&mut world.embedded(&["rows.csv", "--subtool", "deactivate_user"]));
        assert_eq!(code, 2, "{stderr}");
        assert!(words.iter().all(|words| stderr.contains(words)), "{words:?}: {stderr}");
    }
    assert_eq!(world.org.requests(), 0);
    let good = [
        (";", text.to_owned()),
        ("tab", text.replace(';', "\t")),
        ("|", text.replace(';', "|")),
        (";", format!("sep=;\r\n{text}")),
    ];
    for (number, (delimiter, text)) in good.iter().enumerate() {
        let name = format!("good{number}.csv");
        world.write(&name, text);
        let arguments = [name.as_str(), "--subtool", "deactivate_user", "--delimiter", delimiter];
        let (code, stdout, stderr) = ran(&mut world.embedded(&arguments));
        assert!(
            code == 1 && stdout.contains("1 rows: 1 failed\n  failed   1 not_found"),
            "{text:?}: {stdout}{stderr}"
        );
    }
}

#[test]
fn blank_rows_are_passed_over_and_ids_are_trimmed_and_nothing_else_is() {
    let world = World::new(&[]);
    world.with_people();
    // `cases/blank-rows.csv`, and blanks around what is in it.
    let text = format!("user_id,profile.department\n{ANA},Sales\n,\n , \n\u{a0}{BEN}\u{a0} , Support \n,\n");
    world.write("rows.csv", &text);
    let (code, stdout, stderr) = ran(&mut world.embedded(&["rows.csv", "--subtool", "update_user"]));
    assert!(code == 0 && stdout.contains("2 rows: 2 applied"), "{stdout}{stderr}");
    let results = world.by_row("rows.csv.results.jsonl");
    let seen: Vec<_> = results
        .iter()
        .map(|it| {
            (it["row"].as_u64(), &it["result"]["profile"]["login"], &it["result"]["profile"]["department"])
        })
        .collect();
    let expected = [(Some(1), &json!(ANA), &json!("Sales")), (Some(2), &json!(BEN), &json!(" Support "))];
    assert_eq!(seen, expected);
}

#[test]
fn a_heading_may_name_a_type() {
    let world = World::new(&[]);
    let text = "profile.login,profile.email,profile.isContractor:boolean,profile.age:integer,profile.rate:number,\
                profile.roles:list,profile.badge\nana@x.example,ana@x.example,TRUE,42,0.5,a;b,007\n";
    world.write("rows.csv", text);
    let (_, stdout, stderr) =
        ran(&mut world.embedded(&["rows.csv", "--subtool", "create_user", "--dry-run"]));
    let planned = world.results("rows.csv.dry.results.jsonl");
    assert_eq!(planned.len(), 1, "{stdout}{stderr}");
    let expected = json!({
        "login": "ana@x.example", "email": "ana@x.example", "isContractor": true, "age": 42, "rate": 0.5,
        "roles": ["a", "b"], "badge": "007",
    });
    assert_eq!(planned[0]["result"]["requests"][0]["body"]["profile"], expected, "{planned:?}");
    world.write(
        "bad.csv",
        "user_id,profile.isContractor:boolean,profile.age:integer\nana,hunter2,x\nben,true,hunter2\n",
    );
    let (code, _, stderr) = ran(&mut world.embedded(&["bad.csv", "--subtool", "update_user"]));
    assert_eq!(code, 2, "{stderr}");
    for words in [
        "line 2, column 2 (`profile.isContractor:boolean`): is no boolean",
        "line 2, column 3 (`profile.age:integer`): is no integer",
        "line 3, column 3 (`profile.age:integer`): is no integer",
    ] {
        assert!(stderr.contains(words) && !stderr.contains("hunter2"), "{stderr}");
    }
}

#[test]
fn headings_that_people_type_are_answered_with_those_that_work() {
    let world = World::new(&[]);
    let rows = [
        ("create_user", "Username,First Name,Last Name,E-mail", "ana@x.example,Ana,Almeida,ana@x.example"),
        (
            "create_user",
            "Profile.Login,profile.email,profile.first_name,Surname",
            "ana@x.example,ana@x.example,Ana,Almeida",
        ),
        ("deactivate_user", "Username", "ana@x.example"),
        ("suspend_user", "E-mail", "ana@x.example"),
        ("unlock_user", "Profile.Login", "ana@x.example"),
        ("update_user", "login,Job Title", "ana@x.example,VP"),
        ("add_user_to_group", "User Name,Group ID", "ana@x.example,00g1emaKYZTWRYYRRTSK"),
        ("create_group", "Group Name,Description", "Sales,All of them"),
    ];
    for (number, (subtool, heading, row)) in rows.iter().enumerate() {
        world.write("typed.csv", &format!("{heading}\n{row}\n"));
        let (code, _, stderr) = ran(&mut world.embedded(&["typed.csv", "--subtool", subtool]));
        assert_eq!(code, 2, "{stderr}");
        let mut hinted: Vec<String> = heading.split(',').map(str::to_owned).collect();
        for (at, line) in stderr
            .lines()
            .filter_map(|line| line.trim().strip_prefix("line 1, column ")?.split_once([' ', ':']))
        {
            let hint = line.split("did you mean `").nth(1).and_then(|rest| rest.split('`').next());
            hinted[at.parse::<usize>().unwrap() - 1] =
                hint.unwrap_or_else(|| panic!("no hint: {stderr}")).to_owned();
        }
        let name = format!("hinted{number}.csv");
        world.write(&name, &format!("{}\n{row}\n", hinted.join(",")));
        let (code, stdout, stderr) = ran(&mut world.embedded(&[&name, "--subtool", subtool, "--dry-run"]));
        assert!(code < 2 && stdout.contains("1 rows"), "{hinted:?}: {stdout}{stderr}");
    }
}

#[test]
fn one_value_for_all_rows_needs_no_column() {
    let world = World::new(&[]);
    world.with_people();
    world.write("groups.csv", &groups(2));
    assert_eq!(ran(&mut world.embedded(&["groups.csv", "--subtool", "create_group"])).0, 0);
    let made = world.by_row("groups.csv.results.jsonl");
    let ids: Vec<&str> = made.iter().map(|it| it["result"]["id"].as_str().unwrap()).collect();
    world.write("logins.csv", &format!("user_id\n{ANA}\n{BEN}\n"));
    let set = |id: &str| format!("group_id={id}");
    let arguments = |set: String| {
        ["logins.csv", "--subtool", "add_user_to_group", "--set"]
            .map(str::to_owned)
            .into_iter()
            .chain([set])
            .collect::<Vec<_>>()
    };
    let submit = |set: String| {
        let arguments = arguments(set);
        ran(&mut world.embedded(&arguments.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    let (code, stdout, stderr) = submit(set(ids[0]));
    assert!(code == 0 && stdout.contains("2 rows: 2 applied"), "{stdout}{stderr}");
    // The same again is the same job.
    let before = world.org.requests();
    assert_eq!((submit(set(ids[0])).0, world.org.requests()), (0, before));

    world.write("both.csv", &format!("user_id,group_id\n{ANA},{}\n", ids[0]));
    let refused = [
        (
            vec!["both.csv", "--set", "group_id=00gsecret"],
            "line 1, column 2 (`group_id`): is given to all rows by `--set`",
        ),
        (vec!["logins.csv", "--set", "group=00gsecret"], "did you mean `--set group_id=…`?"),
        (vec!["logins.csv", "--set", "00gsecret"], "one has no `=`"),
        (vec!["logins.csv", "--set", "group_id=00gsecret/x"], "`--set group_id`: must be an id"),
        (vec!["logins.csv"], "no column `group_id`"),
    ];
    for (arguments, words) in refused {
        let arguments = [&arguments[..], &["--subtool", "add_user_to_group"]].concat();
        let (code, _, stderr) = ran(&mut world.embedded(&arguments));
        assert!(code == 2 && stderr.contains(words) && !stderr.contains("00gsecret"), "{code}: {stderr}");
    }
}

#[test]
fn who_stands_in_a_file_twice_is_named_and_sent_all_the_same() {
    let world = World::new(&[]);
    let person = |login: &str| format!("{login},{login},A,B\n");
    let text = format!(
        "profile.login,profile.email,profile.firstName,profile.lastName\n{}{}\n{}",
        person(ANA),
        person(BEN),
        person("ANA@x.example")
    );
    world.write("rows.csv", &text);
    let (code, stdout, stderr) = ran(&mut world.embedded(&["rows.csv", "--subtool", "create_user"]));
    let warning = "okta-worker: warning: `rows.csv`: 1 row is for the same as an earlier one: row 3 (line 5) as row 1 (line 2)";
    assert!(stderr.contains(warning), "{stderr}");
    assert!(code < 2 && world.results("rows.csv.results.jsonl").len() == 3, "{stdout}{stderr}");
}

#[test]
fn rows_that_failed_are_shown_with_their_lines_and_reasons() {
    let world = World::new(&[]);
    world.with_people();
    let rows: String = (1..=25).map(|row| format!("nobody{row}@x.example\n\n")).collect();
    world.write("rows.csv", &format!("user_id\n{ANA}\n\n{rows}"));
    for dry_run in [true, false] {
        let arguments = [
            "rows.csv",
            "--subtool",
            "add_user_to_group",
            "--set",
            "group_id=00gNobody0000000000",
            "--dry-run",
        ];
        let (code, stdout, stderr) = ran(&mut world.embedded(&arguments[..if dry_run { 6 } else { 5 }]));
        assert_eq!(code, 1, "{stdout}{stderr}");
        assert!(stdout.contains("\n    row 2 (line 4): not_found: "), "{stdout}");
        assert!(stdout.contains("more, all of them in the results\n"), "{stdout}");
        assert!(!stdout.contains("nobody") && !stdout.contains("00gNobody"), "{stdout}");
        let shown = stdout.lines().filter(|line| line.starts_with("    row ")).count();
        assert_eq!(shown, 20, "{stdout}");
    }
}
