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

/// The body of what is at `/`.
///
/// # Errors
///
/// Anything but a whole answer with status 200.
pub async fn get(server: SocketAddr) -> io::Result<String> {
    let talk = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    let answer = timeout(PATIENCE, talk).await??;
    let broken = || io::Error::other(format!("{answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(broken)?;
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let is_whole = head.starts_with("HTTP/1.1 200 ") && length.is_none_or(|length: usize| length == body.len());
    if is_whole { Ok(body.to_owned()) } else { Err(broken()) }
}

/// Clients that ask all the time.
pub struct Load {
    over: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    failures: Arc<Mutex<Vec<String>>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn on(server: SocketAddr) -> Self {
        let mut load =
            Self { over: Arc::default(), answers: Arc::default(), failures: Arc::default(), clients: vec![] };
        for _ in 0..CLIENTS {
            let (over, answers, failures) =
                (Arc::clone(&load.over), Arc::clone(&load.answers), Arc::clone(&load.failures));
            let ask = async move {
                while !over.load(Ordering::Relaxed) {
                    match get(server).await {
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
