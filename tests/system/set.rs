//! `--publish set`: all files of a batch go live at one moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use inotify::{EventMask, Inotify, WatchMask};
use k8s_openapi::api::core::v1::ConfigMap;

use crate::harness::access::Access;
use crate::harness::cluster::{ApiServer, Port};
use crate::harness::namespace::Namespace;
use crate::harness::object::{annotated, binary_config_map, config_map, large_config_map, secret};
use crate::harness::poller::Poller;
use crate::harness::sidecar::{Launch, Sidecar};
use crate::harness::wait::run;
use crate::harness::workspace::{DATA, Workspace};

const FOLDER: &str = "example.com/folder";

/// How many files every version has.
const FILES: usize = 50;

/// How many trees there are at most: the live one, the one before for who still reads it, and the next one.
const TREES_MAX: usize = 3;

fn launch<'w>(namespace: &Namespace, workspace: &'w Workspace) -> Launch<'w> {
    Launch::within(namespace, workspace).args(["--publish", "set"])
}

fn key(number: usize) -> String {
    format!("key-{number:02}")
}

/// The files of a version: each holds its number, again and again. One more there is only in every second version.
fn files(version: usize) -> BTreeMap<String, String> {
    let text = |bytes: usize| format!("{version:08}").repeat(bytes / 8);
    let keys = (0..FILES).map(|number| (key(number), text(if number == 0 { 40_000 } else { 400 })));
    keys.chain([(if version.is_multiple_of(2) { "even" } else { "odd" }.to_owned(), text(8))]).collect()
}

fn object(version: usize) -> ConfigMap {
    large_config_map("versions", files(version))
}

/// The version that a file is of.
fn version_of(text: &str, path: &Path) -> String {
    let version = text.get(..8).unwrap_or_else(|| panic!("{} has {text:?}", path.display()));
    assert!(text == version.repeat(text.len() / 8), "{} is a mixture", path.display());
    version.to_owned()
}

/// The version of the files of a set, all of which are there and of one.
fn version_of_set(dir: &Path) -> String {
    let tree = fs::canonicalize(dir.join(DATA)).expect("a set has a live tree");
    let names: BTreeSet<String> = fs::read_dir(&tree)
        .expect("a live tree")
        .map(|entry| entry.expect("an entry of a folder").file_name().into_string().expect("a key"))
        .collect();
    let read = |path: PathBuf| version_of(&fs::read_to_string(&path).expect("a file of the live tree"), &path);
    let versions: BTreeSet<String> = names.iter().map(|name| read(tree.join(name))).collect();
    assert_eq!(versions.len(), 1, "{versions:?} are mixed");
    let version = versions.into_iter().next().expect("one version");
    assert_eq!(names, files(version.parse().expect("a number")).into_keys().collect(), "it is not complete");
    for name in names.iter().filter(|name| name.starts_with("key")) {
        assert_eq!(read(dir.join(name)), version, "who goes by {name} finds the same");
    }
    version
}

#[derive(Default)]
struct Seen {
    versions: BTreeSet<String>,
    rounds: usize,
}

/// Follows `..data` once a round and reads all files from there, and panics at a mixture.
fn reader(dir: PathBuf) -> Poller<Seen> {
    Poller::start(move |seen: &mut Seen| {
        let tree = fs::canonicalize(dir.join(DATA)).expect("a set has a live tree at every moment");
        let mut versions = BTreeSet::new();
        for number in 0..FILES {
            let path = tree.join(key(number));
            match fs::read_to_string(&path) {
                Ok(text) => versions.insert(version_of(&text, &path)),
                // It took so long that this tree is not even the one before any more.
                Err(error) if error.kind() == ErrorKind::NotFound && may_be_gone(&dir, &tree, versions.first()) => {
                    return;
                }
                Err(error) => panic!("{}: {error}", path.display()),
            };
        }
        assert_eq!(versions.len(), 1, "{versions:?} are mixed in {}", tree.display());
        seen.versions.append(&mut versions);
        seen.rounds += 1;
    })
}

/// Whether a tree, of this version if that is known, is neither the live one nor the one before. Each version is published by
/// itself.
fn may_be_gone(dir: &Path, tree: &Path, version: Option<&String>) -> bool {
    let number = |version: &str| version.parse::<usize>().expect("a number");
    let path = dir.join(DATA).join(key(FILES - 1));
    let Ok(live) = fs::read_to_string(&path) else { return true };
    let is_older = version.is_none_or(|version| number(&version_of(&live, &path)) >= number(version) + 2);
    is_older && fs::canonicalize(dir.join(DATA)).is_ok_and(|live| live != tree)
}

/// Waits until this version is live.
async fn is_live(sidecar: &Sidecar<'_>, workspace: &Workspace, version: usize) {
    let path = workspace.path(DATA).join(key(FILES - 1));
    let wanted = &files(version)[&key(FILES - 1)];
    sidecar
        .until(&format!("version {version}"), || match fs::read_to_string(&path) {
            Ok(text) if text == *wanted => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
}

#[test]
fn who_follows_data_never_sees_two_generations_mixed_across_500_publishes_of_50_files() {
    const PUBLISHES: usize = 500;
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&object(0)).await;
        let sidecar = launch(&namespace, &workspace).args(["--settle", "0"]).start();
        sidecar.in_sync().await;
        let reader = reader(workspace.dir());
        let mut trees_most = 0;
        for version in 1..=PUBLISHES {
            namespace.replace(&object(version)).await;
            is_live(&sidecar, &workspace, version).await;
            trees_most = trees_most.max(workspace.trees().len());
        }
        let seen = reader.stop();
        assert!(trees_most <= TREES_MAX, "{trees_most} trees");
        assert!(seen.rounds >= PUBLISHES / 5, "only {} rounds", seen.rounds);
        assert!(seen.versions.len() >= PUBLISHES / 10, "only {} versions", seen.versions.len());
        sidecar.holds(files(PUBLISHES)).await;
        assert_eq!(version_of_set(&workspace.dir()), format!("{PUBLISHES:08}"));
    });
}

#[test]
fn a_kill_at_any_moment_of_a_publish_leaves_one_generation_whole_and_so_does_the_next_start() {
    const KILLS: usize = 120;
    /// Longer than a publish takes, in µs.
    const PUBLISH_US: u64 = 8_000;
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&object(0)).await;
        let launch = launch(&namespace, &workspace).args(["--settle", "0"]);
        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.kill();
        let (mut rng, mut moments) = (fastrand::Rng::with_seed(4), BTreeMap::<&str, usize>::new());
        for version in 1..=KILLS {
            let known: BTreeSet<PathBuf> = workspace.trees().into_iter().collect();
            namespace.replace(&object(version)).await;
            let sidecar = launch.start();
            // From the moment when a tree is begun, for a while that the dice decide.
            let deadline = Instant::now() + Duration::from_secs(30);
            while workspace.trees().iter().all(|tree| known.contains(tree)) {
                assert!(Instant::now() < deadline, "no publish of version {version}");
            }
            let moment = Instant::now() + Duration::from_micros(rng.u64(..PUBLISH_US));
            while Instant::now() < moment {
                std::hint::spin_loop();
            }
            sidecar.kill();
            let live = version_of_set(&workspace.dir());
            let is_new = live == format!("{version:08}");
            assert!(is_new || live == format!("{:08}", version - 1), "{live} after {version}");
            *moments.entry(if is_new { "after the turn" } else { "before the turn" }).or_default() += 1;
            if version % 10 == 0 {
                let sidecar = launch.start();
                sidecar.in_sync().await;
                sidecar.holds(files(version)).await;
                sidecar.terminate().await;
                assert!(workspace.trees().len() < TREES_MAX, "{:?}", workspace.trees());
                let own: Vec<_> = fs::read_dir(workspace.path(".configbump")).expect("the store's folder").collect();
                assert_eq!(own.len(), 2, "{own:?} is more than the lock and the record");
            } else {
                // What was live stays so, for the version before the next one's.
                let sidecar = launch.start();
                is_live(&sidecar, &workspace, version).await;
                sidecar.kill();
            }
        }
        println!("killed {moments:?}");
        assert_eq!(moments.len(), 2, "all kills were on one side of the turn: {moments:?}");
    });
}

#[test]
fn files_of_every_kind_and_place_are_in_a_set() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let bytes = [0, 159, 146, 150, 255, b'\n', 0];
        let large = vec![7; 300_000];
        namespace.create(&config_map("flat", [("empty", ""), ("a.yaml", "1")])).await;
        namespace.create(&binary_config_map("binary", [("bytes", &bytes), ("large", &large)])).await;
        namespace.create(&annotated(config_map("nested", [("b", "1"), ("empty", "")]), FOLDER, "x/y/z")).await;
        namespace.create(&annotated(secret("secret", [("password", b"secret")]), FOLDER, "x")).await;
        let launch = launch(&namespace, &workspace).args(["--kinds", "configmaps,secrets"]);
        let sidecar = launch.args(["--folder-annotation", FOLDER, "--secret-file-mode", "0600"]).start();
        let files = |value: &'static [u8]| -> [(&str, &[u8]); 7] {
            [
                ("a.yaml", value),
                ("bytes", &bytes),
                ("empty", b""),
                ("large", &large),
                ("x/password", b"secret"),
                ("x/y/z/b", value),
                ("x/y/z/empty", b""),
            ]
        };
        sidecar.holds(files(b"1")).await;
        let modes = || ["a.yaml", "bytes", "x/password", "x/y/z/b"].map(|path| workspace.mode(path));
        assert_eq!(modes(), [0o644, 0o644, 0o600, 0o644]);
        assert_eq!(workspace.set(), workspace.files());
        for path in workspace.files().paths() {
            assert!(workspace.path(path).is_symlink(), "{path}");
        }
        namespace.replace(&config_map("flat", [("empty", ""), ("a.yaml", "2")])).await;
        namespace.replace(&annotated(config_map("nested", [("b", "2"), ("empty", "")]), FOLDER, "x/y/z")).await;
        sidecar.holds(files(b"2")).await;
        assert_eq!(modes(), [0o644, 0o644, 0o600, 0o644]);
        assert_eq!(workspace.set(), workspace.files());

        // A file becomes a folder, and a folder a file.
        namespace.replace(&config_map("flat", [("empty", "full"), ("x", "a file")])).await;
        namespace.replace(&annotated(config_map("nested", [("b", "3")]), FOLDER, "a.yaml")).await;
        namespace.delete(&secret("secret", [])).await;
        let last: [(&str, &[u8]); 5] =
            [("a.yaml/b", b"3"), ("bytes", &bytes), ("empty", b"full"), ("large", &large), ("x", b"a file")];
        sidecar.holds(last).await;
        assert_eq!(workspace.set(), workspace.files());
        sidecar.terminate().await;
    });
}

/// The path of an object's file, by its namespace and its kind and name.
type Name = fn(&Namespace, &str) -> String;

#[test]
fn the_other_layouts_are_sets_as_well() {
    run(async {
        let (one, two) = (Namespace::new().await, Namespace::new().await);
        let gone = one.create(&config_map("gone", [("a.yaml", "1")])).await;
        one.create(&config_map("same", [("a.yaml", "1")])).await;
        two.create(&secret("same", [("a.yaml", b"1")])).await;
        let unique: Name = |namespace, object| format!("namespace_{}.{object}.a.yaml", namespace.name);
        let tree: Name = |namespace, object| {
            let (kind, name) = object.rsplit_once('_').expect("a kind");
            format!("{}/{kind}s/{name}/a.yaml", namespace.name)
        };
        let workspaces = [("unique", unique), ("tree", tree)].map(|layout| (layout, Workspace::new()));
        let mut sidecars = Vec::new();
        for ((layout, path), workspace) in &workspaces {
            let launch = launch(&one, workspace).args(["--namespace", &two.name, "--layout", layout]);
            let sidecar = launch.args(["--kinds", "configmaps,secrets"]).start();
            let all = [(&one, "configmap_gone"), (&one, "configmap_same"), (&two, "secret_same")];
            sidecar.holds(all.map(|(namespace, object)| (path(namespace, object), "1"))).await;
            sidecars.push(sidecar);
        }
        one.delete(&gone).await;
        one.replace(&config_map("same", [("a.yaml", "2")])).await;
        for (((_, path), workspace), sidecar) in workspaces.iter().zip(sidecars) {
            sidecar.holds([(path(&one, "configmap_same"), "2"), (path(&two, "secret_same"), "1")]).await;
            assert_eq!(workspace.set(), workspace.files());
            sidecar.terminate().await;
        }
    });
}

/// Opens every file of every version all the time, by its path, and panics when one is missing or a mixture.
fn opener(dir: PathBuf) -> Poller<u64> {
    let names: Vec<_> = (0..FILES).map(key).collect();
    Poller::start(move |rounds: &mut u64| {
        for name in &names {
            let path = dir.join(name);
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            version_of(&text, &path);
        }
        *rounds += 1;
    })
}

#[test]
fn from_files_to_a_set_and_back_no_file_is_missing_at_any_moment() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        workspace.write("foreign", "theirs");
        workspace.write("folder/foreign", "theirs");
        symlink("/nowhere", workspace.path("link")).expect("a link");
        namespace.create(&object(0)).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.says(&format!("holds {} files of 1 objects", FILES + 1)).await;
        sidecar.terminate().await;
        let theirs = || (workspace.identity("foreign"), workspace.identity("folder/foreign"));
        let (before, opener) = (theirs(), opener(workspace.dir()));
        let ways: [&[&str]; 6] = [
            &["--publish", "set"],
            &[],
            &["--publish", "set", "--rollback", "--exec", "true"],
            &["--rollback", "--exec", "true"],
            &["--check", "true", "--publish", "set"],
            &["--check", "true"],
        ];
        for (version, way) in (1..).zip(ways.iter().cycle().take(18)) {
            let launch = Launch::within(&namespace, &workspace).args(way.iter().copied());
            // Once with the switch alone, once with a change as well.
            if version % 2 == 0 {
                namespace.replace(&object(version)).await;
            }
            let sidecar = launch.start();
            sidecar.in_sync().await;
            let wanted = files(version - version % 2).into_iter().chain(
                [("foreign", "theirs"), ("folder/foreign", "theirs")]
                    .map(|(path, text)| (path.to_owned(), text.to_owned())),
            );
            sidecar.holds(wanted).await;
            let is_set = way.contains(&"set");
            assert_eq!(workspace.path(&key(0)).is_symlink(), is_set, "{way:?}");
            assert_eq!(workspace.path(DATA).is_symlink(), is_set, "{way:?}");
            let are_in_dir = workspace.trees().iter().any(|tree| tree.parent() == Some(&workspace.dir()));
            assert_eq!(are_in_dir, is_set, "{way:?}: {:?}", workspace.trees());
            if version % 3 == 0 { sidecar.kill() } else { sidecar.terminate().await }
        }
        assert!(opener.stop() > 100);
        assert_eq!(theirs(), before);
        assert!(workspace.path("link").is_symlink());
    });
}

#[test]
fn prune_all_leaves_what_a_set_is_made_of() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let litter = || {
            workspace.write("foreign", "theirs");
            workspace.write("sub/foreign", "theirs");
            symlink("..data/nothing", workspace.path("dangling")).expect("a link");
        };
        litter();
        namespace.create(&annotated(config_map("nested", [("b", "1")]), FOLDER, "sub")).await;
        namespace.create(&config_map("flat", [("a", "1")])).await;
        let launch = launch(&namespace, &workspace).args(["--prune", "all", "--folder-annotation", FOLDER]);
        let sidecar = launch.start();
        sidecar.holds([("a", "1"), ("sub/b", "1")]).await;
        sidecar.terminate().await;
        litter();
        let live = fs::read_link(workspace.path(DATA)).expect("a set");
        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.holds([("a", "1"), ("sub/b", "1")]).await;
        assert_eq!(fs::read_link(workspace.path(DATA)).expect("a set"), live, "there was nothing to publish");
        assert_eq!(workspace.set(), workspace.files());
        assert!(!workspace.path("dangling").is_symlink());
        namespace.replace(&config_map("flat", [("a", "2")])).await;
        sidecar.holds([("a", "2"), ("sub/b", "1")]).await;
    });
}

/// Has one file change among so many, again and again: the median time from the write to the server to the file in its place.
async fn time_of_a_change_among(many: usize) -> Duration {
    let (namespace, workspace) = (Namespace::new().await, Workspace::new());
    let name = |number: usize| format!("file-{number:04}");
    let value = |number: usize| (name(number), format!("{number} ").repeat(100));
    namespace.create(&large_config_map("many", (1..many).map(value))).await;
    namespace.create(&config_map("one", [("file-0000", "1")])).await;
    let start = Instant::now();
    let sidecar = launch(&namespace, &workspace).args(["--settle", "0"]).start();
    sidecar.in_sync().await;
    let first = start.elapsed();
    let identities = |of: &dyn Fn(&Path) -> std::io::Result<fs::Metadata>| -> Vec<(u64, i64, i64)> {
        let identity = |number| {
            let metadata = of(&workspace.path(&name(number))).expect("a file");
            (metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
        };
        (1..many).map(identity).collect()
    };
    let both = || (identities(&|path| fs::metadata(path)), identities(&|path| fs::symlink_metadata(path)));
    let before = both();
    let mut times = Vec::new();
    for version in 2..=10 {
        let start = Instant::now();
        namespace.replace(&config_map("one", [("file-0000", &version.to_string())])).await;
        let path = workspace.path("file-0000");
        let changed = || match fs::read_to_string(&path) {
            Ok(text) if text == version.to_string() => Ok(()),
            other => Err(format!("{other:?}")),
        };
        sidecar.until("the change", changed).await;
        times.push(start.elapsed());
    }
    times.sort();
    println!("{many} files in {first:?}, a change of one among them in {:?}", times[times.len() / 2]);
    assert_eq!(both(), before, "neither an unchanged file nor the link to it is made anew");
    assert!(times[0] < first, "a change of one file takes {times:?}, all of them {first:?}");
    assert_eq!(workspace.set(), workspace.files());
    times[times.len() / 2]
}

#[test]
fn of_a_thousand_files_a_publish_writes_only_what_has_changed() {
    run(async {
        let (small, large) = (time_of_a_change_among(100).await, time_of_a_change_among(1000).await);
        // Ten times the links; the rest is for a machine that has other things to do.
        assert!(large < small * 30, "{large:?} among 1,000 files, {small:?} among 100");
    });
}

#[test]
fn a_program_that_knows_config_map_volumes_sees_the_turn_of_data() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1"), ("b", "1")])).await;
        let sidecar = launch(&namespace, &workspace).start();
        sidecar.in_sync().await;
        let mut inotify = Inotify::init().expect("an inotify instance");
        let all = WatchMask::MOVE | WatchMask::CREATE | WatchMask::DELETE | WatchMask::MODIFY | WatchMask::CLOSE_WRITE;
        inotify.watches().add(workspace.dir(), all).expect("a folder can be watched");
        let mut turns = 0;
        for version in 2..=4 {
            namespace.replace(&config_map("routes", [("a", &version.to_string()), ("b", "1")])).await;
            let mut buffer = [0; 4096];
            let mut turned = || {
                match inotify.read_events(&mut buffer) {
                    Ok(events) => events.for_each(|event| {
                        let name = event.name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                        if name == DATA {
                            assert_eq!(event.mask, EventMask::MOVED_TO, "it is turned and never away");
                            turns += 1;
                        }
                        assert!(name.starts_with(".."), "{name} did not change by itself: {:?}", event.mask);
                    }),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
                if turns == version - 1 { Ok(()) } else { Err(format!("{turns} turns")) }
            };
            sidecar.until("the turn", &mut turned).await;
            // At that moment all is there already.
            assert_eq!(fs::read_to_string(workspace.path("a")).expect("a file"), version.to_string());
        }
    });
}

/// It is about users, so it takes root to have two.
#[test]
fn files_of_another_user_are_copied_where_they_cannot_be_linked() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1"), ("b", "1")])).await;
        namespace.create(&secret("secret", [("password", b"1")])).await;
        let launch = Launch::within(&namespace, &workspace).args(["--kinds", "configmaps,secrets"]);
        let sidecar = launch.start();
        sidecar.holds([("a", "1"), ("b", "1"), ("password", "1")]).await;
        sidecar.terminate().await;
        let script = format!(
            "cd '{}'; chmod 755 .; cp \"$1\" configbump; shift; chown 65534 out out/.configbump out/.configbump/*
             exec setpriv --reuid=65534 --regid=65534 --clear-groups --pdeathsig KILL ./configbump \"$@\"",
            workspace.beside("").display()
        );
        for way in ["set", "file"] {
            let sidecar = launch.clone().args(["--publish", way, "--check", "true"]).prelude(script.as_str()).start();
            sidecar.in_sync().await;
            sidecar.holds([("a", "1"), ("b", "1"), ("password", "1")]).await;
            sidecar.terminate().await;
        }
        assert_eq!(workspace.mode("a"), 0o644);
        assert_eq!(workspace.mode("password"), 0o640);
    });
}

#[test]
fn on_a_full_disk_the_last_good_set_stays_and_the_next_goes_live_when_there_is_room() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let routes = |value: &str| config_map("routes", [("a", value), ("b", &value.repeat(100_000))]);
        namespace.create(&routes("1")).await;
        fs::create_dir(workspace.dir()).expect("a folder");
        let dir = workspace.dir().display().to_string();
        let mounts = format!("mount -t tmpfs -o size=400k none '{dir}'; head -c 200000 /dev/zero >'{dir}/foreign'");
        let sidecar = launch(&namespace, &workspace).mounting(mounts).start();
        sidecar.in_sync().await;
        let read = |name: &str| fs::read_to_string(sidecar.sees(&workspace.path(name))).unwrap_or_default();
        assert_eq!(read("a"), "1");
        namespace.replace(&routes("2")).await;
        sidecar.says("No space").await;
        namespace.create(&config_map("other", [("c", "1")])).await;
        sidecar.says("is tried again").await;
        assert_eq!((read("a").as_str(), &read("b")[..1]), ("1", "1"), "all of it stays");
        fs::remove_file(sidecar.sees(&workspace.path("foreign"))).expect("the file that takes the room");
        let arrived = || if read("b").starts_with('2') && read("c") == "1" { Ok(()) } else { Err(read("a")) };
        sidecar.soon("the set that there is room for now", arrived).await;
        assert_eq!(read("a"), "2");
    });
}

#[test]
fn a_folder_in_the_way_of_a_link_hinders_no_other_file() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        workspace.write("a/foreign", "theirs");
        namespace.create(&config_map("routes", [("a", "1"), ("b", "1")])).await;
        let launch = launch(&namespace, &workspace);
        let sidecar = launch.start();
        let line = sidecar.says("folder is in the way").await;
        assert!(line.contains(&workspace.path("a").display().to_string()), "{line}");
        sidecar.holds([("a/foreign", "theirs"), ("b", "1")]).await;
        namespace.create(&config_map("other", [("c", "1")])).await;
        sidecar.holds([("a/foreign", "theirs"), ("b", "1"), ("c", "1")]).await;
        namespace.replace(&config_map("routes", [("a", "2"), ("b", "2")])).await;
        sidecar.holds([("a/foreign", "theirs"), ("b", "2"), ("c", "1")]).await;
        sidecar.kill();
        let sidecar = launch.start();
        sidecar.says("folder is in the way").await;
        namespace.replace(&config_map("other", [("c", "2")])).await;
        sidecar.holds([("a/foreign", "theirs"), ("b", "2"), ("c", "2")]).await;
        fs::remove_dir_all(workspace.path("a")).expect("their folder");
        sidecar.soon_holds([("a", "2"), ("b", "2"), ("c", "2")]).await;
        assert_eq!(workspace.set(), workspace.files());
    });
}

/// Somebody turns or removes `..data`, or replaces a link, while it is away: no file is missing after the start, even before
/// the source has said anything.
#[test]
fn a_set_that_others_have_spoilt_is_whole_again_after_a_start() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let outside = workspace.beside("outside");
        fs::create_dir(&outside).expect("a folder");
        fs::write(outside.join("a"), "not in DIR").expect("a file");
        namespace.create(&config_map("routes", [("a", "1"), ("b", "1")])).await;
        let launch = launch(&namespace, &workspace);
        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.terminate().await;
        let data = workspace.path(DATA);
        let spoil: [&dyn Fn(); 4] = [
            &|| symlink(&outside, &data).expect("a link"),
            &|| fs::write(&data, "a file").expect("a file"),
            &|| {},
            &|| symlink("..2001_01_01_00_00_00.000000000", &data).expect("a link"),
        ];
        for spoil in spoil {
            fs::remove_file(&data).expect("the link");
            spoil();
            // A server that nobody can reach.
            let nowhere = Port::reserve();
            let access = Access { address: nowhere.address, ..ApiServer::shared().admin_access() };
            let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name]);
            let sidecar = launch.args(["--publish", "set"]).start();
            sidecar.holds([("a", "1"), ("b", "1")]).await;
            sidecar.terminate().await;
            assert_eq!(workspace.set(), workspace.files());
        }
        fs::remove_file(workspace.path("b")).expect("the link");
        fs::write(workspace.path("b"), "theirs").expect("a file");
        let sidecar = launch.start();
        sidecar.holds([("a", "1"), ("b", "1")]).await;
        assert_eq!(fs::read_to_string(outside.join("a")).expect("the file outside"), "not in DIR");
        sidecar.terminate().await;
    });
}
