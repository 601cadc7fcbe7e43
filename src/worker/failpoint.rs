//! Failpoints: points in the processing of a message at which a test kills the worker, panics or cuts connections.
//!
//! Only with the feature `chaos`, which no release is built with: without it the binary contains no failpoint.
//! If the environment names a failpoint and an address, as in `OKTA_WORKER_CHAOS=Answered@127.0.0.1:4711`, a message
//! that reaches it sends its id to that address and waits for an order. The test at that address kills or cuts.

/// A failpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// A delivery is taken.
    Delivered,
    /// The message is checked, and is about to begin.
    Judged,
    /// A request is admitted, and is not sent.
    Admitted,
    /// Okta's answer has arrived, and is not processed.
    Answered,
    /// The conclusion of the invocation is known.
    Concluded,
    /// A message of the worker is about to be published.
    Publishing,
    /// The broker has confirmed the published message.
    Confirmed,
    /// The message is about to be parked; its answer is published.
    Parking,
    /// A copy is about to be published.
    Copying,
    /// The copy is confirmed, and the message is not acknowledged.
    Copied,
    /// Only the acknowledgement is missing.
    Done,
    /// The acknowledgement is sent.
    Acknowledged,
}

/// Does nothing: this binary has no failpoints.
#[cfg(not(feature = "chaos"))]
#[inline(always)]
pub async fn reached(_point: Point, _id: Option<&str>) {}

/// Asks the test what to do at this failpoint.
///
/// # Panics
/// If the test orders a panic.
#[cfg(feature = "chaos")]
pub async fn reached(point: Point, id: Option<&str>) {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
    use tokio::net::TcpStream;

    let Ok(order) = std::env::var("OKTA_WORKER_CHAOS") else { return };
    let Some((name, address)) = order.split_once('@') else { return };
    if format!("{point:?}") != name {
        return;
    }
    let asked = async {
        let mut stream = BufReader::new(TcpStream::connect(address).await?);
        stream.write_all(format!("{}\n", id.unwrap_or_default()).as_bytes()).await?;
        let mut reply = String::new();
        stream.read_line(&mut reply).await?;
        std::io::Result::Ok(reply)
    };
    if asked.await.is_ok_and(|reply| reply.trim() == "panic") {
        panic!("a test has ordered a panic");
    }
}
