//! Objects come, change and go, and so do their files.

use std::fs;

use crate::harness::namespace::Namespace;
use crate::harness::object::{annotated, config_map, labelled, secret};
use crate::harness::sidecar::Launch;
use crate::harness::wait::run;
use crate::harness::workspace::Workspace;

#[test]
fn an_object_that_is_there_at_the_start_gets_its_files() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1"), ("b.yaml", "2")])).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds([("a.yaml", "1"), ("b.yaml", "2")]).await;
        sidecar.in_sync().await;
        sidecar.terminate().await;
    });
}

#[test]
fn an_object_created_while_it_runs_gets_its_files() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.in_sync().await;
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        sidecar.holds([("a.yaml", "1")]).await;
        namespace.create(&config_map("more", [("b.yaml", "2")])).await;
        sidecar.holds([("a.yaml", "1"), ("b.yaml", "2")]).await;
    });
}

#[test]
fn an_update_replaces_the_content_and_is_logged_with_its_path() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1"), ("b.yaml", "same")])).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.in_sync().await;
        sidecar.holds([("a.yaml", "1"), ("b.yaml", "same")]).await;
        let untouched = workspace.identity("b.yaml");
        namespace.replace(&config_map("routes", [("a.yaml", "2"), ("b.yaml", "same")])).await;
        sidecar.holds([("a.yaml", "2"), ("b.yaml", "same")]).await;
        sidecar.says("a.yaml").await;
        assert_eq!(workspace.identity("b.yaml"), untouched);
        assert_eq!(sidecar.lines_with(&["b.yaml"]), [""; 0]);
    });
}

#[test]
fn a_deleted_object_takes_its_files_along() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("kept", [("kept.yaml", "1")])).await;
        let routes = namespace.create(&config_map("routes", [("a.yaml", "1"), ("b.yaml", "2")])).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds([("a.yaml", "1"), ("b.yaml", "2"), ("kept.yaml", "1")]).await;
        namespace.delete(&routes).await;
        sidecar.holds([("kept.yaml", "1")]).await;
    });
}

#[test]
fn a_key_removed_from_its_object_takes_its_file_along() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1"), ("b.yaml", "2")])).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds([("a.yaml", "1"), ("b.yaml", "2")]).await;
        namespace.replace(&config_map("routes", [("b.yaml", "2")])).await;
        sidecar.holds([("b.yaml", "2")]).await;
        namespace.replace(&config_map("routes", [])).await;
        sidecar.holds_nothing().await;
    });
}

#[test]
fn an_object_that_leaves_the_selector_takes_its_files_along_and_brings_them_back() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let routes = config_map("routes", [("a.yaml", "1")]);
        namespace.create(&routes).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds([("a.yaml", "1")]).await;
        namespace.replace(&labelled(routes.clone(), [("app", "other")])).await;
        sidecar.holds_nothing().await;
        namespace.replace(&routes).await;
        sidecar.holds([("a.yaml", "1")]).await;
        namespace.replace(&labelled(routes, [])).await;
        sidecar.holds_nothing().await;
    });
}

#[test]
fn a_secret_becomes_files_like_a_config_map() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("not-followed", [("a.yaml", "1")])).await;
        let tls = namespace.create(&secret("tls", [("tls.crt", b"certificate"), ("tls.key", b"\xff\x00key")])).await;
        let sidecar = Launch::within(&namespace, &workspace).args(["--kinds", "secrets"]).start();
        sidecar.holds([("tls.crt", &b"certificate"[..]), ("tls.key", b"\xff\x00key")]).await;
        namespace.replace(&secret("tls", [("tls.crt", b"renewed"), ("tls.key", b"\xff\x00key")])).await;
        sidecar.holds([("tls.crt", &b"renewed"[..]), ("tls.key", b"\xff\x00key")]).await;
        namespace.delete(&tls).await;
        sidecar.holds_nothing().await;
        assert_eq!(sidecar.lines_with(&["renewed"]), [""; 0], "no value is ever logged");
    });
}

#[test]
fn an_object_that_is_deleted_and_made_anew_is_followed_again() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let sidecar = Launch::within(&namespace, &workspace).start();
        for content in ["1", "2", "3"] {
            let routes = namespace.create(&config_map("routes", [("a.yaml", content)])).await;
            sidecar.holds([("a.yaml", content)]).await;
            namespace.delete(&routes).await;
            sidecar.holds_nothing().await;
        }
    });
}

#[test]
fn an_update_that_changes_no_byte_writes_no_file() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let large = "x".repeat(100_000);
        let routes = config_map("routes", [("large", large.as_str()), ("small", "1")]);
        namespace.create(&routes).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds([("large", large.as_str()), ("small", "1")]).await;
        let before = ["large", "small"].map(|path| workspace.identity(path));
        namespace.replace(&annotated(routes, "note", "this is no content")).await;
        namespace.create(&config_map("marker", [("marker", "")])).await;
        sidecar.holds([("large", large.as_str()), ("marker", ""), ("small", "1")]).await;
        assert_eq!(["large", "small"].map(|path| workspace.identity(path)), before);
    });
}

#[test]
fn a_restart_writes_no_file_that_is_right_already() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let large = "x".repeat(100_000);
        let files = [("large", large.as_str()), ("small", "1")];
        namespace.create(&config_map("routes", files)).await;
        let launch = Launch::within(&namespace, &workspace);
        let sidecar = launch.start();
        sidecar.holds(files).await;
        sidecar.in_sync().await;
        let before = ["large", "small"].map(|path| workspace.identity(path));
        sidecar.terminate().await;

        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.terminate().await;
        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.kill();
        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.holds(files).await;
        assert_eq!(["large", "small"].map(|path| workspace.identity(path)), before);
    });
}

#[test]
fn a_file_that_somebody_changed_or_removed_is_restored_by_the_next_change_of_its_object() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let routes = config_map("routes", [("changed", "1"), ("removed", "2")]);
        namespace.create(&routes).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds([("changed", "1"), ("removed", "2")]).await;
        workspace.write("changed", "by hand");
        fs::remove_file(workspace.path("removed")).expect("the file is there");
        namespace.replace(&annotated(routes, "note", "touched")).await;
        sidecar.holds([("changed", "1"), ("removed", "2")]).await;
    });
}

#[test]
fn a_file_that_somebody_changed_or_removed_is_restored_by_a_restart() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("changed", "1"), ("removed", "2")])).await;
        let launch = Launch::within(&namespace, &workspace);
        let sidecar = launch.start();
        sidecar.holds([("changed", "1"), ("removed", "2")]).await;
        sidecar.terminate().await;
        workspace.write("changed", "by hand");
        fs::remove_file(workspace.path("removed")).expect("the file is there");
        launch.start().holds([("changed", "1"), ("removed", "2")]).await;
    });
}

#[test]
fn what_changed_while_it_was_away_is_on_disk_after_a_restart() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("updated", [("updated", "1"), ("key-removed", "1")])).await;
        let deleted = namespace.create(&config_map("deleted", [("deleted", "1")])).await;
        let launch = Launch::within(&namespace, &workspace);
        let sidecar = launch.start();
        sidecar.holds([("deleted", "1"), ("key-removed", "1"), ("updated", "1")]).await;
        sidecar.terminate().await;
        namespace.replace(&config_map("updated", [("updated", "2")])).await;
        namespace.delete(&deleted).await;
        namespace.create(&config_map("created", [("created", "1")])).await;
        launch.start().holds([("created", "1"), ("updated", "2")]).await;
    });
}
