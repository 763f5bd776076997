//! A network link to a server that a test can cut, freeze or take away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the link does with connections, those that exist and those to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It carries them.
    Up,
    /// It ends them.
    Down,
    /// It accepts them and carries nothing.
    Frozen,
}

/// Runs on the runtime of its test.
pub struct Link {
    pub address: SocketAddr,
    state: watch::Sender<State>,
    accepted: Arc<AtomicUsize>,
}

impl Link {
    pub async fn to(server: SocketAddr, state: State) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let (sender, receiver) = watch::channel(state);
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(carry(client, server, receiver.clone()));
            }
        });
        Self { address, state: sender, accepted }
    }

    /// Takes effect at once.
    pub fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    /// How many connections were accepted so far, in whatever state.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }
}

async fn carry(mut client: TcpStream, server: SocketAddr, mut state: watch::Receiver<State>) {
    let mut upstream = None;
    loop {
        let now = *state.borrow_and_update();
        match now {
            State::Down => return,
            State::Frozen => {
                if state.changed().await.is_err() {
                    return;
                }
            }
            State::Up => {
                if upstream.is_none() {
                    upstream = TcpStream::connect(server).await.ok();
                }
                let Some(upstream) = &mut upstream else { return };
                tokio::select! {
                    _ = copy_bidirectional(&mut client, upstream) => return,
                    changed = state.changed() => if changed.is_err() { return },
                }
            }
        }
    }
}
