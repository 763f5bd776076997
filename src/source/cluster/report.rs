//! What is said of failures: one line for each that is new, another when it is over, nothing in between.

use std::time::Duration;

use super::follow::Failure;
use super::wire::Status;

/// How much of the server's own words is repeated, in characters.
const MESSAGE_CHARS_MAX: usize = 400;

/// The failure that was reported last, if it is not over.
#[derive(Debug)]
pub(super) struct Report {
    target: String,
    reported: Option<String>,
}

impl Report {
    /// For a target as messages name it.
    pub fn new(target: String) -> Self {
        Self { target, reported: None }
    }

    /// Notes that `verb target` failed; says so unless that is known. A wait of nothing is no trouble worth a line.
    pub fn failed(&mut self, verb: &str, failure: &Failure, wait: Duration) {
        let what = format!("cannot {verb} {}: {}", self.target, describe(failure));
        if wait.is_zero() || self.reported.as_ref() == Some(&what) {
            tracing::debug!("{what}; next try in {} ms", wait.as_millis());
            return;
        }
        tracing::warn!("{what}; files stay as they are, and it keeps trying");
        self.reported = Some(what);
    }

    /// Notes that the server answers as it should.
    pub fn recovered(&mut self) {
        if self.reported.take().is_some() {
            tracing::info!("following {} again", self.target);
        }
    }
}

fn describe(failure: &Failure) -> String {
    match failure {
        Failure::Transport(what) => printable(what),
        Failure::Status { status: Status { code, reason, message, .. }, .. } => {
            let remedy = match code {
                401 => " (the token or client certificate is not accepted; it is read again at each try)",
                403 => " (grant the verbs list and watch on it, by a Role and a RoleBinding)",
                _ => "",
            };
            printable(&format!("{code} {reason}: {message}{remedy}"))
        }
    }
}

/// The server's words may be anybody's: one line, no control characters, bounded.
fn printable(text: &str) -> String {
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if let Some((at, _)) = text.char_indices().nth(MESSAGE_CHARS_MAX) {
        text.truncate(at);
        text.push('…');
    }
    text
}
