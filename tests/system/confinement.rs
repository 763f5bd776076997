//! What configbump cannot do, and what cannot be done to it, even if there is a hole in it.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{FileExt as _, chown, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use landlock::{
    ABI, Access as _, AccessFs, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr,
};
use rustix::process::Signal;

use crate::attacks::base64_of;
use crate::harness::access::{Access, Context, kubeconfig};
use crate::harness::cluster::ApiServer;
use crate::harness::namespace::Namespace;
use crate::harness::object::{config_map, secret};
use crate::harness::processes::Processes;
use crate::harness::sidecar::{Launch, Sidecar};
use crate::harness::target::Target;
use crate::harness::wait::{PATIENCE, run, until};
use crate::harness::workspace::Workspace;
use crate::processes::{NOBODY, as_nobody};

/// How many Landlock domains a process can be in, one in another (landlock(7)).
const LAYERS_MAX: usize = 16;

/// What sets every capability aside, for good.
const NO_CAPABILITIES: &str = "--inh-caps=-all --bounding-set=-all";

/// Only DIR can be written in this mount namespace.
fn read_only_root(workspace: &Workspace) -> String {
    format!(
        "cd /; mount --bind '{0}' '{0}'; mount -o remount,bind,ro \"$(stat -c %m '{1}')\"; mount -o remount,bind,ro /
         if touch '{2}' 2>/dev/null; then exit 1; fi",
        workspace.dir().display(),
        workspace.beside("").display(),
        workspace.beside("probe").display()
    )
}

#[test]
fn as_a_nobody_without_capabilities_on_a_read_only_root_it_follows_and_signals() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let pod = Processes::of_pod(&workspace).await;
        let noted = workspace.beside("noted");
        fs::create_dir(&noted).and_then(|()| chown(&noted, Some(NOBODY), None)).expect("a folder");
        let log = noted.join("log");
        let [script, dir, _, _] = Target::args(&workspace, &log, "");
        let note = r#"cat "$dir"/*"#;
        let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()];
        let words = user.map(OsString::from).into_iter();
        let words = words.chain(["sh".into(), script, dir, log.clone().into(), note.into()]);
        let as_nobody = as_nobody(&workspace, NO_CAPABILITIES).replacen(
            "exec setpriv",
            &format!("{}\ncd '{}'\nexec setpriv", read_only_root(&workspace), workspace.beside("").display()),
            1,
        );
        let launch = Launch::within(&namespace, &workspace)
            .args(["--signal", "HUP", "--process-command", &Target::name(&workspace)])
            .inside(&pod)
            .prelude(as_nobody);
        let sidecar = launch.start();
        sidecar.holds([("a", "1")]).await;
        let _target = pod.enter(&workspace, "setpriv", words);
        let ready = async || if log.exists() { Ok(()) } else { Err("it has none yet".to_owned()) };
        until(PATIENCE, "a target with a handler", ready).await;
        namespace.replace(&config_map("routes", [("a", "2")])).await;
        sidecar.holds([("a", "2")]).await;
        sidecar.says("sent SIGHUP to").await;
        let noted = async || match fs::read_to_string(&log).expect("the log").as_str() {
            "2\n" => Ok(()),
            other => Err(other.to_owned()),
        };
        until(PATIENCE, "the target to have noted", noted).await;
        assert_eq!(sidecar.status_of("Uid"), [NOBODY.to_string().as_str(); 4].join("\t"));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(sidecar.status_of(set), "0000000000000000", "{set}");
        }
        assert_eq!(sidecar.status_of("NoNewPrivs"), "1");
        assert!(sidecar.lines_with(&["not confined"]).is_empty());
    });
}

/// A token in a folder that is laid out as kubelet does it, and a kubeconfig that names it.
struct Mounted<'w> {
    workspace: &'w Workspace,
    access: Access,
    folder: PathBuf,
}

impl<'w> Mounted<'w> {
    fn new(workspace: &'w Workspace) -> Self {
        let access = ApiServer::shared().admin_access();
        let folder = workspace.beside("mounted");
        fs::create_dir(&folder).expect("a folder");
        let mounted = Self { workspace, access, folder };
        mounted.turn_to("..1", "not a token");
        symlink("..data/token", mounted.folder.join("token")).expect("a link");
        mounted
    }

    /// Makes a folder with this token the one that counts, at once; a path that is absolute leads out.
    fn turn_to(&self, target: &str, token: &str) {
        fs::create_dir(self.folder.join(target)).expect("a folder");
        fs::write(self.folder.join(target).join("token"), token).expect("a file");
        let link = self.workspace.fresh("data");
        symlink(target, &link).expect("a link");
        fs::rename(link, self.folder.join("..data")).expect("a link turned");
    }

    fn launch(&self, namespace: &Namespace) -> Launch<'w> {
        let context = Context { name: "main", access: &self.access, namespace: Some(&namespace.name) };
        let mut config: serde_json::Value = serde_json::from_str(&kubeconfig(&[context])).expect("a kubeconfig");
        config["users"][0]["user"] = serde_json::json!({ "tokenFile": self.folder.join("token") });
        let home = self.workspace.beside("config");
        fs::create_dir(&home).expect("a folder");
        fs::write(home.join("kubeconfig"), config.to_string()).expect("a file");
        Launch::new(self.workspace).arg("--kubeconfig").arg(home.join("kubeconfig"))
    }
}

#[test]
fn a_token_that_kubelet_swaps_in_stays_readable() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let mounted = Mounted::new(&workspace);
        let sidecar = mounted.launch(&namespace).start();
        sidecar.says("401").await;
        mounted.turn_to("..2", &mounted.access.token);
        sidecar.soon_holds([("a", "1")]).await;
    });
}

#[test]
fn a_token_elsewhere_is_not_read_unless_the_sandbox_is_off() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let mounted = Mounted::new(&workspace);
        let elsewhere = workspace.beside("elsewhere").display().to_string();
        let launch = mounted.launch(&namespace);
        let confined = launch.start();
        confined.says("401").await;
        mounted.turn_to(&elsewhere, &mounted.access.token);
        confined.soon_says("Permission denied").await;
        assert_eq!(workspace.files().paths(), [""; 0]);
        confined.terminate().await;
        let free = launch.args(["--sandbox", "off"]).start();
        free.holds([("a", "1")]).await;
        assert_eq!(free.status_of("NoNewPrivs"), "1");
    });
}

/// A command that says whether it may gain privileges, where only those who are not confined can write.
fn confession(outside: &Path) -> String {
    format!("sh -c {}", shell_words::quote(&format!("grep NoNewPrivs /proc/self/status > '{}'", outside.display())))
}

/// Waits until the command has said that it is as free as the test.
async fn is_free(sidecar: &Sidecar<'_>, outside: &Path) {
    let written = || match fs::read_to_string(outside) {
        Ok(text) if text.split_whitespace().eq(["NoNewPrivs:", "0"]) => Ok(()),
        other => Err(format!("{other:?}")),
    };
    sidecar.until("what the command writes outside DIR", written).await;
}

#[test]
fn what_it_starts_is_not_confined_while_it_is() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let outside = workspace.beside("outside");
        let command = confession(&outside);
        let program = format!("{command}; exec sleep 1000");
        for options in [&["--exec", &command][..], &["--check", &command], &["--", "sh", "-c", &program]] {
            let sidecar = Launch::within(&namespace, &workspace)
                .args(options)
                .environment("CONFIG_BUMP_LOG_LEVEL", "debug")
                .start();
            is_free(&sidecar, &outside).await;
            sidecar.says("confined by Landlock to writing").await;
            sidecar.holds([("a", "1")]).await;
            assert_eq!(sidecar.status_of("NoNewPrivs"), "1");
            sidecar.signal(Signal::TERM);
            sidecar.ended(PATIENCE).await;
            fs::remove_file(&outside).expect("the file");
            fs::remove_dir_all(workspace.dir()).expect("DIR");
        }
    });
}

#[test]
fn with_a_command_a_token_elsewhere_is_not_read_either() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let mounted = Mounted::new(&workspace);
        let sidecar = mounted.launch(&namespace).args(["--exec", "true"]).start();
        sidecar.says("401").await;
        mounted.turn_to(&workspace.beside("elsewhere").display().to_string(), &mounted.access.token);
        sidecar.soon_says("Permission denied").await;
        assert_eq!(workspace.files().paths(), [""; 0]);
    });
}

/// As on a kernel without Landlock, the sidecar can have no domain: there are as many as there can be around it.
#[test]
fn where_it_cannot_be_confined_the_log_says_so_and_all_else_goes_on() {
    ApiServer::shared();
    for _ in 0..LAYERS_MAX {
        let everything = AccessFs::from_all(ABI::V2);
        let root = PathBeneath::new(PathFd::new("/").expect("the root folder"), everything);
        let rules = Ruleset::default().handle_access(everything).and_then(Ruleset::create);
        let limited = rules.and_then(|rules| rules.add_rule(root)).and_then(RulesetCreated::restrict_self);
        limited.expect("the tests need a kernel with Landlock (Linux 5.19)");
    }
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.says("not confined by Landlock").await;
        sidecar.holds([("a", "1")]).await;
        assert_eq!(sidecar.status_of("NoNewPrivs"), "1");
    });
}

#[test]
fn nobody_else_of_the_same_user_reads_its_memory_or_environment() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let pod = Processes::of_pod(&workspace).await;
        let launch = Launch::within(&namespace, &workspace).inside(&pod).prelude(as_nobody(&workspace, ""));
        let sidecar = launch.start();
        sidecar.holds([("a", "1")]).await;
        let read = |process: u32, file: &str| {
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups"]);
            let output = command.args(["head", "-c", "1", &format!("/proc/{process}/{file}")]).output();
            let output = output.expect("setpriv, which is part of util-linux");
            output.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())
        };
        for file in ["environ", "maps"] {
            let refused = read(sidecar.process(), file).expect_err(file);
            assert!(refused.contains("Permission denied"), "{refused}");
        }
        // It is not the user that is kept from it.
        let mut other = Command::new("setpriv")
            .args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups", "sleep", "60"])
            .spawn()
            .expect("setpriv");
        until(PATIENCE, "another process", async || read(other.id(), "environ")).await;
        other.kill().and_then(|()| other.wait()).expect("a child can be killed");
    });
}

#[test]
fn when_it_crashes_the_kernel_dumps_no_memory() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&secret("secret", [("a", b"1")])).await;
        let home = workspace.beside("home");
        fs::create_dir(&home).expect("a folder");
        let prelude = format!("cd '{}'; ulimit -c unlimited", home.display());
        let launch = Launch::within(&namespace, &workspace).args(["--kinds", "secrets"]);
        let sidecar = launch.prelude(&prelude).start();
        sidecar.holds([("a", "1")]).await;
        sidecar.signal(Signal::ABORT);
        let ended = sidecar.ended(PATIENCE).await;
        assert!(ended.code.is_none() && !ended.dumped_core, "{ended:?}");
        // There is nothing else that keeps the kernel from it.
        let script = format!("{prelude}; kill -ABRT $$");
        let other = Command::new("sh").args(["-ec", &script]).status().expect("a shell");
        assert!(other.core_dumped(), "{other}; the test needs a machine whose core_pattern takes dumps");
    });
}

/// How often a text is in the memory of a process, in what it can write to.
fn copies_in_memory(process: u32, text: &str) -> usize {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).expect("its maps");
    let memory = fs::File::open(format!("/proc/{process}/mem")).expect("its memory");
    let region = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let address = |text| u64::from_str_radix(text, 16).expect("an address");
        rest.starts_with("rw").then(|| (address(from), address(to)))
    };
    let mut copies = 0;
    for (from, to) in maps.lines().filter_map(region) {
        let mut bytes = vec![0; usize::try_from(to - from).expect("a size")];
        // What has been given back meanwhile is no copy.
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            copies += bytes.windows(text.len()).filter(|window| *window == text.as_bytes()).count();
        }
    }
    copies
}

#[test]
fn once_it_is_on_disk_no_value_of_a_secret_is_in_memory_and_what_came_for_it_is_gone_with_the_next_answers() {
    const REPEATED: usize = 5_000;
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let value = |size: &str, version: usize| format!("{size} value {version} of the Secret;");
        let object = |version| {
            let large = value("large", version).repeat(REPEATED);
            secret("secret", [("small", value("small", version).as_bytes()), ("large", large.as_bytes())])
        };
        // As the server sends it: the same wherever a multiple of three bytes stands before.
        let encoded = |size: &str, version| base64_of(&value(size, version).repeat(3)[..30]);
        namespace.create(&object(0)).await;
        let sidecar = Launch::within(&namespace, &workspace).args(["--kinds", "secrets"]).start();
        let copies = |text: &str| copies_in_memory(sidecar.process(), text);
        for version in 0..10 {
            if version > 0 {
                namespace.replace(&object(version)).await;
            }
            let large = value("large", version).repeat(REPEATED);
            sidecar.holds([("small", value("small", version)), ("large", large)]).await;
            for size in ["small", "large"] {
                assert_eq!(copies(&value(size, version)), 0, "the {size} one, version {version}");
            }
        }
        // The buffers of TLS and of the connection have it until they take the next bytes.
        let other = secret("other", [("other", "x".repeat(100_000).as_bytes())]);
        namespace.create(&other).await;
        sidecar.says("wrote other").await;
        for (size, version) in ["small", "large"].iter().flat_map(|size| (0..10).map(move |version| (size, version))) {
            assert_eq!(copies(&encoded(size, version)), 0, "the {size} one, version {version}");
        }
        assert!(copies(&workspace.dir().display().to_string()) > 0, "what is in memory is found");
    });
}
