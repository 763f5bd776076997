//! The environment variables of k8s-sidecar, as the options that do the same.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::UsageError;
use super::values::quoted;
use super::variables::Foreign;

/// The annotation that it looks for unless told otherwise.
const FOLDER_ANNOTATION: &str = "k8s-sidecar-target-directory";

/// What has no effect, and why.
const IDLE: [(&str, &str); 12] = [
    ("SLEEP_TIME", "changes are watched, and are there at once"),
    ("ENABLE_5XX", "nothing is fetched"),
    ("REQ_RETRY_TOTAL", "a call that fails is repeated until it succeeds, or a newer change takes its place"),
    ("REQ_RETRY_CONNECT", "a call that fails is repeated until it succeeds, or a newer change takes its place"),
    ("REQ_RETRY_READ", "a call that fails is repeated until it succeeds, or a newer change takes its place"),
    ("REQ_RETRY_BACKOFF_FACTOR", "the wait from one try to the next doubles, up to a minute"),
    ("ERROR_THROTTLE_SLEEP", "the wait after an error doubles from 1 s to 30 s"),
    ("WATCH_SERVER_TIMEOUT", "a watch that is dead is found by its bookmarks, and by TCP"),
    ("WATCH_CLIENT_TIMEOUT", "a watch that is dead is found by its bookmarks, and by TCP"),
    ("LOG_TZ", "the log is in UTC"),
    ("LOG_CONFIG", "use LOG_LEVEL and LOG_FORMAT"),
    ("DISABLE_X509_STRICT_VERIFICATION", "the certificates of old clusters are accepted, too"),
];

/// What the variables ask for.
#[derive(Default)]
pub(super) struct Asked {
    /// Options that count unless they are given otherwise.
    pub options: Vec<Foreign>,
    /// What cannot be had, a line each.
    pub notes: Vec<String>,
}

impl Asked {
    /// # Errors
    ///
    /// When a variable has a value that stands for nothing.
    pub fn read(lookup: impl Fn(&str) -> Option<OsString>) -> Result<Self, UsageError> {
        let mut reader = Reader { lookup, asked: Self::default() };
        reader.selection()?;
        reader.files()?;
        reader.url()?;
        reader.rest()?;
        Ok(reader.asked)
    }
}

struct Reader<L> {
    lookup: L,
    asked: Asked,
}

impl<L: Fn(&str) -> Option<OsString>> Reader<L> {
    /// Its text; an empty one counts as unset.
    fn get(&self, name: &str) -> Result<Option<String>, UsageError> {
        match (self.lookup)(name).filter(|value| !value.is_empty()).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(_)) => Err(UsageError(format!("{name} is not valid UTF-8; write it anew"))),
        }
    }

    fn is_true(&self, name: &str) -> Result<bool, UsageError> {
        Ok(self.get(name)?.is_some_and(|text| text.eq_ignore_ascii_case("true")))
    }

    fn set(&mut self, name: &'static str, option: &'static str, value: impl Into<OsString>) {
        self.asked.options.push(Foreign { name, option, value: value.into() });
    }

    /// The value as it is.
    fn pass_on(&mut self, name: &'static str, option: &'static str) {
        if let Some(value) = (self.lookup)(name).filter(|value| !value.is_empty()) {
            self.set(name, option, value);
        }
    }

    fn note(&mut self, text: String) {
        self.asked.notes.push(text);
    }

    fn selection(&mut self) -> Result<(), UsageError> {
        let namespaces = self.get("NAMESPACE")?;
        let is_all = namespaces.iter().flat_map(|text| text.split(',')).any(|namespace| namespace.trim() == "ALL");
        if is_all {
            self.set("NAMESPACE", "all-namespaces", "true");
        } else if let Some(namespaces) = namespaces {
            self.set("NAMESPACE", "namespace", namespaces);
        }
        if let Some(names) = self.get("RESOURCE_NAME")?.filter(|_| !is_all) {
            if names.contains('/') {
                return Err(UsageError(format!(
                    "RESOURCE_NAME: {} has a kind or namespace in it; write names only, as in web,api, and name the \
                     others by RESOURCE and NAMESPACE",
                    quoted(&names)
                )));
            }
            self.set("RESOURCE_NAME", "names", names);
        } else if let Some(label) = self.get("LABEL")? {
            let selector = match self.get("LABEL_VALUE")? {
                Some(value) => format!("{label}={value}"),
                None => label,
            };
            self.set("LABEL", "labels", selector);
        }
        let kinds = match self.get("RESOURCE")?.as_deref() {
            None => return Ok(()),
            Some("configmap") => "configmaps",
            Some("secret") => "secrets",
            Some("both") => "configmaps,secrets",
            Some(other) => {
                return Err(UsageError(format!(
                    "RESOURCE: {} is no kind it follows; write configmap, secret or both",
                    quoted(other)
                )));
            }
        };
        self.set("RESOURCE", "kinds", kinds);
        Ok(())
    }

    fn files(&mut self) -> Result<(), UsageError> {
        self.pass_on("FOLDER", "dir");
        let annotation = self.get("FOLDER_ANNOTATION")?.unwrap_or_else(|| FOLDER_ANNOTATION.to_owned());
        self.set("FOLDER_ANNOTATION", "folder-annotation", annotation);
        if self.is_true("UNIQUE_FILENAMES")? {
            self.set("UNIQUE_FILENAMES", "layout", "unique");
        }
        // There, a Secret's files are like any other.
        let mode = self.get("DEFAULT_FILE_MODE")?.unwrap_or_else(|| "0644".to_owned());
        self.set("DEFAULT_FILE_MODE", "file-mode", &mode);
        self.set("DEFAULT_FILE_MODE", "secret-file-mode", mode);
        Ok(())
    }

    fn url(&mut self) -> Result<(), UsageError> {
        if self.get("REQ_URL")?.is_none() {
            return Ok(());
        }
        self.pass_on("REQ_URL", "url");
        let method = self.get("REQ_METHOD")?.unwrap_or_else(|| "GET".to_owned());
        if method == "POST"
            && let Some(payload) = self.get("REQ_PAYLOAD")?
        {
            // What is no JSON is sent as a string of it.
            let is_json = serde_json::from_str::<serde_json::Value>(&payload).is_ok();
            let body = if is_json { payload } else { serde_json::Value::from(payload).to_string() };
            self.set("REQ_PAYLOAD", "url-body", body);
            self.set("REQ_PAYLOAD", "url-header", "Content-Type: application/json");
        }
        self.set("REQ_METHOD", "url-method", method);
        if let (Some(user), Some(password)) = (self.get("REQ_USERNAME")?, self.get("REQ_PASSWORD")?) {
            let credentials = BASE64_STANDARD.encode(self.encoded(&format!("{user}:{password}"))?);
            self.set("REQ_PASSWORD", "url-header", format!("Authorization: Basic {credentials}"));
        }
        if let Some(seconds) = self.get("REQ_TIMEOUT")? {
            let timeout =
                seconds.trim().parse().ok().and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok());
            let timeout = timeout.ok_or_else(|| {
                UsageError(format!("REQ_TIMEOUT: {} is no number of seconds; write one such as 10", quoted(&seconds)))
            })?;
            self.set("REQ_TIMEOUT", "url-timeout", format!("{}ms", timeout.as_millis()));
        }
        if self.is_true("REQ_SKIP_TLS_VERIFY")? {
            self.set("REQ_SKIP_TLS_VERIFY", "url-tls-verify", "false");
        } else {
            self.pass_on("REQUESTS_CA_BUNDLE", "url-ca-file");
        }
        Ok(())
    }

    /// The bytes of the credentials, in Latin-1 unless told otherwise.
    fn encoded(&self, credentials: &str) -> Result<Vec<u8>, UsageError> {
        let encoding = self.get("REQ_BASIC_AUTH_ENCODING")?.unwrap_or_else(|| "latin1".to_owned()).to_lowercase();
        if matches!(encoding.as_str(), "utf-8" | "utf8") {
            return Ok(credentials.as_bytes().to_vec());
        }
        let latin_1: Option<Vec<u8>> = credentials.chars().map(|char| u8::try_from(u32::from(char)).ok()).collect();
        latin_1.ok_or_else(|| {
            UsageError("REQ_PASSWORD has letters that Latin-1 lacks; set REQ_BASIC_AUTH_ENCODING to utf-8".to_owned())
        })
    }

    fn rest(&mut self) -> Result<(), UsageError> {
        if let Some(script) = self.get("SCRIPT")? {
            let is_executable = std::fs::metadata(&script).is_ok_and(|found| found.permissions().mode() & 0o111 != 0);
            let shell = if is_executable { "" } else { "sh " };
            self.set("SCRIPT", "exec", format!("{shell}{}", shell_words::quote(&script)));
        }
        if self.is_true("REQ_SKIP_INIT")? {
            self.set("REQ_SKIP_INIT", "initial-bump", "never");
        }
        match self.get("METHOD")?.as_deref() {
            Some("LIST") => self.set("METHOD", "once", "true"),
            Some("SLEEP") => self.note("METHOD=SLEEP: changes are watched instead, and are there at once".to_owned()),
            _ => {}
        }
        if self.is_true("SKIP_TLS_VERIFY")? {
            self.set("SKIP_TLS_VERIFY", "tls-verify", "false");
        }
        if let Some(link) = self.get("HEALTH_PORT")?.filter(|port| is_service_link(port)) {
            self.note(format!(
                "HEALTH_PORT is ignored: {} comes from a Service named `health`; set a number, or enableServiceLinks: false",
                quoted(&link)
            ));
        } else if let Some(port) = self.get("HEALTH_PORT")? {
            self.set("HEALTH_PORT", "listen", format!(":{port}"));
            self.note(
                "HEALTH_PORT: /readyz and /livez are there in place of /healthz; change the pod's probes".to_owned(),
            );
        }
        let level = self.get("LOG_LEVEL")?.unwrap_or_else(|| "INFO".to_owned()).to_lowercase();
        let level = match level.as_str() {
            "critical" | "fatal" => "error",
            "warning" => "warn",
            level => level,
        };
        self.set("LOG_LEVEL", "log-level", level);
        let is_text = self.get("LOG_FORMAT")?.is_some_and(|format| format.eq_ignore_ascii_case("LOGFMT"));
        self.set("LOG_FORMAT", "log-format", if is_text { "text" } else { "json" });
        // It has no variable, and there it is always so.
        self.note(
            "a key that ends in .url is a file like any other here: nothing is fetched from where it points".to_owned(),
        );
        for (name, why) in IDLE {
            if self.get(name)?.is_some() {
                self.note(format!("{name} has no effect here: {why}"));
            }
        }
        Ok(())
    }
}

/// Returns true if Kubernetes sets a variable `NAME_PORT` to this value for a Service: `tcp://10.96.0.9:80`.
fn is_service_link(value: &str) -> bool {
    ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme))
}
