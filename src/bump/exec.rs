//! Runs a command after a change.
//!
//! The command gets the batch twice: in its environment, for scripts of a line, and as JSON lines on its standard input,
//! for programs. What it writes goes to the log.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;

use super::{Batch, BumpError, Effect};
use crate::command::{Command, Failure, Stream};

/// How many bytes of paths the environment carries; one string of it may have 128 KiB (`execve(2)`).
const CHANGED_BYTES_MAX: usize = 64 * 1024;

/// How many lines of one stream of one run are logged.
const LINES_MAX: usize = 100;

/// What to run, and for how long.
#[derive(Clone, Debug)]
pub struct ExecConfig {
    /// The program and its arguments, as [`parse`](crate::command::parse) gives them. `{}` in a word stands for the
    /// directory.
    pub command: Vec<String>,
    /// The directory that is kept in step.
    pub dir: PathBuf,
    /// How long it may run.
    pub timeout: Duration,
}

/// The bump that runs a command.
#[derive(Debug)]
pub struct Exec {
    command: Command,
    /// Absolute.
    dir: PathBuf,
}

impl Exec {
    #[must_use]
    pub fn new(config: ExecConfig) -> Self {
        // It has no absolute form only while the working directory is gone; then the command cannot find it either.
        let dir = std::path::absolute(&config.dir).unwrap_or(config.dir);
        let command = Command::new(&config.command, &dir, config.timeout)
            .with("CONFIG_BUMP_EVENT", "change")
            .with("CONFIG_BUMP_DIR", &dir);
        Self { command, dir }
    }

    /// The command, as lines of the log name it.
    #[must_use]
    pub fn name(&self) -> String {
        self.command.name()
    }

    /// Runs the command and waits for its end. Dropping the future kills it and what it started.
    ///
    /// # Errors
    ///
    /// [`BumpError::Refused`] when it ends with another exit code than 0, [`BumpError::Failed`] when it cannot be started, does
    /// not end in time, or is ended by a signal.
    pub async fn bump(&self, batch: &Batch) -> Result<(), BumpError> {
        let (changed, is_whole) = changed(&self.dir, batch);
        let command = self.command.clone().with("CONFIG_BUMP_CHANGED", changed);
        let command = if is_whole && !batch.is_cut {
            command.without("CONFIG_BUMP_CHANGED_TRUNCATED")
        } else {
            command.with("CONFIG_BUMP_CHANGED_TRUNCATED", "true")
        };
        let mut log = Log::new(command.name());
        let ended = command.run(lines(&self.dir, batch), |stream, line| log.take(stream, line)).await;
        log.finish();
        ended.map_err(|failure| {
            let remedy = match failure {
                Failure::Ended(status) if status.code().is_some() => "; the log has what it wrote",
                Failure::TimedOut(_) => "; see what it waits for, or raise --exec-timeout",
                Failure::NotRun(_) | Failure::Ended(_) => "",
            };
            let text = format!("--exec: {} {failure}{remedy}", command.name());
            let has_said_so = matches!(failure, Failure::Ended(status) if status.code().is_some());
            if has_said_so { BumpError::Refused(text) } else { BumpError::Failed(text) }
        })
    }
}

/// The log of one run.
struct Log {
    command: String,
    stdout: usize,
    stderr: usize,
}

impl Log {
    fn new(command: String) -> Self {
        Self { command, stdout: 0, stderr: 0 }
    }

    fn take(&mut self, stream: Stream, line: &str) {
        let count = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        *count += 1;
        if *count <= LINES_MAX {
            tracing::info!("{} {stream}: {line}", self.command);
        }
    }

    fn finish(self) {
        for (stream, count) in [(Stream::Stdout, self.stdout), (Stream::Stderr, self.stderr)] {
            if let Some(left_out @ 1..) = count.checked_sub(LINES_MAX) {
                tracing::info!("{} {stream}: ({left_out} more lines are left out)", self.command);
            }
        }
    }
}

/// The changed paths, one a line, as far as there is room for them, and whether that is all of them.
fn changed(dir: &Path, batch: &Batch) -> (OsString, bool) {
    let mut changed = OsString::new();
    for path in batch.changes.keys() {
        let path = dir.join(path.as_str());
        if changed.len() + 1 + path.as_os_str().len() > CHANGED_BYTES_MAX {
            return (changed, false);
        }
        if !changed.is_empty() {
            changed.push("\n");
        }
        changed.push(path);
    }
    (changed, true)
}

/// The batch as JSON objects, one a line.
fn lines(dir: &Path, batch: &Batch) -> impl Iterator<Item = String> {
    batch.changes.iter().map(|(path, (effect, object))| {
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
        format!("{line}\n")
    })
}
