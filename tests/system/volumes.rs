//! Volumes that are unlike a local disk: shared by a group, without permissions, without links, without case.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::libc;

use crate::harness::sidecar::{Launch, WAYS};
use crate::harness::wait::{PATIENCE, run};
use crate::harness::workspace::{Workspace, write};
use crate::limits::deny;

/// User of configbump.
const WRITER: u32 = 65532;
/// User of the program that reads.
const READER: u32 = 101;
/// Group that the volume gives to both (`fsGroup`).
const GROUP: u32 = 2000;

const FOLDER_ANNOTATION: &str = "example.com/folder";

/// A manifest of an object with the labels of [`Launch::new`], one key, and a directory of its own.
fn manifest(kind: &str, name: &str, folder: &str, key: &str, value: &str) -> String {
    let metadata =
        format!("{{name: {name}, labels: {{app: web}}, annotations: {{{FOLDER_ANNOTATION}: \"{folder}\"}}}}");
    let data = if kind == "Secret" { "stringData" } else { "data" };
    format!("apiVersion: v1\nkind: {kind}\nmetadata: {metadata}\n{data}: {{{key}: \"{value}\"}}\n")
}

/// Follows the manifests beside DIR, with a file for each of these texts.
fn following<'w>(workspace: &'w Workspace, dir: &Path, manifests: &[&str]) -> Launch<'w> {
    let folder = workspace.beside("manifests");
    for (number, manifest) in manifests.iter().enumerate() {
        write(&folder.join(format!("{number}.yaml")), manifest);
    }
    let launch = Launch::bare(workspace).arg("--dir").arg(dir).arg("--manifests").arg(folder);
    launch.args(["--labels", "app=web", "--kinds", "configmaps,secrets", "--folder-annotation", FOLDER_ANNOTATION])
}

/// Runs the rest as configbump's user in a pod with an `fsGroup`.
fn as_writer(workspace: &Workspace) -> String {
    format!(
        "cd '{}'; chmod -R a+rX manifests; chmod 755 .; cp \"$1\" configbump; shift
         exec setpriv --reuid={WRITER} --regid={WRITER} --groups={GROUP} --pdeathsig KILL ./configbump \"$@\"",
        workspace.beside("").display()
    )
}

/// Reads a file as the program beside configbump does.
fn read_as_reader(path: &Path) -> Result<String, String> {
    let ids = [format!("--reuid={READER}"), format!("--regid={READER}"), format!("--groups={GROUP}")];
    let output = Command::new("setpriv").args(ids).arg("cat").arg(path).output().expect("setpriv, of util-linux");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

#[test]
fn readers_in_the_fs_group_read_every_file() {
    run(async {
        for (way, below) in WAYS.iter().flat_map(|way| ["", "below"].map(|below| (way, below))) {
            let workspace = Workspace::new();
            let volume = workspace.dir();
            fs::create_dir(&volume).expect("a volume");
            chown(&volume, None, Some(GROUP)).expect("root may do that");
            fs::set_permissions(&volume, Permissions::from_mode(0o2777)).expect("a mode");
            let [config_map, secret] =
                [("ConfigMap", "deep/er"), ("Secret", "")].map(|(kind, folder)| manifest(kind, "a", folder, kind, "1"));
            let launch = following(&workspace, &volume.join(below), &[&config_map, &secret])
                .args(["--once", "--file-mode", "0640", "--publish", way])
                .prelude(as_writer(&workspace));
            let files = ["deep/er/ConfigMap", "Secret"].map(|path| volume.join(below).join(path));
            let are_read = |when: &str| {
                let read = files.each_ref().map(|file| read_as_reader(file));
                assert_eq!(read, ["1", "1"].map(|text| Ok(text.to_owned())), "{when}, --publish {way}, in {below:?}");
            };
            let succeeds = async || {
                let ended = launch.run().await;
                assert_eq!(ended.code, Some(0), "{ended:?}");
            };
            succeeds().await;
            are_read("at first");

            // As a version left it that took the setgid bit away.
            let script = format!("chgrp -R {WRITER} .; chmod -R g-s .; chgrp {GROUP} .; chmod 2777 .");
            let status = Command::new("sh").args(["-ec", &script]).current_dir(volume.join(below)).status();
            assert!(status.expect("a shell").success());
            succeeds().await;
            are_read("after an upgrade");
        }
    });
}

/// Mounts a FAT file system at DIR, which has no permissions, no links and no case.
fn on_fat(workspace: &Workspace) -> String {
    let [dir, image] = [workspace.dir(), workspace.beside("image")].map(|path: PathBuf| path.display().to_string());
    format!(
        "mkdir -p '{dir}'; test -e '{image}' || {{ truncate -s 8M '{image}'; mkfs.vfat '{image}' >/dev/null; }}
         fusefat -o rw+ '{image}' '{dir}' >/dev/null"
    )
}

#[test]
fn a_refused_mode_is_one_warning_and_files_arrive() {
    run(async {
        let workspace = Workspace::new();
        let manifests = [manifest("ConfigMap", "a", "", "a", "1"), manifest("Secret", "b", "deep/er", "b", "2")];
        let launch = following(&workspace, &workspace.dir(), &manifests.each_ref().map(String::as_str));
        let sidecar = launch.among(on_fat(&workspace)).start();
        sidecar.in_sync().await;
        let read = |path: &str| fs::read_to_string(sidecar.sees(&workspace.path(path))).unwrap_or_default();
        assert_eq!([read("a"), read("deep/er/b")], ["1", "2"]);
        let refused = sidecar.lines_with(&["cannot set the mode"]);
        assert_eq!(refused.len(), 1, "{refused:?}");
    });
}

#[test]
fn a_mode_that_is_right_already_is_not_set() {
    deny(libc::EPERM, &[(libc::SYS_fchmod, None)]);
    run(async {
        let workspace = Workspace::new();
        let manifests = [manifest("ConfigMap", "a", "", "a", "1"), manifest("Secret", "b", "", "b", "2")];
        let launch = following(&workspace, &workspace.dir(), &manifests.each_ref().map(String::as_str));
        let sidecar = launch.prelude("umask 022").start();
        sidecar.in_sync().await;
        assert_eq!([workspace.mode("a"), workspace.mode("b")], [0o644, 0o640]);
        assert_eq!(sidecar.lines_with(&["cannot set the mode"]), [""; 0]);
        sidecar.terminate().await;
    });
}

#[test]
fn a_set_without_symlinks_is_refused_and_leaves_no_tree() {
    run(async {
        let workspace = Workspace::new();
        let dir = workspace.dir().display().to_string();
        // The last line is run in place of the sidecar's own, so that the file system outlives the sidecar.
        let then_list = format!("\"$@\" || code=$?; find '{dir}' -mindepth 1 -maxdepth 1; exit $code");
        let launch = following(&workspace, &workspace.dir(), &[&manifest("ConfigMap", "a", "", "a", "1")]);
        let launch = launch.args(["--publish", "set"]).among(on_fat(&workspace)).prelude(then_list);
        let ended = launch.run().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let error = ended.stderr.lines().last().unwrap_or_default();
        assert!(error.contains("cannot publish a set") && error.contains("use --publish file"), "{error}");
        assert_eq!(ended.stdout.trim(), format!("{dir}/.configbump"), "{ended:?}");
    });
}

#[test]
fn doctor_names_what_a_fat_file_system_lacks() {
    run(async {
        let workspace = Workspace::new();
        fs::create_dir(workspace.beside("manifests")).expect("a directory");
        let launch = Launch::bare(&workspace).args(["doctor", "--labels", "app=web", "--publish", "set"]);
        let launch = launch.arg("--dir").arg(workspace.dir()).arg("--manifests").arg(workspace.beside("manifests"));
        let ended = launch.among(on_fat(&workspace)).run().await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        for line in ["warn  permissions: ", "warn  case: ", "fail  --publish set: "] {
            assert_eq!(ended.stdout.lines().filter(|found| found.starts_with(line)).count(), 1, "{line}: {ended:?}");
        }
        assert!(ended.stdout.contains("0700 instead of 0640"), "{ended:?}");
    });
}

#[test]
fn without_case_twins_conflict_and_the_state_is_safe() {
    run(async {
        let workspace = Workspace::new();
        let manifests = [
            manifest("ConfigMap", "a", "", "Ok", "1"),
            manifest("ConfigMap", "b", "", "ok", "2"),
            manifest("ConfigMap", "c", ".ConfigBump", "record", "3"),
            manifest("ConfigMap", "d", "Deep", "x", "4"),
            manifest("ConfigMap", "e", "deep", "X", "5"),
        ];
        let launch =
            following(&workspace, &workspace.dir(), &manifests.each_ref().map(String::as_str)).args(["--prune", "all"]);
        let launch = launch.among(on_fat(&workspace));
        let is_kept = async |owners: [&str; 2]| {
            let sidecar = launch.start();
            let read = |path: &str| fs::read_to_string(sidecar.sees(&workspace.path(path))).unwrap_or_default();
            sidecar.in_sync().await;
            assert_eq!([read("OK"), read("Deep/X")], owners);
            sidecar.says("`.configbump` is configbump's own").await;
            assert!(read(".configbump/record").contains("\"own\""), "the state is overwritten");
            assert_eq!(sidecar.lines_with(&["ConfigMap default/a has Ok, so ConfigMap default/b waits"]).len(), 1);
            sidecar
        };
        drop(is_kept(["1", "4"]).await);
        let sidecar = is_kept(["1", "4"]).await;
        let read = |path: &str| fs::read_to_string(sidecar.sees(&workspace.path(path))).unwrap_or_default();
        for number in [0, 3] {
            fs::remove_file(workspace.beside("manifests").join(format!("{number}.yaml"))).expect("a manifest");
        }
        let took_over = || match [read("ok"), read("deep/x")] {
            both if both == ["2", "5"] => Ok(()),
            other => Err(format!("{other:?}")),
        };
        sidecar.soon("the waiting twins", took_over).await;
        assert_eq!(sidecar.lines_with(&["wrote"]).len(), 2);
    });
}

#[test]
fn without_locks_the_later_start_ends_the_earlier() {
    deny(libc::ENOLCK, &[(libc::SYS_flock, None)]);
    run(async {
        let workspace = Workspace::new();
        let launch = |value: &str| {
            let manifest = manifest("ConfigMap", "a", "", "a", value);
            following(&workspace, &workspace.dir(), &[&manifest])
        };
        let first = launch("1").start();
        first.in_sync().await;
        assert_eq!(first.lines_with(&["cannot lock", "No locks available"]).len(), 1);
        let second = launch("1").start();
        second.in_sync().await;
        launch("2");
        let ended = first.ended(PATIENCE).await;
        assert!(ended.code == Some(1) && ended.stderr.contains("was removed or replaced"), "{ended:?}");
        second.holds([("a", "2")]).await;
        second.terminate().await;
    });
}
