//! Plan and store together against a model of the contract: random changes of a small world, seen and missed, with
//! kills and disk failures at any step on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::{Index, subsequence};
use tempfile::TempDir;

use super::*;
use crate::config::Prune;
use crate::content::Modes;
use crate::disk::crash;
use crate::object::{Entry, Kind, Object, ObjectKey};
use crate::path::OWN_FOLDER;

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
    /// An object goes.
    Delete { name: &'static str, seen: bool },
    /// A list that is completed, its objects in this order.
    List { order: Vec<usize> },
    /// A list that breaks off after some of its objects.
    BrokenList { order: Vec<usize>, len: Index },
    /// Somebody else writes a file, or changes one of configbump's.
    Foreign { path: &'static str, value: Value },
    /// Somebody else removes whatever file is there.
    Vanish { path: &'static str },
    /// The process is killed after this many steps on disk from here, and started again.
    Kill { after: u32 },
    /// From after this many steps the disk fails, until the next operation.
    Fail { after: u32 },
}

const NAMES: [&str; 4] = ["n0", "n1", "n2", "n3"];

fn state() -> impl Strategy<Value = State> {
    let value = (any::<u8>(), prop_oneof![Just(0_usize), 1..40_usize, Just(4097), Just(20_000)])
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

fn op() -> impl Strategy<Value = Op> {
    let name = prop::sample::select(&NAMES[..]);
    let order = || Just((0..NAMES.len()).collect::<Vec<_>>()).prop_shuffle();
    // No object needs one of these as a folder, nor a folder above it as a file: that would be in its way for ever.
    let foreign = prop::sample::select(&["b", "c", "zz", "d/a", "d/e/b"][..]);
    let path = prop::sample::select(&["a", "b", "c", "zz", "d/a", "d/e/b", "a/c"][..]);
    prop_oneof![
        8 => (name.clone(), state(), prop::bool::weighted(0.8)).prop_map(|(name, state, seen)| Op::Put { name, state, seen }),
        3 => (name, prop::bool::weighted(0.8)).prop_map(|(name, seen)| Op::Delete { name, seen }),
        3 => order().prop_map(|order| Op::List { order }),
        1 => (order(), any::<Index>()).prop_map(|(order, len)| Op::BrokenList { order, len }),
        1 => (foreign, any::<u8>()).prop_map(|(path, byte)| Op::Foreign { path, value: Value { byte, len: 3 } }),
        1 => path.prop_map(|path| Op::Vanish { path }),
        2 => (0..25_u32).prop_map(|after| Op::Kill { after }),
        1 => (0..25_u32).prop_map(|after| Op::Fail { after }),
    ]
}

/// The directory, the world, and what the directory may hold because of it.
struct Model {
    dir: TempDir,
    prune: Prune,
    pipeline: Option<Pipeline>,
    world: BTreeMap<&'static str, State>,
    /// The state of each object that was reported last, since the start.
    placed: BTreeMap<&'static str, State>,
    /// Files that configbump has never had a reason to touch.
    foreign: BTreeMap<PathBuf, Value>,
    /// Whether everything was reported, done, and left alone since.
    settled: bool,
    /// Whether the disk has failed since the start.
    disk_failed: bool,
    /// Every value that was ever given, by path.
    given: BTreeSet<(PathBuf, Value)>,
}

impl Model {
    fn new(prune: Prune) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut model = Self {
            dir,
            prune,
            pipeline: None,
            world: BTreeMap::new(),
            placed: BTreeMap::new(),
            foreign: BTreeMap::new(),
            settled: false,
            disk_failed: false,
            given: BTreeSet::new(),
        };
        model.start();
        model
    }

    fn start(&mut self) {
        self.pipeline = None;
        let store = Store::open(self.dir.path(), MODES, self.prune).expect("the directory can be opened");
        let scope = Scope { kind: None, namespace: None, name: None };
        self.pipeline = Some(Pipeline::new(store, Layout::Flat, self.dir.path(), vec![scope]));
        self.placed.clear();
        self.settled = false;
        self.disk_failed = false;
    }

    fn take(&mut self, what: What) {
        if let Some(pipeline) = &mut self.pipeline {
            pipeline.take(Event { scope: 0, what });
        }
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
            created: state.created,
            folder: state.folder.map(str::to_owned),
            entries: state.values.iter().map(entry).collect(),
        };
        self.given.extend(paths(&state).map(|(path, value)| (path.into(), *value)));
        self.placed.insert(name, state);
        self.take(What::Apply(object));
    }

    fn forget(&mut self, name: &'static str) {
        self.placed.remove(name);
        self.take(What::Delete(key(name)));
    }

    /// Lists everything, and again if that brought failures to light: what could not be kept aside is missed only when it
    /// is needed.
    fn list(&mut self, order: &[usize]) {
        for _ in 0..3 {
            if let Some(pipeline) = &mut self.pipeline {
                pipeline.resync.ask();
            }
            self.list_once(order);
            if self.pipeline.as_ref().is_some_and(Pipeline::is_settled) {
                break;
            }
        }
    }

    fn list_once(&mut self, order: &[usize]) {
        self.take(What::ListStarted);
        order.iter().for_each(|at| self.report(NAMES[*at]));
        self.placed.retain(|name, _| self.world.contains_key(name));
        self.take(What::ListDone);
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Put { name, mut state, seen } => {
                // What is never removed would be in the way of a file of that name for ever.
                if self.prune == Prune::Never && state.folder == Some("a") {
                    state.folder = Some("d");
                }
                self.world.insert(name, state);
                if seen { self.report(name) } else { self.settled = false }
            }
            Op::Delete { name, seen } => {
                self.world.remove(name);
                if seen { self.forget(name) } else { self.settled = false }
            }
            Op::List { order } => {
                self.list(&order);
                self.settled = true;
            }
            Op::BrokenList { order, len } => {
                let (before, settled) = (self.files(), self.settled);
                self.take(What::ListStarted);
                order[..len.index(order.len())].iter().for_each(|at| self.report(NAMES[*at]));
                if settled {
                    assert_eq!(self.files(), before, "a list that breaks off changes nothing that was in step");
                }
            }
            Op::Foreign { path, value } => self.plant(path, Some(value)),
            Op::Vanish { path } => self.plant(path, None),
            Op::Kill { .. } | Op::Fail { .. } => unreachable!("they concern the operation that follows"),
        }
    }

    /// Somebody else's file, or none, is at a path from now on; unless a folder is in the way.
    fn plant(&mut self, path: &'static str, value: Option<Value>) {
        let at = self.dir.path().join(path);
        if at.is_dir() || !at.parent().is_some_and(Path::is_dir) {
            return;
        }
        self.settled = false;
        match value {
            Some(value) => {
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
        let (wanted, files, stamps) = (winners(&self.placed), self.files(), self.stamps());
        self.run(op);
        self.check_always();
        // Where the last that was told is out of date, a file may come and go before all is told.
        if by_others || !was_settled {
            return;
        }
        let (wanted_now, files_now, stamps_now) = (winners(&self.placed), self.files(), self.stamps());
        for (path, value) in files {
            let still_wanted = wanted.contains_key(&path) && wanted_now.contains_key(&path);
            assert!(!still_wanted || files_now.contains_key(&path), "{} is missing", path.display());
            if files_now.get(&path) == Some(&value) {
                assert_eq!(stamps.get(&path), stamps_now.get(&path), "{} was written anew", path.display());
            }
        }
    }

    /// The contract's lines that hold at any moment.
    fn check_always(&self) {
        for (path, value) in self.files() {
            assert!(
                self.given.contains(&(path.clone(), value)),
                "{} holds {value:?}, which nobody gave it",
                path.display()
            );
        }
    }

    /// What is promised when everything has been reported: exactly the winners' files, and what is somebody else's.
    fn check_in_step(&mut self) {
        let wanted = winners(&self.placed);
        let (mut owned, mut left_alone) = (BTreeMap::new(), BTreeMap::new());
        for (path, value) in self.files() {
            let target = if wanted.contains_key(&path) { &mut owned } else { &mut left_alone };
            target.insert(path, value);
        }
        assert_eq!(owned, wanted);
        match self.prune {
            Prune::Owned => {}
            Prune::All => assert_eq!(left_alone, BTreeMap::new()),
            Prune::Never => return,
        }
        // A foreign file at a place that an object ever had may have become configbump's.
        left_alone
            .iter()
            .for_each(|(path, bytes)| assert_eq!(self.foreign.get(path), Some(bytes), "{}", path.display()));
        self.foreign.retain(|path, _| left_alone.contains_key(path));
        let own = fs::read_dir(self.dir.path().join(OWN_FOLDER)).expect("the store's own folder");
        let names: Vec<_> = own.map(|entry| entry.expect("an entry").file_name()).collect();
        // Where not even a temporary file could be removed, that is left to the next start.
        let is_left_over = |name: &std::ffi::OsString| name.to_string_lossy().starts_with("tmp-");
        assert!(self.disk_failed || !names.iter().any(is_left_over), "left over: {names:?}");
    }
}

fn key(name: &str) -> Arc<ObjectKey> {
    Arc::new(ObjectKey { kind: Kind::ConfigMap, namespace: "ns".into(), name: name.into() })
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
        if path == Path::new(OWN_FOLDER) {
            continue;
        }
        if entry.file_type().expect("a file type").is_dir() {
            read(&entry.path(), &path, files);
        } else {
            let bytes = fs::read(entry.path()).expect("a file can be read");
            files.insert(path.clone(), Value::of(&bytes, &path));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_directory_is_as_the_contract_says(
        prune in prop::sample::select(&[Prune::Owned, Prune::Owned, Prune::All, Prune::Never][..]),
        ops in prop::collection::vec(op(), 1..25),
    ) {
        crash::after(None);
        let mut model = Model::new(prune);
        let mut ops = ops.into_iter().peekable();
        while let Some(op) = ops.next() {
            let (steps, kill) = match op {
                Op::Kill { after } => (Some(after), true),
                Op::Fail { after } => (Some(after), false),
                op => {
                    model.run_checked(op);
                    if model.settled {
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
            if kill {
                model.pipeline = None;
            }
            crash::after(None);
            model.check_always();
            if kill {
                model.start();
                model.check_always();
            }
            model.settled = false;
        }
        model.list(&[0, 1, 2, 3]);
        model.check_always();
        model.check_in_step();
        // A start that finds everything as it should be rewrites nothing.
        let before = model.stamps();
        model.start();
        model.list(&[3, 2, 1, 0]);
        prop_assert_eq!(model.stamps(), before);
    }
}
