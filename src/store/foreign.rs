//! `--prune all`: the removal of every file that is not configbump's.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::FileType;

use super::generation;
use super::record::Record;
use crate::disk;
use crate::path::is_own_name;
use crate::printable::printable;

/// How deep it descends: more than any path that an object can ask for.
const DEPTH_MAX: usize = 64;

/// The most characters of a path that are told: the longest that Linux takes (`PATH_MAX`).
const SHOWN_CHARS_MAX: usize = 4096;

/// How many of those that cannot be removed are remembered.
const KEPT_MAX: usize = 1000;

/// What became of the files of others. Their names are anybody's: the paths are told on one line.
#[derive(Debug, Default)]
pub(super) struct Removal {
    pub removed: Vec<String>,
    /// What is still there, and why.
    pub kept: BTreeMap<String, String>,
}

/// Removes every file below `root` that is not ours, and passes over what it may not look into or remove. That somebody is to
/// be told is recorded before the first one goes.
pub(super) fn remove(root: BorrowedFd<'_>, record: &mut Record, is_ours: impl Fn(&Record, &str) -> bool) -> Removal {
    let mut removal = Removal::default();
    removal.remove_in(root, record, "", 0, &is_ours);
    removal
}

impl Removal {
    fn remove_in(
        &mut self,
        folder: BorrowedFd<'_>,
        record: &mut Record,
        prefix: &str,
        depth: usize,
        is_ours: &impl Fn(&Record, &str) -> bool,
    ) {
        let mut found = Vec::new();
        let read = disk::entries(folder, |name, file_type| {
            found.push((name.to_owned(), file_type));
            Ok(())
        });
        if let Err(error) = read {
            self.kept.insert(shown(prefix), error.to_string());
        }
        for (name, file_type) in found {
            let path = format!("{prefix}{}", name.to_string_lossy());
            let removed = match (file_type, name.to_str()) {
                (FileType::Directory, Ok(text)) if depth == 0 && is_own_name(text) => continue,
                // A tree of a set. A claimed path that is a folder of others is no file to keep.
                (FileType::Directory, Ok(text)) if depth == 0 && generation::is_name(text) && is_ours(record, text) => {
                    continue;
                }
                (FileType::Directory, Ok(text)) if depth < DEPTH_MAX => match disk::open_folder(folder, text) {
                    Ok(below) => {
                        self.remove_in(below.as_fd(), record, &format!("{path}/"), depth + 1, is_ours);
                        continue;
                    }
                    Err(error) => Err(error),
                },
                (FileType::Directory, _) => Err(io::Error::other("it is too deep, or its name is no UTF-8")),
                (_, Ok(_)) if is_ours(record, &path) => continue,
                // A name that is no UTF-8 is nobody's that the record knows.
                _ => match record.untold() {
                    // It is the removal that makes room for the note.
                    Err(error)
                        if error.kind() == io::ErrorKind::StorageFull
                            || error.kind() == io::ErrorKind::QuotaExceeded =>
                    {
                        let gone = disk::unlink(folder, &*name);
                        if let Err(error) = record.untold() {
                            tracing::debug!(
                                "the record cannot say that files are removed: {error}; the next removal tries again"
                            );
                        }
                        gone
                    }
                    noted => noted.and_then(|()| disk::unlink(folder, &*name)),
                },
            };
            match removed {
                Ok(true) => self.removed.push(shown(&path)),
                Err(error) if error.kind() != io::ErrorKind::NotFound && self.kept.len() < KEPT_MAX => {
                    self.kept.insert(shown(&path), error.to_string());
                }
                Ok(false) | Err(_) => {}
            }
        }
    }
}

fn shown(path: &str) -> String {
    printable(path, SHOWN_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::content::Spool;

    #[test]
    fn a_name_with_a_newline_is_told_on_one_line() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("a\nINFO forged"), "").expect("a file");
        let root = OwnedFd::from(std::fs::File::open(dir.path()).expect("a folder"));
        let own = tempfile::tempdir().expect("another directory");
        let mut record = Record::open(Spool::for_tests(own.path())).expect("a record");
        let removal = remove(root.as_fd(), &mut record, |_, _| false);
        assert_eq!(removal.removed, ["a INFO forged"]);
        assert_eq!(std::fs::read_dir(dir.path()).expect("the directory").count(), 0);
    }
}
