//! A PID namespace of its own: that of a container, or the one that the containers of a pod share.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;

use super::program::Program;
use super::workspace::Workspace;

/// A PID namespace; all in it end when it is dropped.
pub struct Processes {
    program: Program,
    /// Its process 1, as seen from here.
    first: u32,
}

impl Processes {
    /// One with this process 1. It takes root.
    pub async fn start<A: AsRef<OsStr>>(
        workspace: &Workspace,
        program: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Self {
        let options = ["--pid", "--fork", "--kill-child", "--mount-proc", program].map(OsString::from);
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        let unshare = Program::start(workspace, "unshare", options.into_iter().chain(args));
        let first = unshare.until("process 1", async || child_that_is(program, unshare.pid())).await;
        Self { program: unshare, first }
    }

    /// One with a process 1 that does nothing, as that of a pod whose containers share their processes.
    pub async fn of_pod(workspace: &Workspace) -> Self {
        Self::start(workspace, "sleep", ["600"]).await
    }

    /// What joins it before it runs the command that follows, with a `/proc` of its own; as the first process of a
    /// container joins a pod, and one of `kubectl exec` a container: its parent stays outside.
    pub fn join(&self) -> [OsString; 6] {
        ["nsenter", "--target", &self.first.to_string(), "--pid", "unshare", "--mount-proc"].map(OsString::from)
    }

    /// Starts a program in it by [`Self::join`].
    pub fn enter<A: AsRef<OsStr>>(
        &self,
        workspace: &Workspace,
        program: &str,
        args: impl IntoIterator<Item = A>,
    ) -> Program {
        let [nsenter, options @ ..] = self.join();
        let args = args.into_iter().map(|arg| arg.as_ref().to_owned());
        let nsenter = nsenter.to_str().expect("a plain word");
        Program::start(workspace, nsenter, options.into_iter().chain([program.into()]).chain(args))
    }

    /// The PID in here of what [`Self::enter`] started, when that has begun.
    pub async fn pid_of(&self, entered: &Program, program: &str) -> u32 {
        entered
            .until("a program that has begun", async || {
                let pid = child_that_is(program, entered.pid())?;
                let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| error.to_string())?;
                let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).ok_or("no NSpid")?;
                let own = pids.split_ascii_whitespace().last().and_then(|pid| pid.parse().ok());
                own.ok_or_else(|| pids.to_owned())
            })
            .await
    }

    /// How many processes in here run this program.
    pub fn count(&self, program: &str) -> usize {
        let folders = fs::read_dir(format!("/proc/{}/root/proc", self.first)).expect("a /proc");
        let words = folders.flatten().filter_map(|folder| fs::read(folder.path().join("cmdline")).ok());
        words.filter(|words| words.split(|byte| *byte == 0).next() == Some(program.as_bytes())).count()
    }

    /// The words of a process in here; none if it has ended.
    pub fn command_line(&self, pid: u32) -> Option<String> {
        let path: PathBuf = format!("/proc/{}/root/proc/{pid}/cmdline", self.first).into();
        let words = fs::read_to_string(path).ok().filter(|words| !words.is_empty())?;
        Some(words.trim_end_matches('\0').replace('\0', " "))
    }

    /// Waits until `look` is content, or process 1 ends.
    pub async fn until<T>(&self, what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
        self.program.until(what, look).await
    }
}

/// The child of a process that runs this program, when it does.
fn child_that_is(program: &str, parent: u32) -> Result<u32, String> {
    let read = |path: String| fs::read_to_string(path).map_err(|error| error.to_string());
    let children = read(format!("/proc/{parent}/task/{parent}/children"))?;
    let child = children.split_ascii_whitespace().next().ok_or("it has no child yet")?;
    let words = read(format!("/proc/{child}/cmdline"))?;
    if words.split('\0').next() != Some(program) {
        return Err(format!("it is {words:?} as yet"));
    }
    child.parse().map_err(|_| children.clone())
}
