//! `okta-worker dead list`: one line for each parked message.

use super::choice::{Choice, Filters};
use super::desk::{Desk, Stop, print, print_json};
use super::entry::head;
use super::{DONE, Form};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    filters: Filters,
}

pub(super) async fn run(desk: &mut Desk, arguments: &Arguments) -> Result<u8, Stop> {
    let Arguments { filters, form } = arguments;
    let mut choice = Choice::new(&[], filters);
    let mut count = 0_u32;
    while let Some(entry) = desk.next(&mut choice).await? {
        if form.json {
            print_json(&entry.line())?;
        } else {
            if count == 0 {
                print(&head())?;
            }
            print(&entry.row())?;
        }
        count += 1;
        desk.leave_alone(entry).await;
    }
    if count == 0 && !form.json {
        print("no parked message matches")?;
    }
    Ok(DONE)
}
