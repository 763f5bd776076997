//! Calls a URL after a change.
//!
//! One request a bump, over a connection of its own that is closed afterwards. What the call needs from files (credentials,
//! certificates) is read anew each time, as it is rotated in place, and nothing of it is kept. No proxy is used.
//!
//! Neither a log line nor an error shows what is sent: no body, no header, no credential, no query. Where an answer
//! repeats any of them, what an error shows of it ends there; where Secrets are followed, it shows nothing of it.

mod options;
#[cfg(test)]
mod tests;
mod tls;

use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::CertificateError::{self, BadSignature, UnknownIssuer};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use self::options::{UrlConfig, UrlConfigError, UrlOptions};
use super::{Batch, BumpError};
use crate::printable::printable;
use crate::resolver;

const AGENT: &str = concat!("configbump/", env!("CARGO_PKG_VERSION"));

/// Bounds the head of an answer, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How much of a refusal is read, in bytes, and how long its body is waited for…
const REFUSAL_BYTES_MAX: usize = 4096;
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// …and how much of it an error shows.
const REFUSAL_CHARS_MAX: usize = 200;

/// How many characters of something sent must be in an answer to count as repeated.
const REPEATED_CHARS: usize = 16;
/// From how many bytes on a word of something sent counts by itself; what is shorter is in any sentence.
const WORD_BYTES_MIN: usize = 4;

/// The bump that calls a URL.
#[derive(Debug)]
pub struct Url {
    config: UrlConfig,
    /// Whether anybody has been there. Until then, whoever is to be called may not have been started.
    was_there: bool,
}

impl Url {
    #[must_use]
    pub fn new(config: UrlConfig) -> Self {
        if config.is_https() && !config.tls_verify {
            tracing::warn!(
                "--url: the certificate of {} is not verified, as --url-tls-verify=false asks",
                config.shown()
            );
        }
        Self { config, was_there: false }
    }

    /// The URL, without what may be a secret in it.
    #[must_use]
    pub fn shown(&self) -> String {
        self.config.shown()
    }

    /// Calls the URL once. An answer with a status of 200 to 299 is success, whatever its body is.
    ///
    /// # Errors
    ///
    /// [`BumpError::Refused`] for a status that says that the new files are bad, [`BumpError::Failed`] for any other, and
    /// when there is no answer in time; no redirect is followed. [`BumpError::Unready`] if nobody listens there, and nobody has since this was made: a
    /// program may be started only when configbump is ready, as the containers after a native sidecar are.
    pub async fn bump(&mut self, _batch: &Batch) -> Result<(), BumpError> {
        let outcome = match timeout(self.config.timeout, self.call()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Trouble::Call(format!(
                "did not answer within {:?}; see what keeps it, or raise --url-timeout",
                self.config.timeout
            ))),
        };
        let text = |why| format!("--url: {} {why}", self.config.shown());
        outcome.map_err(|trouble| match trouble {
            Trouble::Nobody(why) => BumpError::Unready(text(why)),
            Trouble::Call(why) => BumpError::Failed(text(why)),
            Trouble::Files(why) => BumpError::Refused(text(why)),
        })
    }

    /// Whether a call could be made, without making it: what it needs is there, and somebody accepts the connection. Gives
    /// the URL.
    ///
    /// # Errors
    ///
    /// When not, on one line.
    pub async fn examine(&self) -> Result<String, String> {
        let (config, shown) = (&self.config, self.config.shown());
        config.credentials().and_then(|_| tls::config(config).map(drop)).map_err(|why| format!("{shown}: {why}"))?;
        let host = config.url.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = config.url.port_u16().unwrap_or(if config.is_https() { 443 } else { 80 });
        let connect = async {
            let addresses: Vec<_> = resolver::look_up(host, port).await?.collect();
            TcpStream::connect(&*addresses).await
        };
        match timeout(config.timeout, connect).await {
            Ok(Ok(_)) => Ok(shown),
            Ok(Err(error)) => {
                Err(format!("{shown} cannot be reached: {error}; check --url, and whether its server runs"))
            }
            Err(_) => {
                Err(format!("{shown} cannot be reached within {:?}; check --url and the network", config.timeout))
            }
        }
    }

    async fn call(&mut self) -> Result<(), Trouble> {
        let config = &self.config;
        let credentials = config.credentials().map_err(|why| format!("was not called: {why}"))?;
        let tls = tls::config(config).map_err(|why| format!("was not called: {why}"))?;
        let request = self.request(credentials.as_deref()).map_err(|error| format!("cannot be asked: {error}"))?;

        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(resolver::connector());
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(0)
            .retry_canceled_requests(false)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .build(connector);
        let answer = match client.request(request).await {
            Ok(answer) => answer,
            Err(error) if is_refused(&error) && !self.was_there => return Err(Trouble::Nobody(no_answer(&error))),
            Err(error) => {
                self.was_there |= !error.is_connect();
                return Err(Trouble::Call(no_answer(&error)));
            }
        };
        self.was_there = true;
        if answer.status().is_success() {
            return Ok(());
        }
        let trouble = if is_about_files(answer.status()) { Trouble::Files } else { Trouble::Call };
        Err(trouble(self.refused(answer, credentials.as_deref()).await))
    }

    /// The request, with basic authentication (RFC 7617) for these credentials.
    fn request(&self, credentials: Option<&str>) -> Result<Request<Full<Bytes>>, http::Error> {
        let config = &self.config;
        let body = Full::new(config.body.clone().unwrap_or_default());
        let mut request = Request::builder().method(&config.method).uri(&config.url).body(body)?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        // Those that were asked for take the place of ours, but may be repeated among themselves.
        config.headers.iter().for_each(|(name, _)| drop(headers.remove(name)));
        for (name, value) in &config.headers {
            headers.append(name, value.clone());
        }
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if let Some(credentials) = credentials {
            let mut value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(credentials)))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(request)
    }

    /// What an answer that is no success says, and what to do about it.
    async fn refused<B>(&self, answer: Response<B>, credentials: Option<&str>) -> String
    where
        B: http_body::Body<Data = Bytes> + Unpin,
    {
        let status = answer.status();
        let text = if self.config.shows_answers { beginning(answer.into_body()).await } else { String::new() };
        let text = printable(self.without_what_was_sent(&text, credentials), REFUSAL_CHARS_MAX);
        let quote = if text.trim().is_empty() { String::new() } else { format!(" ({})", text.trim_end()) };
        let remedy = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                "; check --url-user-file, --url-password-file and --url-header"
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => "",
            _ if status.is_redirection() => "; redirects are not followed: write the URL that it leads to",
            _ if status.is_client_error() => "; check --url, --url-method, --url-header and --url-body",
            _ => "",
        };
        format!("answered {status}{quote}{remedy}")
    }

    /// The text up to where it repeats something that was sent and is nobody's business, or a long word of that.
    fn without_what_was_sent<'a>(&self, text: &'a str, credentials: Option<&str>) -> &'a str {
        let config = &self.config;
        let (user, password) = credentials.and_then(|both| both.split_once(':')).unwrap_or_default();
        let encoded = credentials.map(|both| BASE64_STANDARD.encode(both)).unwrap_or_default();
        let query = config.url.query().unwrap_or_default();
        let mut sent = [user, password, &encoded, query].map(Cow::Borrowed).to_vec();
        sent.extend(config.body.as_deref().map(String::from_utf8_lossy));
        sent.extend(config.headers.iter().map(|(_, value)| String::from_utf8_lossy(value.as_bytes())));
        // A token may have signs in it: `Bearer a-b-c`.
        let tokens = sent.iter().flat_map(|sent| sent.split([' ', '\t', '\n', '\r', ',', ';', '=', '&', '"']));
        let words = sent.iter().flat_map(|sent| sent.split(|char: char| !char.is_alphanumeric()));
        let words = words.chain(tokens).filter(|word| word.len() >= WORD_BYTES_MIN);
        let whole = sent.iter().map(|sent| sent.trim()).filter(|sent| !sent.is_empty());
        let end = words.chain(whole).filter_map(|sent| {
            let beginning = sent.char_indices().nth(REPEATED_CHARS).map_or(sent, |(end, _)| &sent[..end]);
            text.find(beginning)
        });
        &text[..end.min().unwrap_or(text.len())]
    }
}

/// Why a call was no success.
enum Trouble {
    /// Nobody listens there yet.
    Nobody(String),
    /// It did not get through, or was a wrong one.
    Call(String),
    /// It got through, and the files are bad.
    Files(String),
}

impl From<String> for Trouble {
    fn from(why: String) -> Self {
        Self::Call(why)
    }
}

/// Whether a status says that what the program has read is bad: a 4xx does, but for those that are about who calls what, or
/// when (RFC 9110, 15.5).
fn is_about_files(status: StatusCode) -> bool {
    let is_about_call = matches!(status.as_u16(), 401 | 403 | 404 | 405 | 407 | 408 | 425 | 429);
    status.is_client_error() && !is_about_call
}

/// As much of a body as an error could show. What comes slowly is not waited for: the status says enough.
async fn beginning(mut body: impl http_body::Body<Data = Bytes> + Unpin) -> String {
    let mut bytes = Vec::new();
    let read = async {
        while let Some(Ok(frame)) = body.frame().await {
            if let Some(data) = frame.data_ref() {
                bytes.extend_from_slice(&data[..data.len().min(REFUSAL_BYTES_MAX - bytes.len())]);
            }
            if bytes.len() == REFUSAL_BYTES_MAX {
                return;
            }
        }
    };
    // If time runs out, what has come is enough.
    let _ = timeout(REFUSAL_TIMEOUT, read).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Why there was no answer, with all that caused it, on one line.
fn no_answer(error: &(dyn Error + 'static)) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut remedy = "";
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        // Many errors repeat their cause in their own text.
        if !causes.iter().any(|known| known.contains(&text)) {
            causes.push(text);
        }
        if is_unvouched(cause) {
            remedy = "; name a file of the authority that signed it with --url-ca-file";
        }
        next = cause.source();
    }
    if causes.is_empty() {
        causes.push(error.to_string());
    }
    format!("could not be called: {}{remedy}", printable(&causes.join(": "), 500))
}

/// Whether nobody listens where the connection was to go.
fn is_refused(error: &(dyn Error + 'static)) -> bool {
    let mut errors = std::iter::successors(Some(error), |&error| error.source());
    errors.any(|error| {
        error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    })
}

/// Whether a certificate is right but for who vouches for it. An I/O error keeps what it was made of apart from what caused it.
fn is_unvouched(error: &(dyn Error + 'static)) -> bool {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => is_unvouched(inner),
        None => matches!(
            error.downcast_ref(),
            Some(rustls::Error::InvalidCertificate(UnknownIssuer | BadSignature | CertificateError::Other(_)))
        ),
    }
}
