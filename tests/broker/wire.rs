//! AMQP by hand, for what no client library sends: properties that are not UTF-8.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::child::WAIT_MAX;

/// The byte that ends every frame.
const FRAME_END: u8 = 0xCE;

/// The kinds of frames.
pub const METHOD: u8 = 1;
/// The properties of a message.
pub const HEADER: u8 = 2;
/// A part of its body.
pub const BODY: u8 = 3;

/// The flag of the property `correlation_id`.
const CORRELATION_ID: u16 = 1 << 10;

/// A connection with one channel.
pub struct Wire(TcpStream);

/// A text of at most 255 bytes.
pub fn short(bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("a short string is short");
    [&[length], bytes].concat()
}

/// A text of any length.
pub fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a string is below 4 GiB");
    [&length.to_be_bytes()[..], bytes].concat()
}

/// The payload of a method.
pub fn method(class: u16, id: u16, arguments: &[&[u8]]) -> Vec<u8> {
    let mut bytes = [class.to_be_bytes(), id.to_be_bytes()].concat();
    arguments.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// One frame.
pub fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    [&[kind], &channel.to_be_bytes()[..], &long(payload), &[FRAME_END]].concat()
}

impl Wire {
    /// Connects as a user whose name is its password.
    pub fn connect(port: u16, user: &str, vhost: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker listens");
        stream.set_read_timeout(Some(WAIT_MAX)).expect("a timeout can be set");
        let mut wire = Self(stream);
        wire.write(b"AMQP\x00\x00\x09\x01");
        wire.expect(10, 10); // start
        let plain = format!("\0{user}\0{user}");
        let start_ok = [long(b""), short(b"PLAIN"), long(plain.as_bytes()), short(b"en_US")].concat();
        wire.frame(METHOD, 0, &method(10, 11, &[&start_ok]));
        let tune = wire.expect(10, 30);
        // Whatever the broker proposes, without a heartbeat.
        let tune_ok = [&tune[4..10], &[0, 0]].concat();
        wire.frame(METHOD, 0, &method(10, 31, &[&tune_ok]));
        wire.frame(METHOD, 0, &method(10, 40, &[&short(vhost.as_bytes()), &short(b""), &[0]]));
        wire.expect(10, 41);
        wire.frame(METHOD, 1, &method(20, 10, &[&short(b"")]));
        wire.expect(20, 11);
        wire
    }

    /// Publishes a body with a correlation id of any bytes, and waits until the broker has taken it.
    pub fn publish(&mut self, exchange: &str, key: &str, correlation: &[u8], body: &[u8]) {
        self.frame(METHOD, 1, &method(85, 10, &[&[0]])); // confirm.select
        self.expect(85, 11);
        let publish = [&[0, 0], &short(exchange.as_bytes())[..], &short(key.as_bytes()), &[0]].concat();
        self.frame(METHOD, 1, &method(60, 40, &[&publish]));
        let size = u64::try_from(body.len()).expect("a size fits").to_be_bytes();
        let flags = CORRELATION_ID.to_be_bytes();
        let header = [&[0, 60, 0, 0], &size[..], &flags, &short(correlation)].concat();
        self.frame(HEADER, 1, &header);
        self.frame(BODY, 1, body);
        self.expect(60, 80); // ack
    }

    /// Takes the next message out of a queue: its correlation id, if there is a message.
    pub fn has(&mut self, queue: &str, bytes: &[u8]) -> bool {
        let get = [&[0, 0], &short(queue.as_bytes())[..], &[1]].concat();
        self.frame(METHOD, 1, &method(60, 70, &[&get]));
        let (_, answer) = self.read();
        if answer[..4] == [0, 60, 0, 72] {
            return false;
        }
        let (_, header) = self.read();
        let (_, _body) = self.read();
        header.windows(bytes.len()).any(|window| window == bytes)
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the broker reads");
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        self.write(&frame(kind, channel, payload));
    }

    fn read(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 7];
        self.0.read_exact(&mut head).expect("the broker answers");
        let length = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut payload = vec![0; usize::try_from(length).expect("a frame fits") + 1];
        self.0.read_exact(&mut payload).expect("the broker answers");
        assert_eq!(payload.pop(), Some(FRAME_END));
        (head[0], payload)
    }

    /// The payload of the next frame, which must be this method.
    fn expect(&mut self, class: u16, id: u16) -> Vec<u8> {
        let (kind, payload) = self.read();
        let wanted = [class.to_be_bytes(), id.to_be_bytes()].concat();
        assert!(kind == METHOD && payload[..4] == wanted, "{:?}", String::from_utf8_lossy(&payload));
        payload
    }
}
