//! Dry runs: the requests that a write would send and Okta's likely answer, found by reads alone.
//!
//! The subtool itself runs up to its first write; then it predicts from reads how
//! that write would end. Invariant: only GETs are sent.

use crate::domain::result::{Effect, ErrorCode};

use super::history::HistoryEntry;
use super::next_move::Move;
use super::plan::{Forecast, Plan, Predicted};
use super::replay::Replay;
use super::run::{Done, Stop};
use super::setting::Setting;
use super::subtool::Subtool;

/// The unchecked condition of every write: the credential's role.
const ROLE: &str = "whether the credential's role covers what is changed";

/// Returns the next move of a subtool in a dry run.
pub(super) fn next<T: Subtool>(tool: &T, history: &[HistoryEntry], setting: Setting<'_>) -> Move {
    let mut okta = Replay::new(history, setting);
    let told = tool.run(&mut okta);
    let mut plan = Plan::default();
    okta.asked.drain(..).for_each(|bucket| plan.count(bucket));
    let forecast = match told {
        Ok(Done { effect, .. }) => Ok(Forecast { predicted: Predicted::Well(effect), ..Forecast::default() }),
        Err(Stop::Send(read)) if read.is_read() => return Move::Send(read),
        Err(Stop::Send(write)) => {
            plan.count(write.bucket());
            plan.requests.push(*write);
            tool.foresee(&mut okta)
        }
        Err(stop) => Err(stop),
    };
    let forecast = match forecast {
        Ok(forecast) => forecast,
        Err(Stop::Send(read)) => return Move::Send(read),
        Err(Stop::Refused(error)) => Forecast { predicted: Predicted::Refused(error), ..Forecast::default() },
        // An invalid argument is no prediction.
        Err(Stop::Fail(failure)) if failure.code == ErrorCode::InvalidArguments => {
            return Move::Fail(failure);
        }
        Err(Stop::Fail(failure)) => Forecast { predicted: Predicted::Failed(failure), ..Forecast::default() },
    };
    let Forecast { predicted, loses, mut not_checked, after } = forecast;
    if matches!(predicted, Predicted::Well(Effect::Applied | Effect::Unknown)) {
        not_checked.push(ROLE);
    }
    after.iter().for_each(|request| plan.count(request.bucket()));
    Move::Planned(Box::new(Plan { predicted, loses, not_checked, ..plan }))
}
