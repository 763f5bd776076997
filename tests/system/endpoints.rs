//! What the endpoints of `--listen` say: to kubelet, to Prometheus, and to people.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use serde_json::Value;

use crate::harness::cluster::{ApiServer, free_address};
use crate::harness::endpoints::Endpoints;
use crate::harness::link::{Link, State};
use crate::harness::namespace::Namespace;
use crate::harness::object::{annotated, config_map, secret};
use crate::harness::sidecar::Launch;
use crate::harness::wait::{PATIENCE, run};
use crate::harness::web::ask;
use crate::harness::workspace::{Workspace, write};
use crate::readme::{apply, example};

const ANYWHERE: &str = "127.0.0.1:0";

fn listening<'w>(namespace: &Namespace, workspace: &'w Workspace) -> Launch<'w> {
    Launch::within(namespace, workspace).args(["--listen", ANYWHERE])
}

/// The object of that name in `/status`.
fn object<'s>(status: &'s Value, name: &str) -> &'s Value {
    let mut objects = status["objects"].as_array().into_iter().flatten();
    objects.find(|object| object["name"] == name).unwrap_or(&Value::Null)
}

#[test]
fn readyz_is_200_only_once_the_first_sync_is_on_disk() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let mut access = ApiServer::shared().admin_access();
        let link = Link::to(access.address, State::Down).await;
        access.address = link.address;
        let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name]);
        let sidecar = launch.environment("CONFIG_BUMP_LISTEN", ":0").start();
        let endpoints = Endpoints::of(&sidecar).await;
        sidecar.says("configmaps").await;
        let (status, why) = endpoints.probe("/readyz").await;
        assert_eq!((status, why.as_str()), (503, "the first sync is not on disk yet\n"));
        assert_eq!(endpoints.probe("/livez").await, (200, "ok\n".to_owned()));
        link.set(State::Up);
        endpoints.becomes("/readyz", 200).await;
        assert!(sidecar.has("a.yaml"));
    });
}

#[test]
fn while_the_server_is_away_it_is_alive_and_ready_and_says_what_is_wrong() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let mut access = ApiServer::shared().admin_access();
        let link = Link::to(access.address, State::Up).await;
        access.address = link.address;
        let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name]);
        let sidecar = launch.args(["--listen", ANYWHERE]).start();
        let endpoints = Endpoints::of(&sidecar).await;
        endpoints.becomes("/readyz", 200).await;
        let progress = endpoints.metrics().await.value("configbump_last_progress_timestamp_seconds");
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock").as_secs_f64();
        assert!((progress - now).abs() < PATIENCE.as_secs_f64(), "{progress} {now}");

        link.set(State::Down);
        let failure = |status: &Value| status["scopes"][0]["failure"].as_str().map(str::to_owned);
        let status = endpoints.shows("a failure", |status| failure(status).is_some()).await;
        let line = failure(&status).unwrap_or_default();
        assert!(line.contains(&namespace.name) && line.contains("configmaps"), "{line}");
        assert_eq!(
            status["errors"][0]["message"].as_str().map(|message| message.contains(&line)),
            Some(true),
            "{status}"
        );
        assert_eq!(endpoints.probe("/livez").await.0, 200);
        assert_eq!(endpoints.probe("/readyz").await.0, 200);
        let failures = endpoints.metrics().await.value("configbump_source_failures_total{reason=\"connection\"}");
        assert!(failures >= 1.0, "{failures}");

        link.set(State::Up);
        namespace.replace(&config_map("routes", [("a.yaml", "2")])).await;
        sidecar.holds([("a.yaml", "2")]).await;
        assert_eq!(endpoints.probe("/readyz").await.0, 200);
    });
}

#[test]
fn readyz_fails_while_the_last_change_is_not_on_disk() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let version = |object: &k8s_openapi::api::core::v1::ConfigMap| object.resource_version().unwrap_or_default();
        let old = namespace.create(&config_map("large", [("large", "1")])).await;
        fs::create_dir(workspace.dir()).expect("a folder");
        let dir = workspace.dir().display().to_string();
        let filler = "head -c 700000 /dev/zero >";
        let mounts = format!("mount -t tmpfs -o size=1m none '{dir}'; {filler} '{dir}/foreign'");
        let sidecar = listening(&namespace, &workspace).mounting(mounts).start();
        let endpoints = Endpoints::of(&sidecar).await;
        endpoints.becomes("/readyz", 200).await;

        let large = "2".repeat(500_000);
        let new = namespace.replace(&config_map("large", [("large", large.as_str())])).await;
        let why = endpoints.becomes("/readyz", 503).await;
        assert!(why.starts_with("the last change could not be made on disk"), "{why}");
        let status = endpoints.status().await;
        assert!(status["failedChange"].to_string().contains("No space"), "{status}");
        assert_eq!(object(&status, "large")["seen"], version(&new));
        assert_eq!(object(&status, "large")["written"], version(&old));
        assert_eq!(endpoints.probe("/livez").await.0, 200);

        fs::remove_file(sidecar.sees(&workspace.path("foreign"))).expect("the file that takes the room");
        endpoints.becomes("/readyz", 200).await;
        let status = endpoints.status().await;
        assert_eq!(object(&status, "large")["written"], version(&new));
        assert_eq!(status["failedChange"], Value::Null);
        let metrics = endpoints.metrics().await;
        assert!(metrics.value("configbump_failed_changes_total") >= 1.0);
        assert!(metrics.value("configbump_relists_total") >= 1.0);
    });
}

#[test]
fn readyz_fails_while_the_last_bump_has_failed() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let broken = workspace.beside("broken");
        let old = namespace.create(&config_map("routes", [("a", "1")])).await;
        let command = format!("test ! -e {}", broken.display());
        let sidecar = listening(&namespace, &workspace).args(["--exec", &command]).start();
        let endpoints = Endpoints::of(&sidecar).await;
        let version = |object: &k8s_openapi::api::core::v1::ConfigMap| object.resource_version().unwrap_or_default();
        endpoints.shows("a bump", |status| object(status, "routes")["bumped"] == version(&old)).await;
        assert_eq!(endpoints.probe("/readyz").await.0, 200);

        write(&broken, "");
        let new = namespace.replace(&config_map("routes", [("a", "2")])).await;
        let why = endpoints.becomes("/readyz", 503).await;
        assert!(why.starts_with("the last bump failed"), "{why}");
        let status = endpoints.status().await;
        assert!(status["failedBump"].to_string().contains("exit code 1"), "{status}");
        assert_eq!(object(&status, "routes")["written"], version(&new));
        assert_eq!(object(&status, "routes")["bumped"], version(&old));

        fs::remove_file(&broken).expect("the file that breaks it");
        endpoints.becomes("/readyz", 200).await;
        let status = endpoints.status().await;
        assert_eq!(object(&status, "routes")["bumped"], version(&new));
        assert_eq!(status["failedBump"], Value::Null);
        let metrics = endpoints.metrics().await;
        assert!(metrics.value("configbump_bumps_total{kind=\"exec\",outcome=\"success\"}") >= 2.0);
        assert!(metrics.value("configbump_bumps_total{kind=\"exec\",outcome=\"refused\"}") >= 1.0);
        assert!(metrics.value("configbump_bump_duration_seconds_count{kind=\"exec\"}") >= 3.0);
        assert!(metrics.value("configbump_last_bump_timestamp_seconds") > 0.0);
    });
}

/// Else a sidecar that has to be ready before its program starts would wait for ever.
#[test]
fn a_program_that_is_not_there_yet_keeps_nobody_unready() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let nobody = workspace.beside("nobody").display().to_string();
        let sidecar = listening(&namespace, &workspace).args(["--signal", "HUP", "--process-command", &nobody]).start();
        let endpoints = Endpoints::of(&sidecar).await;
        sidecar.says("the bump waits for it").await;
        assert_eq!(endpoints.probe("/readyz").await.0, 200);
        let status = endpoints.status().await;
        assert_eq!(status["bumpPending"], true);
        assert_eq!(object(&status, "routes")["bumped"], Value::Null);
        endpoints.counts("configbump_bump_pending", 1.0).await;
    });
}

#[test]
fn the_metrics_count_what_happens_and_the_page_lists_them_all() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let winner = namespace.create(&config_map("winner", [("shared", "1"), ("other", "1")])).await;
        let sidecar = listening(&namespace, &workspace).start();
        let endpoints = Endpoints::of(&sidecar).await;
        endpoints.becomes("/readyz", 200).await;
        let line = sidecar.says("in sync").await;
        assert!(line.contains("holds 2 files of 1 objects"), "{line}");
        namespace.wait_to_be_younger_than(&winner).await;
        namespace.create(&config_map("loser", [("shared", "2"), ("own", "2")])).await;
        endpoints.counts("configbump_objects", 2.0).await;
        let metrics = endpoints.metrics().await;
        for (sample, value) in [
            ("configbump_files", 3.0),
            ("configbump_conflicts", 1.0),
            ("configbump_writes_total", 3.0),
            ("configbump_removals_total", 0.0),
            ("configbump_failed_changes_total", 0.0),
            ("configbump_lists_total", 1.0),
            ("configbump_relists_total", 0.0),
            ("configbump_watches_total", 1.0),
            ("configbump_events_total{type=\"apply\"}", 2.0),
            ("configbump_events_total{type=\"delete\"}", 0.0),
            ("configbump_ready", 1.0),
            (concat!("configbump_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}"), 1.0),
        ] {
            let found = metrics.value(sample);
            assert!((found - value).abs() < 0.1, "{sample} is {found}");
        }
        assert!(metrics.value("configbump_last_sync_timestamp_seconds") > 0.0);
        let page = include_str!("../../docs/metrics.md");
        for (family, kind) in &metrics.families {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{family}")));
            assert!(
                row.is_some_and(|row| row.contains(&format!("| {kind} |"))),
                "{family} is not on the page: {row:?}"
            );
        }

        namespace.delete(&winner).await;
        endpoints.counts("configbump_events_total{type=\"delete\"}", 1.0).await;
        endpoints.counts("configbump_conflicts", 0.0).await;
        endpoints.counts("configbump_objects", 1.0).await;
        endpoints.counts("configbump_files", 2.0).await;
        endpoints.counts("configbump_removals_total", 1.0).await;
    });
}

#[test]
fn status_says_how_far_every_object_is_and_shows_no_content_and_no_credential() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let secret_value = "a-value-that-nobody-should-see";
        let first = namespace.create(&config_map("first", [("shared", secret_value)])).await;
        namespace.wait_to_be_younger_than(&first).await;
        let second = config_map("second", [("shared", secret_value)]);
        let second = namespace.create(&annotated(second, "example.com/folder", "../out")).await;
        let third = namespace.create(&config_map("third", [("shared", secret_value)])).await;
        let sidecar = listening(&namespace, &workspace).args(["--folder-annotation", "example.com/folder"]).start();
        let endpoints = Endpoints::of(&sidecar).await;
        endpoints.becomes("/readyz", 200).await;
        let status = endpoints.status().await;
        for (known, name) in [(&first, "first"), (&second, "second"), (&third, "third")] {
            let found = object(&status, name);
            assert_eq!(found["seen"], known.resource_version().unwrap_or_default(), "{status}");
            assert_eq!(found["written"], found["seen"], "{status}");
            assert_eq!(found["kind"], "ConfigMap");
            assert_eq!(found["namespace"], namespace.name);
            assert_eq!(found["refused"].is_string(), name == "second", "{status}");
        }
        let key = |name: &str| format!("ConfigMap {}/{name}", namespace.name);
        let conflict = serde_json::json!({ "path": "shared", "winner": key("first"), "loser": key("third") });
        assert_eq!(status["conflicts"], serde_json::json!([conflict]));
        assert_eq!(status["holds"], serde_json::json!([]));
        assert_eq!(status["errors"].as_array().map(Vec::len), Some(2), "the conflict and the refusal: {status}");
        let text = status.to_string();
        assert!(!text.contains(secret_value) && !text.contains(&ApiServer::shared().admin_access().token), "{text}");

        let updated = namespace.replace(&config_map("first", [("shared", "2")])).await;
        let version = updated.resource_version().unwrap_or_default();
        endpoints.shows("the update", |status| object(status, "first")["written"] == version).await;
        namespace.delete(&updated).await;
        let status = endpoints.shows("no such object", |status| object(status, "first").is_null()).await;
        assert_eq!(status["conflicts"], serde_json::json!([]));
    });
}

#[test]
fn what_a_check_holds_back_is_named_and_leaves_the_pod_ready() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let (bad, seen) = ("bad-words-that-nobody-should-see", "the check says so");
        namespace.create(&config_map("good", [("good", "1")])).await;
        namespace.create(&config_map("held", [("held", bad)])).await;
        // It shows what it finds, as programs do.
        let check = format!("sh -c 'echo {seen}; ! grep -r {bad} $0' {{}}");
        let sidecar = listening(&namespace, &workspace).args(["--publish", "set", "--check", &check]).start();
        let endpoints = Endpoints::of(&sidecar).await;
        endpoints.becomes("/readyz", 200).await;
        sidecar.says(bad).await;
        let status = endpoints.status().await;
        let holds = status["holds"].as_array().expect("an array");
        assert_eq!(holds.len(), 1, "{status}");
        assert_eq!(holds[0]["object"], format!("ConfigMap {}/held", namespace.name));
        assert!(holds[0]["why"].to_string().contains("--check"), "{status}");
        assert_eq!(object(&status, "held")["written"], Value::Null);
        assert_eq!(object(&status, "good")["written"], object(&status, "good")["seen"]);
        let text = status.to_string();
        assert!(text.contains("held back"), "{text}");
        // It may repeat what is in a file, so it is shown where no file is a Secret's.
        assert!(holds[0]["output"].to_string().contains(seen), "{status}");
        let metrics = endpoints.metrics().await;
        for (sample, value) in [
            ("configbump_held_objects", 1.0),
            ("configbump_publishes_total", 1.0),
            ("configbump_checks_total{outcome=\"passed\"}", 1.0),
            ("configbump_files", 1.0),
        ] {
            let found = metrics.value(sample);
            assert!((found - value).abs() < 0.1, "{sample} is {found}");
        }
        assert!(metrics.value("configbump_checks_total{outcome=\"refused\"}") >= 1.0);

        namespace.replace(&config_map("held", [("held", "2")])).await;
        endpoints.counts("configbump_held_objects", 0.0).await;
        let status = endpoints.shows("it written", |status| object(status, "held")["written"].is_string()).await;
        assert_eq!(status["holds"], serde_json::json!([]));
    });
}

#[test]
fn what_the_program_refuses_is_not_written_any_more() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let version = |object: &k8s_openapi::api::core::v1::ConfigMap| object.resource_version().unwrap_or_default();
        let good = namespace.create(&config_map("routes", [("a", "good")])).await;
        let program = "sh -c '! grep -q bad $0/a' {}";
        let launch = listening(&namespace, &workspace).args(["--publish", "set", "--rollback", "--exec", program]);
        let sidecar = launch.start();
        let endpoints = Endpoints::of(&sidecar).await;
        endpoints.shows("a bump", |status| object(status, "routes")["bumped"] == version(&good)).await;
        let bad = namespace.replace(&config_map("routes", [("a", "bad")])).await;
        endpoints.counts("configbump_rollbacks_total", 1.0).await;
        endpoints.becomes("/readyz", 200).await;
        let status = endpoints.shows("a hold", |status| status["heldObjectCount"] == 1).await;
        assert_eq!(object(&status, "routes")["seen"], version(&bad));
        assert_eq!(object(&status, "routes")["written"], version(&good));
        assert_eq!(object(&status, "routes")["bumped"], version(&good));
        assert_eq!(status["holds"][0]["why"], "the program refuses the files");
        let metrics = endpoints.metrics().await;
        assert!(metrics.value("configbump_bumps_total{kind=\"exec\",outcome=\"refused\"}") >= 1.0);
    });
}

#[test]
fn where_secrets_are_followed_status_does_not_show_what_a_check_wrote() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let bad = "bad-words-that-nobody-should-see";
        namespace.create(&config_map("held", [("held", bad)])).await;
        let check = format!("sh -c '! grep -r {bad} $0' {{}}");
        let launch = listening(&namespace, &workspace).args(["--kinds", "configmaps,secrets", "--check", &check]);
        let sidecar = launch.start();
        let endpoints = Endpoints::of(&sidecar).await;
        sidecar.says(bad).await;
        let text = endpoints.status().await.to_string();
        assert!(text.contains("held back") && !text.contains(bad), "{text}");
    });
}

#[test]
fn no_value_of_a_secret_is_in_status_or_metrics() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let value = "a-value-that-nobody-should-see";
        let large = value.repeat(1000);
        let first = namespace.create(&secret("first", [("small", value.as_bytes())])).await;
        namespace.wait_to_be_younger_than(&first).await;
        // A conflict, a failing bump and a change are all told of.
        let second = secret("second", [("small", value.as_bytes()), ("large", large.as_bytes())]);
        namespace.create(&second).await;
        let launch = listening(&namespace, &workspace).args(["--kinds", "secrets", "--exec", "false"]);
        let sidecar = launch.start();
        sidecar.holds([("small", value), ("large", &large)]).await;
        let endpoints = Endpoints::of(&sidecar).await;
        endpoints.counts("configbump_objects", 2.0).await;
        endpoints.shows("the conflict", |status| status["conflicts"].as_array().map(Vec::len) == Some(1)).await;
        let changed = namespace.replace(&secret("second", [("large", value.as_bytes())])).await;
        let version = changed.resource_version().unwrap_or_default();
        endpoints.shows("the change", |status| object(status, "second")["written"] == version).await;
        let encoded = base64::engine::general_purpose::STANDARD.encode(value);
        for path in ["/status", "/metrics", "/readyz", "/livez"] {
            let (_, text) = endpoints.probe(path).await;
            assert!(!text.contains(value) && !text.contains(encoded.trim_end_matches('=')), "{path}: {text}");
        }
    });
}

#[test]
fn removals_that_the_brake_holds_are_counted() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let objects = ["a", "b"].map(|name| config_map(name, [(name, "1")]));
        namespace.create_all(&objects).await;
        let sidecar = listening(&namespace, &workspace).args(["--max-delete", "50%"]).start();
        let endpoints = Endpoints::of(&sidecar).await;
        endpoints.becomes("/readyz", 200).await;
        namespace.delete_all(&objects).await;
        endpoints.counts("configbump_held_removals", 2.0).await;
        let status = endpoints.status().await;
        assert_eq!(status["heldRemovalCount"], 2);
        assert_eq!(status["objects"], serde_json::json!([]));
        sidecar.holds([("a", "1"), ("b", "1")]).await;
    });
}

#[test]
fn the_probes_of_the_example_are_answered_where_it_listens() {
    run(async {
        for file in ["cluster/access.yaml", "endpoints/pod.yaml"] {
            apply(&example(file)).await;
        }
        let pods = Namespace::known("gateway").api::<Pod>();
        let spec = pods.get("probed").await.expect("the pod").spec.expect("its spec");
        let containers = spec.init_containers.expect("a sidecar");
        let container = containers.into_iter().next().expect("a container");
        assert_eq!(container.restart_policy.as_deref(), Some("Always"));
        let (args, ports) = (container.args.unwrap_or_default(), container.ports.unwrap_or_default());
        assert!(args.contains(&format!("--listen=:{}", ports[0].container_port)), "{args:?}");

        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let sidecar = listening(&namespace, &workspace).start();
        let endpoints = Endpoints::of(&sidecar).await;
        for probe in [container.startup_probe, container.readiness_probe, container.liveness_probe] {
            let get = probe.and_then(|probe| probe.http_get).expect("a probe over HTTP");
            assert_eq!(get.port, IntOrString::String(ports[0].name.clone().unwrap_or_default()));
            endpoints.becomes(&get.path.unwrap_or_default(), 200).await;
        }
    });
}

#[test]
fn status_tells_of_manifests_too() {
    run(async {
        let workspace = Workspace::new();
        let manifest = workspace.beside("routes.yaml");
        let text = |value: &str| {
            format!(
                "kind: ConfigMap\napiVersion: v1\nmetadata: {{name: routes, labels: {{app: web}}}}\ndata: {{a: '{value}'}}\n"
            )
        };
        write(&manifest, text("1"));
        let path = manifest.display().to_string();
        let sidecar = Launch::new(&workspace).args(["--manifests", &path, "--listen", ANYWHERE]).start();
        let endpoints = Endpoints::of(&sidecar).await;
        endpoints.becomes("/readyz", 200).await;
        assert_eq!(object(&endpoints.status().await, "routes")["written"], "1");
        write(&manifest, text("2"));
        endpoints.shows("the second state", |status| object(status, "routes")["written"] == "2").await;
        assert_eq!(endpoints.probe("/livez").await.0, 200);
    });
}

#[test]
fn a_port_in_use_is_an_error_in_the_log_and_is_taken_when_it_is_free() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let address = free_address();
        let holder = std::net::TcpListener::bind(address).expect("a free address");
        let sidecar = Launch::within(&namespace, &workspace).args(["--listen", &address.to_string()]).start();
        let line = sidecar.says("cannot listen on").await;
        assert!(line.contains("ERROR") && line.contains(&address.to_string()) && line.contains("--listen"), "{line}");
        sidecar.holds([("a", "1")]).await;
        drop(holder);
        let endpoints = Endpoints::of(&sidecar).await;
        assert_eq!(endpoints.address, address);
        endpoints.becomes("/readyz", 200).await;
        assert_eq!(sidecar.lines_with(&["cannot listen"]).len(), 1);
    });
}

/// In a network namespace whose sockets are IPv6-only unless a program asks for both families.
#[test]
fn listen_on_a_port_answers_ipv4_and_ipv6_everywhere() {
    run(async {
        let workspace = Workspace::new();
        write(&workspace.beside("manifests/none.yaml"), "");
        let network = r#"mount -t sysfs none /sys; echo 0x9 > /sys/class/net/lo/flags
            echo 1 > /proc/sys/net/ipv6/bindv6only; exec setpriv --pdeathsig KILL "$@""#;
        let sidecar = Launch::new(&workspace)
            .args(["--manifests", &workspace.beside("manifests").display().to_string(), "--listen", ":0"])
            .mounting(format!(r#"exec unshare --net sh -ec '{network}' sh "$@""#))
            .start();
        let port = Endpoints::of(&sidecar).await.address.port();
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let answer = sidecar.in_its_network(|| run(ask((ip, port).into(), "/livez")));
            assert_eq!(answer.map(|answer| answer.status).map_err(|error| error.to_string()), Ok(200), "{ip}");
        }
    });
}

#[test]
fn without_listen_no_port_is_opened_and_with_it_just_that_one() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.in_sync().await;
        assert_eq!(sidecar.ports(), [0; 0]);
        sidecar.terminate().await;

        let sidecar = listening(&namespace, &workspace).start();
        let endpoints = Endpoints::of(&sidecar).await;
        assert_eq!(sidecar.ports(), [endpoints.address.port()]);
        // Nor does it stay open for longer.
        sidecar.signal(rustix::process::Signal::TERM);
        assert_eq!(sidecar.ended(Duration::from_secs(10)).await.code, Some(0));
        assert!(ask(endpoints.address, "/livez").await.is_err());
    });
}
