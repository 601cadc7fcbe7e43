//! The first gate before Okta: the window as the headers tell it, and `governor` as a second lock.
//!
//! Per bucket a request needs both: the window says what Okta still allows, and a limiter with the
//! announced quota makes sure that a fault in the window cannot spend more than twice the limit. Where
//! answers carry no headers the limiter alone holds. One worker per connection: workers do not yet know
//! of each other.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use governor::clock::Clock as _;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::domain::bucket::Bucket;
use crate::domain::ids::{ConnectionName, Lane};
use crate::policy::window::{Heard, NotUntil, Share, Window};

use super::event::{Event, Observer};
use super::ports::{Account, Ask, Budget, NotNow, Permit};

/// Requests at once per connection: 80 % of the half that one token gets of an org's 75 ("Concurrent
/// rate limits", `defaultConcurrencyPercentage`).
const CONCURRENT_MAX: usize = 30;

/// Of these, kept free for the interactive lane.
const CONCURRENT_INTERACTIVE: usize = 2;

/// Requests per window while Okta announces no limit: the usual bucket of a paid org.
const UNANNOUNCED_LIMIT: u32 = 600;

/// The longest the head of a lane sleeps before it looks again without being told to.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Tokio's clock for `governor`, so that paused time pauses both.
#[derive(Debug, Clone, Copy)]
struct TokioClock(Instant);

impl governor::clock::Clock for TokioClock {
    type Instant = Duration;
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

type Ceiling = RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Duration>>;

/// The gate of one connection.
pub struct Gate {
    lines: [Line; Bucket::ALL.len()],
    slots: Slots,
    share: Share,
    connection: ConnectionName,
    observer: Arc<dyn Observer>,
}

/// One bucket: its window, its ceiling, and who stands in line.
struct Line {
    state: Mutex<LineState>,
    /// One turn per lane: only the head of a lane asks, so nobody overtakes and nobody wakes a herd.
    turns: [Semaphore; 2],
    waiting: [AtomicUsize; 2],
    /// The head of a lane may ask again.
    changed: Notify,
    /// The bucket has just become exhausted: whoever stands in line may know now that it is in vain.
    exhausted: Notify,
}

struct LineState {
    window: Window,
    ceiling: Ceiling,
    quota: u32,
    exhausted: bool,
}

/// Requests in flight, whatever the bucket.
struct Slots {
    all: Semaphore,
    bulk: Semaphore,
}

impl Gate {
    /// The gate of a connection that uses this share.
    pub fn new(connection: ConnectionName, share: Share, observer: Arc<dyn Observer>) -> Arc<Self> {
        let line = || Line {
            state: Mutex::new(LineState {
                window: Window::new(share),
                ceiling: ceiling(UNANNOUNCED_LIMIT, share),
                quota: UNANNOUNCED_LIMIT,
                exhausted: false,
            }),
            turns: [Semaphore::new(1), Semaphore::new(1)],
            waiting: [AtomicUsize::new(0), AtomicUsize::new(0)],
            changed: Notify::new(),
            exhausted: Notify::new(),
        };
        Arc::new(Self {
            lines: std::array::from_fn(|_| line()),
            slots: Slots {
                all: Semaphore::new(CONCURRENT_MAX),
                bulk: Semaphore::new(CONCURRENT_MAX - CONCURRENT_INTERACTIVE),
            },
            share,
            connection,
            observer,
        })
    }

    fn line(&self, bucket: Bucket) -> &Line {
        &self.lines[bucket as usize]
    }

    /// Asks window and ceiling once.
    fn ask(&self, bucket: Bucket) -> Result<(), NotUntil> {
        let now = Instant::now();
        let mut state = self.line(bucket).state.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = state.window.admit(now.into_std()).and_then(|()| {
            state.ceiling.check().map_err(|refused| {
                state.window.withdraw();
                let wait = refused.wait_time_from(state.ceiling.clock().now());
                NotUntil::At((now + wait).into_std())
            })
        });
        let newly = match asked {
            Err(NotUntil::At(until)) if !std::mem::replace(&mut state.exhausted, true) => Some(until),
            Ok(()) => {
                state.exhausted = false;
                None
            }
            Err(_) => None,
        };
        drop(state);
        if let Some(until) = newly {
            let wait = until.saturating_duration_since(now.into_std());
            self.line(bucket).exhausted.notify_waiters();
            self.observer.note(&Event::BucketExhausted { connection: &self.connection, bucket, wait });
        }
        asked
    }

    /// Waits in line for a lane's turn and then for the budget, unless that is in vain.
    async fn wait(&self, bucket: Bucket, lane: Lane, not_after: Option<Instant>) -> Result<(), NotNow> {
        let line = self.line(bucket);
        let _standing = Standing::new(line, lane);
        let turn = line.turns[lane as usize].acquire();
        tokio::pin!(turn);
        let _turn = loop {
            let exhausted = line.exhausted.notified();
            self.check_hope(bucket, not_after)?;
            tokio::select! {
                biased;
                turn = &mut turn => break turn.expect("the line is never closed"),
                () = exhausted => {}
            }
        };
        loop {
            let changed = line.changed.notified();
            let yields =
                lane == Lane::Bulk && line.waiting[Lane::Interactive as usize].load(Ordering::Relaxed) > 0;
            let asked = if yields { Err(NotUntil::NextAnswer) } else { self.ask(bucket) };
            let look_again = match asked {
                Ok(()) => return Ok(()),
                Err(NotUntil::At(until)) => Instant::from_std(until),
                Err(NotUntil::NextAnswer) => Instant::now() + LOOK_AGAIN,
            };
            if matches!(asked, Err(NotUntil::At(_))) && not_after.is_some_and(|at| at < look_again) {
                return Err(NotNow::NotBefore(look_again));
            }
            tokio::select! {
                () = sleep_until(look_again) => {}
                () = changed => {}
            }
        }
    }

    /// Refuses who would wait in vain.
    fn check_hope(&self, bucket: Bucket, not_after: Option<Instant>) -> Result<(), NotNow> {
        let Some(not_after) = not_after else { return Ok(()) };
        let state = self.line(bucket).state.lock().unwrap_or_else(PoisonError::into_inner);
        let not_before = Instant::from_std(state.window.not_before(Instant::now().into_std()));
        if not_after < not_before { Err(NotNow::NotBefore(not_before)) } else { Ok(()) }
    }

    /// Waits for the budget and then for a slot.
    async fn let_through(
        self: &Arc<Self>,
        bucket: Bucket,
        lane: Lane,
        not_after: Option<Instant>,
    ) -> Result<Permit, NotNow> {
        let line = self.line(bucket);
        let nobody_waits = line.waiting.iter().all(|waiting| waiting.load(Ordering::Relaxed) == 0);
        if !(nobody_waits && self.ask(bucket).is_ok()) {
            self.wait(bucket, lane, not_after).await?;
        }
        // The slot comes last, so that nobody holds one while waiting for a bucket.
        let unused = Unused(line);
        self.slots.take(lane).await;
        std::mem::forget(unused);
        Ok(Permit::new(Arc::<Gate>::clone(self), bucket, lane))
    }
}

/// Counts itself among those who wait, for as long as it lives.
struct Standing<'a> {
    line: &'a Line,
    lane: Lane,
}

impl<'a> Standing<'a> {
    fn new(line: &'a Line, lane: Lane) -> Self {
        line.waiting[lane as usize].fetch_add(1, Ordering::Relaxed);
        Self { line, lane }
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.line.waiting[self.lane as usize].fetch_sub(1, Ordering::Relaxed);
        self.line.changed.notify_waiters(); // the bulk lane yields to whoever waits in front of it
    }
}

/// A limiter with this quota for a window, all of it at once: the window paces, not this.
fn ceiling(limit: u32, share: Share) -> Ceiling {
    let ours = u64::from(limit) * u64::from(share.capacity_percent) / 100;
    let ours = u32::try_from(ours).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
    let quota = Quota::with_period(share.length / ours.get())
        .unwrap_or_else(|| Quota::per_second(ours))
        .allow_burst(ours);
    RateLimiter::direct_with_clock(quota, TokioClock(Instant::now()))
}

impl LineState {
    fn settle(&mut self, heard: Heard, share: Share) {
        self.window.settle(heard);
        // Swapped whole only when the announcement changes: a quota cannot change in place, and carried
        // over state blocked for as long as the old limiter had lived (measured).
        if let Some(limit) = self.window.limit()
            && limit != self.quota
        {
            self.ceiling = ceiling(limit, share);
            self.quota = limit;
        }
    }
}

#[async_trait]
impl Budget for Arc<Gate> {
    async fn admit(&self, ask: Ask<'_>) -> Result<Permit, NotNow> {
        let (lane, not_after) = (ask.lane, ask.not_after);
        let bucket = Bucket::of(ask.method, ask.route);
        let permit = self.let_through(bucket, lane, not_after);
        match not_after {
            None => permit.await,
            Some(at) if at <= Instant::now() => Err(NotNow::Passed),
            Some(at) => timeout_at(at, permit).await.unwrap_or(Err(NotNow::Passed)),
        }
    }
}

/// An admission that is taken back unless it is used.
struct Unused<'a>(&'a Line);

impl Drop for Unused<'_> {
    fn drop(&mut self) {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).window.withdraw();
        self.0.changed.notify_waiters();
    }
}

impl Slots {
    async fn take(&self, lane: Lane) {
        let bulk = match lane {
            Lane::Bulk => Some(self.bulk.acquire().await.expect("slots are never closed")),
            Lane::Interactive => None,
        };
        self.all.acquire().await.expect("slots are never closed").forget();
        bulk.into_iter().for_each(tokio::sync::SemaphorePermit::forget);
    }

    fn release(&self, lane: Lane) {
        self.all.add_permits(1);
        if lane == Lane::Bulk {
            self.bulk.add_permits(1);
        }
    }
}

impl Account for Gate {
    fn settle(&self, bucket: Bucket, lane: Lane, heard: Heard) {
        let line = self.line(bucket);
        line.state.lock().unwrap_or_else(PoisonError::into_inner).settle(heard, self.share);
        line.changed.notify_waiters();
        self.slots.release(lane);
    }
}
