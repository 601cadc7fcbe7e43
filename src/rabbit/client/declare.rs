//! Declaration, or a passive check, of the topology in `domain::topology`.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, ErrorKind};

use crate::domain::topology::{ExchangeDefinition, ExchangeKind, QueueArgument, QueueDefinition, Topology};

/// The timeout for declaring and consuming; a cluster without a majority does not answer at all.
pub(in crate::rabbit) const DECLARE_TIMEOUT: Duration = Duration::from_secs(30);

/// The reason that the topology could not be declared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Undeclared {
    /// It exists with other arguments or is missing. Waiting will not change that.
    #[error("{0}")]
    Wrong(String),
    /// The broker did not answer as expected.
    #[error("failed to declare `{name}`: {why}")]
    Failed {
        /// The exchange or queue.
        name: String,
        /// The text from the broker or the connection.
        why: String,
    },
}

/// Declares exchanges, then queues, then their bindings; with `passive` only checks that exchanges and queues
/// exist.
pub(in crate::rabbit) async fn declare(
    channel: &Channel,
    topology: &Topology,
    passive: bool,
) -> Result<(), Undeclared> {
    for exchange in &topology.exchanges {
        declare_exchange(channel, exchange, passive)
            .await
            .map_err(|error| undeclared("exchange", &exchange.name, &error, passive))?;
    }
    for queue in &topology.queues {
        declare_queue(channel, queue, passive)
            .await
            .map_err(|error| undeclared("queue", &queue.name, &error, passive))?;
    }
    if passive {
        return Ok(());
    }
    for queue in &topology.queues {
        for (exchange, key) in &queue.bindings {
            let options = QueueBindOptions::default();
            channel
                .queue_bind(short(&queue.name), short(exchange), short(key), options, FieldTable::default())
                .await
                .map_err(|error| undeclared("queue", &queue.name, &error, passive))?;
        }
    }
    Ok(())
}

async fn declare_exchange(
    channel: &Channel,
    exchange: &ExchangeDefinition,
    passive: bool,
) -> lapin::Result<()> {
    let kind = match exchange.kind {
        ExchangeKind::Topic => lapin::ExchangeKind::Topic,
        ExchangeKind::Fanout => lapin::ExchangeKind::Fanout,
    };
    let mut arguments = FieldTable::default();
    if let Some(alternate) = exchange.alternate {
        arguments.insert("alternate-exchange".into(), AMQPValue::LongString(alternate.into()));
    }
    let options = ExchangeDeclareOptions { passive, durable: true, ..ExchangeDeclareOptions::default() };
    channel.exchange_declare(short(&exchange.name), kind, options, arguments).await
}

async fn declare_queue(channel: &Channel, queue: &QueueDefinition, passive: bool) -> lapin::Result<()> {
    let mut arguments = FieldTable::default();
    for (name, value) in &queue.arguments {
        let value = match value {
            QueueArgument::Text(text) => AMQPValue::LongString(LongString::from(text.as_bytes())),
            QueueArgument::Number(number) => AMQPValue::LongLongInt(*number),
        };
        arguments.insert(short(name), value);
    }
    let options = QueueDeclareOptions { passive, durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(short(&queue.name), options, arguments).await.map(drop)
}

/// Returns the number of waiting messages and of consumers of a queue. If the queue does not exist, the broker
/// closes the channel.
pub(in crate::rabbit) async fn look(channel: &Channel, name: &str) -> lapin::Result<lapin::Queue> {
    let options = QueueDeclareOptions { passive: true, durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(short(name), options, FieldTable::default()).await
}

/// Returns true if a queue does not exist at all. A queue whose node is down is not found either, but comes back.
pub(in crate::rabbit) fn is_gone(error: &lapin::Error) -> bool {
    match error.kind() {
        ErrorKind::ProtocolError(refusal) => {
            refusal.get_id() == NOT_FOUND && refusal.get_message().as_str().contains("no queue")
        }
        _ => false,
    }
}

/// Converts the name of one of our queues or exchanges, which is short: connection names have at most 32 bytes.
fn short(text: &str) -> ShortString {
    ShortString::try_new(text).expect("names of queues and exchanges are far below 255 bytes")
}

fn undeclared(what: &str, name: &str, error: &lapin::Error, passive: bool) -> Undeclared {
    match error.kind() {
        ErrorKind::ProtocolError(refusal) => {
            refused(what, name, (refusal.get_id(), refusal.get_message().as_str()), passive)
        }
        _ => Undeclared::Failed { name: name.to_owned(), why: error.to_string() },
    }
}

/// Converts the broker's refusal to a text that an operator can act on. A condition that may pass in a moment is not
/// `Wrong`: RabbitMQ 3.10 disconnects (`INTERNAL_ERROR`) some of the clients that declare the same queue at once, and
/// does not find a queue without its leader.
fn refused(what: &str, name: &str, (code, said): (u16, &str), passive: bool) -> Undeclared {
    match code {
        PRECONDITION_FAILED if said.contains("inequivalent arg") => {
            Undeclared::Wrong(inequivalent(what, name, said))
        }
        NOT_FOUND if passive && (said.contains("no queue") || said.contains("no exchange")) => {
            Undeclared::Wrong(format!(
                "{what} `{name}` is missing: import deploy/rabbitmq/definitions.json, or set `broker.declare = true`"
            ))
        }
        ACCESS_REFUSED => {
            Undeclared::Wrong(format!("the broker user may not declare {what} `{name}`: {said}"))
        }
        _ => Undeclared::Failed { name: name.to_owned(), why: said.to_owned() },
    }
}

/// The reply codes with which the broker closes a channel.
pub(in crate::rabbit) const ACCESS_REFUSED: u16 = 403;
pub(in crate::rabbit) const NOT_FOUND: u16 = 404;
pub(in crate::rabbit) const PRECONDITION_FAILED: u16 = 406;

/// Returns true if the broker reports that there is no such queue.
pub(in crate::rabbit) fn is_missing(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(refusal) if refusal.get_id() == NOT_FOUND)
}

/// Explains `PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'q' in vhost '/': received the
/// value '10' of type 'long' but current is none`, the text of RabbitMQ 3.10 and 4.0.
fn inequivalent(what: &str, name: &str, said: &str) -> String {
    let argument = said.split_once("inequivalent arg '").and_then(|(_, rest)| rest.split('\'').next());
    let difference = said.rsplit_once("': ").map_or(said, |(_, difference)| difference);
    let argument = argument.map_or_else(|| "arguments".to_owned(), |argument| format!("`{argument}`"));
    format!(
        "{what} `{name}` exists with another {argument} ({difference}): \
         arguments cannot be changed, so empty and delete it, or give the worker a virtual host of its own"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_with_other_arguments_is_named_with_the_argument() {
        let said = "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue \
                    'okta.invocations.prod.bulk' in vhost 'okta': received the value '10' of type 'long' but current is none";
        assert_eq!(
            inequivalent("queue", "okta.invocations.prod.bulk", said),
            "queue `okta.invocations.prod.bulk` exists with another `x-delivery-limit` (received the value '10' \
             of type 'long' but current is none): arguments cannot be changed, so empty and delete it, or give \
             the worker a virtual host of its own"
        );
    }

    #[test]
    fn only_what_waiting_does_not_change_is_wrong() {
        let rows = [
            (406, "PRECONDITION_FAILED - inequivalent arg 'x-queue-type' for queue 'q': a", false, true),
            (406, "PRECONDITION_FAILED - invalid arg", false, false),
            (404, "NOT_FOUND - no queue 'q' in vhost 'okta'", true, true),
            (404, "NOT_FOUND - no exchange 'q' in vhost 'okta'", true, true),
            (404, "NOT_FOUND - no exchange 'q' in vhost 'okta'", false, false),
            (404, "NOT_FOUND - home node 'a@b' of durable queue 'q' is down or inaccessible", true, false),
            (403, "ACCESS_REFUSED - access to queue 'q' refused for user 'worker'", false, true),
            (405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'q'", false, false),
            (541, "INTERNAL_ERROR - Cannot declare a queue 'queue 'q' in vhost 'okta''", false, false),
        ];
        for (code, said, passive, is_wrong) in rows {
            let refused = refused("queue", "q", (code, said), passive);
            assert_eq!(matches!(refused, Undeclared::Wrong(_)), is_wrong, "{said}: {refused}");
        }
    }
}
