//! All numbers of the budget, with their reasons. "Measured" refers to the model of docs/quota.md.

use std::time::Duration;

/// The resolution of Okta's times: a window's end is rounded down to whole seconds, so the true end lies up to
/// one second later (recorded: a `Date` equal to `reset` with the old window). Two `Date` headers that show the
/// same second may also differ by this much.
pub const WHOLE_SECOND: Duration = Duration::from_secs(1);

/// The difference below which resets name the same window: the servers of an org may round differently. A true next
/// window is a whole length away. For shorter windows, as in tests, a fifth of the length.
pub const SAME_WINDOW_SECONDS: i64 = 3;

/// The time for which a bucket is blocked after a 429 without a reset.
pub const SILENT_BLOCK: Duration = Duration::from_secs(5);

/// The time that a probe, a request to find out what a bucket has left, may take before another one is sent: a hanging
/// probe would block all requests until its timeout. Of a thousand answers ten take longer than 0.8 s.
pub const PROBE_AGAIN: Duration = Duration::from_secs(3);

/// The time for which a bucket's reset header is ignored after a window has lasted longer than it announced: long
/// enough that an org with a wrong clock causes one mistake a day.
pub const DISTRUST: Duration = Duration::from_secs(24 * 60 * 60);

/// The first wait before an overdue window is probed again; doubled each time up to the maximum.
pub const LATE_FLIP_WAIT: Duration = Duration::from_millis(500);
/// The longest such wait; a window that is even later is detected after the length of another window.
pub const LATE_FLIP_WAIT_MAX: Duration = Duration::from_secs(8);

/// The largest drift between two clocks, in seconds per second.
pub const CLOCK_DRIFT: f64 = 0.001;

/// The margin that bulk work leaves for others' unseen requests, in standard deviations of their number. At 600 a
/// minute, 8 workers and 30 % of external traffic, a margin of 1.5 used 99.43 % with 2 refusals in 90,000 requests; 2.0
/// used some 0.1 points less, without a refusal.
pub const Z_BULK: f64 = 2.0;

/// The same for interactive work, which justifies more risk and uses little of the window.
pub const Z_INTERACTIVE: f64 = 1.0;

/// The variance of others' unseen requests if every worker sends signals: two workers may still send the last request
/// of a window at once. With 0.25 that happened once in a million requests, at 600 a minute without external traffic;
/// with 0.5 it did not happen.
pub const SLACK_GOSSIP: f64 = 0.5;

/// The same per worker if no signals arrive.
pub const SLACK_PER_SILENT_WORKER: f64 = 1.0 / 6.0;

/// The part of the remaining window up to which waiting work is sent at once; the rest is for new arrivals.
pub const FIT: f64 = 0.5;

/// The shortest time over which the rest of a window is spread, in seconds: two latencies. A shorter one would send
/// the rest into a window that may just have ended.
pub const SPREAD_SECONDS_MIN: f64 = 0.2;

/// The least part of the pace that our workers keep, however many requests others seem to send.
pub const PACE_MIN_PART: f64 = 0.2;

/// The same without signals between workers, divided by their number.
pub const PACE_MIN_PART_SILENT: f64 = 0.1;

/// The time before its latest end, in seconds, by which a window should be used up: that end is an upper bound, a
/// latency or two late, and requests that are left at the true end are lost. Measured at 600 a minute, 8 workers:
/// without a lead, 99.1 % were used with external traffic and 99.3 % without it; with 0.3 s, 0.2 points more; with
/// 0.8 s more still, but nothing was left in the last second for other clients and interactive requests.
pub const LEAD_SECONDS: f64 = 0.4;

/// The most credit that the pace may save up, in seconds: enough for a late timer, too little for a burst.
pub const CREDIT_SECONDS: f64 = 0.1;

/// The most requests in flight before the first answer of a new window, in seconds of the pace.
pub const UNCONFIRMED_SECONDS: f64 = 0.5;

/// The number of requests of a window per worker that may open it: enough to open it at once, too few to matter.
pub const OPENERS_PART: u32 = 10;

/// The number of our own requests over which observations of others' requests fade, within the bounds below: fast
/// enough to notice the start of a job, slow enough not to mistake chance for a trend.
pub const FLOW_REQUESTS: f64 = 10.0;
/// The shortest fading time, in seconds.
pub const FLOW_SECONDS_MIN: f64 = 10.0;
/// The longest fading time, in seconds.
pub const FLOW_SECONDS_MAX: f64 = 90.0;

/// The shortest time, in seconds, over which the rate of others is computed: one of their requests within a few
/// milliseconds of ours does not mean hundreds of requests a second.
pub const FLOW_SPAN_MIN: f64 = 1.0;

/// The shortest time without an answer after which a bucket is stale, in seconds.
pub const STALE_SECONDS: f64 = 2.0;
/// The same as a multiple of the usual gap; the longer of both applies.
pub const STALE_GAPS: f64 = 3.0;
/// The part of a stale bucket's window that must have been left before the interactive lane may probe.
pub const STALE_PART_INTERACTIVE: f64 = 0.10;
/// The same for the bulk lane.
pub const STALE_PART_BULK: f64 = 0.25;

/// The number of its own gaps between requests after which a silent replica counts as idle, within these
/// bounds: one lost signal does not make a replica idle.
pub const SIBLING_GAPS: f64 = 3.0;
/// The shortest such silence, in seconds.
pub const SIBLING_SECONDS_MIN: f64 = 2.0;
/// The longest such silence, in seconds: three signals of an idle worker.
pub const SIBLING_SECONDS_MAX: f64 = 15.0;

/// The time in seconds within which the signal of a worker with requests arrives; a longer silence means no requests.
pub const SIGNAL_SECONDS: f64 = 0.15;

/// The most workers remembered by their signals; further ones matter only by their number.
pub const SIBLINGS_MAX: usize = 256;

/// The factor for our share after each window in which a wider limit than the bucket's own was spent.
pub const OUTER_SHRINK: f64 = 0.85;
/// The part by which the share grows again with each window in which the wider limit was not spent.
pub const OUTER_GROWTH: f64 = 0.01;
/// The smallest share, so that a recovery is noticed.
pub const OUTER_MIN: f64 = 0.1;

/// Default for concurrent requests per connection: an org has 75, one token gets half of them ("Concurrent rate
/// limits", `defaultConcurrencyPercentage`), and the worker uses 80 % of that half.
pub const CONCURRENT_MAX: u32 = 30;

/// The number of recent worker counts whose maximum applies to concurrency. Workers count so often that every worker
/// has counted a new one before the new one has counted itself this many times.
pub const CONCURRENT_COUNTS: usize = 3;

/// The number of workers that a new worker assumes at first: a deployment starts several at once.
pub const CONCURRENT_NEWCOMERS: u32 = 8;

/// The most concurrent requests reserved for the interactive lane, at most a quarter of all.
pub const CONCURRENT_INTERACTIVE: u32 = 2;

/// The factor for the concurrency cap after a 429 about concurrency.
pub const CONCURRENT_SHRINK: f64 = 0.75;

/// The shortest time between two such reductions: all requests in flight at once get the same refusal.
pub const CONCURRENT_SHRINK_EVERY: Duration = Duration::from_secs(1);

/// The time without such a 429 after which the concurrency cap grows by one.
pub const CONCURRENT_GROW_EVERY: Duration = Duration::from_secs(10);

/// Requests per window while Okta announces no limit: the usual bucket of a paid org.
pub const UNANNOUNCED_LIMIT: u32 = 600;

/// The number of contradictions after which a route is split off: the route showed another window than the rest of its
/// bucket gate, and the rest then showed the old window again. A single contradiction may be a limit that was lowered
/// and raised.
pub const SPLIT_CONTRADICTIONS: u32 = 2;

/// The divisor of a window's length that gives the least time between two such proofs, 3 s of a minute: servers that
/// learn late of a new window may contradict each other within a shorter time.
pub const KEYS_APART_PART: u32 = 20;

/// The number of times that each of two ledgers must have fallen after the other in a window, counted at most once per
/// [`KEYS_APART_PART`] of it: two separate counters under even use may fall side by side for a while.
pub const MERGE_TURNS: u32 = 6;

/// The number of consecutive windows, without a contradiction in between, that prove a merge: the first may be chance.
pub const MERGE_WINDOWS: u32 = 2;

/// The rise of `remaining` within a window that one counter cannot show: of 959 recorded steps some were off by
/// one to three requests.
pub const RISE_MIN: u32 = 4;
