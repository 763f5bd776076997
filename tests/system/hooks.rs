//! Bumps by a command and by a URL: what they are told, in which order, and that they are tried again.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::cluster::Port;
use crate::harness::endpoints::Endpoints;
use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::sidecar::Launch;
use crate::harness::target::Target;
use crate::harness::wait::{PATIENCE, run, until};
use crate::harness::web::serve;
use crate::harness::workspace::Workspace;

const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// One that runs this piece of shell in the folder beside DIR.
fn executing<'w>(namespace: &Namespace, workspace: &'w Workspace, script: &str) -> Launch<'w> {
    let path = workspace.beside("hook");
    fs::write(&path, format!("cd '{}'\n{script}\n", workspace.beside("").display())).expect("a file");
    Launch::within(namespace, workspace).args(["--exec", &format!("sh '{}'", path.display())])
}

async fn read(path: &Path) -> String {
    until(PATIENCE, &path.display().to_string(), async || fs::read_to_string(path).map_err(|error| error.to_string()))
        .await
}

#[test]
fn a_command_is_given_the_paths_the_object_and_the_event() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let routes = namespace.create(&config_map("routes", [("a", "1"), ("b", "1")])).await;
        let script = "{ env | grep '^CONFIG_BUMP_\\(EVENT\\|DIR\\)'; echo \"$CONFIG_BUMP_CHANGED\"; cat; } >new
            count=$(ls told-* 2>/dev/null | wc -l); mv new told-$count";
        let _sidecar = executing(&namespace, &workspace, script).start();
        let path = |key: &str| workspace.path(key).display().to_string();
        let told = |lines: &str, event: &str| {
            let mut lines: Vec<_> = lines.lines().map(str::to_owned).collect();
            let input: Vec<Value> =
                lines.split_off(4).iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
            lines[..2].sort();
            let dir = format!("CONFIG_BUMP_DIR={}", workspace.dir().display());
            assert_eq!(lines, [dir, "CONFIG_BUMP_EVENT=change".to_owned(), path("a"), path("b")]);
            let line = |key: &str| {
                json!({
                    "path": path(key), "event": event,
                    "kind": "ConfigMap", "namespace": namespace.name, "name": "routes",
                })
            };
            assert_eq!(input, [line("a"), line("b")]);
        };
        told(&read(&workspace.beside("told-0")).await, "written");
        namespace.delete(&routes).await;
        told(&read(&workspace.beside("told-1")).await, "removed");
    });
}

#[test]
fn a_command_that_fails_is_tried_again() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let script = "echo the reason; [ -e mended ] && cp out/a new && mv new seen";
        let sidecar = executing(&namespace, &workspace, script).start();
        let line = sidecar.says("exit code 1").await;
        assert!(line.contains("--exec"), "{line}");
        sidecar.says("the reason").await;
        fs::write(workspace.beside("mended"), "").expect("a file");
        assert_eq!(read(&workspace.beside("seen")).await, "1");
    });
}

#[test]
fn one_killed_while_the_command_runs_runs_it_again() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let script = ": >began; until [ -e go ]; do [ -d out ] || exit; sleep 0.05; done; cp out/a new-$PPID; mv new-$PPID seen-$PPID";
        let launch = executing(&namespace, &workspace, script);
        let sidecar = launch.start();
        read(&workspace.beside("began")).await;
        sidecar.kill();
        fs::remove_file(workspace.beside("began")).expect("a file");
        let sidecar = launch.start();
        read(&workspace.beside("began")).await;
        fs::write(workspace.beside("go"), "").expect("a file");
        assert_eq!(read(&workspace.beside(&format!("seen-{}", sidecar.pid()))).await, "1");
    });
}

#[test]
fn as_process_1_it_reaps_what_a_command_leaves_in_the_background() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        // The first one leaves a process that ends soon, and the second one sees whether anything is left of that.
        let script = "[ -e pid ] || { sleep 0.1 & echo $! >pid; exit; }
            while [ -e /proc/$(cat pid) ]; do sleep 0.05; done; echo $PPID >new; mv new reaped";
        let _sidecar = executing(&namespace, &workspace, script).among("true").start();
        read(&workspace.beside("pid")).await;
        namespace.replace(&config_map("routes", [("a", "2")])).await;
        assert_ne!(read(&workspace.beside("reaped")).await, "1\n", "process 1 has no other work");
    });
}

#[test]
fn a_url_is_called_once_a_batch() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let called = Arc::new(Mutex::new(Vec::new()));
        let calls = Arc::clone(&called);
        let server = serve(ANY, move |line| {
            calls.lock().expect("nobody panics with it").push(line.to_owned());
            204
        });
        let count = || called.lock().expect("nobody panics with it").clone();
        let url = format!("http://{server}/-/reload");
        let sidecar = Launch::within(&namespace, &workspace).args(["--url", &url, "--url-method", "POST"]).start();
        sidecar.in_sync().await;
        for batch in 1..=3 {
            let names = ["x", "y", "z"].map(|name| format!("{name}-{batch}"));
            namespace.create_all(&names.each_ref().map(|name| config_map(name, [(name, "1")]))).await;
            sidecar
                .until(&format!("call {batch}"), || match count() {
                    calls if calls.len() == batch => Ok(()),
                    calls => Err(format!("{calls:?}")),
                })
                .await;
        }
        assert!(count().iter().all(|line| line == "POST /-/reload HTTP/1.1"), "{:?}", count());
    });
}

#[test]
fn a_url_that_refuses_or_fails_is_called_again() {
    run(async {
        let (namespace, workspace, port) = (Namespace::new().await, Workspace::new(), Port::reserve());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let url = format!("http://{}/", port.address);
        let sidecar = Launch::within(&namespace, &workspace).args(["--url", &url]).start();
        let line = sidecar.says("could not be called").await;
        assert!(line.contains(&port.address.to_string()) && line.contains("--url"), "{line}");
        let answers = Arc::new(Mutex::new(vec![204, 500]));
        let left = Arc::clone(&answers);
        // It panics at a call after the one that succeeded.
        serve(port.address, move |_| left.lock().expect("nobody panics with it").pop().expect("no further call"));
        sidecar.says("answered 500").await;
        sidecar
            .until("a call that succeeds", || {
                let left = answers.lock().expect("nobody called too often").len();
                if left == 0 { Ok(()) } else { Err(format!("{left} answers left")) }
            })
            .await;
    });
}

#[test]
fn a_url_where_nobody_listens_yet_keeps_nobody_from_being_ready_and_is_called_when_somebody_does() {
    run(async {
        let (namespace, workspace, port) = (Namespace::new().await, Workspace::new(), Port::reserve());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let url = format!("http://{}/", port.address);
        let args = ["--url", &url, "--listen", "127.0.0.1:0", "--log-level", "debug"];
        let sidecar = Launch::within(&namespace, &workspace).args(args).start();
        let endpoints = Endpoints::of(&sidecar).await;
        sidecar.says("the bump waits for it").await;
        endpoints.becomes("/readyz", 200).await;
        sidecar.says("next try in").await;
        assert_eq!(endpoints.probe("/readyz").await.0, 200);
        let mut answers = vec![204];
        // It panics at a second call, and listens no more.
        serve(port.address, move |_| answers.pop().expect("one call"));
        sidecar.says(&format!("called {url}")).await;
        namespace.replace(&config_map("routes", [("a", "2")])).await;
        // Who has been there is missed.
        endpoints.shows("a failure", |status| status["failedBump"].to_string().contains("refused")).await;
        assert_eq!(endpoints.probe("/readyz").await.0, 503);
    });
}

#[test]
fn the_command_comes_first_then_the_url_then_the_signal() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let order = workspace.beside("order");
        let target = Target::noting(&workspace, &format!("cat '{}'", order.display())).await;
        let path = order.clone();
        let server = serve(ANY, move |_| {
            let before = fs::read_to_string(&path).unwrap_or_default();
            fs::write(&path, format!("{before} url")).expect("a file");
            200
        });
        let launch = executing(&namespace, &workspace, "printf exec >>order");
        let launch = launch.args(["--signal", "1", "--process-command", &Target::name(&workspace)]);
        let _sidecar = launch.args(["--url", &format!("http://{server}/")]).start();
        target.noted(["exec url"]).await;
    });
}
