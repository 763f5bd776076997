//! Looks up host names on the [`READERS`], which do not fail as a whole when the kernel refuses a thread.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use tower::Service;

use crate::threads::READERS;

/// Makes TCP connections to names.
pub type Connector = HttpConnector<Resolver>;

/// Asks the system's resolver, as `getaddrinfo(3)`.
#[derive(Clone, Copy, Debug)]
pub struct Resolver;

/// Returns a connector for `http` and, below TLS, `https`.
#[must_use]
pub fn connector() -> Connector {
    let mut connector = HttpConnector::new_with_resolver(Resolver);
    connector.enforce_http(false);
    connector
}

/// Returns the addresses of a host, which may be an address itself.
///
/// # Errors
///
/// If the name has no address, or there is no thread to look it up.
pub async fn look_up(host: &str, port: u16) -> io::Result<vec::IntoIter<SocketAddr>> {
    let host = host.to_owned();
    READERS.run(move || (host.as_str(), port).to_socket_addrs()).await?
}

impl Service<Name> for Resolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        // The connector puts its own port in the place of 0.
        Box::pin(async move { look_up(name.as_str(), 0).await })
    }
}
