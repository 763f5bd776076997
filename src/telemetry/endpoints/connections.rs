//! The open connections, and which of them is closed for a new one.

use std::collections::VecDeque;
use std::net::IpAddr;

use tokio::task::AbortHandle;

use super::CONNECTIONS_MAX;

/// Open connections, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Connections(VecDeque<(Client, AbortHandle)>);

/// An address as far as one client is known by it: of IPv6, a client usually has a network of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Client(u128);

impl From<IpAddr> for Client {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.to_bits().into()),
            IpAddr::V6(address) => Self(address.to_bits() >> 64 << 64),
        }
    }
}

impl Connections {
    /// Adds the connection of a client. Of too many, one is closed: the oldest one of the client that has the most.
    pub fn add(&mut self, address: IpAddr, connection: AbortHandle) {
        self.0.push_back((address.into(), connection));
        if self.0.len() > CONNECTIONS_MAX
            && let Some((_, closed)) = self.most_crowded().and_then(|at| self.0.remove(at))
        {
            closed.abort();
        }
    }

    /// Forgets those that have ended.
    pub fn forget_ended(&mut self) {
        self.0.retain(|(_, connection)| !connection.is_finished());
    }

    /// Returns the index of the oldest connection of the client that has the most; among equals, of the oldest one's.
    fn most_crowded(&self) -> Option<usize> {
        let count = |client: Client| self.0.iter().filter(|(other, _)| *other == client).count();
        let mut most = None;
        for (at, (client, _)) in self.0.iter().enumerate() {
            let count = count(*client);
            if most.is_none_or(|(_, most)| count > most) {
                most = Some((at, count));
            }
        }
        most.map(|(at, _)| at)
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn the_client_with_the_most_connections_loses_its_oldest() {
        let mut tasks = JoinSet::new();
        let mut connections = Connections::default();
        let mut add = |address: &str| {
            let connection = tasks.spawn(std::future::pending::<()>());
            connections.add(address.parse().expect("an address"), connection.clone());
            connection
        };
        let probe = add("10.0.0.1");
        let first = add("2001:db8::1");
        let flood: Vec<_> = (2..1000).map(|host| add(&format!("2001:db8::{host:x}"))).collect();
        let others: Vec<_> = (0..5).map(|host| add(&format!("::ffff:10.0.1.{host}"))).collect();
        for _ in CONNECTIONS_MAX..2 + flood.len() + others.len() {
            tasks.join_next().await;
        }
        assert!(!probe.is_finished() && first.is_finished());
        assert!(others.iter().all(|connection| !connection.is_finished()));
        assert_eq!(flood.iter().filter(|connection| !connection.is_finished()).count(), CONNECTIONS_MAX - 6);
        assert!(!flood[flood.len() - 1].is_finished(), "the newest stays");
    }
}
