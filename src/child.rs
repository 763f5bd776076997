//! Runs COMMAND of `configbump … -- COMMAND [ARG...]`.
//!
//! One task, which [`supervise`] makes, owns the program; everybody else sends it a message through a [`Handle`].
//!
//! *What the program is.* COMMAND is a child of configbump, and configbump is the reaper of whatever COMMAND leaves behind
//! (`PR_SET_CHILD_SUBREAPER`, `prctl(2)`). As long as COMMAND lives, it is the program. If it ends with 0 and leaves
//! processes, it has daemonised: these are the program, and it has ended when the last of them has.
//!
//! *Process groups.* With a terminal as stdin, COMMAND stays in the group of configbump, so that it may read, and Ctrl-C
//! and Ctrl-Z act on both as on any pipeline; what the terminal has given to both is not passed on. Otherwise COMMAND
//! has a group of its own, as under tini, dumb-init and s6, so that whoever signals the group of configbump (`timeout(1)`
//! does) does not reach COMMAND past it.

mod family;
mod faults;
pub mod init;
mod signals;
mod starter;
mod supervisor;

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitStatus};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::family::{Awaited, is_awaited, start_awaited};
pub use self::faults::hold_faults;
pub use self::signals::pass_on;
pub use self::starter::keep_rights_for_children;
pub use self::supervisor::supervise;

/// How long a program may take to end before it is killed, unless told otherwise.
pub const GRACE: Duration = Duration::from_secs(10);

/// What to run, and how to end it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildConfig {
    /// A path, or a name that is looked for along `PATH`.
    pub program: OsString,
    pub arguments: Vec<OsString>,
    /// Asks the program to end; SIGTERM unless it wants another one.
    pub stop_signal: Signal,
    /// From the stop signal to SIGKILL.
    pub grace: Duration,
}

/// No program, ended in the usual way.
impl Default for ChildConfig {
    fn default() -> Self {
        Self { program: OsString::new(), arguments: Vec::new(), stop_signal: Signal::TERM, grace: GRACE }
    }
}

/// Why there is no program, or no other one.
#[derive(Debug, Error)]
pub enum ChildError {
    #[error("cannot start {program}: {error}; name a program that this container has, and that may be run")]
    Start { program: String, error: io::Error },
    #[error("cannot look after a command: {what}: {error}")]
    Setup { what: &'static str, error: io::Error },
    #[error(
        "the program has been killed, and the kernel keeps it: it may wait for a file server or a device; another one is started when \
         it has gone"
    )]
    Kept,
    /// A restart that came too late.
    #[error("the program is not started again: configbump has been asked to stop, or the program has ended")]
    Over,
}

impl ChildError {
    /// The exit code of configbump: that of a shell, 127 for a command that is not there and 126 for one that cannot be
    /// run (POSIX, Shell Command Language, 2.8.2).
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Start { error, .. } if error.kind() == io::ErrorKind::NotFound => 127,
            Self::Start { .. } => 126,
            Self::Setup { .. } | Self::Kept | Self::Over => 1,
        }
    }
}

/// What the supervisor can be asked to do.
#[derive(Debug)]
enum Message {
    Start,
    Signal(Signal),
    Restart { done: oneshot::Sender<Result<(), ChildError>> },
    Stop(Farewell),
    StopNow,
}

/// The signal that asks the program to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Farewell {
    /// The one that the program wants.
    Usual,
    This(Signal),
    /// The program has had it from the terminal, as configbump has.
    Had(Signal),
}

/// Talks to the supervisor of a program. A message to a supervisor that has ended is dropped: its outcome says it all.
#[derive(Clone, Debug)]
pub struct Handle {
    messages: mpsc::Sender<Message>,
    processes: watch::Receiver<Vec<Pid>>,
}

impl Handle {
    /// Starts the program, once; to be asked for when its files are there.
    pub async fn start(&self) {
        self.send(Message::Start).await;
    }

    /// Sends `signal` to the program. Dropped while it has not been started.
    pub async fn signal(&self, signal: Signal) {
        self.send(Message::Signal(signal)).await;
    }

    /// Ends the program, with all that it started, and starts it anew; returns when the new one runs.
    ///
    /// # Errors
    ///
    /// When there will be no new one: configbump is stopping, or it could not be started, which ends the supervisor. When there is
    /// none yet, for the old one does not go although it has been killed.
    pub async fn restart(&self) -> Result<(), ChildError> {
        let (done, outcome) = oneshot::channel();
        self.send(Message::Restart { done }).await;
        outcome.await.unwrap_or(Err(ChildError::Over))
    }

    /// Ends the program, and so the supervisor: the stop signal, and SIGKILL when the grace is over.
    pub async fn stop(&self) {
        self.send(Message::Stop(Farewell::Usual)).await;
    }

    /// As [`Self::stop`], without any grace.
    pub async fn stop_now(&self) {
        self.send(Message::StopNow).await;
    }

    /// The processes that are the program, without those that have one of these for a parent: COMMAND itself, or what is
    /// left of it if it has daemonised. Nobody else can have one of these PIDs until the runtime's thread comes back
    /// to the supervisor: they are children that have not been waited for.
    #[must_use]
    pub fn processes(&self) -> Vec<Pid> {
        self.processes.borrow().clone()
    }

    async fn send(&self, message: Message) {
        // Fails only when the supervisor has ended.
        let _ = self.messages.send(message).await;
    }

    /// For a thread outside the runtime. Whether there is still somebody to hear it.
    fn send_blocking(&self, message: Message) -> bool {
        self.messages.blocking_send(message).is_ok()
    }
}

/// Whether COMMAND is in the process group of configbump: stdin is a terminal.
fn shares_terminal() -> bool {
    io::stdin().is_terminal()
}

/// The exit code that a shell would make of it: the process's own, or 128+N if signal N killed it.
fn exit_code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    // Neither of them exceeds a byte: `wait(2)`.
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
