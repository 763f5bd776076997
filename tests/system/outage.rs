//! Servers that go, come back, say nothing, or are of another make: nothing is lost, and an error removes nothing.

use std::time::{Duration, Instant};

use tokio::sync::OnceCell;

use crate::harness::access::Access;
use crate::harness::cluster::{ApiServer, Cluster, Port};
use crate::harness::link::{Link, State};
use crate::harness::namespace::Namespace;
use crate::harness::object::{config_map, secret};
use crate::harness::sidecar::{Launch, Sidecar};
use crate::harness::updates::Updates;
use crate::harness::wait::{LONG_PATIENCE, run, until};
use crate::harness::witness::Witness;
use crate::harness::workspace::Workspace;

/// How long a silent server is waited for, with some time to start again.
const SILENCE: Duration = Duration::from_secs(90);

/// A way to the shared server that can be cut.
async fn link(state: State) -> (Link, Access) {
    let mut access = ApiServer::shared().admin_access();
    let link = Link::to(access.address, state).await;
    access.address = link.address;
    (link, access)
}

/// A server that refuses to stream initial lists, shared by the tests that want one.
pub async fn server_without_watch_lists() -> &'static ApiServer {
    static SERVER: OnceCell<ApiServer> = OnceCell::const_new();
    SERVER.get_or_init(|| Cluster::shared().api_server("pages", &["--feature-gates=WatchList=false"])).await
}

async fn connections(sidecar: &Sidecar<'_>, link: &Link, count: usize) {
    sidecar
        .until(&format!("{count} connections"), || match link.accepted() {
            accepted if accepted >= count => Ok(()),
            accepted => Err(format!("{accepted}")),
        })
        .await;
}

#[test]
fn a_server_stopped_and_started_between_two_changes_loses_none() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let server = Cluster::shared().api_server("stopped", &[]).await;
        namespace.create(&config_map("updated", [("updated", "1")])).await;
        let during = namespace.create(&config_map("deleted-during", [("deleted-during", "1")])).await;
        let after = namespace.create(&config_map("deleted-after", [("deleted-after", "1")])).await;
        let launch = Launch::new(&workspace).access(&server.admin_access()).args(["--namespace", &namespace.name]);
        let sidecar = launch.start();
        let before = [("deleted-after", "1"), ("deleted-during", "1"), ("updated", "1")];
        sidecar.holds(before).await;

        server.stop();
        // Through the other server, so that nobody can see it yet.
        namespace.delete(&during).await;
        namespace.replace(&config_map("updated", [("updated", "2")])).await;
        namespace.create(&config_map("created", [("created", "1")])).await;
        sidecar.says("configmaps").await;
        sidecar.holds(before).await;

        server.start().await;
        namespace.delete(&after).await;
        sidecar.holds([("created", "1"), ("updated", "2")]).await;
        namespace.replace(&config_map("updated", [("updated", "3")])).await;
        sidecar.holds([("created", "1"), ("updated", "3")]).await;
    });
}

/// The updates come through another server on the same etcd.
#[test]
fn a_server_killed_20_times_under_updates_loses_none_and_no_file_is_away_for_a_moment() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let server = Cluster::shared().api_server("killed", &[]).await;
        let updates = Updates::of(&namespace).await;
        let launch = Launch::new(&workspace).access(&server.admin_access()).args(["--namespace", &namespace.name]);
        let sidecar = launch.start();
        sidecar.in_sync().await;
        let mut witness = Witness::of(&workspace);
        for kill in 1..=20 {
            server.stop();
            server.start().await;
            // Half-way it has the time to catch up.
            if kill == 10 {
                namespace.create(&config_map("marker", [("marker", "")])).await;
                let is_there = || if sidecar.has("marker") { Ok(()) } else { Err("no marker".to_owned()) };
                sidecar.soon("an object that was made meanwhile", is_there).await;
            }
        }
        assert!(updates.end().await > 100);
        sidecar.holds_within(LONG_PATIENCE, &namespace.files().await).await;
        witness.saw_nothing_go();
        sidecar.terminate().await;
    });
}

#[test]
fn a_server_without_watch_lists_is_listed_in_pages() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let server = server_without_watch_lists().await;
        // More than two pages, and one object in three has values on disk.
        let large = "x".repeat(10_000);
        let names: Vec<String> = (0..250).map(|number| format!("{number:03}")).collect();
        let content = |name: &String| if name.ends_with(['0', '3', '6', '9']) { large.clone() } else { name.clone() };
        let objects: Vec<_> = names.iter().map(|name| config_map(name, [(name, &content(name))])).collect();
        namespace.create_all(&objects).await;
        let launch = Launch::new(&workspace).access(&server.admin_access()).args(["--namespace", &namespace.name]);
        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.holds(names.iter().map(|name| (name, content(name)))).await;

        // The watch goes on where the last page ended.
        namespace.delete_all(&objects[1..]).await;
        namespace.replace(&config_map(&names[0], [("updated", "1")])).await;
        sidecar.holds([("updated", "1")]).await;
        sidecar.terminate().await;
        namespace.delete(&objects[0]).await;
        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.holds_nothing().await;
    });
}

#[test]
fn the_worst_legal_object_arrives_in_a_page_too() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let server = server_without_watch_lists().await;
        let value = "<".repeat(1 << 20);
        let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
        for number in 0..3 {
            let name = format!("worst-{number}");
            namespace.create(&config_map(&name, [(&name, &value)])).await;
        }
        namespace.create(&secret("secret", [("secret", &bytes)])).await;
        let launch = Launch::new(&workspace).access(&server.admin_access()).args(["--namespace", &namespace.name]);
        let sidecar = launch.args(["--kinds", "configmaps,secrets"]).start();
        let value = value.as_bytes();
        sidecar.holds([("secret", &bytes[..]), ("worst-0", value), ("worst-1", value), ("worst-2", value)]).await;
    });
}

#[test]
fn a_cut_connection_is_made_anew_and_no_change_is_lost() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let (link, access) = link(State::Up).await;
        let gone = namespace.create(&config_map("gone", [("gone", "1")])).await;
        namespace.create(&config_map("updated", [("updated", "1")])).await;
        let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name]);
        let sidecar = launch.start();
        sidecar.holds([("gone", "1"), ("updated", "1")]).await;
        let kept = workspace.identity("updated");

        let before = link.accepted();
        link.set(State::Down);
        connections(&sidecar, &link, before + 2).await;
        sidecar.holds([("gone", "1"), ("updated", "1")]).await;
        namespace.delete(&gone).await;
        link.set(State::Up);
        sidecar.holds([("updated", "1")]).await;
        assert_eq!(workspace.identity("updated"), kept);
        namespace.replace(&config_map("updated", [("updated", "2")])).await;
        sidecar.holds([("updated", "2")]).await;
    });
}

#[test]
fn an_unreachable_server_is_one_line_and_is_tried_again_with_backoff() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        workspace.write("foreign", "theirs");
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let (link, access) = link(State::Down).await;
        let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name, "--prune", "all"]);
        let sidecar = launch.start();
        connections(&sidecar, &link, 4).await;
        let lines = sidecar.lines_with(&["configmaps", &namespace.name]);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("list") || lines[0].contains("watch"), "{lines:?}");
        sidecar.holds([("foreign", "theirs")]).await;
        link.set(State::Up);
        sidecar.holds([("a.yaml", "1")]).await;
    });
}

#[test]
fn a_server_that_nobody_runs_is_named_by_its_address() {
    run(async {
        let workspace = Workspace::new();
        let port = Port::reserve();
        let access = Access { address: port.address, ..ApiServer::shared().admin_access() };
        let sidecar = Launch::new(&workspace).access(&access).args(["--namespace", "nowhere"]).start();
        let line = sidecar.says(&port.address.to_string()).await;
        assert!(line.contains("configmaps") && line.contains("nowhere"), "{line}");
        sidecar.terminate().await;
    });
}

#[test]
fn a_server_that_says_nothing_is_given_up_and_asked_again() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let (link, access) = link(State::Frozen).await;
        let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name]);
        let sidecar = launch.start();
        until(
            SILENCE,
            "a second attempt",
            async || {
                if link.accepted() >= 2 { Ok(()) } else { Err("it waits".to_owned()) }
            },
        )
        .await;
        assert_eq!(sidecar.lines_with(&["configmaps", &namespace.name]).len(), 1);
        link.set(State::Up);
        sidecar.holds([("a.yaml", "1")]).await;
    });
}

/// Packets are dropped on the way, so that not even an end of the connection arrives.
#[test]
fn a_connection_that_falls_silent_is_noticed_within_30_s_and_caught_up_within_35_s() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let (link, access) = link(State::Up).await;
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        namespace.create(&secret("tls", [("tls.key", b"1")])).await;
        let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name]);
        let sidecar = launch.args(["--kinds", "configmaps,secrets"]).start();
        sidecar.holds([("a.yaml", "1"), ("tls.key", "1")]).await;
        let mut witness = Witness::of(&workspace);

        link.lose_connections();
        let (silent, before) = (Instant::now(), link.accepted());
        namespace.replace(&config_map("routes", [("a.yaml", "2")])).await;
        namespace.replace(&secret("tls", [("tls.key", b"2")])).await;
        connections(&sidecar, &link, before + 2).await;
        let noticed = silent.elapsed();
        sidecar.holds([("a.yaml", "2"), ("tls.key", "2")]).await;
        let caught_up = silent.elapsed();
        assert!(noticed < Duration::from_secs(30) && caught_up < Duration::from_secs(35), "{noticed:?}, {caught_up:?}");
        witness.saw_nothing_go();
    });
}

/// Whoever begins then gets no answer, and not even a refusal.
#[test]
fn a_network_that_loses_everything_for_a_while_costs_nothing() {
    run(async {
        let (namespace, running, late) = (Namespace::new().await, Workspace::new(), Workspace::new());
        let (link, access) = link(State::Up).await;
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let launch = |workspace| Launch::new(workspace).access(&access).args(["--namespace", &namespace.name]);
        let sidecar = launch(&running).start();
        sidecar.holds([("a.yaml", "1")]).await;
        let mut witness = Witness::of(&running);
        link.set(State::Silent);
        namespace.replace(&config_map("routes", [("a.yaml", "2")])).await;
        let sidecar_to_come = launch(&late).start();
        for sidecar in [&sidecar_to_come, &sidecar] {
            sidecar.says("configmaps").await;
        }
        sidecar.holds([("a.yaml", "1")]).await;
        link.set(State::Up);
        for sidecar in [&sidecar_to_come, &sidecar] {
            sidecar.soon_holds([("a.yaml", "2")]).await;
        }
        witness.saw_nothing_go();
    });
}

/// Half of the streamed list has arrived when the connection is cut.
#[test]
fn a_half_read_list_removes_nothing() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let names: Vec<String> = (0..8).map(|number| format!("large-{number}")).collect();
        let large = "x".repeat(1 << 20);
        let objects: Vec<_> = names.iter().map(|name| config_map(name, [(name, &large)])).collect();
        namespace.create_all(&objects).await;
        let launch = |access: &Access| Launch::new(&workspace).access(access).args(["--namespace", &namespace.name]);
        let sidecar = launch(&ApiServer::shared().admin_access()).start();
        let files = || names.iter().map(|name| (name, &large));
        sidecar.in_sync().await;
        sidecar.holds(files()).await;
        sidecar.terminate().await;

        let (link, access) = link(State::Up).await;
        link.cut_after(3 << 20);
        let sidecar = launch(&access).args(["--prune", "all"]).start();
        connections(&sidecar, &link, 3).await;
        sidecar.holds(files()).await;
        assert_eq!(sidecar.lines_with(&["in sync"]), [""; 0]);
        link.cut_after(u64::MAX);
        sidecar.in_sync().await;
        sidecar.holds(files()).await;
    });
}
