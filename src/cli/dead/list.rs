//! `okta-worker dead list`: one line for each parked message.

use super::choice::{Choice, Filters};
use super::entry::head;
use super::form::Form;
use super::session::{DeadSession, WalkEnd, print, print_json};
use crate::cli::exit::DONE;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Shows the bodies unchanged, with their secrets. Protect the screen and the output.
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    filters: Filters,
}

pub(super) async fn run(session: &mut DeadSession, arguments: &Arguments) -> Result<u8, WalkEnd> {
    let Arguments { filters, form, raw } = arguments;
    let mut choice = Choice::new(&[], filters);
    let mut count = 0_u32;
    while let Some(entry) = session.next(&mut choice).await? {
        if form.json {
            let mut line = entry.json();
            if *raw {
                entry.add_raw_body(&mut line);
            }
            print_json(&line)?;
        } else {
            if count == 0 {
                print(&head())?;
            }
            print(&entry.row())?;
            if *raw {
                print(&entry.raw_body_shown())?;
            }
        }
        count += 1;
        session.leave_alone(entry).await;
    }
    if count == 0 && !form.json {
        print("no parked message matches")?;
    }
    Ok(DONE)
}
