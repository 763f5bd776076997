//! The pipeline against a model of the contract: random changes of a small world, seen and missed, with kills and disk failures
//! at any step on disk, a program that refuses files, the deletion guard, and a namespace that is forbidden for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::{Index, subsequence};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::bump::governor::Pace;
use crate::config::{Layout, Prune};
use crate::content::Modes;
use crate::disk::crash;
use crate::object::{Entry, Kind, Object, ObjectKey};
use crate::path::OWN_FOLDER;
use crate::publish::brake::BrakeConfig;
use crate::publish::check::{CheckConfig, Refusal, Verdict};
use crate::store::Publishing;
use crate::telemetry::{Format, Level};

const MODES: Modes = Modes { config_map: 0o644, secret: 0o640 };

/// A content: one byte, so often. A mixture of two shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Value {
    byte: u8,
    len: usize,
}

impl Value {
    fn bytes(self) -> Vec<u8> {
        vec![self.byte; self.len]
    }

    fn of(bytes: &[u8], path: &Path) -> Self {
        let byte = bytes.first().copied().unwrap_or_default();
        assert!(bytes.iter().all(|other| *other == byte), "{} holds a mixture", path.display());
        Self { byte, len: bytes.len() }
    }
}

/// The model's check rejects files with this byte.
const BAD: u8 = 255;

/// The model's program refuses files with this byte.
const REFUSED: u8 = 254;

/// How long the deletion guard holds removals.
const HOLD: Duration = Duration::from_secs(300);

/// How often the program may be bumped after one change before the test fails.
const BUMPS_MAX: usize = 20;

/// The namespaces that are followed, each by a scope of its own. The second is forbidden for a while.
const NAMESPACES: [&str; 2] = ["a", "b"];

/// How changes go live in one run.
type Way = Option<Publishing>;

const FILES: Way = Some(Publishing { set: false, keeps_good: false });
const SET: Way = Some(Publishing { set: true, keeps_good: false });

/// What an object of the world is like.
#[derive(Clone, Debug, PartialEq)]
struct State {
    created: Option<i64>,
    folder: Option<&'static str>,
    values: BTreeMap<&'static str, Value>,
}

#[derive(Clone, Debug)]
enum Op {
    /// An object comes or changes; `seen`: the watch reports it.
    Put { name: &'static str, state: State, seen: bool },
    /// An object is deleted, or loses its label.
    Delete { name: &'static str, seen: bool },
    /// An object gets the state again that it had before its last change.
    Revert { name: &'static str, seen: bool },
    /// Some of these changes come as one batch.
    Burst { ops: Vec<Op> },
    /// The second namespace cannot be read, or can be read again.
    Forbid { forbidden: bool },
    /// The same; then the hold of the deletion guard passes, and each scope answers that can.
    Wait { forbidden: bool },
    /// A list that is completed, its objects in this order.
    List { order: Vec<usize> },
    /// A list that breaks off after some of its objects.
    BrokenList { order: Vec<usize>, len: Index },
    /// Somebody else writes a file, or changes one of configbump's.
    Foreign { path: &'static str, value: Value },
    /// Somebody else removes whatever file is there.
    Vanish { path: &'static str },
    /// The process is killed after this many steps on disk from here, and started again, perhaps in another way.
    Kill { after: u32, way: Way },
    /// From after this many steps the disk fails, until the next operation.
    Fail { after: u32 },
}

/// The first two are in the first namespace.
const NAMES: [&str; 4] = ["n0", "n1", "n2", "n3"];

fn state() -> impl Strategy<Value = State> {
    let value = (
        prop_oneof![9 => any::<u8>(), 1 => Just(BAD), 2 => Just(REFUSED)],
        prop_oneof![Just(0_usize), 1..40_usize, Just(4097), Just(20_000)],
    )
        .prop_map(|(byte, len)| Value { byte: if len == 0 { 0 } else { byte }, len });
    let values = subsequence(vec!["a", "b", "c", "..", "x/y"], 0..=4);
    let created = prop_oneof![Just(None), (1..3_i64).prop_map(Some)];
    let folder = prop::sample::select(&[None, None, Some("a"), Some("d"), Some("d/e")][..]);
    (created, folder, values, prop::collection::vec(value, 5)).prop_map(|(created, folder, keys, values)| State {
        created,
        folder,
        values: keys.into_iter().zip(values).collect(),
    })
}

/// A change of an object.
fn change() -> impl Strategy<Value = Op> {
    let name = || prop::sample::select(&NAMES[..]);
    let seen = || prop::bool::weighted(0.8);
    prop_oneof![
        8 => (name(), state(), seen()).prop_map(|(name, state, seen)| Op::Put { name, state, seen }),
        3 => (name(), seen()).prop_map(|(name, seen)| Op::Delete { name, seen }),
        2 => (name(), seen()).prop_map(|(name, seen)| Op::Revert { name, seen }),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let order = || Just((0..NAMES.len()).collect::<Vec<_>>()).prop_shuffle();
    // No object needs one of these as a folder, nor a folder above it as a file: that would be in its way for ever.
    let foreign = prop::sample::select(&["b", "c", "zz", "d/a", "d/e/b"][..]);
    let path = prop::sample::select(&["a", "b", "c", "zz", "d/a", "d/e/b", "a/c"][..]);
    prop_oneof![
        11 => change(),
        5 => prop::collection::vec(change(), 2..5).prop_map(|ops| Op::Burst { ops }),
        // Many removals at once, which the guard holds.
        2 => subsequence(NAMES.to_vec(), 2..=4).prop_map(|names| Op::Burst {
            ops: names.into_iter().map(|name| Op::Delete { name, seen: true }).collect(),
        }),
        3 => any::<bool>().prop_map(|forbidden| Op::Wait { forbidden }),
        1 => any::<bool>().prop_map(|forbidden| Op::Forbid { forbidden }),
        3 => order().prop_map(|order| Op::List { order }),
        1 => (order(), any::<Index>()).prop_map(|(order, len)| Op::BrokenList { order, len }),
        // A file of others that the check refuses would have it refuse everything for as long as it stays.
        1 => (foreign, 0..REFUSED).prop_map(|(path, byte)| Op::Foreign { path, value: Value { byte, len: 3 } }),
        1 => path.prop_map(|path| Op::Vanish { path }),
        2 => (0..60_u32, way()).prop_map(|(after, way)| Op::Kill { after, way }),
        1 => (0..60_u32).prop_map(|after| Op::Fail { after }),
    ]
}

fn way() -> impl Strategy<Value = Way> {
    prop::sample::select(&[None, FILES, SET, SET][..])
}

/// What stays the same over restarts.
#[derive(Clone, Copy, Debug)]
struct Options {
    prune: Prune,
    /// Whether what is published together is checked.
    checks: bool,
    /// Whether a program reads the files and may refuse them.
    refuses: bool,
    /// The share of the files that the deletion guard lets go at once.
    guard: Option<f64>,
}

fn options() -> impl Strategy<Value = Options> {
    let prune = prop::sample::select(&[Prune::Owned, Prune::Owned, Prune::All, Prune::Never][..]);
    let guard = prop::sample::select(&[None, Some(0.3), Some(0.5)][..]);
    (prune, any::<bool>(), any::<bool>(), guard).prop_map(|(prune, checks, refuses, guard)| Options {
        prune,
        checks,
        refuses,
        guard: guard.filter(|_| prune != Prune::Never),
    })
}

/// The files that configbump still keeps, and those of them that the source was asked about.
#[derive(Debug, Default)]
struct Kept {
    files: BTreeSet<RelPath>,
    asked: BTreeSet<RelPath>,
}

/// The directory, the world, and what the directory may hold because of it.
struct Model<'c> {
    clock: &'c Runtime,
    dir: TempDir,
    options: Options,
    way: Way,
    /// The files of every tree that was to go live.
    trees: BTreeSet<BTreeMap<PathBuf, Value>>,
    pipeline: Option<Pipeline>,
    world: BTreeMap<&'static str, State>,
    /// The state of each object before its last change.
    history: BTreeMap<&'static str, Option<State>>,
    /// The state of each object that was reported last, since the start.
    placed: BTreeMap<&'static str, State>,
    /// Files that configbump has never had a reason to touch.
    foreign: BTreeMap<PathBuf, Value>,
    /// Whether everything was reported, done, and left alone since.
    settled: bool,
    /// Whether the directory is in step with what was reported, whatever the world is like by now.
    in_step: bool,
    /// The scopes that answer: the second one is forbidden for a while.
    readable: &'static [ScopeId],
    /// What was kept after the last publish.
    kept: Kept,
    /// Whether the disk has failed since the start.
    disk_failed: bool,
    /// Every value that was ever given, by path.
    given: BTreeSet<(PathBuf, Value)>,
}

impl<'c> Model<'c> {
    fn new(options: Options, way: Way, clock: &'c Runtime) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut model = Self {
            clock,
            dir,
            options,
            way,
            trees: BTreeSet::new(),
            pipeline: None,
            world: BTreeMap::new(),
            history: BTreeMap::new(),
            placed: BTreeMap::new(),
            foreign: BTreeMap::new(),
            settled: false,
            in_step: false,
            readable: &[0, 1],
            kept: Kept::default(),
            disk_failed: false,
            given: BTreeSet::new(),
        };
        model.start();
        model
    }

    fn start(&mut self) {
        self.pipeline = None;
        // What was never checked may be bad, and stays.
        if self.options.checks || self.options.refuses {
            self.way = self.way.or(FILES);
        }
        self.way.iter_mut().for_each(|publishing| publishing.keeps_good = self.options.refuses);
        let mut store =
            Store::open(self.dir.path(), MODES, self.options.prune, self.way).expect("the directory can be opened");
        if self.options.refuses {
            store.tell_of_changes();
        }
        self.trees.insert(self.live_tree());
        let scope = |namespace: &str| Scope { kind: None, namespace: Some(namespace.to_owned()), name: None };
        // The model runs the check itself.
        let check = CheckConfig { command: Vec::new(), dir: PathBuf::new(), timeout: Duration::ZERO };
        let pace = Pace { settle: Duration::ZERO, settle_max: Duration::ZERO, min_interval: Duration::ZERO };
        let publisher = self.way.map(|_| Publisher::new(Some(check), pace));
        let guard = self.options.guard.map(|share_max| BrakeConfig { share_max, hold: HOLD });
        let removals = Removals::new(guard, pace);
        let (dir, first_sync) = (self.dir.path(), FirstSync::begin(Format::Json, Level::Error));
        let scopes = NAMESPACES.map(scope).to_vec();
        let places = Places::new(Layout::Flat, &[Kind::ConfigMap], dir);
        self.pipeline = Some(Pipeline::new(store, places, dir, scopes, publisher, removals, first_sync));
        self.placed.clear();
        self.settled = false;
        self.in_step = false;
        self.disk_failed = false;
        self.kept = self.kept();
    }

    fn take(&mut self, scope: ScopeId, what: What) {
        if let Some(pipeline) = &mut self.pipeline {
            pipeline.take(Event { scope, what });
        }
    }

    /// Carries out the removals that may be, has everything go live that may, and bumps the program.
    fn publish(&mut self) {
        self.release();
        self.go_live();
        self.check_guard();
        if self.options.refuses {
            self.bump();
        }
        self.kept = self.kept();
    }

    fn release(&mut self) {
        let Some(pipeline) = &mut self.pipeline else { return };
        if pipeline.removals.has_brake() && pipeline.resync.is_settled() {
            pipeline.release_removals();
        }
    }

    fn go_live(&mut self) {
        let Some(pipeline) = &mut self.pipeline else { return };
        for _ in 0..3 {
            if !pipeline.is_complete() || pipeline.publisher.iter().all(Publisher::is_at_rest) {
                return;
            }
            let mut to_check = pipeline.publish(Due::Begin);
            while let Some(tree) = to_check {
                let mut files = BTreeMap::new();
                read(&tree, Path::new(""), &mut files);
                let is_bad = self.options.checks && files.values().any(|value| value.byte == BAD);
                self.trees.insert(files);
                let verdict = if is_bad { Verdict::Refused(Refusal::default()) } else { Verdict::Passed };
                to_check = pipeline.publish(Due::Checked(verdict));
            }
        }
    }

    /// Bumps the program until it accepts the files, or refuses those that it accepted before.
    fn bump(&mut self) {
        for _ in 0..BUMPS_MAX {
            let is_refused = self.files().values().any(|value| value.byte == REFUSED);
            let Some(pipeline) = self.pipeline.as_mut().filter(|pipeline| pipeline.store.is_untold()) else { return };
            if !is_refused {
                // A failure is the disk's, and the bump is repeated with the next change.
                let _ = pipeline.store.told();
                return;
            }
            if !pipeline.store.has_way_back() {
                return;
            }
            pipeline.roll_back();
            self.go_live();
            if self.disk_failed {
                return;
            }
        }
        panic!("the program is bumped again and again, though nothing changes");
    }

    /// The files that are configbump's and stay for now: an object wants them, or the guard has not let them go.
    fn kept(&self) -> Kept {
        let Some(pipeline) = &self.pipeline else { return Kept::default() };
        let waits = |path: &RelPath| pipeline.removals.paths().any(|waiting| waiting == path);
        let owned = pipeline.store.owned().map(|(path, _)| path);
        let files = owned.filter(|path| pipeline.plan.is_live(path) || waits(path)).cloned().collect();
        Kept { files, asked: pipeline.removals.asked().cloned().collect() }
    }

    /// Checks that the guard has judged each removal since the last publish.
    fn check_guard(&self) {
        let (Some(share_max), Some(pipeline)) = (self.options.guard, &self.pipeline) else { return };
        if self.disk_failed {
            return;
        }
        let waits = |path: &RelPath| pipeline.removals.paths().any(|waiting| waiting == path);
        let is_kept = |path: &RelPath| pipeline.plan.is_live(path) || waits(path);
        let gone = self.kept.files.iter().filter(|path| !self.kept.asked.contains(*path) && !is_kept(path)).count();
        let files = pipeline.plan.counts().0 + gone;
        let number = |count: usize| u32::try_from(count).map_or(f64::INFINITY, f64::from);
        let is_too_many = gone > 0 && (gone == files || number(gone) > share_max * number(files));
        assert!(!is_too_many, "{gone} of {files} files were removed without a hold");
    }

    /// The files of the tree that a set has live.
    fn live_tree(&self) -> BTreeMap<PathBuf, Value> {
        let mut files = BTreeMap::new();
        if self.is_set() {
            read(&self.dir.path().join("..data"), Path::new(""), &mut files);
        }
        files
    }

    fn is_set(&self) -> bool {
        self.way.is_some_and(|publishing| publishing.set)
    }

    fn report(&mut self, name: &'static str) {
        let Some(state) = self.world.get(name).cloned() else { return };
        let Some(pipeline) = &self.pipeline else { return };
        let spool = pipeline.store.spool();
        let entry = |(key, value): (&&str, &Value)| Entry {
            key: (*key).to_owned(),
            content: spool.content(Kind::ConfigMap, &value.bytes()),
        };
        let object = Object {
            key: key(name),
            resource_version: None,
            uid: None,
            created: state.created,
            folder: state.folder.map(str::to_owned),
            entries: state.values.iter().map(entry).collect(),
        };
        self.given.extend(paths(&state).map(|(path, value)| (path.into(), *value)));
        self.placed.insert(name, state);
        self.take(scope_of(name), What::Apply(object));
    }

    fn forget(&mut self, name: &'static str) {
        self.placed.remove(name);
        self.take(scope_of(name), What::Delete(key(name)));
    }

    /// Lists everything, and again if that brought failures to light: what could not be kept aside is missed only when it
    /// is needed.
    fn list(&mut self, order: &[usize]) {
        for _ in 0..3 {
            if let Some(pipeline) = &mut self.pipeline {
                pipeline.retry();
            }
            self.list_once(order);
            if self.pipeline.as_ref().is_some_and(Pipeline::is_settled) {
                break;
            }
        }
    }

    /// Whether neither the check nor the program has a reason to refuse what is wanted.
    fn is_all_good(&self) -> bool {
        let Options { checks, refuses, .. } = self.options;
        let is_bad = |value: &Value| checks && value.byte == BAD || refuses && value.byte == REFUSED;
        !self.placed.values().flat_map(|state| state.values.values()).any(is_bad)
    }

    fn list_once(&mut self, order: &[usize]) {
        for scope in self.readable {
            self.list_scope(*scope, order);
        }
    }

    fn list_scope(&mut self, scope: ScopeId, order: &[usize]) {
        self.take(scope, What::ListStarted);
        names_of(scope, order).for_each(|name| self.report(name));
        self.placed.retain(|name, _| scope_of(name) != scope || self.world.contains_key(name));
        self.take(scope, What::ListDone);
        self.publish();
    }

    /// The hold passes, and the readable scopes confirm what they still say. The answer may bring removals of its own.
    fn wait(&mut self) {
        for _ in 0..2 {
            self.clock.block_on(tokio::time::advance(HOLD));
            self.publish();
            self.list_once(&[0, 1, 2, 3]);
        }
        let Some(pipeline) = self.pipeline.as_ref().filter(|_| !self.disk_failed) else { return };
        let of_readable = |owner: &ObjectKey| self.readable.iter().any(|scope| NAMESPACES[*scope] == owner.namespace);
        let waiting: Vec<_> = pipeline.removals.waiting().filter(|(_, owner)| of_readable(owner)).collect();
        assert!(!pipeline.plan.in_sync() || waiting.is_empty(), "{waiting:?} wait after the hold");
    }

    fn run(&mut self, op: Op) {
        self.run_unpublished(op);
        self.publish();
    }

    fn run_unpublished(&mut self, op: Op) {
        match op {
            Op::Put { name, state, seen } => self.set(name, Some(state), seen),
            Op::Delete { name, seen } => self.set(name, None, seen),
            Op::Revert { name, seen } => {
                let before = self.history.get(name).cloned().flatten();
                self.set(name, before, seen);
            }
            Op::Burst { ops } => ops.into_iter().for_each(|op| self.run_unpublished(op)),
            Op::Wait { forbidden } => {
                self.readable = readable(forbidden);
                self.wait();
            }
            Op::Forbid { forbidden } => self.readable = readable(forbidden),
            Op::List { order } => {
                self.list(&order);
                self.settled = self.readable.len() == NAMESPACES.len();
                self.in_step |= self.settled;
            }
            Op::BrokenList { order, len } => {
                let (before, settled) = (self.files(), self.settled);
                for scope in self.readable {
                    self.take(*scope, What::ListStarted);
                }
                for name in order[..len.index(order.len())].iter().map(|at| NAMES[*at]) {
                    if self.readable.contains(&scope_of(name)) {
                        self.report(name);
                    }
                }
                if settled {
                    assert_eq!(self.files(), before, "a list that breaks off changes nothing that was in step");
                }
            }
            Op::Foreign { path, value } => self.plant(path, Some(value)),
            Op::Vanish { path } => self.plant(path, None),
            Op::Kill { .. } | Op::Fail { .. } => unreachable!("they concern the operation that follows"),
        }
    }

    /// An object is like this from now on; `None`: there is none.
    fn set(&mut self, name: &'static str, state: Option<State>, seen: bool) {
        let seen = seen && self.readable.contains(&scope_of(name));
        let before = match state {
            Some(state) => self.world.insert(name, state),
            None => self.world.remove(name),
        };
        self.history.insert(name, before);
        match self.world.contains_key(name) {
            _ if !seen => self.settled = false,
            true => self.report(name),
            false => self.forget(name),
        }
    }

    /// Somebody else's file, or none, is at a path from now on; unless a folder is in the way.
    fn plant(&mut self, path: &'static str, value: Option<Value>) {
        let at = self.dir.path().join(path);
        if at.is_dir() || !at.parent().is_some_and(Path::is_dir) {
            return;
        }
        self.settled = false;
        self.in_step = false;
        match value {
            Some(value) => {
                // What is one of a tree's files as well is not written into.
                if self.way.is_some() {
                    let _ = fs::remove_file(&at);
                }
                fs::write(&at, value.bytes()).expect("a file can be planted");
                self.given.insert((path.into(), value));
                self.foreign.insert(path.into(), value);
            }
            None => {
                let _ = fs::remove_file(&at);
                self.foreign.remove(Path::new(path));
            }
        }
    }

    /// Every file below the directory but configbump's own.
    fn files(&self) -> BTreeMap<PathBuf, Value> {
        let mut files = BTreeMap::new();
        read(self.dir.path(), Path::new(""), &mut files);
        files
    }

    /// What changes of a file when it is written anew: its inode.
    fn stamps(&self) -> BTreeMap<PathBuf, u64> {
        let inode = |path: &PathBuf| fs::metadata(self.dir.path().join(path)).expect("a file has metadata").ino();
        self.files().into_keys().map(|path| (path.clone(), inode(&path))).collect()
    }

    /// Does it, and checks that nothing that is wanted before and after is missing, and nothing written that was right.
    fn run_checked(&mut self, op: Op) {
        let was_settled = self.settled;
        let by_others = matches!(op, Op::Foreign { .. } | Op::Vanish { .. });
        let is_burst = matches!(op, Op::Burst { .. });
        let (wanted, files, stamps) = (winners(&self.placed), self.files(), self.stamps());
        self.run(op);
        self.check_always();
        // Where the last that was told is out of date, a file may come and go before all is told.
        if by_others || is_burst || !was_settled {
            return;
        }
        let (wanted_now, files_now, stamps_now) = (winners(&self.placed), self.files(), self.stamps());
        let blocks = |path: &PathBuf, wanted: &PathBuf| wanted.starts_with(path) || path.starts_with(wanted);
        for (path, value) in files {
            let may_go = self.options.prune != Prune::Never || wanted_now.keys().any(|wanted| blocks(&path, wanted));
            assert!(may_go || files_now.contains_key(&path), "{} was removed with --prune never", path.display());
            let still_wanted = wanted.contains_key(&path) && wanted_now.contains_key(&path);
            assert!(!still_wanted || files_now.contains_key(&path), "{} is missing", path.display());
            if files_now.get(&path) == Some(&value) {
                assert_eq!(stamps.get(&path), stamps_now.get(&path), "{} was written anew", path.display());
            }
        }
    }

    /// The contract's lines that hold at any moment.
    fn check_always(&self) {
        assert!(
            !self.is_set() || self.trees.contains(&self.live_tree()),
            "{:?} is no tree that was to go live",
            self.live_tree()
        );
        for (path, value) in self.files() {
            assert!(
                self.given.contains(&(path.clone(), value)),
                "{} holds {value:?}, which nobody gave it",
                path.display()
            );
        }
    }

    /// The contract when everything has been reported: exactly the winners' files, and files of others. Files that the guard
    /// holds stay, and keep others from their paths.
    fn check_in_step(&mut self) {
        if !self.is_all_good() {
            return;
        }
        let held: Vec<PathBuf> = self
            .pipeline
            .iter()
            .flat_map(|pipeline| pipeline.removals.paths())
            .map(|path| path.as_str().into())
            .collect();
        let is_free = |path: &PathBuf| !held.iter().any(|held| held.starts_with(path) || path.starts_with(held));
        let mut wanted = winners(&self.placed);
        let (mut owned, mut left_alone) = (BTreeMap::new(), BTreeMap::new());
        for (path, value) in self.files().into_iter().filter(|(path, _)| is_free(path)) {
            let target = if wanted.contains_key(&path) { &mut owned } else { &mut left_alone };
            target.insert(path, value);
        }
        wanted.retain(|path, _| is_free(path));
        assert_eq!(owned, wanted);
        match self.options.prune {
            Prune::Owned => {}
            Prune::All => assert_eq!(left_alone, BTreeMap::new()),
            Prune::Never => return,
        }
        // A foreign file at a place that an object ever had may have become configbump's.
        left_alone
            .iter()
            .for_each(|(path, bytes)| assert_eq!(self.foreign.get(path), Some(bytes), "{}", path.display()));
        self.foreign.retain(|path, _| !is_free(path) || left_alone.contains_key(path));
        let own = fs::read_dir(self.dir.path().join(OWN_FOLDER)).expect("the store's own folder");
        let names: Vec<_> = own.map(|entry| entry.expect("an entry").file_name()).collect();
        // Where not even a temporary file could be removed, that is left to the next start.
        let is_left_over = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("tmp-");
        let trees = |path: PathBuf| {
            let entries = fs::read_dir(path).expect("a folder").map(|entry| entry.expect("an entry").file_name());
            entries.filter(|name| name.to_string_lossy().starts_with("..2")).count()
        };
        let trees = (trees(self.dir.path().to_owned()), trees(self.dir.path().join(OWN_FOLDER)));
        let trees_max = match self.way {
            Some(Publishing { set: true, keeps_good }) => (2 + usize::from(keeps_good), 0),
            Some(Publishing { set: false, keeps_good: true }) => (0, 3),
            _ => (0, 0),
        };
        // A blocked write has its content in a temporary file.
        let may_leave = self.disk_failed || !held.is_empty();
        assert!(may_leave || (trees.0 <= trees_max.0 && trees.1 <= trees_max.1), "{trees:?} trees");
        assert!(may_leave || !names.iter().any(is_left_over), "left over: {names:?}");
    }
}

fn key(name: &str) -> Arc<ObjectKey> {
    let namespace = NAMESPACES[scope_of(name)].to_owned();
    Arc::new(ObjectKey { kind: Kind::ConfigMap, namespace, name: name.into() })
}

fn readable(forbidden: bool) -> &'static [ScopeId] {
    if forbidden { &[0] } else { &[0, 1] }
}

fn scope_of(name: &str) -> ScopeId {
    usize::from(!NAMES[..2].contains(&name))
}

/// The names in a scope, in this order.
fn names_of(scope: ScopeId, order: &[usize]) -> impl Iterator<Item = &'static str> {
    order.iter().map(|at| NAMES[*at]).filter(move |name| scope_of(name) == scope)
}

/// The places that an object asks for and can have.
fn paths(state: &State) -> impl Iterator<Item = (String, &Value)> {
    let keys = state.values.iter().filter(|(key, _)| ["a", "b", "c"].contains(key));
    keys.map(|(key, value)| (state.folder.map_or((*key).to_owned(), |folder| format!("{folder}/{key}")), value))
}

/// Who has what place, decided as the contract words it: the oldest first, then by name, each gets what is still free.
fn winners(placed: &BTreeMap<&'static str, State>) -> BTreeMap<PathBuf, Value> {
    let mut objects: Vec<_> = placed.iter().collect();
    objects.sort_by_key(|(name, state)| (state.created.unwrap_or(i64::MAX), **name));
    let mut files = BTreeMap::new();
    for (_, state) in objects {
        for (path, value) in paths(state) {
            let path = PathBuf::from(path);
            if !files.keys().any(|taken: &PathBuf| taken.starts_with(&path) || path.starts_with(taken)) {
                files.insert(path, *value);
            }
        }
    }
    files
}

fn read(folder: &Path, prefix: &Path, files: &mut BTreeMap<PathBuf, Value>) {
    for entry in fs::read_dir(folder).expect("a folder can be read") {
        let entry = entry.expect("an entry");
        let path = prefix.join(entry.file_name());
        if path == Path::new(OWN_FOLDER) || path.as_os_str().as_encoded_bytes().starts_with(b"..") {
            continue;
        }
        if entry.file_type().expect("a file type").is_dir() {
            read(&entry.path(), &path, files);
        } else {
            match fs::read(entry.path()) {
                Ok(bytes) => drop(files.insert(path.clone(), Value::of(&bytes, &path))),
                // After a kill, a link can point to a path that the live tree no longer has, or has as a directory.
                Err(error) => {
                    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
                    let is_gone = matches!(error.kind(), NotFound | NotADirectory | IsADirectory);
                    assert!(is_gone && entry.path().is_symlink(), "{error}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_directory_is_as_the_contract_says(
        options in options(),
        way in way(),
        ops in prop::collection::vec(op(), 1..25),
    ) {
        crash::after(None);
        // The clock stands still until the test lets the guard's hold pass.
        let clock = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        let _entered = clock.enter();
        let mut model = Model::new(options, way, &clock);
        let mut ops = ops.into_iter().peekable();
        while let Some(op) = ops.next() {
            let (steps, kill) = match op {
                Op::Kill { after, way } => (Some(after), Some(way)),
                Op::Fail { after } => (Some(after), None),
                op => {
                    model.run_checked(op);
                    if model.in_step {
                        model.check_in_step();
                    }
                    continue;
                }
            };
            // The next operation suffers it.
            model.disk_failed = true;
            crash::after(steps);
            if let Some(op) = ops.next_if(|op| !matches!(op, Op::Kill { .. } | Op::Fail { .. })) {
                model.run_checked(op);
            }
            if kill.is_some() {
                model.pipeline = None;
            }
            crash::after(None);
            model.check_always();
            if let Some(way) = kill {
                model.way = way;
                model.start();
                model.check_always();
            }
            (model.settled, model.in_step) = (false, false);
        }
        model.readable = readable(false);
        model.list(&[0, 1, 2, 3]);
        model.check_always();
        model.check_in_step();
        for state in model.world.values_mut() {
            state.values.values_mut().filter(|value| value.byte >= REFUSED).for_each(|value| value.byte = 1);
        }
        model.list(&[0, 1, 2, 3]);
        model.wait();
        prop_assert_eq!(model.pipeline.iter().map(|pipeline| pipeline.removals.held()).sum::<usize>(), 0);
        model.check_in_step();
        // A start that finds everything as it should be rewrites nothing.
        let before = model.stamps();
        model.start();
        model.list(&[3, 2, 1, 0]);
        prop_assert_eq!(model.stamps(), before);
    }
}
