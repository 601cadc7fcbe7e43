//! The answer to a dry run: the plan as JSON, its secrets masked.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::domain::http::Request;
use crate::domain::json;
use crate::domain::result::{Effect, Failure, Outcome};
use crate::domain::secret::Secrets;
use crate::policy::refusal;
use crate::policy::sensitive::unrepeatable;
use crate::tools::plan::{Losses, Plan, Predicted};

use super::Execution;

/// The result of a dry run.
#[derive(Serialize)]
struct PlanResult {
    requests: Vec<PlannedRequest>,
    predicted: Prediction,
    calls: BTreeMap<&'static str, u32>,
    loses: Losses,
    not_checked: Vec<&'static str>,
}

/// A request as it would be sent.
#[derive(Serialize)]
struct PlannedRequest {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    body: Option<Box<RawValue>>,
}

/// The predicted outcome.
#[derive(Serialize)]
struct Prediction {
    effect: Effect,
    error: Option<Failure>,
}

impl Execution<'_> {
    /// Returns the answer to a dry run.
    pub(super) fn planned(&self, plan: Plan) -> Outcome {
        let Plan { requests, calls, predicted, loses, not_checked } = plan;
        let secrets = &self.invocation.secrets;
        let failed = |failure: Failure| {
            let values = unrepeatable(self.invocation.envelope.arguments.get().as_bytes(), &failure);
            (Effect::None, Some(failure.without_values(&values).masked(secrets)))
        };
        let (effect, error) = match predicted {
            Predicted::Well(effect) => (effect, None),
            Predicted::Refused(error) => failed(refusal::name(self.invocation.subtool, *error)),
            Predicted::Failed(failure) => failed(*failure),
        };
        Outcome::Planned(json::to_raw(&PlanResult {
            requests: requests.into_iter().map(|request| PlannedRequest::masked(request, secrets)).collect(),
            predicted: Prediction { effect, error },
            calls: calls.into_iter().map(|(bucket, calls)| (bucket.as_str(), calls)).collect(),
            loses,
            not_checked,
        }))
    }
}

impl PlannedRequest {
    fn masked(request: Request, secrets: &Secrets) -> Self {
        let query = request.query.into_iter().map(|(name, value)| (name, secrets.mask(&value)));
        Self {
            method: request.method.to_string(),
            path: secrets.mask(&request.path),
            query: query.collect(),
            body: request
                .body
                .as_deref()
                .map(|body| secrets.mask_json(serde_json::from_slice(body).expect("our own body is JSON"))),
        }
    }
}
