//! The README's three recipes of a bump, word for word, each with the program that it is for.

use std::fs;
use std::net::SocketAddr;

use k8s_openapi::api::core::v1::{ConfigMap, Pod as PodManifest, ServiceAccount};

use crate::harness::access::Access;
use crate::harness::account::{Account, least, token_of};
use crate::harness::cluster::{ApiServer, free_address};
use crate::harness::namespace::Namespace;
use crate::harness::object::{config_map, labelled};
use crate::harness::pod::Pod;
use crate::harness::sidecar::Launch;
use crate::harness::wait::{PATIENCE, run, until};
use crate::harness::web::get_path;
use crate::harness::workspace::Workspace;
use crate::nginx::answers;
use crate::readme::{apply, block, example};

/// The words of a command of the README after `configbump`.
fn words(start: &str) -> Vec<String> {
    let command = block(start).join("\n");
    let mut words = shell_words::split(&command).expect("a command of a shell");
    assert_eq!(words.remove(0), "configbump");
    words
}

/// What a pod in the namespace, which may read its ConfigMaps, finds.
async fn pod<'w>(namespace: &Namespace, workspace: &'w Workspace) -> Launch<'w> {
    let account = Account::new(namespace, "web").await;
    account.allow(namespace, least(&["configmaps"])).await;
    furnished(namespace, workspace, &ApiServer::shared().access(&account.token().await))
}

fn furnished<'w>(namespace: &Namespace, workspace: &'w Workspace, access: &Access) -> Launch<'w> {
    Pod::new(workspace, &namespace.name, access).furnish(Launch::bare(workspace), access)
}

/// A piece of shell that replaces a folder below `/etc` by this file alone.
fn with_file(workspace: &Workspace, folder: &str, name: &str, content: &str) -> String {
    let file = workspace.beside(name);
    fs::write(&file, content).expect("a file");
    format!("mount -t tmpfs none /etc/{folder}; cp '{}' /etc/{folder}/", file.display())
}

/// An nginx that serves what is in this folder, as distributions configure it.
fn nginx(workspace: &Workspace, sites: &str) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|what| format!("{what}_temp_path /run/{what};")).join(" ");
    let config = format!(
        "pid /run/nginx.pid; error_log stderr; events {{}} http {{ access_log off; {temporary} include {sites}; }}\n"
    );
    with_file(workspace, "nginx", "nginx.conf", &config)
}

fn site(address: SocketAddr, answer: &str) -> ConfigMap {
    let server = format!("server {{ listen {address}; location / {{ return 200 \"{answer}\"; }} }}\n");
    config_map("site", [("site.conf", &server)])
}

/// Has the server say one thing after the other, each within a moment.
async fn serves_changes(namespace: &Namespace, address: SocketAddr) {
    for answer in ["second", "third"] {
        namespace.replace(&site(address, answer)).await;
        answers(address, answer).await;
    }
}

#[test]
fn the_sidecar_with_a_shared_pid_namespace_reloads_nginx() {
    run(async {
        let (workspace, address) = (Workspace::new(), free_address());
        for file in ["cluster/access.yaml", "sidecar/pod.yaml"] {
            apply(&example(file)).await;
        }
        let namespace = Namespace::known("gateway");
        let pod = namespace.api::<PodManifest>().get("web").await.expect("the pod").spec.expect("its spec");
        assert_eq!(pod.share_process_namespace, Some(true));
        let account = pod.service_account_name.expect("its account");
        let token = token_of(&namespace.api::<ServiceAccount>(), &account).await;
        let user = pod.security_context.and_then(|context| context.run_as_user).expect("a user");
        let container = pod.containers.iter().find(|container| container.name == "configbump").expect("the sidecar");

        for mount in pod.containers.iter().map(|container| &container.volume_mounts.as_ref().expect("mounts")[0]) {
            assert_eq!(mount.mount_path, "/etc/nginx/conf.d", "this test has no volumes");
        }
        namespace.create(&site(address, "first")).await;
        let launch = furnished(&namespace, &workspace, &ApiServer::shared().access(&token));
        let launch = launch.among(nginx(&workspace, "/etc/nginx/conf.d/*.conf")).prelude("mkdir /etc/nginx/conf.d");
        let launch = launch.running_as(user.try_into().expect("a user"), "nginx -e stderr -g 'daemon off;' &");
        let sidecar = launch.args(container.args.as_deref().expect("its arguments")).start();
        answers(address, "first").await;
        serves_changes(&namespace, address).await;
        assert_eq!(sidecar.lines_with(&["may not send"]), [""; 0]);
    });
}

#[test]
fn the_child_in_one_container_serves_every_change() {
    run(async {
        let (namespace, workspace, address) = (Namespace::new().await, Workspace::new(), free_address());
        namespace.create(&site(address, "first")).await;
        let launch = pod(&namespace, &workspace).await.among(nginx(&workspace, "/etc/nginx/sites/*"));
        let words = words("configbump --dir /etc/nginx/sites");
        let sidecar = launch.running_as(101, "").args(&words).start();
        answers(address, "first").await;
        serves_changes(&namespace, address).await;
        sidecar.signal_process_1("TERM");
        assert_eq!(sidecar.ended(PATIENCE).await.code, Some(0));
    });
}

#[test]
fn the_http_reload_has_prometheus_read_its_rules_anew() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        // The host of the URL is a name, which leads to where no other Prometheus is.
        let address = SocketAddr::new(free_address().ip(), 9090);
        let hosts = workspace.beside("hosts");
        fs::write(&hosts, format!("{} localhost\n", address.ip())).expect("a file");
        let config =
            with_file(&workspace, "prometheus", "prometheus.yml", "rule_files: [/etc/prometheus/rules/*.yml]\n");
        let launch = pod(&namespace, &workspace).await.among(config);
        let launch = launch.prelude(format!("mount --bind '{}' /etc/hosts", hosts.display()));
        let prometheus = format!(
            "prometheus --web.enable-lifecycle --web.listen-address={address} --storage.tsdb.path=/run/prometheus \
             --config.file=/etc/prometheus/prometheus.yml &"
        );
        let words = words("configbump --dir /etc/prometheus/rules");
        let sidecar = launch.running_as(65534, prometheus).args(&words).start();
        sidecar.in_sync().await;
        for name in ["first", "second"] {
            let rules = format!("groups: [{{ name: web, rules: [{{ record: {name}, expr: up }}] }}]\n");
            let rules = labelled(config_map(name, [("web.yml", &rules)]), [("app", "rules")]);
            namespace.create(&rules).await;
            until(PATIENCE, &format!("the rule {name}"), async || {
                match get_path(address, "/api/v1/rules").await.map_err(|error| error.to_string())? {
                    rules if rules.contains(&format!("\"name\":\"{name}\"")) => Ok(()),
                    rules => Err(rules),
                }
            })
            .await;
            namespace.delete(&rules).await;
        }
    });
}
