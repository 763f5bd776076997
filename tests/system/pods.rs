//! The sidecars of `examples` as pods: the image of configbump beside that of a program, run by podman as the API server hands them
//! out, with a shared view of the processes, volumes, and users who are not root.

use std::fs;
use std::net::SocketAddr;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, SecurityContext};
use kube::ResourceExt as _;
use kube::api::{ListParams, PatchParams};
use serde_json::Value;

use crate::harness::cluster::free_address;
use crate::harness::image::Image;
use crate::harness::namespace::Namespace;
use crate::harness::node::Node;
use crate::harness::wait::{PATIENCE, run, until};
use crate::harness::web;
use crate::harness::workspace::Workspace;
use crate::nginx::answers;
use crate::readme::{apply_object, example, objects};

const FIRST: &str = "Hello from a ConfigMap\n";

/// nginx as in the image that the example names: it serves what is in `conf.d`, as a user who is not root.
const NGINX_CONFIG: &str = "\
pid /tmp/nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path /tmp/client_body;
    proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi;
    scgi_temp_path /tmp/scgi;
    include /etc/nginx/conf.d/*.conf;
}
";
const NGINX_LAST: &str = r#"ENTRYPOINT ["nginx", "-e", "stderr", "-g", "daemon off;"]"#;

fn nginx(workspace: &Workspace) -> Image {
    let files = [("/etc/nginx/nginx.conf", NGINX_CONFIG), ("/etc/nginx/conf.d/.keep", ""), ("/tmp/.keep", "")];
    Image::of_program(workspace, "nginxinc/nginx-unprivileged:1.29", ("nginx", 101), &files, NGINX_LAST)
}

fn haproxy(workspace: &Workspace) -> Image {
    Image::of_program(workspace, "haproxy:3.2", ("haproxy", 99), &[], "")
}

fn traefik(workspace: &Workspace) -> Image {
    Image::of_program(workspace, "traefik:v3.6", ("traefik", 65532), &[], r#"ENTRYPOINT ["traefik"]"#)
}

/// Applies the example's objects in a namespace of the test's own, with servers that listen at this address, and a Traefik that
/// asks nobody for news.
async fn apply(namespace: &Namespace, path: &str, address: SocketAddr) {
    let text = fs::read_to_string(example(path)).expect("an example");
    let text = text.replace("namespace: gateway", &format!("namespace: {}", namespace.name));
    let text = text.replace("listen 8080", &format!("listen {address}"));
    let text = text.replace("bind :8080", &format!("bind {address}"));
    let quiet = "\n        - --global.checknewversion=false\n        - --global.sendanonymoususage=false";
    let text = text.replace("http.address=:8080", &format!("http.address={address}{quiet}"));
    // All but the namespace itself, which is there.
    for object in objects(&text).iter().filter(|object| object.namespace().is_some()) {
        apply_object(object, &PatchParams::apply("pods")).await;
    }
}

/// Has the only ConfigMap there say something else, and waits until that is what a client gets.
async fn serves_changes(namespace: &Namespace, address: SocketAddr) {
    let api = namespace.api::<ConfigMap>();
    let mut before = FIRST.to_owned();
    answers(address, &before).await;
    for after in ["second", "third"] {
        let mut configs = api.list(&ListParams::default()).await.expect("a list").items;
        let config = configs.first_mut().expect("a ConfigMap");
        for value in config.data.iter_mut().flat_map(|data| data.values_mut()) {
            *value = value.replace(before.trim_end(), after).replace("\\n\"", "\"");
        }
        namespace.replace(config).await;
        answers(address, after).await;
        before = after.to_owned();
    }
}

#[test]
fn the_image_needs_nothing_but_its_executable_and_runs_it_as_a_user_who_is_not_root() {
    let workspace = Workspace::new();
    let (node, image) = (Node::start(&workspace), Image::configbump(&workspace));
    node.build(&image);
    let inspected = node.podman(&["image", "inspect", &image.name]);
    let inspected: Value = serde_json::from_str(&inspected).expect("JSON");
    assert_eq!(inspected[0]["Config"]["User"], "65532:65532");
    assert_eq!(inspected[0]["Config"]["Labels"]["org.opencontainers.image.licenses"], env!("CARGO_PKG_LICENSE"));
    assert_eq!(inspected[0]["RootFS"]["Layers"].as_array().map(Vec::len), Some(1), "{inspected}");
    let said = node.podman(&["run", "--rm", "--network=none", "--read-only", &image.name, "--version"]);
    assert_eq!(said.trim(), concat!("configbump ", env!("CARGO_PKG_VERSION")));
}

#[test]
fn nginx_in_a_pod_serves_what_configmaps_say() {
    run(async {
        let (namespace, workspace, address) = (Namespace::new().await, Workspace::new(), free_address());
        for path in ["cluster/access.yaml", "sidecar/nginx.yaml", "sidecar/site.yaml"] {
            apply(&namespace, path, address).await;
        }
        let node = Node::start(&workspace);
        [Image::configbump(&workspace), nginx(&workspace)].iter().for_each(|image| node.build(image));
        node.run(&namespace, "web").await;
        serves_changes(&namespace, address).await;
        node.says("web", "configbump", "sent SIGHUP to PID").await;
    });
}

#[test]
fn haproxy_in_a_pod_serves_what_configmaps_say() {
    run(async {
        let (namespace, workspace, address) = (Namespace::new().await, Workspace::new(), free_address());
        for path in ["cluster/access.yaml", "sidecar/haproxy.yaml", "sidecar/backend.yaml"] {
            apply(&namespace, path, address).await;
        }
        let node = Node::start(&workspace);
        [Image::configbump(&workspace), haproxy(&workspace)].iter().for_each(|image| node.build(image));
        node.run(&namespace, "lb").await;
        serves_changes(&namespace, address).await;
        node.says("lb", "configbump", "sent SIGUSR2 to PID").await;
    });
}

#[test]
fn traefik_in_a_pod_has_the_routes_that_configmaps_bring_and_nobody_may_write_but_in_the_volume() {
    run(async {
        let (namespace, workspace, address) = (Namespace::new().await, Workspace::new(), free_address());
        for path in ["cluster/access.yaml", "cluster/gateway.yaml"] {
            apply(&namespace, path, address).await;
        }
        let node = Node::start(&workspace);
        [Image::configbump(&workspace), traefik(&workspace)].iter().for_each(|image| node.build(image));
        node.run(&namespace, "gateway").await;
        has_status(address, 404).await;

        let route = fs::read_to_string(example("cluster/route.yaml")).expect("an example");
        let mut route: ConfigMap = serde_saphyr::from_str(&route).expect("a ConfigMap");
        let upstream = web::serve(free_address(), |_| 200);
        for value in route.data.iter_mut().flat_map(|data| data.values_mut()) {
            *value = value.replace("hello:8080", &upstream.to_string());
        }
        route.metadata.namespace = Some(namespace.name.clone());
        namespace.create(&route).await;
        has_status(address, 200).await;
        namespace.delete(&route).await;
        has_status(address, 404).await;
    });
}

/// Waits until the path of the example's route is answered so.
async fn has_status(address: SocketAddr, wanted: u16) {
    until(PATIENCE, &format!("status {wanted}"), async || match web::ask(address, "/hello").await {
        Ok(answer) if answer.status == wanted => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[test]
fn an_init_container_has_the_files_there_before_nginx_reads_them() {
    run(async {
        let (namespace, workspace, address) = (Namespace::new().await, Workspace::new(), free_address());
        for path in ["cluster/access.yaml", "init/pod.yaml", "sidecar/site.yaml"] {
            apply(&namespace, path, address).await;
        }
        let node = Node::start(&workspace);
        [Image::configbump(&workspace), nginx(&workspace)].iter().for_each(|image| node.build(image));
        node.run(&namespace, "once").await;
        answers(address, FIRST).await;
    });
}

#[test]
fn in_a_pod_with_two_users_the_log_says_who_may_not_signal_whom_and_the_files_are_there() {
    run(async {
        let (namespace, workspace, address) = (Namespace::new().await, Workspace::new(), free_address());
        apply(&namespace, "cluster/access.yaml", address).await;
        let manifest = fs::read_to_string(example("sidecar/nginx.yaml")).expect("an example");
        let mut pod: Pod = serde_saphyr::from_str(&manifest).expect("a pod");
        pod.metadata.namespace = Some(namespace.name.clone());
        let containers = &mut pod.spec.as_mut().expect("its spec").containers;
        let sidecar = containers.iter_mut().find(|container| container.name == "configbump").expect("the sidecar");
        sidecar.security_context = Some(SecurityContext { run_as_user: Some(65532), ..SecurityContext::default() });
        namespace.create(&pod).await;

        let node = Node::start(&workspace);
        [Image::configbump(&workspace), nginx(&workspace)].iter().for_each(|image| node.build(image));
        node.run(&namespace, "web").await;
        node.says("web", "configbump", "in sync").await;
        apply(&namespace, "sidecar/site.yaml", address).await;
        let line = node.says("web", "configbump", "may not send SIGHUP").await;
        assert!(line.contains("it runs as user 101 and configbump as user 65532"), "{line}");
        assert!(node.volume("sites").join("site.conf").is_file());
    });
}
