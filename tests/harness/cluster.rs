//! A real etcd with real API servers on it: one for everybody, further ones for tests that need another behaviour.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use kube::Client;
use serde_json::Value;
use tokio::net::TcpSocket;

use super::access::Access;
use super::certificates;
use super::etcd::Etcd;
use super::server::Server;
use super::wait::{run, until};

const START_LIMIT: Duration = Duration::from_secs(90);

/// May do everything; no request of it is in an [`ApiServer::audited`] line.
const ADMIN_TOKEN: &str = "admin-token";

/// What service accounts and strangers ask for ConfigMaps and Secrets. The stage of requests without valid credentials is
/// `ResponseStarted`, that of all others `ResponseComplete` in the end.
const AUDIT_POLICY: &str = r#"{
    "apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],
    "rules": [
        { "level": "None", "users": ["admin", "system:apiserver"] },
        { "level": "Metadata", "resources": [{ "group": "", "resources": ["configmaps", "secrets"] }] },
        { "level": "None" }
    ]
}"#;

/// An etcd, with everything that its API servers share.
pub struct Cluster {
    assets: PathBuf,
    folder: PathBuf,
    authority: String,
    pub etcd: Etcd,
}

struct Shared {
    cluster: Cluster,
    /// With default features: it streams initial lists.
    main: ApiServer,
}

/// Started by the first test that asks, on a thread without a runtime, and killed with this process.
static SHARED: LazyLock<Result<Shared, String>> = LazyLock::new(|| {
    let start = || {
        let cluster = Cluster::start();
        let main = run(cluster.api_server("main", &[]));
        Shared { cluster, main }
    };
    std::thread::spawn(start)
        .join()
        .map_err(|panic| panic.downcast::<String>().map_or_else(|_| "no cluster".to_owned(), |message| *message))
});

fn shared() -> &'static Shared {
    SHARED.as_ref().unwrap_or_else(|error| panic!("{error}"))
}

impl Cluster {
    /// The cluster of this test run.
    pub fn shared() -> &'static Self {
        &shared().cluster
    }

    /// One for a test that troubles it.
    pub fn start() -> Self {
        let assets = assets();
        let folder = tempfile::Builder::new().prefix("cb-").tempdir().expect("a temporary folder").keep();
        let authority = certificates::write(&folder);
        fs::write(folder.join("tokens.csv"), format!("{ADMIN_TOKEN},admin,admin,\"system:masters\"\n"))
            .and_then(|()| fs::write(folder.join("audit-policy.json"), AUDIT_POLICY))
            .expect("a temporary folder takes a file");

        let etcd = Etcd::start(&assets.join("etcd"), &folder);
        Self { assets, folder, authority, etcd }
    }

    /// Starts an API server of that name on this etcd and waits until it is ready.
    pub async fn api_server(&self, name: &str, flags: &[&str]) -> ApiServer {
        let port = Port::reserve();
        let file = |name: &str| self.folder.join(name).display().to_string();
        let mut args = vec![
            format!("--etcd-servers={}", Etcd::url(&self.folder)),
            format!("--bind-address={}", port.address.ip()),
            format!("--secure-port={}", port.address.port()),
            "--permit-port-sharing".to_owned(),
            format!("--advertise-address={}", port.address.ip()),
            "--endpoint-reconciler-type=none".to_owned(),
            format!("--tls-cert-file={}", file("serving.pem")),
            format!("--tls-private-key-file={}", file("serving.key")),
            "--authorization-mode=RBAC".to_owned(),
            format!("--token-auth-file={}", file("tokens.csv")),
            "--service-account-issuer=https://configbump.test".to_owned(),
            format!("--service-account-key-file={}", file("accounts.pub")),
            format!("--service-account-signing-key-file={}", file("accounts.key")),
            "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
            "--enable-priority-and-fairness=false".to_owned(),
            format!("--audit-policy-file={}", file("audit-policy.json")),
            format!("--audit-log-path={}", file(&format!("{name}.audit"))),
        ];
        args.extend(flags.iter().map(|&flag| flag.to_owned()));
        let server = ApiServer {
            program: self.assets.join("kube-apiserver"),
            args,
            log: self.folder.join(format!("{name}.log")),
            audit: self.folder.join(format!("{name}.audit")),
            authority: self.authority.clone(),
            port,
            running: Mutex::default(),
        };
        server.start().await;
        server
    }
}

/// An API server, running or stopped for a while.
pub struct ApiServer {
    program: PathBuf,
    args: Vec<String>,
    log: PathBuf,
    audit: PathBuf,
    authority: String,
    port: Port,
    running: Mutex<Option<Server>>,
}

impl ApiServer {
    /// That of everybody.
    pub fn shared() -> &'static Self {
        &shared().main
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&self) {
        *self.running.lock().expect("no test panicked here") =
            Some(Server::start(&self.program, &self.args, &self.log, None));
        let client = self.admin();
        until(START_LIMIT, &format!("an API server that is ready (its log: {})", self.log.display()), async || {
            let request = http::Request::get("/readyz").body(Vec::new()).expect("a request");
            match client.request_text(request).await {
                Ok(answer) if answer == "ok" => Ok(()),
                Ok(answer) => Err(answer),
                Err(error) => Err(format!("{error}; {}", self.last_words())),
            }
        })
        .await;
    }

    /// Kills it, with all its connections. Nobody else gets its port.
    pub fn stop(&self) {
        self.running.lock().expect("no test panicked here").take();
    }

    /// A client that may do everything.
    pub fn admin(&self) -> Client {
        self.access(ADMIN_TOKEN).client()
    }

    /// How to be somebody who may do everything.
    pub fn admin_access(&self) -> Access {
        self.access(ADMIN_TOKEN)
    }

    /// How to be the one with this token.
    pub fn access(&self, token: &str) -> Access {
        Access { address: self.port.address, authority: Some(self.authority.clone()), token: token.to_owned() }
    }

    /// The audit events of what others than the administrator asked for.
    pub fn audited(&self) -> Vec<Value> {
        let lines = fs::read_to_string(&self.audit).unwrap_or_default();
        // The last line may be half written.
        lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().last().unwrap_or_default().to_owned()
    }
}

/// A port on the loopback interface that is bound, but not listened on: connections are refused, nobody else gets it,
/// and a server that shares ports can take it.
pub struct Port {
    pub address: SocketAddr,
    _socket: TcpSocket,
}

impl Port {
    pub fn reserve() -> Self {
        let bind = || {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseport(true)?;
            socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            Ok::<_, std::io::Error>((socket.local_addr()?, socket))
        };
        let (address, socket) = bind().expect("a free port");
        Self { address, _socket: socket }
    }
}

/// An address for a server that does not share ports: nobody else looks for a free port at this one of the loopback
/// interface's addresses.
pub fn free_address() -> SocketAddr {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [.., high, low] = std::process::id().to_be_bytes();
    let ip = [127, high | 0x80, low, COUNT.fetch_add(1, Ordering::Relaxed)];
    let listener = std::net::TcpListener::bind(SocketAddr::from((ip, 0))).expect("a free port");
    listener.local_addr().expect("a bound socket")
}

/// The folder with the servers. There are no tests without them.
fn assets() -> PathBuf {
    let folder = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from).unwrap_or_default();
    for server in ["etcd", "kube-apiserver"] {
        assert!(
            folder.join(server).is_file(),
            "KUBEBUILDER_ASSETS={:?} has no {server}: run `make test`, or set KUBEBUILDER_ASSETS to a folder with etcd \
             and kube-apiserver (`tests/servers/get` makes and prints one)",
            folder.display()
        );
    }
    folder
}
