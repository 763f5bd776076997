//! The HTTP endpoints of `--listen`.
//!
//! Who can reach the port is not trusted: a connection serves one request, which may be a GET or a HEAD with a small head,
//! and lasts [`CONNECTION_MAX`] at most. Beyond [`CONNECTIONS_MAX`], the client with the most connections loses its oldest one, so
//! neither idle connections nor a flood from one address keep others out.

mod answer;
mod connections;
mod listen;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, sleep, timeout};

use self::answer::Answer;
use self::connections::Connections;
pub use self::listen::Address;
use super::metrics::Present;
use super::status::Pages;
use super::{Inquiry, Picture, Recent, Shared, Telemetry};
use crate::event::Scope;

/// How many connections there are at most.
const CONNECTIONS_MAX: usize = 32;

/// How long one may last, the request and its answer included.
const CONNECTION_MAX: Duration = Duration::from_secs(10);

/// How long a client may take for the head of its request.
const HEAD_MAX: Duration = Duration::from_secs(3);

/// How many bytes that head may have, and how many of an answer wait for the client; hyper wants no less.
const BUFFER_BYTES: usize = 8192;

/// How many headers it may have.
const HEADERS_MAX: usize = 64;

/// How long the pipeline may take to answer an inquiry.
const INQUIRY_MAX: Duration = Duration::from_secs(5);

/// The wait after a connection could not be taken: there may be no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How many conflicts, and how many holds, `/status` shows. Their number, and the log, say if there are more.
const LINES_MAX: usize = 100;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// The endpoints of a run, or none if nobody asked for them; dropping them ends the server.
#[derive(Debug, Default)]
pub struct Endpoints {
    telemetry: Telemetry,
    inquiries: Option<mpsc::Receiver<Inquiry>>,
    _stop: Option<oneshot::Sender<Infallible>>,
}

impl Endpoints {
    /// Serves there from here on, by a task of its own, as soon as the address can be had.
    #[must_use]
    pub fn open(address: Option<Address>, scopes: Vec<Scope>, recent: Recent) -> Self {
        let Some(address) = address else { return Self::default() };
        let (telemetry, inquiries) = Telemetry::new(scopes, recent);
        let (stop, stopped) = oneshot::channel();
        if let Some(shared) = telemetry.0.clone() {
            tokio::spawn(async move {
                let mut stopped = pin!(async { drop(stopped.await) });
                let listener = tokio::select! {
                    listener = listen::bound(address) => listener,
                    () = &mut stopped => return,
                };
                serve(listener, shared, stopped).await;
            });
        }
        Self { telemetry, inquiries: Some(inquiries), _stop: Some(stop) }
    }

    /// Where to report.
    #[must_use]
    pub fn telemetry(&self) -> Telemetry {
        self.telemetry.clone()
    }

    /// Waits until somebody asks for what only the pipeline knows.
    pub async fn inquiry(&mut self) -> Inquiry {
        if let Some(inquiries) = &mut self.inquiries
            && let Some(inquiry) = inquiries.recv().await
        {
            return inquiry;
        }
        std::future::pending().await
    }
}

/// Serves until `shutdown`, which ends what is still connected as well.
async fn serve(listener: TcpListener, shared: Arc<Shared>, shutdown: impl Future<Output = ()>) {
    let mut shutdown = pin!(shutdown);
    let mut connections = JoinSet::new();
    let mut open = Connections::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => {
                open.forget_ended();
                continue;
            }
            () = &mut shutdown => return,
        };
        match accepted {
            Ok((stream, client)) => {
                open.add(client.ip(), connections.spawn(converse(stream, Arc::clone(&shared))));
                // However many come at once, each has its turn before others may take its place: a request that is there
                // already is answered.
                yield_now().await;
            }
            Err(error) => {
                tracing::debug!("a connection to the endpoints could not be taken: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, which is one request.
async fn converse(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request: Request<_>| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), &shared).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .keep_alive(false)
        .max_buf_size(BUFFER_BYTES)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("a connection to the endpoints broke: {error}"),
        Err(_) => tracing::debug!("a connection to the endpoints took too long"),
    }
}

async fn answer(method: &Method, path: &str, shared: &Arc<Shared>) -> Response<Answer> {
    if !["/livez", "/readyz", "/metrics", "/status"].contains(&path) {
        return plain(StatusCode::NOT_FOUND, "there are /livez, /readyz, /metrics and /status\n");
    }
    if method != Method::GET && method != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/livez" => verdict(&shared.state().health.dead(Instant::now())),
        "/readyz" => verdict(&shared.state().health.unready()),
        _ => {
            let lines_max = if path == "/status" { LINES_MAX } else { 0 };
            let Some(picture) = shared.picture(lines_max, INQUIRY_MAX).await else {
                return plain(StatusCode::SERVICE_UNAVAILABLE, "it is too busy to say\n");
            };
            if path == "/status" {
                response(StatusCode::OK, JSON, Answer::pages(Pages::new(Arc::clone(shared), &picture)))
            } else {
                response(StatusCode::OK, OPEN_METRICS, Answer::whole(shared.metrics(&picture)))
            }
        }
    }
}

/// 200 if nothing speaks against it.
fn verdict(reasons: &[String]) -> Response<Answer> {
    if reasons.is_empty() {
        return plain(StatusCode::OK, "ok\n");
    }
    plain(StatusCode::SERVICE_UNAVAILABLE, &reasons.iter().map(|reason| format!("{reason}\n")).collect::<String>())
}

fn plain(status: StatusCode, text: &str) -> Response<Answer> {
    response(status, TEXT, Answer::whole(text.to_owned()))
}

fn response(status: StatusCode, kind: HeaderValue, body: Answer) -> Response<Answer> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

impl Shared {
    fn metrics(&self, picture: &Picture) -> String {
        let state = self.state();
        let (now, clock) = (Instant::now(), SystemTime::now());
        let present = Present {
            last_progress: state.health.progress_of_all().map(|moment| clock - now.saturating_duration_since(moment)),
            last_sync: state.last_sync,
            last_bump: state.last_bump,
            ready: state.health.unready().is_empty(),
            objects: state.objects.len(),
            refused: state.objects.refused_count(),
            files: picture.files,
            conflicts: picture.conflicts,
            held_objects: picture.held_objects,
            held_removals: picture.held_removals,
            bump_pending: picture.bump_pending,
        };
        self.metrics.text(&present)
    }
}
