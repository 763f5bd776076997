//! What a container finds in a pod, without a kubelet.

use std::fs;
use std::path::{Path, PathBuf};

use super::access::Access;
use super::sidecar::Launch;
use super::workspace::Workspace;

/// Where that is in a container.
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The service-account folder of a pod, as kubelet keeps it.
pub struct Pod<'w> {
    workspace: &'w Workspace,
    credentials: PathBuf,
}

impl<'w> Pod<'w> {
    pub fn new(workspace: &'w Workspace, namespace: &str, access: &Access) -> Self {
        let pod = Self { workspace, credentials: workspace.beside("serviceaccount") };
        fs::create_dir(&pod.credentials).expect("a folder");
        pod.put("ca.crt", access.authority.as_deref().expect("the tests' servers have one"));
        pod.put("namespace", namespace);
        pod.put("token", &access.token);
        pod
    }

    /// Replaces a file as kubelet does, at once.
    pub fn put(&self, name: &str, content: &str) {
        let temporary = self.workspace.fresh("credential");
        fs::write(&temporary, content).expect("a file");
        fs::rename(temporary, self.credentials.join(name)).expect("a file replaced");
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.credentials
    }

    /// No option but `--dir` and `--labels`: the rest is what a pod finds.
    pub fn launch(&self, access: &Access) -> Launch<'w> {
        self.furnish(Launch::new(self.workspace), access)
    }

    /// Adds what a pod finds; `/run` is its own.
    pub fn furnish(&self, launch: Launch<'w>, access: &Access) -> Launch<'w> {
        let at = SERVICE_ACCOUNT;
        let mounts =
            format!("mount -t tmpfs none /var/run; mkdir -p {at}; mount --bind '{}' {at}", self.credentials.display());
        let variables = service_variables(access).into_iter();
        variables.fold(launch.mounting(mounts), |launch, (name, value)| launch.environment(name, value))
    }
}

/// By what a container knows where the API server is.
pub fn service_variables(access: &Access) -> [(&'static str, String); 2] {
    let (host, port) = (access.address.ip(), access.address.port());
    [("KUBERNETES_SERVICE_HOST", host.to_string()), ("KUBERNETES_SERVICE_PORT", port.to_string())]
}
