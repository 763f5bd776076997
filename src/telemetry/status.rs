//! How far each object is, and `/status`, which shows that.
//!
//! A list of thousands of objects is written piece by piece, as the client takes it; so it is not whole in memory, and each
//! object is shown as it is at that moment.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Serializer, json};
use tokio::time::Instant;

use super::{Conflict, Done, Hold, Picture, Shared};
use crate::object::ObjectKey;

/// How many bytes of objects are written at a time, but for what the last of them has too many.
const PIECE_BYTES: usize = 16 * 1024;

/// A state of an object: its `resourceVersion`, or its number in this run if it has none, as in manifests.
type Version = Arc<str>;

/// Every object that a source has reported and not taken back.
#[derive(Debug, Default)]
pub(super) struct Objects {
    by_key: BTreeMap<Arc<ObjectKey>, Stages>,
    /// Whether anybody is to be told of changes.
    bumped: bool,
    /// Whether something is to be told that no object has to do with.
    owed: bool,
}

/// How far an object is.
#[derive(Debug, Default)]
struct Stages {
    seen: Option<Version>,
    /// On disk, or aside if another object has its place.
    written: Option<Version>,
    /// Waiting to go live with others.
    waiting: Option<Version>,
    /// On disk when the present bump began.
    telling: Option<Version>,
    /// Known to whoever is told of changes.
    bumped: Option<Version>,
    /// Why it cannot have a place that it asks for.
    refused: Option<String>,
}

impl Objects {
    pub fn seen(&mut self, key: &Arc<ObjectKey>, version: Option<&str>) {
        let stages = self.by_key.entry(Arc::clone(key)).or_default();
        if version.is_some() && stages.seen.as_deref() == version {
            return;
        }
        stages.refused = None;
        let number = || stages.seen.as_deref().and_then(|seen| seen.parse().ok()).unwrap_or(0_u64) + 1;
        stages.seen = Some(version.map_or_else(|| number().to_string().into(), Version::from));
    }

    /// It is there, in no state that could be used, or in the last one.
    pub fn kept(&mut self, key: &Arc<ObjectKey>) {
        self.by_key.entry(Arc::clone(key)).or_default();
    }

    pub fn refused(&mut self, key: &ObjectKey, why: String) {
        if let Some(stages) = self.by_key.get_mut(key) {
            stages.refused = Some(why);
        }
    }

    /// What was seen of it is done, as far as this says.
    pub fn taken(&mut self, key: &ObjectKey, done: Done) {
        let needs_no_bump = self.needs_no_bump(done.touched);
        match self.by_key.get_mut(key) {
            Some(stages) if done.failed => stages.waiting = None,
            Some(stages) if done.staged || stages.waiting.is_some() => stages.waiting.clone_from(&stages.seen),
            Some(stages) => stages.write(stages.seen.clone(), needs_no_bump),
            None => {}
        }
    }

    /// What waits no more is live.
    pub fn gone_live(&mut self, staged: &BTreeSet<Arc<ObjectKey>>, touched: &BTreeSet<Arc<ObjectKey>>) {
        let needs_no_bump = [false, true].map(|touched| self.needs_no_bump(touched));
        for (key, stages) in self.by_key.iter_mut().filter(|(key, _)| !staged.contains(*key)) {
            if let Some(version) = stages.waiting.take() {
                stages.write(Some(version), needs_no_bump[usize::from(touched.contains(key))]);
            }
        }
    }

    /// What is live again of those that wait again is what all had been told of last.
    pub fn taken_back(&mut self, staged: &BTreeSet<Arc<ObjectKey>>) {
        for (_, stages) in self.by_key.iter_mut().filter(|(key, _)| staged.contains(*key)) {
            if stages.waiting.is_none() {
                stages.waiting = std::mem::replace(&mut stages.written, stages.bumped.clone());
                stages.telling.clone_from(&stages.written);
            }
        }
    }

    /// Whether who knows all that was before knows this, too.
    fn needs_no_bump(&self, touched: bool) -> bool {
        self.bumped && !self.owed && !touched
    }

    pub fn forget(&mut self, key: &ObjectKey) {
        self.by_key.remove(key);
    }

    pub fn retain(&mut self, held: impl Fn(&ObjectKey) -> bool) {
        self.by_key.retain(|key, _| held(key));
    }

    /// There is somebody to tell.
    pub fn are_bumped(&mut self) {
        self.bumped = true;
    }

    /// There is something to tell besides.
    pub fn owe_a_bump(&mut self) {
        self.owed = true;
    }

    pub fn telling(&mut self) {
        self.by_key.values_mut().for_each(|stages| stages.telling.clone_from(&stages.written));
    }

    pub fn told(&mut self) {
        self.owed = false;
        self.by_key.values_mut().for_each(|stages| stages.bumped.clone_from(&stages.telling));
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    pub fn refused_count(&self) -> usize {
        self.by_key.values().filter(|stages| stages.refused.is_some()).count()
    }

    /// The objects after this one as elements of a JSON array, and the last of them; nothing if there is none.
    fn piece(&self, after: Option<&Arc<ObjectKey>>) -> Option<(Vec<u8>, Arc<ObjectKey>)> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let (mut bytes, mut last) = (Vec::new(), None);
        for (key, stages) in self.by_key.range::<Arc<ObjectKey>, _>((from, Bound::Unbounded)) {
            let separator: &[u8] = if after.is_some() || last.is_some() { b",\n" } else { b"\n" };
            bytes.extend_from_slice(separator);
            append(&mut bytes, &Line::new(key, stages));
            last = Some(key);
            if bytes.len() >= PIECE_BYTES {
                break;
            }
        }
        Some((bytes, Arc::clone(last?)))
    }
}

impl Stages {
    fn write(&mut self, version: Option<Version>, needs_no_bump: bool) {
        let before = std::mem::replace(&mut self.written, version);
        for known in [&mut self.telling, &mut self.bumped] {
            if needs_no_bump && *known == before {
                known.clone_from(&self.written);
            }
        }
    }
}

/// An object in `/status`.
#[derive(Serialize)]
struct Line<'a> {
    kind: &'static str,
    namespace: &'a str,
    name: &'a str,
    seen: Option<&'a str>,
    written: Option<&'a str>,
    bumped: Option<&'a str>,
    refused: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn new(key: &'a ObjectKey, stages: &'a Stages) -> Self {
        Self {
            kind: key.kind.name(),
            namespace: &key.namespace,
            name: &key.name,
            seen: stages.seen.as_deref(),
            written: stages.written.as_deref(),
            bumped: stages.bumped.as_deref(),
            refused: stages.refused.as_deref(),
        }
    }
}

/// `/status`, piece by piece.
#[derive(Debug)]
pub(super) struct Pages {
    shared: Arc<Shared>,
    /// What comes before the objects, until that is taken.
    head: Option<Vec<u8>>,
    /// The last object that was written.
    last: Option<Arc<ObjectKey>>,
    /// Whether the end was written.
    over: bool,
}

impl Pages {
    pub fn new(shared: Arc<Shared>, picture: &Picture) -> Self {
        let head = Some(shared.head(picture));
        Self { shared, head, last: None, over: false }
    }
}

impl Iterator for Pages {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        if self.head.is_some() {
            return self.head.take();
        }
        if self.over {
            return None;
        }
        let piece = self.shared.state().objects.piece(self.last.as_ref());
        let Some((bytes, last)) = piece else {
            self.over = true;
            return Some(b"\n]}\n".to_vec());
        };
        self.last = Some(last);
        Some(bytes)
    }
}

impl Shared {
    /// Everything but the objects, up to where they begin.
    fn head(&self, picture: &Picture) -> Vec<u8> {
        let (now, clock) = (Instant::now(), SystemTime::now());
        let at = |moment: Instant| rfc3339(clock - now.saturating_duration_since(moment));
        let state = self.state();
        let health = &state.health;
        let scopes = health.scopes().iter().map(|following| {
            json!({
                "scope": following.scope.to_string(),
                "listed": following.listed,
                "lastProgress": following.progress.map(at),
                "failure": following.failure,
            })
        });
        let conflict = |Conflict { path, winner, loser }: &Conflict| json!({ "path": path.as_str(), "winner": winner.to_string(), "loser": loser.to_string() });
        let hold =
            |Hold { object, why, output }: &Hold| json!({ "object": object.to_string(), "why": why, "output": output });
        let recent = self.recent.lines();
        let errors = recent.iter().map(|line| json!({ "time": rfc3339(line.time), "message": line.message }));
        let (dead, unready) = (health.dead(now), health.unready());
        let fields = [
            ("version", json!(env!("CARGO_PKG_VERSION"))),
            ("live", json!({ "ok": dead.is_empty(), "why": dead })),
            ("ready", json!({ "ok": unready.is_empty(), "why": unready })),
            ("scopes", scopes.collect()),
            ("files", json!(picture.files)),
            ("lastSync", json!(state.last_sync.map(rfc3339))),
            ("failedChange", json!(health.failed_change())),
            ("bumpPending", json!(picture.bump_pending)),
            ("lastBump", json!(state.last_bump.map(rfc3339))),
            ("failedBump", json!(health.failed_bump())),
            ("conflictCount", json!(picture.conflicts)),
            ("conflicts", picture.first_conflicts.iter().map(conflict).collect()),
            ("heldObjectCount", json!(picture.held_objects)),
            ("heldRemovalCount", json!(picture.held_removals)),
            ("waits", json!(picture.waits)),
            ("holds", picture.first_holds.iter().map(hold).collect()),
            ("errors", errors.collect()),
        ];
        let mut bytes = b"{".to_vec();
        for (name, value) in fields {
            bytes.extend_from_slice(format!("\"{name}\":{value},\n").as_bytes());
        }
        bytes.extend_from_slice(b"\"objects\":[");
        bytes
    }
}

fn append(bytes: &mut Vec<u8>, line: &Line<'_>) {
    let start = bytes.len();
    if line.serialize(&mut Serializer::new(&mut *bytes)).is_err() {
        // A string and memory: there is nothing to fail. An array of nothing is still an array.
        bytes.truncate(start);
        bytes.extend_from_slice(b"null");
    }
}

fn rfc3339(time: SystemTime) -> Option<String> {
    jiff::Timestamp::try_from(time).ok().map(|time| format!("{time:.3}"))
}
