//! The bumps of the program that configbump runs itself.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use rustix::process::Pid;

use super::process::{TargetSpec, Who};
use super::signal::{Signal, Signaller, Unhandled};
use super::{Batch, BootTime, BumpError};
use crate::child::Handle;

/// The program, and when it was started first: the clock of `/proc` is too coarse to tell that from the moment before,
/// when its files were complete.
#[derive(Clone, Debug)]
pub struct Program {
    handle: Handle,
    started: Arc<OnceLock<BootTime>>,
}

impl Program {
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        Self { handle, started: Arc::default() }
    }

    /// Starts it, unless it has been.
    pub async fn start(&self) {
        if self.started.set(BootTime::now()).is_ok() {
            self.handle.start().await;
        }
    }

    /// Ends it: its stop signal, and SIGKILL when the grace is over.
    pub async fn stop(&self) {
        self.handle.stop().await;
    }

    /// Its processes, of which each may have read the files of an earlier batch; none if the batch does not concern it.
    fn to_tell(&self, batch: &Batch) -> Result<Vec<i32>, BumpError> {
        let pids: Vec<i32> = self.handle.processes().into_iter().map(Pid::as_raw_pid).collect();
        match self.started.get() {
            Some(started) if !batch.concerns(*started) => Ok(Vec::new()),
            Some(_) if !pids.is_empty() => Ok(pids),
            _ => Err(BumpError::Waiting("the command does not run yet".to_owned())),
        }
    }
}

/// Sends a signal to the program, as [`Signaller`] does: only once it has seen to what the signal does, and not if it was
/// started when the files were there already.
pub struct SignalProgram {
    program: Program,
    signallers: Signallers,
}

/// Those of the processes of the program: it is one, unless it has daemonised into several.
pub(super) struct Signallers {
    signal: Signal,
    unhandled: Unhandled,
    by_pid: BTreeMap<i32, Signaller>,
}

impl SignalProgram {
    #[must_use]
    pub fn new(program: Program, signal: Signal, unhandled: Unhandled) -> Self {
        Self { program, signallers: Signallers::new(signal, unhandled) }
    }

    /// Sends the signal.
    ///
    /// # Errors
    ///
    /// As [`Signaller::bump`].
    pub async fn bump(&mut self, batch: &Batch) -> Result<(), BumpError> {
        let pids = self.program.to_tell(batch)?;
        self.signallers.bump(&pids, batch).await
    }
}

impl Signallers {
    pub(super) fn new(signal: Signal, unhandled: Unhandled) -> Self {
        Self { signal, unhandled, by_pid: BTreeMap::new() }
    }

    /// Tells each process, whatever becomes of the others; a failure counts for more than a wait.
    pub(super) async fn bump(&mut self, pids: &[i32], batch: &Batch) -> Result<(), BumpError> {
        self.by_pid.retain(|pid, _| pids.contains(pid));
        let mut result = Ok(());
        for &pid in pids {
            let signaller = self.by_pid.entry(pid).or_insert_with(|| signaller(pid, self.signal, self.unhandled));
            let told = signaller.bump(batch).await;
            if told.is_err() && !matches!(result, Err(BumpError::Failed(_))) {
                result = told;
            }
        }
        result
    }
}

/// Ends the program and starts it anew, unless it was started when the files were there already.
pub struct RestartProgram {
    program: Program,
}

impl RestartProgram {
    #[must_use]
    pub fn new(program: Program) -> Self {
        Self { program }
    }

    /// Restarts it; whether that was needed.
    ///
    /// # Errors
    ///
    /// [`BumpError::Waiting`] if it has not been started yet; [`BumpError::Failed`] if there is no new one.
    pub async fn bump(&self, batch: &Batch) -> Result<bool, BumpError> {
        let mut is_concerned = false;
        for pid in self.program.to_tell(batch)? {
            is_concerned |= signaller(pid, Signal::HUP, Unhandled::Wait).is_concerned(batch)?;
        }
        if is_concerned {
            self.program.handle.restart().await.map_err(|error| BumpError::Failed(error.to_string()))?;
        }
        Ok(is_concerned)
    }
}

fn signaller(pid: i32, signal: Signal, unhandled: Unhandled) -> Signaller {
    let process = Who::Pid(pid.unsigned_abs());
    Signaller::new(TargetSpec { process, parent: None }, signal, unhandled)
}
