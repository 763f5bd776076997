//! The bumps of the program that configbump runs itself.

use std::collections::BTreeMap;

use rustix::process::Pid;

use super::process::{TargetSpec, Who};
use super::signal::{Signal, Signaller, Unhandled};
use super::{Batch, BumpError};
use crate::child::Handle;

/// Sends a signal to the program, as [`Signaller`] does: only once it has seen to what the signal does, and not if it was
/// started when the files were there already.
pub struct SignalProgram {
    program: Handle,
    signal: Signal,
    unhandled: Unhandled,
    /// By PID: the program is one process, unless it has daemonised into several.
    signallers: BTreeMap<i32, Signaller>,
}

impl SignalProgram {
    #[must_use]
    pub fn new(program: Handle, signal: Signal, unhandled: Unhandled) -> Self {
        Self { program, signal, unhandled, signallers: BTreeMap::new() }
    }

    /// Sends the signal.
    ///
    /// # Errors
    ///
    /// As [`Signaller::bump`].
    pub async fn bump(&mut self, batch: &Batch) -> Result<(), BumpError> {
        let pids = running(&self.program)?;
        self.signallers.retain(|pid, _| pids.contains(pid));
        for pid in pids {
            let signaller = self.signallers.entry(pid).or_insert_with(|| signaller(pid, self.signal, self.unhandled));
            signaller.bump(batch).await?;
        }
        Ok(())
    }
}

/// Ends the program and starts it anew, unless it was started when the files were there already.
pub struct RestartProgram {
    program: Handle,
}

impl RestartProgram {
    #[must_use]
    pub fn new(program: Handle) -> Self {
        Self { program }
    }

    /// Restarts it.
    ///
    /// # Errors
    ///
    /// [`BumpError::Waiting`] if it has not been started yet; [`BumpError::Failed`] if there is no new one.
    pub async fn bump(&self, batch: &Batch) -> Result<(), BumpError> {
        let mut has_read_all = true;
        for pid in running(&self.program)? {
            let of_pid = signaller(pid, Signal::HUP, Unhandled::Wait);
            has_read_all &= !of_pid.is_running_before(batch.complete_at)?;
        }
        if has_read_all {
            return Ok(());
        }
        self.program.restart().await.map_err(|error| BumpError::Failed(error.to_string()))?;
        tracing::info!("the command has been restarted");
        Ok(())
    }
}

fn running(program: &Handle) -> Result<Vec<i32>, BumpError> {
    let pids: Vec<i32> = program.processes().into_iter().map(Pid::as_raw_pid).collect();
    if pids.is_empty() {
        return Err(BumpError::Waiting("the command does not run yet".to_owned()));
    }
    Ok(pids)
}

fn signaller(pid: i32, signal: Signal, unhandled: Unhandled) -> Signaller {
    let process = Who::Pid(pid.unsigned_abs());
    Signaller::new(TargetSpec { process, parent: None }, signal, unhandled)
}
