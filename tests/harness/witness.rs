//! Somebody who sees every removal in DIR, however short a file is away.

use std::fs;
use std::io::ErrorKind;

use inotify::{EventMask, Inotify, WatchMask};

use super::workspace::{DATA, Workspace};

/// Watches DIR itself, not its sub-folders.
pub struct Witness {
    inotify: Inotify,
}

impl Witness {
    /// From now on. Makes DIR if it is not there.
    pub fn of(workspace: &Workspace) -> Self {
        let dir = workspace.dir();
        fs::create_dir_all(&dir).expect("a folder");
        let inotify = Inotify::init().expect("an inotify instance");
        // A file that is replaced by a rename is not removed.
        let removals = WatchMask::DELETE | WatchMask::MOVED_FROM | WatchMask::DELETE_SELF | WatchMask::MOVE_SELF;
        inotify.watches().add(&dir, removals).expect("a folder can be watched");
        Self { inotify }
    }

    /// The names of what was removed since the last time that this was asked, but for trees of a set that nobody needs any
    /// more; `.` is DIR itself.
    pub fn removed(&mut self) -> Vec<String> {
        let mut names = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match self.inotify.read_events(&mut buffer) {
                Ok(events) => {
                    for event in events {
                        assert!(!event.mask.contains(EventMask::Q_OVERFLOW), "removals were missed");
                        let name = event.name.map_or(".".into(), |name| name.to_string_lossy().into_owned());
                        if !name.starts_with("..") || name == DATA {
                            names.push(name);
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return names,
                Err(error) => panic!("inotify: {error}"),
            }
        }
    }

    /// Fails if anything was removed.
    pub fn saw_nothing_go(&mut self) {
        assert_eq!(self.removed(), [""; 0], "files were removed");
    }
}
