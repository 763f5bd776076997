//! The options of a call: as they were typed, and as they were meant.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Uri};
use thiserror::Error;

use crate::printable::quoted;

/// How long a call may take if nothing else is asked for.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// What a file of a user name or password may have, in bytes.
const CREDENTIAL_BYTES_MAX: u64 = 16 * 1024;

const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];

/// Headers that belong to the connection, hence to configbump.
const OWN_HEADERS: [HeaderName; 6] = [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// The options as they were typed.
#[derive(Clone)]
pub struct UrlOptions {
    pub url: String,
    /// Unset: POST if there is a body, else GET.
    pub method: Option<String>,
    pub body: Option<String>,
    /// Each `Name: value`.
    pub headers: Vec<String>,
    pub timeout: Duration,
    pub user_file: Option<PathBuf>,
    pub password_file: Option<PathBuf>,
    pub tls_verify: bool,
    pub ca_file: Option<PathBuf>,
}

impl UrlOptions {
    /// The options of a call of this URL when nothing else was typed.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            method: None,
            body: None,
            headers: Vec::new(),
            timeout: TIMEOUT,
            user_file: None,
            password_file: None,
            tls_verify: true,
            ca_file: None,
        }
    }
}

/// A wrong option, by its name, and on one line why it is wrong and what to write instead.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{option}: {why}")]
pub struct UrlConfigError {
    pub option: &'static str,
    pub why: String,
}

/// What to call, and how.
#[derive(Clone)]
pub struct UrlConfig {
    /// Absolute, http or https, with a host and without user information.
    pub(super) url: Uri,
    pub(super) method: Method,
    pub(super) body: Option<Bytes>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// How long all of it may take, the look-up of the host's name included.
    pub(super) timeout: Duration,
    user_file: Option<PathBuf>,
    password_file: Option<PathBuf>,
    /// Whether an error may show what the program answers.
    pub(super) shows_answers: bool,
    pub(super) tls_verify: bool,
    /// The authorities to trust, in PEM; unset: those that the system trusts.
    pub(super) ca_file: Option<PathBuf>,
}

/// Shows nothing that could be secret.
impl fmt::Debug for UrlConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UrlConfig").field("url", &self.shown()).field("method", &self.method).finish_non_exhaustive()
    }
}

impl UrlConfig {
    /// From here on no error shows what the program answers, which may repeat what it has read.
    pub fn keep_answers(&mut self) {
        self.shows_answers = false;
    }

    /// The files that a call reads.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.user_file, &self.password_file, &self.ca_file].into_iter().flatten().map(PathBuf::as_path)
    }

    /// Checks the options.
    ///
    /// # Errors
    ///
    /// If one is malformed or cannot stand beside another one.
    pub fn new(options: UrlOptions) -> Result<Self, UrlConfigError> {
        let named = |option| move |why| UrlConfigError { option, why };
        let url = url(&options.url).map_err(named("--url"))?;
        let method = match &options.method {
            Some(text) => method(text).map_err(named("--url-method"))?,
            None if options.body.is_some() => Method::POST,
            None => Method::GET,
        };
        let headers: Result<Vec<_>, _> = options.headers.iter().map(|text| header(text)).collect();
        let headers = headers.map_err(named("--url-header"))?;
        if options.timeout.is_zero() {
            return Err(named("--url-timeout")("0 leaves no time for an answer; write one such as 10s".to_owned()));
        }
        if options.password_file.is_some() && options.user_file.is_none() {
            return Err(named("--url-password-file")("it needs a user; give --url-user-file as well".to_owned()));
        }
        if options.user_file.is_some() && headers.iter().any(|(name, _)| *name == AUTHORIZATION) {
            let why = "it sets Authorization, as --url-user-file does; leave one of them out";
            return Err(named("--url-header")(why.to_owned()));
        }
        if options.ca_file.is_some() && !options.tls_verify {
            let why = "it counts for nothing with --url-tls-verify=false; leave one of them out";
            return Err(named("--url-ca-file")(why.to_owned()));
        }
        Ok(Self {
            url,
            method,
            body: options.body.map(Bytes::from),
            headers,
            timeout: options.timeout,
            user_file: options.user_file,
            password_file: options.password_file,
            shows_answers: true,
            tls_verify: options.tls_verify,
            ca_file: options.ca_file,
        })
    }

    pub(super) fn is_https(&self) -> bool {
        self.url.scheme() == Some(&http::uri::Scheme::HTTPS)
    }

    /// The URL without its query, for the log.
    pub(super) fn shown(&self) -> String {
        let authority = self.url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        format!("{}://{authority}{}", self.url.scheme_str().unwrap_or_default(), self.url.path())
    }

    /// `user:password` as the files have it now, without space around either; `None` without a file for the user.
    pub(super) fn credentials(&self) -> Result<Option<String>, String> {
        let Some(user_file) = &self.user_file else { return Ok(None) };
        let user = text_of("--url-user-file", user_file)?;
        if user.contains(':') {
            return Err(format!(
                "--url-user-file: the user in {} has a colon, which basic authentication cannot carry; name another user",
                shown(user_file)
            ));
        }
        let password = match &self.password_file {
            Some(file) => text_of("--url-password-file", file)?,
            None => String::new(),
        };
        Ok(Some(format!("{user}:{password}")))
    }
}

fn url(text: &str) -> Result<Uri, String> {
    let text = text.trim();
    let shown = quoted(&without_secrets(text));
    let example = "write one such as http://127.0.0.1:9090/-/reload";
    let url: Uri = text.parse().map_err(|error| format!("{shown} is no URL: {error}; {example}"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(format!("{shown} is no URL of http or https; {example}"));
    }
    let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
    if authority.contains('@') {
        return Err(format!(
            "{shown} has credentials in it; put them into files, and name those with --url-user-file and --url-password-file"
        ));
    }
    let port = authority.strip_prefix(url.host().unwrap_or_default()).unwrap_or_default();
    let has_port = port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if url.host().is_none_or(str::is_empty) || !(port.is_empty() || has_port) {
        return Err(format!("{shown} has no usable host and port; {example}"));
    }
    Ok(url)
}

/// A text that should be a URL, without what would be its query and its user information.
fn without_secrets(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (&text[..scheme.len() + 3], rest));
    match rest.rsplit_once('@') {
        Some((_, rest)) => format!("{scheme}…@{rest}"),
        None => text.to_owned(),
    }
}

fn method(text: &str) -> Result<Method, String> {
    let wanted = text.trim().to_ascii_uppercase();
    METHODS.into_iter().find(|method| method.as_str() == wanted).ok_or_else(|| {
        let known: Vec<&str> = METHODS.iter().map(Method::as_str).collect();
        format!("{} is no method that it can use; write one of {}", quoted(text), known.join(", "))
    })
}

/// The value may be a credential, so no error shows it.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let Some((name, value)) = text.split_once(':') else {
        let name = text.split_whitespace().next().unwrap_or_default();
        return Err(format!("{} has no colon after its name; write it as in 'Name: value'", quoted(name)));
    };
    let name: HeaderName = name
        .trim()
        .parse()
        .map_err(|_| format!("{} cannot be the name of a header; write it as in 'Name: value'", quoted(name)))?;
    if OWN_HEADERS.contains(&name) {
        return Err(format!("{} is set by configbump itself; leave it out", quoted(name.as_str())));
    }
    let mut value = HeaderValue::from_str(value.trim()).map_err(|_| {
        format!("the value of {} has a character that no header can carry; remove it", quoted(name.as_str()))
    })?;
    value.set_sensitive(true);
    Ok((name, value))
}

fn text_of(option: &str, path: &Path) -> Result<String, String> {
    let bytes = read(path, CREDENTIAL_BYTES_MAX)
        .map_err(|error| format!("{option}: {} cannot be read: {error}; name a readable file", shown(path)))?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{option}: {} has no UTF-8 text in it", shown(path)))?;
    Ok(text.trim().to_owned())
}

/// The whole of a regular file: a pipe could keep everything waiting.
pub(super) fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("it has more than {bytes_max} bytes")));
    }
    Ok(bytes)
}

pub(super) fn shown(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}
