//! The two images under `examples`, of which each has one line in place of an entrypoint script: that line, in what a pod
//! and the image make of a container.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;

use k8s_openapi::api::core::v1::{ConfigMap, Pod as PodManifest, ServiceAccount};

use crate::harness::account::token_of;
use crate::harness::cluster::{ApiServer, free_address};
use crate::harness::namespace::Namespace;
use crate::harness::pod::Pod;
use crate::harness::sidecar::{Launch, Sidecar};
use crate::harness::wait::{PATIENCE, run, until};
use crate::harness::web::{Load, get_path};
use crate::harness::workspace::Workspace;
use crate::readme::{apply, example};

const PATH: &str = "/hello";
const FIRST: &str = "Hello from a ConfigMap\n";

const RELOADS: usize = 6;

/// A folder of `examples` with an image.
struct Image {
    name: &'static str,
    /// What is in `/etc/NAME`.
    config: &'static str,
    /// What it says when a reload is over, if it loses signals before.
    reloaded: Option<&'static str>,
    containerfile: String,
}

impl Image {
    fn nginx() -> Self {
        Self::new("nginx", "nginx.conf", None)
    }

    fn haproxy() -> Self {
        Self::new("haproxy", "haproxy.cfg", Some("Former worker"))
    }

    fn new(name: &'static str, config: &'static str, reloaded: Option<&'static str>) -> Self {
        let containerfile = fs::read_to_string(example(name).join("Containerfile")).expect("a Containerfile");
        Self { name, config, reloaded, containerfile }
    }

    /// What an instruction of the Containerfile says; the last one counts.
    fn says(&self, instruction: &str) -> &str {
        let mut lines = self.containerfile.lines().filter_map(|line| line.strip_prefix(instruction)?.strip_prefix(' '));
        lines.next_back().unwrap_or_else(|| panic!("{} has no {instruction}", self.name))
    }

    /// The very line that the container runs, as the first process and as the user of its image. Its network is the host's,
    /// so the port is at this address; nothing else is replaced.
    async fn start<'w>(&self, workspace: &'w Workspace, address: SocketAddr) -> Sidecar<'w> {
        let Self { name, config, .. } = self;
        let namespace = Namespace::known(name);
        let pod = namespace.api::<PodManifest>().get("web").await.expect("the pod").spec.expect("its spec");
        let server = ApiServer::shared();
        let account = pod.service_account_name.expect("its account");
        let access = server.access(&token_of(&namespace.api::<ServiceAccount>(), &account).await);

        let content = fs::read_to_string(example(name).join(config)).expect("its configuration");
        let mine = workspace.beside(config);
        let port = pod.containers[0].ports.iter().flatten().next().expect("a port").container_port;
        let [plain, any] = [" ", " :"].map(|before| format!("{before}{port}"));
        let at = content.replace(&plain, &format!(" {address}")).replace(&any, &format!(" {address}"));
        assert!(at != content, "{config} names no port {port}");
        fs::write(&mine, at).expect("a file");

        let entry: Vec<String> = serde_json::from_str(self.says("ENTRYPOINT")).expect("a line as JSON");
        assert_eq!(entry[0], "configbump");
        let user = self.says("USER").parse().expect("a user by number");
        let root = format!("mount -t tmpfs none /etc/{name}; cp '{}' /etc/{name}; mkdir /run/{name}", mine.display());
        let launch = Pod::new(workspace, &namespace.name, &access).furnish(Launch::bare(workspace), &access);
        launch.args(&entry[1..]).among(root).running_as(user, "").start()
    }
}

/// The answer as soon as somebody listens.
async fn first_answer(address: SocketAddr) -> String {
    until(PATIENCE, "a server", async || match get_path(address, PATH).await {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Err(error.to_string()),
        answer => Ok(answer.expect("the answer of a server that has its files")),
    })
    .await
}

/// Changes what the ConfigMap of the example says, and waits until that is answered.
async fn change(name: &str, address: SocketAddr, saying: &str) {
    let namespace = Namespace::known(name);
    let mut hello = namespace.api::<ConfigMap>().get("hello").await.expect("the ConfigMap");
    for value in hello.data.iter_mut().flat_map(|data| data.values_mut()) {
        let (before, rest) = value.split_once('"').expect("a text");
        let (_, after) = rest.split_once('"').expect("its end");
        *value = format!("{before}\"{saying}\"{after}");
    }
    namespace.replace(&hello).await;
    until(PATIENCE, saying, async || match get_path(address, PATH).await {
        Ok(answer) if answer == saying => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

async fn is_served_from_start_to_end(image: Image) {
    let (workspace, address) = (Workspace::new(), free_address());
    for file in ["pod.yaml", "hello.yaml"] {
        apply(&example(image.name).join(file)).await;
    }
    let container = image.start(&workspace, address).await;
    assert_eq!(first_answer(address).await, FIRST);
    // The master may just be starting.
    change(image.name, address, "changed at once").await;
    let load = Load::on(address, PATH);
    for number in 1..RELOADS {
        change(image.name, address, &format!("answer {number}")).await;
    }
    let (answered, failures) = load.end();
    assert_eq!(failures, [""; 0], "of {answered}");
    if let Some(line) = image.reloaded {
        container.says_times(line, RELOADS).await;
    }
    container.signal_process_1(image.says("STOPSIGNAL"));
    let ended = container.ended(PATIENCE).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

#[test]
fn the_one_line_of_the_nginx_image_serves_what_configmaps_say() {
    run(is_served_from_start_to_end(Image::nginx()));
}

#[test]
fn the_one_line_of_the_haproxy_image_serves_what_configmaps_say() {
    run(is_served_from_start_to_end(Image::haproxy()));
}

#[test]
fn the_images_are_built_with_the_compiler_that_the_program_needs() {
    for Image { name, config, containerfile, .. } in [Image::nginx(), Image::haproxy()] {
        let compiler = format!("FROM rust:{}-", env!("CARGO_PKG_RUST_VERSION"));
        assert!(containerfile.contains(&compiler), "{name}: {compiler}");
        let copied = format!("COPY examples/{name}/{config} /etc/{name}/\n");
        assert!(containerfile.contains(&copied), "{name}: {copied}");
    }
}
