//! Objects come, change and go, and so do their files.

use crate::harness::account::{Account, least};
use crate::harness::cluster::ApiServer;
use crate::harness::link::{Link, State};
use crate::harness::namespace::Namespace;
use crate::harness::object::{config_map, secret};
use crate::harness::sidecar::Launch;
use crate::harness::wait::run;
use crate::harness::workspace::Workspace;

#[test]
fn harness_works() {
    run(async {
        let namespace = Namespace::new().await;
        let a = namespace.create(&config_map("a", [("x", "y")])).await;
        namespace.create(&secret("a", [("x", b"y")])).await;
        namespace.wait_to_be_younger_than(&a).await;
        let account = Account::new(&namespace, "sidecar").await;
        account.allow(&namespace, least(&["configmaps"])).await;
        let mut access = ApiServer::shared().access(&account.token().await);
        let link = Link::to(access.address, State::Up).await;
        access.address = link.address;
        let list = kube::Api::<k8s_openapi::api::core::v1::ConfigMap>::namespaced(access.client(), &namespace.name)
            .list(&Default::default())
            .await
            .unwrap();
        assert_eq!(list.items.len(), 1);
        eprintln!("{:?}", ApiServer::shared().audited());
        let workspace = Workspace::new();
        let ended = Launch::within(&namespace, &workspace)
            .mounting("mount -t tmpfs none /var/run; ls -la /var/run/ >&2")
            .run()
            .await;
        eprintln!("{ended:?}");
    });
}
