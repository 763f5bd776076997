//! `configbump … -- COMMAND`: the files first, then the program, and both end together.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::harness::cluster::free_address;
use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::sidecar::{Launch, Sidecar};
use crate::harness::wait::{PATIENCE, run, until};
use crate::harness::web::Load;
use crate::harness::workspace::Workspace;
use crate::nginx::{answers, arguments, site};

/// Waits until a file that a program writes has these lines.
async fn lines(workspace: &Workspace, name: &str, expected: &[&str]) {
    until(PATIENCE, &format!("{expected:?} in {name}"), async || {
        let text = fs::read_to_string(workspace.beside(name)).unwrap_or_default();
        if text.lines().eq(expected.iter().copied()) { Ok(()) } else { Err(text) }
    })
    .await;
}

#[test]
fn the_command_starts_when_its_files_are_there_and_gives_its_exit_code() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("a", [("a.txt", "from the cluster\n")])).await;
        let file = workspace.dir().join("a.txt").display().to_string();
        let ended =
            Launch::within(&namespace, &workspace).args(["--", "sh", "-c", "cat \"$0\"; exit 7", &file]).run().await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(7), "from the cluster\n"), "{}", ended.stderr);
    });
}

#[test]
fn nginx_as_a_child_serves_every_change_without_a_failed_request_and_ends_with_configbump() {
    run(async {
        let (namespace, workspace, address) = (Namespace::new().await, Workspace::new(), free_address());
        namespace.create(&site("first")).await;
        let mut launch = Launch::within(&namespace, &workspace).args(["--", "nginx"]);
        for argument in arguments(&workspace, address) {
            launch = launch.arg(argument);
        }
        let sidecar = launch.start();
        answers(address, "first").await;
        let load = Load::on(address, "/");
        for number in 0..10 {
            let answer = format!("answer {number}");
            namespace.replace(&site(&answer)).await;
            answers(address, &answer).await;
        }
        let (answered, failures) = load.end();
        assert_eq!(failures, [""; 0], "of {answered}");
        sidecar.terminate().await;
    });
}

#[test]
fn with_on_change_restart_the_command_is_started_anew_for_each_change() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("a", [("a.txt", "first\n")])).await;
        let (file, seen) = (workspace.dir().join("a.txt"), workspace.beside("seen"));
        let script = format!("cat '{}' >> '{}'; exec sleep 1000", file.display(), seen.display());
        let launch = Launch::within(&namespace, &workspace);
        let sidecar = launch.args(["--on-change", "restart", "--", "sh", "-c", &script]).start();
        lines(&workspace, "seen", &["first"]).await;
        namespace.replace(&config_map("a", [("a.txt", "second\n")])).await;
        lines(&workspace, "seen", &["first", "second"]).await;
        sidecar.signal(Signal::TERM);
        let ended = sidecar.ended(PATIENCE).await;
        assert_eq!(ended.code, Some(128 + 15), "as sleep has no handler: {}", ended.stderr);
    });
}

#[test]
fn when_dir_is_taken_away_the_command_is_ended_properly_and_does_not_outlive_configbump() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let seen = workspace.beside("seen");
        let script = format!(
            "trap 'echo asked >> {0}; exit 0' TERM; echo $$ > {0}.pid; echo started >> {0}; while :; do sleep 0.05; done",
            seen.display()
        );
        let sidecar = Launch::within(&namespace, &workspace).args(["--", "sh", "-c", &script]).start();
        lines(&workspace, "seen", &["started"]).await;
        fs::remove_dir_all(workspace.dir()).expect("a folder");
        let ended = sidecar.ended(PATIENCE).await;
        assert_eq!(ended.code, Some(1), "{}", ended.stderr);
        lines(&workspace, "seen", &["started", "asked"]).await;
        let pid = fs::read_to_string(workspace.beside("seen.pid")).expect("its number");
        assert!(!fs::exists(format!("/proc/{}", pid.trim())).expect("/proc"), "it has ended by then");
    });
}

#[test]
fn as_process_1_it_reaps_orphans_passes_signals_on_and_ends_with_the_commands_code() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("a", [("a.txt", "first\n")])).await;
        let seen = workspace.beside("seen");
        // An orphan ends while the command runs. What is left of it would be shown as a zombie.
        let script = format!(
            "trap 'echo bumped >> {0}' HUP; (sh -c 'exit 0' &); echo started >> {0}; \
             while [ $(wc -l < {0}) -lt 2 ]; do sleep 0.05; done; \
             grep -l '^State:.Z' /proc/[0-9]*/status >> {0}; echo pid 1 is not $$ >&2; exit 5",
            seen.display()
        );
        let launch = Launch::within(&namespace, &workspace).among("true");
        let sidecar = launch.args(["--", "sh", "-c", &script]).start();
        lines(&workspace, "seen", &["started"]).await;
        namespace.replace(&config_map("a", [("a.txt", "second\n")])).await;
        let ended = sidecar.ended(PATIENCE).await;
        assert_eq!(ended.code, Some(5), "{}", ended.stderr);
        lines(&workspace, "seen", &["started", "bumped"]).await;
        assert!(
            ended.stderr.contains("pid 1 is not ") && !ended.stderr.contains("pid 1 is not 1\n"),
            "{}",
            ended.stderr
        );
    });
}

#[test]
fn as_process_1_it_never_takes_its_own_init_for_the_process_that_its_command_line_names() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("a", [("a.txt", "first\n")])).await;
        let [worker, wrapper] = ["worker.sh", "wrapper.sh"].map(|name| workspace.beside(name));
        let (seen, dir) = (workspace.beside("seen").display().to_string(), workspace.dir().display().to_string());
        let script = format!(
            "trap 'echo bumped >> {seen}' USR1; echo started >> {seen}; while [ -d {dir} ]; do sleep 0.05; done"
        );
        fs::write(&worker, script).expect("a file");
        // USR1 would end this one.
        fs::write(&wrapper, format!("sh {}; exit 5", worker.display())).expect("a file");
        let launch = Launch::within(&namespace, &workspace).among("true").args(["--initial-bump", "never"]);
        let launch = launch.args(["--signal", "USR1", "--process-command", "worker.sh", "--", "sh"]);
        let sidecar = launch.arg(&wrapper).start();
        lines(&workspace, "seen", &["started"]).await;
        namespace.replace(&config_map("a", [("a.txt", "second\n")])).await;
        lines(&workspace, "seen", &["started", "bumped"]).await;
        let sent = sidecar.lines_with(&["sent SIGUSR1 to"]);
        assert!(sent.len() == 1 && sent[0].contains("(sh)"), "{sent:?}");
    });
}

/// A program that notes its start, and the content of DIR at each HUP.
fn noting(workspace: &Workspace) -> String {
    let (dir, seen) = (workspace.dir(), workspace.beside("seen"));
    format!(
        "trap 'cat {0}/* >> {1}' HUP; echo started >> {1}; while [ -d {0} ]; do sleep 0.05; done",
        dir.display(),
        seen.display(),
    )
}

#[test]
fn the_first_sync_is_no_bump_for_the_command_for_it_starts_with_these_files() {
    for when in ["auto", "never"] {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            namespace.create(&config_map("a", [("a.txt", "first\n")])).await;
            let launch = Launch::within(&namespace, &workspace).args(["--settle", "0", "--initial-bump", when]);
            let sidecar = launch.args(["--", "sh", "-c", &noting(&workspace)]).start();
            lines(&workspace, "seen", &["started"]).await;
            namespace.replace(&config_map("a", [("a.txt", "second\n")])).await;
            lines(&workspace, "seen", &["started", "second"]).await;
            sidecar.says_times("sent SIGHUP", 1).await;
            assert_eq!(sidecar.lines_with(&["has not installed a handler"]), [""; 0], "{when}");
        });
    }
}

#[test]
fn the_first_sync_bumps_the_command_where_that_is_always_asked_for() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("a", [("a.txt", "first\n")])).await;
        let launch = Launch::within(&namespace, &workspace).args(["--initial-bump", "always"]);
        let sidecar = launch.args(["--", "sh", "-c", &noting(&workspace)]).start();
        lines(&workspace, "seen", &["started", "first"]).await;
        namespace.replace(&config_map("a", [("a.txt", "second\n")])).await;
        lines(&workspace, "seen", &["started", "first", "second"]).await;
        sidecar.says_times("sent SIGHUP", 2).await;
    });
}

/// Sends a signal by its number, as it has no name if it is a real-time one.
fn send(sidecar: &Sidecar<'_>, signal: i32) {
    let kill = Command::new("kill").args([format!("-{signal}"), sidecar.pid().to_string()]).status();
    assert!(kill.expect("kill").success(), "{signal}");
}

#[test]
fn the_command_gets_every_signal_that_configbump_can_catch() {
    // Not those that a process cannot catch, those of a fault of its own, that of its children, and the C library's own.
    let uncaught = [4, 5, 7, 8, 9, 11, 17, 19, 31, 32, 33, 34];
    let others = (1..=64).filter(|signal| !uncaught.contains(signal) && ![2, 15].contains(signal));
    // Each of TERM and INT asks the command to end: they come last, and to a command of their own.
    for signals in [others.chain([15]).collect::<Vec<i32>>(), vec![2]] {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let (seen, dir) = (workspace.beside("seen"), workspace.dir());
            let (numbers, last) =
                (signals.iter().map(|signal| format!("{signal} ")).collect::<String>(), signals.last());
            let script = format!(
                "for n in {numbers}; do trap \"echo $n >> {0}\" $n; done; trap 'echo {1} >> {0}; exit 9' {1}
                 echo ready >> {0}; while [ -d {2} ]; do sleep 0.05; done",
                seen.display(),
                last.expect("one that ends it"),
                dir.display(),
            );
            let sidecar = Launch::within(&namespace, &workspace).args(["--", "sh", "-c", &script]).start();
            lines(&workspace, "seen", &["ready"]).await;
            let mut seen = vec!["ready".to_owned()];
            for signal in signals {
                send(&sidecar, signal);
                seen.push(signal.to_string());
                let so_far: Vec<_> = seen.iter().map(String::as_str).collect();
                lines(&workspace, "seen", &so_far).await;
            }
            let ended = sidecar.ended(PATIENCE).await;
            assert_eq!(ended.code, Some(9), "{}", ended.stderr);
        });
    }
}
