//! The first process of a container.
//!
//! The kernel gives every orphan of a PID namespace to its process 1, and shields that one from signals it does not handle
//! (`pid_namespaces(7)`). So process 1 is a bare init that reaps and passes signals on, and the real configbump, which
//! starts and awaits children of its own, is its child. When that one ends, init does, and the kernel ends whatever is
//! left.
//!
//! It waits in `poll(2)` for a byte that a signal handler writes, or a signal that is held: nothing wakes it but a signal, and no signal that comes
//! before or during a look is lost. It needs no runtime, so it has none; its code and its constants are in memory once
//! for both processes.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, wait};
use rustix::thread::set_name;
use thiserror::Error;

use super::exit_code;
use super::faults::{hold_faults, start_without};
use super::signals::{Arrivals, passed_on};

/// The executable, also where it is the only file and whatever has become of its name.
const OURSELVES: &str = "/proc/self/exe";

/// Why process 1 gives up.
#[derive(Debug, Error)]
pub enum InitError {
    #[error("as process 1, cannot start {OURSELVES}: {0}; mount /proc, or run another init as process 1")]
    Start(io::Error),
    #[error("as process 1, cannot wait for signals: {0}")]
    Signals(io::Error),
    #[error("as process 1, cannot wait for children: {0}")]
    Wait(Errno),
}

/// Gives this process the name `configbump` in `/proc`, by which each configbump knows the others of the pod, and its own init. The
/// child of process 1 was started as `exe`, and any configbump may be a file of another name.
///
/// # Errors
///
/// If the system refuses that, on one line. Everything else works.
pub fn take_name() -> Result<(), String> {
    set_name(c"configbump").map_err(|error| {
        format!(
            "cannot call prctl(PR_SET_NAME): {error}; allow it in the seccomp profile, until then another configbump of the pod can take \
             this one for its target"
        )
    })
}

/// Stays here until the real configbump ends, and gives its exit code, if this is process 1; `None` at once in any other
/// process. To be called before anything else is done, since the child does all again. The child cannot be process 1, so
/// no mark in its environment is needed.
///
/// # Errors
///
/// When this process cannot do its duty.
#[must_use]
pub fn serve_as_process_1() -> Option<Result<u8, InitError>> {
    getpid().is_init().then(serve)
}

fn serve() -> Result<u8, InitError> {
    hold_faults().map_err(InitError::Signals)?;
    // Before the child is there, so that none of its signals, nor one for it, is missed.
    let mut arrivals = Arrivals::of(passed_on().chain([Signal::CHILD])).map_err(InitError::Signals)?;
    let child = start().map_err(InitError::Start)?;
    loop {
        for arrival in arrivals.next().map_err(InitError::Signals)? {
            match arrival.signal {
                Signal::CHILD => {
                    if let Some(code) = reap(child).map_err(InitError::Wait)? {
                        return Ok(code);
                    }
                }
                // The child is in the same group, so it has had this.
                _ if arrival.by_terminal => {}
                // It has not been waited for, so its PID is its own. A signal that cannot be sent to it is for nobody.
                signal => _ = kill_process(child, signal),
            }
        }
    }
}

fn start() -> io::Result<Pid> {
    let mut arguments = std::env::args_os();
    let mut command = Command::new(OURSELVES);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    start_without(|| command.args(arguments).spawn()).map(|child| Pid::from_child(&child))
}

/// Reaps all that have ended; the exit code of `child` if it is among them.
fn reap(child: Pid) -> Result<Option<u8>, Errno> {
    let mut code = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) if pid == child => code = Some(exit_code(status)),
            Ok(Some(_)) => {}
            Ok(None) | Err(Errno::CHILD) => return Ok(code),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_its_file_is_called_its_name_in_proc_is_configbump() {
        take_name().expect("a name");
        assert!(serve_as_process_1().is_none());
        assert_eq!(std::fs::read_to_string("/proc/thread-self/comm").expect("a name"), "configbump\n");
    }
}
