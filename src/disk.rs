//! The system calls below the directory: relative to an open folder, a component at a time, following no symlink.
//!
//! Another container may share the directory and plant anything in it at any moment. A symlink is never followed, what is
//! not a regular file is never read, and no call waits for a FIFO's other end.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::time::SystemTime;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use crate::path::RelPath;

/// Folders get the permissions that the umask leaves of this: readers run under other users.
pub(crate) const FOLDER_MODE: u32 = 0o755;

const FOLDER_FLAGS: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens a folder in a folder.
pub(crate) fn open_folder(folder: BorrowedFd<'_>, name: &str) -> io::Result<OwnedFd> {
    crash::point()?;
    Ok(rustix::fs::openat(folder, name, OFlags::RDONLY | FOLDER_FLAGS, Mode::empty())?)
}

/// Makes a folder in a folder; whether it was not there before.
pub(crate) fn make_folder(folder: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    crash::point()?;
    match rustix::fs::mkdirat(folder, name, Mode::from_raw_mode(FOLDER_MODE)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// The folder of a path and the name of the file in it.
pub(crate) struct Place<'a> {
    root: BorrowedFd<'a>,
    folder: Option<OwnedFd>,
    pub name: &'a str,
}

impl<'a> Place<'a> {
    /// Finds the folder of a path below `root`.
    pub fn open(root: BorrowedFd<'a>, path: &'a RelPath) -> io::Result<Self> {
        let (folders, name) = path.split();
        let mut folder = None;
        for component in folders.into_iter().flat_map(|folders| folders.split('/')) {
            folder = Some(open_folder(folder.as_ref().map_or(root, AsFd::as_fd), component)?);
        }
        Ok(Self { root, folder, name })
    }

    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_ref().map_or(self.root, AsFd::as_fd)
    }
}

/// Opens a regular file for reading; nothing if there is none, or if something else stands there.
pub(crate) fn open_file(folder: BorrowedFd<'_>, name: &str) -> io::Result<Option<File>> {
    crash::point()?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match rustix::fs::openat(folder, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        // A symlink; a socket; a device without a driver; a file of somebody who keeps it to himself, by its mode or by a lease
        // (F_SETLEASE in fcntl(2)) that would have to be waited for.
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::NODEV | Errno::ACCESS | Errno::AGAIN) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    Ok(file.metadata()?.is_file().then_some(file))
}

/// Opens a file of configbump's own for appending, and makes it if it is missing.
pub(crate) fn open_log(folder: BorrowedFd<'_>, name: &str, mode: Mode) -> io::Result<File> {
    crash::point()?;
    let flags =
        OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, mode)?.into())
}

/// Whether this is a regular file with no name but one. What was planted may be another name of a file that is elsewhere.
pub(crate) fn is_single_file(file: &File) -> io::Result<bool> {
    let metadata = file.metadata()?;
    // Some file systems in user space count no names.
    Ok(metadata.is_file() && metadata.nlink() <= 1)
}

pub(crate) fn rename(from: BorrowedFd<'_>, name: &str, to: BorrowedFd<'_>, new_name: &str) -> io::Result<()> {
    crash::point()?;
    Ok(rustix::fs::renameat(from, name, to, new_name)?)
}

/// Renames a file over whatever is there. A file that it replaces is older: see [`make_later`].
pub(crate) fn replace(from: BorrowedFd<'_>, name: &str, to: BorrowedFd<'_>, new_name: &str) -> io::Result<()> {
    make_later((from, name), (to, new_name))?;
    rename(from, name, to, new_name)
}

/// Gives a file a later modification time than the file that it is to replace: make and other programs look at nothing else,
/// and a content that was kept on standby, or comes back, can be older. Only a debug line says that a file system refuses.
pub(crate) fn make_later(new: (BorrowedFd<'_>, &str), old: (BorrowedFd<'_>, &str)) -> io::Result<()> {
    let is_regular = |stat: &Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    let Some(replaced) = stat(old.0, old.1)?.filter(is_regular) else { return Ok(()) };
    let Some(fresh) = stat(new.0, new.1)?.filter(is_regular) else { return Ok(()) };
    let before = modified(&replaced);
    if identity(fresh) == identity(replaced) || modified(&fresh) > before {
        return Ok(());
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = (now.as_secs().try_into().unwrap_or_default(), i64::from(now.subsec_nanos()));
    let (tv_sec, tv_nsec) = now.max(after(before));
    let unchanged = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access: unchanged, last_modification: Timespec { tv_sec, tv_nsec } };
    crash::point()?;
    if let Err(error) = rustix::fs::utimensat(new.0, new.1, &times, AtFlags::SYMLINK_NOFOLLOW) {
        tracing::debug!("cannot set the modification time of {}: {error}", old.1);
    }
    Ok(())
}

fn modified(stat: &Stat) -> (i64, i64) {
    (stat.st_mtime, stat.st_mtime_nsec.try_into().unwrap_or_default())
}

/// The next nanosecond.
fn after((seconds, nanoseconds): (i64, i64)) -> (i64, i64) {
    if nanoseconds < 999_999_999 { (seconds, nanoseconds + 1) } else { (seconds + 1, 0) }
}

/// Removes a file, symlink or other entry that is no folder; whether it was there.
pub(crate) fn unlink(folder: BorrowedFd<'_>, name: impl rustix::path::Arg) -> io::Result<bool> {
    crash::point()?;
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Removes a folder if it is empty; whether it is gone.
pub(crate) fn remove_empty_folder(folder: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    crash::point()?;
    match rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR | Errno::BUSY) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Gives a file a second name; where the file system has no room or no wish for that, nothing is done and the answer is no.
pub(crate) fn link(from: BorrowedFd<'_>, name: &str, to: BorrowedFd<'_>, new_name: &str) -> io::Result<bool> {
    crash::point()?;
    match rustix::fs::linkat(from, name, to, new_name, AtFlags::empty()) {
        Ok(()) => Ok(true),
        // Another user's file (`protected_hardlinks`, proc_sys_fs(5)); the most names that a file can have; FAT and the like.
        Err(Errno::PERM | Errno::MLINK | Errno::XDEV | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Makes a symlink.
pub(crate) fn symlink(target: &str, folder: BorrowedFd<'_>, name: &str) -> io::Result<()> {
    crash::point()?;
    Ok(rustix::fs::symlinkat(target, folder, name)?)
}

/// Returns the error of a file system that has no symlinks. Makes one of this name and removes it; other errors recur where a
/// symlink is needed.
pub(crate) fn lack_of_symlinks(folder: BorrowedFd<'_>, name: &str) -> io::Result<Option<io::Error>> {
    match symlink(name, folder, name) {
        Ok(()) => unlink(folder, name).map(|_| None),
        Err(error) => {
            let lacks = [Errno::PERM, Errno::NOSYS, Errno::OPNOTSUPP, Errno::INVAL];
            let is_lack = Errno::from_io_error(&error).is_some_and(|errno| lacks.contains(&errno));
            Ok(is_lack.then_some(error))
        }
    }
}

/// What a symlink says; nothing if no symlink stands there.
pub(crate) fn read_link(folder: BorrowedFd<'_>, name: &str) -> io::Result<Option<String>> {
    crash::point()?;
    match rustix::fs::readlinkat(folder, name, Vec::new()) {
        Ok(target) => Ok(target.into_string().ok()),
        Err(Errno::NOENT | Errno::INVAL | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether a regular file stands there.
pub(crate) fn is_file(folder: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    Ok(stat(folder, name)?.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile))
}

fn stat(folder: BorrowedFd<'_>, name: &str) -> io::Result<Option<Stat>> {
    crash::point()?;
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Returns true if the file system ignores case: a file in the directory, whose name has lower case letters, is found in upper case,
/// and there is one entry for both.
pub(crate) fn ignores_case(folder: BorrowedFd<'_>, name: &str) -> io::Result<bool> {
    let upper = name.to_ascii_uppercase();
    if stat(folder, &upper)?.is_none() {
        return Ok(false);
    }
    let mut found = 0;
    entries(folder, |entry, _| {
        found += usize::from(entry.to_bytes().eq_ignore_ascii_case(upper.as_bytes()));
        Ok(())
    })?;
    Ok(found == 1)
}

/// What tells a file from all others, whatever its name: the device and the inode.
pub(crate) fn identity(stat: Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Whether two names are of one file; not if either is missing.
pub(crate) fn is_same_file(a: BorrowedFd<'_>, name: &str, b: BorrowedFd<'_>, other: &str) -> io::Result<bool> {
    let (a, b) = (stat(a, name)?.map(identity), stat(b, other)?.map(identity));
    Ok(a.is_some() && a == b)
}

/// Removes a folder with all that is in it, following no symlink; whether it was there.
pub(crate) fn remove_tree(folder: BorrowedFd<'_>, name: &CStr, depth_max: u32) -> io::Result<bool> {
    crash::point()?;
    let tree = match rustix::fs::openat(folder, name, OFlags::RDONLY | FOLDER_FLAGS, Mode::empty()) {
        Ok(tree) => tree,
        Err(Errno::NOENT) => return Ok(false),
        Err(Errno::NOTDIR | Errno::LOOP) => return unlink(folder, name),
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    entries(tree.as_fd(), |name, file_type| {
        found.push((name.to_owned(), file_type));
        Ok(())
    })?;
    for (name, file_type) in found {
        if file_type == FileType::Directory && depth_max > 0 {
            remove_tree(tree.as_fd(), &name, depth_max - 1)?;
        } else {
            unlink(tree.as_fd(), &*name)?;
        }
    }
    crash::point()?;
    match rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR) {
        Ok(()) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Calls `each` for every entry of a folder but `.` and `..`.
pub(crate) fn entries(
    folder: BorrowedFd<'_>,
    mut each: impl FnMut(&CStr, FileType) -> io::Result<()>,
) -> io::Result<()> {
    crash::point()?;
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let file_type = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        each(entry.file_name(), file_type)?;
    }
    Ok(())
}

/// Lets tests end a run at any of its steps on disk, as a kill would: that step and all later ones do nothing.
pub(crate) mod crash {
    use std::io;

    #[cfg(not(test))]
    #[inline]
    #[expect(clippy::unnecessary_wraps, reason = "in tests it fails")]
    pub fn point() -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    thread_local! {
        static STEPS_LEFT: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
    }

    /// Lets this many more steps happen on this thread; `None`: no end.
    #[cfg(test)]
    pub fn after(steps: Option<u32>) {
        STEPS_LEFT.set(steps);
    }

    /// How many are left to happen.
    #[cfg(test)]
    pub fn left() -> Option<u32> {
        STEPS_LEFT.get()
    }

    #[cfg(test)]
    pub fn point() -> io::Result<()> {
        match STEPS_LEFT.get() {
            Some(0) => Err(io::Error::other("the test ended the run here")),
            Some(left) => {
                STEPS_LEFT.set(Some(left - 1));
                Ok(())
            }
            None => Ok(()),
        }
    }
}
