//! A network link to a server that a test can cut, or keep from answering.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the link does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It carries them.
    Up,
    /// It ends those that there are and those to come.
    Down,
    /// It accepts new ones and carries nothing until it is up; those that it carries already it goes on to carry.
    Frozen,
}

/// Runs on the runtime of its test.
pub struct Link {
    pub address: SocketAddr,
    state: watch::Sender<State>,
    accepted: Arc<AtomicUsize>,
    answer_bytes_max: Arc<AtomicU64>,
}

impl Link {
    pub async fn to(server: SocketAddr, state: State) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let (sender, receiver) = watch::channel(state);
        let accepted = Arc::new(AtomicUsize::new(0));
        let answer_bytes_max = Arc::new(AtomicU64::new(u64::MAX));
        let (count, limit) = (Arc::clone(&accepted), Arc::clone(&answer_bytes_max));
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(carry(client, server, receiver.clone(), limit.load(Ordering::Relaxed)));
            }
        });
        Self { address, state: sender, accepted, answer_bytes_max }
    }

    /// Takes effect at once.
    pub fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    /// Ends connections made from now on when the server has sent this many bytes over one.
    pub fn cut_after(&self, bytes: u64) {
        self.answer_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// How many connections were accepted so far, in whatever state.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr, mut state: watch::Receiver<State>, answer_bytes_max: u64) {
    while *state.borrow_and_update() == State::Frozen {
        if state.changed().await.is_err() {
            return;
        }
    }
    if *state.borrow() == State::Down {
        return;
    }
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.split();
    let (from_server, mut to_server) = server.split();
    let mut from_server = from_server.take(answer_bytes_max);
    tokio::select! {
        _ = copy(&mut from_client, &mut to_server) => {}
        _ = copy(&mut from_server, &mut to_client) => {}
        _ = state.wait_for(|&state| state == State::Down) => {}
    }
}
