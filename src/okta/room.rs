//! The memory budget for Okta's answers, shared by all connections.
//!
//! An answer reserves memory before it is read and holds it until its body is dropped. The budget is divided into
//! parts by answer size, so that small answers never wait for large ones. Invariants: all answers together hold no
//! more than the whole; one connection holds at most half of each part; no deadlock, because an answer being read
//! waits only for larger parts, and one in the largest part waits for nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The unit in which memory is counted.
const PIECE_BYTES: usize = 1024;

/// The largest answer of each part, in bytes. Objects have a few KiB, a page of 200 users with large profiles has
/// one or two MiB, one of 1,000 members slightly more.
const ANSWER_BYTES_MAX: [usize; PARTS] = [64 << 10, 1 << 20, 8 << 20, 64 << 20];

const PARTS: usize = 4;

/// The smallest budget: half of a part then fits an answer of a few MiB.
pub const ROOM_BYTES_MIN: u64 = 32 << 20;

/// The longest time for which an answer waits for memory: longer than it takes to read several of the largest answers.
const WAIT_MAX: Duration = Duration::from_secs(120);

/// The memory budget for all answers of the process.
#[derive(Debug)]
pub struct AnswerRoom {
    parts: [RoomPart; PARTS],
}

#[derive(Debug, Clone)]
struct RoomPart {
    free: Arc<Semaphore>,
    pieces: u32,
    answer_bytes_max: usize,
}

/// The memory budget for the answers of one connection.
#[derive(Debug)]
pub(super) struct ConnectionRoom {
    whole: Arc<AnswerRoom>,
    /// This connection's share of each part.
    own: [RoomPart; PARTS],
}

/// The memory reserved for one answer.
#[derive(Debug)]
pub(super) struct HeldRoom {
    part: usize,
    own: OwnedSemaphorePermit,
    whole: OwnedSemaphorePermit,
}

/// The reason that an answer gets no memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// The answer exceeds the largest size, given in bytes.
    TooLarge(usize),
    /// No memory became free in time.
    NotInTime,
}

impl AnswerRoom {
    /// Creates a budget of this many bytes, at least [`ROOM_BYTES_MIN`].
    pub fn new(bytes: u64) -> Arc<Self> {
        let bytes = usize::try_from(bytes.max(ROOM_BYTES_MIN)).unwrap_or(usize::MAX);
        let part = bytes / PARTS;
        let parts = ANSWER_BYTES_MAX.map(|largest| RoomPart::new(part, largest.min(part)));
        Arc::new(Self { parts })
    }

    /// Returns the bytes reserved now.
    #[cfg(test)]
    pub(super) fn held_bytes(&self) -> usize {
        let held = |part: &RoomPart| part.pieces as usize - part.free.available_permits();
        self.parts.iter().map(held).sum::<usize>() * PIECE_BYTES
    }

    /// Creates a connection's share of the budget.
    pub(super) fn share(self: &Arc<Self>) -> ConnectionRoom {
        let own = |part: &RoomPart| {
            let bytes = part.pieces as usize * PIECE_BYTES;
            RoomPart::new((bytes / 2).max(part.answer_bytes_max), part.answer_bytes_max)
        };
        ConnectionRoom { whole: Arc::clone(self), own: std::array::from_fn(|part| own(&self.parts[part])) }
    }
}

impl RoomPart {
    fn new(bytes: usize, answer_bytes_max: usize) -> Self {
        let pieces = u32::try_from(bytes / PIECE_BYTES).unwrap_or(u32::MAX);
        Self { free: Arc::new(Semaphore::new(pieces as usize)), pieces, answer_bytes_max }
    }

    /// Waits for memory, in first-come order.
    async fn take(&self, pieces: u32) -> OwnedSemaphorePermit {
        let free = Arc::clone(&self.free);
        free.acquire_many_owned(pieces.min(self.pieces)).await.expect("the semaphore is never closed")
    }
}

impl ConnectionRoom {
    /// Returns the size of the largest accepted answer, in bytes.
    pub fn answer_bytes_max(&self) -> usize {
        self.whole.parts[PARTS - 1].answer_bytes_max
    }

    /// Waits for memory for an answer of this length; an answer of unknown length starts in the smallest part.
    ///
    /// # Errors
    /// If the answer is too large, or no memory becomes free in time.
    pub async fn reserve(&self, length: Option<u64>) -> Result<HeldRoom, NoRoom> {
        let length = length.map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        let bytes = length.unwrap_or(ANSWER_BYTES_MAX[0]);
        self.take(self.part_for(bytes)?, bytes).await
    }

    /// Waits for more memory for an answer that turns out to need this many bytes.
    ///
    /// # Errors
    /// If the answer is too large, or no memory becomes free in time.
    pub async fn grow(&self, held: &mut HeldRoom, bytes: usize) -> Result<(), NoRoom> {
        // The final length is unknown, so the answer gets as much as any answer of the next part.
        let part = self.part_for(bytes)?.max((held.part + 1).min(PARTS - 1));
        *held = self.take(part, self.whole.parts[part].answer_bytes_max).await?;
        Ok(())
    }

    fn part_for(&self, bytes: usize) -> Result<usize, NoRoom> {
        let fits = |part: &RoomPart| bytes <= part.answer_bytes_max;
        self.whole.parts.iter().position(fits).ok_or(NoRoom::TooLarge(self.answer_bytes_max()))
    }

    async fn take(&self, part: usize, bytes: usize) -> Result<HeldRoom, NoRoom> {
        let pieces = pieces(bytes);
        let taking = async {
            // The connection's own share comes first, so that it queues for the shared budget with no more than that.
            let own = self.own[part].take(pieces).await;
            let whole = self.whole.parts[part].take(pieces).await;
            HeldRoom { part, own, whole }
        };
        timeout(WAIT_MAX, taking).await.map_err(|_| NoRoom::NotInTime)
    }
}

impl HeldRoom {
    /// Returns the number of bytes reserved.
    pub fn bytes(&self) -> usize {
        self.whole.num_permits() * PIECE_BYTES
    }

    /// Releases the memory that an answer of this length does not need.
    pub fn shrink_to(&mut self, bytes: usize) {
        let spare = self.whole.num_permits().saturating_sub(pieces(bytes) as usize);
        drop((self.own.split(spare), self.whole.split(spare)));
    }
}

fn pieces(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(PIECE_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const MIB: usize = 1 << 20;

    fn is_waiting(waiting: impl Future<Output = Result<HeldRoom, NoRoom>>) -> bool {
        waiting.now_or_never().is_none()
    }

    #[tokio::test]
    async fn an_answer_gets_room_by_its_length_up_to_the_largest() {
        let whole = AnswerRoom::new(256 << 20);
        let room = whole.share();
        assert_eq!(room.answer_bytes_max(), 64 * MIB);
        for (length, held) in
            [(0, 0), (1, 1024), (64 << 10, 64 << 10), (5 << 20, 5 << 20), (64 << 20, 64 << 20)]
        {
            assert_eq!(room.reserve(Some(length)).await.unwrap().bytes(), held, "{length}");
        }
        let too_large = NoRoom::TooLarge(64 * MIB);
        for length in [(64 << 20) + 1, u64::MAX] {
            assert_eq!(room.reserve(Some(length)).await.unwrap_err(), too_large, "{length}");
        }
        assert_eq!(room.reserve(None).await.unwrap().bytes(), 64 << 10);
        assert_eq!(whole.held_bytes(), 0, "all was given back");
    }

    #[tokio::test]
    async fn an_answer_of_unknown_length_grows_part_by_part_to_its_end() {
        let whole = AnswerRoom::new(256 << 20);
        let room = whole.share();
        let mut held = room.reserve(None).await.unwrap();
        for bytes in [MIB, 8 * MIB, 64 * MIB] {
            let needed = held.bytes() + 1;
            room.grow(&mut held, needed).await.unwrap();
            assert_eq!((held.bytes(), whole.held_bytes()), (bytes, bytes));
        }
        assert_eq!(room.grow(&mut held, 64 * MIB + 1).await, Err(NoRoom::TooLarge(64 * MIB)));
        held.shrink_to(10 * MIB);
        assert_eq!(whole.held_bytes(), 10 * MIB);
        drop(held);
        assert_eq!(whole.held_bytes(), 0);
    }

    #[tokio::test]
    async fn one_connection_leaves_room_for_others() {
        let whole = AnswerRoom::new(256 << 20);
        let (greedy, modest) = (whole.share(), whole.share());
        let mut held = Vec::new();
        while let Some(more) = greedy.reserve(Some(8 << 20)).now_or_never() {
            held.push(more.unwrap());
        }
        assert_eq!(held.len(), 4, "half of 64 MiB");
        assert!(!is_waiting(modest.reserve(Some(8 << 20))));
        // The largest part fits one answer: the first waiter gets it next, no matter how many others wait.
        let first = greedy.reserve(Some(60 << 20)).await.unwrap();
        let mut second = Box::pin(modest.reserve(Some(60 << 20)));
        let mut third = Box::pin(greedy.reserve(Some(60 << 20)));
        assert!((&mut second).now_or_never().is_none() && (&mut third).now_or_never().is_none());
        drop(first);
        let _second = (&mut second).now_or_never().expect("it is next");
        assert!((&mut third).now_or_never().is_none());
    }

    #[tokio::test]
    async fn small_answers_do_not_wait_for_large_ones() {
        let whole = AnswerRoom::new(ROOM_BYTES_MIN);
        let room = whole.share();
        assert_eq!(room.answer_bytes_max(), 8 * MIB);
        let _large = room.reserve(Some(8 << 20)).await.unwrap();
        assert!(is_waiting(room.reserve(Some(8 << 20))));
        assert!(!is_waiting(room.reserve(Some(2000))));
        assert!(!is_waiting(room.reserve(None)));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_ever() {
        let whole = AnswerRoom::new(ROOM_BYTES_MIN);
        let room = whole.share();
        let _large = room.reserve(Some(8 << 20)).await.unwrap();
        assert_eq!(room.reserve(Some(8 << 20)).await.unwrap_err(), NoRoom::NotInTime);
    }
}
