//! The initial directory of an org: people with plausible names, groups by department, a few apps.
//!
//! The same seed gives the same directory, whatever its size: the first hundred of a thousand users are the hundred of
//! a smaller one.

use serde_json::Value;

use super::assignment::DirectAssignment;
use super::call::Cause;
use super::group::{Group, GroupKind};
use super::ids::{Id, fold};
use super::org::Org;
use super::profile::Profile;
use super::reply::Stamp;
use super::users::{Credentials, User, UserStatus};
use super::world::group_profile;

const FIRST_NAMES: [&str; 32] = [
    "Ada", "Amir", "Ana", "Björn", "Chloé", "Daniel", "Elif", "Emma", "Fatima", "Felix", "Grace", "Hiro",
    "Ines", "Ivan", "Jane", "João", "Julia", "Kofi", "Lena", "Liam", "Mei", "Milan", "Nadia", "Noah", "Olga",
    "Omar", "Priya", "Rosa", "Sofia", "Tomás", "Yuki", "Zoë",
];

const LAST_NAMES: [&str; 40] = [
    "Adeyemi",
    "Almeida",
    "Andersson",
    "Bauer",
    "Becker",
    "Brown",
    "Chen",
    "Costa",
    "Diaz",
    "Dubois",
    "Evans",
    "Fischer",
    "Garcia",
    "Haddad",
    "Hansen",
    "Ito",
    "Ivanova",
    "Jensen",
    "Kaur",
    "Kim",
    "Kowalski",
    "Larsen",
    "Lopez",
    "Martin",
    "Meyer",
    "Müller",
    "Nguyen",
    "Novak",
    "Okafor",
    "Patel",
    "Petrov",
    "Rossi",
    "Sato",
    "Schmidt",
    "Silva",
    "Singh",
    "Smith",
    "Tanaka",
    "Wang",
    "Weber",
];

/// The departments, each with a group of its own, and two titles.
const DEPARTMENTS: [(&str, [&str; 2]); 8] = [
    ("Engineering", ["Software Engineer", "Site Reliability Engineer"]),
    ("Sales", ["Account Executive", "Sales Engineer"]),
    ("Marketing", ["Campaign Manager", "Designer"]),
    ("Finance", ["Accountant", "Controller"]),
    ("People", ["Recruiter", "HR Partner"]),
    ("Legal", ["Counsel", "Paralegal"]),
    ("Support", ["Support Engineer", "Support Lead"]),
    ("IT", ["Systems Administrator", "Service Desk Analyst"]),
];

/// The groups across departments: one member per this many users.
const CIRCLES: [(&str, usize); 3] = [("Managers", 10), ("Contractors", 12), ("On Call", 25)];

/// The apps, each with the group whose members may use it.
const APPS: [(&str, Option<&str>); 6] = [
    ("Payroll", None),
    ("Wiki", Some("Everyone")),
    ("Source Control", Some("Engineering")),
    ("CRM", Some("Sales")),
    ("Travel", None),
    ("Service Desk", Some("IT")),
];

/// One user in this many is not active.
const INACTIVE_EVERY: usize = 16;

/// One user in this many has a direct assignment of Payroll.
const PAYROLL_EVERY: usize = 4;

impl Org {
    /// Fills a new org with its initial directory.
    pub(super) fn fill(&mut self) {
        let cause = Cause { now: self.now, request_id: "00000000000000000000000000000000", path: "/seed" };
        let now = Stamp::seconds(self.now);
        let everyone = Group {
            id: self.everyone,
            kind: GroupKind::BuiltIn,
            created: now,
            last_updated: now,
            last_membership_updated: now,
            profile: group_profile("Everyone", "All users in your organization"),
        };
        self.groups.put(self.everyone, everyone, self.now);
        let names = DEPARTMENTS.iter().map(|(name, _)| *name).chain(CIRCLES.iter().map(|(name, _)| *name));
        let groups: Vec<Id> = names
            .map(|name| {
                let profile = group_profile(name, &format!("Everybody in {name}"));
                self.found_group(cause, GroupKind::Okta, profile)
            })
            .collect();
        let apps: Vec<Id> = APPS
            .iter()
            .map(|(label, group)| {
                let app = self.create_app(label);
                if let Some(group) = group.and_then(|name| self.group_id(name)) {
                    self.assign_group_to_app(app, group);
                }
                app
            })
            .collect();
        let admin = person(self, self.admin, "Sam", "Admin", "sam.admin@example.com", UserStatus::Active);
        self.users.add(admin, self.now);
        for at in 0..self.settings.users {
            add_person(self, cause, at, &groups, apps[0]);
        }
    }
}

fn add_person(org: &mut Org, cause: Cause<'_>, at: usize, groups: &[Id], payroll: Id) {
    let rng = org.ids.rng();
    let first = FIRST_NAMES[rng.usize(..FIRST_NAMES.len())];
    let last = LAST_NAMES[rng.usize(..LAST_NAMES.len())];
    let department = rng.usize(..DEPARTMENTS.len());
    let title = rng.usize(..2);
    let status = if at % INACTIVE_EVERY == INACTIVE_EVERY - 1 {
        [
            UserStatus::Staged,
            UserStatus::Provisioned,
            UserStatus::Suspended,
            UserStatus::Deprovisioned,
            UserStatus::PasswordExpired,
        ][rng.usize(..5)]
    } else {
        UserStatus::Active
    };
    let login = format!("{}.{}.{at}@example.com", fold(first), fold(last));
    let id = org.ids.mint("00u");
    let mut user = person(org, id, first, last, &login, status);
    let (name, titles) = DEPARTMENTS[department];
    for (attribute, value) in [
        ("department", name.to_owned()),
        ("title", titles[title].to_owned()),
        ("employeeNumber", (1000 + at).to_string()),
        ("displayName", format!("{first} {last}")),
    ] {
        user.profile.insert(attribute.to_owned(), Value::from(value));
    }
    org.users.add(user, org.now);
    if status == UserStatus::Deprovisioned {
        return;
    }
    let circles = CIRCLES.iter().enumerate().filter(|(_, (_, every))| at.is_multiple_of(*every));
    let joined: Vec<Id> = std::iter::once(department)
        .chain(circles.map(|(at, _)| DEPARTMENTS.len() + at))
        .map(|at| groups[at])
        .collect();
    for group in joined {
        org.members_of(group).put(id, (), cause.now);
    }
    if at.is_multiple_of(PAYROLL_EVERY) {
        let now = Stamp::seconds(cause.now);
        let assignment = DirectAssignment {
            created: now,
            last_updated: now,
            user_name: login,
            has_password: false,
            profile: serde_json::Map::new(),
        };
        org.assignments_of(payroll).put(id, assignment, cause.now);
    }
}

fn person(org: &Org, id: Id, first: &str, last: &str, login: &str, status: UserStatus) -> User {
    let now = Stamp::seconds(org.now);
    let mut profile = Profile::new();
    for (attribute, value) in [("firstName", first), ("lastName", last), ("login", login), ("email", login)] {
        profile.insert(attribute.to_owned(), Value::from(value));
    }
    let has_password = !matches!(status, UserStatus::Staged | UserStatus::Provisioned);
    let activated = (status != UserStatus::Staged).then_some(now);
    User {
        id,
        kind: org.user_type,
        realm: None,
        status,
        before_suspension: UserStatus::Active,
        created: now,
        activated,
        status_changed: activated,
        last_updated: now,
        password_changed: has_password.then_some(now),
        profile,
        credentials: Credentials { has_password, ..Credentials::default() },
        revision: 1,
    }
}
