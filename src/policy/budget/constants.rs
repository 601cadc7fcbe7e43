//! Every number of the budget, with its reason. Measured means: in the model of docs/quota.md.

use std::time::Duration;

/// Okta names the end of a window in whole seconds, rounded down: the true end lies up to one second
/// behind it (recorded: a `Date` equal to `reset` with the old window). So do two `Date` headers that
/// show the same second.
pub const WHOLE_SECOND: Duration = Duration::from_secs(1);

/// Resets this close name the same window: the servers of an org need not round alike. A true next window
/// is a whole length away. Of shorter windows, as tests have them, a fifth.
pub const SAME_WINDOW_SECONDS: i64 = 3;

/// How long a bucket is left alone after a 429 that did not say until when.
pub const SILENT_BLOCK: Duration = Duration::from_secs(5);

/// The time that a probe, a request that is to tell what a bucket has, may take before another one goes: a probe that
/// hangs would otherwise hold up everybody until it times out. Of a thousand answers ten take longer than 0.8 s.
pub const PROBE_AGAIN: Duration = Duration::from_secs(3);

/// How long the reset header of a bucket is not trusted after a window outlived it: long enough that an
/// org whose clock is wrong costs one mistake a day.
pub const DISTRUST: Duration = Duration::from_secs(24 * 60 * 60);

/// The first wait before a window that should have ended is asked again; doubled each time up to the most.
pub const LATE_FLIP_WAIT: Duration = Duration::from_millis(500);
/// The longest such wait: a window that is later than that is found by the next length.
pub const LATE_FLIP_WAIT_MAX: Duration = Duration::from_secs(8);

/// Two clocks drift apart by less than this, in seconds per second.
pub const CLOCK_DRIFT: f64 = 0.001;

/// Standard deviations of what others may have taken unseen that bulk work leaves untouched. At 600 a
/// minute, 8 workers and 30 % of others, 1.5 used 99.43 % at 2 refusals in 90,000, 2.0 some 0.1 points
/// less at none.
pub const Z_BULK: f64 = 2.0;

/// The same for interactive work, which is worth a little more risk than it takes of the window.
pub const Z_INTERACTIVE: f64 = 1.0;

/// Requests of unseen others, as a variance, where every worker tells what it sees: two may still take
/// the last one together. With 0.25 that happened once in a million requests, at 600 a minute and nobody
/// else; with 0.5 it did not.
pub const SLACK_GOSSIP: f64 = 0.5;

/// The same per worker where nobody tells.
pub const SLACK_PER_SILENT_WORKER: f64 = 1.0 / 6.0;

/// Work that fits into this part of what is left goes at once; the rest is left for who comes meanwhile.
pub const FIT: f64 = 0.5;

/// The shortest time over which a rest is spread, in seconds: two latencies. Shorter would send what is
/// left into a window that may just have ended.
pub const SPREAD_SECONDS_MIN: f64 = 0.2;

/// The least part of the pace that others, however many they seem to be, leave to us.
pub const PACE_MIN_PART: f64 = 0.2;

/// The same where workers do not tell each other, divided by their number.
pub const PACE_MIN_PART_SILENT: f64 = 0.1;

/// So long before its latest end, in seconds, a window should be used up: that end is an upper bound, a
/// latency or two late, and what is left when the true end comes is lost. Measured at 600 a minute, 8
/// workers: without it 99.1 % were used with others and 99.3 % alone, with 0.3 s 0.2 points more; with
/// 0.8 s more still, but the last second was empty for everybody else and for those who wait.
pub const LEAD_SECONDS: f64 = 0.4;

/// How much of the pace may be saved up, in seconds: what a timer is late, not a burst.
pub const CREDIT_SECONDS: f64 = 0.1;

/// Until the first answer of a new window, as much of the pace may be in flight, in seconds.
pub const UNCONFIRMED_SECONDS: f64 = 0.5;

/// One in so many requests of a window may open it: enough that it opens at once, too few to matter.
pub const OPENERS_PART: u32 = 10;

/// What was seen of others is forgotten over this many of our own requests, in these bounds: fast enough
/// to see a job of theirs begin, slow enough not to take chance for a trend.
pub const FLOW_REQUESTS: f64 = 10.0;
/// The shortest memory, in seconds.
pub const FLOW_SECONDS_MIN: f64 = 10.0;
/// The longest memory, in seconds.
pub const FLOW_SECONDS_MAX: f64 = 90.0;

/// The shortest time, in seconds, over which a rate of others is told: one request of theirs within some
/// milliseconds of ours is no hundreds a second.
pub const FLOW_SPAN_MIN: f64 = 1.0;

/// A bucket is stale when nobody asked it for so long, in seconds, and for this many times the usual gap.
pub const STALE_SECONDS: f64 = 2.0;
/// See [`STALE_SECONDS`].
pub const STALE_GAPS: f64 = 3.0;
/// What must have been left of a stale bucket's window for one probe by the interactive lane.
pub const STALE_PART_INTERACTIVE: f64 = 0.10;
/// The same for the bulk lane.
pub const STALE_PART_BULK: f64 = 0.25;

/// A worker that was not heard for this many of its own gaps between requests is not at work, in these
/// bounds: a lost signal is no absence.
pub const SIBLING_GAPS: f64 = 3.0;
/// The shortest such silence, in seconds.
pub const SIBLING_SECONDS_MIN: f64 = 2.0;
/// The longest such silence, in seconds: three of the signals that even an idle worker sends.
pub const SIBLING_SECONDS_MAX: f64 = 15.0;

/// A worker that sends says so within this many seconds, its way included; silence beyond is no work.
pub const SIGNAL_SECONDS: f64 = 0.15;

/// The most workers that are remembered by their signals; more than that share one org by count alone.
pub const SIBLINGS_MAX: usize = 256;

/// How much of the share a wider limit leaves after each of its windows that was found spent.
pub const OUTER_SHRINK: f64 = 0.85;
/// How much is given back with each window that ended without it.
pub const OUTER_GROWTH: f64 = 0.01;
/// The least that is kept, so that a recovery is ever seen.
pub const OUTER_MIN: f64 = 0.1;

/// Requests at once per connection: 80 % of the half that one token gets of an org's 75 ("Concurrent rate
/// limits", `defaultConcurrencyPercentage`).
pub const CONCURRENT_MAX: u32 = 30;

/// So many of the last counts of the workers matter for it. The broker is asked often enough that each
/// worker has counted a newcomer before that has counted itself so often.
pub const CONCURRENT_COUNTS: usize = 3;

/// A worker that has just come takes so many to have come with it: a deployment starts them together.
pub const CONCURRENT_NEWCOMERS: u32 = 8;

/// Of the requests at once, at most this many are kept for the interactive lane, and at most a quarter.
pub const CONCURRENT_INTERACTIVE: u32 = 2;

/// What a 429 about concurrency leaves of the requests at once.
pub const CONCURRENT_SHRINK: f64 = 0.75;

/// At most one such step in this time: all that were in flight together are told the same.
pub const CONCURRENT_SHRINK_EVERY: Duration = Duration::from_secs(1);

/// One more request at once is tried after this long without such a 429.
pub const CONCURRENT_GROW_EVERY: Duration = Duration::from_secs(10);

/// Requests per window while Okta announces no limit: the usual bucket of a paid org.
pub const UNANNOUNCED_LIMIT: u32 = 600;

/// How often a route must show another window than the rest of its line, and the rest the old one again,
/// before it gets a ledger of its own: once may be a limit that was lowered and raised.
pub const SPLIT_CONTRADICTIONS: u32 = 2;

/// Such proofs count as two when this part of a window lies between them, 3 s of a minute: servers that
/// hear late of a window that has turned may contradict each other for less.
pub const KEYS_APART_PART: u32 = 20;

/// How often each of two ledgers must have followed the other and fallen, in a window: at most once in
/// that part of it, because two counters that are used evenly may fall side by side for a while.
pub const MERGE_TURNS: u32 = 6;

/// In so many windows, without a word against it in between: the first may be chance.
pub const MERGE_WINDOWS: u32 = 2;

/// A rise of `remaining` within a window that no one counter shows: of 959 recorded steps some were a
/// request or three off.
pub const RISE_MIN: u32 = 4;
