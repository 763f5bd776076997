//! Notices that the directory is taken away or replaced although nothing else happens.

use std::ffi::{OsStr, OsString};
use std::future::pending;
use std::io;
use std::path::{Path, PathBuf};

use inotify::{EventMask, Inotify, WatchMask};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::path::OWN_FOLDER;

/// Room for a few dozen events; one takes at most 16 bytes and a name of 256.
const BUFFER_BYTES: usize = 4096;

/// The directory's name in the folder above it, and the name of configbump's own folder in the directory. The folders do not
/// tell of their own end: they are kept open, so they only lose their names.
#[derive(Debug)]
pub(super) struct Place {
    inotify: Option<AsyncFd<Inotify>>,
    names: [OsString; 2],
}

impl Place {
    /// Watches from here on. Where the system has no watch to spare, [`Place::stirred`] waits for ever, and who relies on the
    /// directory notices at the next change. Must be called in a runtime.
    pub fn watch(dir: &Path) -> Self {
        let name = dir.file_name().map(OsStr::to_owned).unwrap_or_default();
        let inotify = watched(dir).inspect_err(|error| {
            tracing::info!("that {} is taken away will be noticed at the next change only: {error}", dir.display());
        });
        Self { inotify: inotify.ok(), names: [name, OWN_FOLDER.into()] }
    }

    /// Waits until something has come to one of the names, or may have. Nothing is lost if the wait is given up.
    pub async fn stirred(&mut self) {
        while let Some(inotify) = &mut self.inotify {
            let Ok(mut ready) = inotify.readable_mut().await else { break };
            match drain(ready.get_inner_mut(), &self.names) {
                Ok(true) => return,
                Ok(false) => ready.clear_ready(),
                Err(error) => {
                    tracing::warn!("cannot read what happened to the directory: {error}");
                    self.inotify = None;
                }
            }
        }
        pending::<()>().await;
    }
}

fn watched(dir: &Path) -> io::Result<AsyncFd<Inotify>> {
    #[allow(deprecated, reason = "what replaces it is unsafe, for the sake of types that may change their descriptor")]
    let inotify = AsyncFd::with_interest(Inotify::init()?, Interest::READABLE)?;
    let lost = WatchMask::DELETE | WatchMask::MOVED_FROM | WatchMask::ONLYDIR;
    inotify.get_ref().watches().add(dir, lost | WatchMask::MOVE_SELF)?;
    if let Some(above) = dir.parent() {
        let above = if above.as_os_str().is_empty() { PathBuf::from(".") } else { above.to_owned() };
        // A link to a directory is replaced by a rename.
        inotify.get_ref().watches().add(above, lost | WatchMask::MOVED_TO)?;
    }
    Ok(inotify)
}

/// Takes in the events that are there, without waiting. Whether one of them is about one of the names, or a folder itself.
fn drain(inotify: &mut Inotify, names: &[OsString]) -> io::Result<bool> {
    let mut buffer = [0; BUFFER_BYTES];
    loop {
        match inotify.read_events(&mut buffer) {
            Ok(mut events) => {
                let stirs = events.any(|event| match event.name {
                    Some(name) => names.iter().any(|known| known == name),
                    None => !event.mask.contains(EventMask::IGNORED),
                });
                if stirs {
                    return Ok(true);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
