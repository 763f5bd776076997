//! Where to listen, and how to come by that address.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::sleep;

/// The wait after the first failure; it doubles each time…
const WAIT_MIN: Duration = Duration::from_secs(1);
/// …up to this.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// An address to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// `:8080`: every address of the machine, of either family.
    Every { port: u16 },
    /// `127.0.0.1:8080`, `[::1]:8080`
    One(SocketAddr),
}

impl Address {
    /// The address with this text, if it is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix(':') {
            // It would take a sign as well.
            Some(port) if port.starts_with(|c: char| c.is_ascii_digit()) => {
                port.parse().ok().map(|port| Self::Every { port })
            }
            Some(_) => None,
            None => text.parse().ok().map(Self::One),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every { port } => write!(f, ":{port}"),
            Self::One(address) => address.fmt(f),
        }
    }
}

impl Address {
    /// Whether it can be had now.
    ///
    /// # Errors
    ///
    /// When not, on one line.
    pub async fn examine(self) -> Result<(), String> {
        bind(self).await.map(drop).map_err(|error| format!("cannot listen on {self}: {error}{}", remedy(&error)))
    }
}

/// Listens there, as soon as it can be had. That it cannot is told once.
pub(super) async fn bound(address: Address) -> TcpListener {
    let (mut wait, mut told) = (WAIT_MIN, false);
    loop {
        match bind(address).await {
            Ok((listener, at)) => {
                tracing::info!("the endpoints are at http://{at}");
                return listener;
            }
            Err(error) if told => tracing::debug!("cannot listen on {address}: {error}"),
            Err(error) => {
                let remedy = remedy(&error);
                tracing::error!(
                    "cannot listen on {address}: {error}{remedy}; everything else goes on, and it keeps trying"
                );
                told = true;
            }
        }
        sleep(wait).await;
        wait = (wait * 2).min(WAIT_MAX);
    }
}

async fn bind(address: Address) -> io::Result<(TcpListener, SocketAddr)> {
    let listen = async |ip: IpAddr, port| TcpListener::bind((ip, port)).await;
    let listener = match address {
        Address::One(address) => TcpListener::bind(address).await?,
        Address::Every { port } => match listen(Ipv6Addr::UNSPECIFIED.into(), port).await {
            // Where the kernel has no IPv6, or it is turned off.
            Err(error) if !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
                listen(Ipv4Addr::UNSPECIFIED.into(), port).await?
            }
            listener => listener?,
        },
    };
    let at = listener.local_addr()?;
    Ok((listener, at))
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (write another port after --listen, or end who has this one)",
        io::ErrorKind::PermissionDenied => " (write a port above 1023 after --listen)",
        io::ErrorKind::AddrNotAvailable => {
            " (write an address of this machine after --listen, or a port only, as in :8080)"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_port_or_an_ip_address_with_a_port() {
        for (text, shown) in [
            (":8080", ":8080"),
            (":0", ":0"),
            ("127.0.0.1:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::]:8080"),
            ("[::1]:65535", "[::1]:65535"),
        ] {
            assert_eq!(Address::parse(text).map(|address| address.to_string()).as_deref(), Some(shown), "{text}");
        }
        for text in
            ["", ":", "8080", "localhost:8080", ":65536", ":+1", ":-1", "::1:8080", "127.0.0.1", "[::1]", "1:2:3"]
        {
            assert_eq!(Address::parse(text), None, "{text}");
        }
    }
}
