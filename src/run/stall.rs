//! Changes and removals that wait for the source: after a while the log says for which scope.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Pipeline;
use crate::publish::Publisher;

/// How long the pipeline waits for a scope before the log says so. A list takes less.
const QUIET_MAX: Duration = Duration::from_secs(30);

/// The log's side of a wait.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// What the pipeline waits for, and since when.
    waiting: Option<(String, Instant)>,
    is_logged: bool,
}

impl Stall {
    /// Waits until the log is to name what the pipeline waits for.
    pub async fn due(&self) {
        match self.waiting {
            Some((_, since)) if !self.is_logged => sleep_until(since + QUIET_MAX).await,
            _ => std::future::pending().await,
        }
    }

    fn update(&mut self, why: Option<String>) {
        if self.waiting.as_ref().map(|(before, _)| before) == why.as_ref() {
            return;
        }
        if why.is_none() && std::mem::take(&mut self.is_logged) {
            tracing::info!(event = "stall_over", "nothing waits for the source any more");
        }
        let since = self.waiting.as_ref().map_or_else(Instant::now, |(_, since)| *since);
        self.waiting = why.map(|why| (why, since));
    }
}

impl Pipeline {
    /// Describes what changes and removals wait for, a line for each scope and reason. Empty if nothing waits.
    pub(super) fn waits(&self) -> Vec<String> {
        let mut waits = Vec::new();
        if !self.publisher.iter().all(Publisher::is_at_rest) {
            waits.extend(self.plan.unlisted().map(|scope| format!("changes wait for the first list of {scope}")));
            let lost = self.resync.outstanding().map(|id| self.plan.scope(id));
            waits.extend(lost.map(|scope| format!("changes wait for a list of {scope}, because a write failed")));
        }
        let (scopes, count) = self.removals.unconfirmed();
        let scopes = scopes.map(|id| self.plan.scope(id));
        waits.extend(scopes.map(|scope| format!("{count} removals wait until {scope} confirms them by a list")));
        waits
    }

    /// Notes what the pipeline waits for.
    pub(super) fn note_stall(&mut self) {
        let waits = self.waits();
        self.stall.update((!waits.is_empty()).then(|| waits.join(", ")));
    }

    /// Says what the pipeline has waited for too long.
    pub(super) fn tell_stall(&mut self) {
        if let Some((why, _)) = &self.stall.waiting {
            self.stall.is_logged = true;
            tracing::warn!(
                event = "stalled",
                "{why}; see `failure` of the scope in /status, or the line about it above"
            );
        }
    }
}
