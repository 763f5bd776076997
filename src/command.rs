//! Runs a command of the user's to its end, within bounds of time and output: a hook, or whatever else an option names.
//!
//! No shell has a part in it. The command may read as little of its input as it likes. What it writes is handed over line
//! by line, made fit for a log; [`Tail`] keeps the last of it.
//!
//! It runs in a process group of its own, to which all belongs that it starts and that does not leave the group. When its
//! time is up, or nobody waits for it any more, the whole group ends: with TERM and then KILL, or with KILL at once. What
//! a command that ended by itself left running in the background is left alone, and not waited for; but nobody listens to
//! that any more, so its output is better sent elsewhere.

mod lines;
mod tail;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::fs::{Access, access};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin};
use tokio::time::{sleep, timeout};

use self::lines::Output;
pub use self::tail::Tail;
use crate::child::{Awaited, start_awaited};
use crate::printable::quoted;

/// How long a command whose time is up has to end after TERM, before KILL.
const GRACE: Duration = Duration::from_secs(2);

/// How long the output is waited for that others still hold open when the command has ended.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How many bytes of input are written at a time.
const INPUT_BYTES: usize = 16 * 1024;

/// Splits a command into words as a shell does; nothing is expanded.
///
/// # Errors
///
/// When there is no command in it, or a quote is open.
pub fn parse(text: &str) -> Result<Vec<String>, String> {
    let words = shell_words::split(text)
        .map_err(|_| format!("{} has a quote that is never closed; close it, or write \\ before it", quoted(text)))?;
    if words.first().is_none_or(String::is_empty) {
        return Err(format!("{} names no command; write one such as 'nginx -s reload'", quoted(text)));
    }
    Ok(words)
}

/// The file that a program's name leads to, along `PATH` if it has no slash in it.
///
/// # Errors
///
/// When there is none, or it may not be run; on one line that goes after the name.
pub fn locate(program: &OsStr) -> Result<PathBuf, &'static str> {
    let may_run = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    let path = Path::new(program);
    if path.components().count() > 1 || path.is_absolute() {
        return match path {
            path if may_run(path) => Ok(path.to_owned()),
            path if path.exists() => Err("is there, but may not be run; make it executable"),
            _ => Err("is not there; correct the path, or put it there"),
        };
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).map(|folder| folder.join(path)).find(|path| may_run(path));
    found.ok_or("is in no folder of PATH; install it in this container, or write its whole path")
}

/// A command that can be run, and run again.
#[derive(Clone, Debug)]
pub struct Command {
    words: Vec<OsString>,
    environment: Vec<(&'static str, Option<OsString>)>,
    limit: Duration,
}

/// Where a line of output is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// Why a command did not succeed. The text goes after the command's name.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// It could not be started, or not be waited for.
    #[error("{}", not_run(.0))]
    NotRun(io::Error),
    /// With another exit code than 0, or by a signal.
    #[error("{}", ended(*.0))]
    Ended(ExitStatus),
    /// It was killed, with all of its group.
    #[error("did not end within {0:?} and was killed")]
    TimedOut(Duration),
}

impl Command {
    /// The program and its arguments, as [`parse`] gives them, and how long they may run. `{}` in a word stands for the
    /// path.
    #[must_use]
    pub fn new(words: &[String], path: &Path, limit: Duration) -> Self {
        let words = words.iter().map(|word| filled(word, path)).collect();
        Self { words, environment: Vec::new(), limit }
    }

    /// Sets a variable, on top of the environment of configbump.
    #[must_use]
    pub fn with(mut self, variable: &'static str, value: impl Into<OsString>) -> Self {
        self.environment.push((variable, Some(value.into())));
        self
    }

    /// Sees to it that a variable is not set.
    #[must_use]
    pub fn without(mut self, variable: &'static str) -> Self {
        self.environment.push((variable, None));
        self
    }

    /// The program, as errors and the log show it.
    #[must_use]
    pub fn name(&self) -> String {
        quoted(&self.words.first().map(|word| word.to_string_lossy()).unwrap_or_default())
    }

    /// Runs it, with these texts for its input one after the other, and hands over each line that it writes: on one line,
    /// printable, cut, never blank. Returns when it has ended. Dropping the future kills it and what it started.
    ///
    /// # Errors
    ///
    /// When it cannot be started, does not end in time, or does not end with exit code 0.
    pub async fn run(
        &self,
        input: impl IntoIterator<Item = String>,
        mut heard: impl FnMut(Stream, &str),
    ) -> Result<(), Failure> {
        let mut running = self.start().map_err(Failure::NotRun)?;
        let child = &mut running.child;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut output = Output::new(stdout, stderr);
        let ended = {
            let mut talk = pin!(async {
                tokio::join!(feed(stdin, input), output.relay(&mut heard));
            });
            let mut talking = true;
            let mut end = pin!(running.end(self.limit));
            let ended = loop {
                tokio::select! {
                    ended = &mut end => break ended,
                    () = &mut talk, if talking => talking = false,
                }
            };
            if talking {
                // Time runs out on this only if somebody else has the pipes.
                let _ = timeout(LAST_WORDS, talk).await;
            }
            ended
        };
        output.finish(&mut heard);
        match ended.map_err(Failure::NotRun)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(Failure::Ended(status)),
            None => Err(Failure::TimedOut(self.limit)),
        }
    }

    fn start(&self) -> io::Result<Running> {
        let (program, arguments) = self.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        for (variable, value) in &self.environment {
            match value {
                Some(value) => command.env(variable, value),
                None => command.env_remove(variable),
            };
        }
        let (child, awaited) = start_awaited(move || command.spawn(), Child::id)?;
        Running::new(child, awaited)
    }
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        })
    }
}

/// A command that runs, and with it all that is in its process group. If it is dropped before the command ended, it kills
/// them.
struct Running {
    child: Child,
    /// Its own for as long as the command has not been waited for, and signalled only then: until then nobody else can
    /// get the number.
    group: Pid,
    _awaited: Awaited,
}

impl Running {
    fn new(child: Child, awaited: Awaited) -> io::Result<Self> {
        let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { child, group: id.ok_or(io::ErrorKind::NotFound)?, _awaited: awaited })
    }

    /// Waits for the end of the command: its status, or `None` if it had to be ended with all of its group.
    async fn end(&mut self, limit: Duration) -> io::Result<Option<ExitStatus>> {
        if let Ok(status) = timeout(limit, self.child.wait()).await {
            return status.map(Some);
        }
        self.signal(Signal::TERM);
        // All of the group have this time, also when the command itself takes less of it.
        sleep(GRACE).await;
        self.signal(Signal::KILL);
        // Not even this ends what hangs in a system call of a dead disk.
        match timeout(GRACE, self.child.wait()).await {
            Ok(status) => status.map(|_| None),
            Err(_) => Ok(None),
        }
    }

    fn signal(&self, signal: Signal) {
        if let Err(error) = kill_process_group(self.group, signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!("the process group {} of a command could not be ended: {error}", self.group);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // There is an id until it was waited for.
        if self.child.id().is_some() {
            self.signal(Signal::KILL);
        }
    }
}

/// The word with the path in the place of every `{}`.
fn filled(word: &str, path: &Path) -> OsString {
    let parts: Vec<&OsStr> = word.split("{}").map(OsStr::new).collect();
    parts.join(path.as_os_str())
}

/// Writes the texts to the command's input, and closes it.
async fn feed(stdin: Option<ChildStdin>, texts: impl IntoIterator<Item = String>) {
    let Some(mut stdin) = stdin else { return };
    let mut input = String::new();
    for text in texts {
        input.push_str(&text);
        if input.len() >= INPUT_BYTES {
            if stdin.write_all(input.as_bytes()).await.is_err() {
                return;
            }
            input.clear();
        }
    }
    // A pipe fails only when nobody reads it any more.
    let _ = stdin.write_all(input.as_bytes()).await;
}

fn ended(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("ended with exit code {code}"),
        None => format!("was ended by signal {}", status.signal().unwrap_or_default()),
    }
}

fn not_run(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "was not found, or what its first line names, if it is a script; install it, or write its whole path"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "may not be executed; let configbump's user execute it, on a volume without noexec".to_owned()
        }
        _ => format!("could not be run: {error}"),
    }
}
