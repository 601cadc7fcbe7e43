//! A crowd in front of the budget: whoever is expected is told to come again, all others go on to the gate.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use okta_worker::budget::permit::{Ask, Budget, NotNow, Permit, WhenBusy};
use okta_worker::domain::bucket::Bucket;

/// Who is to come again after how long, in order.
#[derive(Default)]
pub struct Crowd(Mutex<VecDeque<(Bucket, Duration)>>);

impl Crowd {
    /// One more.
    pub fn expect(&self, bucket: Bucket, wait: Duration) {
        self.0.lock().unwrap().push_back((bucket, wait));
    }

    /// Nobody else is expected.
    pub fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    /// Whether everybody came who was expected.
    pub fn is_gone(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }

    /// The budget with the crowd before it.
    pub fn before(self: &Arc<Self>, budget: Arc<dyn Budget>) -> impl Budget + use<> {
        Behind { crowd: Arc::clone(self), budget }
    }

    fn turns_away(&self, ask: Ask<'_>) -> Option<Duration> {
        if ask.when_busy == WhenBusy::Wait {
            return None;
        }
        let mut expected = self.0.lock().unwrap();
        let asks_for = Bucket::of(ask.method, ask.route);
        let at = expected.iter().position(|(bucket, _)| *bucket == asks_for)?;
        expected.remove(at).map(|(_, wait)| wait)
    }
}

struct Behind {
    crowd: Arc<Crowd>,
    budget: Arc<dyn Budget>,
}

#[async_trait]
impl Budget for Behind {
    async fn admit(&self, ask: Ask<'_>) -> Result<Permit, NotNow> {
        match self.crowd.turns_away(ask) {
            Some(wait) => Err(NotNow::Delay(wait)),
            None => self.budget.admit(ask).await,
        }
    }
}
