//! Where below DIR the files are, and what they may be like.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;

use rustix::fs::Mode;

use crate::harness::namespace::Namespace;
use crate::harness::object::{annotated, config_map, secret};
use crate::harness::sidecar::Launch;
use crate::harness::wait::run;
use crate::harness::workspace::Workspace;

const FOLDER: &str = "example.com/folder";

#[test]
fn unique_names_files_by_namespace_kind_object_and_key() {
    run(async {
        let (one, two, workspace) = (Namespace::new().await, Namespace::new().await, Workspace::new());
        one.create(&config_map("same", [("a.yaml", "1")])).await;
        two.create(&config_map("same", [("a.yaml", "2")])).await;
        one.create(&secret("same", [("a.yaml", b"3")])).await;
        let launch = Launch::within(&one, &workspace).args(["--namespace", &two.name, "--kinds", "secrets,configmaps"]);
        let sidecar = launch.args(["--layout", "unique"]).start();
        sidecar
            .holds([
                (format!("namespace_{}.configmap_same.a.yaml", one.name), "1"),
                (format!("namespace_{}.configmap_same.a.yaml", two.name), "2"),
                (format!("namespace_{}.secret_same.a.yaml", one.name), "3"),
            ])
            .await;
    });
}

#[test]
fn tree_has_a_folder_for_each_namespace_and_object() {
    run(async {
        let (one, two, workspace) = (Namespace::new().await, Namespace::new().await, Workspace::new());
        let gone = one.create(&config_map("gone", [("a.yaml", "1")])).await;
        one.create(&config_map("kept", [("a.yaml", "2")])).await;
        let last = two.create(&config_map("last", [("a.yaml", "3")])).await;
        let launch = Launch::within(&one, &workspace).args(["--namespace", &two.name, "--layout", "tree"]);
        let sidecar = launch.start();
        let path = |namespace: &Namespace, name| format!("{}/{name}/a.yaml", namespace.name);
        sidecar.holds([(path(&one, "gone"), "1"), (path(&one, "kept"), "2"), (path(&two, "last"), "3")]).await;
        one.delete(&gone).await;
        two.delete(&last).await;
        sidecar.holds([(path(&one, "kept"), "2")]).await;
        let left = BTreeSet::from([one.name.clone(), format!("{}/kept", one.name)]);
        sidecar
            .until("the empty folders to go", || match workspace.folders() {
                folders if folders == left => Ok(()),
                folders => Err(format!("{folders:?}")),
            })
            .await;
    });
}

#[test]
fn tree_moves_files_when_a_second_kind_is_followed() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("same", [("a.yaml", "1")])).await;
        namespace.create(&secret("same", [("a.yaml", b"2")])).await;
        let launch = Launch::within(&namespace, &workspace).args(["--layout", "tree"]);
        let path = |name: &str| format!("{}/{name}/a.yaml", namespace.name);
        let sidecar = launch.start();
        sidecar.holds([(path("same"), "1")]).await;
        sidecar.terminate().await;
        let sidecar = launch.args(["--kinds", "configmaps,secrets"]).start();
        sidecar.holds([(path("configmaps/same"), "1"), (path("secrets/same"), "2")]).await;
        let wanted = ["", "/configmaps", "/configmaps/same", "/secrets", "/secrets/same"];
        let wanted: BTreeSet<_> = wanted.map(|directory| format!("{}{directory}", namespace.name)).into();
        sidecar
            .until("the empty directory to go", || match workspace.folders() {
                folders if folders == wanted => Ok(()),
                folders => Err(format!("{folders:?}")),
            })
            .await;
    });
}

#[test]
fn a_name_too_long_for_the_disk_is_reported_and_hinders_nothing() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let long = "k".repeat(253);
        namespace.create(&config_map("routes", [(long.as_str(), "1"), ("a.yaml", "2")])).await;
        let sidecar = Launch::within(&namespace, &workspace).args(["--layout", "unique"]).start();
        sidecar.holds([(format!("namespace_{}.configmap_routes.a.yaml", namespace.name), "2")]).await;
        sidecar.in_sync().await;
        let lines = sidecar.lines_with(&[&long]);
        assert_eq!(lines.len(), 1, "{lines:?}");
    });
}

#[test]
fn an_annotation_names_the_folder_of_its_object() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let absolute = workspace.path("below/dir").display().to_string();
        for (name, folder) in [("nested", "a/b"), ("empty", ""), ("absolute", absolute.as_str()), ("slash", "c/d/")] {
            namespace.create(&annotated(config_map(name, [(name, "1")]), FOLDER, folder)).await;
        }
        namespace.create(&config_map("none", [("none", "1")])).await;
        let sidecar = Launch::within(&namespace, &workspace).args(["--folder-annotation", FOLDER]).start();
        sidecar.holds(["a/b/nested", "below/dir/absolute", "c/d/slash", "empty", "none"].map(|path| (path, "1"))).await;
    });
}

#[test]
fn the_files_of_an_object_move_with_its_annotation() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        workspace.write("theirs/foreign", "theirs");
        let routes = config_map("routes", [("1", "1"), ("2", "2")]);
        let annotated = |folder| annotated(routes.clone(), FOLDER, folder);
        namespace.create(&annotated("a/b")).await;
        let launch = Launch::within(&namespace, &workspace).args(["--folder-annotation", FOLDER]);
        let sidecar = launch.start();
        let foreign = ("theirs/foreign", "theirs");
        sidecar.holds([("a/b/1", "1"), ("a/b/2", "2"), foreign]).await;
        for (folder, files, folders) in [
            ("a/c", ["a/c/1", "a/c/2"], &["a", "a/c", "theirs"][..]),
            ("theirs", ["theirs/1", "theirs/2"], &["theirs"]),
            ("", ["1", "2"], &["theirs"]),
        ] {
            namespace.replace(&annotated(folder)).await;
            sidecar.holds([(files[0], "1"), (files[1], "2"), foreign]).await;
            sidecar
                .until("no empty folder", || match workspace.folders() {
                    left if left.iter().eq(folders) => Ok(()),
                    left => Err(format!("{left:?}")),
                })
                .await;
        }
        // A folder that configbump made in an earlier run is removed as well.
        namespace.replace(&annotated("a/b")).await;
        sidecar.holds([("a/b/1", "1"), ("a/b/2", "2"), foreign]).await;
        sidecar.terminate().await;
        namespace.replace(&routes).await;
        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.holds([("1", "1"), ("2", "2"), foreign]).await;
        assert_eq!(workspace.folders(), BTreeSet::from(["theirs".to_owned()]));
    });
}

#[test]
fn a_folder_outside_dir_is_refused_with_one_line_and_changes_nothing() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let beside = workspace.beside("elsewhere").display().to_string();
        let sibling = format!("{}-evil", workspace.dir().display());
        let out_and_in = format!("{}/../out/a", workspace.dir().display());
        let refused =
            ["..", "a/../b", "a/../../elsewhere", &beside, &sibling, &out_and_in, "/", ".configbump", ".configbump/x"];
        let launch = Launch::within(&namespace, &workspace).args(["--folder-annotation", FOLDER]);
        let sidecar = launch.start();
        for (number, folder) in refused.into_iter().enumerate() {
            let name = format!("refused-{number}");
            namespace.create(&config_map(&name, [(&name, "1")])).await;
            sidecar.until("the file", || if sidecar.has(&name) { Ok(()) } else { Err("no file".to_owned()) }).await;
            namespace.replace(&annotated(config_map(&name, [(&name, "2")]), FOLDER, folder)).await;
            let fresh = format!("fresh-{number}");
            namespace.create(&annotated(config_map(&fresh, [(&fresh, "2")]), FOLDER, folder)).await;
        }
        namespace.create(&config_map("marker", [("marker", "1")])).await;
        let former: Vec<_> = (0..refused.len()).map(|number| (format!("refused-{number}"), "1")).collect();
        sidecar.holds(former.iter().cloned().chain([("marker".to_owned(), "1")])).await;
        for (number, folder) in refused.into_iter().enumerate() {
            let lines = sidecar.lines_with(&[&format!("refused-{number}"), &format!("{folder:?}")]);
            assert_eq!(lines.len(), 1, "{folder}: {lines:?}");
        }
        assert!(!workspace.beside("elsewhere").exists() && !std::path::Path::new(&sibling).exists());
    });
}

#[test]
fn without_the_option_the_annotation_means_nothing() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&annotated(config_map("routes", [("a.yaml", "1")]), FOLDER, "../..")).await;
        Launch::within(&namespace, &workspace).start().holds([("a.yaml", "1")]).await;
    });
}

/// Another container of the pod may share DIR and be hostile.
#[test]
fn a_planted_link_leads_nowhere() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let outside = workspace.beside("outside");
        fs::create_dir(&outside).expect("a folder");
        fs::write(outside.join("victim"), "untouched").expect("a file");
        fs::create_dir(workspace.dir()).expect("a folder");
        symlink(&outside, workspace.path("folder")).expect("a link");
        symlink(outside.join("victim"), workspace.path("file")).expect("a link");
        namespace.create(&annotated(config_map("through", [("victim", "written")]), FOLDER, "folder")).await;
        namespace.create(&annotated(config_map("below", [("new", "written")]), FOLDER, "folder/sub")).await;
        let launch = Launch::within(&namespace, &workspace).args(["--folder-annotation", FOLDER]);
        let sidecar = launch.start();
        namespace.create(&config_map("over", [("file", "written"), ("marker", "")])).await;
        sidecar.until("the marker", || if sidecar.has("marker") { Ok(()) } else { Err("none".to_owned()) }).await;
        assert_eq!(fs::read(workspace.path("file")).expect("the file"), b"written");
        assert!(!workspace.path("file").is_symlink(), "the link is replaced, not followed");
        let left: Vec<_> =
            fs::read_dir(&outside).expect("the folder").map(|e| e.expect("an entry").file_name()).collect();
        assert_eq!(left, ["victim"]);
        assert_eq!(fs::read(outside.join("victim")).expect("the file"), b"untouched");
    });
}

#[test]
fn what_is_no_file_gives_way_to_one_and_is_never_waited_for() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        fs::create_dir(workspace.dir()).expect("a folder");
        rustix::fs::mkfifoat(rustix::fs::CWD, workspace.path("fifo"), Mode::from_raw_mode(0o666)).expect("a FIFO");
        let _socket = UnixListener::bind(workspace.path("socket")).expect("a socket");
        symlink("nowhere", workspace.path("dangling")).expect("a link");
        symlink("loop", workspace.path("loop")).expect("a link");
        let files = [("dangling", "1"), ("fifo", "1"), ("loop", "1"), ("socket", "1")];
        namespace.create(&config_map("routes", files)).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.in_sync().await;
        let kinds = files.map(|(path, _)| fs::symlink_metadata(workspace.path(path)).expect("the file").is_file());
        assert_eq!(kinds, [true; 4]);
        sidecar.holds(files).await;
    });
}

#[test]
fn a_folder_where_a_file_is_wanted_is_reported_and_hinders_nothing() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        workspace.write("blocked/foreign", "theirs");
        namespace.create(&config_map("routes", [("blocked", "1"), ("free", "1")])).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds([("blocked/foreign", "theirs"), ("free", "1")]).await;
        sidecar.says("blocked").await;
    });
}

#[test]
fn a_file_where_a_folder_is_wanted_is_reported_and_hinders_nothing() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let file = namespace.create(&config_map("file", [("a", "file")])).await;
        namespace.wait_to_be_younger_than(&file).await;
        namespace.create(&annotated(config_map("folder", [("b", "folder")]), FOLDER, "a")).await;
        namespace.create(&config_map("marker", [("marker", "")])).await;
        let launch = Launch::within(&namespace, &workspace).args(["--folder-annotation", FOLDER]);
        let sidecar = launch.start();
        sidecar.holds([("a", "file"), ("marker", "")]).await;
        sidecar.says("folder").await;
        namespace.delete(&file).await;
        sidecar.holds([("a/b", "folder"), ("marker", "")]).await;
    });
}

#[test]
fn files_have_the_modes_of_their_kind_whatever_the_umask() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let large = "x".repeat(100_000);
        namespace.create(&config_map("map", [("map", ""), ("large-map", large.as_str())])).await;
        namespace.create(&secret("secret", [("secret", b""), ("large-secret", large.as_bytes())])).await;
        for (umask, options, map, secret) in [
            ("000", &[][..], 0o644, 0o640),
            ("077", &[], 0o644, 0o640),
            ("022", &["--file-mode", "0666", "--secret-file-mode", "400"], 0o666, 0o400),
            ("022", &["--file-mode=600", "--secret-file-mode=0604"], 0o600, 0o604),
        ] {
            let workspace = Workspace::new();
            let launch = Launch::within(&namespace, &workspace).args(["--kinds", "configmaps,secrets"]);
            let launch = options.iter().fold(launch, |launch, option| launch.args([option]));
            let sidecar = launch.prelude(format!("umask {umask}")).start();
            sidecar.in_sync().await;
            let modes = ["map", "large-map", "secret", "large-secret"].map(|path| workspace.mode(path));
            assert_eq!(modes, [map, map, secret, secret], "with umask {umask} and {options:?}");
        }
        drop(workspace);
    });
}

#[test]
fn a_file_has_its_mode_from_the_first_moment_and_after_an_update() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&secret("secret", [("secret", b"1")])).await;
        let launch = Launch::within(&namespace, &workspace).args(["--kinds", "secrets", "--secret-file-mode", "0600"]);
        let sidecar = launch.start();
        sidecar.holds([("secret", "1")]).await;
        assert_eq!(workspace.mode("secret"), 0o600);
        let large = "2".repeat(100_000);
        namespace.replace(&secret("secret", [("secret", large.as_bytes())])).await;
        sidecar.holds([("secret", large.as_str())]).await;
        assert_eq!(workspace.mode("secret"), 0o600);
    });
}
