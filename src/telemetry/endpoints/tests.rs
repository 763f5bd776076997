//! The server against clients that are curious, slow, greedy or broken. Where time has to pass, the clock is ours.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::event::{Event, What};
use crate::object::{Kind, Object, ObjectKey};
use crate::telemetry::{Conflict, Done};

/// A server that runs until it is dropped, on the runtime of its test.
struct Server {
    address: SocketAddr,
    telemetry: Telemetry,
    stop: Option<oneshot::Sender<()>>,
}

impl Server {
    /// One whose pipeline always sees this.
    async fn start(picture: Picture) -> Self {
        let scope = Scope { kind: Some(Kind::ConfigMap), namespace: Some("web".into()), name: None };
        let (telemetry, mut inquiries) = Telemetry::new(vec![scope], Recent::default());
        tokio::spawn(async move {
            while let Some(inquiry) = inquiries.recv().await {
                inquiry.answer(picture.clone());
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let (stop, stopped) = oneshot::channel();
        let shared = telemetry.0.clone().expect("it is on");
        tokio::spawn(serve(listener, shared, async { drop(stopped.await) }));
        Self { address, telemetry, stop: Some(stop) }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the server listens")
    }

    /// Says this, and gives all that is answered until the server closes the connection, which it may do at any time.
    async fn told(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        let mut answer = Vec::new();
        let (mut from, mut to) = stream.split();
        let _ = tokio::join!(to.write_all(request.as_bytes()), from.read_to_end(&mut answer));
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The status line, the head and the body of the answer to a GET.
    async fn get(&self, path: &str) -> (u16, String, String) {
        let answer = self.told(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a whole answer");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, head.to_ascii_lowercase(), body.to_owned())
    }

    fn report(&self, number: usize) -> Arc<ObjectKey> {
        let key = Arc::new(ObjectKey { kind: Kind::ConfigMap, namespace: "web".into(), name: format!("{number:05}") });
        let version = Some(number.to_string());
        let (key_of_it, entries) = (Arc::clone(&key), Vec::new());
        let object =
            Object { key: key_of_it, resource_version: version, uid: None, created: None, folder: None, entries };
        let about = self.telemetry.taking(&Event { scope: 0, what: What::Apply(object) });
        self.telemetry.taken(about.as_ref(), Done::default(), |_| true);
        key
    }
}

/// The body of an answer in chunks.
fn unchunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).expect("a length");
        text.push_str(&rest[..length]);
        body = &rest[length + 2..];
    }
    text
}

#[tokio::test]
async fn each_path_answers_and_others_say_which_there_are() {
    let server = Server::start(Picture::default()).await;
    let (code, head, body) = server.get("/livez").await;
    assert_eq!((code, body.as_str()), (200, "ok\n"));
    assert!(head.contains("connection: close") && head.contains("content-length: 3"), "{head}");
    let (code, _, body) = server.get("/readyz?verbose").await;
    assert_eq!((code, body.as_str()), (503, "the first sync is not on disk yet\n"));
    server.telemetry.in_step();
    assert_eq!(server.get("/readyz").await.0, 200);
    let (code, head, body) = server.get("/metrics").await;
    assert!(code == 200 && head.contains("content-type: application/openmetrics-text"), "{head}");
    assert!(body.contains("\nconfigbump_ready 1\n"), "{body}");
    for path in ["/", "/livez/", "/status/../livez", "//livez", "/debug"] {
        let (code, _, body) = server.get(path).await;
        assert!(code == 404 && body.contains("/livez"), "{path}: {code} {body}");
    }
}

#[tokio::test]
async fn only_get_and_head_are_answered_and_one_request_a_connection() {
    let server = Server::start(Picture::default()).await;
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        let answer =
            server.told(&format!("{method} /livez HTTP/1.1\r\nHost: x\r\ncontent-length: 4\r\n\r\nbody")).await;
        assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD"), "{answer}");
    }
    let answer = server.told("HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
    let request = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = server.told(&request.repeat(3)).await;
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let server = Server::start(Picture::default()).await;
    let long = "x".repeat(4 * BUFFER_BYTES);
    let many: String = (0..=HEADERS_MAX).map(|number| format!("h{number}: 1\r\n")).collect();
    for request in [
        "\0\0\0\0\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\0\r\n\r\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        format!("GET /{long} HTTP/1.1\r\n\r\n"),
        format!("GET /livez HTTP/1.1\r\nh: {long}\r\n\r\n"),
        format!("GET /livez HTTP/1.1\r\n{many}\r\n"),
    ] {
        let answer = server.told(&request).await;
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(refused, "{:?}: {answer}", &request[..20.min(request.len())]);
    }
    assert_eq!(server.get("/livez").await.0, 200);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_drips_its_request_is_cut_off() {
    let server = Server::start(Picture::default()).await;
    for head in ["", "GET /livez HTTP/1.1\r\n", "GET /livez HTTP/1.1\r\nx: "] {
        let mut stream = server.connect().await;
        stream.write_all(head.as_bytes()).await.expect("the server reads");
        let began = Instant::now();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        let took = began.elapsed();
        assert!(took < CONNECTION_MAX, "{head:?}: {took:?}, {answer:?}");
        assert!(!answer.starts_with("HTTP/1.1 200"), "{head:?}: {answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_take_its_answer_is_cut_off() {
    let server = Server::start(Picture::default()).await;
    // More than the kernel buffers.
    (0..100_000).for_each(|number| drop(server.report(number)));
    let mut stream = server.connect().await;
    stream.write_all(b"GET /status HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("the server reads");
    sleep(2 * CONNECTION_MAX).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "it had begun");
    assert!(!answer.ends_with(b"0\r\n\r\n"), "{} bytes, and they are all", answer.len());
}

#[tokio::test]
async fn whoever_only_holds_connections_keeps_nobody_out() {
    let server = Server::start(Picture::default()).await;
    let mut idle = Vec::new();
    let began = Instant::now();
    for _ in 0..2 * CONNECTIONS_MAX {
        idle.push(server.connect().await);
    }
    assert_eq!(server.get("/livez").await.0, 200);
    let closed = idle[0].read_u8().await;
    assert!(closed.is_err(), "{closed:?}");
    // Else they would all have been gone for their slowness.
    assert!(began.elapsed() < HEAD_MAX, "{:?}", began.elapsed());
}

#[tokio::test]
async fn status_is_one_document_with_every_object_however_many_there_are() {
    let key = |name: &str| Arc::new(ObjectKey { kind: Kind::Secret, namespace: "web".into(), name: name.to_owned() });
    let path = crate::path::RelPath::parse("a\"b").expect("a path");
    let conflict = Conflict::new(&path, &key("first"), &key("second"));
    let picture = Picture { files: 2, conflicts: 7, first_conflicts: vec![conflict], ..Picture::default() };
    let server = Server::start(picture).await;
    let all_of = |status: &Value| -> BTreeSet<String> {
        let objects = status["objects"].as_array().expect("an array");
        let names: BTreeSet<_> = objects.iter().map(|object| object["name"].to_string()).collect();
        assert_eq!(names.len(), objects.len(), "each once");
        names
    };
    for count in [0, 1, 5000] {
        (0..count).for_each(|number| drop(server.report(number)));
        let (code, head, body) = server.get("/status").await;
        assert!(code == 200 && head.contains("content-type: application/json"), "{head}");
        let status: Value = serde_json::from_str(&unchunked(&body)).expect("JSON");
        assert_eq!(all_of(&status).len(), count);
        assert_eq!(status["files"], 2);
        assert_eq!(status["conflictCount"], 7);
        assert_eq!(status["conflicts"][0]["path"], "a\"b");
        assert_eq!(status["conflicts"][0]["winner"], "Secret web/first");
        assert_eq!(status["conflicts"][0]["loser"], "Secret web/second");
        assert_eq!(status["holds"], Value::Array(Vec::new()));
        assert_eq!(status["scopes"][0]["scope"], "configmaps in namespace web");
        assert_eq!(status["live"]["ok"], true);
        assert_eq!(status["ready"]["why"][0], "the first sync is not on disk yet");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_does_not_answer_is_no_reason_to_wait_for_ever() {
    let (telemetry, _inquiries) = Telemetry::new(Vec::new(), Recent::default());
    let shared = telemetry.0.clone().expect("it is on");
    for path in ["/metrics", "/status"] {
        assert_eq!(answer(&Method::GET, path, &shared).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(answer(&Method::GET, "/livez", &shared).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_server_ends_when_it_is_told_to() {
    let mut server = Server::start(Picture::default()).await;
    let mut connected = server.connect().await;
    assert_eq!(server.get("/livez").await.0, 200);
    server.stop.take();
    let closed = connected.read_u8().await;
    assert!(closed.is_err(), "{closed:?}");
    let refused = TcpStream::connect(server.address).await;
    assert!(refused.is_err(), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_port_in_use_is_waited_for() {
    let holder = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = holder.local_addr().expect("a bound socket");
    let mut waiting = pin!(listen::bound(Address::One(address)));
    assert!(timeout(Duration::from_secs(600), &mut waiting).await.is_err());
    drop(holder);
    let listener = timeout(Duration::from_secs(31), waiting).await.expect("the port is free");
    assert_eq!(listener.local_addr().expect("a bound socket"), address);
}

/// As many as come at once are there before the server has looked at any of them.
#[tokio::test]
async fn a_request_that_is_there_is_answered_however_many_connections_come_with_it() {
    let server = Server::start(Picture::default()).await;
    let connect = || std::net::TcpStream::connect(server.address).expect("the server listens");
    let mut probe = connect();
    std::io::Write::write_all(&mut probe, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").expect("an open connection");
    let _flood: Vec<_> = (0..3 * CONNECTIONS_MAX).map(|_| connect()).collect();
    probe.set_nonblocking(true).expect("an open connection");
    let mut answer = Vec::new();
    let read = TcpStream::from_std(probe).expect("an open connection").read_to_end(&mut answer).await;
    assert!(read.is_ok() && answer.starts_with(b"HTTP/1.1 200 "), "{read:?}");
}
