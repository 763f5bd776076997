//! `--max-delete`: the removal of many files at once, or of the last one, is held, and then done only if the source still says so.

use k8s_openapi::api::core::v1::ConfigMap;
use rustix::process::Signal;
use serde_json::json;

use crate::harness::account::{Account, least};
use crate::harness::cluster::ApiServer;
use crate::harness::endpoints::Endpoints;
use crate::harness::link::{Link, State};
use crate::harness::namespace::Namespace;
use crate::harness::object::{annotated, config_map};
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

const FOLDER: &str = "example.com/folder";

/// Objects with a file each in the directory `f`.
async fn objects_in_directory(namespace: &Namespace, count: usize) -> Vec<ConfigMap> {
    let names: Vec<_> = (0..count).map(|number| format!("file-{number}")).collect();
    let objects: Vec<_> = names.iter().map(|name| annotated(config_map(name, [(name, "1")]), FOLDER, "f")).collect();
    namespace.create_all(&objects).await;
    objects
}

/// Their files.
fn files_in_directory(objects: &[ConfigMap]) -> Vec<(String, String)> {
    files(objects).into_iter().map(|(name, content)| (format!("f/{name}"), content)).collect()
}

/// A younger object wants a file `f`, and waits for it behind the files in the directory `f`.
#[test]
fn a_waiting_claim_does_not_disarm_the_guard() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let all = objects_in_directory(&namespace, 20).await;
            let last = namespace.api::<ConfigMap>().get("file-19").await.expect("the object");
            namespace.wait_to_be_younger_than(&last).await;
            namespace.create(&config_map("young", [("f", "1")])).await;
            let launch = Launch::within(&namespace, &workspace).args(["--publish", way, "--folder-annotation", FOLDER]);
            let launch = launch.args(["--max-delete", "30%"]);
            let sidecar = launch.clone().args(["--max-delete-hold", "1h"]).start();
            sidecar.says("waits for it").await;
            sidecar.holds(files_in_directory(&all)).await;
            delete(&sidecar, &namespace, &all[..15]).await;
            sidecar.says("15 of 20 files are to be removed at once").await;
            // The young object wins once all are gone, and waits for its path.
            delete(&sidecar, &namespace, &all[15..]).await;
            namespace.create(&config_map("new", [("new", "1")])).await;
            sidecar.holds([files_in_directory(&all), vec![("new".to_owned(), "1".to_owned())]].concat()).await;
            sidecar.kill();
            let sidecar = launch.args(["--max-delete-hold", "2s"]).start();
            sidecar.says("20 of 22 files are to be removed at once").await;
            sidecar.says("the source still says so").await;
            sidecar.holds([("f", "1"), ("new", "1")]).await;
        });
    }
}

#[test]
fn an_older_winner_waits_for_the_files_it_replaces() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let old = namespace.create(&config_map("old", [("other", "1")])).await;
            namespace.wait_to_be_younger_than(&old).await;
            let all = objects_in_directory(&namespace, 15).await;
            let launch = Launch::within(&namespace, &workspace).args(["--publish", way, "--folder-annotation", FOLDER]);
            let launch = launch.args(["--max-delete", "30%"]);
            let sidecar = launch.clone().args(["--max-delete-hold", "1h"]).start();
            let with_other =
                |content: &str| [files_in_directory(&all), vec![("other".to_owned(), content.to_owned())]].concat();
            sidecar.holds(with_other("1")).await;
            let identities =
                || files_in_directory(&all).iter().map(|(path, _)| workspace.identity(path)).collect::<Vec<_>>();
            let before = identities();
            namespace.replace(&config_map("old", [("other", "2"), ("f", "1")])).await;
            sidecar.says("15 of 17 files are to be removed at once").await;
            sidecar.holds(with_other("2")).await;
            // The winner gives the path up again.
            namespace.replace(&config_map("old", [("other", "3")])).await;
            sidecar.says("is wanted again").await;
            sidecar.holds(with_other("3")).await;
            assert_eq!(identities(), before, "no file was written again");
            namespace.replace(&config_map("old", [("other", "4"), ("f", "1")])).await;
            sidecar.says_times("15 of 17 files are to be removed at once", 2).await;
            sidecar.holds(with_other("4")).await;
            sidecar.kill();
            let sidecar = launch.args(["--max-delete-hold", "2s"]).start();
            sidecar.says("15 of 17 files are to be removed at once").await;
            sidecar.says("the source still says so").await;
            sidecar.holds([("f", "1"), ("other", "4")]).await;
        });
    }
}

/// One namespace is forbidden while the removal of files of another one is to be confirmed.
#[test]
fn a_forbidden_namespace_does_not_freeze_others() {
    for options in [&["--publish", "set"][..], &["--check", "true"], &["--rollback", "--exec", "true"], &[]] {
        run(async {
            let (a, b, workspace) = (Namespace::new().await, Namespace::new().await, Workspace::new());
            let account = Account::new(&a, "sidecar").await;
            for namespace in [&a, &b] {
                account.allow(namespace, least(&["configmaps"])).await;
            }
            let access = ApiServer::shared().access(&account.token().await);
            let of_a = objects(&a).await;
            b.create(&config_map("b", [("b", "1")])).await;
            let with_b = |objects: &[ConfigMap]| [files(objects), vec![("b".to_owned(), "1".to_owned())]].concat();
            let namespaces = format!("{},{}", a.name, b.name);
            let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespaces]);
            let launch = launch.args(["--max-delete", "50%", "--max-delete-hold", "2s"]).args(options.iter().copied());
            let sidecar = launch.start();
            sidecar.holds(with_b(&of_a)).await;
            account.forbid(&b, &least(&["configmaps"])).await;
            delete(&sidecar, &a, &of_a[..9]).await;
            sidecar.says("9 of 11 files").await;
            sidecar.says("asking once more").await;
            sidecar.holds(with_b(&of_a[9..])).await;
            a.create(&config_map("new", [("new", "1")])).await;
            sidecar.holds([with_b(&of_a[9..]), vec![("new".to_owned(), "1".to_owned())]].concat()).await;
        });
    }
}

/// Its own removals wait until it answers, which the log and `/status` say.
#[test]
fn removals_of_a_forbidden_namespace_wait_visibly() {
    for way in WAYS {
        run(async {
            let (a, b, workspace) = (Namespace::new().await, Namespace::new().await, Workspace::new());
            let account = Account::new(&a, "sidecar").await;
            for namespace in [&a, &b] {
                account.allow(namespace, least(&["configmaps"])).await;
            }
            let access = ApiServer::shared().access(&account.token().await);
            a.create(&config_map("a", [("a", "1")])).await;
            let of_b = objects(&b).await;
            let namespaces = format!("{},{}", a.name, b.name);
            let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespaces, "--publish", way]);
            let launch = launch.args(["--max-delete", "50%", "--max-delete-hold", "8s", "--listen", "127.0.0.1:0"]);
            let sidecar = launch.start();
            let endpoints = Endpoints::of(&sidecar).await;
            let with_a = |content: &str, objects: &[ConfigMap]| {
                [files(objects), vec![("a".to_owned(), content.to_owned())]].concat()
            };
            sidecar.holds(with_a("1", &of_b)).await;
            delete(&sidecar, &b, &of_b[..9]).await;
            sidecar.says("9 of 11 files").await;
            account.forbid(&b, &least(&["configmaps"])).await;
            sidecar.says("asking once more").await;
            let waits = format!("9 removals wait until configmaps in namespace {} confirms them by a list", b.name);
            endpoints.shows(&waits, |status| status["waits"] == json!([waits])).await;
            a.replace(&config_map("a", [("a", "2")])).await;
            sidecar.holds(with_a("2", &of_b)).await;
            let line = sidecar.soon_says("removals wait until").await;
            assert!(line.contains(&waits), "{line}");
            account.bind(&b, &least(&["configmaps"])).await;
            sidecar.soon_holds(with_a("2", &of_b[9..])).await;
            sidecar.says("nothing waits for the source any more").await;
            endpoints.shows("no waits", |status| status["waits"] == json!([])).await;
        });
    }
}
