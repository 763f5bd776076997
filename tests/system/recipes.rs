//! The README's recipes of a bump by a line, word for word, each with the program that it is for. The one of a sidecar is in
//! [`pods`](crate::pods).

use std::fs;
use std::net::SocketAddr;

use k8s_openapi::api::core::v1::ConfigMap;

use crate::haproxy;
use crate::harness::account::{Account, least};
use crate::harness::cluster::{ApiServer, free_address};
use crate::harness::namespace::Namespace;
use crate::harness::object::{config_map, labelled};
use crate::harness::pod::Pod;
use crate::harness::sidecar::Launch;
use crate::harness::wait::{PATIENCE, run, until};
use crate::harness::web::get_path;
use crate::harness::workspace::Workspace;
use crate::nginx::answers;
use crate::readme::block;

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
    let access = ApiServer::shared().access(&account.token().await);
    Pod::new(workspace, &namespace.name, &access).furnish(Launch::bare(workspace), &access)
}

/// A piece of shell that replaces a folder below `/etc` by this file alone.
fn with_file(workspace: &Workspace, folder: &str, name: &str, content: &str) -> String {
    let file = workspace.beside(name);
    fs::write(&file, content).expect("a file");
    format!("mount -t tmpfs none /etc/{folder}; cp '{}' /etc/{folder}/", file.display())
}

/// An nginx that serves what is in its folder of sites, as distributions configure it.
fn nginx(workspace: &Workspace) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|what| format!("{what}_temp_path /run/{what};")).join(" ");
    let config = format!(
        "pid /run/nginx.pid; error_log stderr; events {{}} http {{ access_log off; {temporary} include sites/*; }}\n"
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
fn the_child_in_one_container_serves_every_change() {
    run(async {
        let (namespace, workspace, address) = (Namespace::new().await, Workspace::new(), free_address());
        namespace.create(&site(address, "first")).await;
        let launch = pod(&namespace, &workspace).await.among(nginx(&workspace));
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

#[test]
fn haproxy_gets_only_what_its_check_accepts() {
    run(async {
        let (namespace, workspace, address) = (Namespace::new().await, Workspace::new(), free_address());
        let of_lb = |object: ConfigMap| labelled(object, [("app", "lb")]);
        namespace.create(&of_lb(haproxy::site(address, "first"))).await;
        let config = with_file(&workspace, "haproxy", "haproxy.cfg", haproxy::GENERAL);
        let launch = pod(&namespace, &workspace).await.among(config);
        let server = "(until [ -e /etc/haproxy/conf.d/site.cfg ]; do sleep 0.02; done
            exec haproxy -W -f /etc/haproxy/haproxy.cfg -f /etc/haproxy/conf.d) &";
        let words = words("configbump --dir /etc/haproxy/conf.d");
        let sidecar = launch.running_as(99, server).args(&words).start();
        answers(address, "first").await;
        namespace.create(&of_lb(config_map("broken", [("broken.cfg", "backend broken\n    lokation /\n")]))).await;
        sidecar.says("broken held back").await;
        namespace.replace(&of_lb(haproxy::site(address, "second"))).await;
        answers(address, "second").await;
    });
}
