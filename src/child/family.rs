//! The children of this process, and who waits for which.
//!
//! As a subreaper, configbump has children that it never started. Each child belongs to one of two: to whoever started it
//! by [`start_awaited`] and waits for it, or to the supervisor, which takes all others for processes of the program.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, getpid, waitpid};

use super::exit_code;

/// Children that the supervisor must leave alone. They belong to the process, as its children do.
static AWAITED: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// A child whose status somebody else wants: while this lives, the supervisor neither waits for it nor takes it for a
/// part of the program. To be dropped when the child has been waited for.
#[derive(Debug)]
pub struct Awaited(u32);

/// Starts a child that the caller will wait for, by `spawn`; `id` tells its PID. Whatever in configbump starts a process
/// does it this way.
///
/// # Errors
///
/// What `spawn` reports; and a child that has no PID any more.
pub fn start_awaited<C>(
    spawn: impl FnOnce() -> io::Result<C>,
    id: impl FnOnce(&C) -> Option<u32>,
) -> io::Result<(C, Awaited)> {
    // Locked during the start: on whatever thread this is, the supervisor cannot look in between.
    let mut awaited = lock();
    let child = spawn()?;
    let id = id(&child).ok_or_else(|| io::Error::other("it ended before it was known"))?;
    awaited.insert(id);
    Ok((child, Awaited(id)))
}

impl Drop for Awaited {
    fn drop(&mut self) {
        lock().remove(&self.0);
    }
}

fn lock() -> MutexGuard<'static, BTreeSet<u32>> {
    // A set of numbers is whole at any moment, also when the thread that held it has panicked.
    AWAITED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The children nobody else waits for.
#[derive(Debug, Default)]
pub(super) struct Family {
    /// Those that have ended since the last look, with their exit codes; they are reaped.
    pub ended: Vec<(Pid, u8)>,
    pub alive: HashSet<Pid>,
}

/// Looks at every child nobody else waits for, and reaps those that have ended.
pub(super) fn look() -> io::Result<Family> {
    let awaited = lock();
    let mut family = Family::default();
    for pid in children()? {
        if awaited.contains(&pid.as_raw_nonzero().get().unsigned_abs()) {
            continue;
        }
        match waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => family.ended.push((pid, exit_code(status))),
            Ok(None) => _ = family.alive.insert(pid),
            // Somebody was faster: a child that was dropped while it ran is reaped by the runtime.
            Err(Errno::CHILD) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(family)
}

/// All children of all threads of this process, ended ones included.
pub(super) fn children() -> io::Result<HashSet<Pid>> {
    let mut children = HashSet::new();
    for task in fs::read_dir("/proc/self/task")? {
        match fs::read_to_string(task?.path().join("children")) {
            Ok(list) => children.extend(list.split_ascii_whitespace().filter_map(parse_pid)),
            // A kernel without CONFIG_PROC_CHILDREN; or a thread that has ended, whose children another one has now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return children_by_parent(),
            Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => return children_by_parent(),
            Err(error) => return Err(error),
        }
    }
    Ok(children)
}

/// The same by a look at every process.
fn children_by_parent() -> io::Result<HashSet<Pid>> {
    let mut children = HashSet::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(parse_pid) else { continue };
        // One that has gone meanwhile, or is hidden, is no child of ours: those stay until they are waited for.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        if parent_of(&stat) == Some(getpid()) {
            children.insert(pid);
        }
    }
    Ok(children)
}

/// The parent in a line of `/proc/PID/stat`: the second word after the name, which is in brackets and may hold anything
/// (`proc_pid_stat(5)`).
fn parent_of(stat: &str) -> Option<Pid> {
    let (_, after_name) = stat.rsplit_once(')')?;
    parse_pid(after_name.split_ascii_whitespace().nth(1)?)
}

fn parse_pid(text: &str) -> Option<Pid> {
    text.parse().ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_after_a_name_with_brackets_and_spaces() {
        assert_eq!(parent_of("12 (a) S 7 (b) R 34 1 1 0"), Pid::from_raw(34));
        assert_eq!(parent_of("12 (sh) Z 1 1 1 0"), Pid::from_raw(1));
        assert_eq!(parent_of("12 (sh"), None);
    }

    #[test]
    fn both_ways_of_finding_children_find_an_awaited_one_and_a_look_leaves_it_alone() {
        let (mut child, awaited) = start_awaited(
            || std::process::Command::new("sleep").arg("1000").spawn(),
            |child: &std::process::Child| Some(child.id()),
        )
        .expect("a child");
        let pid = Pid::from_child(&child);
        assert!(children().expect("a list").contains(&pid));
        assert!(children_by_parent().expect("a list").contains(&pid));
        child.kill().expect("to kill it");
        child.wait().expect("its status is still there");
        drop(awaited);
        assert!(!children().expect("a list").contains(&pid));
    }
}
