//! The README's commands and manifests, as they are written.

use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{ConfigMap, Pod as PodManifest, ServiceAccount};
use kube::ResourceExt;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, TypeMeta, ValidationDirective};

use crate::harness::account::token_of;
use crate::harness::cluster::ApiServer;
use crate::harness::namespace::Namespace;
use crate::harness::pod::Pod;
use crate::harness::sidecar::Launch;
use crate::harness::wait::{PATIENCE, run};
use crate::harness::workspace::Workspace;

const README: &str = include_str!("../../README.md");

/// The lines of a block that begins with this line.
pub fn block(first: &str) -> Vec<&'static str> {
    let start = README.find(&format!("\n{first}")).unwrap_or_else(|| panic!("no line {first:?} in the README"));
    README[start + 1..].lines().take_while(|line| !line.starts_with("```")).collect()
}

/// What is there below `examples`.
pub fn example(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(path)
}

#[test]
fn the_first_command_makes_the_files_that_the_readme_shows() {
    run(async {
        let workspace = Workspace::new();
        let command = "cargo run --release -- ";
        let typed = block(&format!("{command}--manifests"))[0].strip_prefix(command).expect("the command");
        let shown: Vec<&str> = block("$ ls /tmp/gateway")[1].split_whitespace().collect();
        let launch = Launch::bare(&workspace).prelude(format!("cd '{}'", env!("CARGO_MANIFEST_DIR")));
        let dir = workspace.dir().display().to_string();
        let launch = typed.split(' ').fold(launch, |launch, word| launch.args([&word.replace("/tmp/gateway", &dir)]));
        let sidecar = launch.start();
        sidecar.says(&format!("in sync: {dir} holds 4 files of 4 objects")).await;
        assert_eq!(workspace.files().paths(), shown);
        sidecar.terminate().await;
    });
}

#[test]
fn the_manifests_run_on_a_real_server_with_the_least_role() {
    run(async {
        let (server, workspace) = (ApiServer::shared(), Workspace::new());
        let mut files: Vec<_> = fs::read_dir(example("cluster"))
            .expect("the examples")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        files.sort();
        for file in files {
            apply(&file).await;
        }

        let namespace = Namespace::known("gateway");
        let pod = namespace.api::<PodManifest>().get("gateway").await.expect("the pod").spec.expect("its spec");
        let container = pod.containers.iter().find(|container| container.name == "configbump").expect("the sidecar");
        let account = pod.service_account_name.expect("the pod's account");
        let access = server.access(&token_of(&namespace.api::<ServiceAccount>(), &account).await);
        let launch = container.env.iter().flatten().fold(Launch::bare(&workspace), |launch, variable| {
            launch.environment(&variable.name, variable.value.clone().unwrap_or_default())
        });
        // The pod's volume is this test's directory.
        let launch = launch.environment("CONFIG_BUMP_DIR", workspace.dir());
        let sidecar = Pod::new(&workspace, &namespace.name, &access).furnish(launch, &access).start();
        sidecar.in_sync().await;
        let route = namespace.api::<ConfigMap>().get("hello").await.expect("the route").data.expect("its data");
        sidecar.holds(route).await;

        // The same from a laptop, by the command that the README shows.
        let laptop = Workspace::new();
        let command = block("kubectl apply -f examples/cluster/access.yaml")[1];
        let typed = command.strip_prefix("cargo run --release -- ").expect("the command");
        let dir = laptop.dir().display().to_string();
        let launch = Launch::bare(&laptop).access(&server.admin_access()).args(["--once"]);
        let launch = typed.split(' ').fold(launch, |launch, word| launch.args([&word.replace("/tmp/routes", &dir)]));
        let ended = launch.start().ended(PATIENCE).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(laptop.files().paths(), ["hello.yml"]);
    });
}

/// What `kubectl apply -f` does with a file of the examples, as far as they need it.
pub async fn apply(file: &Path) {
    for object in objects(&fs::read_to_string(file).expect("an example")) {
        apply_object(&object, &PatchParams::apply("readme")).await;
    }
}

/// The objects of a text with several documents.
pub fn objects(manifests: &str) -> Vec<DynamicObject> {
    serde_saphyr::from_multiple(manifests).unwrap_or_else(|error| panic!("{error}:\n{manifests}"))
}

/// Applies an object by the server. What the server does not know in it is an error.
pub async fn apply_object(object: &DynamicObject, params: &PatchParams) {
    let TypeMeta { api_version, kind } = object.types.clone().expect("a kind");
    let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
    let resource = ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk(group, version, &kind));
    let client = ApiServer::shared().admin();
    let api: Api<DynamicObject> = match object.namespace() {
        Some(namespace) => Api::namespaced_with(client, &namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    let (name, params) = (object.name_any(), params.clone());
    let params = PatchParams { field_validation: Some(ValidationDirective::Strict), ..params };
    api.patch(&name, &params, &Patch::Apply(object)).await.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
}
