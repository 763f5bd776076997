//! A reader that opens a file at any moment gets all of one version, whatever happens to the writer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::namespace::Namespace;
use crate::harness::object::{config_map, large_config_map};
use crate::harness::poller::Poller;
use crate::harness::sidecar::Launch;
use crate::harness::wait::run;
use crate::harness::workspace::{Workspace, write};

const FILE_BYTES: usize = 700_000;

/// A version of the file: eight digits, again and again, so that every part of it tells where it is from.
fn content(version: usize) -> String {
    format!("{version:08}").repeat(FILE_BYTES / 8)
}

#[derive(Default)]
struct Seen {
    reads: usize,
    versions: BTreeSet<String>,
}

/// Reads a file in a loop, from when it is first there, and panics at anything but a whole version.
fn reader(path: PathBuf) -> Poller<Seen> {
    Poller::start(move |seen: &mut Seen| {
        let text = fs::read_to_string(&path).expect("the file is there at every moment");
        assert_eq!(text.len(), FILE_BYTES, "the file is whole at every moment");
        let version = &text[..8];
        assert!(text == version.repeat(FILE_BYTES / 8), "no version is mixed with another");
        seen.versions.insert(version.to_owned());
        seen.reads += 1;
    })
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
        let reader = reader(workspace.path("large"));
        for number in 1..=UPDATES {
            namespace.replace(&version(number)).await;
            // On a slow machine it must not fall behind by more than it can make up for.
            if number % 10 == 0 {
                sidecar.holds([("large", content(number))]).await;
            }
        }
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
        let reader = reader(workspace.path("large"));
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

/// How many changes a kill follows, and the longest time from a change, or from a start, to one.
const KILLS: usize = 500;
const KILL_AFTER_MAX: Duration = Duration::from_millis(60);

/// What a directory is to hold in a version: a file that stays, a large one, and others that come and go.
fn files_of(version: usize) -> BTreeMap<String, String> {
    let large = content(version)[..100_000].to_owned();
    let mut files = BTreeMap::from([("small".to_owned(), format!("{version:08}\n")), ("large".to_owned(), large)]);
    files.insert(format!("sometimes-{}", version % 3), format!("{version:08}"));
    files
}

/// The files that a reader sees, of which each is of one version as a whole.
fn whole_files(workspace: &Workspace) -> BTreeMap<String, String> {
    let visible = names(&workspace.dir()).into_iter().filter(|name| !name.starts_with('.'));
    let read = |name: String| fs::read_to_string(workspace.path(&name)).ok().map(|text| (name, text));
    let files: BTreeMap<_, _> = visible.filter_map(read).collect();
    for (name, text) in &files {
        let version = text.get(..8).and_then(|version| version.parse().ok());
        let whole = version.and_then(|version| files_of(version).remove(name));
        assert!(whole.as_ref() == Some(text), "{name} is no version as a whole, but {} bytes", text.len());
    }
    files
}

/// The names in a folder; none if it is not there yet.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.expect("an entry").file_name());
    entries.map(|name| name.into_string().expect("text")).collect()
}

/// What is left in the folder of the state, and of trees that nobody needs.
fn leftovers(workspace: &Workspace) -> Vec<String> {
    let own = names(&workspace.path(".configbump")).into_iter();
    let state = own.filter(|name| !["lock", "record"].contains(&name.as_str()));
    // The live tree may stay, and the one before it.
    let trees = names(&workspace.dir()).into_iter().filter(|name| name.starts_with("..2")).skip(2);
    state.chain(trees).collect()
}

#[test]
fn killed_500_times_at_random_moments_it_leaves_no_part_of_a_file_no_orphan_and_no_bump_untold() {
    let workspace = Workspace::new();
    let told = workspace.beside("told");
    write(&told, "");
    let object = |version: usize| large_config_map("routes", files_of(version));
    let hook = format!("sh -c 'cat \"$CONFIG_BUMP_DIR\"/small >>{}'", told.display());
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    run(async {
        let namespace = Namespace::new().await;
        let launch = Launch::within(&namespace, &workspace).args(["--exec", &hook, "--settle", "1ms"]);
        // From one way of publishing to the other no file is missing either.
        let start = |is_set: bool| launch.clone().args(["--publish", if is_set { "set" } else { "file" }]).start();
        namespace.create(&object(0)).await;
        let mut amid_writes = 0;
        for version in 0..KILLS {
            if random.bool() {
                let starting = start(random.bool());
                tokio::time::sleep(KILL_AFTER_MAX.mul_f64(random.f64())).await;
                starting.kill();
                whole_files(&workspace);
            }
            let sidecar = start(random.bool());
            let (wanted, line) = (files_of(version), format!("{version:08}"));
            let look = || {
                let files = whole_files(&workspace);
                let is_told = fs::read_to_string(&told).expect("what was told").lines().any(|told| told == line);
                let left = leftovers(&workspace);
                let state = format!("{:?}, told: {is_told}, left: {left:?}", files.keys());
                if files == wanted && is_told && left.is_empty() { Ok(()) } else { Err(state) }
            };
            sidecar.until(&format!("version {version} and nothing else"), look).await;
            namespace.replace(&object(version + 1)).await;
            tokio::time::sleep(KILL_AFTER_MAX.mul_f64(random.f64().powi(2))).await;
            sidecar.kill();
            let files = whole_files(&workspace);
            let is_between = ![version, version + 1].iter().any(|version| files == files_of(*version));
            amid_writes += usize::from(is_between || !leftovers(&workspace).is_empty());
        }
        eprintln!("{amid_writes} of {KILLS} kills were amid a write");
        assert!(amid_writes >= KILLS / 50, "only {amid_writes} of the kills were amid a write");
    });
}
