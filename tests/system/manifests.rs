//! Objects from files, with no cluster at all.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::harness::endpoints::Endpoints;
use crate::harness::sidecar::{Launch, Sidecar};
use crate::harness::wait::run;
use crate::harness::workspace::{Workspace, write};

const ROUTES: &str = "\
apiVersion: v1
kind: ConfigMap
metadata:
  name: routes
  labels: {app: web}
data:
  a.yaml: |
    routes: []
  b.yaml: ''
";

/// A manifest of a ConfigMap with the labels of [`Launch::new`] and one key.
fn manifest(name: &str, key: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  labels:\n    app: web\ndata:\n  {key}: \"{value}\"\n"
    )
}

/// A folder of manifests.
struct Manifests<'w> {
    workspace: &'w Workspace,
    folder: PathBuf,
}

impl<'w> Manifests<'w> {
    fn new(workspace: &'w Workspace) -> Self {
        Self::at(workspace, "manifests")
    }

    fn at(workspace: &'w Workspace, name: &str) -> Self {
        let folder = workspace.beside(name);
        fs::create_dir(&folder).expect("a folder");
        Self { workspace, folder }
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        write(&self.folder.join(name), text);
    }

    /// As editors and `git pull` do.
    fn replace(&self, name: &str, text: &str) {
        let temporary = self.workspace.fresh("edited");
        write(&temporary, text);
        fs::rename(temporary, self.folder.join(name)).expect("a file replaced");
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.folder.join(name)).expect("a file removed");
    }

    fn launch(&self) -> Launch<'w> {
        Launch::new(self.workspace).arg("--manifests").arg(&self.folder)
    }
}

#[test]
fn a_folder_of_manifests_becomes_files() {
    run(async {
        let workspace = Workspace::new();
        let manifests = Manifests::new(&workspace);
        manifests.write("routes.yaml", ROUTES);
        manifests.write("more.yml", manifest("more", "c.yaml", "3"));
        manifests.write("json.json", r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"json","labels":{"app":"web"}},"data":{"d":"\u00e9"}}"#);
        manifests.write("unselected.yaml", manifest("unselected", "x", "").replace("app: web", "app: other"));
        manifests.write("README.md", "no manifest");
        let sidecar = manifests.launch().start();
        sidecar.in_sync().await;
        sidecar.holds([("a.yaml", "routes: []\n"), ("b.yaml", ""), ("c.yaml", "3"), ("d", "é")]).await;
        sidecar.terminate().await;
    });
}

#[test]
fn a_single_file_of_manifests_becomes_files_and_is_followed() {
    run(async {
        let workspace = Workspace::new();
        let file = workspace.beside("routes.yaml");
        write(&file, ROUTES);
        let sidecar = Launch::new(&workspace).arg("--manifests").arg(&file).start();
        sidecar.holds([("a.yaml", "routes: []\n"), ("b.yaml", "")]).await;
        write(&file, manifest("routes", "a.yaml", "2"));
        sidecar.holds([("a.yaml", "2")]).await;
        let edited = workspace.beside("edited");
        write(&edited, manifest("routes", "a.yaml", "3"));
        fs::rename(edited, &file).expect("a file replaced");
        sidecar.holds([("a.yaml", "3")]).await;
    });
}

#[test]
fn once_works_without_a_cluster() {
    run(async {
        let workspace = Workspace::new();
        let manifests = Manifests::new(&workspace);
        manifests.write("routes.yaml", ROUTES);
        let ended = manifests.launch().args(["--once"]).run().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(workspace.files().paths(), ["a.yaml", "b.yaml"]);
    });
}

#[test]
fn edits_additions_and_removals_are_followed() {
    run(async {
        let workspace = Workspace::new();
        let manifests = Manifests::new(&workspace);
        manifests.write("one.yaml", manifest("one", "one", "1"));
        let sidecar = manifests.launch().start();
        sidecar.holds([("one", "1")]).await;
        manifests.write("one.yaml", manifest("one", "one", "2"));
        sidecar.holds([("one", "2")]).await;
        manifests.replace("one.yaml", &manifest("one", "one", "3"));
        sidecar.holds([("one", "3")]).await;
        manifests.write("two.yaml", manifest("two", "two", "1"));
        sidecar.holds([("one", "3"), ("two", "1")]).await;
        manifests.replace("three.yaml", &manifest("three", "three", "1"));
        sidecar.holds([("one", "3"), ("three", "1"), ("two", "1")]).await;
        manifests.remove("two.yaml");
        sidecar.holds([("one", "3"), ("three", "1")]).await;
        manifests.replace("three.yaml", &manifest("three", "three", "1").replace("app: web", "app: other"));
        sidecar.holds([("one", "3")]).await;
        manifests.remove("one.yaml");
        sidecar.holds_nothing().await;
    });
}

/// The way kubelet changes a mounted ConfigMap.
#[test]
fn a_mounted_volume_of_manifests_is_followed() {
    run(async {
        let workspace = Workspace::new();
        let manifests = Manifests::new(&workspace);
        let link = |target: &str, name: &str| {
            let temporary = workspace.fresh("link");
            std::os::unix::fs::symlink(target, &temporary).expect("a link");
            fs::rename(temporary, manifests.folder.join(name)).expect("a link replaced");
        };
        manifests.write("..1/routes.yaml", manifest("routes", "a", "1"));
        link("..1", "..data");
        link("..data/routes.yaml", "routes.yaml");
        let sidecar = manifests.launch().start();
        sidecar.holds([("a", "1")]).await;
        manifests.write("..2/routes.yaml", manifest("routes", "a", "2"));
        link("..2", "..data");
        fs::remove_dir_all(manifests.folder.join("..1")).expect("a folder removed");
        sidecar.holds([("a", "2")]).await;
    });
}

/// The way deployments change from one checkout to another.
#[test]
fn a_link_to_manifests_that_is_turned_is_followed() {
    run(async {
        let workspace = Workspace::new();
        let (one, two) = (Manifests::at(&workspace, "one"), Manifests::at(&workspace, "two"));
        one.write("routes.yaml", manifest("routes", "a", "1"));
        two.write("routes.yaml", manifest("routes", "a", "2"));
        let current = workspace.beside("current");
        let turn = |to: &str| {
            let temporary = workspace.fresh("link");
            std::os::unix::fs::symlink(to, &temporary).expect("a link");
            fs::rename(temporary, &current).expect("a link replaced");
        };
        turn("one");
        let sidecar = Launch::new(&workspace).arg("--manifests").arg(&current).start();
        sidecar.holds([("a", "1")]).await;
        turn("two");
        sidecar.holds([("a", "2")]).await;
        two.write("routes.yaml", manifest("routes", "a", "3"));
        sidecar.holds([("a", "3")]).await;
        turn("one");
        sidecar.holds([("a", "1")]).await;
    });
}

/// The way `git checkout` and others replace a file.
#[test]
fn a_file_that_is_removed_and_made_anew_takes_no_file_along() {
    run(async {
        const FILES: usize = 50;
        let workspace = Workspace::new();
        let manifests = Manifests::new(&workspace);
        let names: Vec<_> = (0..FILES).map(|file| format!("f{file}")).collect();
        for name in &names {
            manifests.write(&format!("{name}.yaml"), manifest(name, name, "0"));
        }
        let sidecar = manifests.launch().start();
        sidecar.holds(names.iter().map(|name| (name, "0"))).await;
        // What is away for longer than the sidecar waits is rightly removed, and a busy machine may make it so.
        let (begin, mut round, mut slow) = (Instant::now(), 0, Vec::new());
        while begin.elapsed() < Duration::from_secs(2) {
            round += 1;
            for name in &names {
                let (file, removal) = (format!("{name}.yaml"), Instant::now());
                manifests.remove(&file);
                manifests.write(&file, manifest(name, name, &round.to_string()));
                if removal.elapsed() >= Duration::from_millis(50) {
                    slow.push(format!("removed {name} "));
                }
            }
        }
        sidecar.holds(names.iter().map(|name| (name, round.to_string()))).await;
        let mut removals = sidecar.lines_with(&["removed "]);
        removals.retain(|line| !slow.iter().any(|slow| line.contains(slow)));
        assert_eq!(removals, [""; 0]);
    });
}

#[test]
fn a_key_that_no_server_takes_is_named_with_its_line() {
    run(async {
        let workspace = Workspace::new();
        let manifests = Manifests::new(&workspace);
        manifests.write("sound.yaml", manifest("sound", "sound", "1"));
        let sidecar = manifests.launch().start();
        sidecar.holds([("sound", "1")]).await;
        manifests.replace("sound.yaml", &manifest("sound", "a b", "2"));
        complains_about(&sidecar, "sound.yaml", 8).await;
        manifests.replace("sound.yaml", &manifest("sound", "a.b", "2"));
        sidecar.holds([("a.b", "2")]).await;
    });
}

async fn complains_about(sidecar: &Sidecar<'_>, file: &str, line: usize) {
    let complaint = sidecar.says(file).await;
    assert!(
        complaint.contains(&format!("{file}:{line}")) || complaint.contains(&format!("line {line}")),
        "{complaint}"
    );
}

#[test]
fn a_broken_file_is_named_with_its_line_and_what_it_held_stays() {
    run(async {
        let workspace = Workspace::new();
        let manifests = Manifests::new(&workspace);
        manifests.write("broken.yaml", manifest("broken", "broken", "1"));
        manifests.write("sound.yaml", manifest("sound", "sound", "1"));
        let sidecar = manifests.launch().start();
        sidecar.holds([("broken", "1"), ("sound", "1")]).await;
        manifests
            .replace("broken.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: broken\ndata:\n  broken: 2\n");
        sidecar.says("broken.yaml").await;
        manifests.replace("sound.yaml", &manifest("sound", "sound", "2"));
        sidecar.holds([("broken", "1"), ("sound", "2")]).await;
        manifests.replace("broken.yaml", &manifest("broken", "broken", "3"));
        sidecar.holds([("broken", "3"), ("sound", "2")]).await;
    });
}

#[test]
fn a_file_broken_from_the_start_is_named_with_its_line_and_hinders_no_other() {
    run(async {
        let workspace = Workspace::new();
        let manifests = Manifests::new(&workspace);
        manifests.write("sound.yaml", manifest("sound", "sound", "1"));
        let sidecar = manifests.launch().start();
        sidecar.holds([("sound", "1")]).await;
        sidecar.terminate().await;

        // Line 5 closes a bracket that is not open.
        manifests.write("broken.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: broken\ndata: ]\n");
        let sidecar = manifests.launch().start();
        complains_about(&sidecar, "broken.yaml", 5).await;
        manifests.replace("sound.yaml", &manifest("sound", "sound", "2"));
        sidecar.holds([("sound", "2")]).await;
        manifests.replace("broken.yaml", &manifest("broken", "mended", "1"));
        sidecar.holds([("mended", "1"), ("sound", "2")]).await;
    });
}

/// A broken file may hold anything: what an earlier run wrote must not go only because it cannot be read now.
#[test]
fn files_of_an_earlier_run_stay_while_their_manifest_is_broken() {
    run(async {
        let workspace = Workspace::new();
        let manifests = Manifests::new(&workspace);
        manifests.write("routes.yaml", ROUTES);
        let sidecar = manifests.launch().start();
        sidecar.holds([("a.yaml", "routes: []\n"), ("b.yaml", "")]).await;
        sidecar.terminate().await;
        manifests.write("routes.yaml", "kind: [");
        let sidecar = manifests.launch().start();
        sidecar.says("routes.yaml").await;
        manifests.write("other.yaml", manifest("other", "other", "1"));
        sidecar.holds([("a.yaml", "routes: []\n"), ("b.yaml", ""), ("other", "1")]).await;
        manifests.write("routes.yaml", "");
        sidecar.holds([("other", "1")]).await;
    });
}

#[test]
fn documents_and_lists_are_read_one_by_one() {
    run(async {
        let workspace = Workspace::new();
        let manifests = Manifests::new(&workspace);
        let documents = [
            "# A comment alone.\n",
            &manifest("one", "one", "1"),
            "",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: not-followed\nspec: {}\n",
            &manifest("two", "two", "2"),
        ];
        manifests.write("documents.yaml", documents.join("\n---\n"));
        let item = |name: &str| {
            format!(
                r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","labels":{{"app":"web"}}}},"data":{{"{name}":"{name}"}}}}"#
            )
        };
        manifests.write(
            "list.json",
            format!(r#"{{"apiVersion":"v1","kind":"List","items":[{},{}]}}"#, item("three"), item("four")),
        );
        manifests.write("maps.yaml", "apiVersion: v1\nkind: ConfigMapList\nitems:\n- metadata: {name: five, labels: {app: web}}\n  data: {five: five}\n");
        let sidecar = manifests.launch().start();
        sidecar.holds([("five", "five"), ("four", "four"), ("one", "1"), ("three", "three"), ("two", "2")]).await;
        manifests.write("documents.yaml", manifest("two", "two", "2"));
        sidecar.holds([("five", "five"), ("four", "four"), ("three", "three"), ("two", "2")]).await;
    });
}

#[test]
fn binary_data_and_secrets_are_decoded() {
    run(async {
        let workspace = Workspace::new();
        let manifests = Manifests::new(&workspace);
        manifests.write(
            "map.yaml",
            "kind: ConfigMap\napiVersion: v1\nmetadata: {name: map, labels: {app: web}}\nbinaryData: {binary: /wD+}\n",
        );
        manifests.write("secret.yaml", "kind: Secret\napiVersion: v1\nmetadata: {name: secret, labels: {app: web}}\ndata: {encoded: /wD+}\nstringData: {plain: text}\n");
        let sidecar = manifests.launch().args(["--kinds", "configmaps,secrets"]).start();
        let bytes = &b"\xff\x00\xfe"[..];
        sidecar.holds([("binary", bytes), ("encoded", bytes), ("plain", b"text")]).await;
        assert_eq!((workspace.mode("binary"), workspace.mode("encoded")), (0o644, 0o640));
    });
}

#[test]
fn selectors_names_and_namespaces_mean_the_same_as_in_a_cluster() {
    run(async {
        let workspace = Workspace::new();
        let manifests = Manifests::new(&workspace);
        for (name, namespace, tier) in [("a", "one", "front"), ("b", "one", "back"), ("c", "two", "front")] {
            let labels = format!("metadata: {{name: {name}, namespace: {namespace}, labels: {{tier: {tier}}}}}");
            manifests.write(
                &format!("{name}.yaml"),
                format!("apiVersion: v1\nkind: ConfigMap\n{labels}\ndata: {{{name}: ''}}\n"),
            );
        }
        for (options, files) in [
            (&["--labels", "tier in (front,middle)"][..], &["a", "c"][..]),
            (&["--labels", "tier notin (front)"], &["b"]),
            (&["--labels", "!tier"], &[]),
            (&["--labels", "tier!=front"], &["b"]),
            (&["--labels", "tier", "--namespace", "one"], &["a", "b"]),
            (&["--labels", "tier", "--namespace", "one,two"], &["a", "b", "c"]),
            (&["--labels", "tier", "--all-namespaces"], &["a", "b", "c"]),
            (&["--names", "a"], &["a"]),
            (&["--names", "a", "--labels", "tier=back"], &["a", "b"]),
            (&["--labels", "tier", "--kinds", "secrets"], &[]),
        ] {
            let launch =
                Launch::bare(&workspace).arg("--dir").arg(workspace.dir()).arg("--manifests").arg(&manifests.folder);
            let launch = options.iter().fold(launch, |launch, option| launch.args([option]));
            let ended = launch.args(["--once"]).run().await;
            assert_eq!(ended.code, Some(0), "{options:?}: {ended:?}");
            assert_eq!(workspace.files().paths(), files, "{options:?}");
        }
    });
}

/// Whether a sidecar has a file open.
fn has_open(sidecar: &Sidecar<'_>, path: &Path) -> bool {
    let open = fs::read_dir(format!("/proc/{}/fd", sidecar.process())).expect("a running process");
    open.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == path))
}

#[test]
fn while_a_manifest_of_very_many_documents_is_read_probes_are_answered_and_an_end_is_at_once() {
    const DOCUMENTS: usize = 60_000;
    run(async {
        let workspace = Workspace::new();
        let manifests = Manifests::new(&workspace);
        manifests.write("first.yaml", manifest("first", "a", "1"));
        let sidecar = manifests.launch().environment("CONFIG_BUMP_LISTEN", ":0").start();
        let endpoints = Endpoints::of(&sidecar).await;
        sidecar.in_sync().await;
        let large = manifests.folder.join("large.yaml");
        manifests
            .replace("large.yaml", &format!("{}---\n{}", "---\na: b\n".repeat(DOCUMENTS), manifest("large", "b", "1")));
        let being_read = || if has_open(&sidecar, &large) { Ok(()) } else { Err("it is not open".to_owned()) };
        sidecar.until("it to be read", being_read).await;
        let (mut answers, mut slowest) = (0_u32, Duration::ZERO);
        while has_open(&sidecar, &large) {
            let asked = Instant::now();
            assert_eq!(endpoints.probe("/livez").await.0, 200);
            (answers, slowest) = (answers + 1, slowest.max(asked.elapsed()));
        }
        assert!(answers > 10 && slowest < Duration::from_secs(1), "{answers} answers, the slowest after {slowest:?}");
        sidecar.holds([("a", "1"), ("b", "1")]).await;

        manifests.replace("large.yaml", &"---\na: b\n".repeat(DOCUMENTS));
        sidecar.until("it to be read once more", being_read).await;
        let asked = Instant::now();
        sidecar.terminate().await;
        assert!(asked.elapsed() < Duration::from_secs(1), "it has ended after {:?}", asked.elapsed());
    });
}
