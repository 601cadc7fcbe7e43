//! Places in the story of a message where a test may have the worker die, panic or lose its connections.
//!
//! Only with the feature `chaos`, which no release is built with: without it nothing of this is in the binary.
//! Where the environment names a point and an address, as in `OKTA_WORKER_CHAOS=Answered@127.0.0.1:4711`, a
//! message that comes there tells that address its id, and waits for what to do. What kills or cuts is there.

/// A place in the story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// A delivery was taken.
    Delivered,
    /// It was judged, and is about to begin.
    Judged,
    /// A request may go, and has not gone.
    Admitted,
    /// Okta's answer is here, and nobody has looked at it.
    Answered,
    /// It is known how the invocation ended.
    Concluded,
    /// A message of ours is about to be published.
    Publishing,
    /// The broker has confirmed it.
    Confirmed,
    /// The message is about to be parked; its answer is out.
    Parking,
    /// A copy is about to be published.
    Copying,
    /// The copy is confirmed, and the message is not acknowledged.
    Copied,
    /// Everything is done but the acknowledgement.
    Done,
    /// The acknowledgement was sent.
    Acknowledged,
}

/// A message has come to a point.
#[cfg(not(feature = "chaos"))]
#[inline(always)]
pub async fn reached(_point: Point, _id: Option<&str>) {}

/// A message has come to a point: asks a test what is to happen there.
///
/// # Panics
/// When the test says so.
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
        let mut told = String::new();
        stream.read_line(&mut told).await?;
        std::io::Result::Ok(told)
    };
    if asked.await.is_ok_and(|told| told.trim() == "panic") {
        panic!("a test has ordered a panic");
    }
}
