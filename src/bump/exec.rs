//! Runs a command after a change.
//!
//! No shell has a part in it. The command gets the batch twice: in its environment, for scripts of a line, and as JSON
//! lines on its standard input, for programs. It may read as little of that as it likes. What it writes goes to the log.
//!
//! It runs in a process group of its own, to which all belongs that it starts and that does not leave the group. When its
//! time is up, or configbump ends, the whole group does. What a command that ended by itself left running in the
//! background is left alone; but nobody listens to that any more, so its output is better sent elsewhere.

mod output;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{sleep, timeout};

use self::output::Output;
use super::printable::quoted;
use super::{Batch, BumpError, Effect};
use crate::child::{Awaited, start_awaited};

/// How many bytes of paths the environment carries; one string of it may have 128 KiB (`execve(2)`).
const CHANGED_BYTES_MAX: usize = 64 * 1024;

/// How long a command whose time is up may take to end after TERM, before KILL.
const GRACE: Duration = Duration::from_secs(2);

/// How often it is seen whether all of its group are gone.
const STEP: Duration = Duration::from_millis(20);

/// How long the output is waited for that others still hold open when the command has ended.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How many bytes of input are written at a time.
const INPUT_BYTES: usize = 16 * 1024;

/// What to run, and for how long.
#[derive(Clone, Debug)]
pub struct ExecConfig {
    /// The program and its arguments, as [`parse`] gives them. `{}` in a word stands for the directory.
    pub command: Vec<String>,
    /// The directory that is kept in step.
    pub dir: PathBuf,
    /// How long it may run.
    pub timeout: Duration,
}

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

/// The bump that runs a command.
#[derive(Debug)]
pub struct Exec {
    words: Vec<OsString>,
    /// Absolute.
    dir: PathBuf,
    timeout: Duration,
    /// The program, as errors and the log show it.
    name: String,
}

impl Exec {
    #[must_use]
    pub fn new(config: ExecConfig) -> Self {
        // It has no absolute form only while the working directory is gone; then the command cannot find it either.
        let dir = std::path::absolute(&config.dir).unwrap_or(config.dir);
        let words: Vec<OsString> = config.command.iter().map(|word| filled(word, &dir)).collect();
        let name = quoted(&words.first().map(|word| word.to_string_lossy()).unwrap_or_default());
        Self { words, dir, timeout: config.timeout, name }
    }

    /// Runs the command and waits for its end. Dropping the future kills it and what it started.
    ///
    /// # Errors
    ///
    /// [`BumpError::Failed`] when it cannot be started, does not end in time, or ends with another exit code than 0.
    pub async fn bump(&self, batch: &Batch) -> Result<(), BumpError> {
        let running = self.start(batch).map_err(|error| self.failed(&not_started(&error)))?;
        let ended = self.converse(running, batch).await.map_err(|error| self.failed(&not_started(&error)))?;
        match ended {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(self.failed(&match (status.code(), status.signal()) {
                (Some(code), _) => format!("ended with exit code {code}; the log has what it wrote"),
                (None, signal) => format!("was ended by signal {}", signal.unwrap_or_default()),
            })),
            None => Err(self.failed(&format!(
                "did not end within {:?} and was killed; see what it waits for, or raise --exec-timeout",
                self.timeout
            ))),
        }
    }

    fn failed(&self, why: &str) -> BumpError {
        BumpError::Failed(format!("--exec: {} {why}", self.name))
    }

    fn start(&self, batch: &Batch) -> io::Result<Running> {
        let (program, arguments) = self.words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let (changed, truncated) = changed(&self.dir, batch);
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env("CONFIG_BUMP_EVENT", "change")
            .env("CONFIG_BUMP_DIR", &self.dir)
            .env("CONFIG_BUMP_CHANGED", changed)
            .env_remove("CONFIG_BUMP_CHANGED_TRUNCATED")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        if truncated {
            command.env("CONFIG_BUMP_CHANGED_TRUNCATED", "true");
        }
        let (child, awaited) = start_awaited(|| command.spawn(), Child::id)?;
        Running::new(child, awaited)
    }

    /// Gives the command its input and takes its output until it has ended: its status, or `None` if its time was up.
    async fn converse(&self, mut running: Running, batch: &Batch) -> io::Result<Option<ExitStatus>> {
        let (stdin, stdout, stderr) =
            (running.child.stdin.take(), running.child.stdout.take(), running.child.stderr.take());
        let mut out = Output::new(&self.name, "stdout");
        let mut err = Output::new(&self.name, "stderr");
        let ended = {
            let mut talk = pin!(async {
                tokio::join!(feed(stdin, &self.dir, batch), out.relay(stdout), err.relay(stderr));
            });
            let mut talking = true;
            let mut end = pin!(running.end(self.timeout));
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
        out.finish();
        err.finish();
        ended
    }
}

/// A command that runs, and with it all that is in its process group. If it is dropped before the command ended, it kills
/// them.
struct Running {
    child: Child,
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
        let all_gone = async {
            let status = self.child.wait().await;
            while test_kill_process_group(self.group).is_ok() {
                sleep(STEP).await;
            }
            status
        };
        if let Ok(status) = timeout(GRACE, all_gone).await {
            return status.map(|_| None);
        }
        // The group has kept its number for itself: no process gets one that a group has.
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
            tracing::warn!("--exec: the process group {} could not be ended: {error}", self.group);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // There is an id until its end was seen; from then on the number may be that of others.
        if self.child.id().is_some() {
            self.signal(Signal::KILL);
        }
    }
}

/// The word with the directory in the place of every `{}`.
fn filled(word: &str, dir: &Path) -> OsString {
    let parts: Vec<&OsStr> = word.split("{}").map(OsStr::new).collect();
    parts.join(dir.as_os_str())
}

/// The changed paths, one a line, as far as there is room for them, and whether that was not far enough.
fn changed(dir: &Path, batch: &Batch) -> (OsString, bool) {
    let mut changed = OsString::new();
    for path in batch.changes.keys() {
        let path = dir.join(path.as_str());
        if changed.len() + 1 + path.as_os_str().len() > CHANGED_BYTES_MAX {
            return (changed, true);
        }
        if !changed.is_empty() {
            changed.push("\n");
        }
        changed.push(path);
    }
    (changed, false)
}

/// Writes the batch to the command's input, one JSON object a line. The command need not read it.
async fn feed(stdin: Option<ChildStdin>, dir: &Path, batch: &Batch) {
    let Some(mut stdin) = stdin else { return };
    let mut input = String::new();
    for (path, (effect, object)) in &batch.changes {
        let line = json!({
            "path": dir.join(path.as_str()).to_string_lossy(),
            "event": match effect {
                Effect::Written => "written",
                Effect::Removed => "removed",
            },
            "kind": object.kind.name(),
            "namespace": object.namespace,
            "name": object.name,
        });
        input.push_str(&format!("{line}\n"));
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

fn not_started(error: &io::Error) -> String {
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
