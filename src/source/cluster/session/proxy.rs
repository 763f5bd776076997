//! The proxy between configbump and the API server: which one, if any, and connections through it.
//!
//! client-go decides in the same way: the `proxy-url` of a kubeconfig always counts; without one, `HTTPS_PROXY` counts
//! unless the server is on a loopback address or `NO_PROXY` names it.

use std::fmt::{Debug, Display};
use std::net::IpAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use http::uri::Scheme;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use ipnet::IpNet;
use thiserror::Error;
use tokio::net::TcpStream;
use tower::{BoxError, Service, ServiceExt as _};

/// Returns the value of an environment variable.
pub(super) type Variable<'v> = &'v dyn Fn(&str) -> Option<String>;

/// Returns the proxy that the environment names for this server, as `golang.org/x/net/http/httpproxy` does.
pub(super) fn of_environment(server: &Uri, variable: Variable<'_>) -> Option<String> {
    let first = |names: [&str; 2]| names.into_iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
    let proxy = first(if is_https(server) { ["HTTPS_PROXY", "https_proxy"] } else { ["HTTP_PROXY", "http_proxy"] })?;
    let exceptions = first(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    (!Destination::of(server).is_excepted(&exceptions)).then_some(proxy)
}

fn is_https(server: &Uri) -> bool {
    server.scheme() == Some(&Scheme::HTTPS)
}

fn port(server: &Uri) -> u16 {
    server.port_u16().unwrap_or(if is_https(server) { 443 } else { 80 })
}

/// Where a connection is to lead.
struct Destination {
    /// In lower case, without brackets.
    host: String,
    ip: Option<IpAddr>,
    port: u16,
}

impl Destination {
    fn of(server: &Uri) -> Self {
        let host = server.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
        let ip = host.parse().ok().map(|ip: IpAddr| ip.to_canonical());
        Self { host, ip, port: port(server) }
    }

    /// Returns true if no proxy is to be used, by the entries of `NO_PROXY`. A loopback address needs no entry.
    fn is_excepted(&self, entries: &str) -> bool {
        self.host == "localhost"
            || self.ip.is_some_and(|ip| ip.is_loopback())
            || entries.split(',').any(|entry| self.matches(&entry.trim().to_ascii_lowercase()))
    }

    /// Returns true if an entry names this destination: `*`, a CIDR, an IP address, a domain, or `.` and a parent domain. All
    /// but the first two may have a port.
    fn matches(&self, entry: &str) -> bool {
        if entry == "*" {
            return true;
        }
        if let Ok(network) = entry.parse::<IpNet>() {
            return self.ip.is_some_and(|ip| network.contains(&ip));
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, port),
            _ => (entry, ""),
        };
        let host = host.trim_matches(['[', ']']);
        let is_host = match host.parse::<IpAddr>() {
            Ok(ip) => self.ip == Some(ip.to_canonical()),
            Err(_) => self.ip.is_none() && self.is_in(host),
        };
        is_host && (port.is_empty() || port == self.port.to_string())
    }

    /// Returns true if the host is in the domain. A domain that begins with a dot, or with `*.`, does not contain itself.
    fn is_in(&self, domain: &str) -> bool {
        let domain = domain.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(domain);
        match self.host.strip_suffix(domain) {
            Some("") => !domain.starts_with('.'),
            Some(rest) => !domain.is_empty() && (domain.starts_with('.') || rest.ends_with('.')),
            None => false,
        }
    }
}

/// A proxy as it was written down, which may hold a password.
pub(super) struct Proxy(Intercept);

impl Proxy {
    /// Reads the address of a proxy; without a scheme it is one of `http`. The error shows no password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let scheme = text.split_once("://").map_or("http", |(scheme, _)| scheme);
        if !["http", "https", "socks5", "socks5h"].contains(&scheme) {
            return Err(format!("the scheme of the proxy is {scheme:?}, and must be http, https or socks5"));
        }
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let any = Uri::from_static("https://any/");
        let proxy = Matcher::builder().all(text).build().intercept(&any);
        proxy.map(Self).ok_or_else(|| "the address of the proxy is no URL".to_owned())
    }

    /// Returns the address without user and password.
    pub fn shown(&self) -> String {
        let uri = self.0.uri();
        let authority = uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        format!("{}://{authority}", uri.scheme_str().unwrap_or_default())
    }

    fn is_socks(&self) -> bool {
        self.0.uri().scheme_str().is_some_and(|scheme| scheme.starts_with("socks"))
    }

    /// Returns the URL to connect to. The connector of HTTP knows no default port of SOCKS.
    fn url(&self) -> Uri {
        let uri = self.0.uri().clone();
        if self.is_socks() { with_port(uri, 1080) } else { uri }
    }
}

/// Adds the port if the URL has none.
fn with_port(url: Uri, port: u16) -> Uri {
    let mut parts = url.clone().into_parts();
    if url.port().is_none() {
        parts.authority = url.host().and_then(|host| format!("{host}:{port}").parse().ok());
    }
    Uri::from_parts(parts).unwrap_or(url)
}

/// A connection failed, at the proxy or behind it.
#[derive(Debug, Error)]
#[error("through the proxy {proxy}")]
struct ProxyError {
    proxy: String,
    source: BoxError,
}

/// Makes connections to the server, directly or through a proxy.
#[derive(Clone)]
pub(super) enum Route<C> {
    Direct(C),
    /// Through a proxy of HTTP, by CONNECT.
    Http {
        proxy: String,
        tunnel: Tunnel<HttpsConnector<C>>,
    },
    Socks {
        proxy: String,
        tunnel: SocksV5<C>,
    },
}

impl<C> Route<C> {
    /// `tls` makes connections to the proxy itself if it wants TLS.
    pub fn through(proxy: &Proxy, connector: C, tls: impl FnOnce(C) -> HttpsConnector<C>) -> Self {
        let (shown, url) = (proxy.shown(), proxy.url());
        if proxy.is_socks() {
            let tunnel = SocksV5::new(url, connector);
            let tunnel = match proxy.0.raw_auth() {
                Some((user, password)) => tunnel.with_auth(user.to_owned(), password.to_owned()),
                None => tunnel,
            };
            return Self::Socks { proxy: shown, tunnel };
        }
        let tunnel = Tunnel::new(url, tls(connector));
        let tunnel = match proxy.0.basic_auth() {
            Some(header) => tunnel.with_auth(header.clone()),
            None => tunnel,
        };
        Self::Http { proxy: shown, tunnel }
    }
}

/// A connection to the server, or to a proxy that may want TLS itself.
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

impl<C> Service<Uri> for Route<C>
where
    C: Service<Uri, Response = TokioIo<TcpStream>, Error: Into<BoxError> + Debug + Display + Send + Sync, Future: Send>,
    C: Clone + Send + 'static,
{
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // The connector is waited for when it is called.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        // A tunnel of HTTP or SOCKS takes 443 for the default port of every scheme.
        let port = port(&server);
        let server = with_port(server, port);
        match self.clone() {
            Self::Direct(connector) => {
                Box::pin(async move { connector.oneshot(server).await.map(Stream::from).map_err(Into::into) })
            }
            Self::Http { proxy, tunnel } => Box::pin(async move {
                let stream = tunnel.oneshot(server).await;
                stream.map_err(|error| ProxyError { proxy, source: error.into() }.into())
            }),
            Self::Socks { proxy, tunnel } => Box::pin(async move {
                let stream = tunnel.oneshot(server).await.map(Stream::from);
                stream.map_err(|error| ProxyError { proxy, source: error.into() }.into())
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "https://api.example.com:6443";

    fn is_excepted(server: &str, entries: &str) -> bool {
        Destination::of(&server.parse().expect("a URL")).is_excepted(entries)
    }

    #[test]
    fn no_proxy_names_hosts_domains_addresses_and_networks() {
        let everywhere = [SERVER, "https://10.1.2.3", "https://[fd00::1]:6443"];
        assert!(everywhere.iter().all(|server| is_excepted(server, "a, *,b")));
        for (server, entries) in [
            (SERVER, "api.example.com"),
            (SERVER, "API.Example.Com"),
            ("https://API.example.com", "api.example.com"),
            (SERVER, "example.com"),
            (SERVER, ".example.com"),
            (SERVER, "*.example.com"),
            (SERVER, "com"),
            (SERVER, "example.com:6443"),
            (SERVER, "other.com,, example.com ,"),
            ("https://example.com", "example.com:443"),
            ("http://example.com", "example.com:80"),
            ("https://10.1.2.3:6443", "10.1.2.3"),
            ("https://10.1.2.3:6443", "10.1.2.3:6443"),
            ("https://10.1.2.3", "10.0.0.0/8"),
            ("https://10.1.2.3", "10.9.9.9/8"),
            ("https://[fd00::1]", "fd00::1"),
            ("https://[fd00::1]", "[fd00::1]:443"),
            ("https://[fd00::1]", "fd00::/8"),
            ("https://[::ffff:10.1.2.3]", "10.1.2.3"),
        ] {
            assert!(is_excepted(server, entries), "{server} {entries}");
        }
        for (server, entries) in [
            (SERVER, ""),
            (SERVER, ","),
            (SERVER, "."),
            (SERVER, ":6443"),
            (SERVER, "ample.com"),
            (SERVER, "other.api.example.com"),
            (SERVER, "example.com:443"),
            (SERVER, "*.com.example"),
            (SERVER, "0.0.0.0/0"),
            ("https://example.com", ".example.com"),
            ("https://example.com", "*.example.com"),
            ("https://10.1.2.3", "10.1.2.4"),
            ("https://10.1.2.3", "2.3"),
            ("https://10.1.2.3", "10.1.2.3:6443"),
            ("https://10.1.2.3", "10.1.2.0/33"),
            ("https://[fd00::1]", "[fd00::1]:6443"),
        ] {
            assert!(!is_excepted(server, entries), "{server} {entries}");
        }
    }

    #[test]
    fn loopback_addresses_need_no_proxy() {
        for server in [
            "https://localhost",
            "https://127.0.0.1:6443",
            "http://127.9.9.9",
            "https://[::1]",
            "https://[::ffff:7f00:1]",
        ] {
            assert!(is_excepted(server, ""), "{server}");
        }
    }

    #[test]
    fn the_environment_names_the_proxy_in_either_case() {
        let found = |server: &str, variables: &[(&str, &str)]| {
            let variable = |name: &str| {
                let mut variables = variables.iter();
                variables.find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
            };
            of_environment(&server.parse().expect("a URL"), &variable)
        };
        assert_eq!(found(SERVER, &[]), None);
        assert_eq!(found(SERVER, &[("HTTPS_PROXY", "a"), ("https_proxy", "b")]).as_deref(), Some("a"));
        assert_eq!(found(SERVER, &[("HTTPS_PROXY", ""), ("https_proxy", "b")]).as_deref(), Some("b"));
        assert_eq!(found(SERVER, &[("HTTP_PROXY", "a"), ("ALL_PROXY", "a")]), None);
        assert_eq!(found("http://example.com", &[("http_proxy", "a"), ("HTTPS_PROXY", "b")]).as_deref(), Some("a"));
        for name in ["NO_PROXY", "no_proxy"] {
            assert_eq!(found(SERVER, &[("HTTPS_PROXY", "a"), (name, "example.com")]), None);
        }
    }

    #[test]
    fn the_address_of_a_proxy_is_shown_without_its_password() {
        for (text, shown, url) in [
            ("proxy", "http://proxy", "http://proxy/"),
            ("proxy:3128", "http://proxy:3128", "http://proxy:3128/"),
            ("https://jane:secret@proxy:3128/", "https://proxy:3128", "https://proxy:3128/"),
            ("socks5://jane:secret@[::1]", "socks5://[::1]", "socks5://[::1]:1080/"),
        ] {
            let proxy = Proxy::parse(text).expect(text);
            assert_eq!((proxy.shown().as_str(), proxy.url().to_string().as_str()), (shown, url));
        }
        for text in ["ftp://jane:secret@proxy", "http://", "http://jane:sec ret@proxy", "://"] {
            assert!(Proxy::parse(text).is_err_and(|error| !error.contains("sec")), "{text}");
        }
    }
}
