//! A network link to a server that a test can cut, keep from answering, or have lose every packet.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use socket2::{SockFilter, SockRef};
use tokio::io::{AsyncReadExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::wait::STEP;

/// What the link does with connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It carries them.
    Up,
    /// It ends those that there are and those to come.
    Down,
    /// It accepts new ones and carries nothing until it is up; those that it carries already it goes on to carry.
    Frozen,
    /// It loses every packet and tells nobody: those of the connections that there are, for ever, and those of new ones.
    Silent,
}

/// How connections end before their ends do it.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// They are closed.
    Cut,
    /// No packet arrives any more.
    Silent,
}

/// The program of a socket filter (BPF) that lets no packet in: `return 0`.
const NOTHING: SockFilter = SockFilter::new(0x06, 0, 0, 0);

/// Runs on the runtime of its test.
pub struct Link {
    pub address: SocketAddr,
    listener: Arc<TcpListener>,
    state: watch::Sender<State>,
    losing: watch::Sender<Loss>,
    accepted: Arc<AtomicUsize>,
    answer_bytes_max: Arc<AtomicU64>,
}

impl Link {
    pub async fn to(server: SocketAddr, state: State) -> Self {
        let listener = Arc::new(TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port"));
        let address = listener.local_addr().expect("a bound socket");
        let (sender, receiver) = watch::channel(State::Up);
        let (losing, lost) = watch::channel(Loss::Cut);
        let accepted = Arc::new(AtomicUsize::new(0));
        let answer_bytes_max = Arc::new(AtomicU64::new(u64::MAX));
        let (count, limit) = (Arc::clone(&accepted), Arc::clone(&answer_bytes_max));
        let accepting = Arc::clone(&listener);
        tokio::spawn(async move {
            while let Ok((client, _)) = accepting.accept().await {
                count.fetch_add(1, Ordering::Relaxed);
                let (receiver, mut lost) = (receiver.clone(), lost.clone());
                lost.mark_unchanged();
                tokio::spawn(carry(client, server, receiver, lost, limit.load(Ordering::Relaxed)));
            }
        });
        let link = Self { address, listener, state: sender, losing, accepted, answer_bytes_max };
        link.set(state);
        link
    }

    /// Takes effect at once.
    pub fn set(&self, state: State) {
        let listener = SockRef::from(&*self.listener);
        if *self.state.borrow() == State::Silent {
            listener.detach_filter().expect("the filter is there");
        }
        match state {
            State::Up | State::Frozen => {}
            State::Down => self.cut(),
            State::Silent => {
                listener.attach_filter(&[NOTHING]).expect("a listener takes a filter");
                self.lose_connections();
            }
        }
        self.state.send_replace(state);
    }

    /// Closes the connections that there are. New ones are carried.
    pub fn cut(&self) {
        self.losing.send_replace(Loss::Cut);
    }

    /// Loses every packet of the connections that there are from now on, as a router does that has forgotten them. New ones
    /// are carried.
    pub fn lose_connections(&self) {
        self.losing.send_replace(Loss::Silent);
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

async fn carry(
    mut client: TcpStream,
    server: SocketAddr,
    mut state: watch::Receiver<State>,
    mut lost: watch::Receiver<Loss>,
    answer_bytes_max: u64,
) {
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
        _ = copy(&mut from_client, &mut to_server) => return,
        _ = copy(&mut from_server, &mut to_client) => return,
        _ = lost.changed() => {}
    }
    if matches!(*lost.borrow(), Loss::Silent) {
        // What the other side has not acknowledged would be sent again, so that it would not be silent.
        while !is_acknowledged(&client) {
            tokio::time::sleep(STEP).await;
        }
        SockRef::from(&client).attach_filter(&[NOTHING]).expect("a socket takes a filter");
        // The end of this would say goodbye.
        std::future::pending::<()>().await;
    }
}

/// Whether the other side has acknowledged everything, by the kernel's table of connections.
fn is_acknowledged(connection: &TcpStream) -> bool {
    let ends = [connection.local_addr(), connection.peer_addr()].map(|end| match end {
        Ok(SocketAddr::V4(end)) => format!("{:08X}:{:04X}", u32::from_ne_bytes(end.ip().octets()), end.port()),
        other => panic!("{other:?} is no IPv4 address"),
    });
    let connections = fs::read_to_string("/proc/net/tcp").expect("the kernel's connections");
    let ours = connections.lines().map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>());
    ours.filter(|columns| columns[..2] == ends).all(|columns| columns[3].starts_with("00000000:"))
}
