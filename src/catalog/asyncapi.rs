//! AsyncAPI 3.0 with AMQP 0.9.1 bindings: the exchanges, queues and messages that producers and operators
//! use. The document takes the worker's side: it receives invocations and sends results.

use serde_json::{Map, Value, json};

use crate::domain::ids::Lane;
use crate::domain::message::{CANCEL, PROGRESS, RESENT, RESULT, WANTS_PROGRESS};
use crate::domain::result::Status;
use crate::domain::topology::{DEAD, INVOCATIONS, RESULTS, UNCLAIMED, UNDELIVERED, UNROUTED};
use crate::tools::catalogue::{CATALOGUE, names};

use super::json_schema;
use super::message::definitions;

/// The version of the bindings.
const BINDINGS: &str = "0.3.0";

/// The delivery mode of messages that survive a restart of the broker.
const PERSISTENT: u8 = 2;

/// The location of the reply address in a message. AsyncAPI has one word for headers and properties.
const REPLY_TO: &str = "$message.header#/reply_to";

/// Returns the document.
pub fn asyncapi() -> Value {
    json!({
        "asyncapi": "3.0.0",
        "id": "urn:okta-worker",
        "info": {
            "title": "okta-worker",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Runs typed invocations of Okta operations, the subtools, inside Okta's rate limits, and answers each.",
            "license": { "name": env!("CARGO_PKG_LICENSE") },
            "tags": [{ "name": "okta" }],
        },
        "defaultContentType": "application/json",
        "servers": { "broker": server() },
        "channels": channels(),
        "operations": operations(),
        "components": {
            "securitySchemes": { "user": {
                "type": "userPassword",
                "description": "A broker user. Who sets the property `user_id` to it is known as that caller.",
            } },
            "messages": messages(),
            "schemas": schemas(),
        },
    })
}

fn server() -> Value {
    json!({
        "host": "127.0.0.1:5672",
        "protocol": "amqp",
        "protocolVersion": "0.9.1",
        "description": "RabbitMQ, as the worker finds it without a `broker.url`. A virtual host of its own is best.",
        "security": [{ "$ref": "#/components/securitySchemes/user" }],
    })
}

fn schema_at(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

fn schemas() -> Map<String, Value> {
    let bodies: Vec<Value> =
        CATALOGUE.iter().map(|entry| json_schema::invocation(entry, schema_at)).collect();
    let mut schemas = definitions(schema_at);
    schemas
        .insert("invocation".into(), json!({ "description": "The body of an invocation.", "oneOf": bodies }));
    schemas.insert("progress".into(), json!({
        "type": "object",
        "description": "What an invocation waits for.",
        "properties": {
            "id": { "type": "string", "description": "The invocation's id." },
            "connection": { "type": "string" },
            "subtool": { "type": "string" },
            "waiting_for": {
                "type": "string", "enum": ["rate_limit", "retry", "order"],
                "description": "Room in the budget, the next attempt after a failure, or earlier writes of its subject.",
            },
            "bucket": { "type": ["string", "null"], "description": "The bucket there is no room in." },
            "waited_ms": { "type": "integer", "minimum": 0, "description": "How long it has waited so far." },
        },
        "required": ["id", "connection", "subtool", "waiting_for", "bucket", "waited_ms"],
    }));
    schemas
}

/// Returns the binding of an exchange whose routing key is the channel's address.
fn through(exchange: &str, kind: &str) -> Value {
    json!({ "amqp": {
        "is": "routingKey",
        "exchange": { "name": exchange, "type": kind, "durable": true, "autoDelete": false },
        "bindingVersion": BINDINGS,
    } })
}

/// Returns the binding of a durable queue.
fn queue(name: &str) -> Value {
    json!({ "amqp": {
        "is": "queue",
        "queue": { "name": name, "durable": true, "exclusive": false, "autoDelete": false },
        "bindingVersion": BINDINGS,
    } })
}

/// Returns references to the messages of a channel, by name.
fn carried(names: &[&str]) -> Map<String, Value> {
    let refer =
        |name: &&str| ((*name).to_owned(), json!({ "$ref": format!("#/components/messages/{name}") }));
    names.iter().map(refer).collect()
}

fn channels() -> Value {
    let connection = json!({ "description": "The connection: a saved credential for one Okta org, `[a-z][a-z0-9-]{0,31}`." });
    let statuses = [Status::Succeeded, Status::Failed, Status::Planned].map(Status::as_str);
    let subtools: Vec<&str> = names().chain(["-"]).collect();
    json!({
        "invocations": {
            "address": "{connection}.{lane}",
            "title": "Invocations",
            "description": format!("Publish here. The key `{{connection}}` alone means the lane `interactive`; what no queue is bound for goes to `{UNROUTED}`. Workers consume the queues `{INVOCATIONS}.{{connection}}.{{lane}}`."),
            "parameters": {
                "connection": connection,
                "lane": {
                    "description": "Whether somebody waits (`interactive`) or nobody does (`bulk`).",
                    "enum": Lane::ALL.map(Lane::as_str),
                    "default": Lane::Interactive.as_str(),
                },
            },
            "messages": carried(&["invocation", "cancel"]),
            "bindings": through(INVOCATIONS, "topic"),
        },
        "replies": {
            "address": null,
            "title": "Replies",
            "description": "The queue that the property `reply_to` of an invocation names, or `amq.rabbitmq.reply-to` (direct reply-to), reached through the default exchange.",
            "messages": carried(&["result", "progress"]),
            "bindings": through("", "default"),
        },
        "results": {
            "address": "{connection}.{subtool}.{status}",
            "title": "Results",
            "description": format!("Results of invocations without `reply_to`, and those whose reply queue is gone (header `okta-undeliverable`). Bind a queue; what none is bound for goes to `{UNCLAIMED}`."),
            "parameters": {
                "connection": { "description": "The connection; `-` when it is not ours." },
                "subtool": { "description": "The subtool; `-` when it is not ours.", "enum": subtools },
                "status": { "description": "How it ended.", "enum": statuses },
            },
            "messages": carried(&["result"]),
            "bindings": through(RESULTS, "topic"),
        },
        "unclaimed": {
            "address": UNCLAIMED,
            "title": "Unclaimed results",
            "description": format!("Results that no queue was bound for in `{RESULTS}`: kept for 7 days, at most 100,000, the oldest dropped."),
            "messages": carried(&["result"]),
            "bindings": queue(UNCLAIMED),
        },
        "unrouted": {
            "address": UNROUTED,
            "title": "Unrouted invocations",
            "description": format!("Invocations whose key no queue is bound for in `{INVOCATIONS}`; a worker answers them `unknown_connection` or `invalid_message`."),
            "messages": carried(&["invocation"]),
            "bindings": queue(UNROUTED),
        },
        "undelivered": {
            "address": UNDELIVERED,
            "title": "Undelivered invocations",
            "description": "What RabbitMQ gave up: expired, which a worker answers `deadline_exceeded`, or delivered too often, answered `internal` and parked.",
            "messages": carried(&["invocation"]),
            "bindings": queue(UNDELIVERED),
        },
        "dead": {
            "address": DEAD,
            "title": "Parked messages",
            "description": "What cannot be read and names nobody to tell, what brings workers down, and bugs. No worker consumes it; it is for operators, who alone may read it.",
            "messages": carried(&["parked"]),
            "bindings": queue(DEAD),
        },
    })
}

fn operations() -> Value {
    let of = |channel: &str, messages: &[&str]| -> Vec<Value> {
        let refer = |name: &&str| json!({ "$ref": format!("#/channels/{channel}/messages/{name}") });
        messages.iter().map(refer).collect()
    };
    let channel = |name: &str| json!({ "$ref": format!("#/channels/{name}") });
    let receive = |from: &str, title: &str, summary: &str, answers: &[&str]| {
        json!({
            "action": "receive",
            "title": title,
            "summary": summary,
            "channel": channel(from),
            "messages": of(from, &["invocation"]),
            "reply": {
                "address": {
                    "location": REPLY_TO,
                    "description": "The AMQP property `reply_to`: direct reply-to or a queue. Without it the result goes to the channel `results`.",
                },
                "channel": channel("replies"),
                "messages": of("replies", answers),
            },
            "bindings": { "amqp": { "ack": true, "bindingVersion": BINDINGS } },
        })
    };
    let send = |to: &str, title: &str, summary: &str, message: &str| {
        json!({
            "action": "send",
            "title": title,
            "summary": summary,
            "channel": channel(to),
            "messages": of(to, &[message]),
            "bindings": { "amqp": { "deliveryMode": PERSISTENT, "mandatory": true, "bindingVersion": BINDINGS } },
        })
    };
    json!({
        "run": receive("invocations", "Run an invocation", "Runs the subtool on the connection and answers; acknowledged after the broker has confirmed the result.", &["result", "progress"]),
        "cancel": {
            "action": "receive",
            "title": "Cancel an invocation",
            "summary": "Drops an invocation that has not begun, whichever worker holds it; what has begun is finished.",
            "channel": channel("invocations"),
            "messages": of("invocations", &["cancel"]),
            "bindings": { "amqp": { "ack": true, "bindingVersion": BINDINGS } },
        },
        "refuse_unrouted": receive("unrouted", "Refuse an unrouted invocation", "Answers what was published with a key that is no connection's.", &["result"]),
        "refuse_undelivered": receive("undelivered", "Refuse an undelivered invocation", "Answers what RabbitMQ gave up.", &["result"]),
        "publish_result": send("results", "Publish a result", "Sends the result of an invocation without `reply_to`, one-time secrets never among it.", "result"),
        "park": send("dead", "Park a message", "Keeps a message for people to look at, its body whole.", "parked"),
    })
}

fn correlation() -> Value {
    json!({
        "location": "$message.header#/correlation_id",
        "description": "The AMQP property `correlation_id`, echoed; of an invocation without one, its id.",
    })
}

fn messages() -> Value {
    let traceparent = json!({ "type": "string", "description": "W3C trace context." });
    let examples: Vec<Value> = ["get_user", "list_users", "activate_user"].map(example).into();
    json!({
        "invocation": {
            "name": "okta.invocation",
            "title": "Invocation",
            "summary": "Run this subtool with these arguments.",
            "description": "AMQP properties: `message_id` is the invocation's id; `correlation_id` is echoed; `reply_to` says whom to answer; `user_id` who asks; `timestamp` when it was first sent; `expiration` is a second deadline. The body has at most 1 MiB and nests at most 64 deep.",
            "contentType": "application/json",
            "headers": {
                "type": "object",
                "properties": {
                    "traceparent": traceparent,
                    (RESENT): { "type": "boolean", "description": "The producer is unsure and sends the same message with the same `timestamp` again." },
                    (WANTS_PROGRESS): { "type": "boolean", "description": "Messages of type `okta.progress` are wanted on `reply_to` while it waits." },
                },
            },
            "payload": { "$ref": schema_at("invocation") },
            "correlationId": correlation(),
            "bindings": { "amqp": { "contentEncoding": "utf-8", "bindingVersion": BINDINGS } },
            "examples": examples,
        },
        "cancel": {
            "name": CANCEL,
            "title": "Cancel",
            "summary": "Nobody wants this invocation any more: it is dropped unless it has begun, and not answered.",
            "description": "AMQP properties: `type` says what it is, `message_id` is the invocation's id, `user_id` its caller's. It goes the way the invocation went and has no body.",
            "contentType": "application/octet-stream",
            "payload": { "description": "Empty; what stands there is not read." },
            "bindings": { "amqp": { "messageType": CANCEL, "bindingVersion": BINDINGS } },
        },
        "result": {
            "name": RESULT,
            "title": "Result",
            "summary": "How an invocation ended.",
            "description": "`message_id` is `<id>.result`, of a page `<id>.<index>`, and the same again when it is sent again: a result may come twice.",
            "contentType": "application/json",
            "headers": {
                "type": "object",
                "properties": {
                    "traceparent": traceparent,
                    "okta-undeliverable": { "type": "boolean", "description": "The queue that `reply_to` named is gone; one-time secrets are masked." },
                },
            },
            "payload": { "$ref": schema_at("result") },
            "correlationId": correlation(),
            "bindings": { "amqp": { "messageType": RESULT, "bindingVersion": BINDINGS } },
            "examples": [{ "name": "not_found", "summary": "A failure.", "payload": {
                "id": "7d0c", "connection": "prod", "subtool": "get_user", "status": "failed", "effect": "none",
                "error": {
                    "code": "not_found", "message": "failed to find user `jane@example.com`",
                    "retryable": false, "retry_at": null, "path": "arguments.user_id", "okta": null,
                },
                "attempts": 1, "okta_calls": 1, "waited_ms": 0, "duration_ms": 212, "rate_limit": null,
                "okta_request_ids": [],
            } }],
        },
        "progress": {
            "name": PROGRESS,
            "title": "Progress",
            "summary": "An invocation with the header `okta-progress` still waits; at most one per second.",
            "contentType": "application/json",
            "payload": { "$ref": schema_at("progress") },
            "correlationId": correlation(),
            "bindings": { "amqp": { "messageType": PROGRESS, "bindingVersion": BINDINGS } },
        },
        "parked": {
            "name": "okta.parked",
            "title": "Parked message",
            "summary": "A message kept for people to look at.",
            "description": "The body is the producer's own bytes, which may be no JSON and may hold secrets. The properties are the producer's own too, except `user_id`.",
            "contentType": "application/octet-stream",
            "headers": {
                "type": "object",
                "properties": {
                    "okta-reason": { "type": "string", "description": "Why: `unreadable`, `crash_loop`, `internal` or `dropped`." },
                    "okta-parked-at": { "type": "integer", "description": "When it was parked, in milliseconds since 1970." },
                    "okta-routing-key": { "type": "string", "description": "The key it was published with." },
                    "okta-caller": { "type": "string", "description": "Who asked." },
                    "okta-first-sent": { "type": "integer", "description": "When it was first sent, in milliseconds since 1970." },
                    "okta-clock": { "type": "string", "description": "By which clock that is: `okta`, or the number of the worker's." },
                    "okta-attempts": { "type": "integer", "description": "Attempts spent." },
                    "okta-redeliveries": { "type": "integer", "description": "How often it was delivered again." },
                    "traceparent": traceparent,
                },
                "required": ["okta-reason"],
            },
            "payload": { "description": "Any bytes." },
            "bindings": { "amqp": { "bindingVersion": BINDINGS } },
        },
    })
}

/// Returns the simplest invocation of a subtool.
fn example(subtool: &str) -> Value {
    let entry = crate::tools::catalogue::find(subtool).expect("it is in the catalogue");
    let arguments: Value = serde_json::from_str(entry.manifest.examples[0]).expect("examples are JSON");
    json!({ "name": subtool, "payload": { "subtool": subtool, "arguments": arguments } })
}
