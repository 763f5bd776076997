//! Traefik watches DIR itself and is told nothing: its routes are those of the ConfigMaps, and no request fails while
//! they change.

use std::net::SocketAddr;

use inotify::{EventMask, Inotify, WatchMask};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};

use crate::harness::cluster::free_address;
use crate::harness::namespace::Namespace;
use crate::harness::object::{annotated, config_map};
use crate::harness::program::Program;
use crate::harness::sidecar::Launch;
use crate::harness::wait::{PATIENCE, run, until};
use crate::harness::web::{Load, get_path};
use crate::harness::workspace::Workspace;
use crate::nginx;

/// The pod of the README, with the arguments that Traefik has in Eclipse Che, too; and its route.
const GATEWAY: &str = include_str!("../../examples/cluster/gateway.yaml");
const ROUTE: &str = include_str!("../../examples/cluster/route.yaml");
/// What is built by `tests/servers/get traefik`, which prints the folder that PATH needs.
const BUILT: &str = include_str!("../servers/traefik/go.mod");

/// Beyond the README's: nobody is to be asked for news, and a change is not to wait until the one before it is 2 s old,
/// as it is by default. Warnings would tell of files that are read twice.
const FOR_TESTS: [&str; 5] = [
    "--global.checknewversion=false",
    "--global.sendanonymoususage=false",
    "--providers.providersthrottleduration=10ms",
    "--log.level=WARN",
    "--log.nocolor=true",
];

fn container() -> k8s_openapi::api::core::v1::Container {
    let pod: Pod = serde_saphyr::from_str(GATEWAY).expect("the example of a pod");
    let mut containers = pod.spec.expect("its spec").containers.into_iter();
    containers.find(|container| container.name == "traefik").expect("Traefik's container")
}

/// A Traefik that reads DIR, and an upstream that answers with the path that it is asked for.
struct Gateway {
    traefik: Program,
    address: SocketAddr,
    _upstream: (Program, Workspace),
    upstream: SocketAddr,
}

impl Gateway {
    /// DIR is there, as a volume is: Traefik does not wait for it.
    fn start(workspace: &Workspace) -> Self {
        let (beyond, address, upstream) = (Workspace::new(), free_address(), free_address());
        beyond.write("echo.conf", "location / { return 200 \"$uri\"; }\n");
        let nginx = Program::start(&beyond, "nginx", nginx::arguments(&beyond, upstream));
        let (dir, address_here) = (workspace.dir().display().to_string(), address.to_string());
        let arguments = container().args.expect("its arguments").into_iter();
        let arguments = arguments.map(|word| word.replace("/dynamic-config", &dir).replace(":8080", &address_here));
        let traefik = Program::start(workspace, "traefik", arguments.chain(FOR_TESTS.map(str::to_owned)));
        Self { traefik, address, _upstream: (nginx, beyond), upstream }
    }

    /// Waits until what is at `path` is answered with `wanted`: a path of the upstream, or [`NO_ROUTE`].
    async fn answers(&self, path: &str, wanted: &str) {
        let what = format!("the answer {wanted} at {path}");
        self.traefik
            .until(&what, async || match get_path(self.address, path).await {
                Ok(answer) if answer == wanted => Ok(()),
                Err(error) if wanted == NO_ROUTE && error.to_string().contains(NO_ROUTE) => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await;
    }

    /// What it wrote about the files: that one cannot be read, or has what another has, too.
    fn complaints(&self) -> Vec<String> {
        let log = self.traefik.output();
        log.lines().filter(|line| line.contains("providerName=file")).map(str::to_owned).collect()
    }

    /// The ConfigMap `name` with the README's route, under another name.
    fn route(&self, name: &str, route: &str) -> ConfigMap {
        let example: ConfigMap = serde_saphyr::from_str(ROUTE).expect("the example of a route");
        let text = &example.data.expect("its data")["hello.yml"];
        let text = text.replace("hello:8080", &self.upstream.to_string()).replace("hello", route);
        config_map(name, [(&format!("{name}.yml"), &text)])
    }

    /// A route of everything, to this path of the upstream.
    fn to(&self, path: &str) -> ConfigMap {
        let text = format!(
            "
            http:
              routers:
                site: {{rule: 'PathPrefix(`/`)', service: site, middlewares: [site]}}
              middlewares:
                site: {{replacePath: {{path: {path}}}}}
              services:
                site: {{loadBalancer: {{servers: [{{url: 'http://{}'}}]}}}}
            ",
            self.upstream
        );
        config_map("site", [("site.yml", &text)])
    }
}

/// How Traefik answers where no route leads.
const NO_ROUTE: &str = "404 page not found";

#[test]
fn routes_come_change_and_go_with_their_config_maps() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.in_sync().await;
        let gateway = Gateway::start(&workspace);
        gateway.answers("/hello", NO_ROUTE).await;

        let first = namespace.create(&gateway.route("first", "hello")).await;
        gateway.answers("/hello", "/hello").await;
        let second = namespace.create(&gateway.route("second", "world")).await;
        gateway.answers("/world", "/world").await;
        namespace.replace(&gateway.route("first", "hi")).await;
        gateway.answers("/hi", "/hi").await;
        gateway.answers("/hello", NO_ROUTE).await;

        // What is kept aside is below DIR, where Traefik sees it, and is no route.
        namespace.wait_to_be_younger_than(&first).await;
        let mut late = gateway.route("first", "late");
        late.metadata.name = Some("late".to_owned());
        namespace.create(&late).await;
        sidecar.says("/late").await;
        namespace.delete(&second).await;
        gateway.answers("/world", NO_ROUTE).await;
        gateway.answers("/late", NO_ROUTE).await;
        namespace.delete(&first).await;
        gateway.answers("/late", "/late").await;
        gateway.answers("/hi", NO_ROUTE).await;
        namespace.delete(&late).await;
        gateway.answers("/late", NO_ROUTE).await;
        // One that goes while Traefik reads the folder is an error to it, and it reads again when told of the removal.
        let mut complaints = gateway.complaints();
        complaints.retain(|line| !line.contains("no such file"));
        assert_eq!(complaints, [""; 0]);
    });
}

#[test]
fn under_load_no_request_fails_across_50_changes() {
    const CHANGES: usize = 50;
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.in_sync().await;
        let gateway = Gateway::start(&workspace);
        namespace.create(&gateway.to("/first")).await;
        gateway.answers("/", "/first").await;

        let load = Load::on(gateway.address, "/");
        for number in 0..CHANGES {
            let path = format!("/answer-{number}");
            namespace.replace(&gateway.to(&path)).await;
            gateway.answers("/", &path).await;
        }
        let (answered, failures) = load.end();
        assert_eq!(failures, [""; 0], "of {answered}");
        assert!(answered > CHANGES as u64, "{answered}");
        // Nor did it ever find half a file.
        assert_eq!(gateway.complaints(), [""; 0]);
    });
}

#[test]
fn the_traefik_of_the_example_is_the_one_that_the_tests_build() {
    let image = container().image.expect("its image");
    let version = image.strip_prefix("traefik:").expect("an image of Traefik's");
    assert!(BUILT.contains(&format!("github.com/traefik/traefik/v3 {version}.")), "{image}");
}

/// What Traefik asks inotify about a folder, and the end of writing, for which others wait.
fn watched() -> WatchMask {
    let moves = WatchMask::MOVED_TO | WatchMask::MOVED_FROM | WatchMask::MOVE_SELF;
    let others = WatchMask::CREATE | WatchMask::ATTRIB | WatchMask::DELETE | WatchMask::DELETE_SELF;
    moves | others | WatchMask::MODIFY | WatchMask::CLOSE_WRITE
}

#[test]
fn a_watcher_of_dir_sees_one_event_a_change_and_none_of_a_restart() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let launch = Launch::within(&namespace, &workspace);
        let (small, large) = (config_map("small", [("small", "1")]), ["1", "2"].map(|digit| digit.repeat(100_000)));
        let [large, larger] = large.map(|value| config_map("large", [("large", &value)]));
        let sidecar = launch.start();
        sidecar.in_sync().await;
        let mut inotify = Inotify::init().expect("inotify");
        inotify.watches().add(workspace.dir(), watched()).expect("a watch");
        let mut seen = Vec::new();
        let mut sees = async |what: EventMask, name: &str| {
            let before = seen.len();
            until(PATIENCE, &format!("{what:?} of {name}"), async || {
                // An error says that there is nothing to read yet.
                let mut buffer = [0; 4096];
                let events = inotify.read_events(&mut buffer).into_iter().flatten();
                seen.extend(events.map(|event| (event.mask, event.name.unwrap_or_default().to_owned())));
                if seen.len() > before { Ok(()) } else { Err("nothing".to_owned()) }
            })
            .await;
            assert_eq!(seen[before..], [(what, name.into())]);
        };
        namespace.create(&small).await;
        sees(EventMask::MOVED_TO, "small").await;
        namespace.create(&large).await;
        sees(EventMask::MOVED_TO, "large").await;
        namespace.replace(&config_map("small", [("small", "2")])).await;
        sees(EventMask::MOVED_TO, "small").await;
        // Another version of the object, but not of the file.
        namespace.replace(&annotated(large, "example.com/note", "x")).await;
        namespace.replace(&config_map("small", [("small", "3")])).await;
        sees(EventMask::MOVED_TO, "small").await;

        sidecar.terminate().await;
        let sidecar = launch.start();
        sidecar.in_sync().await;
        namespace.replace(&larger).await;
        sees(EventMask::MOVED_TO, "large").await;
        namespace.delete(&small).await;
        sees(EventMask::DELETE, "small").await;
    });
}
