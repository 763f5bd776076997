//! A forward proxy that a sidecar may have to go through.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// What clients of the proxy speak.
#[derive(Clone)]
pub enum Protocol {
    /// HTTP with CONNECT.
    Http,
    /// The same in TLS.
    Https(Arc<ServerConfig>),
    /// SOCKS 5 without authentication.
    Socks,
}

/// Runs on the runtime of its test.
pub struct Proxy {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts a proxy that leads to the server, whatever destination a client names.
    pub async fn to(server: SocketAddr, protocol: Protocol) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let proxy = Self { address, asked: Arc::clone(&asked) };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (protocol, asked) = (protocol.clone(), Arc::clone(&asked));
                tokio::spawn(async move {
                    // Clients may go away at any time.
                    let _ = match protocol {
                        Protocol::Http => connect(client, server, &asked).await,
                        Protocol::Https(tls) => match TlsAcceptor::from(tls).accept(client).await {
                            Ok(client) => connect(client, server, &asked).await,
                            Err(error) => Err(error),
                        },
                        Protocol::Socks => socks(client, server, &asked).await,
                    };
                });
            }
        });
        proxy
    }

    /// Returns the requests so far: each head of HTTP, or each address of SOCKS.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics with it").clone()
    }
}

fn note(asked: &Mutex<Vec<String>>, request: &[u8]) {
    asked.lock().expect("nobody panics with it").push(String::from_utf8_lossy(request).into_owned());
}

async fn connect(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    server: SocketAddr,
    asked: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    note(asked, &head);
    let mut server = TcpStream::connect(server).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// RFC 1928, for an address of IPv4.
async fn socks(mut client: TcpStream, server: SocketAddr, asked: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut greeting = [0; 3];
    client.read_exact(&mut greeting).await?;
    client.write_all(&[5, 0]).await?;
    let mut request = [0; 10];
    client.read_exact(&mut request).await?;
    let [5, 1, 0, 1, a, b, c, d, high, low] = request else { return Err(io::Error::other(format!("{request:?}"))) };
    note(asked, SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low]))).to_string().as_bytes());
    let mut server = TcpStream::connect(server).await?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
