//! Where to listen, and how to come by that address.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::set_ipv6_v6only;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::sleep;

/// The wait after the first failure; it doubles each time…
const WAIT_MIN: Duration = Duration::from_secs(1);
/// …up to this.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How many connections wait for the server at most.
const BACKLOG: u32 = 1024;

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
    pub fn examine(self) -> Result<(), String> {
        bind(self).map(drop).map_err(|error| format!("cannot listen on {self}: {error}{}", remedy(&error)))
    }
}

/// Listens there, as soon as it can be had. That it cannot is told once.
pub(super) async fn bound(address: Address) -> TcpListener {
    let (mut wait, mut told) = (WAIT_MIN, false);
    loop {
        match bind(address) {
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

fn bind(address: Address) -> io::Result<(TcpListener, SocketAddr)> {
    let listen_on = |ip: IpAddr, port| listen((ip, port).into());
    let listener = match address {
        Address::One(address) => listen(address)?,
        Address::Every { port } => match listen_on(Ipv6Addr::UNSPECIFIED.into(), port) {
            // Where the kernel has no IPv6, or it is turned off.
            Err(error) if !matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
                listen_on(Ipv4Addr::UNSPECIFIED.into(), port)?
            }
            listener => listener?,
        },
    };
    let at = listener.local_addr()?;
    Ok((listener, at))
}

/// Listens at one address. `[::]` answers IPv4 as well, even where the sysctl `net.ipv6.bindv6only` says otherwise.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Else a restart waits until the kernel has forgotten the connections of the last run.
    if let Err(error) = socket.set_reuseaddr(true) {
        tracing::warn!(
            "cannot call setsockopt(SO_REUSEADDR): {error}; allow it in the seccomp profile, until then a restart may have to wait a \
             minute for {address}"
        );
    }
    if address.ip() == Ipv6Addr::UNSPECIFIED
        && let Err(error) = set_ipv6_v6only(&socket, false)
    {
        tracing::warn!(
            "cannot call setsockopt(IPV6_V6ONLY): {error}; allow it in the seccomp profile, until then {address} may not answer IPv4"
        );
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        _ if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) => {
            " (allow socket, bind and listen in the seccomp profile)"
        }
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
