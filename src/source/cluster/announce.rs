//! Tells what has become of objects by Kubernetes Events on them, in the form of core v1: what `kubectl describe` and `kubectl
//! get events` show.
//!
//! An Event counts what is told again of one object for one reason, and is written at most once a minute (`book`). What
//! cannot be written is tried again, later and later; no file waits for it.

mod book;

use std::collections::BTreeSet;

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::book::{Book, Letter, Version};
use super::Stop;
use super::follow::Failure;
use super::report::describe_for;
use super::rights::read;
use super::session::Session;
use super::wire::Status;
use crate::source::announcer::{Announcement, Reason};
use crate::telemetry::{Announced, Telemetry};

/// Who tells, as Events name their author.
const COMPONENT: &str = "configbump";

/// How many of the server's refusals are told before it is enough.
const REPORTED_MAX: usize = 20;

/// The task that tells.
pub(super) struct Teller {
    session: Session,
    book: Book,
    queue: mpsc::Receiver<Announcement>,
    telemetry: Telemetry,
    /// The pod, by its host name.
    instance: String,
    /// In which namespaces the server has refused what, as was told and is not over.
    reported: BTreeSet<(String, u16)>,
    is_full: bool,
}

/// What has become of a letter.
enum Fate {
    Written,
    /// The Event that it was to change is not there any more: they last an hour.
    Gone,
    /// The Event that it was to make is there: an earlier try has made it, of which no answer came.
    There,
    Failed(Failure),
}

impl Teller {
    pub fn new(session: Session, queue: mpsc::Receiver<Announcement>, telemetry: Telemetry) -> Self {
        let instance = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let (book, reported) = (Book::new(Instant::now()), BTreeSet::new());
        Self { session, book, queue, telemetry, instance, reported, is_full: false }
    }

    /// Tells what comes until the queue is closed, and then what is left.
    pub async fn run(mut self) {
        loop {
            let due = self.book.due();
            tokio::select! {
                announcement = self.queue.recv() => match announcement {
                    Some(announcement) => self.enter(announcement),
                    None => break,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.write().await;
                }
            }
        }
        self.book.end();
        while self.book.due().is_some() && self.write().await {}
    }

    fn enter(&mut self, announcement: Announcement) {
        let has_room = self.book.enter(announcement, Instant::now(), Timestamp::now());
        if !has_room {
            self.telemetry.announced(Announced::Dropped);
        }
        if !has_room && !self.is_full {
            tracing::warn!("more is to be told by Events than can be: some are dropped; no file waits for them");
        }
        self.is_full = !has_room;
    }

    /// Writes what is due; whether the server took it.
    async fn write(&mut self) -> bool {
        let Some(letter) = self.book.next(Instant::now()) else { return false };
        let fate = self.send(&letter).await;
        match fate {
            Fate::Written => {
                self.book.written(&letter, Instant::now());
                self.telemetry.announced(Announced::Sent);
                let namespace = &letter.object.namespace;
                let reported_before = self.reported.len();
                self.reported.retain(|(reported, _)| reported != namespace);
                if self.reported.len() < reported_before {
                    tracing::info!("Events are written again in namespace {namespace}");
                }
                true
            }
            Fate::Gone => {
                self.book.begin_anew(&letter);
                true
            }
            Fate::There => {
                self.book.found(&letter);
                true
            }
            Fate::Failed(failure) => {
                self.failed(&letter, &failure);
                false
            }
        }
    }

    async fn send(&self, letter: &Letter) -> Fate {
        let path = format!("/api/v1/namespaces/{}/events", letter.object.namespace);
        let answer = match letter.version {
            Version::First => self.session.post(&path, self.event(letter).to_string()).await,
            Version::Later => self.session.merge(&format!("{path}/{}", letter.name), changes(letter).to_string()).await,
        };
        let answer = match answer {
            Ok(answer) => read(answer).await.map(drop),
            Err(error) => Err(error.into()),
        };
        match answer {
            // Who reads a whole answer hands nothing on that could be closed.
            Ok(()) | Err(Stop::Closed) => Fate::Written,
            Err(Stop::Failed(failure)) => match (letter.version, status(&failure)) {
                (Version::Later, Some(StatusCode::NOT_FOUND)) => Fate::Gone,
                (Version::First, Some(StatusCode::CONFLICT)) => Fate::There,
                _ => Fate::Failed(failure),
            },
        }
    }

    /// What may pass is waited for; what will not is given up.
    fn failed(&mut self, letter: &Letter, failure: &Failure) {
        self.telemetry.announced(Announced::Failed);
        let (code, is_final) = match failure {
            Failure::Status { status, .. } => (status.code, is_final(status)),
            Failure::Trouble { .. } => (0, false),
        };
        if is_final {
            self.book.give_up(letter);
        } else {
            self.book.failed(letter, Instant::now(), fastrand::f64());
        }
        let why = describe_for(failure, "create and patch on events");
        let rest = if is_final { "it is left out" } else { "it is tried again" };
        // Of a server that is away the followers tell.
        let is_told = code != 0 && self.reported.len() < REPORTED_MAX;
        if is_told && self.reported.insert((letter.object.namespace.clone(), code)) {
            tracing::warn!(
                event = "announcement_failed",
                "cannot write an Event about {}: {why}; {rest}, and no file waits for it",
                letter.object
            );
        } else {
            tracing::debug!("cannot write an Event about {}: {why}; {rest}", letter.object);
        }
    }

    fn event(&self, letter: &Letter) -> Value {
        let object = &letter.object;
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": object.namespace, "name": letter.name},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": object.kind.name(),
                "namespace": object.namespace,
                "name": object.name,
                "uid": letter.uid,
            },
            "type": kind(letter.reason),
            "reason": letter.reason.name(),
            "message": letter.message,
            "count": letter.count,
            "firstTimestamp": seconds(letter.first),
            "lastTimestamp": seconds(letter.last),
            "source": {"component": COMPONENT, "host": self.instance},
            "reportingComponent": COMPONENT,
            "reportingInstance": self.instance,
        })
    }
}

fn status(failure: &Failure) -> Option<StatusCode> {
    match failure {
        Failure::Status { status, .. } => StatusCode::from_u16(status.code).ok(),
        Failure::Trouble { .. } => None,
    }
}

/// What of an Event changes when it is told again.
fn changes(letter: &Letter) -> Value {
    json!({"message": letter.message, "count": letter.count, "lastTimestamp": seconds(letter.last)})
}

/// The type of an Event: there are two.
fn kind(reason: Reason) -> &'static str {
    match reason {
        Reason::Applied => "Normal",
        Reason::Conflict | Reason::Refused | Reason::CheckFailed | Reason::RolledBack => "Warning",
    }
}

fn seconds(moment: Timestamp) -> String {
    format!("{moment:.0}")
}

/// Whether a refusal will be the same the next time.
fn is_final(Status { code, message, .. }: &Status) -> bool {
    match code {
        // What the server says of a namespace that is being deleted.
        403 => message.contains("because it is being terminated"),
        401 | 408 | 409 | 425 | 429 => false,
        code => (400..500).contains(code),
    }
}
