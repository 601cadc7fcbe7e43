//! `[telemetry]`: address of the metrics and format of log lines.

use std::net::SocketAddr;

use crate::telemetry::log::LogFormat;

use super::section::Section;

/// The settings of metrics and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Telemetry {
    /// The address of `/metrics`, `/healthz` and `/readyz`.
    pub listen: SocketAddr,
    /// The format of log lines.
    pub log_format: LogFormat,
}

/// Reads `[telemetry]`.
pub(super) fn read(mut section: Section<'_>) -> Option<Telemetry> {
    let listen = section.need("listen").and_then(|entry| entry.parsed(address));
    let log_format = section.need("log_format").and_then(|entry| entry.parsed(log_format));
    section.not_yet("otlp_endpoint");
    section.close();
    Some(Telemetry { listen: listen?, log_format: log_format? })
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.trim().parse().map_err(|_| "must be an address and a port, such as `127.0.0.1:9464`".to_owned())
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "json" => Ok(LogFormat::Json),
        "text" => Ok(LogFormat::Text),
        _ => Err("must be `json` or `text`".to_owned()),
    }
}
