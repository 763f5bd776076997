//! What is told of objects by Kubernetes Events on them, with `--events`.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Resource, ResourceExt};

use crate::harness::access::Access;
use crate::harness::account::{Account, least, to_write_events};
use crate::harness::cluster::ApiServer;
use crate::harness::endpoints::Endpoints;
use crate::harness::link::{Link, State};
use crate::harness::namespace::Namespace;
use crate::harness::object::{annotated, config_map, secret};
use crate::harness::sidecar::Launch;
use crate::harness::wait::{LONG_PATIENCE, run, until};
use crate::harness::workspace::Workspace;

/// The Events of an object, found as `kubectl describe` finds them.
async fn events_of<K>(namespace: &Namespace, object: &K) -> Vec<Event>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let uid = object.uid().expect("an object that was created");
    let fields = [
        ("kind", K::kind(&()).into_owned()),
        ("namespace", namespace.name.clone()),
        ("name", object.name_any()),
        ("uid", uid),
    ];
    let selector: Vec<_> = fields.iter().map(|(name, value)| format!("involvedObject.{name}={value}")).collect();
    let params = ListParams::default().fields(&selector.join(","));
    namespace.api::<Event>().list(&params).await.expect("a list").items
}

/// Waits for one Event of this reason on the object.
async fn told<K>(namespace: &Namespace, object: &K, reason: &str) -> Event
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    until(LONG_PATIENCE, &format!("an Event {reason} on {}", object.name_any()), async || {
        let events = events_of(namespace, object).await;
        let mut found: Vec<_> =
            events.iter().filter(|event| event.reason.as_deref() == Some(reason)).cloned().collect();
        match (found.pop(), found.len()) {
            (Some(event), 0) => Ok(event),
            _ => Err(format!("{events:?}")),
        }
    })
    .await
}

fn message(event: &Event) -> &str {
    event.message.as_deref().unwrap_or_default()
}

fn kind(event: &Event) -> &str {
    event.type_.as_deref().unwrap_or_default()
}

#[test]
fn a_change_that_is_on_disk_is_told_on_its_object_with_the_rights_that_the_readme_names() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let account = Account::new(&namespace, "sidecar").await;
        account.allow(&namespace, least(&["configmaps"])).await;
        account.also_allow(&namespace, to_write_events()).await;
        let access = ApiServer::shared().access(&account.token().await);
        let before = namespace.create(&config_map("before", [("before", "1")])).await;
        let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name, "--events"]);
        let sidecar = launch.start();
        sidecar.in_sync().await;
        let routes = namespace.create(&config_map("routes", [("a", "SECRET-CONTENT"), ("b", "2")])).await;
        let event = told(&namespace, &routes, "Applied").await;
        assert_eq!((kind(&event), event.count), ("Normal", Some(1)));
        let dir = workspace.dir();
        assert_eq!(message(&event), format!("wrote 2 files in {}", dir.display()));
        assert_eq!(event.reporting_component.as_deref(), Some("configbump"));
        let source = event.source.expect("a source");
        assert_eq!(source.component.as_deref(), Some("configbump"));
        assert_eq!(source.host, event.reporting_instance);
        assert!(!source.host.unwrap_or_default().is_empty());
        // What the first sync writes is no news to anybody, as in the log.
        assert_eq!(events_of(&namespace, &before).await, []);
        sidecar.terminate().await;
    });
}

#[test]
fn an_object_that_flaps_is_one_event() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let sidecar = Launch::within(&namespace, &workspace).arg("--events").start();
        sidecar.in_sync().await;
        let flapping = namespace.create(&config_map("flapping", [("a", "0")])).await;
        told(&namespace, &flapping, "Applied").await;
        for number in 1..50 {
            let content = number.to_string();
            namespace.replace(&config_map("flapping", [("a", content.as_str())])).await;
            sidecar.holds([("a", content.as_str())]).await;
        }
        // It is written again after a minute, with its count; what shows that nothing else was, is another object's.
        let other = namespace.create(&config_map("other", [("b", "1")])).await;
        told(&namespace, &other, "Applied").await;
        let event = told(&namespace, &flapping, "Applied").await;
        assert_eq!(event.count, Some(1), "{event:?}");
    });
}

#[test]
fn a_conflict_is_told_on_the_loser() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let winner = namespace.create(&config_map("winner", [("a", "1")])).await;
        namespace.wait_to_be_younger_than(&winner).await;
        let loser = namespace.create(&config_map("loser", [("a", "2")])).await;
        let sidecar = Launch::within(&namespace, &workspace).arg("--events").start();
        sidecar.in_sync().await;
        let event = told(&namespace, &loser, "Conflict").await;
        assert_eq!(kind(&event), "Warning");
        let expected = format!("waits for a, which ConfigMap {}/winner has; the older object wins", namespace.name);
        assert!(message(&event).starts_with(&expected), "{event:?}");
        assert_eq!(events_of(&namespace, &winner).await, []);
        namespace.delete(&winner).await;
        sidecar.holds([("a", "2")]).await;
        told(&namespace, &loser, "Applied").await;
    });
}

#[test]
fn what_a_check_refuses_is_told_without_its_content_and_so_is_a_folder_that_leads_out() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let check = r#"sh -c '! grep -r BAD "$CONFIG_BUMP_CANDIDATE"'"#;
        let launch = Launch::within(&namespace, &workspace).args(["--events", "--check", check]);
        let sidecar = launch.args(["--kinds", "configmaps,secrets", "--folder-annotation", "folder"]).start();
        sidecar.in_sync().await;
        let bad = namespace.create(&secret("bad", [("bad", b"BAD HUSH")])).await;
        let event = told(&namespace, &bad, "CheckFailed").await;
        assert_eq!(kind(&event), "Warning");
        assert!(message(&event).starts_with("--check: `sh` "), "{event:?}");
        let out = namespace.create(&annotated(config_map("out", [("a", "1")]), "folder", "../out")).await;
        let event = told(&namespace, &out, "Refused").await;
        assert_eq!(kind(&event), "Warning");
        assert!(message(&event).contains("../out"), "{event:?}");
        let all = namespace.api::<Event>().list(&ListParams::default()).await.expect("a list");
        assert!(!format!("{all:?}").contains("HUSH"), "{all:?}");
    });
}

#[test]
fn what_the_program_refuses_is_told_and_a_run_that_ends_by_itself_tells_all_before() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let command = r#"sh -c '! grep -r BAD "$CONFIG_BUMP_DIR" --exclude-dir=.configbump'"#;
        let launch = Launch::within(&namespace, &workspace).arg("--events");
        let sidecar = launch.clone().args(["--rollback", "--exec", command]).start();
        sidecar.in_sync().await;
        namespace.create(&config_map("good", [("good", "1")])).await;
        sidecar.says("ran `sh`").await;
        let bad = namespace.create(&config_map("bad", [("bad", "BAD")])).await;
        let event = told(&namespace, &bad, "RolledBack").await;
        assert_eq!(message(&event), "the program refuses its files; those that it took last are back");
        let event = told(&namespace, &bad, "Applied").await;
        let written = format!("wrote bad in {}", workspace.dir().display());
        assert_eq!((message(&event), event.count), (written.as_str(), Some(1)), "what is taken back is not applied");
        sidecar.terminate().await;

        let ended = launch.args(["--once", "--check", "false"]).run().await;
        assert_eq!(ended.code, Some(0), "the good one is live: {ended:?}");
        let reasons: Vec<_> = events_of(&namespace, &bad).await.into_iter().filter_map(|event| event.reason).collect();
        assert!(reasons.contains(&"CheckFailed".to_owned()), "{reasons:?}");
    });
}

#[test]
fn without_the_right_files_go_on_one_line_names_the_rule_and_its_coming_is_noticed() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let account = Account::new(&namespace, "sidecar").await;
        account.allow(&namespace, least(&["configmaps"])).await;
        let access = ApiServer::shared().access(&account.token().await);
        let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name]);
        let sidecar = launch.args(["--events", "--listen", "127.0.0.1:0"]).start();
        let endpoints = Endpoints::of(&sidecar).await;
        sidecar.in_sync().await;
        for number in 0..40 {
            let (name, content) = (format!("map-{number}"), number.to_string());
            let map = namespace.create(&config_map(&name, [("a", content.as_str())])).await;
            sidecar.holds([("a", content.as_str())]).await;
            namespace.delete(&map).await;
        }
        sidecar.holds_nothing().await;
        let line = sidecar.says("cannot write an Event about ").await;
        assert!(line.contains("403") && line.contains("grant the verbs create and patch on events"), "{line}");
        assert!(line.contains("no file waits for it"), "{line}");
        // It was tried more than once.
        until(LONG_PATIENCE, "two failures", async || {
            let failed = endpoints.metrics().await.value("configbump_kubernetes_events_total{outcome=\"failed\"}");
            if failed >= 2.0 { Ok(()) } else { Err(failed.to_string()) }
        })
        .await;
        assert_eq!(sidecar.lines_with(&["Event"]).len(), 1);
        assert_eq!(endpoints.probe("/readyz").await.0, 200);
        account.also_allow(&namespace, to_write_events()).await;
        sidecar.soon_says("Events are written again").await;
    });
}

/// The watch goes on, and the connection for the Events is accepted and leads nowhere.
#[test]
fn while_the_server_takes_no_event_files_go_on_and_what_finds_no_room_is_dropped_in_one_line() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let admin = ApiServer::shared().admin_access();
        let link = Link::to(admin.address, State::Up).await;
        let access = Access { address: link.address, ..admin };
        let launch = Launch::new(&workspace).access(&access).args(["--namespace", &namespace.name]);
        let sidecar = launch.args(["--events", "--listen", "127.0.0.1:0"]).start();
        let endpoints = Endpoints::of(&sidecar).await;
        sidecar.in_sync().await;
        link.set(State::Frozen);
        let names: Vec<String> = (0..400).map(|number| format!("map-{number}")).collect();
        let maps: Vec<_> = names.iter().map(|name| config_map(name, [(name.as_str(), "1")])).collect();
        namespace.create_all(&maps).await;
        sidecar.holds(names.iter().map(|name| (name.as_str(), "1"))).await;
        let dropped = "configbump_kubernetes_events_total{outcome=\"dropped\"}";
        assert!(endpoints.metrics().await.value(dropped) > 100.0);
        assert_eq!(sidecar.lines_with(&["some are dropped"]).len(), 1);
        assert_eq!(endpoints.probe("/readyz").await.0, 200);
        link.set(State::Up);
        let sent = "configbump_kubernetes_events_total{outcome=\"sent\"}";
        until(LONG_PATIENCE, "Events", async || match endpoints.metrics().await.value(sent) {
            count if count >= 20.0 => Ok(()),
            count => Err(count.to_string()),
        })
        .await;
        // A burst, and then one a second.
        assert!(endpoints.metrics().await.value(sent) < 100.0);
        sidecar.terminate().await;
    });
}

#[test]
fn manifests_have_no_events_and_that_is_said() {
    run(async {
        let workspace = Workspace::new();
        let launch = Launch::new(&workspace).arg("--manifests").arg(workspace.beside("manifests"));
        let ended = launch.environment("CONFIG_BUMP_EVENTS", "true").run().await;
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let expected = "--manifests and --events (from CONFIG_BUMP_EVENTS) exclude each other";
        assert!(ended.stderr.contains(expected), "{ended:?}");
    });
}

#[test]
fn the_doctor_says_whether_events_may_be_written_and_prints_the_rule() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let account = Account::new(&namespace, "sidecar").await;
        account.allow(&namespace, least(&["configmaps"])).await;
        let access = ApiServer::shared().access(&account.token().await);
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let rule = "    resources: [events]\n    verbs: [create, patch]\n";
        let doctor = |events: &[&str]| {
            let launch = Launch::bare(&workspace).arg("doctor").access(&access).arg("--dir").arg(workspace.dir());
            launch.args(["--labels", "app=web", "--namespace", &namespace.name]).args(events.iter().copied())
        };
        let ended = doctor(&[]).run().await;
        assert!(ended.code == Some(0) && !ended.stdout.contains("events"), "{ended:?}");
        let ended = doctor(&["--events"]).run().await;
        let line = format!("fail  --events: may not create and patch events in namespace {}; apply", namespace.name);
        assert!(ended.code == Some(1) && ended.stdout.contains(&line) && ended.stdout.contains(rule), "{ended:?}");
        account.also_allow(&namespace, to_write_events()).await;
        let ended = doctor(&["--events"]).run().await;
        let line = format!("ok    --events: may create and patch events in namespace {}\n", namespace.name);
        assert!(ended.code == Some(0) && ended.stdout.contains(&line) && ended.stdout.contains(rule), "{ended:?}");
    });
}
