//! What lapin does that has to be worked around, shown by a broker that provokes it.
//!
//! `tests/unguarded` takes each guard out and sees that the test for it fails.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use okta_worker::domain::message::{Address, Properties, Publish, Published};
use tokio::time::{advance, pause, resume};

use super::caller::until;
use super::child::free_port;
use super::fellow::{Fellow, Note};
use super::proxy::{Door, Proxy};
use super::scripted::Scripted;

/// As many as there are channels for mandatory messages.
const CHANNELS: usize = 32;

/// Longer than a confirm or the handshake is waited for.
const TOO_LONG: Duration = Duration::from_secs(31);

fn post(queue: &str) -> Publish {
    let properties = Properties { message_id: Some(format!("{queue}.result")), ..Properties::default() };
    Publish { to: Address::Queue(queue.to_owned()), properties, body: Bytes::from_static(b"{}") }
}

/// A fellow that has found the scripted broker.
async fn at(broker: &Scripted) -> Fellow {
    let fellow = Fellow::start(&broker.url());
    until("it is connected", async || fellow.is_connected()).await;
    fellow
}

#[tokio::test]
async fn a_channel_has_one_mandatory_message_in_flight_and_each_learns_its_own_fate() {
    const MESSAGES: usize = CHANNELS + 8;
    const MISSING_EVERY: usize = 7;
    let broker = Scripted::start();
    let fellow = at(&broker).await;
    let posts: Vec<_> = (0..MESSAGES).map(|number| fellow.post(post(&number.to_string()))).collect();
    until("there is no free channel left", async || broker.published().len() >= CHANNELS).await;
    let channels: BTreeSet<_> = broker.published().iter().map(|message| message.channel).collect();
    assert_eq!(channels.len(), broker.published().len(), "two in flight on one channel");
    let is_missing = |queue: &str| queue.parse::<usize>().is_ok_and(|number| number % MISSING_EVERY == 0);
    let mut answered = 0;
    while answered < MESSAGES {
        until("the next ones come", async || broker.published().len() > answered).await;
        let published = broker.published();
        published[answered..]
            .iter()
            .filter(|message| is_missing(&message.queue))
            .for_each(|it| it.give_back());
        published[answered..].iter().for_each(|message| message.confirm());
        answered = published.len();
    }
    for (number, post) in posts.into_iter().enumerate() {
        let expected = if number % MISSING_EVERY == 0 { Published::Unroutable } else { Published::Confirmed };
        assert_eq!(post.await.unwrap(), Ok(expected), "{number}");
    }
    fellow.stop().await;
}

#[tokio::test]
async fn a_message_whose_confirm_is_lost_with_the_connection_goes_out_again_as_it_was() {
    let broker = Scripted::start();
    let fellow = at(&broker).await;
    let posting = fellow.post(post("answers"));
    until("it is published", async || broker.published().len() == 1).await;
    broker.published()[0].cut();
    until("it is published again", async || broker.published().len() == 2 || posting.is_finished()).await;
    assert!(!posting.is_finished(), "nobody has confirmed it");
    let [first, second] = &broker.published()[..] else { panic!("it was published more than twice") };
    assert_eq!(
        (&first.queue, &first.header, &first.body, first.mandatory),
        (&second.queue, &second.header, &second.body, second.mandatory)
    );
    second.confirm();
    assert_eq!(posting.await.unwrap(), Ok(Published::Confirmed));
    until("all is as before", async || fellow.is_connected()).await;
    fellow.stop().await;
}

#[tokio::test]
async fn what_a_late_confirm_brings_is_not_taken_for_another_message() {
    let broker = Scripted::start();
    let fellow = at(&broker).await;
    let posting = fellow.post(post("answers"));
    until("it is published", async || broker.published().len() == 1).await;
    pause();
    advance(TOO_LONG).await;
    resume();
    until("it is published again", async || broker.published().len() == 2).await;
    let [first, second] = &broker.published()[..] else { panic!("it was published more than twice") };
    // The queue was missing the first time and is there now; confirms may come in any order.
    first.give_back();
    second.confirm();
    assert_eq!(posting.await.unwrap(), Ok(Published::Confirmed));
    assert_eq!(broker.connections(), 2, "one slow confirm is no reason to begin anew");
    fellow.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_accepts_and_says_nothing_is_given_up_and_tried_again() {
    let broker = Scripted::start();
    let proxy = Proxy::start(free_port(), broker.port());
    proxy.door(Door::Silent);
    let fellow = Fellow::start(&broker.url().replace(&broker.port().to_string(), &proxy.port().to_string()));
    let silences = || {
        let is_silence =
            |note: &&Note| matches!(note, Note::Broker(false, why) if why.starts_with("no answer within"));
        fellow.notes().iter().filter(is_silence).count()
    };
    // The clock stands still, and leaps when there is nothing else to do: a handshake without an end would
    // leap over everything.
    until("the second try is given up too", async || silences() == 2).await;
    resume();
    proxy.pass();
    until("it is connected", async || fellow.is_connected()).await;
    fellow.stop().await;
}
