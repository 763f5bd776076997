//! The signals by which the kernel tells a process of its own fault, as far as somebody else sends them: then they are for the
//! program.
//!
//! A handler is no way to get them, since after one of a real fault the process would commit it again, for ever. So they are blocked,
//! and read from a descriptor (`signalfd(2)`). A real fault ends the process all the same: the kernel forces the signal upon a
//! thread that blocks it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, SigmaskHow, Signal as Fault};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Signal, getpid};
use rustix_libc_wrappers::process::SignalExt as _;

fn all() -> SigSet {
    [Fault::SIGILL, Fault::SIGFPE, Fault::SIGSEGV, Fault::SIGBUS, Fault::SIGTRAP, Fault::SIGSYS].into_iter().collect()
}

/// From here on they end neither this thread nor those that it starts, unless they are real. To be called while there is no
/// other thread.
///
/// # Errors
///
/// When the system does not block signals.
pub fn hold_faults() -> io::Result<()> {
    Ok(all().thread_block()?)
}

/// Starts a child that has not inherited that. For this moment one of them would end configbump.
pub(super) fn start_without<C>(start: impl FnOnce() -> io::Result<C>) -> io::Result<C> {
    let before = all().thread_swap_mask(SigmaskHow::SIG_UNBLOCK)?;
    let started = start();
    before.thread_set_mask()?;
    started
}

/// Those that have come and are held.
#[derive(Debug)]
pub(super) struct Faults(SignalFd);

impl Faults {
    pub fn new() -> io::Result<Self> {
        Ok(Self(SignalFd::with_flags(&all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// The next one that another process has sent; nothing if there is none at the moment.
    pub fn next(&mut self) -> io::Result<Option<Signal>> {
        while let Some(info) = self.0.read_signal()? {
            // Those of the kernel have a code above 0 (sigaction(2)).
            let is_ours = info.ssi_code > 0 || u32::try_from(getpid().as_raw_pid()) == Ok(info.ssi_pid);
            if let (Some(signal), false) = (i32::try_from(info.ssi_signo).ok().and_then(Signal::from_raw), is_ours) {
                return Ok(Some(signal));
            }
        }
        Ok(None)
    }
}

impl AsFd for Faults {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
