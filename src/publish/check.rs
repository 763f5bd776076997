//! The user's validator: says whether a tree of files may go live.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::command::{Command, Failure, Tail};

/// How much of a check's output is kept, in bytes: its last lines.
const OUTPUT_BYTES_MAX: usize = 4096;

/// What to run, and for how long.
#[derive(Clone, Debug)]
pub struct CheckConfig {
    /// The program and its arguments, as [`parse`](crate::command::parse) gives them. `{}` in a word stands for the tree.
    pub command: Vec<String>,
    /// The directory that is kept in step.
    pub dir: PathBuf,
    /// How long it may run.
    pub timeout: Duration,
}

/// What a check has said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Passed,
    Refused(Refusal),
    /// It could not be run, for this reason: that says nothing about the files.
    NotRun(String),
}

/// Why a check refuses a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// What the command did, in one line.
    pub why: String,
    /// The last lines that it wrote.
    pub output: Vec<String>,
}

/// Runs the check on a tree. Dropping the future kills the command.
pub async fn check(config: CheckConfig, tree: PathBuf) -> Verdict {
    let dir = std::path::absolute(&config.dir).unwrap_or(config.dir);
    let command = Command::new(&config.command, &tree, config.timeout)
        .with("CONFIG_BUMP_CANDIDATE", tree.as_os_str())
        .with("CONFIG_BUMP_DIR", &dir);
    let mut tail = Tail::new(OUTPUT_BYTES_MAX);
    let ended = command.run([], |_, line| tail.push(&in_dir(line, &tree, &dir))).await;
    let why = |failure: &Failure| format!("--check: {} {failure}", command.name());
    match ended {
        Ok(()) => Verdict::Passed,
        Err(failure @ Failure::NotRun(_)) => Verdict::NotRun(why(&failure)),
        Err(failure) => {
            let left_out = Some(tail.left_out()).filter(|left_out| *left_out > 0);
            let first = left_out.map(|lines| format!("({lines} lines before are left out)"));
            let output = first.into_iter().chain(tail.lines().map(str::to_owned)).collect();
            Verdict::Refused(Refusal { why: why(&failure), output })
        }
    }
}

/// What a line says of a file of the tree is about that file of the directory, to whoever reads it; and so two tries of the
/// same files read the same.
fn in_dir(line: &str, tree: &Path, dir: &Path) -> String {
    line.replace(&*tree.to_string_lossy(), &dir.to_string_lossy())
}
