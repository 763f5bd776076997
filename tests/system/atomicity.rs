//! A reader that opens a file at any moment gets all of one version, whatever happens to the writer.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::sidecar::Launch;
use crate::harness::wait::run;
use crate::harness::workspace::Workspace;

const FILE_BYTES: usize = 700_000;

/// A version of the file: eight digits, again and again, so that every part of it tells where it is from.
fn content(version: usize) -> String {
    format!("{version:08}").repeat(FILE_BYTES / 8)
}

/// Reads a file in a loop, from when it is first there until it is told to stop.
struct Reader {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

struct Seen {
    reads: usize,
    versions: BTreeSet<String>,
}

impl Reader {
    fn start(path: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let read = move || {
            let mut seen = Seen { reads: 0, versions: BTreeSet::new() };
            while !stopped.load(Ordering::Relaxed) {
                let text = fs::read_to_string(&path).expect("the file is there at every moment");
                assert_eq!(text.len(), FILE_BYTES, "the file is whole at every moment");
                let version = &text[..8];
                assert!(text == version.repeat(FILE_BYTES / 8), "no version is mixed with another");
                seen.versions.insert(version.to_owned());
                seen.reads += 1;
            }
            seen
        };
        Self { stop, thread: std::thread::spawn(read) }
    }

    /// Fails if the reader ever saw anything but a whole version.
    fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

#[test]
fn a_reader_sees_whole_files_only_during_hundreds_of_updates() {
    const UPDATES: usize = 300;
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let version = |number| config_map("large", [("large", &content(number))]);
        namespace.create(&version(0)).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds([("large", content(0))]).await;
        let reader = Reader::start(workspace.path("large"));
        for number in 1..=UPDATES {
            namespace.replace(&version(number)).await;
        }
        sidecar.holds([("large", content(UPDATES))]).await;
        let seen = reader.stop();
        assert!(seen.reads >= UPDATES, "only {} reads", seen.reads);
        assert!(seen.versions.len() >= UPDATES / 10, "only {} versions", seen.versions.len());
    });
}

#[test]
fn a_kill_at_any_moment_leaves_whole_files_and_the_next_start_clears_up() {
    const KILLS: usize = 25;
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let version = |number| config_map("large", [("large", &content(number))]);
        namespace.create(&version(0)).await;
        let launch = Launch::within(&namespace, &workspace);
        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.kill();
        let reader = Reader::start(workspace.path("large"));
        let mut number = 0;
        for kill in 0..KILLS {
            let sidecar = launch.start();
            // Every time it is a bit further on.
            for _ in 0..kill % 5 {
                number += 1;
                namespace.replace(&version(number)).await;
            }
            if kill % 5 == 4 {
                sidecar.in_sync().await;
            }
            sidecar.kill();
        }
        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.holds([("large", content(number))]).await;
        reader.stop();
        sidecar.terminate().await;
        let left: Vec<_> = fs::read_dir(workspace.path(".configbump"))
            .expect("the folder of the state")
            .map(|entry| entry.expect("an entry"))
            .filter(|entry| entry.metadata().expect("its metadata").len() > 100_000)
            .map(|entry| entry.file_name())
            .collect();
        assert!(left.is_empty(), "temporary files are left: {left:?}");
    });
}
