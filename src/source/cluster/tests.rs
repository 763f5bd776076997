//! What liveness makes of a server's ways, over a real connection. The clock is ours, so that minutes pass at once, but
//! does not run by itself, so that the connection has the time it takes.

use std::net::SocketAddr;
use std::sync::Mutex;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, yield_now};

use super::*;
use crate::config::Labels;
use crate::telemetry::Recent;

/// How long something may take by the real clock.
const PATIENCE: Duration = Duration::from_secs(30);

/// How the clock is advanced, so that whatever is due in between happens.
const STEP: Duration = Duration::from_secs(5);

/// A stream of the initial list, complete and empty.
const LIST: &str = r#"{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"7","annotations":{"k8s.io/initial-events-end":"true"}}}}"#;
const BOOKMARK: &str =
    r#"{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"8"}}}"#;

/// What the server does with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// It answers with a list, and a bookmark whenever it is asked for one.
    Serves,
    /// It takes the connection and says nothing.
    IsSilent,
    /// It answers that it cannot.
    Complains,
    /// It ends the connection.
    Refuses,
}

/// Keeps the connections that it serves.
struct Server {
    address: SocketAddr,
    manner: Arc<Mutex<Manner>>,
    served: Arc<Mutex<Vec<TcpStream>>>,
    accepted: Arc<Mutex<usize>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let server = Self {
            address: listener.local_addr().expect("a bound socket"),
            manner: Arc::new(Mutex::new(Manner::Serves)),
            served: Arc::default(),
            accepted: Arc::default(),
        };
        let (manner, served, accepted) =
            (Arc::clone(&server.manner), Arc::clone(&server.served), Arc::clone(&server.accepted));
        tokio::spawn(async move {
            let mut talks = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                *accepted.lock().expect("no panic") += 1;
                let manner = *manner.lock().expect("no panic");
                let served = Arc::clone(&served);
                talks.spawn(async move {
                    if let Some(stream) = talk(stream, manner).await {
                        served.lock().expect("no panic").push(stream);
                    }
                });
            }
        });
        server
    }

    fn becomes(&self, manner: Manner) {
        *self.manner.lock().expect("no panic") = manner;
    }

    /// The silence of a link that is cut in between: the connections are still there.
    fn says(&self, line: &str) {
        let chunk = chunk(line);
        for stream in self.served.lock().expect("no panic").iter() {
            // The follower may have left this one.
            let _ = stream.try_write(chunk.as_bytes());
        }
    }

    fn closes_all(&self) {
        self.served.lock().expect("no panic").clear();
    }

    fn accepted(&self) -> usize {
        *self.accepted.lock().expect("no panic")
    }
}

fn chunk(line: &str) -> String {
    format!("{:x}\r\n{line}\n\r\n", line.len() + 1)
}

/// Gives the connection back if there is more to say.
async fn talk(mut stream: TcpStream, manner: Manner) -> Option<TcpStream> {
    let mut request = [0; 4096];
    match manner {
        Manner::Refuses => return None,
        Manner::IsSilent => std::future::pending().await,
        Manner::Serves | Manner::Complains => _ = stream.read(&mut request).await.ok()?,
    }
    if manner == Manner::Complains {
        stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await.ok()?;
        return None;
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(chunk(LIST).as_bytes()).await.ok()?;
    Some(stream)
}

/// A follower of that server, and what is known of its health.
struct Followed {
    telemetry: Telemetry,
    events: mpsc::Receiver<Event>,
    _inquiries: mpsc::Receiver<crate::telemetry::Inquiry>,
    _folder: TempDir,
}

impl Followed {
    async fn start(server: &Server) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("kubeconfig");
        let text = format!(
            "current-context: c\nclusters: [{{name: c, cluster: {{server: 'http://{}'}}}}]\nusers: [{{name: u, user: {{token: t}}}}]\n\
             contexts: [{{name: c, context: {{cluster: c, user: u, namespace: web}}}}]\n",
            server.address
        );
        std::fs::write(&path, text).expect("a temporary folder takes a file");
        let config = ClusterConfig { kubeconfig: Some(path), context: None, tls_verify: true, events: false };
        let labels = Labels { text: "app=web".into(), selector: kube::core::Selector::default() };
        let (kinds, namespaces) = (vec![Kind::ConfigMap], Namespaces::Unset);
        let selection = Selection { kinds, namespaces, labels: Some(labels), names: Vec::new() };
        let cluster = Cluster::find(&config, &selection, None).await.expect("a cluster");
        let (telemetry, inquiries) = Telemetry::new(cluster.scopes(), Recent::default());
        let (sender, events) = mpsc::channel(8);
        drop(cluster.run(&Spool::for_tests(folder.path()), &sender, &[Arc::default()], &telemetry));
        Self { telemetry, events, _inquiries: inquiries, _folder: folder }
    }

    fn dead(&self) -> Vec<String> {
        self.telemetry.dead()
    }

    /// Takes the events, and lets time pass, so that whatever is due happens.
    async fn pass(&mut self, time: Duration) {
        for _ in 0..time.as_secs() / STEP.as_secs() {
            tokio::time::advance(STEP).await;
            for _ in 0..20 {
                yield_now().await;
                while self.events.try_recv().is_ok() {}
            }
        }
    }

    /// Takes the events until this holds, however long that takes by the real clock.
    async fn until(&mut self, what: &str, mut holds: impl FnMut(&Telemetry) -> bool) {
        let start = std::time::Instant::now();
        while !holds(&self.telemetry) {
            assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
            while self.events.try_recv().is_ok() {}
            yield_now().await;
        }
    }
}

/// Runs it with a clock that stands still unless the test advances it.
fn with_a_clock_of_its_own(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let (over, wait) = std::sync::mpsc::channel::<()>();
        // As long as a thread is busy, tokio does not take the wait for a connection for idleness.
        let busy = tokio::task::spawn_blocking(move || wait.recv());
        test.await;
        drop(over);
        assert!(busy.await.expect("a thread").is_err());
    });
}

#[test]
fn a_watch_that_is_silently_cut_is_dead_whatever_configbump_tries() {
    with_a_clock_of_its_own(async {
        let server = Server::start().await;
        let mut followed = Followed::start(&server).await;
        followed.until("the list", |telemetry| telemetry.bookmarks() == 1).await;
        for count in 2..5 {
            followed.pass(Duration::from_secs(120)).await;
            server.says(BOOKMARK);
            followed.until("a bookmark", |telemetry| telemetry.bookmarks() == count).await;
            assert_eq!(followed.dead(), [""; 0]);
        }

        let accepted = server.accepted();
        server.becomes(Manner::IsSilent);
        followed.pass(Duration::from_secs(235)).await;
        assert_eq!(followed.dead(), [""; 0]);
        followed.pass(Duration::from_secs(10)).await;
        let why = followed.dead();
        assert!(why.len() == 1 && why[0].contains("configmaps in namespace web for 245 s"), "{why:?}");
        followed.pass(Duration::from_secs(600)).await;
        assert_eq!(followed.dead().len(), 1);
        assert!(server.accepted() > accepted + 3, "it has tried all the time: {}", server.accepted() - accepted);

        server.becomes(Manner::Serves);
        followed.pass(Duration::from_secs(65)).await;
        followed.until("life", |telemetry| telemetry.dead().is_empty()).await;
    });
}

#[test]
fn while_a_server_refuses_or_complains_it_is_alive_for_as_long_as_that_lasts() {
    with_a_clock_of_its_own(async {
        let server = Server::start().await;
        let mut followed = Followed::start(&server).await;
        followed.until("the list", |telemetry| telemetry.bookmarks() == 1).await;
        for manner in [Manner::Refuses, Manner::Complains] {
            let accepted = server.accepted();
            server.becomes(manner);
            server.closes_all();
            for _ in 0..6 {
                followed.pass(Duration::from_secs(200)).await;
                assert_eq!(followed.dead(), [""; 0], "{manner:?}");
            }
            assert!(server.accepted() > accepted + 20, "it has tried: {}", server.accepted() - accepted);
        }
    });
}

#[test]
fn retry_after_is_a_number_of_seconds_or_a_date() {
    let now = Timestamp::from_second(1_000_000_000).expect("a moment");
    for (text, expected) in [
        ("7", Some(7)),
        ("Sun, 09 Sep 2001 01:47:40 GMT", Some(60)),
        ("Sun, 09 Sep 2001 01:46:00 GMT", None),
        ("soon", None),
        ("-1", None),
    ] {
        assert_eq!(seconds(text, now), expected, "{text}");
    }
}
