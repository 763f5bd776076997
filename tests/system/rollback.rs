//! With `--rollback`, what the program refuses is taken back, and comes again only when it has changed.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::endpoints::Endpoints;
use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::sidecar::{Launch, Sidecar, WAYS};
use crate::harness::wait::run;
use crate::harness::web::serve;
use crate::harness::workspace::Workspace;

const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A program that refuses files that say so, and all of them as long as there is a file `broken` beside DIR. It notes the
/// moment of each answer.
const PROGRAM: &str = "[ ! -e broken ] && ! grep -q BAD out/* 2>/dev/null; said=$?; date +%s%N >>calls; exit $said";

/// One that runs that program after a change, and publishes in this way.
fn launch<'w>(namespace: &Namespace, workspace: &'w Workspace, way: &str) -> Launch<'w> {
    launch_with(PROGRAM, namespace, workspace, way)
}

/// The same with another program.
fn launch_with<'w>(program: &str, namespace: &Namespace, workspace: &'w Workspace, way: &str) -> Launch<'w> {
    let path = workspace.beside("program");
    fs::write(&path, format!("cd '{}'\n{program}\n", workspace.beside("").display())).expect("a file");
    let exec = format!("sh '{}'", path.display());
    Launch::within(namespace, workspace).args(["--rollback", "--publish", way, "--exec", &exec])
}

/// The moments of the calls, in nanoseconds.
fn calls(workspace: &Workspace) -> Vec<u64> {
    let calls = fs::read_to_string(workspace.beside("calls")).unwrap_or_default();
    calls.lines().map(|call| call.parse().expect("nanoseconds")).collect()
}

async fn is_called(sidecar: &Sidecar<'_>, workspace: &Workspace, times: usize) {
    sidecar
        .until(&format!("call {times}"), || match calls(workspace) {
            calls if calls.len() == times => Ok(()),
            calls => Err(format!("{calls:?}")),
        })
        .await;
}

#[test]
fn what_the_command_refuses_is_taken_back_until_it_changes() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let gone = namespace.create(&config_map("gone", [("gone", "1")])).await;
            namespace.create(&config_map("routes", [("a", "1"), ("b", "1")])).await;
            let sidecar = launch(&namespace, &workspace, way).start();
            is_called(&sidecar, &workspace, 1).await;

            // A change, a new file, a removed one: all of it comes and goes.
            namespace.replace(&config_map("routes", [("a", "BAD"), ("c", "1")])).await;
            let line = sidecar.says("held back until it changes").await;
            assert!(line.contains(&format!("ConfigMap {}/routes ", namespace.name)), "{line}");
            sidecar.holds([("a", "1"), ("b", "1"), ("gone", "1")]).await;
            is_called(&sidecar, &workspace, 3).await;

            // Others go on.
            namespace.create(&config_map("other", [("other", "1")])).await;
            is_called(&sidecar, &workspace, 4).await;
            namespace.delete(&gone).await;
            is_called(&sidecar, &workspace, 5).await;
            sidecar.holds([("a", "1"), ("b", "1"), ("other", "1")]).await;

            namespace.replace(&config_map("routes", [("a", "2"), ("c", "1")])).await;
            is_called(&sidecar, &workspace, 6).await;
            sidecar.holds([("a", "2"), ("c", "1"), ("other", "1")]).await;
            sidecar.says_times("held back until it changes", 1).await;
            sidecar.terminate().await;
            assert_eq!(calls(&workspace).len(), 6, "nobody was told without a reason");
        });
    }
}

#[test]
fn what_came_together_is_taken_back_together_and_waits_until_one_of_it_changes() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            namespace.create(&config_map("one", [("a", "1")])).await;
            let sidecar = launch(&namespace, &workspace, way).start();
            is_called(&sidecar, &workspace, 1).await;
            sidecar.signal(Signal::STOP);
            namespace.replace(&config_map("one", [("a", "2")])).await;
            namespace.create(&config_map("two", [("b", "BAD")])).await;
            sidecar.signal(Signal::CONT);
            let line = sidecar.says("held back until it changes").await;
            assert!(line.contains("/one, ConfigMap") && line.contains("/two held back"), "{line}");
            sidecar.holds([("a", "1")]).await;
            namespace.create(&config_map("three", [("c", "1")])).await;
            sidecar.holds([("a", "1"), ("c", "1")]).await;
            namespace.replace(&config_map("two", [("b", "2")])).await;
            sidecar.holds([("a", "2"), ("b", "2"), ("c", "1")]).await;
        });
    }
}

/// What an operator does with the object that makes the program refuse a batch.
#[derive(Clone, Copy, Debug)]
enum Remedy {
    Delete,
    Unlabel,
    Revert,
}

#[test]
fn good_changes_return_once_the_bad_object_leaves() {
    for (way, remedy) in
        WAYS.into_iter().flat_map(|way| [Remedy::Delete, Remedy::Unlabel, Remedy::Revert].map(|remedy| (way, remedy)))
    {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            namespace.create(&config_map("good", [("a", "1")])).await;
            let reverted = config_map("bad", [("b", "1")]);
            if let Remedy::Revert = remedy {
                namespace.create(&reverted).await;
            }
            let sidecar = launch(&namespace, &workspace, way).start();
            is_called(&sidecar, &workspace, 1).await;
            sidecar.signal(Signal::STOP);
            namespace.replace(&config_map("good", [("a", "2")])).await;
            let mut bad = config_map("bad", [("b", "BAD")]);
            match remedy {
                Remedy::Revert => namespace.replace(&bad).await,
                Remedy::Delete | Remedy::Unlabel => namespace.create(&bad).await,
            };
            sidecar.signal(Signal::CONT);
            sidecar.says("held back until it changes").await;
            is_called(&sidecar, &workspace, 3).await;
            // An unrelated change does not bring the batch back.
            namespace.create(&config_map("other", [("c", "1")])).await;
            is_called(&sidecar, &workspace, 4).await;
            assert_eq!(fs::read_to_string(workspace.path("a")).expect("the file"), "1", "{way} {remedy:?}");
            match remedy {
                Remedy::Delete => namespace.delete(&bad).await,
                Remedy::Unlabel => {
                    bad.metadata.labels = None;
                    namespace.replace(&bad).await;
                }
                Remedy::Revert => drop(namespace.replace(&reverted).await),
            }
            let with_reverted = matches!(remedy, Remedy::Revert).then_some(("b", "1"));
            sidecar.holds([("a", "2"), ("c", "1")].into_iter().chain(with_reverted)).await;
            is_called(&sidecar, &workspace, 5).await;
            sidecar.says_times("held back until it changes", 1).await;
        });
    }
}

/// The program needs a file. Its removal came with a good change, and both were refused.
#[test]
fn good_changes_return_once_a_removed_object_is_back() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let needed = namespace.create(&config_map("needed", [("needed", "1")])).await;
            namespace.create(&config_map("good", [("a", "1")])).await;
            let program = "date +%s%N >>calls; [ -e out/needed ]";
            let sidecar = launch_with(program, &namespace, &workspace, way).start();
            is_called(&sidecar, &workspace, 1).await;
            sidecar.signal(Signal::STOP);
            namespace.delete(&needed).await;
            namespace.replace(&config_map("good", [("a", "2")])).await;
            sidecar.signal(Signal::CONT);
            sidecar.says("held back until it changes").await;
            is_called(&sidecar, &workspace, 3).await;
            sidecar.holds([("a", "1"), ("needed", "1")]).await;
            namespace.create(&config_map("needed", [("needed", "1")])).await;
            sidecar.holds([("a", "2"), ("needed", "1")]).await;
            is_called(&sidecar, &workspace, 4).await;
        });
    }
}

/// The bad object is mended while the program still reads the files.
#[test]
fn a_fix_that_precedes_the_refusal_is_tried() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            namespace.create(&config_map("good", [("a", "1")])).await;
            let slow = "date +%s%N >>calls; grep -q BAD out/* || exit 0; until [ -e go ]; do sleep 0.02; done; exit 1";
            let launch = launch_with(slow, &namespace, &workspace, way).args(["--listen", "127.0.0.1:0"]);
            // The fix is not live before the refusal.
            let sidecar = launch.args(["--settle", "3s", "--settle-max", "3s"]).start();
            let endpoints = Endpoints::of(&sidecar).await;
            is_called(&sidecar, &workspace, 1).await;
            sidecar.signal(Signal::STOP);
            namespace.replace(&config_map("good", [("a", "2")])).await;
            namespace.create(&config_map("bad", [("b", "BAD"), ("c", "1")])).await;
            sidecar.signal(Signal::CONT);
            is_called(&sidecar, &workspace, 2).await;
            let fixed = namespace.replace(&config_map("bad", [("c", "2")])).await.metadata.resource_version;
            let is_seen = |object: &Value| object["seen"].as_str() == fixed.as_deref();
            endpoints
                .shows("the fix", |status| status["objects"].as_array().is_some_and(|all| all.iter().any(is_seen)))
                .await;
            fs::write(workspace.beside("go"), "").expect("a file");
            sidecar.soon_holds([("a", "2"), ("c", "2")]).await;
        });
    }
}

#[test]
fn a_url_says_so_by_a_4xx_and_not_by_what_is_about_the_call() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            namespace.create(&config_map("routes", [("a", "200")])).await;
            let called = Arc::new(Mutex::new(Vec::new()));
            let (calls, file) = (Arc::clone(&called), workspace.path("a"));
            // The file says what to answer.
            let server = serve(ANY, move |_| {
                let status = fs::read_to_string(&file).expect("the file is there at every moment");
                calls.lock().expect("nobody panics with it").push(status.clone());
                status.parse().expect("a status")
            });
            let url = format!("http://{server}/-/reload");
            let launch = Launch::within(&namespace, &workspace).args(["--rollback", "--publish", way, "--url", &url]);
            let sidecar = launch.start();
            let called = async |wanted: &[&str]| {
                sidecar
                    .until(&format!("the calls {wanted:?}"), || {
                        match called.lock().expect("nobody panics with it").clone() {
                            calls if calls == wanted => Ok(()),
                            calls => Err(format!("{calls:?}")),
                        }
                    })
                    .await;
            };
            called(&["200"]).await;
            namespace.replace(&config_map("routes", [("a", "422")])).await;
            called(&["200", "422", "200"]).await;
            sidecar.says("held back until it changes").await;
            sidecar.holds([("a", "200")]).await;
            // The program may only be busy: that is tried again, and nothing is taken back.
            namespace.replace(&config_map("routes", [("a", "503")])).await;
            called(&["200", "422", "200", "503", "503"]).await;
            sidecar.holds([("a", "503")]).await;
            namespace.replace(&config_map("routes", [("a", "204")])).await;
            sidecar.holds([("a", "204")]).await;
            sidecar.says_times("held back until it changes", 1).await;
        });
    }
}

#[test]
fn a_program_that_refuses_its_good_files_as_well_is_told_later_and_later_and_nothing_else_is_taken_back() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            namespace.create(&config_map("routes", [("a", "1")])).await;
            let sidecar = launch(&namespace, &workspace, way).start();
            is_called(&sidecar, &workspace, 1).await;
            sidecar.says("in sync").await;
            let broken = workspace.beside("broken");
            fs::write(&broken, "").expect("a file");
            namespace.replace(&config_map("routes", [("a", "2")])).await;
            is_called(&sidecar, &workspace, 5).await;
            sidecar.holds([("a", "1")]).await;
            let [_, refused, back, again, later] = calls(&workspace)[..] else { panic!("five calls") };
            let seconds = |from, to| Duration::from_nanos(to - from).as_secs_f32();
            assert!(seconds(back, again) > 0.8, "{}", seconds(back, again));
            assert!(seconds(again, later) > 1.6, "{}", seconds(again, later));
            assert!(refused < back);
            sidecar.says_times("held back until it changes", 1).await;

            fs::remove_file(&broken).expect("the file");
            namespace.replace(&config_map("routes", [("a", "3")])).await;
            sidecar.holds([("a", "3")]).await;
            let told = calls(&workspace).len();
            sidecar
                .until("a call that succeeds", || match calls(&workspace).len() {
                    calls if calls > told || calls == 6 => Ok(()),
                    calls => Err(format!("{calls} calls")),
                })
                .await;
        });
    }
}

#[test]
fn first_files_have_nothing_to_go_back_to_and_stay() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            fs::write(workspace.beside("broken"), "").expect("a file");
            namespace.create(&config_map("routes", [("a", "1")])).await;
            let sidecar = launch(&namespace, &workspace, way).start();
            is_called(&sidecar, &workspace, 2).await;
            sidecar.holds([("a", "1")]).await;
            assert_eq!(sidecar.lines_with(&["held back"]), [""; 0]);
            fs::remove_file(workspace.beside("broken")).expect("the file");
            is_called(&sidecar, &workspace, 3).await;
            namespace.replace(&config_map("routes", [("a", "BAD")])).await;
            sidecar.says("held back until it changes").await;
            sidecar.holds([("a", "1")]).await;
        });
    }
}

#[test]
fn after_a_restart_what_was_taken_back_is_tried_once_more() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            namespace.create(&config_map("routes", [("a", "1")])).await;
            let launch = launch(&namespace, &workspace, way);
            let sidecar = launch.start();
            is_called(&sidecar, &workspace, 1).await;
            namespace.replace(&config_map("routes", [("a", "BAD")])).await;
            is_called(&sidecar, &workspace, 3).await;
            sidecar.terminate().await;
            let sidecar = launch.start();
            sidecar.says("held back until it changes").await;
            is_called(&sidecar, &workspace, 5).await;
            sidecar.holds([("a", "1")]).await;
        });
    }
}

/// The bump fails, but there is nothing to go back to: what is being checked meanwhile goes on.
#[test]
fn a_refusal_does_not_lose_what_is_being_checked() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        fs::write(workspace.beside("broken"), "").expect("a file");
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let check = workspace.beside("check");
        let script = "[ ! -e \"$CONFIG_BUMP_CANDIDATE/b\" ] || { : >checking; until [ -e go ]; do sleep 0.02; done; }";
        fs::write(&check, format!("cd '{}'\n{script}", workspace.beside("").display())).expect("a file");
        let launch = launch(&namespace, &workspace, "file");
        let sidecar = launch.args(["--check", &format!("sh '{}'", check.display())]).start();
        is_called(&sidecar, &workspace, 1).await;
        namespace.create(&config_map("other", [("b", "1")])).await;
        let checking = || if workspace.beside("checking").exists() { Ok(()) } else { Err("none".to_owned()) };
        sidecar.until("a check", checking).await;
        // The program is told of `a` once more, and refuses it again.
        let told = calls(&workspace).len();
        is_called(&sidecar, &workspace, told + 1).await;
        fs::write(workspace.beside("go"), "").expect("a file");
        sidecar.holds([("a", "1"), ("b", "1")]).await;
    });
}

/// The program is asked by a run that did not see the files that it took last.
#[test]
fn a_kill_between_the_publish_and_the_refusal_does_not_lose_the_way_back() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let gone = namespace.create(&config_map("gone", [("gone", "1")])).await;
            namespace.create(&config_map("routes", [("a", "1"), ("b", "1")])).await;
            let launch = launch(&namespace, &workspace, way);
            let sidecar = launch.start();
            is_told(&sidecar, &workspace).await;
            sidecar.terminate().await;
            // No bump before the kill.
            let slow = launch.clone().args(["--min-interval", "1h", "--initial-bump", "always"]);
            let sidecar = slow.start();
            is_called(&sidecar, &workspace, 2).await;
            sidecar.says("ran `sh`").await;
            sidecar.signal(Signal::STOP);
            namespace.replace(&config_map("routes", [("a", "BAD"), ("c", "1")])).await;
            namespace.delete(&gone).await;
            sidecar.signal(Signal::CONT);
            sidecar.soon_holds([("a", "BAD"), ("c", "1")]).await;
            sidecar.kill();
            assert_eq!(calls(&workspace).len(), 2);
            let sidecar = launch.start();
            sidecar.says("held back until it changes").await;
            sidecar.soon_holds([("a", "1"), ("b", "1"), ("gone", "1")]).await;
            is_told(&sidecar, &workspace).await;
            namespace.replace(&config_map("routes", [("a", "2")])).await;
            sidecar.soon_holds([("a", "2")]).await;
        });
    }
}

/// Waits until the record says that everybody has been told.
async fn is_told(sidecar: &Sidecar<'_>, workspace: &Workspace) {
    let record = || fs::read_to_string(workspace.path(".configbump/record")).unwrap_or_default();
    let told = || if record().ends_with("\"told\"\n") { Ok(()) } else { Err(record()) };
    sidecar.until("the end of the last call", told).await;
}
