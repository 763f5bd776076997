//! Tells the program that reads the directory that its files have changed.
//!
//! A [`Batch`] is what changed on disk since the last bump that succeeded. There are four kinds of bump, each a module
//! with a type of its own; the ones that were asked for are tried in the order of [`Action`], and one that fails is tried
//! again, until it succeeds or a newer batch takes its place.

mod bumper;
mod changes;
pub mod exec;
pub mod governor;
pub mod url;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use thiserror::Error;

pub use self::bumper::Bumper;
pub use self::changes::Changes;
use self::exec::Exec;
pub use self::program::Program;
use self::program::{RestartProgram, SignalProgram};
use self::signal::Signaller;
use self::url::Url;
use crate::config::{self, OnChange};

use crate::object::ObjectKey;
use crate::path::RelPath;

pub mod process;
mod program;
pub mod signal;

/// A moment since the machine was booted, time asleep included: what `/proc/PID/stat` counts the start of a process in
/// (`proc_pid_stat(5)`), and what no change of the clock moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(pub Duration);

impl BootTime {
    #[must_use]
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        // Both are never negative for this clock.
        Self(Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or_default()))
    }
}

/// What happened to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    Written,
    Removed,
}

/// What changed on disk since the last bump that succeeded, a path once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub changes: ByPath,
    /// When the last of them was on disk: a process that started later has read them all.
    pub complete_at: BootTime,
    /// Even such a process is told, as it is to be of the first sync with `--initial-bump always`.
    pub to_everybody: bool,
    /// Whether there were more removals than are kept while they wait.
    pub is_cut: bool,
}

/// What happened to which files, a path once.
type ByPath = BTreeMap<RelPath, (Effect, Arc<ObjectKey>)>;

/// How many changes may be kept without a look at how many of them are of files that are no more.
const CHANGES_KEPT: usize = 10_000;

/// Leaves the removals out where there are very many changes, which bounds them by the files that there are: who gives an object
/// other keys all the time makes removals without end while a bump waits. Whether it did.
fn shed(changes: &mut ByPath) -> bool {
    let before = changes.len();
    changes.retain(|_, (effect, _)| *effect == Effect::Written);
    changes.len() < before
}

impl Batch {
    /// Adds an older batch that nobody has been told of. What has changed again since is told as it is now.
    fn take_in(&mut self, older: Self) {
        // What the older one has as written may be among the removals that this one has left out.
        for (path, change) in older.changes.into_iter().filter(|_| !self.is_cut) {
            self.changes.entry(path).or_insert(change);
        }
        self.to_everybody |= older.to_everybody;
        self.is_cut |= older.is_cut;
        if self.changes.len() > CHANGES_KEPT {
            self.is_cut |= shed(&mut self.changes);
        }
    }

    /// Whether a process that was started at this moment is to be told.
    #[must_use]
    pub fn concerns(&self, started: BootTime) -> bool {
        self.to_everybody || started < self.complete_at
    }
}

/// Why a bump did not succeed. Its text is one line: what happened, to what, and what to do; never a credential, a body or
/// a content.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BumpError {
    /// It may succeed when it is tried again.
    #[error("{0}")]
    Failed(String),
    /// So says the program: what it was told of is bad, and will be the next time.
    #[error("{0}")]
    Refused(String),
    /// There is nothing to bump yet; worth no warning, only patience.
    #[error("{0}")]
    Waiting(String),
    /// Who is to be bumped is there and about to be ready; the same.
    #[error("{0}")]
    Unready(String),
}

/// The kinds of bump, as metrics name them.
pub const KINDS: [&str; 4] = ["exec", "url", "restart", "signal"];

/// What is to be bumped, in the order in which it is: hooks first, which may prepare what the program reads then.
pub enum Action {
    Exec(Exec),
    Url(Url),
    Restart(RestartProgram),
    SignalProgram(SignalProgram),
    Signal(Signaller),
}

impl Action {
    fn kind(&self) -> &'static str {
        let [exec, url, restart, signal] = KINDS;
        match self {
            Self::Exec(_) => exec,
            Self::Url(_) => url,
            Self::Restart(_) => restart,
            Self::SignalProgram(_) | Self::Signal(_) => signal,
        }
    }

    /// Gives what was done, in a line, unless that was nothing, or has been told: each process that is sent a signal is.
    async fn bump(&mut self, batch: &Batch) -> Result<Option<String>, BumpError> {
        Ok(match self {
            Self::Exec(exec) => Some(exec.bump(batch).await.map(|()| format!("ran {}", exec.name()))?),
            Self::Url(url) => Some(url.bump(batch).await.map(|()| format!("called {}", url.shown()))?),
            Self::Restart(restart) => restart.bump(batch).await?.then(|| "the command has been restarted".to_owned()),
            Self::SignalProgram(signal) => signal.bump(batch).await.map(|()| None)?,
            Self::Signal(signaller) => signaller.bump(batch).await.map(|()| None)?,
        })
    }
}

/// What the options ask for; `running` is the program that configbump runs itself, if any.
#[must_use]
pub fn actions(config: config::Bump, running: Option<&Program>) -> Vec<Action> {
    let config::Bump { exec, url, signal, program, .. } = config;
    let on_change = program.map_or(OnChange::Nothing, |(_, on_change)| on_change);
    let program = running.cloned().and_then(|running| match on_change {
        OnChange::Nothing => None,
        OnChange::Signal(signal, unhandled) => {
            Some(Action::SignalProgram(SignalProgram::new(running, signal, unhandled)))
        }
        OnChange::Restart => Some(Action::Restart(RestartProgram::new(running))),
    });
    let signaller = |config::SignalConfig { signal, target, unhandled }| Signaller::new(target, signal, unhandled);
    let exec = exec.map(Exec::new).map(Action::Exec);
    let url = url.map(Url::new).map(Action::Url);
    exec.into_iter().chain(url).chain(program).chain(signal.map(signaller).map(Action::Signal)).collect()
}
