//! Where the pipeline says what has become of an object, for its source to tell those who look at the object there: in a
//! cluster, by a Kubernetes Event.
//!
//! Nothing waits for that. What finds no room is dropped; what was told is never a content.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::event::{Event, What};
use crate::object::ObjectKey;
use crate::path::RelPath;
use crate::telemetry::{Announced, Telemetry};

/// How many announcements may wait for whoever tells them, who does not while the server is slow to answer.
pub(super) const ANNOUNCEMENTS_WAITING_MAX: usize = 256;

/// How long the last announcements may take, of a run that ends by itself.
const FAREWELL_MAX: Duration = Duration::from_secs(3);

/// What has become of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Files of it have changed on disk.
    Applied,
    /// It waits for a path that another object has.
    Conflict,
    /// It asks for a place that it cannot have.
    Refused,
    /// The check has not let it pass.
    CheckFailed,
    /// It was taken back, for the program that reads it says that it is bad.
    RolledBack,
}

impl Reason {
    /// As Events name it: in upper camel case, by their convention.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Applied => "Applied",
            Self::Conflict => "Conflict",
            Self::Refused => "Refused",
            Self::CheckFailed => "CheckFailed",
            Self::RolledBack => "RolledBack",
        }
    }
}

/// Something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    pub object: Arc<ObjectKey>,
    /// The object's, without which those who look at it do not find what is told of it.
    pub uid: Box<str>,
    pub reason: Reason,
    pub message: String,
}

/// The pipeline's end. The default one drops what it is told, and costs a comparison.
#[derive(Debug, Default)]
pub struct Announcer(Option<Desk>);

#[derive(Debug)]
struct Desk {
    queue: mpsc::Sender<Announcement>,
    /// Who tells what is in the queue, and ends with it.
    teller: JoinHandle<()>,
    uids: HashMap<Arc<ObjectKey>, Box<str>>,
    applied: BTreeMap<Arc<ObjectKey>, Applied>,
    is_full: bool,
    telemetry: Telemetry,
}

/// The files of an object that have changed since that was announced last.
#[derive(Debug, Default)]
struct Applied {
    written: usize,
    removed: usize,
    /// One of them.
    path: String,
}

impl Announcer {
    /// One whose queue is read by this task.
    pub(super) fn new(queue: mpsc::Sender<Announcement>, teller: JoinHandle<()>, telemetry: Telemetry) -> Self {
        let (uids, applied) = (HashMap::new(), BTreeMap::new());
        Self(Some(Desk { queue, teller, uids, applied, is_full: false, telemetry }))
    }

    /// An event is about to be taken. Of an object that is gone nothing is told.
    pub fn taking(&mut self, event: &Event) {
        let Some(desk) = &mut self.0 else { return };
        match &event.what {
            What::Apply(object) => {
                if let Some(uid) = &object.uid {
                    desk.uids.insert(Arc::clone(&object.key), uid.clone());
                }
            }
            What::Delete(key) => drop(desk.uids.remove(key)),
            What::ListStarted | What::Keep(_) | What::ListDone => {}
        }
    }

    /// A list is complete: other objects than those that are there are forgotten.
    pub fn keep(&mut self, is_there: impl Fn(&ObjectKey) -> bool) {
        if let Some(desk) = &mut self.0 {
            desk.uids.retain(|key, _| is_there(key));
        }
    }

    /// A file of an object has changed, which [`Announcer::announce_applied`] tells.
    pub fn changed(&mut self, object: &Arc<ObjectKey>, path: &RelPath, is_removed: bool) {
        let Some(desk) = &mut self.0 else { return };
        let applied = desk.applied.entry(Arc::clone(object)).or_default();
        *(if is_removed { &mut applied.removed } else { &mut applied.written }) += 1;
        if applied.path.is_empty() {
            path.as_str().clone_into(&mut applied.path);
        }
    }

    /// Announces what has changed in this directory, once for each object.
    pub fn announce_applied(&mut self, dir: &Path) {
        let Some(desk) = &mut self.0 else { return };
        for (object, applied) in std::mem::take(&mut desk.applied) {
            desk.announce(&object, Reason::Applied, || applied.text(dir));
        }
    }

    /// What has changed since that was announced last is not told: another announcement says why.
    pub fn withdraw_applied(&mut self) {
        self.0.iter_mut().for_each(|desk| desk.applied.clear());
    }

    /// An object waits for a path. The winner is named to those only who may look into its namespace anyway.
    pub fn conflict(&mut self, path: &RelPath, winner: &ObjectKey, loser: &Arc<ObjectKey>) {
        let whose = || {
            if winner.namespace == loser.namespace {
                winner.to_string()
            } else {
                "an object of another namespace".to_owned()
            }
        };
        self.announce(loser, Reason::Conflict, || {
            format!(
                "waits for {path}, which {} has; the older object wins, then kind, namespace and name decide",
                whose()
            )
        });
    }

    /// Something else has become of an object.
    pub fn tell(&mut self, object: &Arc<ObjectKey>, reason: Reason, why: &impl Display) {
        self.announce(object, reason, || why.to_string());
    }

    /// Waits until all is told, for a bounded time.
    pub async fn finish(self) {
        let Some(Desk { queue, teller, .. }) = self.0 else { return };
        drop(queue);
        if tokio::time::timeout(FAREWELL_MAX, teller).await.is_err() {
            tracing::warn!("the last Events could not be written in time");
        }
    }

    fn announce(&mut self, object: &Arc<ObjectKey>, reason: Reason, message: impl FnOnce() -> String) {
        if let Some(desk) = &mut self.0 {
            desk.announce(object, reason, message);
        }
    }
}

impl Desk {
    fn announce(&mut self, object: &Arc<ObjectKey>, reason: Reason, message: impl FnOnce() -> String) {
        let Some(uid) = self.uids.get(object) else { return };
        let (object, uid) = (Arc::clone(object), uid.clone());
        let is_full = self.queue.try_send(Announcement { object, uid, reason, message: message() }).is_err();
        if is_full {
            self.telemetry.announced(Announced::Dropped);
        }
        if is_full && !self.is_full {
            tracing::warn!("more is to be told by Events than can be: some are dropped; no file waits for them");
        }
        self.is_full = is_full;
    }
}

impl Applied {
    fn text(&self, dir: &Path) -> String {
        let dir = dir.display();
        match (self.written, self.removed) {
            (1, 0) => format!("wrote {} in {dir}", self.path),
            (0, 1) => format!("removed {} in {dir}", self.path),
            (written, 0) => format!("wrote {written} files in {dir}"),
            (0, removed) => format!("removed {removed} files in {dir}"),
            (written, removed) => format!("wrote {written} and removed {removed} files in {dir}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Kind, Object};

    fn key(namespace: &str, name: &str) -> Arc<ObjectKey> {
        Arc::new(ObjectKey { kind: Kind::ConfigMap, namespace: namespace.into(), name: name.into() })
    }

    fn path(text: &str) -> RelPath {
        RelPath::parse(text).expect("a path")
    }

    /// Follows an object of this name.
    fn follow(announcer: &mut Announcer, key: &Arc<ObjectKey>) {
        let (key, uid) = (Arc::clone(key), Some("uid".into()));
        let object = Object { key, resource_version: None, uid, created: None, folder: None, entries: Vec::new() };
        announcer.taking(&Event { scope: 0, what: What::Apply(object) });
    }

    fn announcer(room: usize) -> (Announcer, mpsc::Receiver<Announcement>) {
        let (sender, receiver) = mpsc::channel(room);
        (Announcer::new(sender, tokio::spawn(std::future::pending()), Telemetry::default()), receiver)
    }

    #[tokio::test]
    async fn the_changes_of_an_object_are_one_announcement() {
        let (mut announcer, mut queue) = announcer(8);
        for (files, expected) in [
            (&[("a", false)][..], "wrote a in /dir"),
            (&[("a", true)], "removed a in /dir"),
            (&[("a", false), ("b", false)], "wrote 2 files in /dir"),
            (&[("a", false), ("b", true)], "wrote 1 and removed 1 files in /dir"),
        ] {
            follow(&mut announcer, &key("ns", "x"));
            files.iter().for_each(|(name, is_removed)| announcer.changed(&key("ns", "x"), &path(name), *is_removed));
            announcer.announce_applied(Path::new("/dir"));
            assert_eq!(queue.recv().await.expect("an announcement").message, expected);
        }
        announcer.announce_applied(Path::new("/dir"));
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn of_an_object_that_is_gone_nothing_is_told() {
        let (mut announcer, queue) = announcer(8);
        for name in ["deleted", "missing"] {
            follow(&mut announcer, &key("ns", name));
        }
        announcer.taking(&Event { scope: 0, what: What::Delete(key("ns", "deleted")) });
        announcer.keep(|key| key.name != "missing");
        for name in ["deleted", "missing", "unknown"] {
            announcer.tell(&key("ns", name), Reason::Refused, &"why");
        }
        assert!(queue.is_empty());
    }

    #[tokio::test]
    async fn an_object_of_another_namespace_is_not_named() {
        let (mut announcer, mut queue) = announcer(8);
        let loser = key("ns", "loser");
        follow(&mut announcer, &loser);
        for (winner, is_named) in [(key("ns", "winner"), true), (key("private", "winner"), false)] {
            announcer.conflict(&path("a"), &winner, &loser);
            let message = queue.recv().await.expect("an announcement").message;
            assert_eq!(message.contains("ns/winner"), is_named, "{message}");
            assert!(!message.contains("private"), "{message}");
        }
    }

    #[tokio::test]
    async fn what_finds_no_room_is_dropped_at_once() {
        let (mut announcer, mut queue) = announcer(1);
        follow(&mut announcer, &key("ns", "x"));
        for number in 0..3 {
            announcer.tell(&key("ns", "x"), Reason::Refused, &number);
        }
        assert_eq!(queue.recv().await.map(|it| it.message).as_deref(), Some("0"));
        assert!(queue.is_empty());
    }
}
