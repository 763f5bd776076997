//! Who may read: service accounts with the least Role, in a pod and outside, and what happens when they may not.

use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::harness::access::Access;
use crate::harness::account::{Account, least, least_by_name};
use crate::harness::cluster::{ApiServer, Cluster};
use crate::harness::link::{Link, State};
use crate::harness::namespace::Namespace;
use crate::harness::object::{config_map, labelled, secret};
use crate::harness::pod::Pod;
use crate::harness::sidecar::{Launch, Sidecar};
use crate::harness::wait::{run, until};
use crate::harness::witness::Witness;
use crate::harness::workspace::Workspace;

/// The requests of an account that ended with this status code.
fn answered(server: &ApiServer, user: &str, code: u64) -> Vec<Value> {
    let ours = |request: &Value| {
        request["user"]["username"] == user
            && request["responseStatus"]["code"] == code
            && request["stage"] == "ResponseComplete"
    };
    server.audited().into_iter().filter(ours).collect()
}

/// Waits until an account was refused this often.
async fn refused(sidecar: &Sidecar<'_>, user: &str, times: usize) {
    sidecar
        .until(&format!("{user} to be refused {times} times"), || {
            match answered(ApiServer::shared(), user, 403).len() {
                count if count >= times => Ok(()),
                count => Err(format!("{count} times")),
            }
        })
        .await;
}

#[test]
fn in_a_pod_the_least_role_is_enough_and_the_namespace_is_the_pods_own() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let account = Account::new(&namespace, "sidecar").await;
        account.allow(&namespace, least(&["configmaps"])).await;
        let access = ApiServer::shared().access(&account.token().await);
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let sidecar = Pod::new(&workspace, &namespace.name, &access).launch(&access).start();
        sidecar.in_sync().await;
        sidecar.holds([("a.yaml", "1")]).await;
        namespace.replace(&config_map("routes", [("a.yaml", "2")])).await;
        sidecar.holds([("a.yaml", "2")]).await;
        sidecar.terminate().await;
        assert_eq!(answered(ApiServer::shared(), &account.user(), 403), [Value::Null; 0], "nothing else was asked for");
    });
}

/// Some write the files by hand, with a newline at the end.
#[test]
fn white_space_around_token_and_namespace_does_not_matter() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let account = Account::new(&namespace, "sidecar").await;
        account.allow(&namespace, least(&["configmaps"])).await;
        let access = ApiServer::shared().access(&account.token().await);
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let pod = Pod::new(&workspace, &namespace.name, &access);
        pod.put("namespace", &format!("{}\n", namespace.name));
        pod.put("token", &format!("{}\n", access.token));
        pod.launch(&access).start().holds([("a.yaml", "1")]).await;
    });
}

#[test]
fn the_least_cluster_role_is_enough_for_all_namespaces_and_both_kinds() {
    run(async {
        let (home, other, workspace) = (Namespace::new().await, Namespace::new().await, Workspace::new());
        let account = Account::new(&home, "sidecar").await;
        account.allow_everywhere(least(&["configmaps", "secrets"])).await;
        let access = ApiServer::shared().access(&account.token().await);
        let label = [("cluster-role", home.name.as_str())];
        home.create(&labelled(config_map("map", [("map", "1")]), label)).await;
        other.create(&labelled(secret("secret", [("secret", b"2")]), label)).await;
        let selector = format!("cluster-role={}", home.name);
        let launch = Launch::bare(&workspace).access(&access).arg("--dir").arg(workspace.dir());
        let launch = launch.args(["-A", "--kinds", "configmaps,secrets", "--labels", &selector]);
        launch.start().holds([("map", "1"), ("secret", "2")]).await;
    });
}

#[test]
fn a_role_for_some_names_is_enough_to_follow_these() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let account = Account::new(&namespace, "sidecar").await;
        account.allow(&namespace, least_by_name(&["configmaps"], &["one", "two"])).await;
        let access = ApiServer::shared().access(&account.token().await);
        namespace.create(&config_map("one", [("one", "1")])).await;
        namespace.create(&config_map("other", [("other", "")])).await;
        let launch = Launch::bare(&workspace).access(&access).arg("--dir").arg(workspace.dir());
        let sidecar = launch.args(["--namespace", &namespace.name, "--names", "one,two"]).start();
        sidecar.in_sync().await;
        sidecar.holds([("one", "1")]).await;
        let two = namespace.create(&config_map("two", [("two", "2")])).await;
        sidecar.holds([("one", "1"), ("two", "2")]).await;
        namespace.delete(&two).await;
        sidecar.holds([("one", "1")]).await;
    });
}

#[test]
fn a_missing_role_is_named_once_and_its_coming_is_noticed() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let account = Account::new(&namespace, "sidecar").await;
        let access = ApiServer::shared().access(&account.token().await);
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name]);
        let sidecar = launch.start();
        refused(&sidecar, &account.user(), 3).await;
        let lines = sidecar.lines_with(&["configmaps", &namespace.name]);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("watch") || lines[0].contains("list"), "{lines:?}");
        assert!(lines[0].contains("403") || lines[0].contains("forbidden"), "{lines:?}");
        account.allow(&namespace, least(&["configmaps"])).await;
        sidecar.holds([("a.yaml", "1")]).await;
        assert_eq!(sidecar.lines_with(&["403"]).len(), 1);
    });
}

/// One of two kinds is refused: the other one is followed, and nothing is removed for want of a complete picture.
#[test]
fn a_missing_rule_for_one_kind_does_not_stop_the_other() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let account = Account::new(&namespace, "sidecar").await;
        account.allow(&namespace, least(&["configmaps"])).await;
        let access = ApiServer::shared().access(&account.token().await);
        namespace.create(&config_map("map", [("map", "1")])).await;
        namespace.create(&secret("secret", [("secret", b"2")])).await;
        let launch = |access: &Access| {
            let launch = Launch::new(&workspace).access(access).args(["--namespace", &namespace.name]);
            launch.args(["--kinds", "configmaps,secrets"])
        };
        let sidecar = launch(&ApiServer::shared().admin_access()).start();
        sidecar.in_sync().await;
        sidecar.terminate().await;

        let sidecar = launch(&access).start();
        sidecar.says("secrets").await;
        namespace.replace(&config_map("map", [("map", "3")])).await;
        sidecar.holds([("map", "3"), ("secret", "2")]).await;
        namespace.delete(&config_map("map", [])).await;
        sidecar.holds([("secret", "2")]).await;
    });
}

#[test]
fn a_role_taken_away_removes_no_file() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let account = Account::new(&namespace, "sidecar").await;
        let access = ApiServer::shared().access(&account.token().await);
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds([("a.yaml", "1")]).await;
        sidecar.terminate().await;
        // The same directory, for one who may do nothing.
        let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name]);
        for prune in ["owned", "all"] {
            let before = answered(ApiServer::shared(), &account.user(), 403).len();
            let sidecar = launch.clone().args(["--prune", prune]).start();
            refused(&sidecar, &account.user(), before + 2).await;
            sidecar.holds([("a.yaml", "1")]).await;
            sidecar.terminate().await;
        }
    });
}

/// The server asks for the Role at each new request.
#[test]
fn a_role_taken_away_while_it_runs_is_named_and_noticed_when_it_is_given_back() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let account = Account::new(&namespace, "sidecar").await;
        account.allow(&namespace, least(&["configmaps"])).await;
        let mut access = ApiServer::shared().access(&account.token().await);
        let link = Link::to(access.address, State::Up).await;
        access.address = link.address;
        let gone = namespace.create(&config_map("gone", [("gone", "1")])).await;
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let sidecar = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name]).start();
        sidecar.holds([("a.yaml", "1"), ("gone", "1")]).await;
        let mut witness = Witness::of(&workspace);

        account.forbid(&namespace, &least(&["configmaps"])).await;
        link.cut();
        sidecar.says("403").await;
        namespace.delete(&gone).await;
        namespace.replace(&config_map("routes", [("a.yaml", "2")])).await;
        refused(&sidecar, &account.user(), 3).await;
        witness.saw_nothing_go();
        account.bind(&namespace, &least(&["configmaps"])).await;
        sidecar.soon_holds([("a.yaml", "2")]).await;
        assert_eq!((witness.removed(), sidecar.lines_with(&["403"]).len()), (vec!["gone".to_owned()], 1));
    });
}

#[test]
fn a_bad_token_is_named_once_and_a_good_one_is_picked_up() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let account = Account::new(&namespace, "sidecar").await;
        account.allow(&namespace, least(&["configmaps"])).await;
        let gone = Account::new(&namespace, "gone").await;
        let access = ApiServer::shared().access(&gone.token().await);
        gone.delete().await;
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let pod = Pod::new(&workspace, &namespace.name, &access);
        let sidecar = pod.launch(&access).start();
        sidecar.says("401").await;
        let path = format!("/api/v1/namespaces/{}/configmaps", namespace.name);
        sidecar
            .until("three refusals", || {
                let requests = ApiServer::shared().audited();
                let refused =
                    |request: &&Value| request["requestURI"].as_str().is_some_and(|uri| uri.starts_with(&path));
                let count = requests.iter().filter(refused).count();
                if count >= 3 { Ok(()) } else { Err(format!("{count}")) }
            })
            .await;
        let lines = sidecar.lines_with(&["configmaps", &namespace.name]);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("watch") || lines[0].contains("list"), "{lines:?}");
        pod.put("token", &account.token().await);
        sidecar.holds([("a.yaml", "1")]).await;
    });
}

/// As kubelet replaces tokens: the old one is refused from the next connection on.
#[test]
fn a_token_replaced_on_disk_is_used_from_then_on() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let server = Cluster::shared().api_server("rotation", &[]).await;
        let (old, new) = (Account::new(&namespace, "old").await, Account::new(&namespace, "new").await);
        old.allow(&namespace, least(&["configmaps"])).await;
        new.allow(&namespace, least(&["configmaps"])).await;
        let access = server.access(&old.token().await);
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let pod = Pod::new(&workspace, &namespace.name, &access);
        let sidecar = pod.launch(&access).start();
        sidecar.holds([("a.yaml", "1")]).await;

        pod.put("token", &new.token().await);
        old.delete().await;
        server.stop();
        server.start().await;
        namespace.replace(&config_map("routes", [("a.yaml", "2")])).await;
        // A token may be remembered for a minute.
        until(Duration::from_secs(90), "the update", async || {
            let content = fs::read(workspace.path("a.yaml"));
            if content.is_ok_and(|content| content == b"2") { Ok(()) } else { Err("the old content".to_owned()) }
        })
        .await;
        sidecar.holds([("a.yaml", "2")]).await;
    });
}

#[test]
fn the_servers_certificate_is_verified_unless_that_is_turned_off() {
    run(async {
        let namespace = Namespace::new().await;
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let trusted = ApiServer::shared().admin_access();
        let untrusted = Access { authority: None, ..trusted.clone() };
        for (access, options, verified) in [
            (&trusted, &[][..], true),
            (&trusted, &["--tls-verify=true"], true),
            (&untrusted, &["--tls-verify=false"], true),
            (&untrusted, &[], false),
            (&untrusted, &["--tls-verify"], false),
        ] {
            let workspace = Workspace::new();
            let launch = Launch::new(&workspace).access(access).args(["--namespace", &namespace.name]);
            let sidecar = options.iter().fold(launch, |launch, option| launch.args([option])).start();
            if verified {
                sidecar.holds([("a.yaml", "1")]).await;
            } else {
                let line = sidecar.says("certificate").await;
                assert!(line.contains("configmaps") && line.contains(&namespace.name), "{line}");
                assert_eq!(workspace.files().paths(), [""; 0]);
            }
        }
    });
}
