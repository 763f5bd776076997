//! `DIR/.configbump`, the folder that is configbump's own: how it is opened, locked and cleared of what does not belong there.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode};
use rustix::io::Errno;

use super::{OpenError, aside, record};
use crate::content::TEMPORARY_PREFIX;
use crate::disk;
use crate::path::OWN_FOLDER;
use crate::printable::printable;

/// How long a lock that somebody has is waited for.
const LOCK_TIME_MAX: Duration = Duration::from_millis(500);

/// The file in configbump's own folder that is locked.
pub(super) const LOCK_NAME: &str = "lock";

/// How often a lock is opened anew that others have replaced.
const LOOKS_MAX: usize = 10;

/// How many folders one in another are removed from configbump's own folder, where none should be.
const PLANTED_DEPTH_MAX: u32 = 64;

/// Opens configbump's own folder, and makes it if it is missing, or something else is in its place; whether it is new.
pub(super) fn open_folder(root: BorrowedFd<'_>) -> io::Result<(OwnedFd, bool)> {
    let is_new = disk::make_folder(root, OWN_FOLDER)?;
    match disk::open_folder(root, OWN_FOLDER) {
        // No configbump has put that there, and no object can have: the name is never a file's.
        Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::NOTDIR | Errno::LOOP)) => {
            disk::unlink(root, OWN_FOLDER)?;
            let is_new = disk::make_folder(root, OWN_FOLDER)?;
            let own = disk::open_folder(root, OWN_FOLDER)?;
            tracing::warn!("{OWN_FOLDER} was no folder, and has been replaced by one");
            Ok((own, is_new))
        }
        opened => Ok((opened?, is_new)),
    }
}

/// Returns an error if a set cannot be published, before a tree of it is made.
pub(super) fn require_symlinks(own: BorrowedFd<'_>, dir: &Path) -> Result<(), OpenError> {
    let lack = disk::lack_of_symlinks(own, &format!("{TEMPORARY_PREFIX}link"));
    match lack.map_err(|error| OpenError::Write { dir: dir.join(OWN_FOLDER), error })? {
        Some(error) => Err(OpenError::NoSymlinks { dir: dir.to_owned(), error }),
        None => Ok(()),
    }
}

/// The file whose lock says that a configbump has the directory. Nobody else may open it: a lock takes no right to write
/// (flock(2)), and whoever reads the directory could keep every configbump out of it.
fn open_lock(own: BorrowedFd<'_>) -> io::Result<File> {
    let open = || disk::open_log(own, LOCK_NAME, Mode::RUSR | Mode::WUSR);
    match open() {
        // What somebody put there instead is no file that a configbump could have locked: a folder; a link; a pipe or a socket; a
        // device; another user's file, or one with a lease on it.
        Err(error)
            if matches!(
                Errno::from_io_error(&error),
                Some(Errno::ISDIR | Errno::LOOP | Errno::NXIO | Errno::NODEV | Errno::ACCESS | Errno::AGAIN)
            ) =>
        {
            clear(own, &CString::new(LOCK_NAME)?)?;
            open()
        }
        opened => opened,
    }
}

/// Removes what somebody put at a name of configbump's own, or where it cannot be removed, moves it to another in the same folder.
fn clear(own: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let Err(error) = disk::remove_tree(own, name, PLANTED_DEPTH_MAX) else { return Ok(()) };
    let aside = CString::new(format!("{TEMPORARY_PREFIX}{}", fastrand::u64(..)))?;
    // A folder of another user may be renamed in a folder of one's own, whatever it holds (rename(2)).
    rustix::fs::renameat(own, name, own, &aside).map_err(|_| error)
}

/// Two of them would remove each other's files. Where locks are refused, the one that starts last has the directory: it replaces the
/// file of the lock, by which the other one notices and ends.
pub(super) fn lock(own: BorrowedFd<'_>, dir: &Path) -> Result<File, OpenError> {
    let in_own = |error| OpenError::Write { dir: dir.join(OWN_FOLDER), error };
    let mut looks = 0;
    loop {
        let file = open_lock(own).map_err(in_own)?;
        if let Some(error) = wait_for(&file, dir)? {
            return take_over(own, dir, error).map_err(in_own);
        }
        looks += 1;
        let has_name = has_name(own, LOCK_NAME, &file).map_err(in_own)?;
        if has_name && disk::is_single_file(&file).map_err(in_own)? {
            return Ok(file);
        }
        if looks == LOOKS_MAX {
            return Err(in_own(io::Error::other("somebody replaces the lock all the time")));
        }
        // Of a file that has a name elsewhere too, others may want the lock.
        if has_name {
            CString::new(LOCK_NAME).map_err(io::Error::from).and_then(|name| clear(own, &name)).map_err(in_own)?;
        }
    }
}

/// Whether this open file is the one of this name: another start may have replaced it meanwhile.
pub(super) fn has_name(folder: BorrowedFd<'_>, name: &str, file: impl AsFd) -> io::Result<bool> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(named) => Ok(disk::identity(named) == disk::identity(rustix::fs::fstat(file)?)),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes the directory this configbump's without a lock.
fn take_over(own: BorrowedFd<'_>, dir: &Path, error: Errno) -> io::Result<File> {
    let dir = dir.display();
    tracing::warn!(
        event = "lock_refused",
        "cannot lock {dir}: {error}; use it for one configbump only: a second one that starts ends this one"
    );
    let name = format!("{TEMPORARY_PREFIX}{}", fastrand::u64(..));
    let file = disk::open_log(own, &name, Mode::RUSR | Mode::WUSR)?;
    disk::rename(own, &name, own, LOCK_NAME)?;
    Ok(file)
}

/// Waits for the lock. Returns the error of a file system, or of a policy, that has none.
fn wait_for(lock: &File, dir: &Path) -> Result<Option<Errno>, OpenError> {
    let asked = Instant::now();
    loop {
        match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
            // One that was killed may leave a process that it was just starting, which has a copy of the handle until its execve(2).
            Err(Errno::WOULDBLOCK) if asked.elapsed() < LOCK_TIME_MAX => std::thread::sleep(LOCK_TIME_MAX / 50),
            Err(Errno::WOULDBLOCK) => return Err(OpenError::Locked { dir: dir.to_owned() }),
            Err(Errno::INTR) => {}
            Err(error) => return Ok(Some(error)),
            Ok(()) => return Ok(None),
        }
    }
}

/// Removes what a killed run left half-done, and a folder that somebody put where the record belongs.
pub(super) fn clear_leftovers(own: BorrowedFd<'_>) -> io::Result<()> {
    let mut leftovers = Vec::new();
    disk::entries(own, |entry, file_type| {
        let name = entry.to_bytes();
        if name.starts_with(TEMPORARY_PREFIX.as_bytes()) || name.starts_with(aside::PREFIX.as_bytes()) {
            leftovers.push(entry.to_owned());
        } else if name == record::NAME.as_bytes() && file_type == FileType::Directory {
            clear(own, entry)?;
        }
        Ok(())
    })?;
    let mut kept = leftovers.iter().filter_map(|name| {
        let error = disk::remove_tree(own, name, PLANTED_DEPTH_MAX).err()?;
        Some((printable(&name.to_string_lossy(), 255), error))
    });
    // What cannot be removed is in nobody's way but its maker's.
    if let Some((name, error)) = kept.next() {
        let more = kept.count();
        let more = if more > 0 { format!(", nor {more} more") } else { String::new() };
        tracing::warn!("cannot remove {OWN_FOLDER}/{name}, which an earlier run or somebody else left{more}: {error}");
    }
    Ok(())
}
