//! What ends configbump: a signal, or the end of the program that it runs.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use super::RunError;
use crate::child::{self, ChildConfig, ChildError, Handle};

/// What it waits for.
pub(super) enum End {
    Signals {
        terminate: Signal,
        interrupt: Signal,
    },
    /// The program gets the signals, and what becomes of it decides.
    Program {
        program: Handle,
        outcome: JoinHandle<Result<u8, ChildError>>,
        started: bool,
    },
}

impl End {
    /// Takes signals from here on, for the program if there is to be one.
    pub fn new(program: Option<&ChildConfig>) -> Result<Self, RunError> {
        let Some(config) = program else {
            let receive = |kind| signal(kind).map_err(RunError::Signals);
            return Ok(Self::Signals {
                terminate: receive(SignalKind::terminate())?,
                interrupt: receive(SignalKind::interrupt())?,
            });
        };
        let (program, outcome) = child::supervise(config.clone())?;
        child::pass_on(program.clone()).map_err(RunError::PassOn)?;
        Ok(Self::Program { program, outcome: tokio::spawn(outcome), started: false })
    }

    /// The program that it runs, if it runs one.
    pub fn program(&self) -> Option<&Handle> {
        match self {
            Self::Signals { .. } => None,
            Self::Program { program, .. } => Some(program),
        }
    }

    /// Starts the program, if there is one and it has not been started: its files are there.
    pub async fn start_program(&mut self) {
        if let Self::Program { program, started, .. } = self
            && !std::mem::replace(started, true)
        {
            program.start().await;
        }
    }

    /// Waits for the end: the exit code.
    pub async fn reached(&mut self) -> Result<u8, RunError> {
        match self {
            Self::Signals { terminate, interrupt } => {
                tokio::select! {
                    _ = terminate.recv() => Ok(0),
                    _ = interrupt.recv() => Ok(0),
                }
            }
            Self::Program { outcome, .. } => Ok(outcome.await.map_err(|_| RunError::SupervisorEnded)??),
        }
    }
}
