//! `configbump doctor`: what it finds, what it tells to grant, and its exit code.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::harness::access::Access;
use crate::harness::account::{Account, least, least_by_name};
use crate::harness::cluster::{ApiServer, free_address};
use crate::harness::namespace::Namespace;
use crate::harness::object::{LABELS, config_map};
use crate::harness::sidecar::{Ended, Launch};
use crate::harness::target::Target;
use crate::harness::wait::{PATIENCE, run, until};
use crate::harness::web::serve;
use crate::harness::workspace::Workspace;

const NOBODY: u32 = 65534;

/// A doctor with the options of a run in this namespace.
fn doctor<'w>(workspace: &'w Workspace, access: &Access, namespace: &str) -> Launch<'w> {
    let launch = Launch::bare(workspace).arg("doctor").arg("--dir").arg(workspace.dir());
    launch.access(access).args(["--namespace", namespace])
}

/// The same without a cluster.
fn without_a_cluster(workspace: &Workspace) -> Launch<'_> {
    fs::create_dir_all(workspace.beside("manifests")).expect("a folder");
    let launch = Launch::bare(workspace).arg("doctor").arg("--dir").arg(workspace.dir());
    launch.arg("--manifests").arg(workspace.beside("manifests")).args(["--labels", LABELS])
}

/// The lines about a matter, without the advice that follows all of them.
fn lines(ended: &Ended, verdict: &str, what: &str) -> Vec<String> {
    let begin = format!("{verdict:<5} {what}: ");
    ended.stdout.lines().filter_map(|line| line.strip_prefix(&begin)).map(str::to_owned).collect()
}

fn line(ended: &Ended, verdict: &str, what: &str) -> String {
    match &lines(ended, verdict, what)[..] {
        [line] => line.clone(),
        other => panic!("{verdict} {what}: {other:?} in {ended:?}"),
    }
}

/// Applies the objects of the advice as administrator.
async fn apply(namespace: &Namespace, ended: &Ended) {
    let (_, advice) = ended.stdout.split_once("kubectl apply -f -\n").unwrap_or_else(|| panic!("{ended:?}"));
    let (objects, _) = advice.split_once("\n# The least that a pod needs").unwrap_or_else(|| panic!("{ended:?}"));
    for text in objects.split("---\n").filter(|text| !text.trim().is_empty()) {
        let object: Value = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let kind = object["kind"].as_str().expect("a kind");
        assert_eq!(object["metadata"]["namespace"], namespace.name.as_str(), "{text}");
        let resource = format!("{}s", kind.to_lowercase());
        let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/{}/{resource}", namespace.name);
        let request = http::Request::post(path).header("content-type", "application/json");
        let request = request.body(object.to_string().into_bytes()).expect("a request");
        namespace.client().request::<Value>(request).await.unwrap_or_else(|error| panic!("{error}: {text}"));
    }
}

#[test]
fn missing_rights_are_named_and_the_printed_role_is_the_remedy() {
    run(async {
        for selection in [["--labels", LABELS], ["--names", "routes"]] {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let account = Account::new(&namespace, "sidecar").await;
            let access = ApiServer::shared().access(&account.token().await);
            namespace.create(&config_map("routes", [("a", "1")])).await;
            let launch = doctor(&workspace, &access, &namespace.name).args(selection);

            let ended = launch.run().await;
            assert_eq!(ended.code, Some(1), "{ended:?}");
            let known = format!("answers, to ServiceAccount {}/sidecar", namespace.name);
            assert!(line(&ended, "ok", "API server").contains(&known), "{ended:?}");
            let missing = line(&ended, "fail", "Role");
            let scope = format!("in namespace {}", namespace.name);
            assert!(missing.contains("may not list and watch configmaps") && missing.contains(&scope), "{missing}");

            apply(&namespace, &ended).await;
            let rule = match selection {
                ["--names", name] => least_by_name(&["configmaps"], &[name]),
                _ => least(&["configmaps"]),
            };
            account.wait_until(true, Some(&namespace.name), &rule).await;
            let ended = launch.run().await;
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert!(line(&ended, "ok", "Role").contains("may list and watch configmaps"), "{ended:?}");
            assert_eq!(lines(&ended, "warn", "objects"), [""; 0], "{ended:?}");
        }
    });
}

#[test]
fn a_kind_without_rights_and_one_without_objects_are_told_apart() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let account = Account::new(&namespace, "sidecar").await;
        account.allow(&namespace, least(&["configmaps"])).await;
        let access = ApiServer::shared().access(&account.token().await);
        let launch = doctor(&workspace, &access, &namespace.name).args(["--labels", LABELS]);
        let ended = launch.args(["--kinds", "configmaps,secrets"]).run().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(line(&ended, "ok", "Role").contains("configmaps"), "{ended:?}");
        assert!(line(&ended, "fail", "Role").contains("secrets"), "{ended:?}");
        assert!(line(&ended, "warn", "objects").contains("none yet of the configmaps"), "{ended:?}");
        assert!(!workspace.dir().exists(), "nothing is made");
    });
}

#[test]
fn a_server_that_is_not_there_is_asked_about_one_scope_only() {
    run(async {
        let workspace = Workspace::new();
        let access = Access { address: free_address(), ..ApiServer::shared().admin_access() };
        let launch = doctor(&workspace, &access, "a,b,c").args(["--labels", LABELS, "--kinds", "configmaps,secrets"]);
        let ended = launch.run().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let line = line(&ended, "fail", "Role");
        assert!(line.contains("refused") && line.ends_with("not asked about 5 others"), "{line}");
    });
}

#[test]
fn without_a_cluster_it_says_what_to_name() {
    run(async {
        let workspace = Workspace::new();
        let launch = Launch::bare(&workspace).arg("doctor").arg("--dir").arg(workspace.dir());
        let ended = launch.args(["--labels", LABELS]).run().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let source = line(&ended, "fail", "source");
        assert!(source.contains("no cluster was found") && source.contains("--kubeconfig"), "{source}");
        assert_eq!(lines(&ended, "ok", "directory").len(), 1, "the rest is examined all the same: {ended:?}");
    });
}

#[test]
fn a_directory_that_cannot_be_used_is_named_with_its_user_and_a_good_one_is_left_as_it_is() {
    run(async {
        let workspace = Workspace::new();
        fs::write(workspace.dir(), "").expect("a file");
        let ended = without_a_cluster(&workspace).run().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(line(&ended, "fail", "directory").contains("is not a directory"), "{ended:?}");

        fs::remove_file(workspace.dir()).expect("the file");
        fs::create_dir(workspace.dir()).expect("a folder");
        let ended = without_a_cluster(&workspace).run().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(line(&ended, "ok", "directory").contains("can be written by user 0"), "{ended:?}");
        assert_eq!(fs::read_dir(workspace.dir()).expect("the folder").count(), 0);

        let read_only = format!("mount -t tmpfs -o ro none '{}'", workspace.dir().display());
        let ended = without_a_cluster(&workspace).mounting(read_only).run().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let line = line(&ended, "fail", "directory");
        assert!(line.contains("Read-only file system") && line.contains("belongs to user 0"), "{line}");
    });
}

#[test]
fn a_directory_that_is_kept_and_a_port_that_is_taken_are_no_failure() {
    run(async {
        let workspace = Workspace::new();
        fs::create_dir_all(workspace.beside("manifests")).expect("a folder");
        let address = free_address().to_string();
        let launch = Launch::new(&workspace).arg("--manifests").arg(workspace.beside("manifests"));
        let sidecar = launch.args(["--listen", &address]).start();
        sidecar.in_sync().await;
        let ended = without_a_cluster(&workspace).args(["--listen", &address]).run().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(line(&ended, "ok", "directory").contains("kept by a configbump that runs"), "{ended:?}");
        assert!(line(&ended, "warn", "--listen").contains("the configbump that runs"), "{ended:?}");
        sidecar.terminate().await;
    });
}

#[test]
fn a_target_is_looked_at_and_not_signalled() {
    run(async {
        let workspace = Workspace::new();
        let launch = |signal| {
            let launch = without_a_cluster(&workspace).args(["--signal", signal]);
            launch.args(["--process-command", &Target::name(&workspace)])
        };
        let ended = launch("HUP").run().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(line(&ended, "fail", "target").contains("start it"), "{ended:?}");

        let target = Target::noting(&workspace, "echo bumped").await;
        let ended = launch("HUP").run().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(line(&ended, "ok", "target").contains("of user 0 may be sent SIGHUP"), "{ended:?}");
        assert!(ended.stdout.contains("shareProcessNamespace: true") && ended.stdout.contains("runAsUser: 0\n"));

        let ended = launch("USR1").run().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(line(&ended, "warn", "target").contains("no handler for SIGUSR1"), "{ended:?}");

        // One more signal, by us, would be the second line if a doctor had sent any.
        assert!(
            Command::new("kill").args(["-HUP", &target.pid().to_string()]).status().is_ok_and(|kill| kill.success())
        );
        until(PATIENCE, "our signal", async || match target.bumps().len() {
            0 => Err("no signal".to_owned()),
            _ => Ok(()),
        })
        .await;
        assert_eq!(target.bumps(), ["bumped"]);
    });
}

#[test]
fn a_target_of_another_user_is_a_failure_that_names_both() {
    run(async {
        let workspace = Workspace::new();
        let _target = Target::noting(&workspace, "echo bumped").await;
        let user = NOBODY.to_string();
        let become_nobody = format!("setpriv --reuid {user} --regid {user} --clear-groups");
        let launch = without_a_cluster(&workspace).args(["--signal", "HUP"]);
        let launch = launch.args(["--process-command", &Target::name(&workspace)]);
        let prelude = format!(
            "chmod a+rx '{0}' '{0}/manifests'; mkdir -p '{1}'; chown {user} '{1}'; exec {become_nobody} \"$@\"",
            workspace.beside("").display(),
            workspace.dir().display(),
        );
        let ended = launch.prelude(prelude).run().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let refusal = line(&ended, "fail", "target");
        assert!(refusal.contains("runs as user 0 and configbump as user 65534"), "{refusal}");
        assert!(ended.stdout.contains("runAsUser: 0\n"), "the target's user is told: {}", ended.stdout);
    });
}

#[test]
fn a_url_is_connected_to_and_not_called_and_commands_are_found_and_not_run() {
    run(async {
        let workspace = Workspace::new();
        let (sender, called) = std::sync::mpsc::channel();
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let address = serve(any, move |line| {
            // The test may have ended.
            let _ = sender.send(line.to_owned());
            200
        });
        let ran = workspace.beside("ran");
        let exec = format!("touch '{}'", ran.display());
        let url = format!("http://{address}/reload");
        let ended = without_a_cluster(&workspace).args(["--url", &url, "--exec", &exec]).run().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(line(&ended, "ok", "--url").ends_with("it was not called"), "{ended:?}");
        assert!(line(&ended, "ok", "--exec").contains("touch can be run"), "{ended:?}");
        assert!(called.try_recv().is_err() && !ran.exists());

        let url = format!("http://{}/reload", free_address());
        let ended = without_a_cluster(&workspace).args(["--url", &url, "--exec", "no-such-command"]).run().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(line(&ended, "fail", "--url").contains("cannot be reached"), "{ended:?}");
        assert!(line(&ended, "fail", "--exec").contains("no-such-command"), "{ended:?}");
    });
}

#[test]
fn wrong_options_are_wrong_for_a_doctor_too() {
    run(async {
        let workspace = Workspace::new();
        let ended = Launch::bare(&workspace).args(["doctor", "--labels", LABELS]).run().await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{ended:?}");
    });
}
