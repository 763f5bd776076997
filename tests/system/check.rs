//! Nothing goes live that `--check` does not accept; all else does.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::ConfigMap;
use rustix::process::Signal;

use crate::harness::cluster::free_address;
use crate::harness::namespace::Namespace;
use crate::harness::object::{annotated, config_map};
use crate::harness::poller::Poller;
use crate::harness::program::Program;
use crate::harness::sidecar::{Launch, Sidecar, WAYS};
use crate::harness::wait::{PATIENCE, run, until};
use crate::harness::web::get;
use crate::harness::workspace::Workspace;
use crate::{haproxy, nginx};

/// One whose check is this piece of shell, in the folder beside DIR.
fn checking<'w>(namespace: &Namespace, workspace: &'w Workspace, script: &str) -> Launch<'w> {
    let path = workspace.fresh("check");
    fs::write(&path, format!("cd '{}'\n{script}\n", workspace.beside("").display())).expect("a file");
    Launch::within(namespace, workspace).args(["--check", &format!("sh '{}'", path.display())])
}

/// Refuses trees in which any file says so, and counts how often it is asked.
const NO_BAD_ONE: &str = r#"echo asked >>asked; ! grep -r BAD "$CONFIG_BUMP_CANDIDATE""#;

fn asked(workspace: &Workspace) -> usize {
    fs::read_to_string(workspace.beside("asked")).unwrap_or_default().lines().count()
}

/// Has all changes come together, however slow the machine is.
async fn together(sidecar: &Sidecar<'_>, changes: impl AsyncFnOnce()) {
    sidecar.signal(Signal::STOP);
    changes().await;
    sidecar.signal(Signal::CONT);
}

/// The objects of a scenario with a real server.
struct Pieces {
    site: fn(SocketAddr, &str) -> ConfigMap,
    /// Goes with any site.
    extra: ConfigMap,
    /// Of the same object: what the server refuses, and what it does not.
    broken: ConfigMap,
    mended: ConfigMap,
    broken_site: ConfigMap,
    /// What is only in what the server refuses.
    marker: &'static str,
    /// What the server says of the broken object.
    complaint: String,
}

/// Has one broken object and then another among good ones, a restart between, and both mended in the end.
async fn nothing_broken_arrives(
    namespace: &Namespace,
    launch: &Launch<'_>,
    address: SocketAddr,
    start: impl FnOnce() -> Program,
    pieces: Pieces,
) {
    let Pieces { site, extra, broken, mended, broken_site, marker, complaint } = pieces;
    let workspace = launch.workspace();
    namespace.create(&site(address, "first")).await;
    let sidecar = launch.start();
    sidecar.in_sync().await;
    let server = start();
    nginx::answers(address, "first").await;
    let dir = workspace.dir();
    let watch = Poller::start(move |looks: &mut u64| {
        *looks += 1;
        for entry in fs::read_dir(&dir).expect("DIR") {
            let path = entry.expect("an entry of a folder").path();
            let name = path.file_name().expect("a name").as_encoded_bytes();
            if !name.starts_with(b".")
                && let Ok(text) = fs::read_to_string(&path)
            {
                assert!(!text.contains(marker), "{} is live", path.display());
            }
        }
    });

    together(&sidecar, async || {
        namespace.replace(&site(address, "second")).await;
        namespace.create(&broken).await;
        namespace.create(&extra).await;
    })
    .await;
    nginx::answers(address, "second").await;
    let files = |parts: &[&ConfigMap]| -> Vec<(String, String)> {
        parts.iter().flat_map(|part| part.data.clone().expect("data")).collect()
    };
    sidecar.holds(files(&[&site(address, "second"), &extra])).await;
    let held = sidecar.says("held back:").await;
    assert!(held.contains(&format!("ConfigMap {}/broken held back: --check: ", namespace.name)), "{held}");
    sidecar.says(&complaint).await;

    namespace.replace(&broken_site).await;
    sidecar.says(&format!("ConfigMap {}/site held back", namespace.name)).await;
    sidecar.says_times("held back:", 2).await;
    sidecar.kill();
    let sidecar = launch.start();
    sidecar.says("but for 2 that are held back").await;
    sidecar.holds(files(&[&site(address, "second"), &extra])).await;
    assert_eq!(get(address).await.expect("an answer"), "second");

    namespace.replace(&mended).await;
    sidecar.holds(files(&[&site(address, "second"), &extra, &mended])).await;
    namespace.replace(&site(address, "third")).await;
    nginx::answers(address, "third").await;
    assert!(watch.stop() > 0);
    assert!(server.is_running());
    sidecar.terminate().await;
}

fn nginx_pieces(workspace: &Workspace) -> Pieces {
    Pieces {
        site: |_, answer| nginx::site(answer),
        extra: config_map("extra", [("extra.conf", "location /extra { return 204; }\n")]),
        broken: config_map("broken", [("broken.conf", "lokation /broken { return 204; }\n")]),
        mended: config_map("broken", [("broken.conf", "location /broken { return 204; }\n")]),
        broken_site: config_map("site", [("site.conf", "lokation / { return 200 third; }\n")]),
        marker: "lokation",
        complaint: format!("unknown directive \"lokation\" in {}:1", workspace.path("broken.conf").display()),
    }
}

#[test]
fn nginx_never_reads_what_its_own_check_refuses_and_the_rest_arrives() {
    for way in WAYS {
        run(async {
            let (namespace, workspace, address) = (Namespace::new().await, Workspace::new(), free_address());
            let arguments = nginx::arguments(&workspace, address);
            let master = format!("nginx: master process nginx -p {}", workspace.beside("nginx").display());
            let launch = Launch::within(&namespace, &workspace).args(["--signal", "HUP", "--process-command", &master]);
            let launch = launch.args(["--publish", way, "--check", &nginx::check(&workspace)]);
            let start = || Program::start(&workspace, "nginx", arguments);
            nothing_broken_arrives(&namespace, &launch, address, start, nginx_pieces(&workspace)).await;
            let complaints = fs::read_to_string(workspace.beside("nginx/error.log")).expect("nginx's log");
            assert!(!complaints.contains("[emerg]"), "nginx itself was told of it: {complaints}");
        });
    }
}

#[test]
fn haproxy_never_reads_what_its_own_check_refuses_and_the_rest_arrives() {
    for way in WAYS {
        run(async {
            let (namespace, workspace, address) = (Namespace::new().await, Workspace::new(), free_address());
            let launch = haproxy::launch(&namespace, &workspace);
            let launch = launch.args(["--publish", way, "--check", &haproxy::check(&workspace)]);
            let start = || haproxy::start(&workspace);
            let pieces = Pieces {
                site: haproxy::site,
                extra: config_map("extra", [("extra.cfg", "backend extra\n    http-request return status 204\n")]),
                broken: config_map("broken", [("broken.cfg", "backend broken\n    lokation /\n")]),
                mended: config_map("broken", [("broken.cfg", "backend broken\n    http-request return status 204\n")]),
                broken_site: config_map("site", [("site.cfg", "frontend site\n    lokation /\n")]),
                marker: "lokation",
                complaint: format!("[{}:2]", workspace.path("broken.cfg").display()),
            };
            nothing_broken_arrives(&namespace, &launch, address, start, pieces).await;
        });
    }
}

#[test]
fn a_deletion_that_breaks_others_is_held_until_they_go_along() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let backend = "backend needed\n    http-request return status 204\n";
            let needed = config_map("needed", [("needed.cfg", backend)]);
            let frontend = format!("frontend user\n    bind {}\n    default_backend needed\n", free_address());
            let user = config_map("user", [("user.cfg", &frontend)]);
            // Without any listener HAProxy would not start.
            let listener = format!("frontend other\n    bind {}\n", free_address());
            let other = config_map("other", [("other.cfg", &listener)]);
            namespace.create_all(&[needed.clone(), user.clone(), other]).await;
            let check = haproxy::check(&workspace);
            let launch = Launch::within(&namespace, &workspace).args(["--publish", way, "--check", &check]);
            let sidecar = launch.start();
            let all = [("needed.cfg", backend), ("other.cfg", &listener), ("user.cfg", &frontend)];
            sidecar.holds(all).await;
            namespace.delete(&needed).await;
            sidecar.says(&format!("ConfigMap {}/needed held back", namespace.name)).await;
            sidecar.says("unable to find required default_backend").await;
            sidecar.holds(all).await;
            // What stays is still known to be a file without an object.
            sidecar.kill();
            let sidecar = launch.start();
            sidecar.says(&format!("ConfigMap {}/needed held back", namespace.name)).await;
            sidecar.holds(all).await;
            namespace.delete(&user).await;
            sidecar.holds([("other.cfg", &listener)]).await;
        });
    }
}

/// The two are changed one after the other, so the first fails alone.
#[test]
fn what_lacked_another_object_goes_live_with_it() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let script = r#"cd "$CONFIG_BUMP_CANDIDATE"; [ ! -e user ] || [ -e needed ]"#;
            let sidecar = checking(&namespace, &workspace, script).args(["--publish", way]).start();
            sidecar.in_sync().await;
            namespace.create(&config_map("user", [("user", "1")])).await;
            sidecar.says("user held back").await;
            sidecar.holds_nothing().await;
            namespace.create(&config_map("needed", [("needed", "1")])).await;
            sidecar.holds([("needed", "1"), ("user", "1")]).await;
        });
    }
}

#[test]
fn the_candidate_has_every_file_in_the_file_system_of_dir_and_is_named_twice() {
    const FOLDER: &str = "example.com/folder";
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let script = r#"
                { echo "$1"; echo "$CONFIG_BUMP_CANDIDATE"; echo "$CONFIG_BUMP_DIR"; stat -c %d "$1"; } >new
                (cd "$1" && find . -type f -exec sh -c 'echo "$1=$(cat "$1")"' sh {} \; | sort) >>new
                mv new seen-$(ls seen-* 2>/dev/null | wc -l)"#;
            let path = workspace.beside("check");
            fs::write(&path, format!("cd '{}'\n{script}", workspace.beside("").display())).expect("a file");
            let check = format!("sh '{}' '{{}}'", path.display());
            let nested = annotated(config_map("nested", [("c", "1"), ("empty", "")]), FOLDER, "a/b");
            namespace.create_all(&[config_map("flat", [("a.b", "1"), ("x", "1")]), nested]).await;
            let launch = Launch::within(&namespace, &workspace).args(["--check", &check, "--publish", way]);
            let sidecar = launch.args(["--folder-annotation", FOLDER]).start();
            sidecar.in_sync().await;
            let seen = |number: usize| {
                let text = fs::read_to_string(workspace.beside(&format!("seen-{number}"))).expect("what the check saw");
                let lines: Vec<_> = text.lines().map(str::to_owned).collect();
                let tree = PathBuf::from(&lines[0]);
                assert_eq!(lines[1], lines[0]);
                assert_eq!(lines[2], workspace.dir().display().to_string());
                assert_eq!(lines[3], fs::metadata(workspace.dir()).expect("DIR").dev().to_string());
                assert!(tree.starts_with(workspace.dir()), "{}", tree.display());
                lines[4..].to_vec()
            };
            assert_eq!(seen(0), ["./a.b=1", "./a/b/c=1", "./a/b/empty=", "./x=1"]);
            namespace.replace(&config_map("flat", [("a.b", "2"), ("y", "2")])).await;
            sidecar.holds([("a.b", "2"), ("a/b/c", "1"), ("a/b/empty", ""), ("y", "2")]).await;
            assert_eq!(seen(1), ["./a.b=2", "./a/b/c=1", "./a/b/empty=", "./y=2"]);
        });
    }
}

#[test]
fn one_culprit_among_many_is_found_and_the_log_has_the_end_of_what_the_check_wrote() {
    const OBJECTS: usize = 40;
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let script = format!("{NO_BAD_ONE} || {{ seq -f 'line %g of a long story' 10000; exit 3; }}");
        let sidecar = checking(&namespace, &workspace, &script).start();
        sidecar.in_sync().await;
        assert_eq!(asked(&workspace), 0, "there was nothing to ask for");
        let names: Vec<_> = (0..OBJECTS).map(|number| format!("{number:02}")).collect();
        let value = |name: &str| if name == "17" { "BAD" } else { "good" };
        let objects: Vec<_> = names.iter().map(|name| config_map(name, [(name, value(name))])).collect();
        together(&sidecar, async || namespace.create_all(&objects).await).await;
        sidecar.holds(names.iter().filter(|name| *name != "17").map(|name| (name, "good"))).await;
        let held = sidecar.says("held back:").await;
        assert!(held.contains(&format!("ConfigMap {}/17 held back: ", namespace.name)), "{held}");
        assert!(held.contains("exit code 3"), "{held}");
        sidecar.says("line 10000 of a long story").await;
        assert!(sidecar.lines_with(&["of a long story"]).len() < 250, "its output is not bounded");
        sidecar.says("lines before are left out").await;
        // Two tries a halving, in each of a few batches as they came.
        assert!(asked(&workspace) <= 30, "asked {} times", asked(&workspace));
    });
}

#[test]
fn a_check_that_does_not_end_in_time_has_not_passed_and_is_killed() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let script = r#"grep -q 1 "$CONFIG_BUMP_CANDIDATE/a" && exit; echo $$ >pid; echo waiting; exec sleep 600"#;
        let sidecar = checking(&namespace, &workspace, script).args(["--check-timeout", "200ms"]).start();
        sidecar.holds([("a", "1")]).await;
        namespace.replace(&config_map("routes", [("a", "2")])).await;
        let held = sidecar.says("routes held back").await;
        assert!(held.contains("did not end within 200ms"), "{held}");
        sidecar.says("waiting").await;
        let pid = fs::read_to_string(workspace.beside("pid")).expect("the PID of the check");
        assert!(!PathBuf::from(format!("/proc/{}", pid.trim())).exists(), "it is still running");
        sidecar.holds([("a", "1")]).await;
        namespace.replace(&config_map("routes", [("a", "11")])).await;
        sidecar.holds([("a", "11")]).await;
    });
}

#[test]
fn a_check_that_cannot_be_run_lets_nothing_pass_and_is_tried_again() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            namespace.create(&config_map("routes", [("a", "1")])).await;
            let command = workspace.beside("missing");
            let launch = Launch::within(&namespace, &workspace).args(["--publish", way]);
            let sidecar = launch.arg("--check").arg(command.as_os_str()).start();
            let line = sidecar.says("was not found").await;
            for part in ["--check", &command.display().to_string(), "install it", "what was live stays"] {
                assert!(line.contains(part), "no {part:?} in {line}");
            }
            assert_eq!(sidecar.lines_with(&["held back"]), [""; 0], "that says nothing about the object");
            sidecar.holds_nothing().await;
            fs::copy("/bin/true", &command).expect("a command");
            sidecar.holds([("a", "1")]).await;
            sidecar.says_times("was not found", 1).await;
        });
    }
}

/// The check waits, so that the second change comes while the first is being tried.
#[test]
fn what_changes_while_the_check_runs_is_checked_next() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let script = r#"
                cat "$CONFIG_BUMP_CANDIDATE/a" >seen-$(ls seen-* 2>/dev/null | wc -l)
                until [ -e go ]; do sleep 0.02; done
                ! grep -r BAD "$CONFIG_BUMP_CANDIDATE""#;
            namespace.create(&config_map("routes", [("a", "1")])).await;
            let sidecar = checking(&namespace, &workspace, script).args(["--publish", way]).start();
            let seen = async |number: usize, wanted: &str| {
                let path = workspace.beside(&format!("seen-{number}"));
                until(PATIENCE, &format!("check {number} of {wanted}"), async || match fs::read_to_string(&path) {
                    Ok(text) if text == wanted => Ok(()),
                    other => Err(format!("{other:?}")),
                })
                .await;
            };
            seen(0, "1").await;
            namespace.replace(&config_map("routes", [("a", "2")])).await;
            namespace.replace(&config_map("routes", [("a", "BAD")])).await;
            let last = namespace.create(&config_map("other", [("b", "1")])).await;
            namespace.delete(&last).await;
            fs::write(workspace.beside("go"), "").expect("a file");
            sidecar.says("routes held back").await;
            sidecar.holds([("a", "1")]).await;
            // And back to what is live while something else is tried.
            namespace.replace(&config_map("routes", [("a", "1")])).await;
            namespace.create(&config_map("other", [("b", "1")])).await;
            sidecar.holds([("a", "1"), ("b", "1")]).await;
        });
    }
}

#[test]
fn an_end_does_not_wait_for_the_check_and_takes_it_along() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let sidecar = checking(&namespace, &workspace, "echo $$ >new; mv new pid; exec sleep 600").start();
        let pid = sidecar
            .until("the check", || fs::read_to_string(workspace.beside("pid")).map_err(|error| error.to_string()))
            .await;
        sidecar.terminate().await;
        let process = PathBuf::from(format!("/proc/{}", pid.trim()));
        until(
            PATIENCE,
            "the check's end",
            async || {
                if process.exists() { Err("it is running".to_owned()) } else { Ok(()) }
            },
        )
        .await;
        assert_eq!(workspace.files().paths(), [""; 0]);
    });
}

#[test]
fn as_process_1_it_reaps_what_a_check_leaves_in_the_background() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        // The first one leaves a process that ends soon, and the second one sees whether anything is left of that.
        let script = "[ -e pid ] || { sleep 0.1 & echo $! >pid; exit; }
            while [ -e /proc/$(cat pid) ]; do sleep 0.05; done";
        let sidecar = checking(&namespace, &workspace, script).among("true").start();
        sidecar.holds([("a", "1")]).await;
        namespace.replace(&config_map("routes", [("a", "2")])).await;
        sidecar.holds([("a", "2")]).await;
    });
}

#[test]
fn once_ends_with_0_if_anything_is_live_and_with_1_if_all_is_held() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let launch = checking(&namespace, &workspace, NO_BAD_ONE).args(["--once", "--publish", way]);
            assert_eq!(launch.run().await.code, Some(0), "there is nothing to hold");
            namespace.create(&config_map("bad", [("bad", "BAD")])).await;
            let ended = launch.run().await;
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert!(ended.stderr.contains("bad held back"), "{ended:?}");
            namespace.create(&config_map("good", [("good", "1")])).await;
            let ended = launch.run().await;
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert!(ended.stderr.contains("but for 1 that are held back"), "{ended:?}");
            assert_eq!(workspace.files().paths(), ["good"]);
            namespace.replace(&config_map("good", [("good", "BAD")])).await;
            let ended = launch.run().await;
            assert_eq!(ended.code, Some(0), "what was live is: {ended:?}");
            assert_eq!(workspace.files().contents().collect::<Vec<_>>(), [b"1"]);
        });
    }
}

#[test]
fn a_bump_tells_of_what_is_live_and_not_of_what_is_held() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let hook = workspace.beside("hook");
        let script = format!("cat >>'{}'", workspace.beside("told").display());
        fs::write(&hook, script).expect("a file");
        let launch = checking(&namespace, &workspace, NO_BAD_ONE);
        let sidecar = launch.args(["--exec", &format!("sh '{}'", hook.display())]).start();
        sidecar.in_sync().await;
        together(&sidecar, async || {
            namespace.create(&config_map("bad", [("bad", "BAD")])).await;
            namespace.create(&config_map("good", [("good", "1")])).await;
        })
        .await;
        sidecar.says("bad held back").await;
        let told = sidecar
            .until("a bump", || {
                fs::read_to_string(workspace.beside("told"))
                    .ok()
                    .filter(|text| !text.is_empty())
                    .ok_or_else(String::new)
            })
            .await;
        let told: Vec<BTreeMap<String, String>> =
            told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let paths: Vec<_> = told.iter().map(|line| line["path"].clone()).collect();
        assert_eq!(paths, [workspace.path("good").display().to_string()]);
    });
}

/// Parts of it pass one after the other, while the check looks for the culprit.
#[test]
fn one_batch_with_a_culprit_is_one_bump() {
    for way in WAYS {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let hook = workspace.beside("hook");
            fs::write(&hook, format!("echo bump >>'{}'\n", workspace.beside("bumps").display())).expect("a file");
            let exec = format!("sh '{}'", hook.display());
            let launch = checking(&namespace, &workspace, NO_BAD_ONE).args(["--publish", way, "--exec", &exec]);
            let sidecar = launch.args(["--settle", "1s", "--settle-max", "10s"]).start();
            sidecar.in_sync().await;
            let names: Vec<_> = (0..16).map(|number| format!("{number:02}")).collect();
            let value = |name: &str| if name == "05" { "BAD" } else { "good" };
            let objects: Vec<_> = names.iter().map(|name| config_map(name, [(name, value(name))])).collect();
            together(&sidecar, async || namespace.create_all(&objects).await).await;
            let bumped = async |times: usize| {
                sidecar
                    .until(&format!("bump {times}"), || {
                        let bumps = fs::read_to_string(workspace.beside("bumps")).unwrap_or_default().lines().count();
                        if bumps == times { Ok(()) } else { Err(format!("{bumps} bumps")) }
                    })
                    .await;
            };
            sidecar.says("05 held back").await;
            bumped(1).await;
            namespace.create(&config_map("last", [("last", "good")])).await;
            bumped(2).await;
            sidecar.terminate().await;
            assert!(asked(&workspace) > 6, "it has been looked for");
        });
    }
}
