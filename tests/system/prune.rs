//! What is removed: what configbump wrote, everything, or nothing.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::namespace::Namespace;
use crate::harness::object::{annotated, config_map};
use crate::harness::sidecar::{Launch, Sidecar, WAYS};
use crate::harness::wait::run;
use crate::harness::workspace::Workspace;

#[test]
fn files_of_others_are_left_alone() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        workspace.write("foreign", "theirs");
        workspace.write("sub/foreign", "theirs");
        fs::create_dir(workspace.path("empty")).expect("a folder");
        symlink("foreign", workspace.path("link")).expect("a link");
        let routes = namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let launch = Launch::within(&namespace, &workspace);
        let sidecar = launch.start();
        let theirs = [("foreign", "theirs"), ("link", "theirs"), ("sub/foreign", "theirs")];
        sidecar.holds(theirs.into_iter().chain([("a.yaml", "1")])).await;
        workspace.write("later", "theirs");
        namespace.delete(&routes).await;
        let theirs = [("foreign", "theirs"), ("later", "theirs"), ("link", "theirs"), ("sub/foreign", "theirs")];
        sidecar.holds(theirs).await;
        sidecar.terminate().await;

        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.holds(theirs).await;
        assert!(workspace.path("link").is_symlink() && workspace.path("empty").is_dir());
    });
}

#[test]
fn orphans_of_a_time_when_it_was_away_are_removed_and_files_of_others_are_not() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let gone = namespace.create(&config_map("gone", [("a.yaml", "1"), ("b.yaml", "2")])).await;
        namespace.create(&config_map("kept", [("c.yaml", "3"), ("d.yaml", "4")])).await;
        let launch = Launch::within(&namespace, &workspace).args(["--layout", "tree"]);
        let sidecar = launch.start();
        let path = |path: &str| format!("{}/{path}", namespace.name);
        sidecar.in_sync().await;
        sidecar
            .holds(
                ["gone/a.yaml", "gone/b.yaml", "kept/c.yaml", "kept/d.yaml"]
                    .map(path)
                    .into_iter()
                    .zip(["1", "2", "3", "4"]),
            )
            .await;
        sidecar.kill();

        namespace.delete(&gone).await;
        namespace.replace(&config_map("kept", [("c.yaml", "3")])).await;
        workspace.write(&path("gone/foreign"), "theirs");
        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.holds([(path("gone/foreign"), "theirs"), (path("kept/c.yaml"), "3")]).await;
    });
}

#[test]
fn a_selected_object_takes_the_place_of_a_foreign_file() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        workspace.write("a.yaml", "theirs");
        let routes = namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds([("a.yaml", "1")]).await;
        namespace.delete(&routes).await;
        sidecar.holds_nothing().await;
    });
}

#[test]
fn orphans_are_removed_by_a_run_with_another_layout_or_selector() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let launch = Launch::within(&namespace, &workspace);
        let sidecar = launch.start();
        sidecar.holds([("a.yaml", "1")]).await;
        sidecar.terminate().await;
        let sidecar = launch.clone().args(["--layout", "tree"]).start();
        sidecar.in_sync().await;
        sidecar.holds([(format!("{}/routes/a.yaml", namespace.name), "1")]).await;
        sidecar.terminate().await;
        let sidecar = launch.args(["--kinds", "secrets"]).start();
        sidecar.in_sync().await;
        sidecar.holds_nothing().await;
    });
}

#[test]
fn prune_all_removes_foreign_files_at_every_completed_list() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let outside = workspace.beside("outside");
        fs::write(&outside, "not in DIR").expect("a file");
        let litter = || {
            workspace.write("foreign", "theirs");
            workspace.write("sub/deep/foreign", "theirs");
            symlink(&outside, workspace.path("link")).expect("a link");
            symlink("/nowhere", workspace.path("dangling")).expect("a link");
        };
        litter();
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let launch = Launch::within(&namespace, &workspace).args(["--prune", "all"]);
        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.holds([("a.yaml", "1")]).await;
        assert!(!workspace.path("link").is_symlink() && !workspace.path("dangling").is_symlink());
        sidecar.terminate().await;
        litter();
        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.holds([("a.yaml", "1")]).await;
        assert_eq!(
            workspace.identity("a.yaml").0,
            fs::metadata(workspace.path("a.yaml")).map(|m| std::os::unix::fs::MetadataExt::ino(&m)).expect("the file")
        );
        assert!(outside.is_file() && workspace.path(".configbump").is_dir());
    });
}

#[test]
fn prune_all_follows_objects_as_the_default_does() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let sidecar = Launch::within(&namespace, &workspace).args(["--prune", "all"]).start();
        sidecar.in_sync().await;
        let routes = namespace.create(&config_map("routes", [("a.yaml", "1"), ("b.yaml", "2")])).await;
        sidecar.holds([("a.yaml", "1"), ("b.yaml", "2")]).await;
        namespace.replace(&config_map("routes", [("b.yaml", "2")])).await;
        sidecar.holds([("b.yaml", "2")]).await;
        namespace.delete(&routes).await;
        sidecar.holds_nothing().await;
    });
}

#[test]
fn prune_never_removes_nothing() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        workspace.write("foreign", "theirs");
        let gone = namespace.create(&config_map("gone", [("a.yaml", "1")])).await;
        namespace.create(&config_map("kept", [("b.yaml", "1"), ("c.yaml", "1")])).await;
        let launch = Launch::within(&namespace, &workspace).args(["--prune", "never"]);
        let sidecar = launch.start();
        sidecar.holds([("a.yaml", "1"), ("b.yaml", "1"), ("c.yaml", "1"), ("foreign", "theirs")]).await;
        namespace.delete(&gone).await;
        namespace.replace(&config_map("kept", [("c.yaml", "2")])).await;
        let files = [("a.yaml", "1"), ("b.yaml", "1"), ("c.yaml", "2"), ("foreign", "theirs")];
        sidecar.holds(files).await;
        sidecar.terminate().await;
        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.holds(files).await;
    });
}

/// What notes each bump, beside DIR.
fn bumping<'w>(launch: Launch<'w>, settle: &str) -> Launch<'w> {
    let script = launch.workspace().beside("hook");
    let text = format!("echo bump >>'{}'\n", launch.workspace().beside("bumps").display());
    fs::write(&script, text).expect("a file");
    let exec = format!("sh '{}'", script.display());
    launch.args(["--exec", &exec, "--settle", settle, "--settle-max", settle])
}

fn bumps(workspace: &Workspace) -> usize {
    fs::read_to_string(workspace.beside("bumps")).unwrap_or_default().lines().count()
}

async fn is_bumped(sidecar: &Sidecar<'_>, workspace: &Workspace, times: usize) {
    sidecar
        .until(&format!("bump {times}"), || match bumps(workspace) {
            count if count == times => Ok(()),
            count => Err(format!("{count} bumps")),
        })
        .await;
}

#[test]
fn a_kill_after_the_removal_of_foreign_files_loses_no_bump() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let launch = Launch::within(&namespace, &workspace).args(["--prune", "all"]);
        // There is no object, so nothing else is there to be told.
        workspace.write("foreign", "theirs");
        let sidecar = bumping(launch.clone(), "1h").start();
        sidecar.in_sync().await;
        sidecar.holds_nothing().await;
        sidecar.kill();
        assert_eq!(bumps(&workspace), 0);
        let sidecar = bumping(launch, "0").start();
        is_bumped(&sidecar, &workspace, 1).await;
    });
}

#[test]
fn what_a_killed_run_owes_is_bumped_even_if_a_first_sync_is_not_to_be() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let launch = Launch::within(&namespace, &workspace).args(["--initial-bump", "never"]);
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let sidecar = bumping(launch.clone(), "1h").start();
        sidecar.in_sync().await;
        namespace.replace(&config_map("routes", [("a", "2")])).await;
        sidecar.holds([("a", "2")]).await;
        sidecar.kill();
        assert_eq!(bumps(&workspace), 0);
        let sidecar = bumping(launch, "0").start();
        is_bumped(&sidecar, &workspace, 1).await;
    });
}

#[test]
fn while_a_path_of_the_first_sync_cannot_be_written_the_log_says_what_waits_for_it() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        workspace.write("taken/foreign", "theirs");
        namespace.create(&config_map("routes", [("a", "1"), ("taken", "1")])).await;
        let sidecar = bumping(Launch::within(&namespace, &workspace), "0").start();
        let line = sidecar.says("the first sync is not complete").await;
        assert!(line.contains("WARN") && line.contains("nobody is bumped"), "{line}");
        sidecar.holds([("a", "1"), ("taken/foreign", "theirs")]).await;
        assert_eq!(bumps(&workspace), 0);
        fs::rename(workspace.path("taken"), workspace.beside("moved")).expect("the folder can be moved away");
        is_bumped(&sidecar, &workspace, 1).await;
        sidecar.says_times("the first sync is not complete", 1).await;
    });
}

#[test]
fn never_keeps_files_until_a_winner_needs_their_path() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let folder = "example.com/folder";
            let old = [("one", [("a", "1")]), ("two", [("b", "1")])];
            let old = old.map(|(name, data)| annotated(config_map(name, data), folder, "f"));
            namespace.create(&old[0]).await;
            let last = namespace.create(&old[1]).await;
            namespace.wait_to_be_younger_than(&last).await;
            namespace.create(&config_map("young", [("f", "1")])).await;
            let launch = Launch::within(&namespace, &workspace).args(["--publish", way, "--prune", "never"]);
            let sidecar = launch.args(["--folder-annotation", folder]).start();
            sidecar.says("waits for it").await;
            sidecar.holds([("f/a", "1"), ("f/b", "1")]).await;
            namespace.delete(&old[0]).await;
            namespace.create(&config_map("new", [("new", "1")])).await;
            sidecar.holds([("f/a", "1"), ("f/b", "1"), ("new", "1")]).await;
            namespace.delete(&old[1]).await;
            sidecar.holds([("f", "1"), ("new", "1")]).await;
        });
    }
}
