//! What is run: which controller, how many workers, and whether somebody else uses the org too.

use std::fmt;
use std::time::Duration;

/// The length of a window: a quarter of Okta's, so that a dozen fit into three minutes.
pub const WINDOW: Duration = Duration::from_secs(15);

/// Requests per window: the usual bucket of a paid org.
pub const LIMIT: u32 = 600;

/// How long an answer of the org takes: a quick one of Okta's, shortened like the window.
pub const LATENCY: Duration = Duration::from_millis(20);

/// How much of the limit somebody else asks for.
const COMPETING_PERCENT: u32 = 30;

/// Windows that are not measured: controllers learn in the first, and those that were refused in it come
/// back in the second.
pub const WARM_UP: usize = 2;

/// Who decides when a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Our worker.
    Worker,
    /// A client as the SDKs are: it sends, and sleeps when it is refused.
    Sdk,
    /// A client that knows the limit and the number of workers, and paces itself.
    Static,
}

impl Controller {
    const ALL: [Self; 3] = [Self::Worker, Self::Sdk, Self::Static];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Sdk => "sdk",
            Self::Static => "static",
        }
    }
}

/// Who else uses the org.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// Nobody.
    Absent,
    /// A client with a token of its own, that sends when it likes.
    Competing,
}

impl Others {
    /// Requests per second, on average.
    pub fn per_second(self) -> f64 {
        match self {
            Self::Absent => 0.0,
            Self::Competing => f64::from(LIMIT * COMPETING_PERCENT) / 100.0 / WINDOW.as_secs_f64(),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "alone",
            Self::Competing => "competing",
        }
    }
}

/// One setting that is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub controller: Controller,
    pub workers: u32,
    pub others: Others,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.controller.as_str(), self.workers, self.others.as_str())
    }
}

/// Every controller with each number of workers, alone and with others.
pub fn all(workers: &[u32]) -> Vec<Row> {
    let mut rows = Vec::new();
    for others in [Others::Absent, Others::Competing] {
        for controller in Controller::ALL {
            rows.extend(workers.iter().map(|&workers| Row { controller, workers, others }));
        }
    }
    rows
}

/// What a quick run asks of our worker: many that must not race each other, and one beside others. Several
/// beside others are refused now and then, whoever is asked.
pub fn quick() -> Vec<Row> {
    let row = |(workers, others)| Row { controller: Controller::Worker, workers, others };
    [(8, Others::Absent), (1, Others::Competing)].map(row).into()
}
