//! More objects and more namespaces than anybody has.

use crate::harness::cluster::ApiServer;
use crate::harness::link::{Link, State};
use crate::harness::namespace::Namespace;
use crate::harness::object::{config_map, secret};
use crate::harness::sidecar::Launch;
use crate::harness::wait::run;
use crate::harness::witness::Witness;
use crate::harness::workspace::Workspace;

/// The most that a sidecar without optimization may ever have resident, in KiB.
const PEAK_KIB_MAX: u64 = 64 * 1024;

#[test]
fn ten_thousand_objects_are_listed_followed_and_found_again_after_a_restart() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let names: Vec<String> = (0..10_000).map(|number| format!("object-{number:05}")).collect();
        let objects: Vec<_> = names.iter().map(|name| config_map(name, [(name, name)])).collect();
        namespace.create_all(&objects).await;
        let launch = Launch::within(&namespace, &workspace);
        let sidecar = launch.start();
        sidecar.soon_in_sync().await;
        sidecar.soon_holds(names.iter().map(|name| (name, name))).await;
        let mut witness = Witness::of(&workspace);
        let untouched = workspace.identity(&names[1]);
        namespace.replace(&config_map(&names[0], [(&names[0], "new")])).await;
        namespace.delete(&objects[9_999]).await;
        let now = || names[..9_999].iter().map(|name| (name, if name == &names[0] { "new" } else { name.as_str() }));
        sidecar.holds(now()).await;
        assert_eq!(witness.removed(), [names[9_999].as_str()]);
        let peak_kib = sidecar.usage().peak_kib;
        sidecar.terminate().await;

        let sidecar = launch.start();
        sidecar.soon_in_sync().await;
        sidecar.holds(now()).await;
        witness.saw_nothing_go();
        assert_eq!(workspace.identity(&names[1]), untouched);
        let peaks_kib = [peak_kib, sidecar.usage().peak_kib];
        assert!(peaks_kib.iter().all(|kib| *kib < PEAK_KIB_MAX), "{peaks_kib:?} KiB");
    });
}

#[test]
fn fifty_namespaces_of_both_kinds_are_followed_and_come_back_together() {
    run(async {
        let workspace = Workspace::new();
        let mut namespaces = Vec::new();
        for _ in 0..50 {
            namespaces.push(Namespace::new().await);
        }
        let mut access = ApiServer::shared().admin_access();
        let link = Link::to(access.address, State::Up).await;
        access.address = link.address;
        let names: Vec<&str> = namespaces.iter().map(|namespace| namespace.name.as_str()).collect();
        let files = |value: &'static str| {
            names.iter().flat_map(move |name| ["map", "secret"].map(|kind| (format!("{kind}-{name}"), value)))
        };
        for namespace in &namespaces {
            let name = &namespace.name;
            namespace.create(&config_map("map", [(&format!("map-{name}"), "1")])).await;
            namespace.create(&secret("secret", [(&format!("secret-{name}"), b"1")])).await;
        }
        let launch = Launch::new(&workspace).access(&access).args(["--namespace", &names.join(",")]);
        let sidecar = launch.args(["--kinds", "configmaps,secrets"]).start();
        sidecar.soon_in_sync().await;
        sidecar.holds(files("1")).await;
        let (mut witness, before) = (Witness::of(&workspace), link.accepted());
        assert_eq!(before, 2 * names.len(), "a connection for each kind in each namespace");
        link.cut();
        for namespace in &namespaces {
            let name = &namespace.name;
            namespace.replace(&config_map("map", [(&format!("map-{name}"), "2")])).await;
            namespace.replace(&secret("secret", [(&format!("secret-{name}"), b"2")])).await;
        }
        sidecar.soon_holds(files("2")).await;
        witness.saw_nothing_go();
        let again = link.accepted() - before;
        assert!(again <= 3 * names.len(), "{again} connections were made");
        let peak_kib = sidecar.usage().peak_kib;
        assert!(peak_kib < PEAK_KIB_MAX, "{peak_kib} KiB");
        sidecar.terminate().await;
    });
}
