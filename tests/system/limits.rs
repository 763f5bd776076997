//! What the kernel can refuse a container: threads, and single system calls.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use nix::libc;
use rustix::process::Signal;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

use crate::harness::endpoints::Endpoints;
use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::sidecar::{Launch, Sidecar};
use crate::harness::wait::{PATIENCE, run, until};
use crate::harness::web::serve;
use crate::harness::workspace::{Workspace, write};

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Makes the sidecar run as a user that only it has, so that a limit counts its threads only.
fn as_user(workspace: &Workspace, user: u32, options: &str) -> String {
    format!(
        "cd '{}'; chmod 755 .; mkdir -p out; chown {user} out; [ ! -e kubeconfig-1 ] || chown {user} kubeconfig-1
         cp \"$1\" configbump; shift
         exec setpriv --reuid={user} --regid={user} --clear-groups prlimit {options} setpriv --pdeathsig KILL ./configbump \"$@\"",
        workspace.beside("").display()
    )
}

/// Limits the threads of the sidecar's user, of which there may be more already. The user may do so to its own processes.
fn limit_threads(sidecar: &Sidecar<'_>, user: u32, count: usize) {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", "prlimit"]);
    let limited = command.args([&format!("--pid={}", sidecar.pid()), &format!("--nproc={count}:1000")]).status();
    assert!(limited.expect("prlimit, which is part of util-linux").success());
}

fn manifest(value: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: a, labels: {{app: web}}}}, data: {{k: '{value}'}}}}\n"
    )
}

#[test]
fn without_any_thread_it_lives_and_reads_later() {
    run(async {
        let workspace = Workspace::new();
        let manifests = workspace.beside("manifests");
        write(&manifests.join("a.yaml"), manifest("1"));
        let launch = Launch::new(&workspace).arg("--manifests").arg(&manifests).args(["--listen", "127.0.0.1:0"]);
        let sidecar = launch.prelude(as_user(&workspace, 64_131, "--nproc=1:1000")).start();
        let line = sidecar.says("a.yaml: cannot start a thread: ").await;
        assert!(line.contains("pids.max") && line.contains("RLIMIT_NPROC"), "{line}");
        let endpoints = Endpoints::of(&sidecar).await;
        assert_eq!(endpoints.probe("/livez").await.0, 200);
        sidecar.holds_nothing().await;
        limit_threads(&sidecar, 64_131, 100);
        sidecar.soon_holds([("k", "1")]).await;
        sidecar.terminate().await;
    });
}

#[test]
fn threads_refused_later_end_neither_configbump_nor_command() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let called = Arc::new(Mutex::new(0));
        let calls = Arc::clone(&called);
        let server = serve(ANY, move |_| {
            *calls.lock().expect("nobody panics with it") += 1;
            204
        });
        // A long value is read by a thread, and a name is looked up by one.
        let url = format!("http://localhost:{}/", server.port());
        let launch = Launch::within(&namespace, &workspace).args(["--url", &url, "--", "sleep", "1000"]);
        let sidecar = launch.prelude(as_user(&workspace, 64_132, "--nproc=1000:1000")).start();
        sidecar.says("started sleep").await;
        limit_threads(&sidecar, 64_132, 1);
        for value in ["2", "3"].map(|digit| digit.repeat(200_000)) {
            namespace.replace(&config_map("routes", [("a", &value)])).await;
            sidecar.holds([("a", &value)]).await;
        }
        sidecar
            .until("a call", || match *called.lock().expect("nobody panics with it") {
                0 => Err("none yet".to_owned()),
                _ => Ok(()),
            })
            .await;
        assert!(Path::new(&format!("/proc/{}", sidecar.pid())).exists());
        sidecar.signal(Signal::TERM);
        let ended = sidecar.ended(PATIENCE).await;
        assert_eq!(ended.code, Some(128 + 15), "as sleep has no handler: {}", ended.stderr);
    });
}

/// An argument of a call by its index, with a mask and the value under that, if it matters.
type Argument = Option<(u8, u64, u64)>;

/// Makes the kernel answer calls with this error if an argument has this value under this mask, as a seccomp profile does, for
/// this thread and for what it starts.
pub fn deny(error: i32, calls: &[(i64, Argument)]) {
    let rule = |(call, argument): &(i64, Argument)| {
        let condition = argument.map(|(index, mask, value)| {
            let masked = SeccompCmpOp::MaskedEq(mask);
            let condition = SeccompCondition::new(index, SeccompCmpArgLen::Dword, masked, value).expect("a condition");
            SeccompRule::new(vec![condition]).expect("a rule")
        });
        (*call, condition.into_iter().collect::<Vec<_>>())
    };
    let mut rules = std::collections::BTreeMap::<i64, Vec<SeccompRule>>::new();
    for (call, conditions) in calls.iter().map(rule) {
        rules.entry(call).or_default().extend(conditions);
    }
    let action = SeccompAction::Errno(error.unsigned_abs());
    let architecture = TargetArch::try_from(std::env::consts::ARCH).expect("a known architecture");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, architecture).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    apply_filter(&program).expect("a kernel with seccomp");
}

const ALL_BITS: u64 = 0xffff_ffff;

#[test]
fn a_seccomp_profile_without_threads_is_named() {
    const CLONE_THREAD: u64 = 0x1_0000;
    // The C library falls back to clone, whose flags a filter can see.
    deny(libc::ENOSYS, &[(libc::SYS_clone3, None)]);
    deny(libc::EPERM, &[(libc::SYS_clone, Some((0, CLONE_THREAD, CLONE_THREAD)))]);
    run(async {
        let workspace = Workspace::new();
        let manifests = workspace.beside("manifests");
        write(&manifests.join("a.yaml"), manifest("1"));
        let launch = Launch::new(&workspace).arg("--manifests").arg(&manifests).args(["--listen", "127.0.0.1:0"]);
        let sidecar = launch.start();
        let line = sidecar.says("a.yaml: cannot start a thread: ").await;
        assert!(line.contains("allow clone and clone3 in the seccomp profile"), "{line}");
        let endpoints = Endpoints::of(&sidecar).await;
        assert_eq!(endpoints.probe("/livez").await.0, 200);
        sidecar.terminate().await;
    });
}

#[test]
fn denied_calls_are_named_and_everything_else_works() {
    const DUMPABLE: u64 = 4;
    const NAME: u64 = 15;
    const SUBREAPER: u64 = 36;
    const REUSEADDR: u64 = 2;
    let prctl = |option| (libc::SYS_prctl, Some((0, ALL_BITS, option)));
    deny(
        libc::EPERM,
        &[prctl(DUMPABLE), prctl(NAME), prctl(SUBREAPER), (libc::SYS_setsockopt, Some((2, ALL_BITS, REUSEADDR)))],
    );
    run(async {
        let workspace = Workspace::new();
        let manifests = workspace.beside("manifests");
        write(&manifests.join("a.yaml"), manifest("1"));
        let launch = Launch::new(&workspace).arg("--manifests").arg(&manifests);
        let launch =
            launch.args(["--listen", "127.0.0.1:0", "--", "sh", "-c", "echo started >started; exec sleep 1000"]);
        let sidecar = launch.prelude(format!("cd '{}'", workspace.beside("").display())).start();
        sidecar.holds([("k", "1")]).await;
        until(PATIENCE, "the command", async || {
            fs::read_to_string(workspace.beside("started")).map_err(|error| error.to_string())
        })
        .await;
        let endpoints = Endpoints::of(&sidecar).await;
        assert_eq!(endpoints.probe("/livez").await.0, 200);
        for call in [
            "prctl(PR_SET_DUMPABLE)",
            "prctl(PR_SET_NAME)",
            "prctl(PR_SET_CHILD_SUBREAPER)",
            "setsockopt(SO_REUSEADDR)",
        ] {
            let line = sidecar.says(&format!("cannot call {call}: ")).await;
            assert!(line.contains("allow it in the seccomp profile"), "{line}");
        }
    });
}
