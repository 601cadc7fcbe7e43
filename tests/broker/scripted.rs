//! A broker that says what a test tells it to, for what a real one does only by chance.
//!
//! It opens, declares and consumes as it is asked, never delivers, and leaves every publish to the test:
//! to confirm, to return, or to cut the connection over.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::wire::{BODY, HEADER, METHOD, frame, long, method, short};

/// A table without entries.
const NO_TABLE: [u8; 4] = [0; 4];

/// What it proposes: any number of channels, frames of 128 KiB, no heartbeat.
const TUNE: [&[u8]; 3] = [&2047_u16.to_be_bytes(), &131_072_u32.to_be_bytes(), &0_u16.to_be_bytes()];

/// How many names it has made up.
static NAMES: AtomicU32 = AtomicU32::new(0);

/// The broker.
pub struct Scripted {
    port: u16,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    lines: Mutex<Vec<Arc<Line>>>,
    published: Mutex<Vec<Published>>,
}

/// One connection.
struct Line {
    stream: Mutex<TcpStream>,
    /// The channels that are open, and how often each number was opened.
    channels: Mutex<HashMap<u16, Channel>>,
}

#[derive(Default)]
struct Channel {
    times_opened: u32,
    is_open: bool,
    confirms: u64,
    coming: Option<Coming>,
}

/// A message whose frames are still coming.
struct Coming {
    exchange: Vec<u8>,
    queue: String,
    mandatory: bool,
    header: Vec<u8>,
    body: Vec<u8>,
}

/// A message that was published with a confirm to come.
#[derive(Clone)]
pub struct Published {
    /// The routing key, which is the queue's name.
    pub queue: String,
    /// Whether it must not be dropped silently.
    pub mandatory: bool,
    /// Its properties and size as they came.
    pub header: Vec<u8>,
    /// Its body.
    pub body: Vec<u8>,
    /// On which channel, numbered anew for each connection.
    pub channel: u16,
    line: Arc<Line>,
    times_opened: u32,
    tag: u64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A short text at the beginning of the bytes, and the rest.
fn read_short(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = bytes.split_first().expect("a short text has a length");
    rest.split_at(usize::from(*length))
}

impl Scripted {
    /// A broker on a port of its own.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a port");
        let port = listener.local_addr().expect("it has an address").port();
        let seen = Arc::<Seen>::default();
        let serving = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&serving);
                std::thread::spawn(move || drop(serve(stream, &seen)));
            }
        });
        Self { port, seen }
    }

    /// The way in.
    pub fn url(&self) -> String {
        format!("amqp://worker:worker@127.0.0.1:{}/any", self.port)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections were opened so far.
    pub fn connections(&self) -> usize {
        locked(&self.seen.lines).len()
    }

    /// Returns the messages published so far with a confirm to come, in order, without those of the worker's own queues.
    pub fn published(&self) -> Vec<Published> {
        let published = locked(&self.seen.published);
        published.iter().filter(|message| !message.queue.starts_with("okta.")).cloned().collect()
    }
}

impl Published {
    /// Confirms it, unless its channel is closed.
    pub fn confirm(&self) {
        self.say(60, 80, &[&self.tag.to_be_bytes(), &[0]]);
    }

    /// Returns it as unroutable, unless its channel is closed. It is still to be confirmed.
    pub fn give_back(&self) {
        let no_route = 312_u16.to_be_bytes();
        self.say(60, 50, &[&no_route, &short(b"NO_ROUTE"), &short(b""), &short(self.queue.as_bytes())]);
        let mut stream = locked(&self.line.stream);
        if self.is_open() {
            let frames =
                [frame(HEADER, self.channel, &self.header), frame(BODY, self.channel, &self.body)].concat();
            let _ = stream.write_all(&frames);
        }
    }

    /// Breaks its connection.
    pub fn cut(&self) {
        let _ = locked(&self.line.stream).shutdown(Shutdown::Both);
    }

    fn is_open(&self) -> bool {
        let channels = locked(&self.line.channels);
        let channel = &channels[&self.channel];
        channel.is_open && channel.times_opened == self.times_opened
    }

    fn say(&self, class: u16, id: u16, arguments: &[&[u8]]) {
        let mut stream = locked(&self.line.stream);
        if self.is_open() {
            let _ = stream.write_all(&frame(METHOD, self.channel, &method(class, id, arguments)));
        }
    }
}

/// The next frame: its kind, channel and payload.
fn read(stream: &mut TcpStream) -> std::io::Result<(u8, u16, Vec<u8>)> {
    let mut head = [0; 7];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
    let mut payload = vec![0; usize::try_from(length).expect("a frame fits") + 1];
    stream.read_exact(&mut payload)?;
    payload.pop(); // the end of the frame
    Ok((head[0], u16::from_be_bytes([head[1], head[2]]), payload))
}

fn serve(mut stream: TcpStream, seen: &Seen) -> std::io::Result<()> {
    stream.read_exact(&mut [0; 8])?;
    let start = [&[0, 9], &NO_TABLE[..], &long(b"PLAIN"), &long(b"en_US")].concat();
    stream.write_all(&frame(METHOD, 0, &method(10, 10, &[&start])))?;
    read(&mut stream)?;
    stream.write_all(&frame(METHOD, 0, &method(10, 30, &TUNE)))?;
    read(&mut stream)?;
    read(&mut stream)?;
    stream.write_all(&frame(METHOD, 0, &method(10, 41, &[&short(b"")])))?;
    let line = Arc::new(Line { stream: Mutex::new(stream.try_clone()?), channels: Mutex::default() });
    locked(&seen.lines).push(Arc::clone(&line));
    loop {
        let (kind, number, payload) = read(&mut stream)?;
        match kind {
            METHOD => {
                let answer = line.obey(number, &payload);
                if let Some(answer) = answer {
                    locked(&line.stream).write_all(&frame(METHOD, number, &answer))?;
                }
            }
            HEADER | BODY => {
                if let Some(published) = line.receive(kind, number, &payload) {
                    locked(&seen.published).push(published);
                }
            }
            _ => {} // a heartbeat
        }
    }
}

impl Line {
    /// Does what a method says, and what is to be answered.
    fn obey(&self, number: u16, payload: &[u8]) -> Option<Vec<u8>> {
        let (class, id) =
            (u16::from_be_bytes([payload[0], payload[1]]), u16::from_be_bytes([payload[2], payload[3]]));
        let arguments = &payload[4..];
        let mut channels = locked(&self.channels);
        let channel = channels.entry(number).or_default();
        // Two consumers of a channel must not have the same name.
        let name = |bytes| match read_short(bytes) {
            ([], _) => short(format!("made-{}", NAMES.fetch_add(1, Ordering::Relaxed)).as_bytes()),
            (name, _) => short(name),
        };
        match (class, id) {
            (20, 10) => {
                *channel =
                    Channel { times_opened: channel.times_opened + 1, is_open: true, ..Channel::default() };
                Some(method(20, 11, &[&long(b"")]))
            }
            (20, 40) => {
                channel.is_open = false;
                Some(method(20, 41, &[]))
            }
            // A queue is empty and has one consumer.
            (50, 10) => Some(method(50, 11, &[&name(&arguments[2..]), &[0; 4], &[0, 0, 0, 1]])),
            (60, 20) => {
                let (_, tag) = read_short(&arguments[2..]);
                Some(method(60, 21, &[&name(tag)]))
            }
            (60, 30) => Some(method(60, 31, &[&name(arguments)])),
            (60, 40) => {
                let (exchange, rest) = read_short(&arguments[2..]);
                let (queue, flags) = read_short(rest);
                let queue = String::from_utf8_lossy(queue).into_owned();
                let (exchange, mandatory) = (exchange.to_vec(), flags[0] & 1 == 1);
                channel.coming = Some(Coming { exchange, queue, mandatory, header: vec![], body: vec![] });
                None
            }
            (85, 10) => {
                channel.confirms = 1;
                Some(method(85, 11, &[]))
            }
            // Everything else that asks is answered by the method after it, without arguments.
            (10, 50) | (40, 10) | (50, 20) | (60, 10) => Some(method(class, id + 1, &[])),
            _ => None,
        }
    }

    /// Takes a frame of a message; the message, when it is whole and is to be confirmed.
    fn receive(self: &Arc<Self>, kind: u8, number: u16, payload: &[u8]) -> Option<Published> {
        let mut channels = locked(&self.channels);
        let channel = channels.get_mut(&number)?;
        let mut coming = channel.coming.take()?;
        if kind == HEADER {
            coming.header = payload.to_vec();
        } else {
            coming.body.extend_from_slice(payload);
        }
        let size = u64::from_be_bytes(coming.header[4..12].try_into().expect("eight bytes"));
        if u64::try_from(coming.body.len()).expect("it fits") < size {
            channel.coming = Some(coming);
            return None;
        }
        if channel.confirms == 0 || !coming.exchange.is_empty() {
            return None; // signals, which may be lost
        }
        let tag = channel.confirms;
        channel.confirms += 1;
        let Coming { queue, mandatory, header, body, .. } = coming;
        let times_opened = channel.times_opened;
        let line = Arc::clone(self);
        Some(Published { queue, mandatory, header, body, channel: number, line, times_opened, tag })
    }
}
