//! `okta-worker demo`.
use super::{DONE, Refusal};
pub(super) async fn run() -> Result<u8, Refusal> {
    Ok(DONE)
}
