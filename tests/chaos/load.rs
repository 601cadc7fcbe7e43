//! The load: all seventeen writes and some reads, on targets of their own and on shared ones, from a seed.

use std::fmt::Write as _;
use std::time::Duration;

use fastrand::Rng;
use futures_util::{StreamExt as _, stream};
use okta_worker::domain::bucket::Bucket;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::caller::Message;
use super::checker::Asked;
use super::org::{Org, TOKEN};

/// Where the answers go.
pub const ANSWERS: &str = "answers";

/// One invocation: what the checker is told of it, and the message.
pub struct Invocation {
    /// For the checker.
    pub asked: Asked,
    /// For the broker.
    pub message: Message,
}

/// Okta's times have whole seconds, and clocks may differ by two: what was set up must not look like what is asked for.
const SETTLED: Duration = Duration::from_secs(4);

/// What is done to a target of its own before, and then by the invocation.
#[derive(Clone, Copy)]
struct Row {
    subtool: &'static str,
    before: Before,
    effects: &'static [&'static str],
    emits: bool,
}

/// How the target stands before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// There is none: it is created, or it is a read.
    Nothing,
    /// A user in this state.
    User(State),
    /// A group.
    Group,
    /// A user, in the group or not, with the app or not.
    Pair { member: bool, assigned: bool },
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Staged,
    Active,
    Suspended,
    Deactivated,
}

use Before::{Group, Nothing, Pair, User};

const PAIR: Before = Pair { member: false, assigned: false };

const fn row(subtool: &'static str, before: Before, effects: &'static [&'static str]) -> Row {
    Row { subtool, before, effects, emits: false }
}

const fn emit(subtool: &'static str, before: Before, effects: &'static [&'static str]) -> Row {
    Row { subtool, before, effects, emits: true }
}

/// The seventeen writes, some of them twice with other arguments.
const WRITES: [Row; 18] = [
    row("create_user", Nothing, &["user.created"]),
    row("update_user", User(State::Active), &["user.updated"]),
    row("delete_user", User(State::Deactivated), &["user.deleted"]),
    emit("activate_user", User(State::Staged), &["user.activated", "mail.activation"]),
    row("deactivate_user", User(State::Active), &["user.deactivated"]),
    row("suspend_user", User(State::Active), &["user.suspended"]),
    row("unsuspend_user", User(State::Suspended), &["user.unsuspended"]),
    // Nobody can be locked out from outside: it finds that there is nothing to do.
    row("unlock_user", User(State::Active), &["user.unlocked"]),
    emit("reset_user_password", User(State::Active), &["user.password_reset", "mail.password_reset"]),
    row("expire_user_password", User(State::Active), &["user.password_expired"]),
    row("create_group", Nothing, &["group.created"]),
    row("update_group", Group, &["group.updated"]),
    row("delete_group", Group, &["group.deleted"]),
    row("add_user_to_group", PAIR, &["member.added"]),
    row("remove_user_from_group", Pair { member: true, assigned: false }, &["member.removed"]),
    row("assign_user_to_app", PAIR, &["app.assigned"]),
    row("remove_user_from_app", Pair { member: false, assigned: true }, &["app.unassigned"]),
    row("add_user_to_group", Pair { member: true, assigned: false }, &["member.added"]),
];

/// Writes of which Okta does not tell whether they changed anything.
const UNTOLD: [&str; 5] =
    ["update_user", "update_group", "unlock_user", "add_user_to_group", "remove_user_from_group"];

/// Reads; none has an effect.
const READS: [&str; 6] =
    ["get_user", "list_users", "list_groups", "list_user_groups", "get_group", "list_apps"];

/// Those that are also done to what all share. All of a kind want the same of it, so that whoever comes first has the
/// effect and nobody's comes again: where two want different things, the later of them may be overridden, as is promised.
const SHARED: [&str; 4] =
    ["update_user", "add_user_to_group", "remove_user_from_group", "assign_user_to_app"];

/// An org with room for a load: so many requests per window of 2 s in each bucket.
pub fn org_arguments(limit: u32) -> Vec<String> {
    let mut arguments = vec!["--window".to_owned(), "2".to_owned(), "--users".to_owned(), "40".to_owned()];
    for bucket in Bucket::ALL {
        arguments.extend(["--limit".to_owned(), format!("{bucket}={limit}")]);
    }
    arguments
}

/// The same as a command takes them.
pub fn texts(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// Another client of the org, that makes the targets.
struct Maker<'a> {
    org: &'a Org,
    client: Client,
}

impl Maker<'_> {
    async fn ask(&self, method: Method, path: &str, body: Value) -> Value {
        loop {
            let request = self.client.request(method.clone(), format!("{}{path}", self.org.url()));
            let request = request.header("authorization", format!("SSWS {TOKEN}")).body(body.to_string());
            let answer = request.header("content-type", "application/json").send().await;
            let answer = answer.expect("the sandbox answers");
            let status = answer.status().as_u16();
            let said = answer.text().await.expect("it answers in text");
            if status == 429 {
                tokio::time::sleep(super::child::LOOK_AGAIN).await;
                continue;
            }
            assert!(status < 300, "{method} {path}: {status} {said}");
            return serde_json::from_str(&said).unwrap_or(Value::Null);
        }
    }

    async fn user(&self, name: &str, state: State) -> String {
        let login = format!("{name}@chaos.example");
        let profile = json!({ "firstName": "Chaos", "lastName": name, "login": login, "email": login });
        let activate = state != State::Staged;
        // With a password, so that a reset does something and activation mails nothing.
        let credentials = json!({ "password": { "value": "Planted-Pa55word!" } });
        let body = json!({ "profile": profile, "credentials": credentials });
        let user = self.ask(Method::POST, &format!("/api/v1/users?activate={activate}"), body).await;
        let id = user["id"].as_str().expect("a user has an id").to_owned();
        let lifecycle = match state {
            State::Staged | State::Active => return id,
            State::Suspended => "suspend",
            State::Deactivated => "deactivate",
        };
        self.ask(Method::POST, &format!("/api/v1/users/{id}/lifecycle/{lifecycle}"), json!({})).await;
        id
    }

    async fn group(&self, name: &str) -> String {
        let group = self.ask(Method::POST, "/api/v1/groups", json!({ "profile": { "name": name } })).await;
        group["id"].as_str().expect("a group has an id").to_owned()
    }

    async fn join(&self, group: &str, user: &str) {
        self.ask(Method::PUT, &format!("/api/v1/groups/{group}/users/{user}"), json!({})).await;
    }

    async fn app(&self) -> String {
        let apps = self.ask(Method::GET, "/api/v1/apps?limit=1", json!({})).await;
        apps[0]["id"].as_str().expect("there is an app").to_owned()
    }
}

/// What is shared.
struct Common {
    user: String,
    /// The user joins it.
    group: String,
    /// The user leaves it.
    other_group: String,
    app: String,
}

/// Makes so many invocations and their targets. The effects that this took are not among those asked for.
pub async fn prepare(org: &Org, prefix: &str, count: usize, seed: u64) -> Vec<Invocation> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let maker = &Maker { org, client: Client::new() };
    let common = &Common {
        user: maker.user(&format!("{prefix}shared"), State::Active).await,
        group: maker.group(&format!("{prefix}shared")).await,
        other_group: maker.group(&format!("{prefix}other")).await,
        app: maker.app().await,
    };
    maker.join(&common.other_group, &common.user).await;
    let mut rng = Rng::with_seed(seed);
    let drawn: Vec<_> = (0..count).map(|number| (number, rng.u64(..))).collect();
    let made = stream::iter(drawn).map(|(number, seed)| async move {
        make(maker, common, &format!("{prefix}{number}"), number, Rng::with_seed(seed)).await
    });
    let made = made.buffered(16).collect().await;
    sleep(SETTLED).await;
    made
}

/// So many reads of one bucket, in the lane of those nobody waits for: more than may be in line for it.
pub fn crowd(count: usize) -> impl Iterator<Item = Invocation> {
    let row = row("list_groups", Nothing, &[]);
    let read = move |number| {
        let mut invocation = invocation(
            &format!("crowd{number}"),
            row,
            None,
            true,
            &json!({ "limit": 2 }),
            &mut Rng::with_seed(0),
        );
        invocation.message.key = "prod.bulk".to_owned();
        invocation
    };
    (0..count).map(read)
}

/// So many password resets, each of a user of its own.
pub async fn resets(org: &Org, count: usize) -> Vec<Invocation> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let maker = &Maker { org, client: Client::new() };
    let row = *WRITES.iter().find(|row| row.subtool == "reset_user_password").expect("it is one of them");
    let made = stream::iter(0..count).map(|number| async move {
        let id = maker.user(&format!("reset{number}"), State::Active).await;
        let arguments = json!({ "user_id": id });
        invocation(&format!("reset{number}"), row, Some(id), true, &arguments, &mut Rng::with_seed(0))
    });
    let made = made.buffered(16).collect().await;
    sleep(SETTLED).await;
    made
}

/// The invocation of this name: each write comes by turns, so that none is left out.
async fn make(maker: &Maker<'_>, common: &Common, name: &str, number: usize, mut rng: Rng) -> Invocation {
    if rng.u32(0..4) == 0 {
        let subtool = READS[rng.usize(..READS.len())];
        let arguments = match subtool {
            "get_user" | "list_user_groups" => json!({ "user_id": common.user }),
            "get_group" => json!({ "group_id": common.group }),
            _ => json!({ "limit": 2 }),
        };
        let row = row(subtool, Nothing, &[]);
        return invocation(name, row, None, true, &arguments, &mut rng);
    }
    let row = WRITES[number % WRITES.len()];
    if SHARED.contains(&row.subtool) && rng.bool() {
        let Common { user, group, other_group, app } = common;
        let in_group =
            |group: &str| (format!("{group}/{user}"), json!({ "group_id": group, "user_id": user }));
        let (subject, arguments) = match row.subtool {
            "update_user" => (user.clone(), json!({ "user_id": user, "profile": { "title": "Shared" } })),
            "assign_user_to_app" => (format!("{app}/{user}"), json!({ "app_id": app, "user_id": user })),
            "remove_user_from_group" => in_group(other_group),
            _ => in_group(group),
        };
        return invocation(name, row, Some(subject), true, &arguments, &mut rng);
    }
    let (subject, arguments) = match row.before {
        Nothing if row.subtool == "create_user" => {
            let login = format!("{name}@chaos.example");
            let profile = json!({ "firstName": "Chaos", "lastName": name, "login": login, "email": login });
            (None, json!({ "profile": profile, "activate": false }))
        }
        Nothing => (None, json!({ "name": name })),
        User(state) => {
            let id = maker.user(name, state).await;
            let mut arguments = json!({ "user_id": id });
            if row.subtool == "update_user" {
                arguments["profile"] = json!({ "title": format!("Title {name}") });
            }
            (Some(id), arguments)
        }
        Group => {
            let id = maker.group(name).await;
            let mut arguments = json!({ "group_id": id });
            if row.subtool == "update_group" {
                arguments["description"] = json!(format!("About {name}"));
            }
            (Some(id), arguments)
        }
        Pair { member, assigned } => pair(maker, common, name, row, (member, assigned)).await,
    };
    invocation(name, row, subject, true, &arguments, &mut rng)
}

async fn pair(
    maker: &Maker<'_>,
    common: &Common,
    name: &str,
    row: Row,
    (member, assigned): (bool, bool),
) -> (Option<String>, Value) {
    let user = maker.user(name, State::Active).await;
    let Common { group, app, .. } = common;
    if member {
        maker.join(group, &user).await;
    }
    if assigned {
        let body = json!({ "id": user, "scope": "USER" });
        maker.ask(Method::POST, &format!("/api/v1/apps/{app}/users"), body).await;
    }
    match row.subtool.ends_with("_app") {
        true => (Some(format!("{app}/{user}")), json!({ "app_id": app, "user_id": user })),
        false => (Some(format!("{group}/{user}")), json!({ "group_id": group, "user_id": user })),
    }
}

fn invocation(
    id: &str,
    row: Row,
    subject: Option<String>,
    must_succeed: bool,
    arguments: &Value,
    rng: &mut Rng,
) -> Invocation {
    let mut key = "prod".to_owned();
    if rng.u32(0..3) > 0 {
        write!(key, ".bulk").expect("a text grows");
    }
    let message = Message::new(&key, row.subtool, arguments).id(id).answer_to(ANSWERS);
    let asked = Asked {
        id: id.to_owned(),
        confirmed: false,
        emits: row.emits,
        effects: row.effects,
        subject,
        is_told: !UNTOLD.contains(&row.subtool),
        must_succeed,
        is_poison: false,
    };
    Invocation { asked, message }
}
