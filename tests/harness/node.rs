//! podman in the place of a kubelet: it runs the pods that the API server hands out.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use k8s_openapi::api::core::v1::{EnvVar, HostPathVolumeSource, Pod as PodManifest, PodSpec, ServiceAccount, Volume};
use kube::api::ObjectMeta;

use super::access::Access;
use super::account::token_of;
use super::cluster::ApiServer;
use super::image::Image;
use super::namespace::Namespace;
use super::pod::{self, Pod};
use super::wait::{PATIENCE, until};
use super::workspace::Workspace;

/// Runs where systemd does not, and in small virtual machines, and leaves nothing outside of the folder.
const CONFIG: &str = r#"
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
tmp_dir = "FOLDER/tmp"
[network]
network_config_dir = "FOLDER/networks"
"#;

/// Waits until standard input closes, which it does however this process ends, and clears up behind it. Containers are killed at once: one
/// that ends by itself between podman's two signals is an error of podman's.
const KEEPER: &str = r#"
    trap '' INT TERM HUP
    folder=$1; shift
    cat >/dev/null
    "$@" pod rm --all --force --time 0 >/dev/null && rm -rf --one-file-system "$folder"
"#;

/// How long podman may take for one thing, of which the copy of an image is the longest.
const LIMIT: &str = "120s";

/// Of a container's log, when a test fails.
const LINES_SHOWN: usize = 30;

/// Its pods and all that podman keeps are gone when it is dropped. While a test panics, that prints what they wrote.
pub struct Node<'w> {
    workspace: &'w Workspace,
    folder: PathBuf,
    keeper: Child,
    keeper_log: PathBuf,
}

impl<'w> Node<'w> {
    /// It takes root.
    pub fn start(workspace: &'w Workspace) -> Self {
        let folder = tempfile::Builder::new().prefix("cb-node-").tempdir().expect("a temporary folder").keep();
        let config = CONFIG.replace("FOLDER", &folder.display().to_string());
        fs::write(folder.join("containers.conf"), config).expect("a file");
        let keeper_log = workspace.fresh("keeper");
        let podman = podman(&folder);
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper"]).arg(&folder).arg(podman.get_program()).args(podman.get_args());
        keeper.env("CONTAINERS_CONF", folder.join("containers.conf"));
        keeper.stdin(Stdio::piped()).stderr(File::create_new(&keeper_log).expect("a file"));
        let keeper = keeper.spawn().expect("sh starts");
        Self { workspace, folder, keeper, keeper_log }
    }

    pub fn build(&self, image: &Image) {
        let Image { name, containerfile, context } = image;
        let [containerfile, context] = [containerfile, context].map(|path| path.display().to_string());
        self.podman(&["build", "--quiet", "--file", &containerfile, "--tag", name, &context]);
    }

    /// Runs a pod as the API server hands it out.
    pub async fn run(&self, namespace: &Namespace, name: &str) {
        let pod = namespace.api::<PodManifest>().get(name).await.expect("the pod");
        let spec = self.furnished(namespace, pod.spec.expect("its spec")).await;
        let metadata = ObjectMeta { name: pod.metadata.name, labels: pod.metadata.labels, ..ObjectMeta::default() };
        let pod = PodManifest { metadata, spec: Some(spec), status: None };
        let file = self.workspace.fresh("pod");
        fs::write(&file, serde_json::to_string(&pod).expect("JSON")).expect("a file");
        self.podman(&["kube", "play", &file.display().to_string()]);
    }

    /// With what a kubelet adds: folders for the volumes, and how to reach the API server. The network is this machine's, since
    /// the API server listens on its loopback interface.
    async fn furnished(&self, namespace: &Namespace, mut spec: PodSpec) -> PodSpec {
        let server = ApiServer::shared();
        let account = spec.service_account_name.as_deref().expect("a pod has an account");
        let access = server.access(&token_of(&namespace.api::<ServiceAccount>(), account).await);
        let credentials = Pod::new(self.workspace, &namespace.name, &access);
        for volume in spec.volumes.iter_mut().flatten() {
            *volume = self.on_this_machine(volume, credentials.folder());
        }
        spec.init_containers.iter_mut().flatten().chain(&mut spec.containers).for_each(|container| {
            container.env.get_or_insert_default().extend(variables(&access));
            // Ports of this machine need nobody to lead to them.
            container.ports = None;
        });
        spec.host_network = Some(true);
        // podman would start an init container again that has succeeded.
        spec.restart_policy = Some("OnFailure".to_owned());
        spec
    }

    fn on_this_machine(&self, volume: &Volume, credentials: &Path) -> Volume {
        let folder = match volume {
            // The API server adds it to every pod; everything else in it is in these three files.
            Volume { projected: Some(_), .. } => credentials.to_owned(),
            Volume { empty_dir: Some(_), .. } => {
                let folder = self.volume(&volume.name);
                fs::create_dir(&folder).expect("a folder");
                // As a kubelet's: podman's own belong to who mounts them first.
                fs::set_permissions(&folder, Permissions::from_mode(0o777)).expect("a folder for everybody");
                folder
            }
            other => panic!("no such volume is known here: {other:?}"),
        };
        let path = HostPathVolumeSource { path: folder.display().to_string(), type_: Some("Directory".to_owned()) };
        Volume { name: volume.name.clone(), host_path: Some(path), ..Volume::default() }
    }

    /// The folder that is a pod's volume of this name.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.workspace.beside(&format!("volume-{name}"))
    }

    /// Waits for a line of a container that contains the text, and gives it.
    pub async fn says(&self, pod: &str, container: &str, text: &str) -> String {
        until(PATIENCE, &format!("a line of {container} with {text:?}"), async || {
            let log = self.log(&format!("{pod}-{container}"));
            log.lines().find(|line| line.contains(text)).map(str::to_owned).ok_or(log)
        })
        .await
    }

    /// What a container wrote so far, on both of its streams.
    pub fn log(&self, container: &str) -> String {
        let output = podman(&self.folder).args(["logs", container]).output().expect("podman starts");
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    }

    /// What podman prints.
    pub fn podman(&self, args: &[&str]) -> String {
        let output = podman(&self.folder).args(args).output().expect("podman starts");
        assert!(output.status.success(), "podman {args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

/// podman with storage in the folder, which needs no mount. It does not wait for ever.
fn podman(folder: &Path) -> Command {
    let mut podman = Command::new("timeout");
    podman.env("CONTAINERS_CONF", folder.join("containers.conf")).stdin(Stdio::null());
    podman
        .args(["--kill-after", "10s", LIMIT, "podman", "--root"])
        .arg(folder.join("root"))
        .arg("--runroot")
        .arg(folder.join("run"));
    podman.args(["--storage-driver", "vfs"]);
    podman
}

fn variables(access: &Access) -> impl Iterator<Item = EnvVar> {
    let variables = pod::service_variables(access).into_iter();
    variables.map(|(name, value)| EnvVar { name: name.to_owned(), value: Some(value), value_from: None })
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        let panicking = std::thread::panicking();
        if panicking {
            let containers = podman(&self.folder).args(["ps", "--all", "--format", "{{.Names}} {{.Status}}"]).output();
            let containers = containers.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
            for line in containers.unwrap_or_default().lines() {
                let name = line.split(' ').next().unwrap_or_default();
                let log = self.log(name);
                let last = log.lines().rev().take(LINES_SHOWN).map(|line| format!("{line}\n"));
                eprintln!("container {line}, the end of its output, last line first:\n{}", last.collect::<String>());
            }
        }
        drop(self.keeper.stdin.take());
        let ended = self.keeper.wait().and_then(|status| {
            let log = fs::read_to_string(&self.keeper_log)?;
            if status.success() { Ok(()) } else { Err(io::Error::other(log)) }
        });
        assert!(panicking || ended.is_ok(), "{} is not cleared up: {ended:?}", self.folder.display());
    }
}
