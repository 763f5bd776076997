//! The hold on one process, through which its PID cannot be mistaken for another's.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal, test_kill_process};

use super::Target;
use super::folder::{Folder, Obstacle};
use crate::bump::BumpError;
use crate::bump::signal::Signal;

/// A process, held.
#[derive(Debug)]
pub struct Handle {
    folder: Folder,
    pidfd: OwnedFd,
}

/// What became of a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Yes,
    /// The process has ended.
    Gone,
    /// configbump may not.
    Refused,
}

impl Handle {
    /// Takes hold of the very process that was found; none if it has ended.
    pub fn open(target: &Target) -> Result<Option<Self>, BumpError> {
        let Some(pid) = i32::try_from(target.identity.pid).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw) else {
            return Ok(None);
        };
        let Some(folder) = if_there(Folder::open(target.identity.pid), target)? else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(failed("open a handle of", target, error)),
        };
        // It has had its PID until now, so the handle is its own.
        let stat = if_there(folder.stat(), target)?;
        let is_same = stat.is_some_and(|stat| stat.started == target.identity.started);
        Ok(is_same.then_some(Self { folder, pidfd }))
    }

    /// Whether it has seen to it what a signal does: by a handler, by ignoring it, or by blocking it in each of its
    /// threads in order to fetch it itself (`signalfd(2)`, `sigwait(3)`). While the only thread of a process is in
    /// `sigwait`, the kernel does not show the signal as blocked, so that one seems not to have. None if it has ended.
    pub fn handles(&self, signal: Signal, target: &Target) -> Result<Option<bool>, BumpError> {
        let Some(status) = if_there(self.folder.status(), target)? else { return Ok(None) };
        if status.handles(signal) || !status.blocks(signal) {
            return Ok(Some(status.handles(signal)));
        }
        let threads = if_there(self.folder.threads(), target)?;
        Ok(threads.map(|threads| threads.iter().all(|thread| thread.blocks(signal))))
    }

    /// Whether its handlers say nothing of what it will do about a signal; none if it has ended.
    pub fn catches_everything(&self, target: &Target) -> Result<Option<bool>, BumpError> {
        Ok(if_there(self.folder.status(), target)?.map(|status| status.catches_everything()))
    }

    /// Whether a signal would not reach it at present: it ignores it, or blocks it in each of its threads; none if it has
    /// ended.
    pub fn is_deaf(&self, signal: Signal, target: &Target) -> Result<Option<bool>, BumpError> {
        let Some(status) = if_there(self.folder.status(), target)? else { return Ok(None) };
        if status.ignores(signal) || !status.blocks(signal) {
            return Ok(Some(status.ignores(signal)));
        }
        let threads = if_there(self.folder.threads(), target)?;
        Ok(threads.map(|threads| threads.iter().all(|thread| thread.blocks(signal))))
    }

    /// The real user of the process; none if it has ended.
    pub fn user(&self, target: &Target) -> Result<Option<u32>, BumpError> {
        Ok(if_there(self.folder.status(), target)?.map(|status| status.user))
    }

    /// Whether configbump may send it a signal; none if it has ended.
    pub fn may_signal(&self, target: &Target) -> Result<Option<bool>, BumpError> {
        let pid = i32::try_from(target.identity.pid).ok().and_then(Pid::from_raw);
        // Nothing is sent, so whoever may have the PID by now comes to no harm.
        let may = match pid.map(test_kill_process) {
            Some(Ok(())) => true,
            Some(Err(Errno::PERM)) => false,
            None | Some(Err(Errno::SRCH)) => return Ok(None),
            Some(Err(error)) => return Err(failed("ask whether to signal", target, error)),
        };
        // If it is still there, the answer was about it.
        Ok(if_there(self.folder.stat(), target)?.map(|_| may))
    }

    pub fn send(&self, signal: Signal, target: &Target) -> Result<Sent, BumpError> {
        match pidfd_send_signal(&self.pidfd, signal.raw()) {
            Ok(()) => Ok(Sent::Yes),
            Err(Errno::SRCH) => Ok(Sent::Gone),
            Err(Errno::PERM) => Ok(Sent::Refused),
            Err(error) => Err(failed(&format!("send {signal} to"), target, error)),
        }
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
    let remedy = if error == Errno::NOSYS {
        "; signals need Linux 5.3 or newer, and a seccomp profile that allows pidfd"
    } else {
        ""
    };
    BumpError::Failed(format!("cannot {what} {target}: {}{remedy}", io::Error::from(error)))
}
