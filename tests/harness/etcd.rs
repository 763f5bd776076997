//! An etcd, which tests may stop for a while and make forget.

use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::server::Server;

pub struct Etcd {
    folder: PathBuf,
    server: Server,
}

impl Etcd {
    /// Starts that program with its data, log and sockets in the folder, which is removed after its end.
    pub fn start(program: &Path, folder: &Path) -> Self {
        let peers = socket(folder, "peers");
        let args = [
            format!("--data-dir={}", folder.join("data").display()),
            format!("--listen-client-urls={}", Self::url(folder)),
            format!("--advertise-client-urls={}", Self::url(folder)),
            format!("--listen-peer-urls={peers}"),
            format!("--initial-advertise-peer-urls={peers}"),
            format!("--initial-cluster=default={peers}"),
            "--unsafe-no-fsync".to_owned(),
            "--log-level=error".to_owned(),
        ];
        let server = Server::start(program, args, &folder.join("etcd.log"), Some(folder));
        Self { folder: folder.to_owned(), server }
    }

    /// Where its clients find it.
    pub fn url(folder: &Path) -> String {
        socket(folder, "etcd")
    }

    /// Stops it; it keeps its connections and answers nothing.
    pub fn freeze(&self) {
        self.server.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.server.signal(Signal::CONT);
    }

    /// Forgets the history up to the present.
    pub async fn compact(&self) {
        let status = self.call("maintenance/status", &json!({})).await;
        let revision = &status["header"]["revision"];
        assert!(revision.is_string(), "{status}");
        let answer = self.call("kv/compaction", &json!({ "revision": revision, "physical": true })).await;
        assert!(answer["header"].is_object(), "{answer}");
    }

    /// A call by its JSON gateway.
    async fn call(&self, method: &str, body: &Value) -> Value {
        let body = body.to_string();
        let mut stream = UnixStream::connect(self.folder.join("etcd")).await.expect("a running etcd");
        let head = format!("POST /v3/{method} HTTP/1.0\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.write_all(format!("{head}{body}").as_bytes()).await.expect("a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| serde_json::from_str(body));
        body.and_then(Result::ok).unwrap_or_else(|| panic!("etcd answered {answer:?}"))
    }
}

fn socket(folder: &Path, name: &str) -> String {
    format!("unix://{}", folder.join(name).display())
}
