//! The way to the API server: which one, with whose credentials, over connections that notice when they are dead.
//!
//! `origin` is where server and credentials are written down, `plugin` runs the programs that print credentials, `connect`
//! makes clients of both. This file keeps the present client, and renews it.

mod connect;
mod origin;
mod plugin;
mod proxy;
#[cfg(test)]
mod tests;

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Request, Response, StatusCode, Uri};
use kube::client::Body;
use kube::{Client, Config};
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::Instant;

use self::origin::Origin;
use crate::config::ClusterConfig;

/// How long the server may take to begin an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Credentials are read anew for a request if those in use are older: kubelet rotates tokens and certificates in place.
const CREDENTIALS_AGE_MAX: Duration = Duration::from_secs(50);

/// For how long after a failed renewal others get its error instead of a renewal of their own: all followers fail at
/// once, and one run of a credential plugin is enough for them.
const RENEWAL_PAUSE: Duration = Duration::from_millis(500);

/// Why there is no way to a server.
#[derive(Clone, Debug, Error)]
pub enum SessionError {
    #[error("--kubeconfig: {} cannot be used: {why}; name a kubeconfig file", path.display())]
    Kubeconfig { path: PathBuf, why: String },
    #[error("KUBECONFIG: it cannot be used: {why}; correct it, unset it, or use --kubeconfig FILE")]
    DefaultKubeconfig { why: String },
    #[error("--context: the kubeconfig has no context {context:?}; write one of: {known}")]
    Context { context: String, known: String },
    #[error("cannot use the proxy for {server}: {why}; correct {of}")]
    Proxy { server: String, why: String, of: &'static str },
    #[error("the namespace {namespace:?} of {of} is none: it must be a lower-case DNS label; correct it there")]
    Namespace { namespace: String, of: String },
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
        match self {
            Self::Kubeconfig { .. }
            | Self::DefaultKubeconfig { .. }
            | Self::Context { .. }
            | Self::Namespace { .. } => true,
            Self::NoCluster { .. } | Self::Proxy { .. } | Self::Client(_) => false,
        }
    }
}

/// Why a request got no answer.
#[derive(Debug, Error)]
pub(super) enum SendError {
    #[error("{0}")]
    Session(#[from] SessionError),
    #[error("{server} did not begin to answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Slow { server: Uri },
    /// Nothing came back within the time for it.
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Certificate(String),
    #[error("{0}")]
    Transport(String),
}

/// Makes clients and keeps the present one. Shared by all scopes.
#[derive(Clone)]
pub(super) struct Session {
    origin: Origin,
    has_plugin: bool,
    present: Arc<Mutex<Present>>,
}

struct Present {
    client: Client,
    server: Uri,
    /// Counts the clients, so that a failure is held against the one that failed and no newer one.
    number: u64,
    /// When the credentials were read, or when that failed although those in use are good.
    read: Instant,
    trust: Trust,
    /// Whether it was said that good credentials cannot be renewed.
    said: bool,
}

/// What is thought of the present client.
enum Trust {
    Good,
    /// It failed: the token may be out of date, or the CA, or the address.
    Doubted,
    /// It failed, and no other could be made.
    Stuck {
        since: Instant,
        why: SessionError,
    },
}

/// What one request uses.
struct Lent {
    client: Client,
    server: Uri,
    number: u64,
}

impl Session {
    /// Finds the server, and the namespace that is meant when none is named.
    pub async fn open(config: &ClusterConfig) -> Result<(Self, String), SessionError> {
        let origin = Origin::find(config)?;
        let namespace = origin.namespace()?;
        let has_plugin = origin.read().await?.0.auth_info.exec.is_some();
        let (client, kube_config) = make(&origin).await?;
        tracing::debug!("the API server is {}", kube_config.cluster_url);
        if kube_config.accept_invalid_certs {
            tracing::warn!(
                "the API server's certificate is not verified, as --tls-verify=false or the kubeconfig asks"
            );
        }
        let server = kube_config.cluster_url;
        let present = Present { client, server, number: 0, read: Instant::now(), trust: Trust::Good, said: false };
        Ok((Self { origin, has_plugin, present: Arc::new(Mutex::new(present)) }, namespace))
    }

    /// Whether the credentials came from a program at the start.
    pub fn has_plugin(&self) -> bool {
        self.has_plugin
    }

    /// The files and folders that the credentials are in, or may be after they were replaced.
    pub fn reads(&self) -> Vec<PathBuf> {
        self.origin.reads()
    }

    /// Which server it is.
    pub async fn server(&self) -> Uri {
        self.present.lock().await.server.clone()
    }

    /// Asks for a path with a query. The answer may be any status.
    pub async fn get(&self, path_and_query: &str) -> Result<Response<Body>, SendError> {
        self.send(Request::get(path_and_query).header(ACCEPT, "application/json"), Body::empty()).await
    }

    /// The same for a list, of whose objects the metadata alone are to come.
    pub async fn get_metadata(&self, path_and_query: &str) -> Result<Response<Body>, SendError> {
        let metadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        self.send(Request::get(path_and_query).header(ACCEPT, metadata), Body::empty()).await
    }

    /// Asks a question that is JSON itself. The answer may be any status.
    pub async fn post(&self, path: &str, question: String) -> Result<Response<Body>, SendError> {
        let request = Request::post(path).header(ACCEPT, "application/json").header(CONTENT_TYPE, "application/json");
        self.send(request, question.into_bytes().into()).await
    }

    /// Changes the fields of an object that stand in this JSON (RFC 7386). The answer may be any status.
    pub async fn merge(&self, path: &str, fields: String) -> Result<Response<Body>, SendError> {
        let request = Request::patch(path).header(ACCEPT, "application/json");
        let request = request.header(CONTENT_TYPE, "application/merge-patch+json");
        self.send(request, fields.into_bytes().into()).await
    }

    async fn send(&self, request: http::request::Builder, body: Body) -> Result<Response<Body>, SendError> {
        let request = request.body(body).map_err(|error| SendError::Transport(error.to_string()))?;
        let Lent { client, server, number } = self.client().await?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, client.send(request)).await;
        let failed = match answer {
            Ok(Ok(response)) if response.status() == StatusCode::UNAUTHORIZED => Ok(response),
            Ok(Ok(response)) => return Ok(response),
            Ok(Err(error)) => {
                let error: &(dyn Error + 'static) = match &error {
                    kube::Error::Service(inner) => &**inner,
                    other => other,
                };
                let why = format!("{server}: {}", super::causes(error));
                Err(if has_cause(error, is_about_the_certificate) {
                    SendError::Certificate(why)
                } else if is_of_time(error) {
                    SendError::Unreachable(why)
                } else {
                    SendError::Transport(why)
                })
            }
            Err(_) => Err(SendError::Slow { server }),
        };
        self.doubt(number).await;
        failed
    }

    /// A client with credentials that are fresh enough.
    async fn client(&self) -> Result<Lent, SessionError> {
        let mut present = self.present.lock().await;
        match &present.trust {
            Trust::Good if present.read.elapsed() <= CREDENTIALS_AGE_MAX => {}
            Trust::Stuck { since, why } if since.elapsed() < RENEWAL_PAUSE => return Err(why.clone()),
            _ => present.renew(make(&self.origin).await)?,
        }
        Ok(Lent { client: present.client.clone(), server: present.server.clone(), number: present.number })
    }

    /// Holds a failure against the client of that number, if it is still the present one.
    async fn doubt(&self, number: u64) {
        let mut present = self.present.lock().await;
        if present.number == number {
            present.trust = Trust::Doubted;
        }
    }
}

impl Present {
    /// Takes the new client. If there is none, a good old one goes on serving.
    fn renew(&mut self, made: Result<(Client, Config), SessionError>) -> Result<(), SessionError> {
        let now = Instant::now();
        match (made, &self.trust) {
            (Ok((client, kube_config)), _) => {
                let (server, number) = (kube_config.cluster_url, self.number + 1);
                *self = Self { client, server, number, read: now, trust: Trust::Good, said: false };
            }
            (Err(why), Trust::Good) => {
                self.read = now;
                if !std::mem::replace(&mut self.said, true) {
                    tracing::warn!("the credentials cannot be read again, and those in use are kept: {why}");
                }
            }
            (Err(why), Trust::Doubted | Trust::Stuck { .. }) => {
                self.trust = Trust::Stuck { since: now, why: why.clone() };
                return Err(why);
            }
        }
        Ok(())
    }
}

/// Whether this is so of the error, or of one of those that caused it.
fn has_cause(error: &(dyn Error + 'static), is_so: impl Fn(&(dyn Error + 'static)) -> bool) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if is_so(error) {
            return true;
        }
        // What an IO error wraps it does not name as its source, but that one's.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|error| error as &(dyn Error + 'static)).or_else(|| error.source());
    }
    false
}

/// Whether the server was reached and not trusted.
fn is_about_the_certificate(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))
}

/// Whether it was given up for want of an answer, by us or by the kernel.
pub(super) fn is_of_time(error: &(dyn Error + 'static)) -> bool {
    let timed_out = |error: &io::Error| error.kind() == io::ErrorKind::TimedOut;
    has_cause(error, |error| error.downcast_ref().is_some_and(timed_out))
}

async fn make(origin: &Origin) -> Result<(Client, Config), SessionError> {
    let (mut kube_config, proxy) = origin.read().await?;
    plugin::log_in(&mut kube_config.auth_info).await.map_err(SessionError::Client)?;
    let client = connect::client(&kube_config, proxy.as_ref()).map_err(SessionError::Client)?;
    Ok((client, kube_config))
}
