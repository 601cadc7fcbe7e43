//! A server that answers as it is told, byte by byte.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A part of an answer.
#[derive(Clone)]
pub enum Part {
    /// These bytes.
    Send(Vec<u8>),
    /// These bytes again and again, with a pause between, until nobody reads them any more.
    Endless(Vec<u8>, Duration),
    /// Nothing, until the other side gives up.
    Hang,
    /// The end of the connection with the request left unread: the other side sees a reset. Only by itself.
    Reset,
}

/// What the server answers with.
pub type Answer = Vec<Part>;

/// The most bytes of an endless answer: a bound of the test's own.
const ENDLESS_MAX: usize = 64 << 20;

/// The longest that a server waits for anybody.
const PATIENCE: Duration = Duration::from_secs(30);

type Script = dyn Fn(&str, usize) -> Answer + Send + Sync;

/// A server on a port of its own.
pub struct Server {
    port: u16,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<String>>,
    sent: AtomicUsize,
    is_over: AtomicBool,
}

impl Server {
    /// A server that answers each request, as `GET /path`, the first of them being number 0.
    pub fn start(script: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, script): (_, Arc<Script>) = (Arc::<Seen>::default(), Arc::new(script));
        let serving = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.is_over.load(Ordering::Relaxed) {
                    return;
                }
                let (seen, script) = (Arc::clone(&serving), Arc::clone(&script));
                std::thread::spawn(move || drop(serve(stream, &seen, &*script)));
            }
        });
        Self { port, seen }
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The requests that came, as `GET /path`.
    pub fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// How many bytes were taken from it.
    pub fn sent(&self) -> usize {
        self.seen.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.seen.is_over.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn serve(mut stream: TcpStream, seen: &Seen, script: &Script) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let head = peeked_head(&mut stream)?;
    let asked = head.split(' ').take(2).collect::<Vec<_>>().join(" ");
    let number = {
        let mut requests = seen.requests.lock().unwrap();
        requests.push(asked.clone());
        requests.len() - 1
    };
    let answer = script(&asked, number);
    if !matches!(answer[..], [Part::Reset]) {
        stream.read_exact(&mut vec![0; head.len()])?;
    }
    for part in answer {
        match part {
            Part::Send(bytes) => {
                // What echoes the request says so by this word.
                let bytes = replaced(&bytes, b"$ECHO", head.as_bytes());
                stream.write_all(&bytes)?;
                seen.sent.fetch_add(bytes.len(), Ordering::Relaxed);
            }
            Part::Endless(bytes, pause) => {
                for _ in 0..ENDLESS_MAX / bytes.len() {
                    stream.write_all(&bytes)?;
                    seen.sent.fetch_add(bytes.len(), Ordering::Relaxed);
                    if !pause.is_zero() {
                        std::thread::sleep(pause);
                    }
                }
            }
            Part::Hang => drop(stream.read(&mut [0; 1])),
            // The request is unread, and a socket that is closed with bytes unread is reset.
            Part::Reset => return Ok(()),
        }
    }
    drain(&mut stream)
}

/// Closes so that everything sent arrives.
fn drain(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.shutdown(Shutdown::Write)?;
    while stream.read(&mut [0; 1024])? > 0 {}
    Ok(())
}

/// A request's head, which is left unread.
fn peeked_head(stream: &mut TcpStream) -> std::io::Result<String> {
    const END: &[u8] = b"\r\n\r\n";
    let mut head = vec![0; 16 * 1024];
    loop {
        let there = stream.peek(&mut head)?;
        if let Some(at) = head[..there].windows(END.len()).position(|window| window == END) {
            return Ok(String::from_utf8_lossy(&head[..at + END.len()]).into_owned());
        }
        if there == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn replaced(bytes: &[u8], word: &[u8], by: &[u8]) -> Vec<u8> {
    match bytes.windows(word.len()).position(|window| window == word) {
        Some(at) => [&bytes[..at], by, &bytes[at + word.len()..]].concat(),
        None => bytes.to_vec(),
    }
}
