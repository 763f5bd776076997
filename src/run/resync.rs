//! Changes that failed on disk are tried again with backoff. If a content was lost, its scope is asked to report everything
//! again.

use std::collections::BTreeSet;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::event::ScopeId;

/// The wait after the first failure; it doubles each time…
const WAIT_MIN: Duration = Duration::from_secs(1);
/// …up to this.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// How many failures are told before it is enough.
const TOLD_MAX: usize = 20;

/// How far a scope is with what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Round {
    Done,
    /// Its next list will be the answer; one that had begun before is not.
    Asked,
    Listing,
}

/// A scope, and what it is asked for.
#[derive(Debug)]
struct Mending {
    waker: Arc<Notify>,
    round: Round,
    /// Whether content of it was lost since it was asked last.
    lost: bool,
}

/// The failures that are not mended, and the lists that are to mend them.
#[derive(Debug)]
pub(super) struct Resync {
    scopes: Vec<Mending>,
    /// When to try next; `None`: nothing has failed since the last try.
    due: Option<Instant>,
    attempts: u32,
    /// The failures that were told.
    told: BTreeSet<String>,
}

impl Resync {
    /// For this many scopes.
    pub fn new(scopes: usize) -> Self {
        let scopes = (0..scopes).map(|_| Mending { waker: Arc::default(), round: Round::Done, lost: false }).collect();
        Self { scopes, due: None, attempts: 0, told: BTreeSet::new() }
    }

    /// What wakes each scope.
    pub fn wakers(&self) -> Vec<Arc<Notify>> {
        self.scopes.iter().map(|scope| Arc::clone(&scope.waker)).collect()
    }

    /// Notes that a change failed. Each failure is told once until all is well, but not more than a screenful of them.
    /// These scopes are to report the lost content again.
    pub fn failed(&mut self, scopes: &[ScopeId], error: &dyn Error) {
        scopes.iter().for_each(|scope| self.scopes[*scope].lost = true);
        let error = error.to_string();
        if self.told.len() < TOLD_MAX && self.told.insert(error.clone()) {
            let more = if self.told.len() == TOLD_MAX { "; further failures are logged at debug level" } else { "" };
            tracing::warn!(event = "change_failed", "{error}; it is tried again until it can be done{more}");
        } else {
            tracing::debug!("{error}");
        }
        self.schedule();
    }

    /// Plans another try. The wait doubles each time.
    pub fn schedule(&mut self) {
        if self.due.is_none() {
            let wait = WAIT_MIN.saturating_mul(1_u32.checked_shl(self.attempts).unwrap_or(u32::MAX)).min(WAIT_MAX);
            self.attempts = (self.attempts + 1).min(16);
            self.due = Some(Instant::now() + wait);
        }
    }

    /// Waits until it is time to try again.
    pub async fn due(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Asks the scopes that lost something for everything.
    pub fn ask(&mut self) {
        self.due = None;
        for scope in self.scopes.iter_mut().filter(|scope| scope.lost) {
            scope.lost = false;
            scope.round = Round::Asked;
            scope.waker.notify_one();
        }
    }

    /// Asks these scopes for everything, though nothing of theirs is lost.
    pub fn wake(&self, scopes: &BTreeSet<ScopeId>) {
        scopes.iter().for_each(|scope| self.scopes[*scope].waker.notify_one());
    }

    /// Returns the scopes that are to report lost content again.
    pub fn outstanding(&self) -> impl Iterator<Item = ScopeId> {
        let is_outstanding = |scope: &Mending| scope.lost || scope.round != Round::Done;
        self.scopes.iter().enumerate().filter(move |(_, scope)| is_outstanding(scope)).map(|(id, _)| id)
    }

    pub fn list_started(&mut self, scope: ScopeId) {
        if self.scopes[scope].round != Round::Done {
            self.scopes[scope].round = Round::Listing;
        }
    }

    pub fn list_done(&mut self, scope: ScopeId) {
        if self.scopes[scope].round == Round::Listing {
            self.scopes[scope].round = Round::Done;
        }
    }

    /// Notes that every change has succeeded.
    pub fn recovered(&mut self) {
        self.due = None;
        if std::mem::take(&mut self.attempts) > 0 {
            self.told.clear();
            tracing::info!(event = "change_recovered", "what had failed is done");
        }
    }

    /// Returns true if a change has failed since all was well.
    pub fn is_failing(&self) -> bool {
        self.attempts > 0
    }

    /// Returns true if no scope has to report anything again.
    pub fn is_settled(&self) -> bool {
        self.scopes.iter().all(|scope| !scope.lost && scope.round == Round::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure() -> std::io::Error {
        std::io::ErrorKind::StorageFull.into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_settled_only_by_a_list_that_began_after_it_was_asked_for() {
        let mut resync = Resync::new(2);
        assert!(resync.is_settled());
        resync.list_started(0);
        resync.failed(&[0, 1], &failure());
        resync.due().await;
        resync.ask();
        resync.list_done(0);
        assert!(!resync.is_settled(), "the list of scope 0 had begun before");
        for scope in [0, 1] {
            assert!(!resync.is_settled());
            resync.list_started(scope);
            resync.list_done(scope);
        }
        assert!(resync.is_settled());
    }

    #[tokio::test(start_paused = true)]
    async fn the_waits_double_to_a_bound_and_begin_anew_after_a_success() {
        let mut resync = Resync::new(1);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let before = Instant::now();
            resync.failed(&[0], &failure());
            resync.failed(&[0], &failure());
            resync.due().await;
            waits.push((before.elapsed().as_millis() + 500) / 1000);
            resync.ask();
            resync.list_started(0);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        resync.list_done(0);
        resync.recovered();
        let before = Instant::now();
        resync.failed(&[0], &failure());
        resync.due().await;
        assert!(before.elapsed() < Duration::from_secs(2));
    }

    #[tokio::test]
    async fn only_the_scopes_that_lost_something_are_asked() {
        let mut resync = Resync::new(3);
        let wakers = resync.wakers();
        resync.failed(&[1], &failure());
        resync.ask();
        wakers[1].notified().await;
        assert!(!resync.is_settled());
        resync.list_started(1);
        resync.list_done(1);
        assert!(resync.is_settled());
        resync.failed(&[0, 1, 2], &failure());
        resync.ask();
        for waker in &wakers {
            waker.notified().await;
        }
    }
}
