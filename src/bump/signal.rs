//! The bump by a signal to the processes that are running already.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::bump::process::{self, Handle, Handling, Identity, Sent, Target, TargetSpec};
use crate::bump::{Batch, BootTime, BumpError};
use crate::child::is_awaited;
use crate::threads::{READERS, ThreadError};

mod examine;
mod number;
mod refusal;
#[cfg(test)]
mod tests;

pub use examine::Examined;
pub use number::{Signal, SignalError};
use refusal::{denied, refused};

/// How long a target may ignore or block the signal before that is taken for its intent. HAProxy 2.6 does both with USR2 at
/// its start, and anew after each reload, until its master is ready: what comes meanwhile is lost, or ends it.
const DEAF_MAX: Duration = Duration::from_secs(3);

/// How old a target must be that catches every signal, as one in Go does before it has begun: its handlers do not tell
/// when it is ready, so it is given this time.
const UNTOLD_START: Duration = Duration::from_secs(2);

/// How long a look at all processes may take.
const LOOK_MAX: Duration = Duration::from_secs(30);

/// How often targets are looked for when some end before they are reached.
const LOOKS_MAX: usize = 3;

/// What to do about a target that has not seen to it what the signal does, when that would end or stop it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Unhandled {
    /// Wait until it has
    Wait,
    /// Send the signal all the same
    Send,
    /// Leave the target alone
    Skip,
}

/// Sends a signal to the target, each process of it once a batch. A command that configbump runs at the moment (a hook, a
/// check) is never the target, nor is what descends from it.
#[derive(Debug)]
pub struct Signaller {
    spec: TargetSpec,
    signal: Signal,
    unhandled: Unhandled,
    told: Told,
    /// One that has not ended yet.
    look: Option<oneshot::Receiver<Result<Vec<Target>, BumpError>>>,
}

/// Who knows of which batch already.
#[derive(Debug, Default)]
struct Told {
    complete_at: Option<BootTime>,
    targets: BTreeSet<Identity>,
    /// Whether the log has it that there are several.
    are_several: bool,
    /// The wrapper that the log names last, with what it wraps.
    wrapper: Option<Identity>,
    /// Since when targets have been seen to ignore or block the signal without a break.
    deaf: BTreeMap<Identity, BootTime>,
}

impl Signaller {
    #[must_use]
    pub fn new(spec: TargetSpec, signal: Signal, unhandled: Unhandled) -> Self {
        Self { spec, signal, unhandled, told: Told::default(), look: None }
    }

    /// Sends the signal to every process of the target that the batch concerns and that has not had it for this batch.
    ///
    /// # Errors
    ///
    /// [`BumpError::Waiting`] if there is no target; [`BumpError::Unready`] if one does not handle the signal yet;
    /// [`BumpError::Failed`] if the signal is refused. Whichever it is, every other target has had the signal.
    pub async fn bump(&mut self, batch: &Batch) -> Result<(), BumpError> {
        self.told.begin(batch.complete_at);
        let mut gone = None;
        for _ in 0..LOOKS_MAX {
            let targets = self.look().await?;
            gone = self.tell_all(targets, batch)?;
            if gone.is_none() {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
        gone.map_or(Ok(()), |target| {
            Err(BumpError::Unready(format!("{target} ended before it could be sent {}", self.signal)))
        })
    }

    /// Whether a process of the target is running that the batch concerns, or may be, where `/proc` hides some.
    ///
    /// # Errors
    ///
    /// [`BumpError::Failed`] if `/proc` cannot be read.
    pub fn is_concerned(&self, batch: &Batch) -> Result<bool, BumpError> {
        match self.find() {
            Ok(targets) => Ok(targets.iter().any(|target| batch.concerns(target.identity.started))),
            // One that is hidden may be: better once too often than never.
            Err(BumpError::Waiting(_)) => Ok(process::is_hiding()),
            Err(error) => Err(error),
        }
    }

    fn find(&self) -> Result<Vec<Target>, BumpError> {
        process::find(&self.spec, &is_awaited)
    }

    /// The same, on another thread if command lines are to be read: there may be thousands of long ones, and one in memory that
    /// is filled by another process (FUSE, `userfaultfd(2)`) lets the reader wait for as long as that one likes.
    async fn look(&mut self) -> Result<Vec<Target>, BumpError> {
        if self.spec.is_by_pid() {
            return self.find();
        }
        let too_slow = || {
            BumpError::Failed(format!(
                "/proc could not be read within {LOOK_MAX:?}: there are very many processes, or one keeps its command line from \
                 being read"
            ))
        };
        // Not a second one beside one that hangs.
        if let Some(earlier) = &mut self.look {
            // What it has seen is of an earlier moment.
            drop(timeout(LOOK_MAX, earlier).await.map_err(|_| too_slow())?);
        }
        let spec = self.spec.clone();
        let no_thread = |error: ThreadError| BumpError::Failed(format!("cannot look for processes: {error}"));
        let look = READERS.spawn(move || process::find(&spec, &is_awaited)).map_err(no_thread)?;
        let look = self.look.insert(look);
        let found = timeout(LOOK_MAX, look).await.map_err(|_| too_slow())?;
        self.look = None;
        found.map_err(|_| no_thread(ThreadError::Ended))?
    }

    /// Tells every target that does not know yet, and gives one that ended before it could be told.
    fn tell_all(&mut self, targets: Vec<Target>, batch: &Batch) -> Result<Option<Target>, BumpError> {
        let mut targets = self.unwrapped(targets)?;
        self.told.deaf.retain(|identity, _| targets.iter().any(|target| target.identity == *identity));
        targets.retain(|Target { identity, .. }| {
            batch.concerns(identity.started) && !self.told.targets.contains(identity)
        });
        if targets.len() > 1 && !std::mem::replace(&mut self.told.are_several, true) {
            tracing::info!("every {} is sent {}: {}", self.spec, self.signal, Few(&targets));
        }
        let mut gone = None;
        let mut problem = None;
        for target in targets {
            match self.tell(&target) {
                Ok(true) => _ = self.told.targets.insert(target.identity),
                Ok(false) => gone = Some(target),
                Err(error @ BumpError::Failed(_)) => problem = Some(error),
                Err(error) => problem = problem.or(Some(error)),
            }
        }
        problem.map_or(Ok(gone), Err)
    }

    /// Puts the programs that a wrapper waits for in the place of the wrapper, if that does not handle the signal.
    fn unwrapped(&self, targets: Vec<Target>) -> Result<Vec<Target>, BumpError> {
        let mut unwrapped = Vec::new();
        for target in targets {
            let handle = if target.wrapped.is_empty() { None } else { Handle::open(&target)? };
            match handle {
                Some(handle) if self.would_harm(&handle, &target)? => unwrapped.extend(target.wrapped),
                _ => unwrapped.push(target),
            }
        }
        Ok(unwrapped)
    }

    /// Says once how to signal the program instead of its wrapper, which has handled the signal.
    fn name_wrapped(&mut self, target: &Target) {
        if !target.wrapped.is_empty() && self.told.wrapper.replace(target.identity) != Some(target.identity) {
            let (signal, wrapped) = (self.signal, Few(&target.wrapped));
            tracing::info!(
                "{target} handles {signal} and waits for {wrapped}, which --process-command matches, too; to signal that, begin the \
                 expression with ^"
            );
        }
    }

    /// Sends the signal to a target unless that would harm it or be in vain; false if it has ended.
    fn tell(&mut self, target: &Target) -> Result<bool, BumpError> {
        let signal = self.signal;
        let Some(handle) = Handle::open(target)? else { return Ok(false) };
        if self.would_harm(&handle, target)? {
            match self.unhandled {
                Unhandled::Send => {}
                Unhandled::Wait => {
                    return Err(BumpError::Unready(format!(
                        "{target} has not installed a handler for {signal} yet, which would end or stop it; waiting \
                         until it has (unhandled signal: wait)"
                    )));
                }
                Unhandled::Skip => {
                    tracing::info!("{target} has no handler for {signal} and is not sent it (unhandled signal: skip)");
                    return Ok(true);
                }
            }
        }
        let is_unknown = handle.handles(signal, target)? == Some(Handling::Unknown);
        if self.unhandled == Unhandled::Skip && is_unknown && self.may_be_starting(&handle, target)? {
            tracing::info!(
                "{target} is younger than {UNTOLD_START:?} and is not sent {signal} (unhandled signal: skip)"
            );
            return Ok(true);
        }
        if self.unhandled == Unhandled::Wait && self.may_be_starting(&handle, target)? {
            let why = if is_unknown {
                "has handlers that the kernel does not show"
            } else {
                "catches every signal, as a program in Go does from its first moment,"
            };
            return Err(BumpError::Unready(format!(
                "{target} {why} and is younger than {UNTOLD_START:?}; waiting until it is not (unhandled signal: wait)"
            )));
        }
        if self.unhandled == Unhandled::Wait && self.is_deaf_for_now(&handle, target)? {
            return Err(BumpError::Unready(format!(
                "{target} ignores or blocks {signal} at the moment; waiting a little for that to change"
            )));
        }
        match handle.send(signal, target)? {
            Sent::Yes => {
                tracing::info!(
                    event = "bumped",
                    bump = "signal",
                    signal = %signal,
                    pid = target.identity.pid,
                    "sent {signal} to {target}"
                );
                self.name_wrapped(target);
                Ok(true)
            }
            Sent::Gone => Ok(false),
            Sent::Denied => Err(denied(signal, target)),
            Sent::Refused => match handle.user(target)? {
                Some(user) => Err(refused(signal, target, user, rustix::process::geteuid().as_raw())),
                None => Ok(false),
            },
        }
    }

    /// Whether the target ignores or blocks the signal, and has not done so for long enough to mean it.
    fn is_deaf_for_now(&mut self, handle: &Handle, target: &Target) -> Result<bool, BumpError> {
        if self.signal.is_meant_to_end() || handle.is_deaf(self.signal, target)? != Some(true) {
            self.told.deaf.remove(&target.identity);
            return Ok(false);
        }
        let now = BootTime::now();
        let since = *self.told.deaf.entry(target.identity).or_insert(now);
        Ok(now.0.saturating_sub(since.0) < DEAF_MAX)
    }

    /// Whether nothing but its age could tell that the target is ready, and does not.
    fn may_be_starting(&self, handle: &Handle, target: &Target) -> Result<bool, BumpError> {
        let age = BootTime::now().0.saturating_sub(target.identity.started.0);
        if age >= UNTOLD_START || self.signal.is_meant_to_end() || !self.signal.default_action_is_harmful() {
            return Ok(false);
        }
        // If it has ended, sending will tell.
        Ok(handle.catches_everything(target)?.unwrap_or(false))
    }

    fn would_harm(&self, handle: &Handle, target: &Target) -> Result<bool, BumpError> {
        if self.signal.is_meant_to_end() || !self.signal.default_action_is_harmful() {
            return Ok(false);
        }
        // If it has ended, sending will tell.
        Ok(handle.handles(self.signal, target)? == Some(Handling::No))
    }
}

impl Told {
    /// Forgets what was told of another batch.
    fn begin(&mut self, complete_at: BootTime) {
        if self.complete_at.replace(complete_at) != Some(complete_at) {
            self.targets.clear();
            self.are_several = false;
        }
    }
}

/// The first few of many, for one line.
struct Few<'a>(&'a [Target]);

impl fmt::Display for Few<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const FEW: usize = 5;
        let shown: Vec<String> = self.0.iter().take(FEW).map(ToString::to_string).collect();
        f.write_str(&shown.join(", "))?;
        if self.0.len() > FEW { write!(f, " and {} more", self.0.len() - FEW) } else { Ok(()) }
    }
}
