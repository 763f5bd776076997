//! Limits hold for the thread that takes them on, so each test has one of its own.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::process::Command;
use std::thread;

use tempfile::TempDir;

use super::*;

/// Folders, the first of which may be written and the second read.
struct Rooms {
    outer: TempDir,
}

impl Rooms {
    fn new() -> Self {
        let outer = tempfile::tempdir().expect("a temporary folder");
        for name in ["dir/a/b", "dir/c", "readable", "closed"] {
            fs::create_dir_all(outer.path().join(name)).expect("a folder");
            fs::write(outer.path().join(name).join("file"), "1").expect("a file");
        }
        Self { outer }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.outer.path().join(path)
    }

    /// Does this under the limits, in a thread that the limited one has started.
    fn limited<T: Send>(&self, reads_only_some: bool, act: impl FnOnce() -> T + Send) -> T {
        let dir = fs::File::open(self.at("dir")).expect("the folder");
        let reads = reads_only_some.then(|| BTreeSet::from([self.at("readable"), self.at("missing")]));
        let limited = || {
            limit(dir.as_fd(), reads.as_ref()).expect("the tests need a kernel with Landlock (Linux 5.19)");
            thread::scope(|scope| scope.spawn(act).join())
        };
        let outcome = thread::scope(|scope| scope.spawn(limited).join());
        outcome.and_then(|inner| inner).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

#[test]
fn within_dir_everything_that_the_store_does_can_be_done() {
    let rooms = Rooms::new();
    rooms
        .limited(true, || {
            fs::write(rooms.at("dir/new"), "1")?;
            fs::write(rooms.at("dir/new"), "")?;
            fs::rename(rooms.at("dir/new"), rooms.at("dir/a/b/file"))?;
            fs::hard_link(rooms.at("dir/a/b/file"), rooms.at("dir/c/second"))?;
            std::os::unix::fs::symlink("c", rooms.at("dir/link"))?;
            fs::rename(rooms.at("dir/link"), rooms.at("dir/c/link"))?;
            fs::create_dir(rooms.at("dir/made"))?;
            fs::remove_dir(rooms.at("dir/made"))?;
            fs::read(rooms.at("dir/a/b/file"))?;
            fs::remove_dir_all(rooms.at("dir/a"))
        })
        .expect("DIR is configbump's");
}

#[test]
fn nothing_else_is_written_nothing_else_read_and_no_program_run() {
    let rooms = Rooms::new();
    rooms.limited(true, || {
        let denied = |what: &str, outcome: io::Result<()>| {
            let error = outcome.expect_err(what);
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{what}");
        };
        fs::read(rooms.at("readable/file")).expect("what it may read");
        denied("to read", fs::read(rooms.at("closed/file")).map(drop));
        denied("to list", fs::read_dir(rooms.at("closed")).map(drop));
        for folder in ["readable", "closed"] {
            denied("to write", fs::write(rooms.at(folder).join("file"), "2"));
            denied("to make a file", fs::write(rooms.at(folder).join("new"), "2"));
            denied("to remove", fs::remove_file(rooms.at(folder).join("file")));
            denied("to make a folder", fs::create_dir(rooms.at(folder).join("made")));
            let renamed = fs::rename(rooms.at("dir/a/file"), rooms.at(folder).join("file"));
            assert!(renamed.is_err(), "a rename out of DIR");
        }
        denied("to run a program", Command::new("true").spawn().map(drop));
    });
    assert_eq!(fs::read(rooms.at("closed/file")).expect("the file"), b"1");
}

#[test]
fn where_it_cannot_be_told_what_is_read_everything_is_and_nothing_written() {
    let rooms = Rooms::new();
    rooms.limited(false, || {
        fs::read(rooms.at("closed/file")).expect("what it may read");
        fs::write(rooms.at("dir/file"), "2").expect("what it may write");
        fs::write(rooms.at("closed/file"), "2").expect_err("what it may not write");
    });
}

#[test]
fn a_file_is_read_where_its_name_and_where_its_link_leads() {
    let rooms = Rooms::new();
    std::os::unix::fs::symlink(rooms.at("closed/file"), rooms.at("readable/link")).expect("a link");
    let canonical = |path: &str| rooms.at(path).canonicalize().expect("a folder");
    assert_eq!(homes(&rooms.at("readable/link")), [rooms.at("readable"), canonical("closed")]);
    assert_eq!(homes(&rooms.at("readable")), [rooms.at("readable"), canonical("readable")]);
    assert_eq!(homes(&rooms.at("readable/missing")), [rooms.at("readable")]);
    assert_eq!(homes(Path::new("relative")), [PathBuf::from(".")]);
    assert_eq!(homes(Path::new("/kubeconfig")), [PathBuf::from("/kubeconfig")], "and not all that there is");
}
