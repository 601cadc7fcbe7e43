//! `okta-worker demo`: onboarding and offboarding on the embedded parts, with a summary for newcomers.
//!
//! The worker is the real one; only the queue and Okta are inside the process.

mod client;
mod screen;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::budget::gate::CallerCeilings;
use crate::budget::pure::constants::CONCURRENT_MAX;
use crate::config;
use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::secret::Secret;
use crate::embedded::okta::SimulatedOkta;
use crate::event::Observer;
use crate::okta::{AnswerRoom, Credential, Endpoint, ROOM_BYTES_MIN, TokenType};
use crate::policy::authorization::AllowList;
use crate::sandbox::{Org, OrgSettings};
use crate::worker::clock::Clock;

use super::assembly::{self, Orgs, Shared};
use super::exit::{DONE, FAILED, NotBegun};
use super::in_process::InProcessWorker;
use crate::cli::demo::client::{DemoClient, REPLIES};
use screen::Screen;

/// The rate-limit window of the simulated org, in place of Okta's 60 s.
const WINDOW: Duration = Duration::from_secs(5);

/// The latency of an answer, about Okta's own median for a read.
const LATENCY: Duration = Duration::from_millis(80);

/// The limit of messages in work per lane.
const PREFETCH: usize = 32;

/// The number of people who join, and of those who leave again.
const JOINING: usize = 60;
const LEAVING: usize = 5;

/// The connection, and the token that the simulated org accepts.
const CONNECTION: &str = "demo";
const TOKEN: &str = "demo-token";

pub(super) async fn run() -> Result<u8, NotBegun> {
    let screen = Arc::new(Screen::new(WINDOW));
    let observer: Arc<dyn Observer> = Arc::<Screen>::clone(&screen);
    let settings = OrgSettings { token: Some(Secret::new(TOKEN)), window: WINDOW, ..OrgSettings::default() };
    let org = Arc::new(Mutex::new(Org::new(settings)));
    let okta = SimulatedOkta::new(org, TOKEN, Clock::Machine, LATENCY);

    let connection = config::ConnectionSection {
        name: ConnectionName::parse(CONNECTION).map_err(NotBegun)?,
        endpoint: Endpoint {
            base_url: String::new(),
            credential: Credential::Token { kind: TokenType::Ssws, token: Secret::new(TOKEN) },
        },
        subtools: AllowList::all(),
        capacity_percent: 90,
        rate_limit_window: WINDOW,
        max_per_minute: None,
        concurrent_max: CONCURRENT_MAX,
    };
    let config = config::load(None, []).map_err(|problems| NotBegun(problems.to_string()))?.config;
    let name = connection.name.clone();
    let ground = Shared {
        prefetch: PREFETCH,
        callers: CallerCeilings::new([]),
        answers: AnswerRoom::new(ROOM_BYTES_MIN), // nothing comes over a wire
        observer: Arc::clone(&observer),
    };
    let org = assembly::ServedOrg::new(&connection, Arc::new(okta), assembly::gate(&connection, &ground));
    let orgs = Orgs::from([(name.clone(), org)]);
    let worker = InProcessWorker::start(&config, &orgs, (PREFETCH, REPLIES), observer);

    let client = DemoClient::open(Arc::clone(&worker.broker), name);
    screen.welcome();
    match story(&client, &screen).await {
        Ok(()) => {
            screen.settled().await;
            screen.farewell();
            Ok(DONE)
        }
        Err(why) => {
            screen.failed(&why);
            Ok(FAILED)
        }
    }
}

/// Runs the steps of the demo, and reports them on the screen.
async fn story(client: &DemoClient, screen: &Screen) -> Result<(), String> {
    let group = client
        .ask(Lane::Interactive, "list_groups", json!({"search": "profile.name eq \"Engineering\""}))
        .await?;
    let app = client.ask(Lane::Interactive, "list_apps", json!({"q": "Payroll"})).await?;
    let (group, app) = (first_id(&group)?, first_id(&app)?);

    screen.begin(
        "onboarding",
        &format!("{JOINING} people: create, add to a group, assign an application"),
        JOINING,
    );
    let joining = (0..JOINING).map(|number| {
        let (group, app) = (&group, &app);
        async move {
            let id = onboard(client, number, group, app).await?;
            screen.step();
            Ok::<_, String>(id)
        }
    });
    let people = join_all(joining).await.into_iter().collect::<Result<Vec<_>, _>>()?;

    screen.begin("reading back", &format!("{JOINING} people, and who is in the group"), JOINING);
    let reading = people.iter().map(|id| async move {
        let user = client.ask(Lane::Interactive, "get_user", json!({"user_id": id})).await?;
        screen.step();
        if user["status"] == "PROVISIONED" { Ok(()) } else { Err(format!("{id} is {}", user["status"])) }
    });
    join_all(reading).await.into_iter().collect::<Result<(), _>>()?;
    let members = client.ask(Lane::Interactive, "list_group_members", json!({"group_id": group})).await?;
    let is_member =
        |id: &&String| members["items"].as_array().is_some_and(|all| all.iter().any(|m| m["id"] == **id));
    let members = people.iter().filter(is_member).count();
    if members != JOINING {
        return Err(format!("{members} of {JOINING} are in the group"));
    }

    screen.begin("offboarding", &format!("{LEAVING} people: deactivate, delete, make sure"), LEAVING);
    let leaving = people.iter().take(LEAVING).map(|id| async move {
        offboard(client, id).await?;
        screen.step();
        Ok::<_, String>(())
    });
    join_all(leaving).await.into_iter().collect::<Result<(), _>>()?;
    screen.end();
    Ok(())
}

async fn onboard(client: &DemoClient, number: usize, group: &str, app: &str) -> Result<String, String> {
    let (first, last) = name(number);
    let login = format!("{}.{}@example.com", first.to_lowercase(), last.to_lowercase());
    let profile = json!({"firstName": first, "lastName": last, "email": login, "login": login});
    let user = client.ask(Lane::Bulk, "create_user", json!({ "profile": profile })).await?;
    let id = user["id"].as_str().ok_or("a created user has no id")?.to_owned();
    let join = client.ask(Lane::Bulk, "add_user_to_group", json!({"group_id": group, "user_id": id}));
    let assign = client.ask(Lane::Bulk, "assign_user_to_app", json!({"app_id": app, "user_id": id}));
    let (joined, assigned) = tokio::join!(join, assign);
    joined.and(assigned).map(|_| id)
}

async fn offboard(client: &DemoClient, id: &str) -> Result<(), String> {
    client.ask(Lane::Interactive, "deactivate_user", json!({"user_id": id})).await?;
    client.ask(Lane::Interactive, "delete_user", json!({"user_id": id})).await?;
    match client.ask(Lane::Interactive, "get_user", json!({"user_id": id})).await {
        Err(why) if why.contains("not_found") => Ok(()),
        other => Err(format!("{id} is still there: {other:?}")),
    }
}

fn first_id(list: &Value) -> Result<String, String> {
    list["items"][0]["id"].as_str().map(str::to_owned).ok_or_else(|| format!("nothing found: {list}"))
}

/// Returns a first and a last name, unique among the first sixty.
fn name(number: usize) -> (&'static str, &'static str) {
    const FIRST: [&str; 10] =
        ["Ada", "Ben", "Chloe", "Dev", "Elif", "Femi", "Grace", "Hugo", "Ines", "Jonas"];
    const LAST: [&str; 6] = ["Abara", "Brandt", "Costa", "Dahl", "Evans", "Fontaine"];
    (FIRST[number % FIRST.len()], LAST[number / FIRST.len() % LAST.len()])
}
