//! `configbump k8s-sidecar`, with the environment that a chart sets for that tool, and nothing else.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use crate::harness::account::{Account, least};
use crate::harness::cluster::ApiServer;
use crate::harness::namespace::Namespace;
use crate::harness::object::{annotated, config_map, labelled, secret};
use crate::harness::pod::Pod;
use crate::harness::sidecar::Launch;
use crate::harness::wait::{PATIENCE, run, until};
use crate::harness::web::serve;
use crate::harness::workspace::Workspace;

const LABEL: [(&str, &str); 1] = [("grafana_dashboard", "1")];

#[test]
fn the_environment_of_a_chart_is_enough_and_does_what_its_users_expect() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let account = Account::new(&namespace, "grafana").await;
        account.allow(&namespace, least(&["configmaps", "secrets"])).await;
        let access = ApiServer::shared().access(&account.token().await);
        let calls = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&calls);
        let address = serve(SocketAddr::from(([127, 0, 0, 1], 0)), move |line| {
            heard.lock().expect("nobody panics with it").push(line.to_owned());
            200
        });
        let elsewhere = workspace.path("team").display().to_string();
        let board =
            labelled(config_map("board", [("board.json", "{}"), ("linked.json.url", "http://127.0.0.1:9/")]), LABEL);
        namespace.create(&board).await;
        let annotation = "k8s-sidecar-target-directory";
        namespace
            .create(&annotated(labelled(config_map("team", [("team.json", "1")]), LABEL), annotation, &elsewhere))
            .await;
        namespace.create(&labelled(secret("source", [("source.yaml", b"s")]), LABEL)).await;
        namespace.create(&config_map("other", [("other.json", "")])).await;

        let pod = Pod::new(&workspace, &namespace.name, &access);
        let environment = BTreeMap::from([
            ("LABEL", "grafana_dashboard".to_owned()),
            ("LABEL_VALUE", "1".to_owned()),
            ("FOLDER", workspace.dir().display().to_string()),
            ("RESOURCE", "both".to_owned()),
            ("METHOD", "WATCH".to_owned()),
            ("REQ_METHOD", "POST".to_owned()),
            ("REQ_URL", format!("http://{address}/api/admin/provisioning/dashboards/reload")),
        ]);
        let launch = pod.furnish(Launch::bare(&workspace).arg("k8s-sidecar"), &access);
        let launch = environment.into_iter().fold(launch, |launch, (name, value)| launch.environment(name, value));
        let sidecar = launch.start();
        let others = [("linked.json.url", "http://127.0.0.1:9/"), ("team/team.json", "1"), ("source.yaml", "s")];
        sidecar.holds(others.into_iter().chain([("board.json", "{}")])).await;
        assert_eq!(["board.json", "source.yaml"].map(|path| workspace.mode(path)), [0o644; 2]);
        sidecar.says(".url").await;
        let called = |times: usize| {
            let calls = &calls;
            until(PATIENCE, "calls", async move || match calls.lock().expect("nobody panics with it").clone() {
                lines if lines.len() >= times => Ok(lines),
                lines => Err(format!("{lines:?}")),
            })
        };
        let expected = "POST /api/admin/provisioning/dashboards/reload HTTP/1.1";
        let before = called(1).await;
        assert!(before.iter().all(|line| line == expected), "{before:?}");

        let changed = config_map("board", [("board.json", "{\"v\":2}"), ("linked.json.url", "http://127.0.0.1:9/")]);
        namespace.replace(&labelled(changed, LABEL)).await;
        sidecar.holds(others.into_iter().chain([("board.json", "{\"v\":2}")])).await;
        called(before.len() + 1).await;
        namespace.delete(&board).await;
        sidecar.holds([others[1], others[2]]).await;
        sidecar.terminate().await;
    });
}

#[test]
fn with_the_method_list_it_writes_once_and_ends() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let access = ApiServer::shared().admin_access();
        namespace.create(&labelled(config_map("board", [("board.json", "{}")]), LABEL)).await;
        let pod = Pod::new(&workspace, &namespace.name, &access);
        let launch = pod.furnish(Launch::bare(&workspace).arg("k8s-sidecar"), &access);
        let launch = launch.environment("LABEL", "grafana_dashboard").environment("METHOD", "LIST");
        let ended = launch.environment("FOLDER", workspace.dir()).run().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(workspace.files().paths(), ["board.json"]);
    });
}

#[test]
fn what_it_lacks_is_named_before_anything_is_done() {
    run(async {
        let workspace = Workspace::new();
        let ended = Launch::bare(&workspace).arg("k8s-sidecar").environment("LABEL", "a").run().await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("--dir is missing"), "{ended:?}");
    });
}
