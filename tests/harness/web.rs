//! HTTP as plain as can be, a connection a request: a client, a load of such clients, and a server.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use super::wait::{PATIENCE, run};

/// How many clients a load is made of, and how long each of them rests between two requests.
const CLIENTS: usize = 4;
const REST: Duration = Duration::from_millis(1);

/// What a server has said.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The headers, a line each, in lower case.
    pub head: String,
    pub body: String,
}

/// The body of what is at `/`.
///
/// # Errors
///
/// Anything but a whole answer with status 200.
pub async fn get(server: SocketAddr) -> io::Result<String> {
    get_path(server, "/").await
}

/// The body of what is at this path.
///
/// # Errors
///
/// Anything but a whole answer with status 200.
pub async fn get_path(server: SocketAddr, path: &str) -> io::Result<String> {
    match ask(server, path).await? {
        Answer { status: 200, body, .. } => Ok(body),
        other => Err(io::Error::other(format!("{other:?}"))),
    }
}

/// What is at a path.
///
/// # Errors
///
/// Anything but a whole answer.
pub async fn ask(server: SocketAddr, path: &str) -> io::Result<Answer> {
    let talk = async {
        let mut stream = TcpStream::connect(server).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(PATIENCE, talk).await??;
    whole(&answer).ok_or_else(|| io::Error::other(format!("{answer:?}")))
}

fn whole(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let (status, head) = head.strip_prefix("HTTP/1.1 ")?.split_once("\r\n")?;
    let head = head.to_ascii_lowercase();
    let length: Option<usize> = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    let body = match length {
        _ if head.contains("transfer-encoding: chunked") => unchunked(body)?,
        Some(length) if body.len() != length => return None,
        _ => body.to_owned(),
    };
    Some(Answer { status: status.get(..3)?.parse().ok()?, head, body })
}

/// What was sent in chunks, if the last one was.
fn unchunked(mut chunks: &str) -> Option<String> {
    let mut text = String::new();
    loop {
        let (length, rest) = chunks.split_once("\r\n")?;
        let length = usize::from_str_radix(length, 16).ok()?;
        if length == 0 {
            return Some(text);
        }
        text.push_str(rest.get(..length)?);
        chunks = rest.get(length..)?.strip_prefix("\r\n")?;
    }
}

/// Clients that ask all the time.
pub struct Load {
    over: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn on(server: SocketAddr, path: &'static str) -> Self {
        let mut load =
            Self { over: Arc::default(), answers: Arc::default(), failures: Arc::default(), clients: vec![] };
        for _ in 0..CLIENTS {
            let (over, answers, failures) =
                (Arc::clone(&load.over), Arc::clone(&load.answers), Arc::clone(&load.failures));
            let ask = async move {
                while !over.load(Ordering::Relaxed) {
                    match get_path(server, path).await {
                        Ok(_) => _ = answers.fetch_add(1, Ordering::Relaxed),
                        Err(error) => failures.lock().expect("nobody panics with it").push(error.to_string()),
                    }
                    sleep(REST).await;
                }
            };
            load.clients.push(std::thread::spawn(|| run(ask)));
        }
        load
    }

    /// Ends it: how many requests were answered, and what became of the others.
    pub fn end(mut self) -> (u64, Vec<String>) {
        self.over.store(true, Ordering::Relaxed);
        self.clients.drain(..).for_each(|client| client.join().expect("a client does not panic"));
        (self.answers.load(Ordering::Relaxed), self.failures.lock().expect("nobody panics with it").clone())
    }
}

/// However the test ends, nobody goes on asking.
impl Drop for Load {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Listens there, on a port that may be reserved, and has `answer` give the status for the first line of each request.
/// Runs on the runtime of its test.
pub fn serve(address: SocketAddr, mut answer: impl FnMut(&str) -> u16 + 'static + Send) -> SocketAddr {
    let listen = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseport(true)?;
        socket.bind(address)?;
        socket.listen(16)
    };
    let listener = listen().expect("a port to listen on");
    let address = listener.local_addr().expect("a bound socket");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                if !matches!(client.read_buf(&mut request).await, Ok(1..)) {
                    break;
                }
            }
            let request = String::from_utf8_lossy(&request);
            let Some(line) = request.lines().next() else { continue };
            let status = answer(line);
            let answer = format!("HTTP/1.1 {status} \r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            // A client that is gone will ask again.
            let _ = client.write_all(answer.as_bytes()).await;
        }
    });
    address
}
