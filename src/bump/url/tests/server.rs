//! A server on loopback that takes one connection and one request.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::thread;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{Error, PATIENCE};

pub struct Server {
    pub port: u16,
    told: mpsc::Receiver<Told>,
}

/// What a client has told.
#[derive(Debug, Default)]
pub struct Told {
    /// The first line and the headers, one a line.
    pub head: String,
    pub body: String,
    /// Whether the client closed the connection, having got the answer.
    pub closed: bool,
}

impl Server {
    /// Gives this answer, over TLS if there is a set-up for it; an empty one is none at all.
    pub fn start(answer: &str, tls: Option<Arc<ServerConfig>>) -> Result<Self, Box<dyn Error>> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let port = listener.local_addr()?.port();
        let (sender, told) = mpsc::channel();
        let answer = answer.to_owned();
        thread::spawn(move || {
            let Ok((stream, _)) = listener.accept() else { return };
            if stream.set_read_timeout(Some(PATIENCE)).is_err() {
                return;
            }
            let heard = match tls.map(ServerConnection::new) {
                None => converse(stream, &answer),
                Some(Ok(tls)) => converse(StreamOwned::new(tls, stream), &answer),
                Some(Err(_)) => return,
            };
            // The test may not care.
            let _ = sender.send(heard);
        });
        Ok(Self { port, told })
    }

    pub fn url(&self, rest: &str) -> String {
        format!("http://127.0.0.1:{}{rest}", self.port)
    }

    /// What the client has told, once the connection is over. The runtime goes on meanwhile.
    pub async fn told(self) -> Result<Told, Box<dyn Error>> {
        Ok(tokio::task::spawn_blocking(move || self.told.recv_timeout(PATIENCE * 2)).await??)
    }
}

fn converse(mut stream: impl Read + Write, answer: &str) -> Told {
    let mut told = Told::default();
    let mut request = Vec::new();
    let mut bytes = [0; 1024];
    let length = loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            told.head = head.replace("\r\n", "\n");
            told.body = body.to_owned();
            let length = told.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                break length;
            }
        }
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => return told,
            Ok(read) => request.extend_from_slice(&bytes[..read]),
        }
    };
    assert_eq!(told.body.len(), length);
    if stream.write_all(answer.as_bytes()).and_then(|()| stream.flush()).is_err() {
        return told;
    }
    told.closed = match stream.read(&mut bytes) {
        Ok(read) => read == 0,
        Err(error) => matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
    };
    told
}

impl Told {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}
