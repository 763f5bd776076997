//! The children of this process, and who waits for which.
//!
//! As a subreaper, configbump has children that it never started. Each child belongs to one of three: to whoever started
//! it by [`start_awaited`] and waits for it; to nobody, if such a one left it behind, in the process group that it had; or
//! to the supervisor, which takes all others for processes of the program.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, getpid, test_kill_process_group, waitpid};

use super::{exit_code, starter};

/// Children that are no part of the program. They belong to the process, as its children do.
static OTHERS: Mutex<Others> = Mutex::new(Others { awaited: Vec::new(), left: Vec::new() });

struct Others {
    /// Those that somebody waits for.
    awaited: Vec<Pid>,
    /// The process groups of those that somebody has waited for, for as long as they have members: so long nobody else
    /// gets the number.
    left: Vec<Pid>,
}

impl Others {
    /// Whether a child is in the group of one that somebody waits for or has waited for.
    fn have_left(&self, child: Pid) -> bool {
        if self.awaited.is_empty() && self.left.is_empty() {
            return false;
        }
        group(child).is_some_and(|group| self.awaited.contains(&group) || self.left.contains(&group))
    }
}

/// Whether a process is a child that somebody waits for, or in the process group of one: a part of a command of the
/// user's that runs at the moment.
#[must_use]
pub fn is_awaited(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    let others = lock();
    if others.awaited.is_empty() {
        return false;
    }
    others.awaited.contains(&pid) || group(pid).is_some_and(|group| others.awaited.contains(&group))
}

/// The process group of a process; none if it has gone.
fn group(pid: Pid) -> Option<Pid> {
    // `getpgid(2)` of rustix cannot say that a group is outside of the PID namespace, which is 0 here.
    group_of(&fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default())
}

/// A child whose status somebody else wants: while this lives, the supervisor neither waits for it nor takes it for a
/// part of the program. To be dropped when the child has been waited for.
#[derive(Debug)]
pub struct Awaited(Pid);

/// Starts a child that the caller will wait for, by `spawn`; `id` tells its PID. Whatever in configbump starts a process
/// does it this way.
///
/// # Errors
///
/// What `spawn` reports; and a child that has no PID any more.
pub fn start_awaited<C: Send + 'static>(
    spawn: impl FnOnce() -> io::Result<C> + Send + 'static,
    id: impl FnOnce(&C) -> Option<u32>,
) -> io::Result<(C, Awaited)> {
    // Locked during the start: on whatever thread this is, the supervisor cannot look in between.
    let mut others = lock();
    let child = starter::start(spawn)?;
    let pid = id(&child).and_then(|id| Pid::from_raw(id.try_into().ok()?));
    let pid = pid.ok_or_else(|| io::Error::other("it ended before it was known"))?;
    others.awaited.push(pid);
    Ok((child, Awaited(pid)))
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let mut others = lock();
        others.awaited.retain(|pid| *pid != self.0);
        others.left.push(self.0);
        others.left.retain(|group| test_kill_process_group(*group) != Err(Errno::SRCH));
    }
}

fn lock() -> MutexGuard<'static, Others> {
    // A list of numbers is whole at any moment, also when the thread that held it has panicked.
    OTHERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The children that may be the program's.
#[derive(Debug, Default)]
pub(super) struct Family {
    /// Those that have ended since the last look, with their exit codes; they are reaped.
    pub ended: Vec<(Pid, u8)>,
    pub alive: HashSet<Pid>,
}

/// Looks at every child nobody else waits for, and reaps those that have ended.
pub(super) fn look() -> io::Result<Family> {
    let others = lock();
    let mut family = Family::default();
    for pid in children()? {
        if others.awaited.contains(&pid) {
            continue;
        }
        let is_left = others.have_left(pid);
        match waitpid(Some(pid), WaitOptions::NOHANG) {
            Ok(_) if is_left => {}
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

/// The parent in a line of `/proc/PID/stat` (`proc_pid_stat(5)`).
fn parent_of(stat: &str) -> Option<Pid> {
    pid_after_name(stat, 1)
}

/// The process group there; none if it is outside of the PID namespace.
fn group_of(stat: &str) -> Option<Pid> {
    pid_after_name(stat, 2)
}

/// A word after the name, which is in brackets and may hold anything.
fn pid_after_name(stat: &str, nth: usize) -> Option<Pid> {
    let (_, after_name) = stat.rsplit_once(')')?;
    parse_pid(after_name.split_ascii_whitespace().nth(nth)?)
}

fn parse_pid(text: &str) -> Option<Pid> {
    text.parse().ok().and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_and_the_group_are_found_after_a_name_with_brackets_and_spaces() {
        for (stat, parent, group) in
            [("12 (a) S 7 (b) R 34 56 1 0", 34, 56), ("12 (sh) Z 1 0 1 0", 1, 0), ("12 (sh", 0, 0)]
        {
            assert_eq!((parent_of(stat), group_of(stat)), (Pid::from_raw(parent), Pid::from_raw(group)), "{stat}");
        }
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
