//! Clients whose connections notice when they are dead, with bounded buffers.

use std::time::Duration;

use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{ClientBuilder, ConfigExt};
use kube::{Client, Config};
use tower::ServiceBuilder;

use super::super::causes;
use super::proxy::{Proxy, Route};
use crate::{crypto, resolver};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The kernel probes a connection that had no traffic for this long…
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// …at this interval, and gives it up after this many probes…
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
/// …or when the server has not acknowledged data for this long.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Limits the read buffer of one connection, in bytes.
const READ_BUFFER_BYTES_MAX: usize = 16 * 1024;

/// Returns a client for this server with these credentials, behind this proxy; or why there can be none.
pub(super) fn client(config: &Config, proxy: Option<&Proxy>) -> Result<Client, String> {
    let unusable = |error: kube::Error| causes(&error);
    // kube takes the algorithms of TLS from the process.
    crypto::provider();
    let mut connector = resolver::connector();
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_keepalive(Some(KEEPALIVE_IDLE));
    connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    connector.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    connector.set_tcp_user_timeout(Some(USER_TIMEOUT));
    connector.set_nodelay(true);
    let route = match proxy {
        None => Route::Direct(connector),
        Some(proxy) => {
            let tls = config.rustls_client_config().map_err(unusable)?;
            let to_proxy = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1();
            Route::through(proxy, connector, |connector| to_proxy.wrap_connector(connector))
        }
    };
    let connector = config.rustls_https_connector_with_connector(route).map_err(unusable)?;
    let service = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(USER_TIMEOUT)
        .pool_max_idle_per_host(1)
        .http1_max_buf_size(READ_BUFFER_BYTES_MAX)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer().map_err(unusable)?)
        .layer(config.extra_headers_layer().map_err(unusable)?)
        .map_err(tower::BoxError::from)
        .service(service);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}
