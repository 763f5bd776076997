//! Others that write in DIR, and objects that lie: nothing outside DIR is written, removed, or read into a log, and nobody
//! makes configbump hang.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::bump::signalling;
use crate::harness::namespace::Namespace;
use crate::harness::object::{config_map, secret};
use crate::harness::processes::Processes;
use crate::harness::sidecar::{Launch, Sidecar};
use crate::harness::target::Target;
use crate::harness::wait::{PATIENCE, run, until};
use crate::harness::workspace::{Workspace, write};
use crate::processes::{NOBODY, as_nobody};

/// What stands outside, and may be neither changed, removed nor told.
const TREASURE: &str = "a treasure";

/// How long a racing test waits for one of its changes.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Both ways in which files go live.
const WAYS: [[&str; 2]; 2] = [["--publish", "file"], ["--publish", "set"]];

/// A folder of manifests, and a folder outside DIR with a file in it.
struct Scene<'w> {
    workspace: &'w Workspace,
    outside: PathBuf,
    manifests: PathBuf,
}

impl<'w> Scene<'w> {
    fn new(workspace: &'w Workspace) -> Self {
        let (outside, manifests) = (workspace.beside("outside"), workspace.beside("manifests"));
        write(&outside.join("victim"), TREASURE);
        fs::create_dir(&manifests).expect("a folder");
        fs::create_dir(workspace.dir()).expect("a folder");
        Self { workspace, outside, manifests }
    }

    fn launch(&self) -> Launch<'w> {
        Launch::new(self.workspace).arg("--manifests").arg(&self.manifests).environment("CONFIG_BUMP_SETTLE", "10ms")
    }

    /// Replaces a manifest as editors do.
    fn put(&self, name: &str, text: &str) {
        let temporary = self.workspace.fresh("edited");
        write(&temporary, text);
        fs::rename(temporary, self.manifests.join(name)).expect("a file replaced");
    }

    /// A ConfigMap with this folder annotation and these values.
    fn put_map(&self, name: &str, folder: &str, data: &[(&str, &str)]) {
        let data: serde_json::Map<_, _> = data.iter().map(|&(key, value)| (key.to_owned(), value.into())).collect();
        let map = serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": data,
            "metadata": { "name": name, "labels": { "app": "web" }, "annotations": { "example.com/folder": folder } },
        });
        self.put(&format!("{name}.json"), &map.to_string());
    }

    /// Waits until there are regular files with these contents, perhaps by a link of a set. What else is there is not read: it
    /// may have no end.
    async fn shows(&self, sidecar: &Sidecar<'_>, files: &[(&str, &str)]) {
        let differs = |&&(path, content): &&(&str, &str)| {
            let path = self.workspace.path(path);
            !path.is_file() || fs::read_to_string(path).ok().as_deref() != Some(content)
        };
        let look = || match files.iter().find(differs) {
            None => Ok(()),
            Some((path, _)) => Err(format!("{path} has another content, or none")),
        };
        sidecar.soon("these files", look).await;
    }

    /// Nothing has happened outside, and nothing of it is in the log.
    fn is_unharmed(&self, sidecar: &Sidecar<'_>) {
        let names = fs::read_dir(&self.outside).expect("the folder").map(|entry| entry.expect("an entry").path());
        assert_eq!(names.collect::<Vec<_>>(), [self.outside.join("victim")]);
        assert_eq!(fs::read_to_string(self.outside.join("victim")).expect("the file"), TREASURE);
        assert_eq!(sidecar.lines_with(&[TREASURE]), [""; 0]);
    }
}

/// Something that is no file, by its name.
const THINGS: [&str; 7] = ["link", "link-to-folder", "fifo", "device", "block", "socket", "folder"];

/// Puts one of those there, or in the place of what is.
fn plant(thing: &str, at: &Path, outside: &Path) {
    let node = |kind, device| mknodat(CWD, at, kind, Mode::from_raw_mode(0o666), device).map_err(Into::into);
    let planted = match thing {
        "link" => symlink(outside.join("victim"), at),
        "link-to-folder" => symlink(outside, at),
        "fifo" => node(FileType::Fifo, 0),
        // /dev/zero, which has no end.
        "device" => node(FileType::CharacterDevice, rustix::fs::makedev(1, 5)),
        "block" => node(FileType::BlockDevice, rustix::fs::makedev(7, 99)),
        // It stays when its listener goes.
        "socket" => UnixListener::bind(at).map(drop),
        _ => fs::create_dir_all(at.join("a/b")),
    };
    planted.unwrap_or_else(|error| panic!("{thing} at {}: {error}", at.display()));
}

#[test]
fn what_is_planted_at_a_files_place_is_neither_followed_nor_read_and_gives_way() {
    run(async {
        for way in WAYS {
            let workspace = Workspace::new();
            let scene = Scene::new(&workspace);
            THINGS.iter().for_each(|thing| plant(thing, &workspace.path(thing), &scene.outside));
            let files: Vec<_> = THINGS.iter().map(|&thing| (thing, "1")).collect();
            scene.put_map("routes", "", &files);
            let sidecar = scene.launch().args(way).start();
            // All but the folder, of which the log says that it is in the way.
            scene.shows(&sidecar, &files[..6]).await;
            sidecar.says("a folder is in the way").await;
            assert!(workspace.path("folder/a/b").is_dir());
            scene.is_unharmed(&sidecar);
            sidecar.terminate().await;
        }
    });
}

#[test]
fn what_is_planted_in_the_folder_of_the_state_is_neither_followed_nor_read_and_hinders_no_start() {
    run(async {
        for (thing, way) in THINGS.iter().flat_map(|&thing| WAYS.map(|way| (thing, way))) {
            let workspace = Workspace::new();
            let scene = Scene::new(&workspace);
            let state = workspace.path(".configbump");
            fs::create_dir(&state).expect("a folder");
            for name in ["record", "tmp-0", "tmp-1", "tmp-7", "parked-1", "..2026_01_01_00_00_00.000000000"] {
                plant(thing, &state.join(name), &scene.outside);
            }
            let large = "x".repeat(100_000);
            scene.put_map("first", "", &[("contested", "first"), ("large", &large)]);
            scene.put_map("second", "", &[("contested", "second")]);
            let sidecar = scene.launch().args(way).start();
            scene.shows(&sidecar, &[("contested", "first"), ("large", &large)]).await;
            fs::remove_file(scene.manifests.join("first.json")).expect("the manifest");
            scene.shows(&sidecar, &[("contested", "second")]).await;
            assert!(fs::symlink_metadata(state.join("record")).expect("the record").is_file(), "{thing}");
            scene.is_unharmed(&sidecar);
            sidecar.terminate().await;
        }
    });
}

#[test]
fn what_is_planted_in_place_of_the_folder_of_the_state_gives_way() {
    run(async {
        for thing in THINGS.iter().filter(|&&thing| thing != "folder") {
            let workspace = Workspace::new();
            let scene = Scene::new(&workspace);
            plant(thing, &workspace.path(".configbump"), &scene.outside);
            scene.put_map("routes", "", &[("a", "1")]);
            let sidecar = scene.launch().start();
            scene.shows(&sidecar, &[("a", "1")]).await;
            sidecar.says("was no folder, and has been replaced by one").await;
            assert!(fs::symlink_metadata(workspace.path(".configbump")).expect("the folder").is_dir(), "{thing}");
            scene.is_unharmed(&sidecar);
            sidecar.terminate().await;
        }
    });
}

/// What another user keeps to himself, by its name.
const KEPT: [&str; 5] = ["closed file", "leased file", "second name", "closed folder", "deep folder"];

/// Puts one of those there, with this text if it is a file, and gives what keeps it so.
fn keep(thing: &str, at: &Path, text: &str, outside: &Path) -> Option<Child> {
    // Whoever breaks a lease waits, or is told to come again; whose lease it is gets a signal, and need not heed it.
    const LEASE: &str = r#"$SIG{IO} = "IGNORE"; open(my $file, "+<", $ARGV[0]) or die; fcntl($file, 1024, 1) or die;
        $| = 1; print "leased\n"; sleep"#;
    let closed = |mode| fs::set_permissions(at, fs::Permissions::from_mode(mode)).expect("a mode");
    match thing {
        "closed file" | "leased file" => write(at, text),
        "second name" => fs::hard_link(outside.join("victim"), at).expect("a second name"),
        "closed folder" => fs::create_dir_all(at.join("a")).expect("folders"),
        _ => fs::create_dir_all(at.join("d/".repeat(70))).expect("folders"),
    }
    match thing {
        "closed file" | "closed folder" => closed(0),
        "leased file" => {
            let mut holder = Command::new("perl");
            holder.args(["-e", LEASE]).arg(at).stdout(Stdio::piped());
            let mut holder = holder.spawn().expect("perl, which every Debian has");
            let mut line = String::new();
            let said = BufReader::new(holder.stdout.take().expect("a pipe")).read_line(&mut line);
            assert_eq!((said.expect("a line"), line.as_str()), (7, "leased\n"));
            return Some(holder);
        }
        _ => {}
    }
    None
}

#[test]
fn what_another_user_keeps_to_himself_hinders_no_start_and_no_file() {
    run(async {
        let places =
            KEPT.iter().flat_map(|&thing| [".configbump/lock", ".configbump/record", "a"].map(|at| (thing, at)));
        // A folder is in the way of a file, which is told.
        for (thing, at) in places.filter(|(thing, at)| !(thing.ends_with("folder") && *at == "a")) {
            let workspace = Workspace::new();
            let scene = Scene::new(&workspace);
            let state = workspace.path(".configbump");
            fs::create_dir(&state).expect("a folder");
            chown(&state, Some(NOBODY), None).expect("root may do that");
            let mut holder = keep(thing, &workspace.path(at), "1", &scene.outside);
            scene.put_map("routes", "", &[("a", "1")]);
            let sidecar = scene.launch().prelude(as_nobody(&workspace, "")).start();
            sidecar.in_sync().await;
            scene.shows(&sidecar, &[("a", "1")]).await;
            for own in ["lock", "record"] {
                let metadata = fs::symlink_metadata(state.join(own)).expect("a file");
                assert!(
                    metadata.is_file() && metadata.nlink() == 1 && metadata.uid() == NOBODY,
                    "{thing} at {at}: {own}"
                );
            }
            scene.is_unharmed(&sidecar);
            sidecar.terminate().await;
            if let Some(holder) = &mut holder {
                holder.kill().and_then(|()| holder.wait()).expect("a child can be killed");
            }
        }
    });
}

#[test]
fn a_closed_folder_in_place_of_a_tree_hinders_no_start() {
    run(async {
        let workspace = Workspace::new();
        let scene = Scene::new(&workspace);
        let close = |at: &Path| drop(keep("closed folder", at, "", &scene.outside));
        let unknown = "..2026_01_01_00_00_00.0";
        close(&workspace.path(unknown));
        symlink(unknown, workspace.path("..data")).expect("a link");
        scene.put_map("routes", "", &[("a", "1")]);
        for way in ["set", "set", "file"] {
            let sidecar = scene.launch().args(["--publish", way]).prelude(as_nobody(&workspace, "")).start();
            sidecar.in_sync().await;
            scene.shows(&sidecar, &[("a", "1")]).await;
            scene.is_unharmed(&sidecar);
            sidecar.terminate().await;
            if let Some(live) = workspace.trees().last() {
                let live = workspace.dir().join(live);
                fs::rename(&live, workspace.fresh("tree")).expect("a rename");
                close(&live);
            }
        }
    });
}

#[test]
fn what_is_planted_for_the_links_of_a_set_is_neither_followed_nor_entered() {
    run(async {
        for (thing, name) in
            THINGS.iter().flat_map(|&thing| ["..data", "..2026_01_01_00_00_00.0"].map(|name| (thing, name)))
        {
            let workspace = Workspace::new();
            let scene = Scene::new(&workspace);
            plant(thing, &workspace.path(name), &scene.outside);
            scene.put_map("routes", "", &[("a", "1")]);
            let sidecar = scene.launch().args(["--publish", "set", "--prune", "all"]).start();
            if (thing, name) == ("folder", "..data") {
                let ended = sidecar.ended(PATIENCE).await;
                assert!(ended.code == Some(1) && ended.stderr.contains("a folder is in the way"), "{ended:?}");
                continue;
            }
            scene.shows(&sidecar, &[("a", "1")]).await;
            scene.is_unharmed(&sidecar);
            sidecar.terminate().await;
        }
    });
}

/// Does something again and again in a thread, as long as it lives.
struct Again<'a> {
    over: &'a AtomicBool,
}

impl<'a> Again<'a> {
    fn start<'s>(scope: &'s std::thread::Scope<'s, '_>, over: &'a AtomicBool, mut act: impl FnMut() + Send + 's) -> Self
    where
        'a: 's,
    {
        scope.spawn(move || {
            while !over.load(Ordering::Relaxed) {
                act();
            }
        });
        Self { over }
    }
}

impl Drop for Again<'_> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_folder_that_is_swapped_for_a_link_all_the_time_leads_nobody_out() {
    const CHANGES: usize = 150;
    run(async {
        for way in WAYS {
            let workspace = Workspace::new();
            let scene = Scene::new(&workspace);
            let (folder, away, link) = (workspace.path("sub"), workspace.path("away"), workspace.fresh("link"));
            fs::create_dir(&folder).expect("a folder");
            symlink(&scene.outside, &link).expect("a link");
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            fs::rename(&link, &away).expect("a link");
            let launch = scene.launch().args(way).args(["--folder-annotation", "example.com/folder"]);
            let sidecar = launch.start();
            let over = AtomicBool::new(false);
            let mut swaps = 0_u64;
            std::thread::scope(|scope| {
                let swap = || {
                    rustix::fs::renameat_with(CWD, &folder, CWD, &away, flags).expect("an exchange");
                    swaps += 1;
                };
                let again = Again::start(scope, &over, swap);
                for change in 0..CHANGES {
                    let text = change.to_string();
                    let keys: &[(&str, &str)] = if change % 3 == 0 { &[] } else { &[("victim", &text), ("b", &text)] };
                    scene.put_map("routes", "sub", keys);
                    scene.put_map("marker", "", &[("marker", &text)]);
                    give_time(&workspace, &text);
                }
                drop(again);
            });
            assert!(swaps > 1000, "only {swaps} swaps");
            if folder.is_symlink() {
                rustix::fs::renameat_with(CWD, &folder, CWD, &away, flags).expect("an exchange");
            }
            scene.put_map("routes", "sub", &[("victim", "last"), ("b", "last")]);
            scene.shows(&sidecar, &[("sub/victim", "last"), ("sub/b", "last")]).await;
            scene.is_unharmed(&sidecar);
            sidecar.terminate().await;
        }
    });
}

/// Gives a change the time that it takes when nobody hinders it, or a bit more: for a set that is hindered waits as a whole.
fn give_time(workspace: &Workspace, text: &str) {
    let start = Instant::now();
    while fs::read_to_string(workspace.path("marker")).ok().as_deref() != Some(text) && start.elapsed() < PAUSE_MAX {
        std::thread::yield_now();
    }
}

#[test]
fn temporary_files_that_are_swapped_for_links_all_the_time_lead_nobody_out() {
    const CHANGES: usize = 150;
    run(async {
        for way in WAYS {
            let workspace = Workspace::new();
            let scene = Scene::new(&workspace);
            let sidecar = scene.launch().args(way).start();
            sidecar.in_sync().await;
            let (state, victim) = (workspace.path(".configbump"), scene.outside.join("victim"));
            let over = AtomicBool::new(false);
            let mut swaps = 0_u64;
            std::thread::scope(|scope| {
                let swap = || {
                    for entry in fs::read_dir(&state).expect("the folder of the state").flatten() {
                        let name = entry.file_name().to_string_lossy().into_owned();
                        if !name.starts_with("tmp-") {
                            continue;
                        }
                        let link = state.join("link");
                        symlink(&victim, &link).expect("a link");
                        // It may be gone, and come into being here once more, or be a link already.
                        fs::rename(&link, state.join(name)).expect("a link in its place");
                        swaps += 1;
                    }
                };
                let again = Again::start(scope, &over, swap);
                let large = "x".repeat(300_000);
                for change in 0..CHANGES {
                    scene.put_map(
                        "routes",
                        "",
                        &[("large", &format!("{large}{change}")), ("small", &change.to_string())],
                    );
                    std::thread::yield_now();
                }
                drop(again);
            });
            scene.put_map("routes", "", &[("large", "last"), ("small", "last")]);
            scene.shows(&sidecar, &[("large", "last"), ("small", "last")]).await;
            scene.is_unharmed(&sidecar);
            assert!(swaps > 0);
            sidecar.terminate().await;
        }
    });
}

#[test]
fn hostile_keys_names_and_folders_lead_to_no_file_and_no_second_line() {
    let long = "n".repeat(300);
    let hostile = [
        "..",
        "../x",
        "a/../../x",
        "/etc/x",
        "a\0b",
        "a\nb",
        "a\r\u{1b}[31mb",
        ".",
        "",
        " ",
        ".configbump",
        ".configbump/record",
        ".configbump/tmp-0",
        "..data",
        "..data/x",
        "..2026_01_01_00_00_00.000000000",
        "a\\..\\b",
        "%2e%2e%2f",
        "\u{202e}gpj",
        long.as_str(),
    ];
    run(async {
        for (way, layout) in WAYS.iter().flat_map(|&way| ["flat", "unique", "tree"].map(|layout| (way, layout))) {
            let workspace = Workspace::new();
            let scene = Scene::new(&workspace);
            // Of twins, each is a file of its own.
            scene.put_map("twins", "", &[("twin", "lower"), ("Twin", "upper")]);
            let sidecar = scene
                .launch()
                .args(way)
                .args(["--layout", layout, "--folder-annotation", "example.com/folder"])
                .start();
            let place = |name: &str, key: &str| match layout {
                "flat" => key.to_owned(),
                "unique" => format!("namespace_default.configmap_{name}.{key}"),
                _ => format!("default/{name}/{key}"),
            };
            let twins = [(place("twins", "Twin"), "upper"), (place("twins", "twin"), "lower")];
            scene.shows(&sidecar, &twins.each_ref().map(|(path, content)| (path.as_str(), *content))).await;
            for (number, text) in hostile.iter().enumerate() {
                let map = |name: &str, namespace: &str, folder: &str, key: &str| {
                    serde_json::json!({
                        "apiVersion": "v1", "kind": "ConfigMap", "data": { key: "1" },
                        "metadata": {
                            "name": name, "namespace": namespace, "labels": { "app": "web" },
                            "annotations": { "example.com/folder": folder },
                        },
                    })
                };
                let objects = [
                    map("key", "default", "", text),
                    map(text, "default", "", "name"),
                    map("namespace", text, "", "namespace"),
                    map(&format!("folder-{number}"), "default", text, &format!("folder-{number}")),
                ];
                for (kind, object) in objects.iter().enumerate() {
                    scene.put(&format!("{number}-{kind}.json"), &object.to_string());
                }
            }
            scene.put("a\n2026-01-01T00:00:00Z  INFO forged\u{1b}[31m.yaml", "[");
            sidecar.says("forged").await;
            let last = format!("{}-2.json", hostile.len() - 1);
            sidecar.says(&last).await;
            // These are odd, and lead nowhere; the empty text is no folder, and the namespace `default`.
            let mut files = twins.to_vec();
            files.push((place("namespace", "namespace"), "1"));
            for folder in ["", " ", "a\\..\\b", "%2e%2e%2f", "\u{202e}gpj"] {
                let number = hostile.iter().position(|text| *text == folder).expect("one of them");
                let name = format!("folder-{number}");
                let above = if folder.is_empty() { String::new() } else { format!("{folder}/") };
                files.push((above + &place(&name, &name), "1"));
            }
            files.sort();
            let wanted: Vec<_> = files.iter().map(|(path, content)| (path.as_str(), *content)).collect();
            scene.shows(&sidecar, &wanted).await;
            scene.is_unharmed(&sidecar);
            assert_eq!(workspace.files().paths(), wanted.iter().map(|(path, _)| *path).collect::<Vec<_>>());
            let beside: Vec<_> = fs::read_dir(workspace.beside("")).expect("the folder").flatten().collect();
            assert!(beside.iter().all(|entry| entry.file_name() != "x"), "{beside:?}");
            let state = fs::symlink_metadata(workspace.path(".configbump/record")).expect("the record");
            assert!(state.is_file());
            for line in sidecar.lines_with(&[""]) {
                assert!(!line.contains(char::is_control), "{line:?}");
                assert!([" INFO ", " WARN "].iter().any(|level| line.contains(level)), "half a message: {line:?}");
            }
            sidecar.terminate().await;
        }
    });
}

#[test]
fn a_thousand_keys_that_an_object_cannot_have_take_few_lines_of_the_log() {
    const KEYS: usize = 1000;
    const SHOWN: usize = 10;
    // In the unique layout a name has its namespace and object in front, and is too long for a file then.
    let long = "n".repeat(240);
    let keys: Vec<String> = (0..KEYS).map(|number| format!("{long}-{number}")).collect();
    let values = |value| keys.iter().map(move |key| (key.as_str(), value)).collect::<Vec<_>>();
    run(async {
        for layout in ["flat", "unique"] {
            let workspace = Workspace::new();
            let scene = Scene::new(&workspace);
            let sidecar = scene.launch().args(["--layout", layout]).start();
            sidecar.says("in sync").await;
            if layout == "flat" {
                scene.put_map("first", "", &values("1"));
                scene.shows(&sidecar, &values("1")).await;
            }
            scene.put_map("second", "", &values("2"));
            sidecar
                .says(&format!("{} more of these are left out, all of ConfigMap default/second", KEYS - SHOWN))
                .await;
            assert_eq!(sidecar.lines_with(&["ConfigMap default/second"]).len(), SHOWN + 1);
            sidecar.terminate().await;
        }
    });
}

#[test]
fn thousands_of_files_that_change_or_go_at_a_time_take_few_lines_of_the_log() {
    const FILES: usize = 2000;
    const NAMED: usize = 100;
    let keys: Vec<String> = (0..FILES).map(|number| format!("key-{number}")).collect();
    run(async {
        let workspace = Workspace::new();
        let scene = Scene::new(&workspace);
        for key in &keys {
            workspace.write(&format!("theirs-{key}"), "x");
        }
        scene.put_map("first", "", &[("a", "1")]);
        let sidecar = scene.launch().args(["--prune", "all"]).start();
        sidecar.in_sync().await;
        assert_eq!(workspace.files().paths(), ["a"]);
        assert_eq!(sidecar.lines_with(&["which nobody selected"]).len(), NAMED);
        sidecar.says(&format!("removed {} more that nobody selected", FILES - NAMED)).await;
        let values: Vec<_> = keys.iter().map(|key| (key.as_str(), "1")).collect();
        scene.put_map("many", "", &values);
        scene.shows(&sidecar, &values).await;
        sidecar.says(&format!("{} more files changed with these", FILES - NAMED)).await;
        assert_eq!(sidecar.lines_with(&["wrote key-"]).len(), NAMED);
        sidecar.terminate().await;
    });
}

#[test]
fn no_value_of_a_secret_is_in_the_log_and_nobody_else_can_read_one_at_any_moment() {
    const CHANGES: usize = 60;
    run(async {
        for way in WAYS {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let values = |change: usize| [format!("hidden-{change}"), format!("hidden-{change}").repeat(30_000)];
            let object = |change| {
                let [small, large] = values(change);
                secret("secret", [("small", small.as_bytes()), ("large", large.as_bytes())])
            };
            namespace.create(&object(0)).await;
            namespace.create(&config_map("map", [("open", "shown")])).await;
            let dir = workspace.dir().display().to_string();
            let seen = workspace.beside("seen");
            fs::create_dir(workspace.dir()).expect("a folder");
            let open = |path: &Path| Command::new("chmod").arg("755").arg(path).status().expect("chmod");
            assert!(open(&workspace.beside("")).success() && open(&workspace.dir()).success());
            let script = format!(
                "while :; do cat '{dir}'/* '{dir}'/.configbump/* '{dir}'/.configbump/*/* '{dir}'/..data/* 2>/dev/null; done"
            );
            let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
            let mut reader = Command::new("setpriv")
                .args(user)
                .args(["--clear-groups", "--pdeathsig", "KILL", "sh", "-c", &script])
                .stdout(fs::File::create(&seen).expect("a file"))
                .spawn()
                .expect("setpriv, which is part of util-linux");
            let launch =
                Launch::within(&namespace, &workspace).args(["--kinds", "configmaps,secrets", "--settle", "0"]);
            let url = ["--url", "http://127.0.0.1:1/", "--log-level", "debug"];
            let sidecar = launch.args(way).args(url).start();
            for change in 1..=CHANGES {
                namespace.replace(&object(change)).await;
            }
            let [_, large] = values(CHANGES);
            let arrived = || match fs::read_to_string(workspace.path("large")) {
                Ok(text) if text == large => Ok(()),
                _ => Err("an older one".to_owned()),
            };
            sidecar.until("the last change", arrived).await;
            let shown = async || match fs::read_to_string(&seen) {
                Ok(text) if text.contains("shown") => Ok(text),
                _ => Err("nothing as yet".to_owned()),
            };
            let text = until(PATIENCE, "what anybody may read", shown).await;
            reader.kill().and_then(|()| reader.wait()).expect("a child can be killed");
            assert!(!text.contains("hidden"), "another user has read a Secret");
            assert_eq!(sidecar.lines_with(&["hidden"]), [""; 0]);
            let encoded = base64_of("hidden-1");
            assert_eq!(sidecar.lines_with(&[encoded.trim_end_matches('=')]), [""; 0]);
        }
    });
}

pub fn base64_of(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

/// A PID namespace in which a script has started so many processes of the target's name.
async fn crowd(workspace: &Workspace, target: &str, script: &str, processes: usize) -> Processes {
    fs::write(workspace.beside("start"), script).expect("a file");
    let pod = Processes::start(workspace, "sh", [workspace.beside("start")]).await;
    let all = async || match pod.count(target) {
        count if count == processes => Ok(()),
        count => Err(format!("{count}")),
    };
    until(PATIENCE, "all of them", all).await;
    pod
}

#[test]
fn thousands_of_processes_that_match_are_waited_for_in_few_lines_and_hinder_no_file() {
    const PROCESSES: usize = 2000;
    const FILE_TIME_MAX: Duration = Duration::from_secs(5);
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let target = Target::name(&workspace);
        let script = format!(
            "cp \"$(command -v sleep)\" '{target}'; i=0; while [ $i -lt {PROCESSES} ]; do '{target}' 600 & i=$((i + 1)); done; wait"
        );
        let pod = crowd(&workspace, &target, &script, PROCESSES).await;
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let sidecar = signalling(&namespace, &workspace).inside(&pod).start();
        sidecar.says("has not installed a handler").await;
        for change in 2..12 {
            let changed = Instant::now();
            namespace.replace(&config_map("routes", [("a", &change.to_string())])).await;
            sidecar.holds([("a", change.to_string())]).await;
            assert!(changed.elapsed() < FILE_TIME_MAX, "change {change} took {:?}", changed.elapsed());
        }
        let lines = sidecar.lines_with(&["handler"]).len();
        assert!(lines <= 40, "{lines} lines");
        assert!(sidecar.usage().resident_kib < 64 * 1024, "{:?}", sidecar.usage());
        assert_eq!(pod.count(&target), PROCESSES, "none of them was ended");
    });
}

#[test]
fn processes_with_long_command_lines_keep_no_file_waiting() {
    const PROCESSES: usize = 400;
    const CHANGES: u32 = 10;
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let target = Target::name(&workspace);
        // Each of them stops itself, and is no target, which shows only at the end of its command line.
        let script = format!(
            "cp \"$(command -v sh)\" '{target}'; long=$(head -c 100000 /dev/zero | tr '\\0' n); \
             i=0; while [ $i -lt {PROCESSES} ]; do '{target}' -c 'kill -STOP $$' x \"$long\" & i=$((i + 1)); done; wait"
        );
        let pod = crowd(&workspace, &target, &script, PROCESSES).await;
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let launch = Launch::within(&namespace, &workspace).args(["-s", "HUP", "-c", "(n+x)*y$", "--settle", "0"]);
        let sidecar = launch.inside(&pod).start();
        sidecar.in_sync().await;
        for change in 0..CHANGES {
            namespace.replace(&config_map("routes", [("a", &change.to_string())])).await;
            sidecar.holds([("a", change.to_string())]).await;
        }
        // All that while the first look at the processes went on, which takes many times as long.
        assert_eq!(sidecar.lines_with(&["the bump waits"]), [""; 0]);
        assert_eq!(pod.count(&target), PROCESSES);
    });
}

#[test]
fn a_process_that_changes_its_name_all_the_time_is_not_signalled_while_that_would_end_it() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let pod = Processes::of_pod(&workspace).await;
        let (target, other) = (Target::name(&workspace), workspace.beside("other").display().to_string());
        // The PID stays, the command line is that of another program each time.
        fs::write(&target, format!("exec sh '{other}'")).expect("a file");
        fs::write(&other, format!("exec sh '{target}'")).expect("a file");
        let renaming = pod.enter(&workspace, "sh", [&target]);
        namespace.create(&config_map("routes", [("a", "0")])).await;
        let sidecar = signalling(&namespace, &workspace).inside(&pod).args(["--settle", "0"]).start();
        for change in 1..40 {
            namespace.replace(&config_map("routes", [("a", &change.to_string())])).await;
            sidecar.holds([("a", change.to_string())]).await;
        }
        assert!(renaming.is_running(), "{}", renaming.output());
        sidecar.says_times("sent SIGHUP to", 0).await;
    });
}
