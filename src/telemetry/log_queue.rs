//! The log queue: lines are buffered in memory and written by a dedicated thread.
//!
//! Logging never waits for the reader of the log: a stopped terminal, a pipe that nobody empties and a full disk
//! cost lines and nothing else. Lines of a few milliseconds are written together, because a system call and a wakeup
//! for each would cost a busy worker more than making the lines. Invariant: at most [`LINES_MAX`] lines of
//! [`BYTES_MAX`] bytes together are held, and each line that is not written is counted.

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// The most lines held: a few seconds of a busy worker.
const LINES_MAX: usize = 8192;

/// The most bytes of lines held; one line has 200 to 500.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// The time for which lines are gathered before they are written: what a killed process may lose of its log.
const GATHERED_FOR: Duration = Duration::from_millis(5);

/// The most bytes gathered for one write, its last line excepted.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// The delay before retrying a write to a non-blocking descriptor.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// The interval at which a flush checks whether everything is written.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The sending half of the queue. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct LogQueue {
    lines: SyncSender<Vec<u8>>,
    counts: Arc<LineCounts>,
}

#[derive(Debug, Default)]
struct LineCounts {
    /// Lines queued or being written.
    pending: AtomicUsize,
    /// The bytes of the pending lines.
    bytes: AtomicUsize,
    /// Lines that were not written, or only in part.
    dropped: AtomicU64,
}

impl LogQueue {
    /// Starts the thread that writes to `out`. Once lines flow again it calls `tell` with the number of lines
    /// dropped in the meantime.
    ///
    /// # Errors
    /// If the thread cannot be spawned.
    pub fn start(
        out: impl Write + Send + 'static,
        tell: impl Fn(u64) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (lines, queued) = sync_channel(LINES_MAX);
        let counts = Arc::new(LineCounts::default());
        let writing = LogWriter { queued, counts: Arc::clone(&counts), out, tell, told: 0 };
        std::thread::Builder::new().name("log".to_owned()).spawn(|| writing.run())?;
        Ok(Self { lines, counts })
    }

    /// Returns the number of lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.counts.dropped.load(Ordering::Relaxed)
    }

    /// Waits until every line is written, for at most `longest`.
    pub fn flush(&self, longest: Duration) {
        let begun = Instant::now();
        while self.counts.pending.load(Ordering::Acquire) > 0 && begun.elapsed() < longest {
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn push(&self, line: &[u8]) {
        let LineCounts { pending, bytes, dropped } = &*self.counts;
        let has_place = pending.fetch_add(1, Ordering::AcqRel) < LINES_MAX;
        let has_room = bytes.fetch_add(line.len(), Ordering::AcqRel) + line.len() <= BYTES_MAX;
        if has_place && has_room && self.lines.try_send(line.to_vec()).is_ok() {
            return;
        }
        dropped.fetch_add(1, Ordering::Relaxed);
        self.counts.are_done(1, line.len());
    }
}

impl LineCounts {
    fn are_done(&self, lines: usize, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.pending.fetch_sub(lines, Ordering::AcqRel);
    }
}

/// Lines that are written together.
#[derive(Default)]
struct Gathered {
    text: Vec<u8>,
    /// The end of each line in `text`.
    ends: Vec<usize>,
}

impl Gathered {
    fn add(&mut self, line: &[u8]) {
        self.text.extend_from_slice(line);
        self.ends.push(self.text.len());
    }
}

/// The formatter writes each line with one call.
impl Write for LogQueue {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogQueue {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// The writing half, run by the thread.
struct LogWriter<W, T> {
    queued: Receiver<Vec<u8>>,
    counts: Arc<LineCounts>,
    out: W,
    tell: T,
    /// The number of dropped lines already reported.
    told: u64,
}

impl<W: Write, T: Fn(u64)> LogWriter<W, T> {
    fn run(mut self) {
        let mut gathered = Gathered::default();
        while self.gather(&mut gathered) {
            if self.write(&gathered) > 0 {
                self.tell_of_dropped();
            }
            let _ = self.out.flush();
            self.counts.are_done(gathered.ends.len(), gathered.text.len());
            gathered.text.clear();
            gathered.ends.clear();
        }
    }

    /// Waits for a line, and takes those that follow within a moment; returns false when there will be none.
    fn gather(&mut self, gathered: &mut Gathered) -> bool {
        let Ok(line) = self.queued.recv() else { return false };
        gathered.add(&line);
        std::thread::sleep(GATHERED_FOR); // senders wake nobody meanwhile
        while gathered.text.len() < WRITE_BYTES_MAX
            && let Ok(line) = self.queued.try_recv()
        {
            gathered.add(&line);
        }
        true
    }

    /// Writes all lines, however long the other side takes; of a line that cannot be written, the rest is dropped.
    /// Returns the number of lines written.
    fn write(&mut self, Gathered { text, ends }: &Gathered) -> usize {
        let (mut at, mut dropped) = (0, 0);
        while at < text.len() {
            match self.out.write(&text[at..]) {
                Ok(written) if written > 0 => at += written,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Another process has made the descriptor non-blocking: a terminal or a pipe is shared.
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(AGAIN_AFTER),
                Ok(_) | Err(_) => {
                    dropped += 1;
                    self.counts.dropped.fetch_add(1, Ordering::Relaxed);
                    at = ends[ends.partition_point(|end| *end <= at)];
                }
            }
        }
        ends.len() - dropped
    }

    /// Reports dropped lines. Called only after a successful write: while writes fail, the report would be dropped too.
    fn tell_of_dropped(&mut self) {
        let dropped = self.counts.dropped.load(Ordering::Relaxed);
        if dropped > self.told {
            (self.tell)(dropped - self.told);
            self.told = dropped;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// A timeout far longer than the test needs.
    const LONG: Duration = Duration::from_secs(30);

    /// A writer with scripted results, one for each write.
    struct Told {
        answers: Receiver<std::io::Result<usize>>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Told {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let count = self.answers.recv().unwrap_or(Ok(usize::MAX))?.min(bytes.len());
            self.written.lock().unwrap().extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    type Written = Arc<Mutex<Vec<u8>>>;

    fn queue() -> (LogQueue, Sender<std::io::Result<usize>>, Written, Receiver<u64>) {
        let (answer, answers) = channel();
        let (written, (tell, told)) = (Written::default(), channel());
        let out = Told { answers, written: Arc::clone(&written) };
        let queue = LogQueue::start(out, move |dropped| tell.send(dropped).unwrap_or(())).unwrap();
        (queue, answer, written, told)
    }

    #[test]
    fn a_reader_that_reads_nothing_costs_lines_and_no_time() {
        let (queue, answer, written, told) = queue();
        for _ in 0..LINES_MAX + 100 {
            queue.push(b"line\n");
        }
        let dropped = queue.dropped();
        assert_eq!(dropped, 100, "what the thread has in its hands counts too");
        drop(answer); // now somebody reads
        queue.flush(LONG);
        assert_eq!(told.recv_timeout(LONG), Ok(dropped));
        assert_eq!(written.lock().unwrap().len(), (LINES_MAX + 100 - dropped as usize) * "line\n".len());
    }

    #[test]
    fn long_lines_are_bounded_by_their_bytes() {
        let (queue, answer, _, _) = queue();
        let line = vec![b'x'; BYTES_MAX / 4];
        for _ in 0..6 {
            queue.push(&line);
        }
        assert_eq!(queue.dropped(), 2);
        drop(answer);
        queue.flush(LONG);
        queue.push(&line);
        assert_eq!(queue.dropped(), 2, "there is room again");
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_told_once_lines_flow_again() {
        let failed = |kind: ErrorKind| Err(std::io::Error::from(kind));
        let (queue, answer, written, told) = queue();
        for answered in [
            failed(ErrorKind::StorageFull),
            failed(ErrorKind::BrokenPipe),
            Ok(2),
            failed(ErrorKind::WouldBlock),
            failed(ErrorKind::Interrupted),
            Ok(usize::MAX),
        ] {
            answer.send(answered).unwrap();
        }
        for line in ["lost\n", "lost too\n", "kept\n"] {
            queue.push(line.as_bytes());
        }
        queue.flush(LONG);
        assert_eq!(*written.lock().unwrap(), b"kept\n");
        assert_eq!((queue.dropped(), told.try_recv()), (2, Ok(2)));
        assert!(told.try_recv().is_err(), "once");
    }

    #[test]
    fn lines_that_come_together_are_written_together() {
        let (queue, answer, written, _) = queue();
        let lines = 1000;
        for _ in 0..lines {
            queue.push(b"line\n");
        }
        // Enough for a write of the first line and some more, and not for one each.
        for _ in 0..20 {
            answer.send(Ok(usize::MAX)).unwrap();
        }
        queue.flush(LONG);
        assert_eq!(written.lock().unwrap().len(), lines * "line\n".len());
        drop(answer);
    }

    #[test]
    fn a_flush_ends_although_nobody_reads() {
        let (queue, _answer, _, _) = queue();
        queue.push(b"line\n");
        queue.flush(Duration::from_millis(1));
        assert_eq!(queue.counts.pending.load(Ordering::Relaxed), 1);
    }
}
