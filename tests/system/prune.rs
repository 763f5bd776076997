//! What is removed: what configbump wrote, everything, or nothing.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::sidecar::Launch;
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
