//! A repair of AMQP short strings that are not UTF-8, which the client library cannot parse.
//!
//! lapin closes its connection when it meets one (a message id, a reply queue, the name of a header), so a reader of
//! parked messages would never get past such a message. This stream replaces each incoming byte that is not UTF-8 with
//! [`SUBSTITUTE`], without changing the length. Everything else, including bodies and values of
//! headers, passes unchanged.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_util::Stream;
use futures_util::io::{AsyncRead, AsyncWrite};
use lapin::tcp::{AsyncTcpStream, OwnedTLSConfig};
use lapin::uri::AMQPUri;
use lapin::{Connection, ConnectionProperties};

use super::stream::stream;

/// The replacement for each byte of a property that is not UTF-8: ASCII's SUBSTITUTE.
pub const SUBSTITUTE: char = '\u{1a}';

/// The replacement of an invalid byte.
const SUBSTITUTE_BYTE: u8 = SUBSTITUTE as u8;

/// The bytes of a frame around its payload: kind, channel and size before it, an end mark after it.
const FRAME_HEAD: usize = 7;
const FRAME_END: usize = 1;

/// The kinds of frames.
const METHOD: u8 = 1;
const HEADER: u8 = 2;

/// Class and method id of `basic.deliver`, which announces a message.
const DELIVER: [u8; 4] = [0, 60, 0, 60];

/// The bytes read at once.
const CHUNK: usize = 16 * 1024;

/// The greatest nesting depth of tables; the repair skips deeper ones.
const DEPTH_MAX: usize = 16;

/// Opens a connection on which lapin can read every delivery.
pub(in crate::rabbit) async fn connect(
    uri: AMQPUri,
    address: SocketAddr,
    options: ConnectionProperties,
    tls: OwnedTLSConfig,
) -> lapin::Result<Connection> {
    let connect = async move |uri: AMQPUri, _: Runtime<RepairingRuntime>| {
        let stream = stream(&uri, address, tls.as_ref()).await?;
        Ok(AsyncTcpStream::Plain(RepairedStream::new(Box::new(stream))))
    };
    let kit = RuntimeParts::new(Tokio::current(), RepairingReactor(Tokio::current()));
    Connection::connector(uri, Runtime::new(kit), connect, options).await
}

/// lapin's runtime, with our streams.
type RepairingRuntime = RuntimeParts<Tokio, RepairingReactor>;

/// tokio's reactor with repaired streams. [`connect`] makes lapin's streams, not this reactor.
#[derive(Debug, Clone)]
struct RepairingReactor(Tokio);

impl Reactor for RepairingReactor {
    type TcpStream = RepairedStream;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + Send + 'static>(
        &self,
        _: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<RepairedStream, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        _: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

/// A byte stream to the broker.
trait BrokerStream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> BrokerStream for T {}

/// A stream that repairs incoming frames.
struct RepairedStream {
    inner: Box<dyn BrokerStream>,
    frames: Frames,
}

impl RepairedStream {
    fn new(inner: Box<dyn BrokerStream>) -> Self {
        Self { inner, frames: Frames::default() }
    }
}

impl fmt::Debug for RepairedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a repaired stream")
    }
}

impl AsyncRead for RepairedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        to: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let returned = self.frames.read_into(to);
            if returned > 0 || to.is_empty() {
                return Poll::Ready(Ok(returned));
            }
            let mut chunk = [0; CHUNK];
            let received = ready!(Pin::new(&mut self.inner).poll_read(context, &mut chunk))?;
            if received == 0 {
                return Poll::Ready(Ok(0));
            }
            self.frames.take(&chunk[..received]);
        }
    }
}

impl AsyncWrite for RepairedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(context)
    }
}

/// A buffer of incoming bytes that repairs each complete frame. The negotiated frame size bounds each frame.
#[derive(Default)]
struct Frames {
    bytes: Vec<u8>,
    /// The number of bytes already returned.
    returned: usize,
    /// The number of bytes in complete frames.
    whole: usize,
}

impl Frames {
    fn take(&mut self, received: &[u8]) {
        self.bytes.drain(..self.returned);
        self.whole -= self.returned;
        self.returned = 0;
        self.bytes.extend_from_slice(received);
        while let Some(length) = self.frame() {
            let frame = &mut self.bytes[self.whole..self.whole + length];
            let (head, rest) = frame.split_at_mut(FRAME_HEAD);
            let end = rest.len() - FRAME_END;
            repair(head[0], &mut rest[..end]);
            self.whole += length;
        }
    }

    /// Returns the length of the next frame, if it is complete.
    fn frame(&self) -> Option<usize> {
        let ahead = &self.bytes[self.whole..];
        let size: [u8; 4] = ahead.get(3..FRAME_HEAD)?.try_into().ok()?;
        let length = FRAME_HEAD + usize::try_from(u32::from_be_bytes(size)).ok()? + FRAME_END;
        (ahead.len() >= length).then_some(length)
    }

    fn read_into(&mut self, to: &mut [u8]) -> usize {
        let count = to.len().min(self.whole - self.returned);
        to[..count].copy_from_slice(&self.bytes[self.returned..self.returned + count]);
        self.returned += count;
        count
    }
}

/// Repairs one frame, up to the first unexpected byte.
fn repair(kind: u8, payload: &mut [u8]) {
    let mut rest = PayloadRest(payload);
    let _ = match kind {
        METHOD if rest.0.starts_with(&DELIVER) => rest.deliver(),
        HEADER => rest.properties(),
        _ => None,
    };
}

/// The unread rest of a payload.
struct PayloadRest<'a>(&'a mut [u8]);

impl<'a> PayloadRest<'a> {
    fn take_bytes(&mut self, count: usize) -> Option<&'a mut [u8]> {
        let (take_bytes, rest) = std::mem::take(&mut self.0).split_at_mut_checked(count)?;
        self.0 = rest;
        Some(take_bytes)
    }

    fn length(&mut self) -> Option<usize> {
        let bytes: [u8; 4] = (*self.take_bytes(4)?).try_into().ok()?;
        usize::try_from(u32::from_be_bytes(bytes)).ok()
    }

    /// Repairs a short string, of at most 255 bytes.
    fn short(&mut self) -> Option<()> {
        let length = self.take_bytes(1)?[0];
        let mut text = self.take_bytes(length.into())?;
        while let Err(error) = std::str::from_utf8(text) {
            let (from, count) = (error.valid_up_to(), error.error_len());
            let to = count.map_or(text.len(), |count| from + count);
            text[from..to].fill(SUBSTITUTE_BYTE);
            text = &mut text[to..];
        }
        Some(())
    }

    /// Repairs `basic.deliver`: the consumer, a number, a flag, the exchange and the key.
    fn deliver(&mut self) -> Option<()> {
        self.take_bytes(DELIVER.len())?;
        self.short()?;
        self.take_bytes(8 + 1)?;
        self.short()?;
        self.short()
    }

    /// Repairs a message's properties, in the order of their flags.
    fn properties(&mut self) -> Option<()> {
        self.take_bytes(2 + 2 + 8)?;
        let flags = u16::from_be_bytes((*self.take_bytes(2)?).try_into().ok()?);
        for bit in (2..16).rev().filter(|bit| flags & (1 << bit) != 0) {
            match bit {
                13 => self.table(DEPTH_MAX)?,
                11 | 12 => self.take_bytes(1).map(drop)?, // priority, delivery mode
                6 => self.take_bytes(8).map(drop)?,       // timestamp
                _ => self.short()?,
            }
        }
        Some(())
    }

    fn table(&mut self, depth: usize) -> Option<()> {
        let length = self.length()?;
        let mut table = PayloadRest(self.take_bytes(length)?);
        while !table.0.is_empty() {
            table.short()?;
            table.value(depth.checked_sub(1)?)?;
        }
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        let count = match self.take_bytes(1)?[0] {
            b't' | b'b' | b'B' => 1,
            b's' | b'U' | b'u' => 2,
            b'I' | b'i' | b'f' => 4,
            b'D' => 5,
            b'L' | b'l' | b'd' | b'T' => 8,
            b'V' => 0,
            b'S' | b'x' => self.length()?,
            b'F' => return self.table(depth),
            b'A' => {
                let length = self.length()?;
                let mut items = PayloadRest(self.take_bytes(length)?);
                while !items.0.is_empty() {
                    items.value(depth.checked_sub(1)?)?;
                }
                return Some(());
            }
            _ => return None,
        };
        self.take_bytes(count).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(bytes: &[u8]) -> Vec<u8> {
        [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
    }

    fn long(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        [&[kind, 0, 1], &long(payload)[..], &[0xCE]].concat()
    }

    /// Returns a header frame with headers, a correlation id and a message id.
    fn header(name: &[u8], value: &[u8], correlation: &[u8], id: &[u8]) -> Vec<u8> {
        let inner = [&short(name)[..], b"S", &long(value)].concat();
        let list = [&b"F"[..], &long(&inner), b"t\x01"].concat();
        let table =
            [&short(b"n")[..], b"l", &7_i64.to_be_bytes(), &short(b"list"), b"A", &long(&list)].concat();
        let flags: u16 = 1 << 13 | 1 << 12 | 1 << 10 | 1 << 7 | 1 << 6;
        let fixed = [&[0, 60, 0, 0][..], &3_u64.to_be_bytes(), &flags.to_be_bytes()].concat();
        let texts = [short(correlation), short(id)].concat();
        frame(HEADER, &[&fixed[..], &long(&table), &[2], &texts, &9_u64.to_be_bytes()].concat())
    }

    fn deliver(key: &[u8]) -> Vec<u8> {
        let arguments = [&short(b"tag")[..], &1_u64.to_be_bytes(), &[0], &short(b""), &short(key)].concat();
        frame(METHOD, &[&DELIVER[..], &arguments].concat())
    }

    #[test]
    fn short_texts_are_mended_at_their_length_and_nothing_else_is_touched() {
        let body = frame(3, b"\xff\xfe");
        let received =
            [deliver(b"a\xff"), header(b"x\xfe", b"\xfd", b"\xe2\x82", "né".as_bytes()), body.clone()]
                .concat();
        let good =
            [deliver(b"a\x1a"), header(b"x\x1a", b"\xfd", b"\x1a\x1a", "né".as_bytes()), body].concat();
        // The result does not depend on the sizes of the reads.
        for portion in [1, 2, 7, 64, received.len()] {
            let (mut frames, mut mended) = (Frames::default(), Vec::new());
            for part in received.chunks(portion) {
                frames.take(part);
                let mut to = [0; 5];
                loop {
                    match frames.read_into(&mut to) {
                        0 => break,
                        count => mended.extend_from_slice(&to[..count]),
                    }
                }
            }
            assert_eq!(mended, good, "{portion}");
        }
    }

    #[test]
    fn what_is_cut_short_or_unknown_stays_as_it_is() {
        for payload in [&b""[..], b"\x00\x3c\x00\x00", b"\x00\x3c\x00\x3c\xff"] {
            for kind in [METHOD, HEADER, 8] {
                let received = frame(kind, payload);
                let mut frames = Frames::default();
                frames.take(&received);
                assert_eq!(frames.bytes, received);
            }
        }
    }
}
