//! The worker as a process, between a real RabbitMQ and the simulated org over HTTP.
//!
//! Each test has a virtual host, an org and workers of its own, and waits for what it waits for with a
//! deadline, never for a time. A private node is started once for all of them, unless `tests/run` or
//! `AMQP_URL` names one.

mod caller;
mod child;
mod fellow;
#[path = "../support/limited.rs"]
mod limited;
mod node;
mod org;
#[path = "../support/proxy.rs"]
mod proxy;
mod scripted;
mod wire;
mod world;

mod aside;
mod callers;
mod cancelled;
mod cut;
mod credentials;
mod cuts;
mod dead;
mod given_up;
mod mcp;
mod nodes;
mod not_yet;
mod order;
mod outages;
mod policies;
mod presence;
mod refusals;
mod reload;
mod replies;
mod retries;
mod secrets;
mod service_app;
mod signals;
mod ack_timeout;
mod submit;
mod subtools;
mod tls;
mod topology;
mod traps;
mod unreadable;
mod upgrade;
mod wanted;
mod unroutable;
