//! The way to the API server: which one, with whose credentials, over connections that notice when they are dead.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, Uri};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tower::ServiceBuilder;

use crate::config::ClusterConfig;

/// A pod's own namespace.
const POD_NAMESPACE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the server may take to begin an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection with no traffic for this long is probed…
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// …as often as this, and given up after this many probes…
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
/// …or when what was sent has not been acknowledged for this long.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// Credentials are read anew for a request if those in use are older: kubelet rotates tokens and certificates in place.
const CREDENTIALS_AGE_MAX: Duration = Duration::from_secs(50);

/// Bounds what one connection buffers, in bytes.
const READ_BUFFER_BYTES_MAX: usize = 16 * 1024;

/// Why there is no way to a server.
#[derive(Debug, Error)]
pub enum SessionError {
    #[error("--kubeconfig: {} cannot be used: {why}; name a kubeconfig file", path.display())]
    Kubeconfig { path: PathBuf, why: String },
    #[error("KUBECONFIG: it cannot be used: {why}; correct it, unset it, or use --kubeconfig FILE")]
    DefaultKubeconfig { why: String },
    #[error("--context: the kubeconfig has no context {context:?}; write one of: {known}")]
    Context { context: String, known: String },
    #[error(
        "no cluster was found: there is no kubeconfig, and this is no pod with a service account ({why}); use --kubeconfig FILE, or --manifests PATH to do without a cluster"
    )]
    NoCluster { why: String },
    #[error(
        "the server's address or the credentials cannot be used: {0}; correct the kubeconfig or the service account"
    )]
    Client(String),
}

impl SessionError {
    /// Whether an option is wrong, rather than the world.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Kubeconfig { .. } | Self::DefaultKubeconfig { .. } | Self::Context { .. })
    }
}

/// Why a request got no answer.
#[derive(Debug, Error)]
pub(super) enum SendError {
    #[error("{0}")]
    Session(#[from] SessionError),
    #[error("{server} did not begin to answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Slow { server: Uri },
    #[error("{0}")]
    Transport(String),
}

/// Makes clients and keeps the present one. Shared by all scopes.
#[derive(Clone)]
pub(super) struct Session {
    config: ClusterConfig,
    present: Arc<Mutex<Present>>,
}

struct Present {
    client: Client,
    server: Uri,
    made: Instant,
    trusted: bool,
}

impl Present {
    fn new(config: &Config) -> Result<Self, SessionError> {
        Ok(Self { client: client(config)?, server: config.cluster_url.clone(), made: Instant::now(), trusted: true })
    }
}

impl Session {
    /// Finds the server, and the namespace that is meant when none is named.
    pub async fn open(config: &ClusterConfig) -> Result<(Self, String), SessionError> {
        let (kube_config, namespace) = load(config).await?;
        let present = Present::new(&kube_config)?;
        tracing::debug!("the API server is {}", kube_config.cluster_url);
        if kube_config.accept_invalid_certs {
            tracing::warn!(
                "the API server's certificate is not verified, as --tls-verify=false or the kubeconfig asks"
            );
        }
        Ok((Self { config: config.clone(), present: Arc::new(Mutex::new(present)) }, namespace))
    }

    /// Asks for a path with a query. The answer may be any status.
    pub async fn get(&self, path_and_query: &str) -> Result<Response<Body>, SendError> {
        let request = Request::get(path_and_query)
            .header(http::header::ACCEPT, "application/json")
            .body(Body::empty())
            .map_err(|error| SendError::Transport(error.to_string()))?;
        let (client, server) = self.client().await?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.send(request)).await;
        let failed = match answer {
            Ok(Ok(response)) if response.status() == http::StatusCode::UNAUTHORIZED => Ok(response),
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => {
                let why = match &error {
                    kube::Error::Service(inner) => super::causes(&**inner),
                    other => super::causes(other),
                };
                Err(SendError::Transport(format!("{server}: {why}")))
            }
            Err(_) => Err(SendError::Slow { server }),
        };
        // The token may be out of date, or the CA, or the address.
        self.present.lock().await.trusted = false;
        failed
    }

    /// A client with credentials that are fresh enough, and the server's address.
    async fn client(&self) -> Result<(Client, Uri), SessionError> {
        let mut present = self.present.lock().await;
        if !present.trusted || present.made.elapsed() > CREDENTIALS_AGE_MAX {
            let (kube_config, _) = load(&self.config).await?;
            *present = Present::new(&kube_config)?;
        }
        Ok((present.client.clone(), present.server.clone()))
    }
}

/// Reads the kubeconfig, as kubectl finds it, or the pod's service account; and the namespace of whichever it is.
///
/// The namespace is that of the kubeconfig's context; where that names none, as in a pod without a kubeconfig, the pod's
/// own; else `default`. kubectl looks in the same order.
async fn load(config: &ClusterConfig) -> Result<(Config, String), SessionError> {
    let pod_namespace = || {
        let namespace = std::fs::read_to_string(POD_NAMESPACE).ok()?;
        Some(namespace.trim().to_owned()).filter(|namespace| !namespace.is_empty())
    };
    let (mut kube_config, namespace) = match kubeconfig(config)? {
        Some(kubeconfig) => from_kubeconfig(kubeconfig, config).await?,
        None => match Config::incluster() {
            Ok(in_cluster) => (in_cluster, None),
            Err(error) => return Err(SessionError::NoCluster { why: super::causes(&error) }),
        },
    };
    if !config.tls_verify {
        kube_config.accept_invalid_certs = true;
    }
    read_token(&mut kube_config)?;
    Ok((kube_config, namespace.or_else(pod_namespace).unwrap_or_else(|| "default".to_owned())))
}

/// The kubeconfig, if there is one: that of the option; else those that `KUBECONFIG` lists; else `~/.kube/config`.
fn kubeconfig(config: &ClusterConfig) -> Result<Option<Kubeconfig>, SessionError> {
    if let Some(path) = &config.kubeconfig {
        let named = Kubeconfig::read_from(path);
        return named
            .map(Some)
            .map_err(|error| SessionError::Kubeconfig { path: path.clone(), why: super::causes(&error) });
    }
    let listed =
        Kubeconfig::from_env().map_err(|error| SessionError::DefaultKubeconfig { why: super::causes(&error) })?;
    if listed.is_some() {
        return Ok(listed);
    }
    let Some(path) = std::env::home_dir().map(|home| home.join(".kube/config")).filter(|path| path.exists()) else {
        return Ok(None);
    };
    match Kubeconfig::read_from(&path) {
        Ok(kubeconfig) => Ok(Some(kubeconfig)),
        Err(error) => Err(SessionError::Kubeconfig { path, why: super::causes(&error) }),
    }
}

async fn from_kubeconfig(
    kubeconfig: Kubeconfig,
    config: &ClusterConfig,
) -> Result<(Config, Option<String>), SessionError> {
    let name = config.context.as_ref().or(kubeconfig.current_context.as_ref());
    let context = kubeconfig.contexts.iter().find(|context| Some(&context.name) == name);
    if let (Some(wanted), None) = (&config.context, context) {
        let known: Vec<_> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
        return Err(SessionError::Context { context: wanted.clone(), known: known.join(", ") });
    }
    let namespace = context.and_then(|context| context.context.as_ref()).and_then(|context| context.namespace.clone());
    let options = KubeConfigOptions { context: config.context.clone(), ..KubeConfigOptions::default() };
    let kube_config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| {
        let why = super::causes(&error);
        match &config.kubeconfig {
            Some(path) => SessionError::Kubeconfig { path: path.clone(), why },
            None => SessionError::DefaultKubeconfig { why },
        }
    })?;
    Ok((kube_config, namespace.filter(|namespace| !namespace.is_empty())))
}

/// Puts the token file's text in the file's place: kube would send a final newline along, and reads it anew on its own
/// schedule only, while the whole session is read anew here.
fn read_token(config: &mut Config) -> Result<(), SessionError> {
    config.root_cert_file = None;
    if config.auth_info.token.is_none()
        && let Some(path) = config.auth_info.token_file.take()
    {
        let token = std::fs::read_to_string(&path)
            .map_err(|error| SessionError::Client(format!("the token {path} cannot be read: {error}")))?;
        config.auth_info.token = Some(token.trim().to_owned().into());
    }
    Ok(())
}

fn client(config: &Config) -> Result<Client, SessionError> {
    let unusable = |error: kube::Error| SessionError::Client(super::causes(&error));
    if let Some(proxy) = &config.proxy_url {
        return Err(SessionError::Client(format!("the kubeconfig's proxy-url {proxy} is not supported")));
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_keepalive(Some(KEEPALIVE_IDLE));
    connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    connector.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    connector.set_tcp_user_timeout(Some(USER_TIMEOUT));
    connector.set_nodelay(true);
    let connector = config.rustls_https_connector_with_connector(connector).map_err(unusable)?;
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
