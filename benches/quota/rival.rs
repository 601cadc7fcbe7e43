//! What others do instead of a budget: send and sleep when refused, or pace by a number known beforehand.
//!
//! Both take 16 messages of each lane and have 16 requests at once, first come, first served. A request that
//! is refused sleeps until the reset by the answer's own `Date` and a second more, as Okta's SDKs do, keeps
//! its place meanwhile, and is sent again as often as it takes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::select;
use governor::clock::Clock as _;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Connection, ConnectionProperties, Consumer};
use okta_worker::domain::bucket::RateHeaders;
use okta_worker::domain::ids::Lane;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::sleep;

use super::load::queue_of;
use super::support::messages::{Invocation, answer};
use super::support::org::TOKEN;

/// The argument that makes this program a rival.
pub const COMMAND: &str = "rival";

/// Requests at once: what such clients usually have, and far below the org's bound for one of them.
const AT_ONCE: u16 = 16;

/// What Okta's SDKs add to the reset, which is in whole seconds.
const MORE: Duration = Duration::from_secs(1);

struct Rival {
    http: reqwest::Client,
    base_url: String,
    slots: Semaphore,
    pace: Pace,
    replies: Channel,
}

/// When a request may go.
enum Pace {
    /// At once.
    None,
    /// At an even rate. Whoever holds the lock is next.
    Even(Mutex<DefaultDirectRateLimiter>),
}

/// Runs until the process is ended. The arguments are the broker's URL, the org's URL, the connection, and for
/// an even pace the microseconds from one request to the next.
pub async fn run(arguments: &[String]) -> anyhow::Result<()> {
    let (url, base_url, connection, pace) = match arguments {
        [url, base_url, connection] => (url, base_url, connection, Pace::None),
        [url, base_url, connection, period] => (url, base_url, connection, Pace::even(period)?),
        _ => bail!("takes three or four arguments"),
    };
    let broker = Connection::connect(url, ConnectionProperties::default()).await?;
    let replies = broker.create_channel().await?;
    replies.confirm_select(ConfirmSelectOptions::default()).await?;
    let mut token = HeaderValue::try_from(format!("SSWS {TOKEN}"))?;
    token.set_sensitive(true);
    let headers = HeaderMap::from_iter([(AUTHORIZATION, token)]);
    let http = reqwest::Client::builder().default_headers(headers).build()?;
    let (base_url, slots) = (base_url.clone(), Semaphore::new(AT_ONCE.into()));
    let this = Arc::new(Rival { http, base_url, slots, pace, replies });
    let interactive = consume(&broker, &queue_of(connection, Lane::Interactive)?).await?;
    let bulk = consume(&broker, &queue_of(connection, Lane::Bulk)?).await?;
    let mut both = select(interactive, bulk);
    while let Some(delivery) = both.next().await {
        let (this, delivery) = (Arc::clone(&this), delivery?);
        tokio::spawn(async move {
            if let Err(error) = this.take(&delivery).await {
                eprintln!("rival: {error:#}");
            }
        });
    }
    bail!("the broker ended the consumers")
}

async fn consume(broker: &Connection, queue: &str) -> anyhow::Result<Consumer> {
    let channel = broker.create_channel().await?;
    channel.basic_qos(AT_ONCE, BasicQosOptions::default()).await?;
    let (tag, options) = (ShortString::default(), BasicConsumeOptions::default());
    Ok(channel.basic_consume(queue.into(), tag, options, FieldTable::default()).await?)
}

impl Rival {
    async fn take(&self, delivery: &Delivery) -> anyhow::Result<()> {
        let invocation: Invocation<'_> = serde_json::from_slice(&delivery.data)?;
        let user = self.get(invocation.arguments.user_id).await?;
        answer(&self.replies, delivery, &user).await
    }

    /// Gets a user, however often it takes.
    async fn get(&self, user: &str) -> anyhow::Result<Bytes> {
        let _slot = self.slots.acquire().await?;
        let url = format!("{}/api/v1/users/{user}", self.base_url);
        loop {
            self.pace.wait().await;
            let answer = self.http.get(&url).send().await?;
            if answer.status() != StatusCode::TOO_MANY_REQUESTS {
                return Ok(answer.error_for_status()?.bytes().await?);
            }
            sleep(until_reset(answer.headers()) + MORE).await;
        }
    }
}

impl Pace {
    fn even(period: &str) -> anyhow::Result<Self> {
        let period = Duration::from_micros(period.parse().context("the period is not a number")?);
        let quota = Quota::with_period(period).context("the period is nothing")?;
        Ok(Self::Even(Mutex::new(RateLimiter::direct(quota))))
    }

    async fn wait(&self) {
        let Self::Even(limiter) = self else { return };
        let limiter = limiter.lock().await;
        while let Err(not_until) = limiter.check() {
            sleep(not_until.wait_time_from(limiter.clock().now())).await;
        }
    }
}

/// How long a refused request sleeps, by the org's clock.
fn until_reset(headers: &HeaderMap) -> Duration {
    let left = RateHeaders::read(headers).and_then(|rate| Some(rate.reset - rate.date?.as_second()));
    Duration::from_secs(left.and_then(|left| u64::try_from(left).ok()).unwrap_or(0))
}
