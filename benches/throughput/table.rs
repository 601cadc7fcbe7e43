//! The figures, round by round, and the medians of their ratios.

use std::fmt;
use std::time::Duration;

/// One round of one of the two.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Messages answered.
    pub messages: usize,
    /// From the first message to the last answer.
    pub took: Duration,
    /// CPU time of the process.
    pub cpu: Duration,
}

impl Row {
    fn per_second(&self) -> f64 {
        self.messages as f64 / self.took.as_secs_f64()
    }

    /// Milliseconds of CPU per thousand messages.
    fn cpu_ms(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.messages as f64
    }
}

/// All rounds.
pub struct Table {
    messages: usize,
    rounds: Vec<(Row, Row)>,
}

impl Table {
    pub fn new(messages: usize) -> Self {
        Self { messages, rounds: Vec::new() }
    }

    pub fn add(&mut self, worker: Row, thin: Row) {
        self.rounds.push((worker, thin));
    }

    /// How many times the thin loop's CPU the worker needs, in the median round.
    pub fn cpu_ratio(&self) -> f64 {
        self.median(|worker, thin| worker.cpu_ms() / thin.cpu_ms())
    }

    fn throughput_ratio(&self) -> f64 {
        self.median(|worker, thin| worker.per_second() / thin.per_second())
    }

    fn median(&self, of: impl Fn(&Row, &Row) -> f64) -> f64 {
        let mut all: Vec<f64> = self.rounds.iter().map(|(worker, thin)| of(worker, thin)).collect();
        all.sort_by(f64::total_cmp);
        let middle = all.len() / 2;
        match all.len() {
            0 => f64::NAN,
            count if count % 2 == 1 => all[middle],
            _ => (all[middle - 1] + all[middle]) / 2.0,
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} messages a round; CPU in ms per 1,000 messages, of the process alone",
            self.messages
        )?;
        writeln!(f)?;
        writeln!(f, "| round | worker msg/s | thin msg/s | ratio | worker CPU | thin CPU | ratio |")?;
        writeln!(f, "|---:|---:|---:|---:|---:|---:|---:|")?;
        let mut line = |name: &str, rates: (f64, f64, f64), cpu: (f64, f64, f64)| {
            writeln!(
                f,
                "| {name} | {:.0} | {:.0} | {:.2} | {:.0} | {:.0} | {:.2} |",
                rates.0, rates.1, rates.2, cpu.0, cpu.1, cpu.2
            )
        };
        for (at, (worker, thin)) in self.rounds.iter().enumerate() {
            let (rate, bare) = (worker.per_second(), thin.per_second());
            let (cpu, least) = (worker.cpu_ms(), thin.cpu_ms());
            line(&(at + 1).to_string(), (rate, bare, rate / bare), (cpu, least, cpu / least))?;
        }
        let rates = (self.median(|w, _| w.per_second()), self.median(|_, t| t.per_second()));
        let cpu = (self.median(|w, _| w.cpu_ms()), self.median(|_, t| t.cpu_ms()));
        line("median", (rates.0, rates.1, self.throughput_ratio()), (cpu.0, cpu.1, self.cpu_ratio()))
    }
}
