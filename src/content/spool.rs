//! Values on their way from a source to their file: hashed as they come, small ones in memory, large ones in a
//! temporary file that a rename can publish.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

#[cfg(test)]
use super::Modes;
use super::{Body, Content, Digest, Permissions};
use crate::disk;
use crate::object::Kind;

/// A value up to this many bytes stays in memory until it is placed: a relist of unchanged small values writes nothing.
const MEMORY_BYTES_MAX: usize = 4096;

/// The most that is copied of a file, in bytes: a manifest is not larger. Others may have put more there.
pub(crate) const COPY_BYTES_MAX: u64 = 32 << 20;

/// The prefix of every temporary file's name in the store's own folder.
pub(crate) const TEMPORARY_PREFIX: &str = "tmp-";

/// Takes in values. Cheap to clone; every source task has its own.
#[derive(Clone, Debug)]
pub struct Spool {
    folder: Arc<OwnedFd>,
    permissions: Permissions,
    next: Arc<AtomicU64>,
}

impl Spool {
    pub(crate) fn new(folder: Arc<OwnedFd>, permissions: Permissions) -> Self {
        // Nobody foresees the names, and so puts nothing in their way.
        let next = Arc::new(AtomicU64::new(fastrand::u64(..) >> 1));
        Self { folder, permissions, next }
    }

    /// A spool in a folder that a test has made.
    #[cfg(test)]
    pub(crate) fn for_tests(folder: &std::path::Path) -> Self {
        let folder = File::open(folder).expect("the test's folder");
        Self::new(Arc::new(folder.into()), Permissions::for_tests(Modes { config_map: 0o644, secret: 0o600 }))
    }

    /// Begins a value of an object of this kind, which decides the permissions of its file.
    #[must_use]
    pub fn begin(&self, kind: Kind) -> ContentWriter {
        ContentWriter {
            spool: self.clone(),
            mode: self.permissions.mode(kind),
            hash: Sha256::new(),
            len_bytes: 0,
            state: State::Memory(Vec::new()),
        }
    }

    /// A content that is whole already.
    #[must_use]
    pub fn content(&self, kind: Kind, bytes: &[u8]) -> Content {
        let mut writer = self.begin(kind);
        writer.append(bytes);
        writer.finish()
    }

    /// The folder of the temporary files.
    pub(crate) fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    pub(crate) fn permissions(&self) -> &Permissions {
        &self.permissions
    }

    /// A second name for a file, or a copy where it cannot have one. Others may have put the file there: a copy has none of
    /// its setuid, setgid and sticky bits, and one of more than [`COPY_BYTES_MAX`] is [`io::ErrorKind::FileTooLarge`].
    pub(crate) fn link(&self, folder: BorrowedFd<'_>, name: &str) -> io::Result<Spooled> {
        let temporary = self.next_name();
        if disk::link(folder, name, self.folder(), &temporary)? {
            return Ok(Spooled { folder: Arc::clone(&self.folder), name: Some(temporary) });
        }
        self.copy(folder, name)
    }

    fn copy(&self, folder: BorrowedFd<'_>, name: &str) -> io::Result<Spooled> {
        let Some(file) = disk::open_file(folder, name)? else { return Err(io::ErrorKind::NotFound.into()) };
        let metadata = file.metadata()?;
        if metadata.len() > COPY_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mode = Mode::from_raw_mode(metadata.permissions().mode() & 0o777);
        let (spooled, mut copy) = self.create(mode)?;
        // It may grow meanwhile.
        if io::copy(&mut file.take(COPY_BYTES_MAX + 1), &mut copy)? > COPY_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(spooled)
    }

    /// A symlink.
    pub(crate) fn symlink(&self, target: &str) -> io::Result<Spooled> {
        let temporary = self.next_name();
        disk::symlink(target, self.folder(), &temporary)?;
        Ok(Spooled { folder: Arc::clone(&self.folder), name: Some(temporary) })
    }

    /// A file of the same folder, under a temporary name from here on.
    pub(crate) fn adopt(&self, name: &str) -> io::Result<Spooled> {
        let temporary = self.next_name();
        disk::rename(self.folder(), name, self.folder(), &temporary)?;
        Ok(Spooled { folder: Arc::clone(&self.folder), name: Some(temporary) })
    }

    fn next_name(&self) -> String {
        format!("{TEMPORARY_PREFIX}{}", self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Creates an empty temporary file with its final permissions.
    pub(crate) fn create(&self, mode: Mode) -> io::Result<(Spooled, File)> {
        let name = self.next_name();
        disk::crash::point()?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&*self.folder, &name, flags, mode)?;
        let spooled = Spooled { folder: Arc::clone(&self.folder), name: Some(name) };
        // The umask has no say: the mode is an option, and nothing has been written yet.
        self.permissions.apply(&file, mode)?;
        Ok((spooled, file.into()))
    }
}

/// A temporary file that is removed when it is dropped, unless it was published.
#[derive(Debug)]
pub struct Spooled {
    folder: Arc<OwnedFd>,
    name: Option<String>,
}

impl Spooled {
    /// Gives the file a second name, which is its place in a tree; or puts a copy there.
    pub(crate) fn link_to(&self, spool: &Spool, folder: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        let Some(temporary) = &self.name else { return Err(io::ErrorKind::NotFound.into()) };
        if disk::link(self.folder.as_fd(), temporary, folder, name)? {
            return Ok(());
        }
        spool.link(self.folder.as_fd(), temporary)?.publish(folder, name)
    }

    pub(crate) fn open(&self) -> io::Result<Option<File>> {
        self.name.as_ref().map_or(Ok(None), |name| disk::open_file(self.folder.as_fd(), name))
    }

    /// Moves the file to `name` in `folder`, over whatever file is there.
    pub(crate) fn publish(mut self, folder: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        self.move_to(folder, name)
    }

    /// Does the same, and keeps the file if that fails.
    pub(crate) fn move_to(&mut self, folder: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        if let Some(temporary) = &self.name {
            disk::replace(self.folder.as_fd(), temporary, folder, name)?;
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        if let Some(name) = &self.name
            && let Err(error) = disk::unlink(self.folder.as_fd(), name)
        {
            tracing::warn!("cannot remove the temporary file {name}: {error}; the next start removes it");
        }
    }
}

/// Takes the bytes of one value. It never fails: when the disk does, the digest goes on, and the content says so.
pub struct ContentWriter {
    spool: Spool,
    mode: Mode,
    hash: Sha256,
    len_bytes: u64,
    state: State,
}

enum State {
    Memory(Vec<u8>),
    File(Spooled, File),
    Lost(io::Error),
}

impl ContentWriter {
    pub fn append(&mut self, bytes: &[u8]) {
        self.hash.update(bytes);
        self.len_bytes += bytes.len() as u64;
        if let Err(error) = self.keep(bytes) {
            self.state = State::Lost(error);
        }
    }

    fn keep(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.state {
            State::Memory(memory) if memory.len() + bytes.len() <= MEMORY_BYTES_MAX => memory.extend_from_slice(bytes),
            State::Memory(memory) => {
                let (spooled, mut file) = self.spool.create(self.mode)?;
                file.write_all(memory)?;
                file.write_all(bytes)?;
                self.state = State::File(spooled, file);
            }
            State::File(_, file) => file.write_all(bytes)?,
            State::Lost(_) => {}
        }
        Ok(())
    }

    #[must_use]
    pub fn finish(self) -> Content {
        Content {
            digest: Digest { sha256: self.hash.finalize().into(), len_bytes: self.len_bytes },
            body: match self.state {
                State::Memory(memory) => Body::Memory(memory.into()),
                State::File(spooled, _) => Body::Spooled(spooled),
                State::Lost(error) => Body::Lost(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_copy_of_a_planted_file_is_bounded_and_has_no_special_bits() {
        let dir = tempfile::tempdir().expect("a directory");
        let spool = Spool::for_tests(dir.path());
        let planted = dir.path().join("planted");
        std::fs::write(&planted, "x").expect("a file");
        std::fs::set_permissions(&planted, Permissions::from_mode(0o7755)).expect("a mode");
        let copy = spool.copy(spool.folder(), "planted").expect("a copy");
        let copied = copy.open().expect("an open").expect("a file").metadata().expect("metadata");
        assert_eq!((copied.mode() & 0o7777, copied.len()), (0o755, 1));

        File::create(&planted).and_then(|file| file.set_len(COPY_BYTES_MAX + 1)).expect("a sparse file");
        let error = spool.copy(spool.folder(), "planted").expect_err("too large");
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    }
}
