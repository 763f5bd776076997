//! Whether a directory would do, without a store: for `configbump doctor`.

use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, FlockOperation, StatVfsMountFlags, accessat, flock, statvfs};
use rustix::io::Errno;

use super::own::LOCK_NAME;
use super::{OpenError, open_root};
use crate::content::{Modes, Permissions, TEMPORARY_PREFIX};
use crate::disk;
use crate::object::Kind;
use crate::path::OWN_FOLDER;

/// What was found out about a directory that can be written, or made.
#[derive(Debug)]
pub struct Examined {
    /// Absent if it has to be made.
    pub present: Option<Present>,
    pub free_bytes: u64,
    /// How many more files the file system takes, if it counts them.
    pub free_files: Option<u64>,
}

/// What was found out about one that is there.
#[derive(Debug)]
pub struct Present {
    /// The user whose it is.
    pub owner: u32,
    /// True if a configbump keeps it now.
    pub is_kept: bool,
    pub traits: Traits,
}

/// Properties of a file system that a run depends on.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a property of its own")]
pub struct Traits {
    /// True if a file can have a second name.
    pub has_links: bool,
    pub has_symlinks: bool,
    pub ignores_case: bool,
    pub has_locks: bool,
    /// Permissions that a new file does not get, in words.
    pub lack: Option<String>,
}

/// Tries what a run would do, and leaves nothing behind.
///
/// # Errors
///
/// What a run would fail with, and what it would replace: something else than a folder in place of configbump's own.
pub fn examine(dir: &Path, modes: Modes) -> Result<Examined, OpenError> {
    let present = if dir.exists() { Some(try_out(dir, modes)?) } else { None };
    let there = dir.ancestors().find(|path| path.exists()).unwrap_or(Path::new("."));
    if present.is_none() {
        may_be_made(there).map_err(|error| OpenError::Make { dir: dir.to_owned(), error })?;
    }
    let system = statvfs(there).map_err(|error| OpenError::Write { dir: dir.to_owned(), error: error.into() })?;
    if system.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return Err(OpenError::Write { dir: dir.to_owned(), error: Errno::ROFS.into() });
    }
    Ok(Examined {
        present,
        free_bytes: system.f_bavail.saturating_mul(system.f_frsize),
        free_files: (system.f_files > 0).then_some(system.f_favail),
    })
}

/// Whether a folder may be made in this one.
fn may_be_made(there: &Path) -> io::Result<()> {
    let there = if there.as_os_str().is_empty() { Path::new(".") } else { there };
    if !there.is_dir() {
        return Err(Errno::NOTDIR.into());
    }
    Ok(accessat(CWD, there, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?)
}

fn try_out(dir: &Path, modes: Modes) -> Result<Present, OpenError> {
    let in_dir = |error: io::Error| OpenError::Write { dir: dir.to_owned(), error };
    let root = open_root(dir)?;
    let owner = std::fs::metadata(dir).map_err(in_dir)?.uid();
    let permissions = Permissions::below(root.as_fd(), modes).map_err(in_dir)?;
    let (traits, is_kept) = match disk::open_folder(root.as_fd(), OWN_FOLDER) {
        Ok(own) => (traits(own.as_fd(), &permissions), is_locked(own.as_fd()).map_err(in_dir)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => (in_a_folder(root.as_fd(), &permissions), false),
        Err(error) => return Err(in_dir(error)),
    };
    Ok(Present { owner, is_kept, traits: traits.map_err(in_dir)? })
}

fn is_locked(own: BorrowedFd<'_>) -> io::Result<bool> {
    let lock = disk::open_file(own, LOCK_NAME)?;
    // Given up at once.
    Ok(lock.is_some_and(|lock| flock(&lock, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)))
}

/// The same in a folder of another name than a run makes: that of a run which begins now must not be removed.
fn in_a_folder(root: BorrowedFd<'_>, permissions: &Permissions) -> io::Result<Traits> {
    let name = format!("{OWN_FOLDER}-doctor-{}", std::process::id());
    disk::make_folder(root, &name)?;
    let tried = disk::open_folder(root, &name).and_then(|own| traits(own.as_fd(), permissions));
    disk::remove_empty_folder(root, &name)?;
    tried
}

/// Makes files and a symlink as a run does, and removes them.
fn traits(own: BorrowedFd<'_>, permissions: &Permissions) -> io::Result<Traits> {
    let [first, renamed, second] =
        ["a", "b", "c"].map(|end| format!("{TEMPORARY_PREFIX}doctor-{}-{end}", std::process::id()));
    let tried = (|| {
        let (mut lack, mut has_locks) = (None, false);
        for kind in [Kind::Secret, Kind::ConfigMap] {
            let mode = permissions.mode(kind);
            let mut file = disk::open_log(own, &first, mode)?;
            file.write_all(b"\n")?;
            lack = lack.or(permissions.lack(&file, mode)?);
            has_locks = flock(&file, FlockOperation::NonBlockingLockShared).is_ok();
            disk::rename(own, &first, own, &renamed)?;
        }
        let has_links = disk::link(own, &renamed, own, &second)?;
        disk::unlink(own, second.as_str())?;
        let has_symlinks = disk::lack_of_symlinks(own, &second)?.is_none();
        let ignores_case = disk::ignores_case(own, &renamed)?;
        Ok(Traits { has_links, has_symlinks, ignores_case, has_locks, lack })
    })();
    for name in [&first, &renamed, &second] {
        disk::unlink(own, name.as_str())?;
    }
    tried
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODES: Modes = Modes { config_map: 0o644, secret: 0o640 };

    #[test]
    fn a_directory_that_is_fine_is_left_as_it_was() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let examined = examine(folder.path(), MODES).expect("a good directory");
        let present = examined.present.expect("it is there");
        assert_eq!(present.owner, rustix::process::geteuid().as_raw());
        let Traits { has_links, has_symlinks, ignores_case, has_locks, lack } = present.traits;
        assert!(has_links && has_symlinks && has_locks && !ignores_case && !present.is_kept && examined.free_bytes > 0);
        assert_eq!(lack, None);
        assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
    }

    #[test]
    fn a_directory_that_would_have_to_be_made_is_not_made() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dir = folder.path().join("a/b");
        assert!(examine(&dir, MODES).expect("it could be made").present.is_none());
        assert!(!folder.path().join("a").exists());
        std::fs::write(folder.path().join("a"), "").expect("a file");
        assert!(matches!(examine(&dir, MODES), Err(OpenError::Make { .. })));
    }

    #[test]
    fn a_directory_that_is_kept_says_so() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let own = folder.path().join(OWN_FOLDER);
        std::fs::create_dir(&own).expect("a folder");
        let held = std::fs::File::create(own.join(LOCK_NAME)).expect("the file of the lock");
        flock(&held, FlockOperation::LockExclusive).expect("a lock");
        assert!(examine(folder.path(), MODES).expect("a good directory").present.expect("it is there").is_kept);
        assert!(own.exists());
    }
}
