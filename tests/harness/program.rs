//! A program that reads DIR, as the container beside the sidecar runs it.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use super::default_signals::use_default_signals;
use super::wait::{PATIENCE, until};
use super::workspace::Workspace;

/// A running program; dropping it kills it with its workers. While a test panics, that prints what it wrote.
pub struct Program {
    child: RefCell<Child>,
    log: PathBuf,
}

impl Program {
    /// Starts it, with default signal actions. It is asked to end should the test's thread end without having done so.
    pub fn start<A: AsRef<OsStr>>(workspace: &Workspace, program: &str, args: impl IntoIterator<Item = A>) -> Self {
        let log = workspace.fresh("program");
        let output = File::create_new(&log).expect("a temporary folder takes a file");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", program]).args(args).process_group(0).stdin(Stdio::null());
        command.stdout(output.try_clone().expect("an open file")).stderr(output);
        use_default_signals();
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; it is part of util-linux"));
        Self { child: child.into(), log }
    }

    pub fn pid(&self) -> u32 {
        self.child.borrow().id()
    }

    pub fn is_running(&self) -> bool {
        self.child.borrow_mut().try_wait().expect("a child can be waited for").is_none()
    }

    /// What it wrote so far, on both of its streams.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).expect("the program's output")).into_owned()
    }

    /// Waits until `look` is content, or the program ends.
    pub async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
        until(PATIENCE, what, async || {
            assert!(self.is_running(), "the program ended before {what}");
            look().await
        })
        .await
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read(&self.log).unwrap_or_default();
            eprintln!("program, running: {}, its output:\n{}", self.is_running(), String::from_utf8_lossy(&log));
        }
        let child = self.child.get_mut();
        // Nobody is left of a group that ended by itself.
        let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
        child.wait().expect("a child can be waited for");
    }
}
