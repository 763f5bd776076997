//! Every manifest below `examples` and `deploy` is one that the API server takes; and those that no pod of [`pods`](crate::pods)
//! runs have sidecars that do what they are for.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, ServiceAccount};
use kube::ResourceExt as _;
use kube::api::{DynamicObject, PatchParams};
use serde_json::Value;

use crate::harness::account::token_of;
use crate::harness::cluster::{ApiServer, free_address};
use crate::harness::namespace::Namespace;
use crate::harness::pod::Pod;
use crate::harness::sidecar::{Launch, Sidecar};
use crate::harness::wait::run;
use crate::harness::workspace::Workspace;
use crate::readme::{apply, apply_object, example, objects};

const KUSTOMIZATION: &str = "kustomization.yaml";

/// What others than the API server read.
const FOR_OTHERS: [&str; 1] = ["deploy/prometheus/"];

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The YAML below a folder of the repository, as paths from the repository's root.
fn yaml_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(repository().join(folder)).expect("a folder");
    let mut found = Vec::new();
    for entry in entries.map(|entry| entry.expect("an entry")) {
        let path = folder.join(entry.file_name());
        match path.extension().and_then(OsStr::to_str) {
            _ if entry.file_type().expect("its type").is_dir() => found.extend(yaml_below(&path)),
            Some("yaml" | "yml") => found.push(path),
            _ => {}
        }
    }
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What kustomize makes of a folder.
fn built(folder: &Path) -> Vec<DynamicObject> {
    let output = Command::new("kustomize").arg("build").arg(repository().join(folder)).output();
    let output = output.expect("kustomize, of which `tests/servers/get kustomize` prints the folder, is in the PATH");
    assert!(output.status.success(), "{}: {output:?}", folder.display());
    objects(&String::from_utf8(output.stdout).expect("UTF-8"))
}

/// Every file is one of these: a manifest; part of a kustomization, and then what kustomize makes of that counts; or for others.
/// A component counts where a kustomization has it.
fn manifests() -> Vec<DynamicObject> {
    let (mut found, mut components, mut used) = (Vec::new(), Vec::new(), Vec::new());
    for path in ["examples", "deploy"].into_iter().flat_map(|folder| yaml_below(Path::new(folder))) {
        let folder = path.parent().expect("a file in a folder");
        let kustomization = folder.join(KUSTOMIZATION);
        if FOR_OTHERS.iter().any(|others| path.starts_with(others)) {
            // Tested where they are read.
        } else if path == kustomization {
            let content: Value = serde_saphyr::from_str(&read(&path)).expect("a kustomization");
            let named = content["components"].as_array().into_iter().flatten().filter_map(Value::as_str);
            used.extend(named.map(|name| repository().join(folder).join(name).canonicalize().expect("a component")));
            if content["kind"] == "Component" {
                components.push(repository().join(folder).canonicalize().expect("a folder"));
            } else {
                found.extend(built(folder));
            }
        } else if repository().join(&kustomization).is_file() {
            let name = path.file_name().and_then(OsStr::to_str).expect("a name");
            assert!(read(&kustomization).contains(name), "{} does not name {name}", kustomization.display());
        } else {
            let objects = objects(&read(&path));
            assert!(!objects.is_empty(), "{} has no object", path.display());
            found.extend(objects);
        }
    }
    components.iter().for_each(|folder| assert!(used.contains(folder), "no kustomization has {}", folder.display()));
    found
}

/// Whether others need it to be there: a dry run leaves nothing.
fn is_needed(object: &DynamicObject) -> bool {
    object.types.as_ref().is_some_and(|types| ["Namespace", "ServiceAccount"].contains(&types.kind.as_str()))
}

#[test]
fn the_api_server_takes_every_manifest_of_the_repository() {
    run(async {
        let mut manifests = manifests();
        // Namespaces first, then what is in them.
        manifests.sort_by_key(|object| (!is_needed(object), object.namespace().is_some()));
        for object in &manifests {
            // Other tests may have changed one that they have applied.
            let params = PatchParams { dry_run: !is_needed(object), ..PatchParams::apply("examples").force() };
            apply_object(object, &params).await;
        }
        let count = |kind: &str| {
            manifests.iter().filter(|object| object.types.as_ref().is_some_and(|t| t.kind == kind)).count()
        };
        assert!(["Pod", "Deployment", "ConfigMap", "Role"].iter().all(|kind| count(kind) > 0), "{manifests:?}");
    });
}

/// A container of configbump in these objects, which are applied, as it would run in its pod, with its account and this test's
/// directory.
async fn sidecar<'w>(manifests: &[DynamicObject], workspace: &'w Workspace) -> (Sidecar<'w>, PodSpec) {
    for object in manifests {
        apply_object(object, &PatchParams::apply("examples").force()).await;
    }
    let mut pods = manifests.iter().filter_map(|object| {
        let spec = &object.data["spec"];
        let pod = if spec["containers"].is_array() { spec } else { &spec["template"]["spec"] };
        let pod: PodSpec = serde_json::from_value(pod.clone()).ok()?;
        Some((Namespace::known(&object.namespace().expect("a namespace")), pod))
    });
    let (namespace, pod) = pods.next().expect("a pod");
    let mut containers = pod.init_containers.iter().flatten().chain(&pod.containers);
    let container = containers.find(|container| container.name == "configbump").expect("the sidecar");

    let server = ApiServer::shared();
    let account = pod.service_account_name.as_deref().expect("its account");
    let access = server.access(&token_of(&namespace.api::<ServiceAccount>(), account).await);
    let mut launch = Pod::new(workspace, &namespace.name, &access).furnish(Launch::bare(workspace), &access);
    for config in container.env_from.iter().flatten().filter_map(|from| from.config_map_ref.as_ref()) {
        let config = namespace.api::<ConfigMap>().get(&config.name).await.expect("the variables");
        launch = config.data.iter().flatten().fold(launch, |launch, (name, value)| launch.environment(name, value));
    }
    for variable in container.env.iter().flatten() {
        let field = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref());
        assert!(field.is_none_or(|field| field.field_path == "metadata.namespace"), "{field:?}");
        launch = launch.environment(&variable.name, variable.value.as_ref().unwrap_or(&namespace.name));
    }
    // What is typed counts.
    let dir = workspace.dir().display().to_string();
    let typed = container.args.iter().flatten().filter(|arg| !arg.starts_with("--dir="));
    let sidecar = launch.args(typed).args(["--dir", &dir, "--listen", &free_address().to_string()]).start();
    (sidecar, pod)
}

fn at(path: &str) -> Vec<DynamicObject> {
    objects(&fs::read_to_string(example(path)).expect("an example"))
}

#[test]
fn the_gateway_of_che_runs_by_the_variables_of_the_go_configbump() {
    run(async {
        let workspace = Workspace::new();
        let manifests = at("che-gateway/gateway.yaml");
        apply_object(&manifests[0], &PatchParams::apply("examples").force()).await;
        for name in ["dashboard", "splash", "traefik", "workspaces"] {
            apply(&example(&format!("che-gateway/{name}.yaml"))).await;
        }
        let (sidecar, pod) = sidecar(&manifests, &workspace).await;
        sidecar.in_sync().await;
        let files = ["dashboard.yml", "splash.png", "workspace-ada.yml", "workspace-grace.yml"];
        assert_eq!(workspace.files().paths(), files);
        let variables = pod.containers[1].env.iter().flatten().map(|variable| variable.name.as_str());
        let inherited = ["CONFIG_BUMP_DIR", "CONFIG_BUMP_LABELS", "CONFIG_BUMP_NAMESPACE"];
        assert!(variables.eq(inherited), "{pod:?}");
    });
}

#[test]
fn grafana_finds_the_dashboards_of_configmaps_in_their_folders() {
    run(async {
        let workspace = Workspace::new();
        let manifests = [at("grafana/grafana.yaml"), at("grafana/dashboard.yaml")].concat();
        let (sidecar, _) = sidecar(&manifests, &workspace).await;
        sidecar.in_sync().await;
        assert_eq!(workspace.files().paths(), ["Shop/shop.json"]);
        let dashboard = fs::read_to_string(workspace.path("Shop/shop.json")).expect("the dashboard");
        assert_eq!(serde_json::from_str::<Value>(&dashboard).expect("JSON")["title"], "Shop");
        sidecar.terminate().await;
    });
}

#[test]
fn the_component_brings_a_deployment_its_files_with_the_role_that_it_has() {
    run(async {
        let workspace = Workspace::new();
        let manifests = built(Path::new("examples/kustomize"));
        let (sidecar, pod) = sidecar(&manifests, &workspace).await;
        sidecar.in_sync().await;
        assert_eq!(workspace.files().paths(), ["shop.yml"]);
        let mounts = pod.containers[0].volume_mounts.iter().flatten();
        assert_eq!(mounts.filter(|mount| mount.name == "configbump").count(), 1);
    });
}
