//! `okta-worker dead discard`: deletes parked messages.

use serde_json::json;

use super::choice::{Choice, Filters};
use super::form::Form;
use super::session::{DeadSession, WalkEnd, name_missing, print, print_json};
use crate::cli::exit::{DONE, FAILED, NotBegun};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Ids of invocations, as `list` shows them.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Discards all parked messages.
    #[arg(long)]
    all: bool,
    /// Really discards the messages; without it, the command only lists them, and the exit code is 1.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    filters: Filters,
}

impl Arguments {
    pub fn choice(&self) -> Result<Choice, NotBegun> {
        Choice::deliberate(&self.ids, &self.filters, self.all)
    }
}

pub(super) async fn run(
    session: &mut DeadSession,
    arguments: &Arguments,
    mut choice: Choice,
) -> Result<u8, WalkEnd> {
    let Arguments { yes, form, .. } = arguments;
    let (mut gone, mut failed) = (0_u32, 0_u32);
    while let Some(entry) = session.next(&mut choice).await? {
        let (id, name) = (entry.parked.id.clone(), entry.name());
        let action = match yes {
            false => {
                session.leave_alone(entry).await;
                "would_discard"
            }
            true if entry.slip.take_off().await => "discarded",
            true => "failed",
        };
        if action == "failed" {
            failed += 1
        } else {
            gone += 1
        }
        if form.json {
            print_json(&json!({ "id": id, "action": action }))?;
        } else {
            print(&format!("{name}  {}", action.replace('_', " ")))?;
        }
    }
    let is_missing = name_missing(&choice);
    match yes {
        true => complain!("okta-worker: {gone} discarded, {failed} failed"),
        false => complain!("okta-worker: {gone} would be discarded, nothing was: it takes `--yes`"),
    }
    let is_undone = !yes && gone > 0;
    Ok(if failed > 0 || is_missing || is_undone { FAILED } else { DONE })
}
