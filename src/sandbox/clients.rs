//! Client numbers: each credential gets a number, in the order in which they first appear.
//!
//! The numbers distinguish the clients whose requests filled a window. A credential stays in this module.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::domain::secret::Secret;

/// The most clients distinguished: a test has one or two, and a caller with ever new tokens must not fill the memory.
const CLIENTS_MAX: usize = 8;

/// Every credential seen, accepted or not. Requests without a credential also count as one client.
#[derive(Debug, Default)]
pub(super) struct Clients(Vec<Secret>);

impl Clients {
    /// Returns the number of the client that sent these headers. Past the limit all clients share the last number.
    pub(super) fn number(&mut self, headers: &HeaderMap) -> usize {
        let given = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let given = given.trim(); // as a `Secret` keeps it
        if let Some(known) = self.0.iter().position(|known| known.expose() == given) {
            return known;
        }
        if self.0.len() < CLIENTS_MAX {
            self.0.push(Secret::new(given));
        }
        self.0.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(credential: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, credential.parse().unwrap())])
    }

    #[test]
    fn clients_are_numbered_as_they_come_and_never_named() {
        let mut clients = Clients::default();
        let order = ["SSWS first", "SSWS second", "SSWS first"];
        assert_eq!(order.map(|credential| clients.number(&with(credential))), [0, 1, 0]);
        assert_eq!([clients.number(&HeaderMap::new()), clients.number(&HeaderMap::new())], [2, 2]);
        assert!(!format!("{clients:?}").contains("first"));
    }

    #[test]
    fn ever_new_clients_share_the_last_number() {
        let mut clients = Clients::default();
        let last = (0..100).map(|new| clients.number(&with(&format!("SSWS {new}")))).max();
        assert_eq!(last, Some(CLIENTS_MAX - 1));
        assert_eq!(clients.number(&with("SSWS 0")), 0);
    }
}
