//! A server process that never outlives the tests.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// Runs the server until standard input closes, which it does however this process ends, and clears up behind it.
/// The signals that a terminal sends to all of a test run are left to the test run.
const KEEPER: &str = r#"
    trap '' INT TERM HUP
    log=$1 folder=$2; shift 2
    "$@" >>"$log" 2>&1 &
    echo $!
    cat >/dev/null
    kill -9 $!; wait
    [ -z "$folder" ] || rm -rf "$folder"
"#;

/// A running server; dropping it kills it.
pub struct Server {
    keeper: Child,
    pid: Pid,
}

impl Server {
    /// Starts `program`, its output appended to `log`. `folder` is removed after its end, if there is one.
    pub fn start<A: AsRef<OsStr>>(
        program: &Path,
        args: impl IntoIterator<Item = A>,
        log: &Path,
        folder: Option<&Path>,
    ) -> Self {
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(log)
            .arg(folder.unwrap_or(Path::new("")))
            .arg(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        let mut said = String::new();
        let stdout = keeper.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut said).expect("the keeper speaks");
        let pid = said.trim().parse().ok().and_then(Pid::from_raw).expect("the PID of the server");
        Self { keeper, pid }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("the server is running");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        self.keeper.wait().expect("the keeper ends once its standard input is closed");
    }
}
