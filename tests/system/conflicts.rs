//! Two objects that claim one path: the older wins, then kind, namespace and name decide; nothing flaps.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;

use crate::harness::namespace::{Item, Namespace};
use crate::harness::object::{config_map, labelled, secret};
use crate::harness::sidecar::{Launch, Sidecar};
use crate::harness::wait::run;
use crate::harness::workspace::Workspace;

/// Waits until everything that was done before in the namespace has been seen by a sidecar that follows ConfigMaps.
async fn settle(namespace: &Namespace, sidecar: &Sidecar<'_>, name: &str) {
    let marker = namespace.create(&config_map(name, [(name, "")])).await;
    sidecar.until("the marker", || sidecar.has(name).then_some(()).ok_or_else(|| "no marker".to_owned())).await;
    namespace.delete(&marker).await;
    sidecar.until("no marker", || (!sidecar.has(name)).then_some(()).ok_or_else(|| "a marker".to_owned())).await;
}

/// Creates both, the second after the first, within one second of the server's clock.
async fn create_in_one_second<A: Item, B: Item>(first: (&Namespace, &A), second: (&Namespace, &B)) {
    loop {
        let one = first.0.create(first.1).await;
        let two = second.0.create(second.1).await;
        if one.creation_timestamp() == two.creation_timestamp() {
            return;
        }
        first.0.delete(&one).await;
        second.0.delete(&two).await;
    }
}

#[test]
fn the_older_object_wins_whatever_its_name() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let launch = Launch::within(&namespace, &workspace);
        let sidecar = launch.start();
        let older = namespace.create(&config_map("z-older", [("a.yaml", "older")])).await;
        sidecar.holds([("a.yaml", "older")]).await;
        let written = workspace.identity("a.yaml");
        namespace.wait_to_be_younger_than(&older).await;
        namespace.create(&config_map("a-younger", [("a.yaml", "younger"), ("b.yaml", "younger")])).await;
        sidecar.holds([("a.yaml", "older"), ("b.yaml", "younger")]).await;
        assert_eq!(workspace.identity("a.yaml"), written, "the winner's file is left alone");
        sidecar.terminate().await;
        // The list has the younger one first.
        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.holds([("a.yaml", "older"), ("b.yaml", "younger")]).await;
        assert_eq!(workspace.identity("a.yaml"), written, "nothing flaps at a restart");
    });
}

#[test]
fn a_conflict_is_logged_once_with_the_path_the_winner_and_the_loser() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let sidecar = Launch::within(&namespace, &workspace).start();
        let older = namespace.create(&config_map("winner", [("a.yaml", "winner")])).await;
        namespace.wait_to_be_younger_than(&older).await;
        namespace.create(&config_map("loser", [("a.yaml", "loser")])).await;
        sidecar
            .until("a line about the conflict", || {
                let lines = sidecar.lines_with(&["a.yaml", "winner", "loser"]);
                if lines.is_empty() { Err("none".to_owned()) } else { Ok(()) }
            })
            .await;
        namespace.replace(&config_map("loser", [("a.yaml", "still a loser")])).await;
        settle(&namespace, &sidecar, "marker").await;
        let lines = sidecar.lines_with(&["a.yaml", "winner", "loser"]);
        assert_eq!(lines.len(), 1, "{lines:?}");
    });
}

#[test]
fn of_two_equally_old_objects_the_first_name_wins() {
    run(async {
        for [first, second] in [["a", "z"], ["z", "a"]] {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let launch = Launch::within(&namespace, &workspace);
            let sidecar = launch.start();
            sidecar.in_sync().await;
            let [one, two] = [first, second].map(|name| config_map(name, [("path", name)]));
            create_in_one_second((&namespace, &one), (&namespace, &two)).await;
            settle(&namespace, &sidecar, "marker").await;
            sidecar.holds([("path", "a")]).await;
            sidecar.terminate().await;
            let sidecar = launch.start();
            sidecar.in_sync().await;
            sidecar.holds([("path", "a")]).await;
        }
    });
}

#[test]
fn of_two_equally_old_objects_the_config_map_wins_before_the_secret() {
    run(async {
        for secret_first in [false, true] {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let config_map = config_map("z", [("path", "config map")]);
            let secret = secret("a", [("path", b"secret"), ("only-secret", b"")]);
            let here = &namespace;
            if secret_first {
                create_in_one_second((here, &secret), (here, &config_map)).await;
            } else {
                create_in_one_second((here, &config_map), (here, &secret)).await;
            }
            let launch = Launch::within(&namespace, &workspace).args(["--kinds", "configmaps,secrets"]);
            let sidecar = launch.start();
            sidecar.in_sync().await;
            sidecar.holds([("only-secret", ""), ("path", "config map")]).await;
            namespace.delete(&config_map).await;
            sidecar.holds([("only-secret", ""), ("path", "secret")]).await;
        }
    });
}

#[test]
fn of_two_equally_old_objects_the_first_namespace_wins_before_the_name() {
    run(async {
        let (first, second, workspace) = (Namespace::new().await, Namespace::new().await, Workspace::new());
        assert!(first.name < second.name);
        let (z, a) = (config_map("z", [("path", "first")]), config_map("a", [("path", "second")]));
        create_in_one_second((&second, &a), (&first, &z)).await;
        let sidecar = Launch::within(&first, &workspace).args(["--namespace", &second.name]).start();
        sidecar.in_sync().await;
        sidecar.holds([("path", "first")]).await;
        first.delete(&z).await;
        sidecar.holds([("path", "second")]).await;
    });
}

#[test]
fn an_older_kind_or_namespace_wins_by_its_age() {
    run(async {
        let (first, second, workspace) = (Namespace::new().await, Namespace::new().await, Workspace::new());
        let older = second.create(&secret("z", [("path", b"older")])).await;
        second.wait_to_be_younger_than(&older).await;
        first.create(&config_map("a", [("path", "younger"), ("other", "")])).await;
        let launch = Launch::within(&first, &workspace).args(["--namespace", &second.name]);
        let sidecar = launch.args(["--kinds", "configmaps,secrets"]).start();
        sidecar.in_sync().await;
        sidecar.holds([("other", ""), ("path", "older")]).await;
    });
}

/// Three claimants of a path, for each order in which they can go.
#[test]
fn the_oldest_that_is_left_has_the_path_in_every_order_of_deletion() {
    const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    /// Large enough to be on disk while it waits, and different for every age.
    fn content(age: usize) -> String {
        age.to_string().repeat(if age == 1 { 10_000 } else { 1 })
    }
    /// The younger, the earlier in the alphabet.
    fn object(order: usize, age: usize) -> ConfigMap {
        config_map(&format!("{}-{order}", ["c", "b", "a"][age]), [(&format!("path-{order}"), &content(age))])
    }

    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let sidecar = Launch::within(&namespace, &workspace).start();
        for age in 0..3 {
            let mut last = None;
            for order in 0..ORDERS.len() {
                last = Some(namespace.create(&object(order, age)).await);
            }
            namespace.wait_to_be_younger_than(&last.expect("orders")).await;
        }
        sidecar.holds((0..ORDERS.len()).map(|order| (format!("path-{order}"), content(0)))).await;

        for deleted in 1..=3 {
            for (order, ages) in ORDERS.iter().enumerate() {
                namespace.delete(&object(order, ages[deleted - 1])).await;
            }
            let left = ORDERS.iter().enumerate().filter_map(|(order, ages)| {
                let oldest = ages[deleted..].iter().min()?;
                Some((format!("path-{order}"), content(*oldest)))
            });
            sidecar.holds(left).await;
        }
    });
}

#[test]
fn the_loser_takes_over_when_the_winner_loses_the_key_or_leaves_the_selector() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let winner = config_map("winner", [("key", "winner"), ("label", "winner")]);
        let older = namespace.create(&winner).await;
        namespace.wait_to_be_younger_than(&older).await;
        let large = "loser".repeat(10_000);
        namespace.create(&config_map("loser", [("key", "loser"), ("label", large.as_str())])).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.in_sync().await;
        sidecar.holds([("key", "winner"), ("label", "winner")]).await;
        namespace.replace(&config_map("winner", [("label", "winner")])).await;
        sidecar.holds([("key", "loser"), ("label", "winner")]).await;
        namespace.replace(&labelled(winner.clone(), [])).await;
        sidecar.holds([("key", "loser"), ("label", large.as_str())]).await;
        // Back again, it is as old as it was.
        namespace.replace(&winner).await;
        sidecar.holds([("key", "winner"), ("label", "winner")]).await;
    });
}

#[test]
fn the_loser_takes_over_with_its_latest_content() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let winner = namespace.create(&config_map("winner", [("path", "winner")])).await;
        namespace.wait_to_be_younger_than(&winner).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        namespace.create(&config_map("loser", [("path", "stale")])).await;
        settle(&namespace, &sidecar, "marker-1").await;
        namespace.replace(&config_map("loser", [("path", "latest")])).await;
        settle(&namespace, &sidecar, "marker-2").await;
        sidecar.holds([("path", "winner")]).await;
        namespace.delete(&winner).await;
        sidecar.holds([("path", "latest")]).await;
    });
}

#[test]
fn a_winner_made_anew_is_young_and_loses() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let sidecar = Launch::within(&namespace, &workspace).start();
        let winner = namespace.create(&config_map("a", [("path", "a")])).await;
        namespace.wait_to_be_younger_than(&winner).await;
        let loser = namespace.create(&config_map("b", [("path", "b")])).await;
        namespace.wait_to_be_younger_than(&loser).await;
        namespace.delete(&winner).await;
        sidecar.holds([("path", "b")]).await;
        namespace.create(&config_map("a", [("path", "a")])).await;
        settle(&namespace, &sidecar, "marker").await;
        sidecar.holds([("path", "b")]).await;
    });
}

#[test]
fn a_loser_that_goes_leaves_the_file_alone() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let sidecar = Launch::within(&namespace, &workspace).start();
        let winner = namespace.create(&config_map("winner", [("path", "same")])).await;
        namespace.wait_to_be_younger_than(&winner).await;
        let loser = namespace.create(&config_map("loser", [("path", "same")])).await;
        settle(&namespace, &sidecar, "marker-1").await;
        let before = workspace.identity("path");
        namespace.delete(&loser).await;
        settle(&namespace, &sidecar, "marker-2").await;
        sidecar.holds([("path", "same")]).await;
        assert_eq!(workspace.identity("path"), before);
    });
}

/// A winner that went while nobody looked, with the loser's content known to nobody.
#[test]
fn the_loser_takes_over_at_a_restart() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let winner = namespace.create(&config_map("winner", [("path", "winner")])).await;
        namespace.wait_to_be_younger_than(&winner).await;
        namespace.create(&config_map("loser", [("path", "loser")])).await;
        let launch = Launch::within(&namespace, &workspace);
        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.holds([("path", "winner")]).await;
        sidecar.terminate().await;
        namespace.delete(&winner).await;
        launch.start().holds([("path", "loser")]).await;
    });
}
