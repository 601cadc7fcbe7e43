//! A TCP proxy that does to its connections what networks do, on the test's orders.
//!
//! It runs in a thread of its own, so that a test may stop its own clock. It knows nothing of what is said
//! on its connections, except that a test may mean only those whose client has said a certain word.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

/// How much of what a client says first is searched for the word.
const HEAD_BYTES: usize = 2048;

/// How many connections may wait to be accepted.
const BACKLOG: u32 = 64;

/// A direction of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Out,
    /// From the server to the client.
    Back,
}

/// What becomes of the bytes of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// They arrive.
    Pass,
    /// They arrive so much later.
    Late(Duration),
    /// They wait, and so does the end of the connection: a network that will be whole again.
    Hold,
    /// They are lost, and so is the end of the connection.
    Swallow,
}

/// What becomes of new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// They are led to the server.
    Open,
    /// Nobody listens.
    Refuse,
    /// They are accepted, and nobody ever says a word.
    Silent,
}

/// Which connections are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// All.
    All,
    /// Those whose client has said this near the beginning.
    Saying(&'static str),
}

/// What holds now.
#[derive(Clone)]
struct Rule {
    door: Door,
    which: Which,
    out: Flow,
    back: Flow,
    /// How often connections were cut; one that has seen fewer is to end.
    cuts: usize,
    cut_after: Option<Limit>,
}

/// What may still pass before the connection is cut.
#[derive(Clone)]
struct Limit {
    direction: Direction,
    left: Arc<Mutex<Option<usize>>>,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicUsize,
    cut: AtomicUsize,
}

/// A proxy on a port of its own.
pub struct Proxy {
    port: u16,
    rule: watch::Sender<Rule>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy on `port` that leads to `server`.
    pub fn start(port: u16, server: u16) -> Self {
        let rule = Rule {
            door: Door::Open,
            which: Which::All,
            out: Flow::Pass,
            back: Flow::Pass,
            cuts: 0,
            cut_after: None,
        };
        let (rule, orders) = watch::channel(rule);
        let counts = Arc::<Counts>::default();
        let (seen, (ready, is_ready)) = (Arc::clone(&counts), std::sync::mpsc::channel());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("a runtime can be made");
            runtime.block_on(accept(at(port), at(server), orders, seen, ready));
        });
        is_ready.recv().expect("the port is free");
        Self { port, rule, counts, thread: Some(thread) }
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> usize {
        self.counts.accepted.load(Ordering::Acquire)
    }

    /// How many connections it has cut so far.
    pub fn cut_so_far(&self) -> usize {
        self.counts.cut.load(Ordering::Acquire)
    }

    /// Everything passes again. What has lost bytes meanwhile is cut.
    pub fn pass(&self) {
        self.rule.send_modify(|rule| {
            let cuts = rule.cuts;
            *rule = Rule {
                door: Door::Open,
                which: Which::All,
                out: Flow::Pass,
                back: Flow::Pass,
                cuts,
                cut_after: None,
            };
        });
    }

    /// What becomes of new connections from now on.
    pub fn door(&self, door: Door) {
        self.rule.send_modify(|rule| rule.door = door);
    }

    /// What becomes of bytes from now on, on connections that are there and on new ones.
    pub fn flow(&self, which: Which, out: Flow, back: Flow) {
        self.rule.send_modify(|rule| (rule.which, rule.out, rule.back) = (which, out, back));
    }

    /// Resets connections that are there.
    pub fn cut(&self, which: Which) {
        self.rule.send_modify(|rule| (rule.which, rule.cuts) = (which, rule.cuts + 1));
    }

    /// Lets so many more bytes pass in this direction and then cuts the connection, once.
    pub fn cut_after(&self, which: Which, direction: Direction, bytes: usize) {
        let limit = Limit { direction, left: Arc::new(Mutex::new(Some(bytes))) };
        self.rule.send_modify(|rule| (rule.which, rule.cut_after) = (which, Some(limit)));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Without anybody to give orders the thread ends, and its connections with it.
        let last = self.rule.borrow().clone();
        self.rule = watch::channel(last).0;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn bound(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket.set_reuseaddr(true).expect("a port can be used again");
    // A process that is just being started holds what was open here until it runs its own program.
    let deadline = Instant::now() + Duration::from_secs(5);
    while let Err(error) = socket.bind(address) {
        assert!(
            error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline,
            "the port is free: {error}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    socket
}

/// A port that is ours, open or not: one that is bound and not listened on refuses, and nobody else gets it.
enum Port {
    Listening(TcpListener),
    Bound(TcpSocket),
}

async fn accept(
    here: SocketAddr,
    server: SocketAddr,
    mut orders: watch::Receiver<Rule>,
    counts: Arc<Counts>,
    ready: std::sync::mpsc::Sender<()>,
) {
    let mut port = Port::Bound(bound(here));
    let mut ready = Some(ready);
    let mut silent = Vec::new();
    loop {
        let door = orders.borrow_and_update().door;
        port = match port {
            Port::Listening(listener) if door == Door::Refuse => {
                drop(listener);
                Port::Bound(bound(here))
            }
            Port::Bound(socket) if door != Door::Refuse => {
                Port::Listening(socket.listen(BACKLOG).expect("a bound port can be listened on"))
            }
            same => same,
        };
        if let Some(ready) = ready.take() {
            let _ = ready.send(());
        }
        let accepted = async {
            match &port {
                Port::Listening(listener) => listener.accept().await,
                Port::Bound(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased; // an order holds for whoever comes after it
            changed = orders.changed() => if changed.is_err() { return },
            accepted = accepted => {
                let Ok((client, _)) = accepted else { continue };
                counts.accepted.fetch_add(1, Ordering::AcqRel);
                if door == Door::Silent {
                    silent.push(client);
                } else {
                    tokio::spawn(lead(client, server, orders.clone(), Arc::clone(&counts)));
                }
            }
        }
    }
}

/// One connection through the proxy.
struct Link {
    /// What the client said first.
    head: Mutex<Vec<u8>>,
    cuts: usize,
}

impl Link {
    fn is_meant(&self, which: Which) -> bool {
        match which {
            Which::All => true,
            Which::Saying(word) => {
                let head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
                head.windows(word.len()).any(|window| window == word.as_bytes())
            }
        }
    }

    fn hear(&self, bytes: &[u8]) {
        let mut head = self.head.lock().unwrap_or_else(PoisonError::into_inner);
        let room = HEAD_BYTES.saturating_sub(head.len()).min(bytes.len());
        head.extend_from_slice(&bytes[..room]);
    }

    /// How many of these bytes may pass, and whether the connection ends with them.
    fn limited(&self, rule: &Rule, direction: Direction, length: usize) -> (usize, bool) {
        let limit = rule.cut_after.as_ref();
        let limit = limit.filter(|limit| limit.direction == direction && self.is_meant(rule.which));
        let Some(limit) = limit else { return (length, false) };
        let mut left = limit.left.lock().unwrap_or_else(PoisonError::into_inner);
        match *left {
            None => (length, false),
            Some(bytes) if bytes > length => {
                *left = Some(bytes - length);
                (length, false)
            }
            Some(bytes) => {
                *left = None; // it was for one connection
                (bytes, true)
            }
        }
    }

    fn flow(&self, rule: &Rule, direction: Direction) -> Flow {
        match direction {
            _ if !self.is_meant(rule.which) => Flow::Pass,
            Direction::Out => rule.out,
            Direction::Back => rule.back,
        }
    }
}

/// Why a connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    Ordered,
    After(Direction),
}

/// Leads one connection, until one side ends it or it is cut.
async fn lead(mut client: TcpStream, server: SocketAddr, orders: watch::Receiver<Rule>, counts: Arc<Counts>) {
    let link = Link { head: Mutex::default(), cuts: orders.borrow().cuts };
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ended = {
        let ((client_says, to_client), (server_says, to_server)) = (client.split(), server.split());
        let out = carry(&link, Direction::Out, client_says, to_server, orders.clone());
        let back = carry(&link, Direction::Back, server_says, to_client, orders.clone());
        tokio::select! {
            ended = async { tokio::try_join!(out, back) } => ended.map(drop),
            cut = until_cut(&link, orders) => Err(cut),
        }
    };
    let Err(cut) = ended else { return };
    counts.cut.fetch_add(1, Ordering::AcqRel);
    // Whoever was to get the last bytes gets them, and then the end; the other side a reset.
    if cut != Cut::After(Direction::Back) {
        let _ = client.set_zero_linger();
    }
    if cut != Cut::After(Direction::Out) {
        let _ = server.set_zero_linger();
    }
}

async fn until_cut(link: &Link, mut orders: watch::Receiver<Rule>) -> Cut {
    loop {
        let is_to_end = {
            let rule = orders.borrow_and_update();
            rule.cuts > link.cuts && link.is_meant(rule.which)
        };
        if is_to_end || orders.changed().await.is_err() {
            return Cut::Ordered;
        }
    }
}

/// Carries the bytes of one direction to its end.
async fn carry(
    link: &Link,
    direction: Direction,
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut orders: watch::Receiver<Rule>,
) -> Result<(), Cut> {
    let mut buffer = vec![0; 16 * 1024];
    let (mut has_lost_bytes, mut is_over) = (false, false);
    loop {
        let flow = link.flow(&orders.borrow_and_update(), direction);
        if has_lost_bytes && flow != Flow::Swallow {
            return Err(Cut::Ordered);
        }
        let length = tokio::select! {
            biased; // an order holds for whatever comes after it
            changed = orders.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return Err(Cut::Ordered),
            },
            read = from.read(&mut buffer), if flow != Flow::Hold && !is_over => read.unwrap_or(0),
        };
        if direction == Direction::Out {
            link.hear(&buffer[..length]);
        }
        let rule = orders.borrow().clone();
        match link.flow(&rule, direction) {
            Flow::Swallow => (has_lost_bytes, is_over) = (true, length == 0),
            _ if length == 0 => {
                let _ = to.shutdown().await;
                return Ok(());
            }
            // Whoever orders a hold at this very moment finds these bytes already carried.
            Flow::Pass | Flow::Hold | Flow::Late(_) => {
                if let Flow::Late(time) = flow {
                    tokio::time::sleep(time).await;
                }
                let (passing, cut) = link.limited(&rule, direction, length);
                if to.write_all(&buffer[..passing]).await.is_err() {
                    return Ok(());
                }
                if cut {
                    return Err(Cut::After(direction));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, TcpListener, TcpStream};

    use super::*;
    use crate::child::{WAIT_MAX, free_port};

    /// Long enough to see that nothing comes, where nothing may; what comes is never waited for by it.
    const QUIET: Duration = Duration::from_millis(50);

    /// A proxy, and the server behind it.
    fn between() -> (Proxy, TcpListener) {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        (Proxy::start(free_port(), port), server)
    }

    fn client(proxy: &Proxy) -> TcpStream {
        let client = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
        client.set_read_timeout(Some(WAIT_MAX)).unwrap();
        client
    }

    /// Both ends of a connection through the proxy.
    fn pair(proxy: &Proxy, server: &TcpListener) -> (TcpStream, TcpStream) {
        let client = client(proxy);
        let (served, _) = server.accept().unwrap();
        served.set_read_timeout(Some(WAIT_MAX)).unwrap();
        (client, served)
    }

    fn carries(mut from: &TcpStream, mut to: &TcpStream, text: &str) {
        from.write_all(text.as_bytes()).unwrap();
        let mut arrived = vec![0; text.len()];
        to.read_exact(&mut arrived).unwrap();
        assert_eq!(arrived, text.as_bytes());
    }

    fn is_quiet(mut stream: &TcpStream) -> bool {
        stream.set_read_timeout(Some(QUIET)).unwrap();
        let read = stream.read(&mut [0]);
        stream.set_read_timeout(Some(WAIT_MAX)).unwrap();
        read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    }

    fn is_reset(mut stream: &TcpStream) -> bool {
        stream.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::ConnectionReset)
    }

    #[test]
    fn what_passes_arrives_both_ways_and_so_does_the_end() {
        let (proxy, server) = between();
        let (mut client, mut served) = pair(&proxy, &server);
        carries(&client, &served, "there");
        carries(&served, &client, "back");
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(served.read(&mut [0]).unwrap(), 0);
        carries(&served, &client, "still");
        drop(served);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert_eq!((proxy.accepted(), proxy.cut_so_far()), (1, 0));
    }

    #[test]
    fn a_cut_resets_both_sides_and_the_next_connection_works() {
        let (proxy, server) = between();
        let (client, served) = pair(&proxy, &server);
        carries(&client, &served, "there");
        proxy.cut(Which::All);
        assert!(is_reset(&client) && is_reset(&served));
        let (client, served) = pair(&proxy, &server);
        carries(&client, &served, "again");
        assert_eq!((proxy.accepted(), proxy.cut_so_far()), (2, 1));
    }

    #[test]
    fn a_refused_connection_finds_nobody_until_the_door_is_open_again() {
        let (proxy, server) = between();
        let (first, served) = pair(&proxy, &server);
        proxy.door(Door::Refuse);
        let refused = || TcpStream::connect(("127.0.0.1", proxy.port())).is_err();
        while !refused() {}
        carries(&first, &served, "those that are there go on");
        proxy.pass();
        while refused() {}
    }

    #[test]
    fn a_silent_door_accepts_and_says_nothing() {
        let (proxy, server) = between();
        proxy.door(Door::Silent);
        let mut silent = client(&proxy);
        silent.write_all(b"hello?").unwrap();
        assert!(is_quiet(&silent));
        server.set_nonblocking(true).unwrap();
        assert!(server.accept().is_err());
    }

    #[test]
    fn what_is_held_arrives_later_and_what_is_swallowed_never() {
        let (proxy, server) = between();
        let (mut client, mut served) = pair(&proxy, &server);
        proxy.flow(Which::All, Flow::Hold, Flow::Pass);
        client.write_all(b"late").unwrap();
        assert!(is_quiet(&served));
        carries(&served, &client, "the other way");
        proxy.pass();
        let mut late = [0; 4];
        served.read_exact(&mut late).unwrap();
        assert_eq!(&late, b"late");
        proxy.flow(Which::All, Flow::Swallow, Flow::Late(QUIET));
        client.write_all(b"lost").unwrap();
        assert!(is_quiet(&served));
        carries(&served, &client, "slowly");
        client.shutdown(Shutdown::Write).unwrap();
        assert!(is_quiet(&served), "not even the end arrives");
        proxy.pass();
        assert!(is_reset(&served), "a stream with a hole must not go on");
    }

    #[test]
    fn a_connection_is_cut_after_so_many_bytes_of_a_direction_once() {
        for (bytes, arrive) in [(0, ""), (3, "abc"), (6, "abcdef")] {
            let (proxy, server) = between();
            let (client, served) = pair(&proxy, &server);
            proxy.cut_after(Which::All, Direction::Out, bytes);
            carries(&served, &client, "any number of them the other way");
            (&client).write_all(b"abcdef").unwrap();
            let mut arrived = String::new();
            let _ = (&served).read_to_string(&mut arrived);
            assert_eq!(arrived, arrive);
            assert!(is_reset(&client));
            let (client, served) = pair(&proxy, &server);
            carries(&client, &served, "abcdefghi");
            assert_eq!(proxy.cut_so_far(), 1);
        }
    }

    #[test]
    fn only_those_are_meant_who_say_the_word() {
        let (proxy, server) = between();
        let (one, served_one) = pair(&proxy, &server);
        let (two, served_two) = pair(&proxy, &server);
        carries(&one, &served_one, "I am publishing");
        carries(&two, &served_two, "I am consuming");
        proxy.cut(Which::Saying("publishing"));
        assert!(is_reset(&one) && is_reset(&served_one));
        carries(&two, &served_two, "on");
    }
}
