//! The protocol's side: which tools there are, and what becomes of a call.
//!
//! A failure is a tool's error, not the protocol's: the model reads it, and it says how to correct the call.

use std::time::Duration;

use jiff::Timestamp;
use rmcp::ErrorData;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, Implementation, ListToolsResult,
    PaginatedRequestParams, ProgressNotificationParam, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::catalog;
use crate::catalog::mcp::{OPTIONS, RESULT_BYTES_USUAL};
use crate::domain::answer::ErrorCode;
use crate::domain::envelope::nearest;
use crate::domain::ids::{ConnectionName, Lane, excerpt};
use crate::domain::json::to_vec;
use crate::domain::mail::{CANCEL, HeaderValue, PROGRESS, Properties, WANTS_PROGRESS};
use crate::domain::topology::{DIRECT, work_key};
use crate::edge::rabbit::{Asked, Asker, Heard};
use crate::tools::catalogue::{self, Entry};

/// How long an answer is waited for after the call's own time is up: work that has begun is finished.
const BEGUN_MAX: Duration = Duration::from_secs(10 * 60);

/// What a model is told of all tools.
const INSTRUCTIONS: &str = "\
Each tool is one operation on an Okta org. Ask for `options.fields` and `options.count_only` where you need little: \
results are cut at 64 KiB, and `complete: false` says that a list goes on at `next`. `options.dry_run` shows what a \
write would do. `effect` says whether something changed; after `unknown` look before you repeat. An error's `path` \
names the argument to correct, and `retry_at` when to try again.";

/// The tools of one connection.
pub(super) struct Server {
    connection: ConnectionName,
    enabled: Vec<&'static Entry>,
    tools: Vec<Tool>,
    user: String,
    timeout: Duration,
    asker: Asker,
}

/// A progress message.
#[derive(Deserialize)]
struct Waiting {
    waiting_for: String,
    bucket: Option<String>,
    waited_ms: u64,
}

impl Server {
    pub fn new(
        connection: ConnectionName,
        enabled: Vec<&'static Entry>,
        user: String,
        timeout: Duration,
        asker: Asker,
    ) -> Self {
        let tool = |entry: &&Entry| {
            serde_json::from_value(catalog::mcp::tool(entry)).expect("the catalogue writes tools")
        };
        let tools = enabled.iter().map(tool).collect();
        Self { connection, enabled, tools, user, timeout, asker }
    }

    /// The body of the invocation, or what is wrong with the call.
    fn body(&self, request: CallToolRequestParams, deadline: Timestamp) -> Result<Vec<u8>, Value> {
        let name = &*request.name;
        if !self.enabled.iter().any(|entry| entry.manifest.name == name) {
            return Err(self.not_enabled(name));
        }
        let mut arguments = request.arguments.unwrap_or_default();
        let mut options = match arguments.remove(OPTIONS) {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(options)) => options,
            Some(_) => {
                let message = "`options` must be an object, or absent";
                return Err(failed(ErrorCode::InvalidArguments, message, Some("arguments.options")));
            }
        };
        // A model that knows no better says `null` for what it leaves out.
        options.retain(|_, value| !value.is_null());
        if let Some(name) = ["deadline", "stream"].into_iter().find(|name| options.contains_key(*name)) {
            let message = format!("`options.{name}` is not for tools");
            return Err(failed(ErrorCode::InvalidArguments, &message, Some(&format!("options.{name}"))));
        }
        options.entry("max_bytes").or_insert_with(|| RESULT_BYTES_USUAL.into());
        options.insert("deadline".to_owned(), json!(deadline));
        Ok(to_vec(&json!({ "subtool": name, "arguments": arguments, "options": options })))
    }

    fn not_enabled(&self, name: &str) -> Value {
        let connection = &self.connection;
        if catalogue::find(name).is_some() {
            let message =
                format!("connection `{connection}` does not enable `{name}` for you; nothing was sent");
            return failed(ErrorCode::NotPermitted, &message, None);
        }
        let names = self.enabled.iter().map(|entry| entry.manifest.name);
        let hint = nearest(name, names).map(|near| format!(", did you mean `{near}`?")).unwrap_or_default();
        failed(ErrorCode::UnknownSubtool, &format!("there is no tool `{}`{hint}", excerpt(name)), None)
    }

    fn message(&self, id: &str, properties: Properties, body: Vec<u8>) -> Asked {
        let properties = Properties {
            message_id: Some(id.to_owned()),
            correlation_id: Some(id.to_owned()),
            user_id: Some(self.user.clone()),
            timestamp: u64::try_from(Timestamp::now().as_second()).ok(),
            ..properties
        };
        Asked { key: work_key(&self.connection, Lane::Interactive), properties, body }
    }

    /// Sends a call and waits for its answer.
    async fn call(&self, body: Vec<u8>, context: &RequestContext<RoleServer>) -> Result<Value, ErrorData> {
        let id = Uuid::new_v4().to_string();
        let token = context.meta.get_progress_token();
        let mut properties = Properties { reply_to: Some(DIRECT.to_owned()), ..Properties::default() };
        if token.is_some() {
            properties.headers.insert(WANTS_PROGRESS.to_owned(), HeaderValue::Bool(true));
        }
        let mut heard = self.asker.ask(self.message(&id, properties, body)).await;
        let patience = Instant::now() + self.timeout + BEGUN_MAX;
        loop {
            let next = tokio::select! {
                next = timeout_at(patience, heard.recv()) => next,
                () = context.ct.cancelled() => {
                    self.asker.forget(&id).await;
                    let kind = Some(CANCEL.to_owned());
                    let cancel = Properties { kind, ..Properties::default() };
                    self.asker.tell(self.message(&id, cancel, Vec::new())).await;
                    return Err(ErrorData::internal_error("the call was cancelled", None));
                }
            };
            match next {
                Ok(Some(Heard::Message { kind, body })) if kind.as_deref() == Some(PROGRESS) => {
                    if let (Some(token), Ok(waiting)) = (&token, serde_json::from_slice::<Waiting>(&body)) {
                        let told = waiting.told(ProgressNotificationParam::new(token.clone(), 0.0));
                        let _ = context.peer.notify_progress(told).await;
                    }
                }
                Ok(Some(Heard::Message { body, .. })) => {
                    return serde_json::from_slice(&body)
                        .map_err(|_| ErrorData::internal_error("the worker's answer is not JSON", None));
                }
                Ok(Some(Heard::Refused(why))) => {
                    let message = format!("the broker does not take the call: {why}; nothing was sent");
                    return Ok(failed(ErrorCode::NotPermitted, &message, None));
                }
                Ok(None) | Err(_) => {
                    self.asker.forget(&id).await;
                    let message = "no worker has answered in time; whether anything was done nobody can tell from \
                                   here: look before you repeat it";
                    let mut failure = failed(ErrorCode::OutcomeUnknown, message, None);
                    failure["effect"] = json!("unknown");
                    return Ok(failure);
                }
            }
        }
    }
}

impl Waiting {
    fn told(self, mut progress: ProgressNotificationParam) -> ProgressNotificationParam {
        progress.progress = Duration::from_millis(self.waited_ms).as_secs_f64();
        let message = match (&*self.waiting_for, self.bucket) {
            ("rate_limit", Some(bucket)) => format!("waiting for room in Okta's rate limit of `{bucket}`"),
            ("order", _) => "waiting for earlier changes of the same subject".to_owned(),
            _ => "waiting to try again after a failure".to_owned(),
        };
        progress.with_message(message)
    }
}

/// A failure in the shape of a tool's output.
fn failed(code: ErrorCode, message: &str, path: Option<&str>) -> Value {
    let error = json!({
        "code": code, "message": message, "retryable": false, "retry_at": null, "path": path, "okta": null,
    });
    json!({ "status": "failed", "effect": "none", "error": error })
}

/// What a model sees of a result message.
fn shown(message: Value) -> CallToolResult {
    const SEEN: [&str; 5] = ["status", "effect", "result", "result_omitted", "error"];
    let Value::Object(message) = message else { return CallToolResult::error(Vec::new()) };
    let seen: Map<String, Value> = message.into_iter().filter(|(name, _)| SEEN.contains(&&**name)).collect();
    let is_failure = seen.get("error").is_some_and(|error| !error.is_null());
    let seen = Value::Object(seen);
    let mut result = CallToolResult::success(vec![ContentBlock::text(seen.to_string())]);
    result.is_error = Some(is_failure);
    result.structured_content = Some(seen);
    result
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("okta-worker", env!("CARGO_PKG_VERSION")))
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(self.tools.clone()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools.iter().find(|tool| tool.name == name).cloned()
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let deadline = Timestamp::now() + self.timeout;
        let answer = match self.body(request, deadline) {
            Ok(body) => self.call(body, &context).await?,
            Err(failure) => failure,
        };
        Ok(shown(answer).into())
    }
}
