//! A subtool of any type, as its driver sees it.

use super::dry_run;
use super::history::HistoryEntry;
use super::manifest::{Idempotency, ToolKind};
use super::next_move::Move;
use super::output::Output as _;
use super::pager::Pager;
use super::replay::Replay;
use super::run::{Done, Stop};
use super::setting::Setting;
use super::subtool::Subtool;

/// A subtool of any type.
pub trait Tool: Send + Sync {
    /// Returns the next move after this history, which begins at the start.
    fn next(&self, history: &[HistoryEntry], setting: Setting<'_>) -> Move;
    /// Returns the next move after this history, for a driver that keeps the list in progress: it need not repeat
    /// the history after [`Pager::turns_before`].
    fn resume(&self, _list: &mut Option<Box<Pager>>, history: &[HistoryEntry], setting: Setting<'_>) -> Move {
        self.next(history, setting)
    }
    /// See [`Subtool::repeat`].
    fn repeat(&self) -> Idempotency;
    /// See [`Subtool::also_needs`].
    fn also_needs(&self) -> Option<ToolKind>;
    /// See [`Subtool::mints_secret`].
    fn mints_secret(&self) -> bool;
}

impl<T: Subtool> Tool for T {
    fn next(&self, history: &[HistoryEntry], setting: Setting<'_>) -> Move {
        self.resume(&mut None, history, setting)
    }

    fn resume(
        &self,
        list: &mut Option<Box<Pager>>,
        history: &[HistoryEntry],
        mut setting: Setting<'_>,
    ) -> Move {
        if setting.is_dry_run && Subtool::repeat(self) != Idempotency::Read {
            return dry_run::next(self, history, setting);
        }
        setting.is_dry_run = false; // a read is simply done
        let mut okta = Replay::new(history, setting);
        okta.list = list.take();
        let step = self.run(&mut okta);
        *list = okta.list;
        match step {
            Ok(Done { effect, output }) => {
                let remaining = output.remaining();
                Move::Done(Done { effect, output: output.into_raw(setting.bounds.fields) }, remaining)
            }
            Err(Stop::Send(request)) => Move::Send(request),
            Err(Stop::Refused(error)) => Move::Refused(error),
            Err(Stop::Fail(failure)) => Move::Fail(failure),
        }
    }

    fn repeat(&self) -> Idempotency {
        Subtool::repeat(self)
    }

    fn also_needs(&self) -> Option<ToolKind> {
        Subtool::also_needs(self)
    }

    fn mints_secret(&self) -> bool {
        Subtool::mints_secret(self)
    }
}
