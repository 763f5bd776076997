//! What ends configbump: a signal, or the end of the program that it runs.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use super::RunError;
use crate::bump::Program;
use crate::child::{self, ChildConfig, ChildError};

/// What it waits for.
pub(super) enum End {
    Signals {
        terminate: Signal,
        interrupt: Signal,
    },
    /// The program gets the signals, and what becomes of it decides.
    Program {
        program: Program,
        outcome: JoinHandle<Result<u8, ChildError>>,
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
        let (handle, outcome) = child::supervise(config.clone())?;
        child::pass_on(handle.clone()).map_err(RunError::PassOn)?;
        Ok(Self::Program { program: Program::new(handle), outcome: tokio::spawn(outcome) })
    }

    /// The program that it runs, if it runs one.
    pub fn program(&self) -> Option<&Program> {
        match self {
            Self::Signals { .. } => None,
            Self::Program { program, .. } => Some(program),
        }
    }

    /// Ends the program, if there is one, as a signal to configbump would, and waits until it has ended.
    pub async fn stop(&mut self) {
        if let Self::Program { program, outcome } = self {
            program.stop().await;
            match outcome.await {
                Ok(Ok(code)) => tracing::info!(code, "the program has ended with code {code}"),
                Ok(Err(error)) => tracing::warn!("{error}"),
                Err(error) => tracing::warn!("the command's supervisor has ended by itself: {error}"),
            }
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
