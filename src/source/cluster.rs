//! The objects of a cluster, followed by a list/watch loop for each kind in each namespace.
//!
//! `follow` decides what to ask and what an answer means; `session` is the way to the server; `body` and `wire` read
//! its answers in bounded memory. This file joins them.

mod announce;
mod body;
mod follow;
mod report;
mod rights;
mod session;
#[cfg(test)]
mod tests;
mod wire;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::client::Body;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};

use self::announce::Teller;
use self::body::{BodyError, Documents};
pub use self::follow::REASONS;
use self::follow::{Ask, Failure, Follow, PAGE_OBJECTS, STABLE, Trouble};
use self::report::Report;
pub use self::rights::{Account, Inquiry, Scoped};
pub use self::session::SessionError;
use self::session::{SendError, Session};
use self::wire::{Found, PageEnd, Unusable, Wanted, WatchEvent};
use crate::config::{ClusterConfig, Namespaces, Selection};
use crate::content::Spool;
use crate::event::{Event, Scope, ScopeId, What};
use crate::object::Kind;
use crate::source::announcer::{ANNOUNCEMENTS_WAITING_MAX, Announcer};
use crate::telemetry::{Signs, Telemetry};

/// How long a watch is asked to last, in seconds: from this to twice this, so that followers spread.
const WATCH_S_MIN: u64 = 290;

/// A watch that says nothing for this long is dead: the server sends a bookmark about every minute (KEP-956).
const WATCH_SILENCE_MAX: Duration = Duration::from_secs(150);

/// A list that says nothing for this long is dead.
const LIST_SILENCE_MAX: Duration = Duration::from_secs(30);

/// A list that takes longer is given up, however busily it drips.
const LIST_TIME_MAX: Duration = Duration::from_secs(600);

/// How much of the server's account of a failure is read, in bytes.
const STATUS_BYTES_MAX: usize = 16 * 1024;

/// How many objects of a page may wait to be passed on.
const OBJECTS_WAITING_MAX: usize = 2;

/// A cluster that was found, and what to follow in it.
pub struct Cluster {
    session: Session,
    targets: Vec<Target>,
    folder_annotation: Option<String>,
    /// Whether what becomes of objects is told by Events.
    announces: bool,
}

/// The pipeline has ended: nobody takes events any more.
#[derive(Debug)]
struct Closed;

/// How a question to the server was settled.
enum Turn {
    /// There is more to ask at once.
    Next,
    /// There is more to ask, although this was less than a page can have.
    Thin,
    /// The server ended a watch.
    Ended,
}

/// Why it was not.
enum Stop {
    Failed(Failure),
    Closed,
}

impl Stop {
    fn trouble(trouble: Trouble, what: &impl ToString) -> Self {
        Self::Failed(Failure::Trouble { trouble, what: what.to_string() })
    }
}

impl From<SendError> for Stop {
    fn from(error: SendError) -> Self {
        let trouble = match &error {
            SendError::Session(_) => Trouble::Credentials,
            SendError::Slow { .. } => Trouble::Silence,
            SendError::Unreachable(_) => Trouble::Unreachable,
            SendError::Certificate(_) => Trouble::Certificate,
            SendError::Transport(_) => Trouble::Connection,
        };
        Self::trouble(trouble, &error)
    }
}

impl From<BodyError> for Stop {
    fn from(error: BodyError) -> Self {
        let trouble = match &error {
            BodyError::Silent(_) | BodyError::Slow(_) => Trouble::Silence,
            BodyError::Dead(_) => Trouble::Unreachable,
            BodyError::Broken(_) => Trouble::Connection,
            BodyError::Wire(_) => Trouble::Answer,
            BodyError::Thread(_) => Trouble::Thread,
        };
        Self::trouble(trouble, &error)
    }
}

impl From<Closed> for Stop {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

impl Cluster {
    /// Finds the server and lays out what to follow; asks nothing yet.
    ///
    /// # Errors
    ///
    /// [`SessionError`] when there is no cluster, or no usable credentials.
    pub async fn find(
        config: &ClusterConfig,
        selection: &Selection,
        folder_annotation: Option<String>,
    ) -> Result<Self, SessionError> {
        let (session, own_namespace) = Session::open(config).await?;
        let namespaces = match &selection.namespaces {
            Namespaces::Unset => vec![Some(own_namespace)],
            Namespaces::Named(names) => names.iter().cloned().map(Some).collect(),
            Namespaces::All => vec![None],
        };
        let selectors: Vec<Selector> = selection
            .labels
            .iter()
            .map(|labels| Selector::Labels(labels.text.clone()))
            .chain(selection.names.iter().cloned().map(Selector::Name))
            .collect();
        let mut targets = Vec::new();
        for kind in &selection.kinds {
            for namespace in &namespaces {
                for selector in &selectors {
                    targets.push(Target { kind: *kind, namespace: namespace.clone(), selector: selector.clone() });
                }
            }
        }
        Ok(Self { session, targets, folder_annotation, announces: config.events })
    }

    /// Whether the credentials come from a program.
    #[must_use]
    pub fn starts_commands(&self) -> bool {
        self.session.has_plugin()
    }

    /// The files and folders that the credentials are in, or may be after they were replaced.
    #[must_use]
    pub fn reads(&self) -> Vec<PathBuf> {
        self.session.reads()
    }

    /// Where it is, and what is to be followed there.
    #[must_use]
    pub fn inquiry(&self) -> Inquiry<'_> {
        Inquiry::new(&self.session, &self.targets, self.announces)
    }

    /// What is followed: a scope for each kind, namespace and selector.
    #[must_use]
    pub fn scopes(&self) -> Vec<Scope> {
        self.targets.iter().map(Target::scope).collect()
    }

    /// Follows every scope, each by a task of its own, until the receiver of the events is gone. A permit of the `resync` at
    /// a scope's place makes it list everything again. What has become of objects may be told to the announcer.
    #[must_use]
    pub fn run(
        self,
        spool: &Spool,
        events: &mpsc::Sender<Event>,
        resync: &[Arc<Notify>],
        telemetry: &Telemetry,
    ) -> Announcer {
        let announcer = self.announcer(telemetry);
        for (scope, (target, resync)) in self.targets.into_iter().zip(resync).enumerate() {
            let wanted =
                Wanted { kind: target.kind, folder_annotation: self.folder_annotation.clone(), spool: spool.clone() };
            let signs = telemetry.signs(scope, REASONS);
            let follower = Follower {
                scope,
                report: Report::new(target.scope().to_string(), signs.clone()),
                signs,
                target,
                wanted: Arc::new(wanted),
                session: self.session.clone(),
                follow: Follow::new(),
                list_began: Instant::now(),
            };
            tokio::spawn(follower.run(events.clone(), Arc::clone(resync)));
        }
        announcer
    }

    fn announcer(&self, telemetry: &Telemetry) -> Announcer {
        if !self.announces {
            return Announcer::default();
        }
        let (sender, queue) = mpsc::channel(ANNOUNCEMENTS_WAITING_MAX);
        let teller = Teller::new(self.session.clone(), queue, telemetry.clone());
        Announcer::new(sender, tokio::spawn(teller.run()), telemetry.clone())
    }
}

/// What narrows a list or watch.
#[derive(Clone, Debug)]
enum Selector {
    Labels(String),
    Name(String),
}

/// What a follower asks for.
struct Target {
    kind: Kind,
    namespace: Option<String>,
    selector: Selector,
}

impl Target {
    fn scope(&self) -> Scope {
        let name = match &self.selector {
            Selector::Labels(_) => None,
            Selector::Name(name) => Some(name.clone()),
        };
        Scope { kind: Some(self.kind), namespace: self.namespace.clone(), name }
    }

    /// The path and query that ask for it.
    fn path(&self, ask: &Ask, watch_s: u64) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        match &self.selector {
            Selector::Labels(text) => query.append_pair("labelSelector", text),
            Selector::Name(name) => query.append_pair("fieldSelector", &format!("metadata.name={name}")),
        };
        match ask {
            Ask::Page { objects_max, continue_token } => {
                let limit = objects_max.map(|max| max.to_string());
                query.extend_pairs(limit.map(|limit| ("limit", limit)));
                query.extend_pairs(continue_token.as_ref().map(|token| ("continue", token)));
            }
            Ask::StreamedList => {
                query.append_pair("watch", "true");
                query.append_pair("sendInitialEvents", "true");
                query.append_pair("resourceVersionMatch", "NotOlderThan");
            }
            Ask::Watch { version } => {
                query.append_pair("watch", "true");
                query.append_pair("resourceVersion", version);
            }
        }
        if !matches!(ask, Ask::Page { .. }) {
            query.append_pair("allowWatchBookmarks", "true");
            query.append_pair("timeoutSeconds", &watch_s.to_string());
        }
        let (resource, query) = (self.kind.resource(), query.finish());
        match &self.namespace {
            Some(namespace) => format!("/api/v1/namespaces/{namespace}/{resource}?{query}"),
            None => format!("/api/v1/{resource}?{query}"),
        }
    }
}

/// Follows one scope.
struct Follower {
    scope: ScopeId,
    target: Target,
    wanted: Arc<Wanted>,
    session: Session,
    follow: Follow,
    /// When the present list, or the last one, began; its pages share its time.
    list_began: Instant,
    report: Report,
    signs: Signs,
}

impl Follower {
    async fn run(mut self, events: mpsc::Sender<Event>, resync: Arc<Notify>) {
        loop {
            let began = Instant::now();
            let watch_s = fastrand::u64(WATCH_S_MIN..=2 * WATCH_S_MIN);
            let verb = if matches!(self.follow.ask(), Ask::Page { .. }) { "list" } else { "watch" };
            let turn = self.turn(watch_s, &events, &resync).await;
            let (lasted, jitter) = (began.elapsed(), fastrand::f64());
            let wait = match turn {
                Ok(Turn::Next) => Duration::ZERO,
                Ok(Turn::Thin) => self.follow.thin(jitter),
                Ok(Turn::Ended) => self.follow.ended(lasted, Duration::from_secs(watch_s), jitter),
                Err(Stop::Failed(failure)) => {
                    let wait = self.follow.failed(&failure, lasted, jitter);
                    self.report.failed(verb, &failure, wait);
                    wait
                }
                Err(Stop::Closed) => return,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = events.closed() => return,
            }
        }
    }

    /// Asks once, and takes in the answer to its end.
    async fn turn(&mut self, watch_s: u64, events: &mpsc::Sender<Event>, resync: &Notify) -> Result<Turn, Stop> {
        let ask = self.follow.ask().clone();
        let path = self.target.path(&ask, watch_s);
        let body = tokio::select! {
            body = self.open(&path) => body?,
            () = events.closed() => return Err(Stop::Closed),
        };
        if self.follow.opened() {
            self.list_began = Instant::now();
            self.send(events, What::ListStarted).await?;
        }
        let list_by = self.list_began + LIST_TIME_MAX;
        match ask {
            Ask::Page { .. } => {
                let page = self.page(Documents::new(body, LIST_SILENCE_MAX, self.signs.clone()), events);
                timeout_at(list_by, page).await.unwrap_or_else(|_| Err(too_slow()))
            }
            Ask::StreamedList | Ask::Watch { .. } => self.watch(body, events, resync).await,
        }
    }

    async fn open(&self, path: &str) -> Result<Body, Stop> {
        tracing::debug!("GET {path}");
        let (head, body) = self.session.get(path).await?.into_parts();
        if head.status.is_success() {
            return Ok(body);
        }
        // Words about a failure are no progress, and the status line says enough without them.
        let said = Documents::new(body, LIST_SILENCE_MAX, Signs::default()).beginning(STATUS_BYTES_MAX).await;
        let said = said.unwrap_or_default();
        let mut status = wire::read_status(&said, &self.wanted);
        // The status line is what proxies and load balancers in between set, too.
        status.code = head.status.as_u16();
        let retry_after = head.headers.get(http::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        status.retry_after_s = status.retry_after_s.or(retry_after.and_then(|text| seconds(text, Timestamp::now())));
        Err(Stop::Failed(Failure::Status { status, in_stream: false }))
    }

    async fn page(&mut self, documents: Documents<Body>, events: &mpsc::Sender<Event>) -> Result<Turn, Stop> {
        let (objects, mut found) = mpsc::channel(OBJECTS_WAITING_MAX);
        let wanted = Arc::clone(&self.wanted);
        let reading =
            documents.whole(move |from| wire::read_page(from, &wanted, |found| objects.blocking_send(found).is_ok()));
        let passing_on = async {
            let mut count: u32 = 0;
            while let Some(found) = found.recv().await {
                self.send(events, applied(found)).await?;
                count += 1;
            }
            Ok::<_, Stop>(count)
        };
        let (end, count) = tokio::try_join!(async { reading.await.map_err(Stop::from) }, passing_on)?;
        let PageEnd { version, continue_token } = end;
        if self.follow.page(version, continue_token) {
            self.list_done(events).await?;
        } else if count < PAGE_OBJECTS {
            return Ok(Turn::Thin);
        }
        Ok(Turn::Next)
    }

    async fn watch(&mut self, body: Body, events: &mpsc::Sender<Event>, resync: &Notify) -> Result<Turn, Stop> {
        let silence_max = if self.follow.is_listing() { LIST_SILENCE_MAX } else { WATCH_SILENCE_MAX };
        let mut documents = Documents::new(body, silence_max, self.signs.clone());
        self.signs.watch_begun();
        let began = Instant::now();
        loop {
            let wanted = Arc::clone(&self.wanted);
            let event = tokio::select! {
                event = documents.line(move |from| wire::read_event(from, &wanted)) => event?,
                () = resync.notified(), if !self.follow.is_listing() => {
                    self.follow.relist();
                    return Ok(Turn::Next);
                }
                () = tokio::time::sleep_until(began + LIST_TIME_MAX), if self.follow.is_listing() => return Err(too_slow()),
                () = events.closed() => return Err(Stop::Closed),
            };
            match event {
                None if self.follow.is_listing() => {
                    let what = "the server ended the list before it was complete";
                    return Err(Stop::trouble(Trouble::Answer, &what));
                }
                None => return Ok(Turn::Ended),
                Some(WatchEvent::Error(status)) => {
                    return Err(Stop::Failed(Failure::Status { status, in_stream: true }));
                }
                Some(WatchEvent::Applied(found)) => {
                    self.follow.object(&found.version);
                    self.check_history()?;
                    self.send(events, applied(found)).await?;
                }
                Some(WatchEvent::Deleted { key, version }) => {
                    self.follow.object(&version);
                    self.check_history()?;
                    self.send(events, What::Delete(key)).await?;
                }
                Some(WatchEvent::Bookmark { version, initial_events_end }) => {
                    self.signs.bookmark();
                    if self.follow.bookmark(&version, initial_events_end) {
                        documents.set_silence_max(WATCH_SILENCE_MAX);
                        self.list_done(events).await?;
                    }
                    self.check_history()?;
                }
            }
            // One event is not yet an answer that lasts.
            if !self.follow.is_listing() && began.elapsed() >= STABLE {
                self.report.recovered();
            }
        }
    }

    /// An event of another history, or of the past, is not passed on: the list that follows has what is.
    fn check_history(&self) -> Result<(), Stop> {
        if self.follow.went_back() {
            let what = "the server's versions are smaller than before, so everything is listed anew";
            return Err(Stop::trouble(Trouble::History, &what));
        }
        Ok(())
    }

    async fn list_done(&mut self, events: &mpsc::Sender<Event>) -> Result<(), Closed> {
        self.report.recovered();
        self.send(events, What::ListDone).await
    }

    async fn send(&self, events: &mpsc::Sender<Event>, what: What) -> Result<(), Closed> {
        events.send(Event { scope: self.scope, what }).await.map_err(|_| Closed)
    }
}

/// What Retry-After says, in seconds from now: a number, or a date (RFC 9110, 10.2.3).
fn seconds(retry_after: &str, now: Timestamp) -> Option<u64> {
    let date = || jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(retry_after).ok();
    let until = || u64::try_from(date()?.as_second() - now.as_second()).ok();
    retry_after.parse().ok().or_else(until)
}

fn too_slow() -> Stop {
    Stop::trouble(Trouble::Silence, &format!("the list was not complete after {} s", LIST_TIME_MAX.as_secs()))
}

fn applied(found: Found) -> What {
    match found.object {
        Ok(object) => What::Apply(object),
        Err(Unusable { key, why }) => {
            let (kind, namespace, name) = key.fields();
            tracing::warn!(
                event = "unusable",
                kind,
                namespace,
                name,
                "{key} cannot be used, and its files stay as they are: {why}"
            );
            What::Keep(key)
        }
    }
}

/// An error with all that caused it, on one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        // Many errors repeat their cause in their own text.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
