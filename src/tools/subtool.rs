//! A subtool: its arguments, with the conversation that they lead to.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use super::manifest::{Idempotency, Manifest, ToolKind};
use super::output::Output;
use super::plan::Forecast;
use super::replay::Replay;
use super::run::{Run, Stop};

/// A subtool, parsed from its arguments.
pub trait Subtool: DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The type of its result.
    type Output: Output;

    /// The properties that do not depend on the arguments.
    const MANIFEST: Manifest;

    /// Optional arguments that may be an empty text; for all others an empty text means absent.
    const MEANINGFUL_WHEN_EMPTY: &'static [&'static str] = &[];

    /// Returns the idempotency class of its write, with these arguments.
    fn repeat(&self) -> Idempotency;

    /// Returns the kind of power that these arguments need in addition to the manifest's.
    fn also_needs(&self) -> Option<ToolKind> {
        None
    }

    /// Returns true if the result holds a one-time secret, so that only the caller may receive it.
    fn mints_secret(&self) -> bool {
        false
    }

    /// Runs the whole subtool, from the first question to Okta to the result.
    fn run(&self, okta: &mut Replay<'_>) -> Run<Self::Output>;

    /// Predicts how its first write would end, as far as reads tell. Called after the reads of
    /// [`Self::run`] have shown no reason not to write. A stop is the failure that Okta would give.
    fn foresee(&self, _okta: &mut Replay<'_>) -> Result<Forecast, Stop> {
        Ok(Forecast::applied())
    }
}
