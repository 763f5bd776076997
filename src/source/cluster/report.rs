//! What is said of failures: one line for each kind that is new, another when all is well, nothing in between.

use std::collections::BTreeSet;
use std::time::Duration;

use super::follow::{Failure, Trouble};
use super::wire::Status;
use crate::telemetry::Signs;

/// How much of the server's own words is repeated, in characters.
const MESSAGE_CHARS_MAX: usize = 400;

/// The kinds of failure that were reported and are not over.
#[derive(Debug)]
pub(super) struct Report {
    target: String,
    signs: Signs,
    reported: BTreeSet<Class>,
}

/// What makes two failures one kind: a dead server's connections fail in many words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Trouble(Trouble),
    /// By the status code.
    Refused(u16),
}

impl Report {
    /// For a target as messages name it. The signs hear of every failure.
    pub fn new(target: String, signs: Signs) -> Self {
        Self { target, signs, reported: BTreeSet::new() }
    }

    /// Notes that `verb target` failed; says so unless that is known. A wait of nothing is no trouble worth a line.
    pub fn failed(&mut self, verb: &str, failure: &Failure, wait: Duration) {
        let what = format!("cannot {verb} {}: {}", self.target, describe(failure));
        self.signs.failed(failure.reason(), failure.is_heard(), || what.clone());
        let class = match failure {
            // That nobody answers is known once the connection broke.
            Failure::Trouble { trouble: Trouble::Unreachable, .. } => Class::Trouble(Trouble::Connection),
            Failure::Trouble { trouble, .. } => Class::Trouble(*trouble),
            Failure::Status { status, .. } => Class::Refused(status.code),
        };
        if !wait.is_zero() && self.reported.insert(class) {
            let reason = failure.reason();
            tracing::warn!(event = "source_failed", reason, "{what}; files stay as they are, and it keeps trying");
        } else {
            tracing::debug!("{what}; next try in {} ms", wait.as_millis());
        }
    }

    /// Notes that the server answers as it should.
    pub fn recovered(&mut self) {
        self.signs.recovered();
        if !std::mem::take(&mut self.reported).is_empty() {
            tracing::info!(event = "source_recovered", "following {} again", self.target);
        }
    }
}

/// What went wrong, and what to do about it.
pub(super) fn describe(failure: &Failure) -> String {
    describe_for(failure, "list and watch on it")
}

/// The same, where this is what has to be granted.
pub(super) fn describe_for(failure: &Failure, verbs: &str) -> String {
    match failure {
        Failure::Trouble { trouble: Trouble::Certificate, what } => format!(
            "{} (renew the server's certificate, or correct that of its authority, which is read again at each try)",
            printable(what)
        ),
        Failure::Trouble { what, .. } => printable(what),
        Failure::Status { status: Status { code, reason, message, .. }, .. } => {
            let remedy = match code {
                401 => " (the token or client certificate is not accepted; it is read again at each try)".to_owned(),
                403 => format!(" (grant the verbs {verbs}, by a Role and a RoleBinding)"),
                _ => String::new(),
            };
            format!("{}{remedy}", printable(&format!("{code} {reason}: {message}")))
        }
    }
}

/// The server's words may be anybody's: one line, no control characters, bounded.
pub(super) fn printable(text: &str) -> String {
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if let Some((at, _)) = text.char_indices().nth(MESSAGE_CHARS_MAX) {
        text.truncate(at);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_servers_words_are_one_bounded_line_and_the_remedy_follows() {
        let status = Status { code: 403, message: format!("no\n\u{1b}[31m{}", "x".repeat(5000)), ..Status::default() };
        let text = describe(&Failure::Status { status, in_stream: false });
        assert!(!text.contains(char::is_control) && text.len() < 600, "{text}");
        assert!(text.ends_with("by a Role and a RoleBinding)"), "{text}");
    }
}
