//! Which processes are told: found in `/proc`, by PID or by command line.
//!
//! PIDs are those of the PID namespace that configbump is in. It sees the program of another container only if the pod
//! shares its namespace (`shareProcessNamespace: true`).

use std::fmt;

use regex_lite::Regex;

use crate::bump::{BootTime, BumpError};

mod folder;
mod handle;
mod parse;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use handle::{Handle, Handling, Sent};
use view::View;

const HIDDEN: &str = "/proc is mounted with hidepid, which hides the processes of other users; mount it without, \
                      or run configbump as the user of the program";

/// What tells a process from others.
#[derive(Clone, Debug)]
pub enum Who {
    /// Its PID. As a parent, 0 stands for one that is outside of the PID namespace, as in cm-bump, and is what
    /// `/proc/PID/status` then shows (`pid_namespaces(7)`): the first process of a container has such a parent, and so
    /// has one that `kubectl exec` started. In a pod that shares its namespace these are the first processes of every
    /// container.
    Pid(u32),
    /// An expression that is found somewhere in its command line, whose words have one space between them; see
    /// [`parse_expression`]. What follows the first 64 KiB is not looked at.
    Command(Regex),
}

impl Who {
    fn is(&self, pid: u32, command_line: &str) -> bool {
        match self {
            Self::Pid(own) => *own == pid,
            Self::Command(expression) => expression.is_match(command_line),
        }
    }
}

/// What tells the target from other processes.
#[derive(Clone, Debug)]
pub struct TargetSpec {
    pub process: Who,
    pub parent: Option<Who>,
}

impl TargetSpec {
    /// Whether no command line has to be read to find it.
    #[must_use]
    pub fn is_by_pid(&self) -> bool {
        matches!(self, Self { process: Who::Pid(_), parent: None | Some(Who::Pid(_)) })
    }
}

impl fmt::Display for TargetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Who::Pid(pid) => write!(f, "process with PID {pid}")?,
            Who::Command(expression) => {
                write!(f, "process whose command line matches `{}`", one_line(expression.as_str()))?;
            }
        }
        match &self.parent {
            None => Ok(()),
            Some(Who::Pid(0)) => f.write_str(" and whose parent has PID 0 (outside of the PID namespace)"),
            Some(Who::Pid(pid)) => write!(f, " and whose parent has PID {pid}"),
            Some(Who::Command(expression)) => {
                write!(f, " and whose parent's command line matches `{}`", one_line(expression.as_str()))
            }
        }
    }
}

/// One process for as long as the machine runs; its PID alone may be given to another after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    pub pid: u32,
    /// To the tick (10 ms) before.
    pub started: BootTime,
}

/// A process that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub identity: Identity,
    /// The name of its executable. Its command line may hold secrets, so configbump does not keep that.
    pub name: String,
    /// If it is a shell or another wrapper: the nearest programs below it that answer the specification, too.
    pub wrapped: Vec<Target>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PID {} ({})", self.identity.pid, one_line(&self.name))
    }
}

/// Finds the running processes that a specification means; several if it does not say which.
///
/// Of several, those are meant whose parent is not among them: the master, not its workers. Never found are configbump
/// itself, the processes that `is_helper` names and all that descend from those, and kernel threads; nor, unless it is
/// by PID, another process with configbump's name, and what configbump was started by with its options, because the command line of
/// these names the target, too.
///
/// # Errors
///
/// [`BumpError::Waiting`] if there is none, [`BumpError::Failed`] if `/proc` cannot be read.
pub fn find(spec: &TargetSpec, is_helper: &dyn Fn(u32) -> bool) -> Result<Vec<Target>, BumpError> {
    let view = View::take(spec)?;
    let targets = view.choose(spec, is_helper);
    if targets.is_empty() { Err(nobody(spec, view.is_alone())) } else { Ok(targets) }
}

fn nobody(spec: &TargetSpec, is_alone: bool) -> BumpError {
    BumpError::Waiting(if is_hiding() {
        // To some it hides nothing: root, and the group that it was told of.
        format!("no {spec} can be seen, perhaps because {HIDDEN}")
    } else if is_alone {
        format!(
            "no {spec} can be seen, nor any that is not configbump's own: if it is in another container, share the \
             process namespace of the pod (shareProcessNamespace: true)"
        )
    } else {
        format!("no {spec} is running")
    })
}

/// Whether `/proc` hides the processes of other users.
pub(crate) fn is_hiding() -> bool {
    let mounts = std::fs::read("/proc/self/mounts").unwrap_or_default();
    has_hiding(&String::from_utf8_lossy(&mounts))
}

/// Whether a table of mounts (`proc_pid_mounts(5)`) has a `/proc` that hides the processes of other users.
fn has_hiding(mounts: &str) -> bool {
    let proc = |line: &&str| line.split(' ').nth(1) == Some("/proc");
    let options = mounts.lines().rfind(proc).and_then(|line| line.split(' ').nth(3)).unwrap_or_default();
    options.split(',').any(|option| option.strip_prefix("hidepid=").is_some_and(|how| !matches!(how, "0" | "off")))
}

/// Why a text is no expression, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {column}: {problem}")]
pub struct ExpressionError {
    /// The position in characters, from 1, at which it goes wrong.
    pub column: usize,
    /// What is wrong; one line.
    pub problem: String,
}

/// Parses a regular expression in the syntax of the crate `regex-lite`: that of Perl without look-around,
/// backreferences and Unicode classes. It is found anywhere in a command line unless `^` and `$` say otherwise.
///
/// # Errors
///
/// Fails if the text is no expression, or is blank, which would match every process.
pub fn parse_expression(text: &str) -> Result<Regex, ExpressionError> {
    if text.trim().is_empty() {
        let problem = "it is empty and would match every process; write a part of the command line".to_owned();
        return Err(ExpressionError { column: 1, problem });
    }
    Regex::new(text).map_err(|error| {
        let problem = error.to_string();
        // The parser does not tell: it is the end of the shortest beginning from which on nothing mends it.
        let is_as_wrong = |end: &usize| Regex::new(&text[..*end]).is_err_and(|error| error.to_string() == problem);
        let ends = text.char_indices().map(|(start, character)| start + character.len_utf8());
        let first = ends.rev().take_while(is_as_wrong).last().unwrap_or(text.len());
        ExpressionError { column: text[..first].chars().count(), problem }
    })
}

/// A text on one line, whatever is in it.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() }).collect()
}
