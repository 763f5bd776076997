//! Whether configbump is alive and ready. No input or output, and told the time.

use std::time::Duration;

use tokio::time::Instant;

use crate::event::{Event, Scope, ScopeId, What};

/// So long nothing at all may be heard of a scope: the silence after which a watch is given up (150 s), and two tries with
/// a wait between (30 s each), of which one may come to nothing.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(240);

/// What livez and readyz are about.
#[derive(Debug)]
pub(super) struct Health {
    scopes: Vec<Following>,
    /// Whether the first sync was on disk.
    synced: bool,
    /// The change that could not be made, until all of them are.
    failed_change: Option<String>,
    /// Why the last bump failed, until one succeeds.
    failed_bump: Option<String>,
}

/// How a scope is followed.
#[derive(Debug)]
pub(super) struct Following {
    pub scope: Scope,
    /// Whether a list of it was complete.
    pub listed: bool,
    /// When it was last told about.
    pub progress: Option<Instant>,
    /// When anything was last heard, if it may not be silent for ever.
    heard: Option<Instant>,
    /// Why it cannot be followed at the moment.
    pub failure: Option<String>,
}

impl Health {
    pub fn new(scopes: Vec<Scope>) -> Self {
        let following = |scope| Following { scope, listed: false, progress: None, heard: None, failure: None };
        let scopes = scopes.into_iter().map(following).collect();
        Self { scopes, synced: false, failed_change: None, failed_bump: None }
    }

    /// From here on the scope must not be silent for long.
    pub fn expect(&mut self, scope: ScopeId, now: Instant) {
        self.scopes[scope].heard = Some(now);
    }

    /// The server goes on telling about the scope.
    pub fn progress(&mut self, scope: ScopeId, now: Instant) {
        let following = &mut self.scopes[scope];
        following.progress = Some(now);
        following.hear(now);
    }

    /// An event has come through. Whether a list of its scope had been complete before.
    pub fn took(&mut self, event: &Event, now: Instant) -> bool {
        self.progress(event.scope, now);
        let listed = &mut self.scopes[event.scope].listed;
        let had_listed = *listed;
        *listed |= matches!(event.what, What::ListDone);
        had_listed
    }

    /// The scope cannot be followed. `heard`: when the server or the network said so.
    pub fn source_failed(&mut self, scope: ScopeId, heard: Option<Instant>, what: String) {
        let following = &mut self.scopes[scope];
        following.failure = Some(what);
        heard.into_iter().for_each(|now| following.hear(now));
    }

    pub fn source_recovered(&mut self, scope: ScopeId) {
        self.scopes[scope].failure = None;
    }

    pub fn change_failed(&mut self, what: String) {
        self.failed_change = Some(what);
    }

    /// Everything is on disk.
    pub fn in_step(&mut self) {
        self.synced = true;
        self.failed_change = None;
    }

    /// `None`: the last bump did not fail, or there is nobody to bump.
    pub fn bump_failed(&mut self, what: Option<String>) {
        self.failed_bump = what;
    }

    pub fn scopes(&self) -> &[Following] {
        &self.scopes
    }

    pub fn failed_change(&self) -> Option<&str> {
        self.failed_change.as_deref()
    }

    pub fn failed_bump(&self) -> Option<&str> {
        self.failed_bump.as_deref()
    }

    /// When a scope was last told about, of the scope that has waited longest; nothing if one has not been yet.
    pub fn progress_of_all(&self) -> Option<Instant> {
        self.scopes.iter().map(|following| following.progress).min().flatten()
    }

    /// What keeps it from being alive.
    pub fn dead(&self, now: Instant) -> Vec<String> {
        let silent = |following: &Following| {
            let silence = now.saturating_duration_since(following.heard?);
            let seconds = silence.as_secs();
            (silence > SILENCE_MAX)
                .then(|| format!("nothing has been heard from the server about {} for {seconds} s", following.scope))
        };
        self.scopes.iter().filter_map(silent).collect()
    }

    /// What keeps it from being ready.
    pub fn unready(&self) -> Vec<String> {
        let reasons = [
            (!self.synced, "the first sync is not on disk yet"),
            (self.failed_change.is_some(), "the last change could not be made on disk; /status and the log say why"),
            (self.failed_bump.is_some(), "the last bump failed; /status and the log say why"),
        ];
        reasons.into_iter().filter(|(holds, _)| *holds).map(|(_, why)| why.to_owned()).collect()
    }
}

impl Following {
    fn hear(&mut self, now: Instant) {
        self.heard = self.heard.map(|_| now);
    }
}
