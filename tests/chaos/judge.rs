//! Where workers say that a message has come to a point, and are told what to do.

use std::sync::Arc;

use okta_worker::worker::failpoint::Point;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

/// The variable that names the point and whom to ask there.
pub const CHAOS: &str = "OKTA_WORKER_CHAOS";

/// Decides what happens at a point.
pub struct Judge {
    /// Messages that have come and were not looked at yet.
    standing: Mutex<mpsc::UnboundedReceiver<Standing>>,
    address: String,
    _listening: JoinSet<()>,
}

/// A message that stands at the point.
pub struct Standing {
    /// Its id.
    pub id: String,
    stream: BufReader<TcpStream>,
}

impl Standing {
    /// It may go on.
    pub async fn go(self) {
        self.say("go\n").await;
    }

    /// Its task panics there.
    pub async fn panic(self) {
        self.say("panic\n").await;
    }

    async fn say(mut self, word: &str) {
        // A worker that has been killed meanwhile hears nothing.
        let _ = self.stream.write_all(word.as_bytes()).await;
    }
}

impl Judge {
    /// One that nobody has come to yet.
    pub async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it has an address").to_string();
        let (came, standing) = mpsc::unbounded_channel();
        let mut listening = JoinSet::new();
        listening.spawn(listen(listener, came));
        Self { standing: Mutex::new(standing), address, _listening: listening }
    }

    /// What a worker's environment says, to have its messages come here at a point.
    pub fn order(&self, point: Point) -> String {
        format!("{point:?}@{}", self.address)
    }

    /// Waits for the next message that has come. Cancel-safe: no message passes because somebody stopped waiting.
    pub async fn next(&self) -> Standing {
        self.standing.lock().await.recv().await.expect("it listens")
    }

    /// Lets so many pass, and has the next one stand.
    pub async fn stop(&self, pass: usize) -> Standing {
        for _ in 0..pass {
            self.next().await.go().await;
        }
        self.next().await
    }

    /// From now on all may pass.
    pub async fn let_pass(self: Arc<Self>) {
        loop {
            self.next().await.go().await;
        }
    }
}

/// Hands over each message that comes, once it has said its id.
async fn listen(listener: TcpListener, came: mpsc::UnboundedSender<Standing>) {
    let mut reading = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.expect("it listens");
        let came = came.clone();
        reading.spawn(async move {
            let (mut stream, mut id) = (BufReader::new(stream), String::new());
            if stream.read_line(&mut id).await.is_ok_and(|read| read > 0) {
                let _ = came.send(Standing { id: id.trim_end().to_owned(), stream });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_message_stands_although_nobody_waited_when_it_said_its_id() {
        let judge = Judge::new().await;
        let mut worker = TcpStream::connect(&judge.address).await.unwrap();
        let waiting = timeout(Duration::from_millis(50), judge.next()).await;
        assert!(waiting.is_err(), "it has not said its id");
        worker.write_all(b"late\n").await.unwrap();
        let standing = timeout(Duration::from_secs(10), judge.next()).await.expect("it stands");
        assert_eq!(standing.id, "late");
    }
}
