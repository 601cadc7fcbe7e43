//! Where workers say that a message has come to a point, and are told what to do.

use std::sync::Arc;

use okta_worker::worker::killpoint::Point;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// The variable that names the point and whom to ask there.
pub const CHAOS: &str = "OKTA_WORKER_CHAOS";

/// Decides what happens at a point.
pub struct Judge {
    listener: TcpListener,
    address: String,
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
        Self { listener, address }
    }

    /// What a worker's environment says, to have its messages come here at a point.
    pub fn order(&self, point: Point) -> String {
        format!("{point:?}@{}", self.address)
    }

    /// The next message that has come.
    pub async fn next(&self) -> Standing {
        loop {
            let (stream, _) = self.listener.accept().await.expect("it listens");
            let (mut stream, mut id) = (BufReader::new(stream), String::new());
            if stream.read_line(&mut id).await.is_ok_and(|read| read > 0) {
                return Standing { id: id.trim_end().to_owned(), stream };
            }
        }
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
