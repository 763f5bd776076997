//! Requests to the API server, with credentials that are read again, over connections that notice a dead peer.
//!
//! `origin` reads the server and the credentials, `plugin` runs the programs that print credentials, `proxy` chooses a
//! proxy, and `connect` makes clients of all that. This file keeps the current client and renews it.

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

/// Limits the time until an answer begins.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Credentials that are older are read again before a request, because kubelet rotates tokens and certificates in place.
const CREDENTIALS_AGE_MAX: Duration = Duration::from_secs(50);

/// Requests within this time after a failed renewal get its error and do not renew. All followers fail at the same time,
/// and one run of a credential plugin is enough for them.
const RENEWAL_PAUSE: Duration = Duration::from_millis(500);

/// A server or credentials that configbump cannot use.
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
    /// Returns true if an option or a variable is wrong.
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

/// A request without an answer.
#[derive(Debug, Error)]
pub(super) enum SendError {
    #[error("{0}")]
    Session(#[from] SessionError),
    #[error("{server} did not begin to answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Slow { server: Uri },
    /// A connection timed out.
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Certificate(String),
    #[error("{0}")]
    Transport(String),
}

/// Sends requests by the current client, and renews it. All scopes share it.
#[derive(Clone)]
pub(super) struct Session {
    origin: Origin,
    has_plugin: bool,
    present: Arc<Mutex<Present>>,
}

struct Present {
    client: Client,
    server: Uri,
    /// Counts the clients. A failure makes only the client suspect that failed, and no newer one.
    number: u64,
    /// The time of the last attempt to read the credentials, unless they are suspect.
    read: Instant,
    trust: Trust,
    /// The log has a line that says that good credentials cannot be read again.
    said: bool,
}

/// The state of the current client.
enum Trust {
    Good,
    /// A request failed: the token, the CA or the address may be out of date.
    Doubted,
    /// A request failed, and so did the renewal.
    Stuck {
        since: Instant,
        why: SessionError,
    },
}

/// The current client, for one request.
struct Lent {
    client: Client,
    server: Uri,
    number: u64,
}

impl Session {
    /// Finds the server, and the namespace to follow if no option names one.
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

    /// Returns true if a program printed the credentials at the start.
    pub fn has_plugin(&self) -> bool {
        self.has_plugin
    }

    /// Returns the files and directories that hold the credentials, now or after a rotation.
    pub fn reads(&self) -> Vec<PathBuf> {
        self.origin.reads()
    }

    /// Returns the address of the server.
    pub async fn server(&self) -> Uri {
        self.present.lock().await.server.clone()
    }

    /// Sends GET for a path with a query. The answer may have any status.
    pub async fn get(&self, path_and_query: &str) -> Result<Response<Body>, SendError> {
        self.send(Request::get(path_and_query).header(ACCEPT, "application/json"), Body::empty()).await
    }

    /// Sends GET for a list of objects, of which the server answers the metadata only.
    pub async fn get_metadata(&self, path_and_query: &str) -> Result<Response<Body>, SendError> {
        let metadata = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        self.send(Request::get(path_and_query).header(ACCEPT, metadata), Body::empty()).await
    }

    /// Sends POST with a JSON body. The answer may have any status.
    pub async fn post(&self, path: &str, question: String) -> Result<Response<Body>, SendError> {
        let request = Request::post(path).header(ACCEPT, "application/json").header(CONTENT_TYPE, "application/json");
        self.send(request, question.into_bytes().into()).await
    }

    /// Sends PATCH with a JSON merge patch (RFC 7386). The answer may have any status.
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

    /// Returns the current client, which it renews if the credentials are old or suspect.
    async fn client(&self) -> Result<Lent, SessionError> {
        let mut present = self.present.lock().await;
        match &present.trust {
            Trust::Good if present.read.elapsed() <= CREDENTIALS_AGE_MAX => {}
            Trust::Stuck { since, why } if since.elapsed() < RENEWAL_PAUSE => return Err(why.clone()),
            _ => present.renew(make(&self.origin).await)?,
        }
        Ok(Lent { client: present.client.clone(), server: present.server.clone(), number: present.number })
    }

    /// Makes the client with this number suspect, if it is still the current one.
    async fn doubt(&self, number: u64) {
        let mut present = self.present.lock().await;
        if present.number == number {
            present.trust = Trust::Doubted;
        }
    }
}

impl Present {
    /// Replaces the client. If no new client could be made, a good old one stays in use.
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

/// Returns true if `is_so` holds for the error or for one of its causes.
fn has_cause(error: &(dyn Error + 'static), is_so: impl Fn(&(dyn Error + 'static)) -> bool) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if is_so(error) {
            return true;
        }
        // The source of an IO error is not the error that it wraps, but the source of that.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = wrapped.map(|error| error as &(dyn Error + 'static)).or_else(|| error.source());
    }
    false
}

/// Returns true if the server's certificate was refused.
fn is_about_the_certificate(error: &(dyn Error + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))
}

/// Returns true if a time limit of configbump or of the kernel ended the connection.
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
