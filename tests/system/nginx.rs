//! nginx reads files of DIR and is told to read them again: its master is, and no request fails.

use std::fs;
use std::net::SocketAddr;

use crate::harness::cluster::free_address;
use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::program::Program;
use crate::harness::sidecar::Launch;
use crate::harness::wait::{PATIENCE, run, until};
use crate::harness::web::{Load, get};
use crate::harness::workspace::Workspace;

/// The arguments of an nginx that keeps to the workspace, with a server at the address whose locations are in DIR.
pub fn arguments(workspace: &Workspace, address: SocketAddr) -> Vec<String> {
    let prefix = workspace.beside("nginx");
    fs::create_dir(&prefix).expect("a folder");
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary = temporary.map(|what| format!("{what}_temp_path temporary-{what};")).join(" ");
    let config = format!(
        // As root the workers would take another user, whom a namespace of users may not have.
        "user root root; daemon off; master_process on; worker_processes 2; pid nginx.pid;
         events {{ worker_connections 256; }}
         http {{ access_log off; {temporary} server {{ listen {}; include {}/*.conf; }} }}",
        address,
        workspace.dir().display()
    );
    let file = prefix.join("nginx.conf");
    fs::write(&file, config).expect("a file");
    let path = |path: &std::path::Path| path.display().to_string();
    ["-p".to_owned(), path(&prefix), "-c".to_owned(), path(&file), "-e".to_owned(), path(&prefix.join("error.log"))]
        .into()
}

/// The check by which that nginx looks at other files than those of DIR.
pub fn check(workspace: &Workspace) -> String {
    let script = r#"sed "s|$1/|$CONFIG_BUMP_CANDIDATE/|" "$2/nginx.conf" >"$2/candidate.conf"
        exec nginx -t -q -e stderr -p "$2" -c "$2/candidate.conf""#;
    format!("sh -c '{script}' check '{}' '{}'", workspace.dir().display(), workspace.beside("nginx").display())
}

pub fn site(answer: &str) -> k8s_openapi::api::core::v1::ConfigMap {
    config_map("site", [("site.conf", &format!("location / {{ return 200 \"{answer}\"; }}\n"))])
}

pub async fn answers(server: SocketAddr, wanted: &str) {
    until(PATIENCE, &format!("the answer {wanted}"), async || match get(server).await {
        Ok(answer) if answer == wanted => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[test]
fn under_load_no_request_fails_across_50_reloads() {
    const RELOADS: usize = 50;
    run(async {
        let (namespace, workspace, address) = (Namespace::new().await, Workspace::new(), free_address());
        namespace.create(&site("first")).await;
        let arguments = arguments(&workspace, address);
        let master = format!("nginx: master process nginx -p {}", workspace.beside("nginx").display());
        let launch = Launch::within(&namespace, &workspace).args(["--signal", "HUP", "--process-command", &master]);
        let sidecar = launch.args(["--settle", "10ms", "--initial-bump", "never"]).start();
        sidecar.in_sync().await;
        let nginx = Program::start(&workspace, "nginx", arguments);
        answers(address, "first").await;

        let load = Load::on(address, "/");
        for number in 0..RELOADS {
            let answer = format!("answer {number}");
            namespace.replace(&site(&answer)).await;
            answers(address, &answer).await;
        }
        let (answered, failures) = load.end();
        assert_eq!(failures, [""; 0], "of {answered}");
        assert!(answered > RELOADS as u64, "{answered}");
        let to_master = format!("sent SIGHUP to PID {} (nginx)", nginx.pid());
        sidecar.says_times(&to_master, RELOADS).await;
        sidecar.says_times("sent SIGHUP", RELOADS).await;
        assert!(nginx.is_running());
    });
}

#[test]
fn of_a_master_and_its_workers_the_master_is_told() {
    run(async {
        let (namespace, workspace, address) = (Namespace::new().await, Workspace::new(), free_address());
        namespace.create(&site("first")).await;
        let nginx = arguments(&workspace, address).iter().map(|word| format!("'{word}' ")).collect::<String>();
        let launch = Launch::within(&namespace, &workspace).among(format!("nginx {nginx} &"));
        let sidecar = launch.args(["--signal", "hup", "--process-command", "nginx"]).start();
        answers(address, "first").await;
        for number in ["second", "third"] {
            namespace.replace(&site(number)).await;
            answers(address, number).await;
        }
        let master = fs::read_to_string(workspace.beside("nginx/nginx.pid")).expect("the PID file of nginx");
        let to_master = format!("sent SIGHUP to PID {} (nginx)", master.trim());
        // The first sync may have had a signal of its own.
        let sent = || sidecar.lines_with(&["sent SIGHUP"]);
        sidecar.until("two signals", || if sent().len() >= 2 { Ok(()) } else { Err(format!("{:?}", sent())) }).await;
        assert!(sent().iter().all(|line| line.contains(&to_master)), "{to_master}: {:?}", sent());
    });
}
