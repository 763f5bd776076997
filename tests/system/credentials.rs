//! Kubeconfigs and credentials that change, break, vanish or come from a program while the sidecar runs.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::access::{Access, Context, kubeconfig};
use crate::harness::certificates::{self, Authority, LAST_YEAR};
use crate::harness::cluster::ApiServer;
use crate::harness::faulty::Faulty;
use crate::harness::link::{Link, State};
use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::pod::Pod;
use crate::harness::sidecar::{Launch, Sidecar};
use crate::harness::wait::run;
use crate::harness::witness::Witness;
use crate::harness::workspace::{Workspace, write};

/// A way to the shared server.
async fn link() -> (Link, Access) {
    let mut access = ApiServer::shared().admin_access();
    let link = Link::to(access.address, State::Up).await;
    access.address = link.address;
    (link, access)
}

/// Waits until this many more connections were made; each but the first with credentials that were read anew.
async fn more_connections(sidecar: &Sidecar<'_>, link: &Link, count: usize) {
    let wanted = link.accepted() + count;
    sidecar
        .until(&format!("{count} more connections"), || match link.accepted() {
            accepted if accepted >= wanted => Ok(()),
            accepted => Err(format!("{accepted} of {wanted}")),
        })
        .await;
}

/// A kubeconfig with one user, who is described by `user`.
fn with_user(access: &Access, user: &Value) -> String {
    let mut kubeconfig: Value = serde_json::from_str(&access.kubeconfig()).expect("JSON");
    kubeconfig["users"][0]["user"] = user.clone();
    kubeconfig.to_string()
}

/// A kubeconfig whose user is what this piece of shell prints.
fn with_plugin(access: &Access, script: &str) -> String {
    let exec = json!({
        "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script],
        "interactiveMode": "IfAvailable", "env": [{ "name": "GIVEN", "value": "secret-given" }],
    });
    with_user(access, &json!({ "exec": exec }))
}

/// A piece of shell that prints what a plugin does to give the token.
fn prints(token: &str) -> String {
    format!("echo '{}'", json!({ "kind": "ExecCredential", "status": { "token": token } }))
}

fn with_kubeconfig<'w>(workspace: &'w Workspace, namespace: &Namespace, path: &Path) -> Launch<'w> {
    Launch::new(workspace).args(["--namespace", &namespace.name]).arg("--kubeconfig").arg(path)
}

#[test]
fn a_kubeconfig_that_turns_to_another_context_leads_to_no_other_cluster() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let ((link, access), (other_link, other_access)) = (link().await, link().await);
        let main = || Context { name: "main", access: &access, namespace: Some(&namespace.name) };
        let other = || Context { name: "other", access: &other_access, namespace: Some("default") };
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let path = workspace.beside("kubeconfig");
        write(&path, kubeconfig(&[main(), other()]));
        let launch = Launch::new(&workspace).arg("--kubeconfig").arg(&path).args(["--log-level", "debug"]);
        let sidecar = launch.start();
        sidecar.holds([("a.yaml", "1")]).await;

        write(&path, kubeconfig(&[other(), main()]));
        link.set(State::Down);
        more_connections(&sidecar, &link, 2).await;
        // The context itself is gone: that is said, and nothing else happens until it is back.
        write(&path, kubeconfig(&[other()]));
        sidecar.says("\"main\"").await;
        sidecar.holds([("a.yaml", "1")]).await;
        link.set(State::Up);
        write(&path, kubeconfig(&[other(), main()]));
        namespace.replace(&config_map("routes", [("a.yaml", "2")])).await;
        sidecar.holds([("a.yaml", "2")]).await;
        assert_eq!(other_link.accepted(), 0);
    });
}

/// That of the home folder, in a pod that could do without.
#[test]
fn a_kubeconfig_that_breaks_or_vanishes_is_waited_for() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let ((link, access), (pod_link, pod_access)) = (link().await, link().await);
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let path = workspace.beside("home/.kube/config");
        write(&path, access.kubeconfig());
        let pod = Pod::new(&workspace, "default", &pod_access);
        let launch = pod.launch(&pod_access).args(["--namespace", &namespace.name, "--log-level", "debug"]);
        let sidecar = launch.start();
        sidecar.holds([("a.yaml", "1")]).await;

        fs::remove_file(&path).expect("the kubeconfig");
        link.set(State::Down);
        sidecar.says("No such file").await;
        link.set(State::Up);
        let whole = access.kubeconfig();
        write(&path, &whole[..whole.len() - 1]);
        sidecar.says("that is no kubeconfig").await;
        sidecar.holds([("a.yaml", "1")]).await;
        write(&path, whole);
        namespace.replace(&config_map("routes", [("a.yaml", "2")])).await;
        sidecar.holds([("a.yaml", "2")]).await;
        assert_eq!(pod_link.accepted(), 0);
        assert_eq!(sidecar.lines_with(&[&access.token]), [""; 0]);
    });
}

/// The server's authority is replaced; its new certificate is on disk a little later than the server's own.
#[test]
fn an_authority_replaced_on_disk_is_trusted_from_then_on() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let access = ApiServer::shared().admin_access();
        let right = access.authority.clone().expect("an authority");
        let others = workspace.beside("others");
        fs::create_dir(&others).expect("a folder");
        let wrong = certificates::write(&others);

        // A pod's.
        let pod = Pod::new(&workspace, &namespace.name, &Access { authority: Some(wrong.clone()), ..access.clone() });
        let sidecar = pod.launch(&access).start();
        sidecar.says("certificate").await;
        pod.put("ca.crt", &right);
        sidecar.holds([("a.yaml", "1")]).await;
        sidecar.terminate().await;
        namespace.replace(&config_map("routes", [("a.yaml", "2")])).await;

        // A file that a kubeconfig names.
        let (path, authority) = (workspace.beside("kubeconfig"), workspace.beside("ca.crt"));
        let mut kubeconfig: Value = serde_json::from_str(&access.kubeconfig()).expect("JSON");
        kubeconfig["clusters"][0]["cluster"] = json!({ "server": access.url(), "certificate-authority": "ca.crt" });
        write(&path, kubeconfig.to_string());
        write(&authority, &wrong);
        let sidecar = with_kubeconfig(&workspace, &namespace, &path).start();
        sidecar.says("certificate").await;
        sidecar.holds([("a.yaml", "1")]).await;
        write(&authority, &right);
        sidecar.holds([("a.yaml", "2")]).await;
    });
}

/// The authority and with it the server's certificate are replaced while it runs, the file in the pod later.
#[test]
fn an_authority_replaced_while_it_runs_is_said_and_trusted_once_it_is_on_disk() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let faulty = Faulty::before(&ApiServer::shared().admin_access()).await;
        let pod = Pod::new(&workspace, &namespace.name, &faulty.access);
        let sidecar = pod.launch(&faulty.access).start();
        sidecar.holds([("a.yaml", "1")]).await;
        let mut witness = Witness::of(&workspace);
        let authority = Authority::new();
        faulty.identify_by(authority.server(LAST_YEAR));
        let line = sidecar.says("invalid peer certificate").await;
        assert!(line.contains(&faulty.access.url()) && line.contains("authority"), "{line}");
        namespace.replace(&config_map("routes", [("a.yaml", "2")])).await;
        pod.put("ca.crt", &authority.pem());
        sidecar.soon_holds([("a.yaml", "2")]).await;
        witness.saw_nothing_go();
    });
}

/// Where the server was away for a moment, as it is when it gets a new certificate.
#[test]
fn a_certificate_that_has_expired_is_said_and_its_renewal_noticed() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let faulty = Faulty::before(&ApiServer::shared().admin_access()).await;
        let link = Link::to(faulty.access.address, State::Up).await;
        let access = Access { address: link.address, ..faulty.access.clone() };
        let sidecar = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name]).start();
        sidecar.holds([("a.yaml", "1")]).await;
        let mut witness = Witness::of(&workspace);
        link.set(State::Down);
        sidecar.says("cannot watch").await;
        faulty.expire();
        link.set(State::Up);
        let line = sidecar.says("expired").await;
        assert!(line.contains("WARN") && line.contains(&access.url()), "{line}");
        namespace.replace(&config_map("routes", [("a.yaml", "2")])).await;
        faulty.renew();
        sidecar.soon_holds([("a.yaml", "2")]).await;
        witness.saw_nothing_go();
        assert_eq!(sidecar.lines_with(&["expired"]).len(), 1);
    });
}

#[test]
fn a_credential_plugin_runs_once_for_a_client_and_again_when_that_fails() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let (link, access) = link().await;
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let (path, runs) = (workspace.beside("kubeconfig"), workspace.beside("runs"));
        let script = format!("echo run >> '{}'; {}", runs.display(), prints(&access.token));
        write(&path, with_plugin(&access, &script));
        let launch = with_kubeconfig(&workspace, &namespace, &path).args(["--kinds", "configmaps,secrets"]);
        let sidecar = launch.start();
        sidecar.holds([("a.yaml", "1")]).await;
        let count = || fs::read_to_string(&runs).expect("it ran").lines().count();
        assert_eq!(count(), 1);
        link.set(State::Down);
        sidecar.until("another run", || if count() > 1 { Ok(()) } else { Err(format!("{}", count())) }).await;
        link.set(State::Up);
        namespace.replace(&config_map("routes", [("a.yaml", "2")])).await;
        sidecar.holds([("a.yaml", "2")]).await;
    });
}

#[test]
fn a_credential_plugin_that_hangs_does_not_hinder_the_end() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let (link, access) = link().await;
        let (path, hung) = (workspace.beside("kubeconfig"), workspace.beside("hung"));
        let hangs = format!("touch '{}'; exec sleep 1000", hung.display());
        let hanging = async |sidecar: &Sidecar<'_>| {
            let look = || if hung.exists() { Ok(()) } else { Err("not yet".to_owned()) };
            sidecar.until("the plugin to hang", look).await;
        };
        write(&path, with_plugin(&access, &hangs));
        let launch = with_kubeconfig(&workspace, &namespace, &path);
        let sidecar = launch.start();
        hanging(&sidecar).await;
        sidecar.terminate().await;

        // While it runs.
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        write(&path, with_plugin(&access, &prints(&access.token)));
        fs::remove_file(&hung).expect("a file");
        let sidecar = launch.start();
        sidecar.holds([("a.yaml", "1")]).await;
        write(&path, with_plugin(&access, &hangs));
        link.set(State::Down);
        hanging(&sidecar).await;
        sidecar.terminate().await;
    });
}

#[test]
fn nothing_that_a_credential_plugin_prints_or_is_given_is_in_the_log() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let (link, access) = link().await;
        let path = workspace.beside("kubeconfig");
        let launch = with_kubeconfig(&workspace, &namespace, &path).args(["--log-level", "debug"]);
        for (script, said) in [
            ("echo secret-printed; echo 'please log in' >&2; exit 3", "exit status: 3: please log in"),
            ("echo '{ secret-printed: ['", "no ExecCredential"),
            ("echo '{\"status\": {\"token\": [\"secret-printed\"]}}'", "no ExecCredential"),
        ] {
            write(&path, with_plugin(&access, script));
            let ended = launch.run().await;
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert!(ended.stderr.contains("\"sh\"") && ended.stderr.contains(said), "{ended:?}");
            assert!(!ended.stderr.contains("secret-"), "{ended:?}");
        }

        // While it runs.
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        write(&path, with_plugin(&access, &prints(&access.token)));
        let sidecar = launch.start();
        sidecar.holds([("a.yaml", "1")]).await;
        write(&path, with_plugin(&access, "echo secret-printed; echo 'please log in' >&2; exit 3"));
        link.set(State::Down);
        sidecar.says("please log in").await;
        for secret in ["secret-", &access.token] {
            assert_eq!(sidecar.lines_with(&[secret]), [""; 0]);
        }
    });
}

#[test]
fn a_missing_file_in_the_kubeconfig_list_is_skipped() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let (missing, present) = (workspace.beside("missing"), workspace.beside("present"));
        write(&present, ApiServer::shared().admin_access().kubeconfig());
        let list = std::env::join_paths([&missing, &present]).expect("plain paths");
        let launch = Launch::new(&workspace).environment("KUBECONFIG", list).args(["--namespace", &namespace.name]);
        launch.start().holds([("a.yaml", "1")]).await;
    });
}

/// As with kubectl, the kubeconfig in the home directory is not looked at then.
#[test]
fn with_no_listed_kubeconfig_the_pod_account_counts() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let ((home_link, home_access), (pod_link, pod_access)) = (link().await, link().await);
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        write(&workspace.beside("home/.kube/config"), home_access.kubeconfig());
        let pod = Pod::new(&workspace, &namespace.name, &pod_access);
        let sidecar = pod.launch(&pod_access).environment("KUBECONFIG", workspace.beside("missing")).start();
        sidecar.says("KUBECONFIG").await;
        sidecar.holds([("a.yaml", "1")]).await;
        assert!(home_link.accepted() == 0 && pod_link.accepted() > 0);
    });
}

/// As in an image without any authorities.
#[test]
fn a_server_that_is_not_verified_needs_no_authority() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let access = Access { authority: None, ..ApiServer::shared().admin_access() };
        let mut kubeconfig: Value = serde_json::from_str(&access.kubeconfig()).expect("JSON");
        let path = workspace.beside("kubeconfig");
        for insecure in [false, true] {
            kubeconfig["clusters"][0]["cluster"]["insecure-skip-tls-verify"] = insecure.into();
            write(&path, kubeconfig.to_string());
            let launch = with_kubeconfig(&workspace, &namespace, &path).arg(format!("--tls-verify={insecure}"));
            let launch = launch.environment("SSL_CERT_FILE", "/nowhere").environment("SSL_CERT_DIR", "/nowhere");
            let sidecar = launch.start();
            sidecar.in_sync().await;
            sidecar.terminate().await;
        }
    });
}
