//! What is consumed when, and what becomes of that which was delivered when consuming ends.

use serde_json::json;

use super::caller::{Caller, Message, until};
use super::fellow::Fellow;
use super::node::{Place, User, ours};

const BULK: &str = "okta.invocations.prod.bulk";
const INTERACTIVE: &str = "okta.invocations.prod.interactive";
const PRESENCE: &str = "okta.presence.prod";

fn message() -> Message {
    Message::new("prod.bulk", "list_groups", &json!({}))
}

/// A fellow that consumes, and a producer.
async fn consuming(place: &Place) -> (Fellow, Caller) {
    let fellow = Fellow::start(&place.url(User::Worker));
    until("it consumes", async || fellow.generations() == 1).await;
    (fellow, Caller::new(&place.url(User::Operator)).await)
}

#[tokio::test]
async fn a_queue_whose_messages_are_not_wanted_is_not_consumed_until_they_are() {
    let place = Place::take().await;
    let (fellow, caller) = consuming(&place).await;
    for turn in 0..3 {
        fellow.want(false);
        until("nobody consumes it", async || caller.consumers(BULK).await == Some(0)).await;
        caller.send(&message()).await;
        until("the message waits", async || caller.count(BULK).await == Some(1)).await;
        assert_eq!(fellow.taken(), turn);
        assert_eq!(caller.consumers(INTERACTIVE).await, Some(1), "the other lane goes on");
        assert_eq!(caller.consumers(PRESENCE).await, Some(1), "and it is counted");
        fellow.want(true);
        until("the message is taken", async || fellow.taken() == turn + 1).await;
    }
    assert_eq!(fellow.generations(), 1, "without building everything anew");
    fellow.stop().await;
}

#[tokio::test]
async fn a_worker_whose_connections_are_built_anew_still_does_not_consume_what_is_not_wanted() {
    let Some(node) = ours() else { return };
    let place = Place::take().await;
    let (fellow, caller) = consuming(&place).await;
    fellow.want(false);
    until("nobody consumes it", async || caller.consumers(BULK).await == Some(0)).await;
    let url = place.url(User::Operator);
    let vhost = url.rsplit('/').next().expect("a URL names a virtual host");
    node.run("ctl", &["-q", "close_all_connections", "-p", vhost, "test"]);
    until("everything is built anew", async || fellow.generations() == 2).await;
    let caller = Caller::new(&url).await; // its connection was closed as well
    assert_eq!(caller.consumers(BULK).await, Some(0));
    fellow.want(true);
    until("it is consumed", async || caller.consumers(BULK).await == Some(1)).await;
}

/// Fills the memory of a fellow, so that three more messages lie unread in it.
async fn with_three_unread(place: &Place) -> (Fellow, Caller) {
    let (fellow, caller) = consuming(place).await;
    fellow.finish(false);
    let large = Message { body: vec![b' '; 1024 * 1024], ..message() };
    caller.send(&large).await;
    until("the large one is taken", async || fellow.taken() == 1).await;
    for _ in 0..3 {
        caller.send(&message()).await;
    }
    until("the others are delivered", async || caller.count(BULK).await == Some(0)).await;
    (fellow, caller)
}

#[tokio::test]
async fn told_to_stop_a_worker_hands_over_what_was_delivered_and_lies_unread() {
    let place = Place::take().await;
    let (fellow, caller) = with_three_unread(&place).await;
    fellow.tell_to_stop();
    until("it consumes no more", async || caller.consumers(INTERACTIVE).await == Some(0)).await;
    assert_eq!((fellow.taken(), caller.consumers(PRESENCE).await), (1, Some(1)));
    fellow.finish(true);
    until("all are taken", async || fellow.taken() == 4).await;
    fellow.stop().await;
    until("nothing has come back", async || caller.count(BULK).await == Some(0)).await;
    assert_eq!(caller.consumers(PRESENCE).await, Some(0));
}

#[tokio::test]
async fn what_lies_unread_is_handed_over_when_it_is_wanted_no_more() {
    let place = Place::take().await;
    let (fellow, caller) = with_three_unread(&place).await;
    fellow.want(false);
    fellow.finish(true);
    until("all are taken", async || fellow.taken() == 4).await;
    until("nobody consumes it", async || caller.consumers(BULK).await == Some(0)).await;
    fellow.stop().await;
    assert_eq!(caller.count(BULK).await, Some(0));
}

#[tokio::test]
async fn a_connection_that_is_removed_finishes_what_it_has_and_is_counted_until_then() {
    let place = Place::take().await;
    let (fellow, caller) = with_three_unread(&place).await;
    let whole = fellow.gossips().borrow().clone();
    fellow.gossips().send_modify(|gossips| drop(gossips.remove("prod")));
    until("it consumes no more", async || caller.consumers(INTERACTIVE).await == Some(0)).await;
    assert_eq!(caller.consumers(PRESENCE).await, Some(1));
    fellow.gossips().send_replace(whole);
    fellow.finish(true);
    until("all are taken", async || fellow.taken() == 4).await;
    until("it has come again", async || caller.consumers(INTERACTIVE).await == Some(1)).await;
    fellow.gossips().send_modify(|gossips| drop(gossips.remove("prod")));
    until("it has left", async || caller.consumers(PRESENCE).await == Some(0)).await;
    assert_eq!(fellow.generations(), 1);
    assert_eq!(caller.consumers("okta.presence.other").await, Some(1));
    fellow.stop().await;
}
