//! All processes at one moment, and the choice among them.

use std::collections::BTreeMap;
use std::iter;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::folder::{Folder, Obstacle};
use super::{Identity, Target, TargetSpec, Who};
use crate::bump::{BootTime, BumpError};

/// How often a command line is looked for that is not there, as within `execve(2)`, and the time between two looks.
const EXEC_LOOKS: usize = 5;
const EXEC_WAIT: Duration = Duration::from_millis(1);

/// Programs that have the command line of the program that they run in their own: shells, and what starts a program and waits for
/// its end.
const WRAPPERS: [&str; 20] = [
    "ash",
    "bash",
    "busybox",
    "catatonit",
    "dash",
    "docker-init",
    "dumb-init",
    "fish",
    "ksh",
    "mksh",
    "nsenter",
    "runuser",
    "sh",
    "su",
    "sudo",
    "timeout",
    "tini",
    "tini-static",
    "unshare",
    "zsh",
];

/// What the choice has to know of a process.
#[derive(Clone, Debug)]
pub struct Seen {
    pub started: BootTime,
    /// The PID of its parent; 0 if that is in another PID namespace.
    pub parent: u32,
    pub name: String,
    /// Whether it is what the target is to be.
    pub is_process: bool,
    /// Whether it is what the target's parent is to be.
    pub is_parent: bool,
    /// Whether its command line names configbump's executable.
    pub names_configbump: bool,
}

/// Every process that can be seen, but for kernel threads and those that have ended.
#[derive(Clone, Debug)]
pub struct View {
    /// The PID of configbump itself.
    pub own: u32,
    pub processes: BTreeMap<u32, Seen>,
}

impl View {
    /// Looks at every process, over the whole range of PIDs.
    pub fn take(spec: &TargetSpec) -> Result<Self, BumpError> {
        let own = std::process::id();
        let unreadable = |error| BumpError::Failed(format!("cannot read /proc: {error}; mount it"));
        // PIDs of another namespace would name other processes here.
        if std::fs::read_link("/proc/self").map_err(unreadable)?.to_str() != Some(&own.to_string()) {
            return Err(BumpError::Failed(
                "/proc shows another PID namespace than the one configbump is in: mount its own /proc".to_owned(),
            ));
        }
        let (mut processes, executable) = (BTreeMap::new(), executable());
        let mut pids = Vec::new();
        for entry in std::fs::read_dir("/proc").map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            pids.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        // A command line that is not there is looked for again, for all that have none at a time: a master that was left out for a
        // moment's want of it would make targets of its workers. One that has removed its own has an empty one.
        for look in 1..=EXEC_LOOKS {
            let mut in_exec = Vec::new();
            for pid in pids {
                match see(pid, spec, &executable, look == EXEC_LOOKS) {
                    Ok(Sight::Process(seen)) => _ = processes.insert(pid, seen),
                    Ok(Sight::InExec) => in_exec.push(pid),
                    Ok(Sight::Kernel) | Err(Obstacle::Gone | Obstacle::Hidden) => {}
                    Err(Obstacle::Failed(error)) => return Err(error),
                }
            }
            if in_exec.is_empty() {
                break;
            }
            pids = in_exec;
            thread::sleep(EXEC_WAIT);
        }
        Ok(Self { own, processes })
    }

    /// The processes that the specification means: of those that answer it, the ones whose parent does not.
    pub fn choose(&self, spec: &TargetSpec, is_helper: &dyn Fn(u32) -> bool) -> Vec<Target> {
        let candidates: BTreeMap<_, _> =
            self.processes.iter().filter(|(pid, seen)| self.is_candidate(**pid, seen, spec, is_helper)).collect();
        let outermost = candidates.iter().filter(|(_, seen)| !candidates.contains_key(&seen.parent));
        let target =
            |(pid, seen): (&&u32, &&Seen)| Target { wrapped: wrapped(**pid, &candidates), ..target(**pid, seen) };
        let targets: Vec<Target> = outermost.map(target).collect();
        // Only parents that changed while they were looked at can make a circle, which has nobody outside.
        if targets.is_empty() {
            candidates.iter().map(|(pid, seen)| self::target(**pid, seen)).collect()
        } else {
            targets
        }
    }

    /// Whether there is nobody else: only configbump, those that it came from and those that came from it.
    pub fn is_alone(&self) -> bool {
        let mut others = self.processes.iter().filter(|(pid, seen)| {
            !self.is_of_configbump(**pid, seen)
                && !self.line(self.own).any(|ancestor| ancestor == **pid)
                && !self.line(**pid).any(|ancestor| ancestor == self.own)
        });
        others.next().is_none()
    }

    fn is_candidate(&self, pid: u32, seen: &Seen, spec: &TargetSpec, is_helper: &dyn Fn(u32) -> bool) -> bool {
        let is_right = seen.is_process && pid != self.own;
        // The command line of every configbump names its target, and so does that of what starts one with its options (a shell,
        // timeout(1), an init such as tini). Only a PID can mean them.
        let may_be_meant = matches!(spec.process, Who::Pid(_))
            || !(self.is_of_configbump(pid, seen) || self.has_started_configbump(pid, seen));
        let is_under_parent = match spec.parent {
            None => true,
            Some(Who::Pid(parent)) => seen.parent == parent,
            Some(Who::Command(_)) => self.processes.get(&seen.parent).is_some_and(|parent| parent.is_parent),
        };
        is_right && may_be_meant && is_under_parent && !self.line(pid).any(is_helper)
    }

    /// Whether it runs the same program: configbump, its own init, or another sidecar of the pod.
    fn is_of_configbump(&self, pid: u32, seen: &Seen) -> bool {
        pid == self.own || self.processes.get(&self.own).is_some_and(|own| own.name == seen.name)
    }

    /// Whether it is configbump's parent, or that one's, and so on, and its command line names configbump.
    fn has_started_configbump(&self, pid: u32, seen: &Seen) -> bool {
        seen.names_configbump && self.line(self.own).any(|ancestor| ancestor == pid)
    }

    /// A process, its parent, and so on; the last may be one that is not seen any more. Parents that changed while they
    /// were looked at may make a circle.
    fn line(&self, pid: u32) -> impl Iterator<Item = u32> {
        let parent = |pid: &u32| self.processes.get(pid).map(|seen| seen.parent);
        iter::successors(Some(pid), parent).take(self.processes.len() + 1)
    }
}

/// The name of configbump's file, as it was started.
fn executable() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    Path::new(&path).file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// What there is to see of a PID.
enum Sight {
    Process(Seen),
    /// It has no command line at the moment.
    InExec,
    /// A thread of the kernel.
    Kernel,
}

/// Looks at a process; without a command line, it has an empty one if this is the `last` look.
fn see(pid: u32, spec: &TargetSpec, executable: &str, last: bool) -> Result<Sight, Obstacle> {
    let folder = Folder::open(pid)?;
    let stat = folder.stat()?;
    if stat.is_of_kernel {
        return Ok(Sight::Kernel);
    }
    let command_line = if spec.is_by_pid() { Some(String::new()) } else { folder.command_line()? };
    let Some(command_line) = command_line.or_else(|| last.then(String::new)) else { return Ok(Sight::InExec) };
    Ok(Sight::Process(Seen {
        started: stat.started,
        parent: stat.parent,
        name: stat.name,
        is_process: spec.process.is(pid, &command_line),
        is_parent: spec.parent.as_ref().is_some_and(|parent| parent.is(pid, &command_line)),
        names_configbump: names(&command_line, executable),
    }))
}

/// Whether one of the words, or of what stands in a word of a script, is a path or name of the executable.
fn names(command_line: &str, executable: &str) -> bool {
    let is_part = |char: char| !(char.is_alphanumeric() || ['-', '_', '.'].contains(&char));
    !executable.is_empty() && command_line.split(is_part).any(|word| word == executable)
}

fn target(pid: u32, seen: &Seen) -> Target {
    Target { identity: Identity { pid, started: seen.started }, name: seen.name.clone(), wrapped: Vec::new() }
}

/// Returns the nearest candidates below a wrapper that are none themselves. A shell that has just forked looks like its parent, so a
/// shell below a shell is not taken for the program.
fn wrapped(pid: u32, candidates: &BTreeMap<&u32, &Seen>) -> Vec<Target> {
    let (mut programs, mut wrappers) = (Vec::new(), Vec::from([pid]));
    let is_wrapper = |seen: &Seen| WRAPPERS.contains(&seen.name.as_str());
    // A circle of parents cannot be reached from outside of it, and each process has one parent.
    while let Some(wrapper) = wrappers.pop().filter(|pid| candidates.get(pid).is_some_and(|seen| is_wrapper(seen))) {
        for (&&child, seen) in candidates.iter().filter(|(_, seen)| seen.parent == wrapper) {
            if is_wrapper(seen) {
                wrappers.push(child);
            } else {
                programs.push(target(child, seen));
            }
        }
    }
    programs
}
