//! The beginning and the end of a run: `--once`, signals, and one configbump a directory.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::bump::signalling;
use crate::harness::cluster::ApiServer;
use crate::harness::link::{Link, State};
use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::program::Program;
use crate::harness::sidecar::Launch;
use crate::harness::target::Target;
use crate::harness::wait::{PATIENCE, run};
use crate::harness::workspace::{Workspace, write};

/// How long an orderly end may take.
const PROMPTLY: Duration = Duration::from_secs(1);

#[test]
fn once_ends_with_the_files_on_disk() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let large = "x".repeat(500_000);
        let gone = namespace.create(&config_map("gone", [("gone", "")])).await;
        namespace.create(&config_map("routes", [("a.yaml", "1"), ("large", large.as_str())])).await;
        let launch = Launch::within(&namespace, &workspace).args(["--once"]);
        let ended = launch.run().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(workspace.files().paths(), ["a.yaml", "gone", "large"]);
        namespace.delete(&gone).await;
        let ended = launch.run().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(workspace.files().paths(), ["a.yaml", "large"]);
    });
}

#[test]
fn once_ends_with_nothing_to_do() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let ended = Launch::within(&namespace, &workspace).args(["--once"]).run().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(workspace.dir().is_dir());
    });
}

#[test]
fn once_waits_for_a_server_that_comes_later() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let mut access = ApiServer::shared().admin_access();
        let link = Link::to(access.address, State::Down).await;
        access.address = link.address;
        let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name, "--once"]);
        let sidecar = launch.start();
        sidecar.until("two attempts", || if link.accepted() >= 2 { Ok(()) } else { Err(String::new()) }).await;
        link.set(State::Up);
        let ended = sidecar.ended(PATIENCE).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(workspace.files().paths(), ["a.yaml"]);
    });
}

#[test]
fn once_bumps_who_is_about_to_be_ready_and_not_who_is_not_there() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let (go, noted) = (workspace.beside("go"), workspace.beside("noted"));
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let ended = signalling(&namespace, &workspace).arg("--once").run().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.stderr.contains("nobody is bumped"), "{ended:?}");

        // The name is what the sidecar looks for.
        let script =
            "while [ ! -e \"$1\" ]; do sleep 0.02; done; trap 'echo bumped >\"$2\"' HUP; while :; do sleep 0.02; done";
        let args = [
            "-c".into(),
            script.into(),
            Target::name(&workspace),
            go.display().to_string(),
            noted.display().to_string(),
        ];
        let target = Program::start(&workspace, "sh", args);
        namespace.replace(&config_map("routes", [("a", "2")])).await;
        let sidecar = signalling(&namespace, &workspace).arg("--once").start();
        sidecar.says("has not installed a handler").await;
        assert!(target.is_running());
        write(&go, "");
        let ended = sidecar.ended(PATIENCE).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let look = async || match fs::read_to_string(&noted) {
            Ok(text) if text == "bumped\n" => Ok(()),
            other => Err(format!("{other:?}")),
        };
        target.until("its note", look).await;
    });
}

#[test]
fn sigterm_and_sigint_end_it_promptly_whatever_it_does() {
    run(async {
        let namespace = Namespace::new().await;
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        for signal in [Signal::TERM, Signal::INT] {
            for state in [State::Up, State::Down, State::Frozen, State::Silent] {
                let workspace = Workspace::new();
                let mut access = ApiServer::shared().admin_access();
                let link = Link::to(access.address, state).await;
                access.address = link.address;
                let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name]);
                let sidecar = launch.args(["--log-level", "debug"]).start();
                let doing = if state == State::Up { "in sync" } else { "GET /api" };
                sidecar.says(doing).await;
                sidecar.signal(signal);
                let ended = sidecar.ended(PROMPTLY).await;
                assert_eq!(ended.code, Some(0), "{signal:?} while the link is {state:?}: {ended:?}");
            }
        }
    });
}

#[test]
fn files_stay_when_it_ends() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds([("a.yaml", "1")]).await;
        sidecar.terminate().await;
        assert_eq!(workspace.files().paths(), ["a.yaml"]);
    });
}

#[test]
fn a_second_configbump_on_the_same_directory_is_refused() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let launch = Launch::within(&namespace, &workspace);
        let first = launch.start();
        first.in_sync().await;

        let refused = launch.run().await;
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
        assert!(refused.stderr.contains(&workspace.dir().display().to_string()), "{refused:?}");
        first.holds([("a.yaml", "1")]).await;

        // Even a killed one leaves no lock behind.
        first.kill();
        launch.start().in_sync().await;
    });
}

#[test]
fn a_directory_that_is_missing_is_made_with_its_parents() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let launch = Launch::bare(&workspace).access(&ApiServer::shared().admin_access());
        let launch = launch.args(["--namespace", &namespace.name, "--labels", "app=web"]);
        let sidecar = launch.arg("--dir").arg(workspace.path("made/on/the/way")).start();
        sidecar.in_sync().await;
        assert!(sidecar.has("made/on/the/way/a.yaml"));
    });
}

#[test]
fn a_directory_that_is_relative_is_below_the_working_directory() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let launch = Launch::bare(&workspace).access(&ApiServer::shared().admin_access());
        let launch = launch.args(["--namespace", &namespace.name, "--labels", "app=web", "--dir", "out"]);
        let sidecar = launch.prelude(format!("cd '{}'", workspace.beside("").display())).start();
        sidecar.holds([("a.yaml", "1")]).await;
    });
}

#[test]
fn help_and_version_are_printed_and_nothing_is_done() {
    run(async {
        let workspace = Workspace::new();
        let help = Launch::new(&workspace).args(["--help"]).run().await;
        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{help:?}");
        for option in ["--dir", "--labels", "--namespace", "--manifests", "--prune", "CONFIG_BUMP_DIR"] {
            assert!(help.stdout.contains(option), "{help:?}");
        }
        let version = Launch::new(&workspace).args(["--version"]).run().await;
        assert_eq!(version.stdout, format!("configbump {}\n", env!("CARGO_PKG_VERSION")), "{version:?}");
        assert!(!workspace.dir().exists());
    });
}

#[test]
fn the_log_is_one_line_a_message_in_text_and_in_json() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let sidecar = Launch::within(&namespace, &workspace).args(["--log-format", "json", "--once"]);
        let ended = sidecar.run().await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{ended:?}");
        assert!(ended.stderr.lines().count() > 0, "{ended:?}");
        for line in ended.stderr.lines() {
            assert!(serde_json::from_str::<serde_json::Value>(line).is_ok_and(|line| line.is_object()), "{line}");
        }
        let quiet = Launch::within(&namespace, &workspace).args(["--log-level", "error", "--once"]).run().await;
        assert_eq!(quiet.stderr, "");
    });
}
