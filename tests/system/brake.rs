//! `--max-delete`: the removal of many files at once, or of the last one, is held, and then done only if the source still says so.

use k8s_openapi::api::core::v1::ConfigMap;
use rustix::process::Signal;

use crate::harness::cluster::ApiServer;
use crate::harness::link::{Link, State};
use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::sidecar::{Launch, Sidecar, WAYS};
use crate::harness::wait::run;
use crate::harness::witness::Witness;
use crate::harness::workspace::Workspace;

const OBJECTS: usize = 10;

/// One that holds the removal of more than half of the files for so long.
fn launch<'w>(namespace: &Namespace, workspace: &'w Workspace, way: &str, hold: &str) -> Launch<'w> {
    let launch = Launch::within(namespace, workspace).args(["--publish", way, "--max-delete", "50%"]);
    launch.args(["--max-delete-hold", hold])
}

/// Objects with a file each.
async fn objects(namespace: &Namespace) -> Vec<ConfigMap> {
    let names: Vec<_> = (0..OBJECTS).map(|number| format!("file-{number}")).collect();
    let objects: Vec<_> = names.iter().map(|name| config_map(name, [(name, "1")])).collect();
    namespace.create_all(&objects).await;
    objects
}

/// The files of these.
fn files(objects: &[ConfigMap]) -> Vec<(String, String)> {
    objects.iter().flat_map(|object| object.data.clone().expect("data")).collect()
}

/// Deletes all of them at once, however slow the machine is.
async fn delete(sidecar: &Sidecar<'_>, namespace: &Namespace, objects: &[ConfigMap]) {
    sidecar.signal(Signal::STOP);
    namespace.delete_all(objects).await;
    sidecar.signal(Signal::CONT);
}

#[test]
fn the_removal_of_many_files_is_held_loudly_and_done_if_the_source_still_says_so() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let all = objects(&namespace).await;
            let sidecar = launch(&namespace, &workspace, way, "3s").start();
            sidecar.holds(files(&all)).await;
            let mut witness = Witness::of(&workspace);
            delete(&sidecar, &namespace, &all[..6]).await;
            let line = sidecar.says("6 of 10 files are to be removed at once").await;
            for part in ["WARN", "--max-delete", "held for 3s", "remove fewer"] {
                assert!(line.contains(part), "no {part:?} in {line}");
            }
            // What else there is goes on meanwhile.
            namespace.create(&config_map("new", [("new", "1")])).await;
            let with_new = |objects: &[ConfigMap]| [files(objects), vec![("new".to_owned(), "1".to_owned())]].concat();
            sidecar.holds(with_new(&all)).await;
            witness.saw_nothing_go();
            sidecar.says("the source still says so").await;
            sidecar.holds(with_new(&all[6..])).await;
            sidecar.says_times("are to be removed at once", 1).await;
        });
    }
}

#[test]
fn what_comes_back_in_time_is_never_gone_and_few_removals_go_at_once() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let all = objects(&namespace).await;
            let sidecar = launch(&namespace, &workspace, way, "1h").start();
            sidecar.holds(files(&all)).await;
            let mut witness = Witness::of(&workspace);
            let identities = || files(&all).iter().map(|(path, _)| workspace.identity(path)).collect::<Vec<_>>();
            let before = identities();
            delete(&sidecar, &namespace, &all[..8]).await;
            sidecar.says("8 of 10 files").await;
            namespace.create_all(&all[..8]).await;
            sidecar.says("is wanted again").await;
            sidecar.holds(files(&all)).await;
            witness.saw_nothing_go();
            assert_eq!(identities(), before);
            // And that is forgotten: what flaps counts once.
            delete(&sidecar, &namespace, &all[..5]).await;
            sidecar.holds(files(&all[5..])).await;
            namespace.create_all(&all[..5]).await;
            sidecar.holds(files(&all)).await;
            delete(&sidecar, &namespace, &all[..5]).await;
            sidecar.holds(files(&all[5..])).await;
            sidecar.says_times("are to be removed at once", 1).await;
        });
    }
}

/// Some of what is held comes back: the rest is no longer too much.
#[test]
fn what_is_left_of_a_held_removal_goes_when_it_is_few() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let all = objects(&namespace).await;
            let sidecar = launch(&namespace, &workspace, way, "1h").start();
            sidecar.holds(files(&all)).await;
            delete(&sidecar, &namespace, &all[..8]).await;
            sidecar.says("8 of 10 files").await;
            namespace.create_all(&all[..5]).await;
            sidecar.holds([files(&all[..5]), files(&all[8..])].concat()).await;
        });
    }
}

#[test]
fn the_last_file_is_held_whatever_its_share() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let (first, last) = (config_map("first", [("a", "1")]), config_map("last", [("b", "1")]));
            namespace.create_all(&[first.clone(), last.clone()]).await;
            let launch = Launch::within(&namespace, &workspace).args(["--publish", way, "--max-delete", "100%"]);
            let sidecar = launch.args(["--max-delete-hold", "2s"]).start();
            sidecar.holds([("a", "1"), ("b", "1")]).await;
            namespace.delete(&first).await;
            sidecar.holds([("b", "1")]).await;
            let mut witness = Witness::of(&workspace);
            namespace.delete(&last).await;
            sidecar.says("1 of 1 files").await;
            sidecar.holds([("b", "1")]).await;
            witness.saw_nothing_go();
            sidecar.holds_nothing().await;
        });
    }
}

#[test]
fn a_file_that_takes_another_name_is_no_last_file() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            namespace.create(&config_map("routes", [("a", "1")])).await;
            let sidecar = launch(&namespace, &workspace, way, "1h").start();
            sidecar.holds([("a", "1")]).await;
            namespace.replace(&config_map("routes", [("b", "1")])).await;
            sidecar.holds([("b", "1")]).await;
            assert_eq!(sidecar.lines_with(&["--max-delete"]), [""; 0]);
        });
    }
}

#[test]
fn a_restart_holds_what_was_held() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let all = objects(&namespace).await;
            let held = launch(&namespace, &workspace, way, "1h");
            let sidecar = held.start();
            sidecar.holds(files(&all)).await;
            delete(&sidecar, &namespace, &all).await;
            sidecar.says("10 of 10 files").await;
            sidecar.kill();
            let mut witness = Witness::of(&workspace);
            let sidecar = held.start();
            sidecar.says("10 of 10 files").await;
            sidecar.in_sync().await;
            sidecar.holds(files(&all)).await;
            sidecar.kill();
            witness.saw_nothing_go();
            let sidecar = launch(&namespace, &workspace, way, "1s").start();
            sidecar.holds_nothing().await;
        });
    }
}

/// While it is held the server is away, and what was deleted comes back: nobody is told of that until the server is asked.
#[test]
fn what_is_held_does_not_go_before_the_source_has_been_asked_once_more() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let all = objects(&namespace).await;
            let mut access = ApiServer::shared().admin_access();
            let link = Link::to(access.address, State::Up).await;
            access.address = link.address;
            let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name]);
            // The link may hand the events on in pieces, which are one removal all the same.
            let launch =
                launch.args(["--publish", way, "--max-delete", "50%", "--max-delete-hold", "2s", "--settle", "2s"]);
            let sidecar = launch.args(["--settle-max", "20s"]).start();
            sidecar.holds(files(&all)).await;
            let mut witness = Witness::of(&workspace);
            delete(&sidecar, &namespace, &all).await;
            sidecar.says("10 of 10 files").await;
            link.set(State::Down);
            namespace.create_all(&all[..7]).await;
            sidecar.says("asking once more").await;
            // It has tried, and got no answer.
            let before = link.accepted();
            let tried = || if link.accepted() >= before + 2 { Ok(()) } else { Err(String::new()) };
            sidecar.until("two attempts", tried).await;
            sidecar.holds(files(&all)).await;
            witness.saw_nothing_go();
            link.set(State::Up);
            sidecar.soon_holds(files(&all[..7])).await;
            let removed = witness.removed();
            assert!(all[7..].iter().all(|gone| removed.contains(gone.metadata.name.as_ref().expect("a name"))));
            assert_eq!(removed.len(), 3, "{removed:?}");
        });
    }
}

#[test]
fn a_brake_that_is_off_or_loose_changes_nothing() {
    for options in [&[][..], &["--max-delete", "0.9"]] {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let all = objects(&namespace).await;
            let sidecar = Launch::within(&namespace, &workspace).args(options.iter().copied()).start();
            sidecar.holds(files(&all)).await;
            delete(&sidecar, &namespace, &all[..9]).await;
            sidecar.holds(files(&all[9..])).await;
            assert_eq!(sidecar.lines_with(&["--max-delete"]), [""; 0]);
        });
    }
}

#[test]
fn once_says_that_removals_are_held_and_fails() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let all = objects(&namespace).await;
            let once = launch(&namespace, &workspace, way, "1h").args(["--once"]);
            let ended = once.run().await;
            assert_eq!(ended.code, Some(0), "{ended:?}");
            namespace.delete_all(&all[..8]).await;
            let ended = once.run().await;
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert!(ended.stderr.contains("holds 2 files of 2 objects, and 8 whose removal is held"), "{ended:?}");
            assert_eq!(workspace.files().paths().len(), 10);
        });
    }
}

/// While the answer to the question is awaited, more goes: that is a removal of its own.
#[test]
fn what_goes_after_the_source_was_asked_has_a_hold_of_its_own() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let mut access = ApiServer::shared().admin_access();
            let link = Link::to(access.address, State::Up).await;
            access.address = link.address;
            let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name]);
            let launch = launch.args(["--publish", way, "--max-delete", "50%", "--max-delete-hold", "3s"]);
            // What comes through a link comes in pieces where the machine has much else to do.
            let launch = launch.args(["--settle", "2s", "--settle-max", "20s"]);
            let all = objects(&namespace).await;
            let sidecar = launch.start();
            sidecar.holds(files(&all)).await;
            delete(&sidecar, &namespace, &all[..6]).await;
            sidecar.says("6 of 10 files are to be removed at once").await;
            link.set(State::Down);
            sidecar.says("asking once more").await;
            let mut witness = Witness::of(&workspace);
            // The answer has them gone as well.
            namespace.delete_all(&all[6..]).await;
            link.set(State::Up);
            sidecar.soon_holds(files(&all[6..])).await;
            sidecar.says("4 of 4 files are to be removed at once").await;
            assert_eq!(witness.removed().len(), 6);
            sidecar.holds_nothing().await;
        });
    }
}
