//! HAProxy's master starts anew on USR2, which ends one that has only just begun: it is told when it can bear it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::ConfigMap;

use crate::harness::cluster::free_address;
use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::program::Program;
use crate::harness::sidecar::Launch;
use crate::harness::wait::run;
use crate::harness::web::{Load, get};
use crate::harness::workspace::Workspace;

/// What is not in DIR.
pub const GENERAL: &str = "\
global
    maxconn 256
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
";

/// The file with what is not in DIR. Its path is in the command lines of the master and its workers.
fn general(workspace: &Workspace) -> PathBuf {
    let path = workspace.beside("haproxy.cfg");
    fs::write(&path, GENERAL).expect("a file");
    path
}

pub fn site(address: SocketAddr, answer: &str) -> ConfigMap {
    let frontend = format!(
        "frontend site\n    bind {address}\n    http-request return status 200 content-type text/plain string \"{answer}\"\n"
    );
    config_map("site", [("site.cfg", &frontend)])
}

/// Waits for the answer. The new worker gives it before its master is ready for the next reload.
async fn answers(haproxy: &Program, server: SocketAddr, wanted: &str) {
    haproxy
        .until(&format!("the answer {wanted}"), async || match get(server).await {
            Ok(answer) if answer == wanted => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
}

pub fn launch<'w>(namespace: &Namespace, workspace: &'w Workspace) -> Launch<'w> {
    let expression = format!("haproxy .*{}", general(workspace).display());
    let launch = Launch::within(namespace, workspace).args(["--signal", "USR2", "--process-command", &expression]);
    launch.args(["--settle", "10ms"])
}

/// One that reads DIR.
pub fn start(workspace: &Workspace) -> Program {
    let (general, dir) = (general(workspace), workspace.dir());
    Program::start(workspace, "haproxy", ["-W".as_ref(), "-f".as_ref(), &*general, "-f".as_ref(), &dir])
}

/// The check by which HAProxy looks at other files than those of DIR.
pub fn check(workspace: &Workspace) -> String {
    format!("haproxy -c -f '{}' -f {{}}", general(workspace).display())
}

#[test]
fn under_load_no_request_fails_across_50_reloads() {
    const RELOADS: usize = 50;
    run(async {
        let (namespace, workspace, address) = (Namespace::new().await, Workspace::new(), free_address());
        namespace.create(&site(address, "first")).await;
        let sidecar = launch(&namespace, &workspace).args(["--initial-bump", "never"]).start();
        sidecar.in_sync().await;
        let haproxy = start(&workspace);
        answers(&haproxy, address, "first").await;

        let load = Load::on(address, "/");
        for number in 1..=RELOADS {
            let answer = format!("answer {number}");
            namespace.replace(&site(address, &answer)).await;
            answers(&haproxy, address, &answer).await;
        }
        let (answered, failures) = load.end();
        assert_eq!(failures, [""; 0], "of {answered}");
        assert!(answered > RELOADS as u64, "{answered}");
        let to_master = format!("sent SIGUSR2 to PID {} (haproxy)", haproxy.pid());
        sidecar.says_times(&to_master, RELOADS).await;
        sidecar.says_times("sent SIGUSR2", RELOADS).await;
    });
}

/// The process is older than the files, so it is to be told of them; it becomes HAProxy while the signal is pending.
#[test]
fn a_master_that_is_just_starting_is_told_once_it_is_ready() {
    run(async {
        let (namespace, workspace, address) = (Namespace::new().await, Workspace::new(), free_address());
        let script = r#"until [ -e "$1" ]; do sleep 0.02; done; exec haproxy -W -f "$2" -f "$3""#;
        let (go, general, dir) = (workspace.beside("go"), general(&workspace), workspace.dir());
        // `haproxy` is the name of the script already, so that the expression matches from the start.
        let args = ["-c".as_ref(), script.as_ref(), "haproxy".as_ref(), &*go, &general, &dir];
        let haproxy = Program::start(&workspace, "sh", args);
        namespace.create(&site(address, "first")).await;
        let sidecar = launch(&namespace, &workspace).start();
        let line = sidecar.says("has not installed a handler for SIGUSR2").await;
        assert!(line.contains(&format!("PID {} (sh)", haproxy.pid())), "{line}");
        fs::write(&go, "").expect("a file");
        sidecar.says(&format!("sent SIGUSR2 to PID {} (haproxy)", haproxy.pid())).await;
        answers(&haproxy, address, "first").await;
        assert!(haproxy.is_running());
    });
}
