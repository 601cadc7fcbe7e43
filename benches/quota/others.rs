//! Somebody else who uses the org: requests at random moments, whatever becomes of them.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Not the token of whoever is measured.
const TOKEN: &str = "somebody-elses-token";

/// Sends requests as a Poisson process, until it is dropped. None is repeated.
pub async fn send(base_url: String, users: Vec<String>, per_second: f64) {
    let http = reqwest::Client::new();
    let mut under_way = JoinSet::new();
    // Each moment follows from the last planned one, so that a late timer does not lower the rate.
    let mut next = Instant::now();
    loop {
        next += Duration::from_secs_f64(-(1.0 - fastrand::f64()).ln() / per_second);
        sleep_until(next).await;
        while under_way.try_join_next().is_some() {}
        let user = &users[fastrand::usize(..users.len())];
        let request = http
            .get(format!("{base_url}/api/v1/users/{user}"))
            .header("authorization", format!("SSWS {TOKEN}"));
        under_way.spawn(async move {
            let answered = async { request.send().await?.bytes().await }.await;
            if let Err(error) = answered {
                eprintln!("quota: somebody else's request failed: {error}");
            }
        });
    }
}
