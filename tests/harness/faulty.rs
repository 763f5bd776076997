//! A proxy in front of a real API server that answers in its place, or spoils its answers, when a test says so.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::channel::{Channel, Sender};
use http_body_util::{BodyExt as _, Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::access::{Access, certificate};
use super::certificates::{Authority, LAST_YEAR};

/// What the proxy does.
#[derive(Clone)]
pub enum Fault {
    /// It passes on what the server answers.
    None,
    /// It answers the requests that this is content with, given their path and query; the server is not asked.
    Answer(fn(&str) -> bool, Answer),
    /// It passes each line of an answer, with its end, through what this makes for that answer. An event of a watch is a
    /// line, so is a page of a list.
    Lines(Arc<dyn Fn() -> Spoil + Send + Sync>),
}

type Spoil = Box<dyn FnMut(Bytes) -> Line + Send>;

/// An answer of the proxy's own.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub retry_after: Option<&'static str>,
    pub body: &'static [u8],
}

/// What becomes of a line.
pub enum Line {
    /// This, and the answer goes on.
    Passed(Bytes),
    /// This, in place of what it was, and the answer goes on.
    Changed(Bytes),
    /// This, and then the connection breaks.
    Cut(Bytes),
    /// This, and then the answer ends as though it were complete.
    Ended(Bytes),
}

impl Fault {
    /// Does this to each line; what it remembers it forgets with the end of an answer.
    pub fn lines(spoil: impl FnMut(Bytes) -> Line + Clone + Send + Sync + 'static) -> Self {
        Self::Lines(Arc::new(move || Box::new(spoil.clone())))
    }
}

/// Where the text begins.
pub fn find(line: &[u8], text: &str) -> Option<usize> {
    line.windows(text.len()).position(|some| some == text.as_bytes())
}

/// The proxy; it runs on the runtime of its test.
pub struct Faulty {
    /// As the one behind it is reached, but for the address and the authority.
    pub access: Access,
    authority: Authority,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    client: Client<HttpsConnector<HttpConnector>, Incoming>,
    tls: Mutex<Arc<ServerConfig>>,
    fault: watch::Sender<Fault>,
    requests: Mutex<Vec<Instant>>,
    spoilt: Mutex<usize>,
}

type Body = Either<Full<Bytes>, Channel<Bytes, io::Error>>;

impl Faulty {
    pub async fn before(behind: &Access) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let authority = Authority::new();
        let shared = Arc::new(Shared {
            server: behind.address,
            client: client(behind),
            tls: Mutex::new(authority.server(LAST_YEAR)),
            fault: watch::Sender::new(Fault::None),
            requests: Mutex::default(),
            spoilt: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, Arc::clone(&serving)));
            }
        });
        let access = Access { address, authority: Some(authority.pem()), token: behind.token.clone() };
        Self { access, authority, shared }
    }

    /// From now on. All answers that are under way break.
    pub fn set(&self, fault: Fault) {
        self.shared.fault.send_replace(fault);
    }

    /// Breaks all answers that are under way.
    pub fn cut(&self) {
        self.shared.fault.send_modify(|_| {});
    }

    /// When requests came in the minute that began then, in their order.
    pub fn requests_in_the_minute_from(&self, began: Instant) -> Vec<Instant> {
        let minute = began..began + Duration::from_secs(60);
        lock(&self.shared.requests).iter().copied().filter(|moment| minute.contains(moment)).collect()
    }

    /// How many answers or lines were not the server's.
    pub fn spoilt(&self) -> usize {
        *lock(&self.shared.spoilt)
    }

    /// Shows another certificate from the next connection on, and breaks the present answers.
    pub fn identify_by(&self, tls: Arc<ServerConfig>) {
        *lock(&self.shared.tls) = tls;
        self.cut();
    }

    /// A certificate that ran out long ago, by the authority that the clients know.
    pub fn expire(&self) {
        self.identify_by(self.authority.server(2001));
    }

    /// A certificate that is good again.
    pub fn renew(&self) {
        self.identify_by(self.authority.server(LAST_YEAR));
    }
}

fn client(behind: &Access) -> Client<HttpsConnector<HttpConnector>, Incoming> {
    let mut roots = RootCertStore::empty();
    let authority = behind.authority.as_deref().expect("the tests' servers have one");
    roots.add(certificate(authority).into()).expect("a certificate");
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
    Client::builder(TokioExecutor::new()).build(connector)
}

async fn serve(client: TcpStream, shared: Arc<Shared>) {
    let tls = TlsAcceptor::from(Arc::clone(&lock(&shared.tls)));
    // Whoever does not trust it goes away.
    let Ok(client) = tls.accept(client).await else { return };
    let answer = service_fn(move |request| answer(request, Arc::clone(&shared)));
    // A client that goes away in the middle is nothing to mention.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(client), answer).await;
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<Body>, Infallible> {
    lock(&shared.requests).push(Instant::now());
    let mut faults = shared.fault.subscribe();
    let fault = faults.borrow_and_update().clone();
    if let Fault::Answer(is_meant, Answer { status, retry_after, body }) = &fault
        && is_meant(&request.uri().to_string())
    {
        *lock(&shared.spoilt) += 1;
        let mut answer = Response::builder().status(*status).header("content-type", "application/json");
        if let Some(retry_after) = retry_after {
            answer = answer.header("retry-after", *retry_after);
        }
        return Ok(answer.body(Either::Left(Full::new(Bytes::from_static(body)))).expect("an answer"));
    }
    let (mut head, body) = request.into_parts();
    let uri: Result<Uri, _> = format!("https://{}{}", shared.server, head.uri).parse();
    head.uri = uri.expect("the address with a path");
    let Ok(answer) = shared.client.request(Request::from_parts(head, body)).await else {
        let bad = Response::builder().status(StatusCode::BAD_GATEWAY).body(Either::Left(Full::default()));
        return Ok(bad.expect("an answer"));
    };
    let (head, from) = answer.into_parts();
    let (mut to, body) = Channel::new(1);
    tokio::spawn(async move {
        let end = tokio::select! {
            end = pass(from, &mut to, &fault, &shared) => end,
            _ = faults.changed() => End::Broken,
        };
        if end == End::Broken {
            to.abort(io::Error::other("cut"));
        }
    });
    Ok(Response::from_parts(head, Either::Right(body)))
}

/// How an answer ends.
#[derive(PartialEq, Eq)]
enum End {
    Complete,
    Broken,
}

/// Passes the answer on.
async fn pass(mut from: Incoming, to: &mut Sender<Bytes, io::Error>, fault: &Fault, shared: &Shared) -> End {
    let mut spoil = if let Fault::Lines(spoil) = fault { Some(spoil()) } else { None };
    let mut begun = BytesMut::new();
    while let Some(frame) = from.frame().await {
        let Ok(frame) = frame else { return End::Broken };
        let Ok(data) = frame.into_data() else { continue };
        let Some(spoil) = &mut spoil else {
            if to.send_data(data).await.is_err() {
                return End::Broken;
            }
            continue;
        };
        begun.extend_from_slice(&data);
        while let Some(end) = begun.iter().position(|&byte| byte == b'\n') {
            let line = spoil(begun.split_to(end + 1).freeze());
            *lock(&shared.spoilt) += usize::from(!matches!(line, Line::Passed(_)));
            let (text, end) = match line {
                Line::Passed(text) | Line::Changed(text) => (text, None),
                Line::Cut(text) => (text, Some(End::Broken)),
                Line::Ended(text) => (text, Some(End::Complete)),
            };
            // There is room for the second one when the first is on its way.
            if to.send_data(text).await.is_err() || to.send_data(Bytes::new()).await.is_err() {
                return End::Broken;
            }
            if let Some(end) = end {
                return end;
            }
        }
    }
    End::Complete
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}
