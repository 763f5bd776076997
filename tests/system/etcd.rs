//! What the API server stores its objects in stops for a while, or forgets: the server's word is wrong for nobody.

use std::time::Duration;

use crate::harness::cluster::Cluster;
use crate::harness::link::{Link, State};
use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::sidecar::Launch;
use crate::harness::updates::Updates;
use crate::harness::wait::{LONG_PATIENCE, lasting, run};
use crate::harness::witness::Witness;
use crate::harness::workspace::Workspace;

#[test]
fn while_etcd_stands_still_for_half_a_minute_nothing_is_removed_and_then_all_is_caught_up() {
    run(async {
        let cluster = Cluster::start();
        let server = cluster.api_server("frozen", &[]).await;
        let (namespace, running, late) = (Namespace::on(&server).await, Workspace::new(), Workspace::new());
        let gone = namespace.create(&config_map("gone", [("gone", "1")])).await;
        namespace.create(&config_map("kept", [("kept", "1")])).await;
        let mut access = server.admin_access();
        let link = Link::to(access.address, State::Up).await;
        access.address = link.address;
        let launch = |workspace| Launch::new(workspace).access(&access).args(["--namespace", &namespace.name]);
        let sidecar = launch(&running).start();
        let sidecar_to_come = launch(&late).start();
        for sidecar in [&sidecar, &sidecar_to_come] {
            sidecar.holds([("gone", "1"), ("kept", "1")]).await;
        }
        sidecar_to_come.terminate().await;
        namespace.delete(&gone).await;
        sidecar.holds([("kept", "1")]).await;

        let updates = Updates::of(&namespace).await;
        let (mut witness, mut late_witness) = (Witness::of(&running), Witness::of(&late));
        cluster.etcd.freeze();
        link.cut();
        let sidecar_to_come = launch(&late).args(["--prune", "all"]).start();
        lasting(Duration::from_secs(30)).await;
        late_witness.saw_nothing_go();
        assert_eq!(sidecar_to_come.lines_with(&["in sync"]), [""; 0]);
        cluster.etcd.thaw();

        assert!(updates.end().await > 0);
        let files = namespace.files().await;
        sidecar.holds_within(LONG_PATIENCE, &files).await;
        witness.saw_nothing_go();
        sidecar_to_come.holds_within(LONG_PATIENCE, &files).await;
        assert_eq!(late_witness.removed(), ["gone"]);
    });
}

/// Of a server that has no memory of its own, so that what etcd has forgotten it answers with 410.
#[test]
fn a_history_that_was_compacted_while_the_connection_was_cut_costs_nothing() {
    run(async {
        let cluster = Cluster::start();
        let server = cluster.api_server("forgetful", &["--watch-cache=false"]).await;
        let (namespace, workspace) = (Namespace::on(&server).await, Workspace::new());
        let gone = namespace.create(&config_map("gone", [("gone", "1")])).await;
        namespace.create(&config_map("kept", [("kept", "1")])).await;
        namespace.create(&config_map("updated", [("updated", "1")])).await;
        let mut access = server.admin_access();
        let link = Link::to(access.address, State::Up).await;
        access.address = link.address;
        let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name]);
        let sidecar = launch.args(["--log-level", "debug"]).start();
        sidecar.in_sync().await;
        let mut witness = Witness::of(&workspace);

        link.set(State::Down);
        namespace.delete(&gone).await;
        namespace.replace(&config_map("updated", [("updated", "2")])).await;
        namespace.create(&config_map("created", [("created", "1")])).await;
        cluster.etcd.compact().await;
        sidecar.says("cannot watch").await;
        witness.saw_nothing_go();
        link.set(State::Up);
        sidecar.says("410").await;
        sidecar.holds([("created", "1"), ("kept", "1"), ("updated", "2")]).await;
        assert_eq!(witness.removed(), ["gone"]);
        namespace.replace(&config_map("updated", [("updated", "3")])).await;
        sidecar.holds([("created", "1"), ("kept", "1"), ("updated", "3")]).await;
    });
}
