//! The hold on one process, through which its PID cannot be mistaken for another's.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getpid, kill_process, pidfd_open, pidfd_send_signal, test_kill_process};

use super::Target;
use super::folder::{Folder, Obstacle};
use super::parse::Status;
use crate::bump::BumpError;
use crate::bump::signal::Signal;

/// A process, held.
#[derive(Debug)]
pub struct Handle {
    folder: Folder,
    hold: Hold,
}

/// What keeps a PID from being another process's.
#[derive(Debug)]
enum Hold {
    Pidfd(OwnedFd),
    /// A child that has not been waited for, where there are no pidfds. The thread of the [`Handle`] is the only one that waits for
    /// children.
    Child(Pid),
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Yes,
    /// The process has ended.
    Gone,
    /// configbump may not (EPERM).
    Refused,
    /// A security module denies it (EACCES).
    Denied,
}

/// Whether a process has prepared for a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handling {
    Yes,
    No,
    /// The kernel does not show it.
    Unknown,
}

impl Handle {
    /// Takes hold of the very process that was found; none if it has ended.
    pub fn open(target: &Target) -> Result<Option<Self>, BumpError> {
        let Some(pid) = i32::try_from(target.identity.pid).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let Some(folder) = if_there(Folder::open(target.identity.pid), target)? else { return Ok(None) };
        let pidfd = pidfd_open(pid, PidfdFlags::empty());
        // If it has its PID until now, the pidfd is its own.
        let stat = if_there(folder.stat(), target)?.filter(|stat| stat.started == target.identity.started);
        let Some(stat) = stat else { return Ok(None) };
        let hold = match pidfd {
            Ok(pidfd) => Hold::Pidfd(pidfd),
            Err(Errno::SRCH) => return Ok(None),
            Err(_) if i32::try_from(stat.parent) == Ok(getpid().as_raw_pid()) => Hold::Child(pid),
            Err(error) => return Err(failed("open a pidfd of", target, error)),
        };
        Ok(Some(Self { folder, hold }))
    }

    /// Whether it has seen to it what a signal does: by a handler, by ignoring it, or by blocking it in each of its
    /// threads in order to fetch it itself (`signalfd(2)`, `sigwait(3)`). While the only thread of a process is in
    /// `sigwait`, the kernel does not show the signal as blocked, so that one seems not to have. None if it has ended.
    pub fn handles(&self, signal: Signal, target: &Target) -> Result<Option<Handling>, BumpError> {
        let Some(status) = if_there(self.folder.status(), target)? else { return Ok(None) };
        let Some(masks) = status.signals else { return Ok(Some(Handling::Unknown)) };
        let handles = if masks.handles(signal) || !masks.blocks(signal) {
            Some(masks.handles(signal))
        } else {
            self.is_blocked_everywhere(signal, target)?
        };
        Ok(handles.map(|handles| if handles { Handling::Yes } else { Handling::No }))
    }

    /// Returns true if its handlers say nothing of what it will do about a signal, or are unknown; none if it has ended.
    pub fn catches_everything(&self, target: &Target) -> Result<Option<bool>, BumpError> {
        let status = if_there(self.folder.status(), target)?;
        Ok(status.map(|status| status.signals.is_none_or(|masks| masks.catches_everything())))
    }

    /// Whether a signal would not reach it at present: it ignores it, or blocks it in each of its threads; none if it has
    /// ended.
    pub fn is_deaf(&self, signal: Signal, target: &Target) -> Result<Option<bool>, BumpError> {
        let Some(status) = if_there(self.folder.status(), target)? else { return Ok(None) };
        match status.signals {
            None => Ok(Some(false)),
            Some(masks) if masks.ignores(signal) || !masks.blocks(signal) => Ok(Some(masks.ignores(signal))),
            Some(_) => self.is_blocked_everywhere(signal, target),
        }
    }

    /// Returns true if each of its threads blocks the signal; none if it has ended.
    fn is_blocked_everywhere(&self, signal: Signal, target: &Target) -> Result<Option<bool>, BumpError> {
        let threads = if_there(self.folder.threads(), target)?;
        let blocks = |thread: &Status| thread.signals.is_some_and(|masks| masks.blocks(signal));
        Ok(threads.map(|threads| threads.iter().all(blocks)))
    }

    /// The real user of the process; none if it has ended.
    pub fn user(&self, target: &Target) -> Result<Option<u32>, BumpError> {
        Ok(if_there(self.folder.status(), target)?.map(|status| status.user))
    }

    /// Returns what would become of a signal to it, which is not sent.
    pub fn may_signal(&self, target: &Target) -> Result<Sent, BumpError> {
        let pid = i32::try_from(target.identity.pid).ok().and_then(Pid::from_raw);
        // Nothing is sent, so a process that may have the PID by now comes to no harm.
        let Some(may) = pid.map(test_kill_process) else { return Ok(Sent::Gone) };
        let sent = outcome(may).map_err(|error| failed("ask whether to signal", target, error))?;
        // If it is still there, the answer was about it.
        Ok(if_there(self.folder.stat(), target)?.map_or(Sent::Gone, |_| sent))
    }

    pub fn send(&self, signal: Signal, target: &Target) -> Result<Sent, BumpError> {
        let sent = match &self.hold {
            Hold::Pidfd(pidfd) => pidfd_send_signal(pidfd, signal.raw()),
            Hold::Child(pid) => kill_process(*pid, signal.raw()),
        };
        outcome(sent).map_err(|error| failed(&format!("send {signal} to"), target, error))
    }
}

fn outcome(sent: Result<(), Errno>) -> Result<Sent, Errno> {
    match sent {
        Ok(()) => Ok(Sent::Yes),
        Err(Errno::SRCH) => Ok(Sent::Gone),
        Err(Errno::PERM) => Ok(Sent::Refused),
        Err(Errno::ACCESS) => Ok(Sent::Denied),
        Err(error) => Err(error),
    }
}

/// What was read, if the process is still there.
fn if_there<T>(read: Result<T, Obstacle>, target: &Target) -> Result<Option<T>, BumpError> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(Obstacle::Gone) => Ok(None),
        Err(Obstacle::Failed(error)) => Err(error),
        Err(Obstacle::Hidden) => Err(BumpError::Failed(format!("cannot look at {target}: {}", super::HIDDEN))),
    }
}

fn failed(what: &str, target: &Target, error: Errno) -> BumpError {
    const OTHERWISE: &str = "or run the program by configbump (-- COMMAND), which needs no pidfd";
    let remedy = match error {
        Errno::NOSYS => format!("; use a node with Linux 5.3 or newer, {OTHERWISE}"),
        Errno::PERM => {
            format!(
                "; use a seccomp profile that allows pidfd_open and pidfd_send_signal (update the runtime), {OTHERWISE}"
            )
        }
        _ => String::new(),
    };
    BumpError::Failed(format!("cannot {what} {target}: {}{remedy}", io::Error::from(error)))
}
