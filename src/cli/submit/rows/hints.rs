//! Suggestions for an invalid heading: `profile.login` for `Username`.
//!
//! A suggestion is made only if it would be valid in its place. It never leads from the name of an object to an
//! argument that takes its id, nor to another object.

use crate::domain::invocation::nearest;

use super::column::{Column, SubtoolArguments, parted, shown};

/// Common names for the column that identifies the user.
const USER: &[&str] = &[
    "user",
    "userid",
    "username",
    "userlogin",
    "login",
    "loginname",
    "loginid",
    "oktaid",
    "oktauserid",
    "oktalogin",
    "oktausername",
    "upn",
    "userprincipalname",
];

/// Common names for e-mail addresses, which are usually logins too.
const MAIL: &[&str] =
    &["email", "mail", "emailaddress", "mailaddress", "primaryemail", "useremail", "workemail"];

/// The attributes of a user that every org has (Okta's default profile), each with common other names.
const ATTRIBUTES: [(&str, &[&str]); 31] = [
    (
        "login",
        &[
            "username",
            "userlogin",
            "loginname",
            "loginid",
            "oktalogin",
            "oktausername",
            "upn",
            "userprincipalname",
        ],
    ),
    ("email", MAIL),
    ("secondEmail", &["secondaryemail", "personalemail", "privateemail", "alternateemail", "recoveryemail"]),
    ("firstName", &["first", "givenname", "forename"]),
    ("lastName", &["last", "surname", "familyname", "sn"]),
    ("middleName", &["middle", "middleinitial"]),
    ("honorificPrefix", &["prefix", "salutation"]),
    ("honorificSuffix", &["suffix"]),
    ("title", &["jobtitle", "position"]),
    ("displayName", &["fullname", "name", "cn"]),
    ("nickName", &[]),
    ("profileUrl", &["url", "website"]),
    ("primaryPhone", &["phone", "phonenumber", "telephone", "telephonenumber", "officephone", "workphone"]),
    ("mobilePhone", &["mobile", "mobilenumber", "cell", "cellphone"]),
    ("streetAddress", &["street", "address"]),
    ("city", &["town", "l"]),
    ("state", &["province", "region", "st"]),
    ("zipCode", &["zip", "postalcode", "postcode"]),
    ("countryCode", &["country", "c"]),
    ("postalAddress", &[]),
    ("preferredLanguage", &["language"]),
    ("locale", &[]),
    ("timezone", &["tz"]),
    ("userType", &["employeetype"]),
    ("employeeNumber", &["employeeid", "employeeno", "personnelnumber", "staffid"]),
    ("costCenter", &["costcentre"]),
    ("organization", &["organisation", "company", "org"]),
    ("division", &[]),
    ("department", &["dept"]),
    ("managerId", &[]),
    ("manager", &["managername"]),
];

/// The arguments that take an object's id, each with common names for its column.
const THINGS: [(&str, &[&str]); 3] = [
    ("group_id", &["group", "groupid", "oktagroupid"]),
    ("group_ids", &["group", "groups", "groupid", "groupids"]),
    ("app_id", &["app", "appid", "application", "applicationid", "appinstanceid"]),
];

/// Returns the attribute of Okta's default profile that differs from this one only in case.
pub(super) fn differs_in_case(attribute: &str) -> Option<&'static str> {
    let names = ATTRIBUTES.iter().map(|(name, _)| *name);
    names.into_iter().find(|name| *name != attribute && name.eq_ignore_ascii_case(attribute))
}

/// Returns true if a heading is one of several that may identify the user, and not the best of them.
pub(super) fn is_second_choice(heading: &str) -> bool {
    MAIL.contains(&plain(parted(heading).0).as_str())
}

/// Returns the column that an invalid heading may be meant for, beside those that are `taken`.
pub(super) fn hint(heading: &str, known: &SubtoolArguments, taken: &[Column]) -> Option<Column> {
    let (path, kind) = parted(heading);
    let kind = kind.map_or_else(String::new, |kind| format!(":{kind}"));
    candidates(path, known).into_iter().find_map(|candidate| {
        let column = Column::parse(&format!("{candidate}{kind}"), known);
        // A type that the argument does not have is as wrong as the name.
        let column = column.or_else(|_| Column::parse(&candidate, known)).ok()?;
        (!taken.iter().any(|other| other.clashes(&column))).then_some(column)
    })
}

/// Reduces a name to letters and digits in lower case: `E-mail`, `e_mail` and `Email` are equal.
fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// Returns the possible meanings, the likeliest first.
fn candidates(path: &str, known: &SubtoolArguments) -> Vec<String> {
    let parts: Vec<&str> = path.split('.').collect();
    let is_below = |part: &str| matches!(plain(part).as_str(), "profile" | "user" | "arguments");
    let below = match parts.as_slice() {
        [first, rest @ ..] if !rest.is_empty() && is_below(first) => rest.concat(),
        _ => path.to_owned(),
    };
    let plain_name = plain(&below);
    let is_in_profile = parts.len() > 1 && plain(parts[0]) == "profile";
    let mut candidates = Vec::new();
    if !is_in_profile || !known.arguments.contains_key("profile") {
        candidates.extend(arguments(&plain_name, known));
    }
    if known.has_user_profile() {
        let is_it =
            |(name, others): &&(&str, &[&str])| plain(name) == plain_name || others.contains(&&*plain_name);
        candidates.extend(ATTRIBUTES.iter().find(is_it).map(|(name, _)| format!("profile.{name}")));
    }
    // From here on a candidate repeats the user's text, which may be a value of a file without a heading.
    if shown(path).is_none() {
        return candidates;
    }
    candidates.extend(misspelt(&parts, &plain_name, known));
    if known.arguments.contains_key("profile") {
        match parts.as_slice() {
            [one] => candidates.push(format!("profile.{one}")),
            [first, rest @ ..] if plain(first) == "profile" => {
                candidates.push(format!("profile.{}", rest.join(".")));
            }
            _ => {}
        }
    }
    candidates
}

/// Returns the arguments with this common name.
fn arguments(plain_name: &str, known: &SubtoolArguments) -> Vec<String> {
    let mut found: Vec<String> =
        known.arguments.keys().filter(|name| plain(name) == plain_name).cloned().collect();
    if USER.contains(&plain_name) || MAIL.contains(&plain_name) {
        found.push("user_id".to_owned());
    }
    for (name, others) in THINGS {
        if others.contains(&plain_name) {
            found.push(name.to_owned());
        }
    }
    let ids: Vec<&String> = known.required.iter().filter(|name| name.ends_with("_id")).collect();
    match (plain_name, ids.as_slice()) {
        ("id", [one]) => found.push((*one).clone()),
        ("groupname", _) if !known.has_user_profile() => found.push("name".to_owned()),
        ("groupdescription", _) => found.push("description".to_owned()),
        _ => {}
    }
    found
}

/// Returns the argument with a similar name, with the rest of the path.
fn misspelt(parts: &[&str], plain_name: &str, known: &SubtoolArguments) -> Option<String> {
    let first = parts[0].to_lowercase();
    let near = nearest(&first, known.arguments.keys().map(String::as_str))?;
    // A user who refers to an object by its name does not know its id.
    let is_by_name = plain_name.ends_with("name") || plain_name.ends_with("label");
    let is_other = is_by_name && near.ends_with("_id");
    (!is_other).then(|| [&[near][..], &parts[1..]].concat().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::catalogue::{CATALOGUE, find};

    fn hinted(heading: &str, subtool: &str) -> Option<String> {
        hint(heading, &SubtoolArguments::of(find(subtool).unwrap()), &[]).map(|column| column.name)
    }

    #[test]
    fn headings_that_people_type_lead_to_the_argument_of_the_subtool() {
        let rows = [
            ("Username", "create_user", "profile.login"),
            ("Username", "deactivate_user", "user_id"),
            ("Username", "update_user", "user_id"),
            ("User Name", "suspend_user", "user_id"),
            ("login", "create_user", "profile.login"),
            ("login", "get_user", "user_id"),
            ("Profile.Login", "create_user", "profile.login"),
            ("Profile.Login", "update_user", "profile.login"),
            ("Profile.Login", "deactivate_user", "user_id"),
            ("profile.email", "suspend_user", "user_id"),
            ("First Name", "create_user", "profile.firstName"),
            ("first_name", "update_user", "profile.firstName"),
            ("profile.First Name", "create_user", "profile.firstName"),
            ("Last Name", "create_user", "profile.lastName"),
            ("E-mail", "create_user", "profile.email"),
            ("Email Address", "deactivate_user", "user_id"),
            ("UserPrincipalName", "create_user", "profile.login"),
            ("Job Title", "create_user", "profile.title"),
            ("Mobile", "update_user", "profile.mobilePhone"),
            ("department", "create_user", "profile.department"),
            ("shoeSize", "create_user", "profile.shoeSize"),
            ("isContractor:boolean", "create_user", "profile.isContractor:boolean"),
            ("Department:text", "create_user", "profile.department:text"),
            ("ID", "get_group", "group_id"),
            ("Id", "unlock_user", "user_id"),
            ("Group ID", "add_user_to_group", "group_id"),
            ("Group", "add_user_to_group", "group_id"),
            ("Groups", "create_user", "group_ids"),
            ("Application", "assign_user_to_app", "app_id"),
            ("Group Name", "create_group", "name"),
            ("Name", "create_group", "name"),
            ("Send Email", "deactivate_user", "send_email"),
            ("usr_id", "get_user", "user_id"),
            ("profle.title", "create_user", "profile.title"),
            ("arguments.user_id", "get_user", "user_id"),
            ("user.login", "get_user", "user_id"),
            ("costCenter", "create_group", "profile.costCenter"),
        ];
        for (heading, subtool, expected) in rows {
            assert_eq!(hinted(heading, subtool).as_deref(), Some(expected), "{heading} of {subtool}");
        }
    }

    #[test]
    fn no_hint_is_better_than_one_at_another_thing() {
        for (heading, subtool) in [
            ("Group Name", "add_user_to_group"),
            ("group_name", "delete_group"),
            ("app_label", "get_app"),
            ("id", "add_user_to_group"),
            ("department", "get_user"),
            ("Shoe Size", "get_user"),
            ("", "get_user"),
            ("...", "create_user"),
            ("hunter2", "create_user"),
            ("correct-horse", "create_user"),
        ] {
            assert_eq!(hinted(heading, subtool), None, "{heading} of {subtool}");
        }
    }

    #[test]
    fn every_hint_of_every_subtool_would_be_accepted() {
        let headings = [
            "Username",
            "User Name",
            "login",
            "E-mail",
            "First Name",
            "Last Name",
            "Profile.Login",
            "profile.First Name",
            "Department",
            "ID",
            "Group",
            "Group Name",
            "App",
            "Application ID",
            "Send Email",
            "is contractor",
            "isContractor:boolean",
            "Send Email:text",
            "send_email:text",
            "user.id",
            "user_id.x",
            "Limit",
            "Reason",
        ];
        let mut given = 0;
        for entry in &CATALOGUE {
            let known = SubtoolArguments::of(entry);
            let mut taken = Vec::new();
            for heading in headings {
                let Some(column) = hint(heading, &known, &taken) else { continue };
                let followed = Column::parse(&column.name, &known).expect("a hint is a heading");
                assert!(!taken.iter().any(|other: &Column| other.clashes(&followed)), "{heading}");
                taken.push(followed);
                given += 1;
            }
        }
        assert!(given > 50, "{given}");
    }
}
