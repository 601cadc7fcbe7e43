//! The demo's producer: sends invocations and passes each answer to its caller.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::domain::ids::{ConnectionName, Lane};
use crate::domain::message::Properties;
use crate::domain::topology::work_key;
use crate::embedded::broker::Broker;

/// The queue for answers.
pub(super) const REPLIES: &str = "demo-answers";

type PendingResult = Arc<Mutex<HashMap<String, oneshot::Sender<Value>>>>;

/// An RPC client on the embedded broker.
pub(super) struct DemoClient {
    broker: Arc<Broker>,
    connection: ConnectionName,
    waiting: PendingResult,
    sorting: JoinHandle<()>,
}

impl DemoClient {
    /// Starts to pass on answers.
    pub fn open(broker: Arc<Broker>, connection: ConnectionName) -> Self {
        let waiting = PendingResult::default();
        let sorting = tokio::spawn(sort(Arc::clone(&broker), Arc::clone(&waiting)));
        Self { broker, connection, waiting, sorting }
    }

    /// Sends one invocation and waits for its result; a failure is returned as `code: message`.
    pub async fn ask(&self, lane: Lane, subtool: &str, arguments: Value) -> Result<Value, String> {
        let id = uuid::Uuid::new_v4().to_string();
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), answer);
        let properties =
            Properties { message_id: Some(id), reply_to: Some(REPLIES.to_owned()), ..Properties::default() };
        let body = json!({"subtool": subtool, "arguments": arguments}).to_string();
        self.broker.publish(&work_key(&self.connection, lane), properties, body);
        let mut answer = answered.await.map_err(|_| "the queue is gone".to_owned())?;
        match answer["status"].as_str() {
            Some("succeeded") => Ok(answer["result"].take()),
            _ => Err(format!("{}: {}", text(&answer["error"]["code"]), text(&answer["error"]["message"]))),
        }
    }
}

impl Drop for DemoClient {
    fn drop(&mut self) {
        self.sorting.abort();
    }
}

async fn sort(broker: Arc<Broker>, waiting: PendingResult) {
    loop {
        let body = broker.take(REPLIES).await.body;
        let Ok(answer) = serde_json::from_slice::<Value>(&body) else { continue };
        let asked = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(text(&answer["id"]));
        if let Some(asked) = asked {
            let _ = asked.send(answer); // whoever asked may have given up
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
