//! Mode and group of the files and directories that configbump makes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, Mode, Stat};
use rustix::io::Errno;
use rustix::process::Gid;

use crate::object::Kind;

/// Bit that makes new files in a directory take the directory's group.
const SETGID: u32 = 0o2000;

/// Permissions of the files, by kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes {
    pub config_map: u32,
    pub secret: u32,
}

impl Modes {
    pub(crate) fn of(self, kind: Kind) -> Mode {
        Mode::from_raw_mode(match kind {
            Kind::ConfigMap => self.config_map,
            Kind::Secret => self.secret,
        })
    }
}

/// Modes of new files, and the group that they share with the directory. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Permissions {
    modes: Modes,
    group: Option<Gid>,
    refused: Arc<Refused>,
}

/// Refusals of the file system that are in the log already.
#[derive(Debug, Default)]
struct Refused {
    mode: AtomicBool,
    group: AtomicBool,
}

impl Permissions {
    /// If the directory has the setgid bit, as a volume with an `fsGroup` has, its group becomes that of every file.
    pub fn below(dir: BorrowedFd<'_>, modes: Modes) -> io::Result<Self> {
        let stat = rustix::fs::fstat(dir)?;
        let group = (stat.st_mode & SETGID != 0).then(|| Gid::from_raw(stat.st_gid));
        Ok(Self { modes, group, refused: Arc::default() })
    }

    /// Permissions for a directory without a group of its own.
    #[cfg(test)]
    pub fn for_tests(modes: Modes) -> Self {
        Self { modes, group: None, refused: Arc::default() }
    }

    pub fn mode(&self, kind: Kind) -> Mode {
        self.modes.of(kind)
    }

    /// Group without which a file of this kind is unreadable to the directory's readers.
    pub fn required_group(&self, kind: Kind) -> Option<u32> {
        self.group.filter(|_| !self.mode(kind).contains(Mode::ROTH)).map(Gid::as_raw)
    }

    /// Gives a file or directory of configbump's own this mode and the shared group. A directory keeps its setgid bit. If the
    /// file system refuses, as Azure Files and CIFS do, one warning says so.
    pub fn apply(&self, file: impl AsFd, mode: Mode) -> io::Result<()> {
        let tried = self.set(file.as_fd(), mode)?;
        if let Some((error, group)) = tried.group
            && !self.refused.group.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                event = "group_refused",
                group,
                "cannot give files the directory's group {group}: {error}; add the group to configbump's (fsGroup)"
            );
        }
        if let Some(error) = tried.mode
            && !self.refused.mode.swap(true, Ordering::Relaxed)
        {
            let (wanted, has) = (mode.bits(), tried.had & 0o777);
            tracing::warn!(
                event = "mode_refused",
                "cannot set the mode {wanted:04o}: {error}; files keep {has:04o}, set it by the volume's mount options"
            );
        }
        Ok(())
    }

    /// Returns the lacks of a new file in words, after the same steps as [`Self::apply`].
    pub fn lack(&self, file: impl AsFd, mode: Mode) -> io::Result<Option<String>> {
        let file = file.as_fd();
        self.set(file, mode)?;
        let stat = rustix::fs::fstat(file)?;
        let (wanted, has) = (mode.bits(), stat.st_mode & 0o777);
        if has != wanted {
            return Ok(Some(format!(
                "gives files the mode {has:04o} instead of {wanted:04o}; set it by its mount options"
            )));
        }
        let other = self.group.map(Gid::as_raw).filter(|group| *group != stat.st_gid);
        Ok(other
            .map(|group| format!("gives files another group than its own, {group}; run configbump with that group")))
    }

    fn set(&self, file: BorrowedFd<'_>, mode: Mode) -> io::Result<Tried> {
        let stat = rustix::fs::fstat(file)?;
        let group = match self.group.filter(|group| group.as_raw() != stat.st_gid) {
            Some(group) => refusal(rustix::fs::fchown(file, None, Some(group)))?.map(|error| (error, group.as_raw())),
            None => None,
        };
        Ok(Tried { group, mode: refusal(set_mode(file, &stat, mode))?, had: stat.st_mode })
    }
}

/// Refusals that one file met.
struct Tried {
    group: Option<(Errno, u32)>,
    mode: Option<Errno>,
    /// Mode before.
    had: u32,
}

/// Changes the mode only if it differs.
fn set_mode(file: BorrowedFd<'_>, stat: &Stat, mode: Mode) -> Result<(), Errno> {
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let kept = if is_directory { stat.st_mode & SETGID } else { 0 };
    let wanted = mode.bits() | kept;
    if stat.st_mode & 0o7777 == wanted {
        return Ok(());
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(wanted))
}

/// Tells a refusal by the file system, or by a policy, from a failure.
fn refusal(done: Result<(), Errno>) -> io::Result<Option<Errno>> {
    match done {
        Ok(()) => Ok(None),
        Err(error @ (Errno::PERM | Errno::ACCESS | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL)) => Ok(Some(error)),
        Err(error) => Err(error.into()),
    }
}
