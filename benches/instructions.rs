//! How many instructions and system calls plan and store need for fixed work: counted by valgrind, so that a slower hot path
//! fails the build on any machine, however loaded. No clock is read.
//!
//! A compiler of another version counts a few percent more or less. Where that crosses a bound, the bound moves, and the
//! commit says so.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use configbump::config::{Layout, Prune};
use configbump::content::Modes;
use configbump::event::{Event, Scope, What};
use configbump::object::{Entry, Kind, Object, ObjectKey};
use configbump::plan::{Places, Plan};
use configbump::store::{Publishing, Store};

/// Stands before the name of a workload that is to be run here, below valgrind.
const RUN: &str = "--run";

/// What is counted is between two tries to read this link, which is not there.
const MARK: &str = "/counted-by-valgrind";

/// Work of the same kind, done a number of times.
struct Workload {
    name: &'static str,
    /// Makes what is to be there before, and then has the rest counted.
    run: fn(),
    /// How often the work is done within what is counted.
    times: u64,
    /// The most instructions that one may need, about 5 % above what it did need.
    instructions_max: u64,
    /// The most system calls that one may need. It did need as many.
    calls_max: u64,
}

/// How many objects are updated, listed or moved.
const TIMES: usize = 200;

/// How many keys of one object wait: so many that a look at all of them for each would show.
const HELD: usize = 2_000;

const WORKLOADS: [Workload; 6] = [
    Workload {
        name: "update, 1,000 objects",
        run: || update(1_000),
        times: TIMES as u64,
        instructions_max: 171_000,
        calls_max: 13,
    },
    Workload {
        name: "update, 5,000 objects",
        run: || update(5_000),
        times: TIMES as u64,
        instructions_max: 172_000,
        calls_max: 13,
    },
    Workload { name: "first list, an object", run: first_list, times: 1_000, instructions_max: 114_000, calls_max: 10 },
    Workload {
        name: "list without a change, an object",
        run: relist,
        times: 1_000,
        instructions_max: 168_000,
        calls_max: 7,
    },
    Workload {
        name: "a path that changes hands",
        run: take_over,
        times: TIMES as u64,
        instructions_max: 300_000,
        calls_max: 46,
    },
    Workload {
        name: "a held key whose object goes",
        run: take_back,
        times: HELD as u64,
        instructions_max: 17_500,
        calls_max: 2,
    },
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let Some(at) = args.iter().position(|arg| arg == RUN) {
        let workload = WORKLOADS.iter().find(|workload| Some(workload.name) == args.get(at + 1).map(String::as_str));
        (workload.expect("a workload's name").run)();
        return ExitCode::SUCCESS;
    }
    let over = WORKLOADS.iter().filter(|workload| !workload.is_within_bounds()).count();
    if over > 0 {
        eprintln!(
            "{over} workloads need more than their bounds in {} allow: find out why, or move the bounds",
            file!()
        );
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

impl Workload {
    /// Counts it and says what came out.
    fn is_within_bounds(&self) -> bool {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (instructions, calls) = self.count(folder.path());
        let of_one = |count: u64| count.div_ceil(self.times);
        let (instructions, calls) = (of_one(instructions), of_one(calls));
        let is_within = instructions <= self.instructions_max && calls <= self.calls_max;
        println!(
            "{:34} {instructions:>7} of {:>7} instructions, {calls:>3} of {:>3} system calls{}",
            self.name,
            self.instructions_max,
            self.calls_max,
            if is_within { "" } else { ": TOO MANY" }
        );
        is_within
    }

    /// All instructions and system calls between the marks.
    fn count(&self, folder: &Path) -> (u64, u64) {
        let (profile, trace) = (folder.join("profile"), folder.join("trace"));
        let status = Command::new("valgrind")
            .args(["--tool=callgrind", "--toggle-collect=*instructions*counted*", "--trace-syscalls=yes"])
            .arg(format!("--callgrind-out-file={}", profile.display()))
            .arg(format!("--log-file={}", trace.display()))
            .arg(std::env::current_exe().expect("this executable"))
            .args([RUN, self.name])
            .env("TMPDIR", folder)
            .status()
            .expect("valgrind starts: install valgrind");
        let read = |path| String::from_utf8_lossy(&std::fs::read(path).expect("valgrind's output")).into_owned();
        let trace = read(trace);
        assert!(status.success(), "{} below valgrind: {status}\n{trace}", self.name);
        let profile = read(profile);
        let total = profile.lines().find_map(|line| line.strip_prefix("totals: "));
        let marked: Vec<&str> = trace.split(MARK).collect();
        let [_, between, _] = marked[..] else { panic!("{} marks in {trace}", marked.len() - 1) };
        // The second mark's own call begins before the mark.
        let calls = between.matches(" sys_").count() as u64 - 1;
        (total.and_then(|total| total.trim().parse().ok()).expect("a total"), calls)
    }
}

/// What valgrind looks for, by its name.
#[inline(never)]
fn counted(work: &mut dyn FnMut()) {
    let mark = || drop(std::fs::read_link(MARK));
    mark();
    work();
    mark();
}

/// Plan and store, as the pipeline has them.
struct Pipeline {
    plan: Plan,
    store: Store,
    _folder: tempfile::TempDir,
}

impl Pipeline {
    /// With this many objects, from a list.
    fn new(objects: usize) -> Self {
        Self::publishing(None, objects)
    }

    fn publishing(publishing: Option<Publishing>, objects: usize) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dir = folder.path().join("dir");
        let modes = Modes { config_map: 0o644, secret: 0o640 };
        let store = Store::open(&dir, modes, Prune::Owned, publishing).expect("a store");
        let all = Scope { kind: Some(Kind::ConfigMap), namespace: None, name: None };
        let plan = Plan::new(Places::new(Layout::Flat, &[Kind::ConfigMap], &dir), vec![all]);
        let mut pipeline = Self { plan, store, _folder: folder };
        pipeline.list(objects);
        pipeline
    }

    fn take(&mut self, what: What) {
        for change in self.plan.step(Event { scope: 0, what }).changes {
            self.store.apply(change).expect("a change");
        }
    }

    fn apply(&mut self, name: &str, version: usize, created: i64, key: &str) {
        let mut value = format!("{version} of {name} ");
        let line = "a line of a configuration that is neither short nor long\n";
        while value.len() < 1024 {
            value.write_str(line).expect("a string takes text");
        }
        let content = self.store.spool().content(Kind::ConfigMap, value.as_bytes());
        let key = Entry { key: key.to_owned(), content };
        self.take(What::Apply(Object {
            key: object_key(name),
            resource_version: Some(version.to_string()),
            uid: None,
            created: Some(created),
            folder: None,
            entries: vec![key],
        }));
    }

    fn list(&mut self, objects: usize) {
        self.take(What::ListStarted);
        names(objects).for_each(|name| self.apply(&name, 1, 0, &name));
        self.take(What::ListDone);
    }
}

fn names(objects: usize) -> impl Iterator<Item = String> {
    (0..objects).map(|number| format!("object-{number:06}"))
}

fn object_key(name: &str) -> Arc<ObjectKey> {
    Arc::new(ObjectKey { kind: Kind::ConfigMap, namespace: "namespace".to_owned(), name: name.to_owned() })
}

/// Objects of many get another value each.
fn update(objects: usize) {
    let mut pipeline = Pipeline::new(objects);
    counted(&mut || names(TIMES).for_each(|name| pipeline.apply(&name, 2, 0, &name)));
}

fn first_list() {
    let mut pipeline = Pipeline::new(0);
    counted(&mut || pipeline.list(1_000));
}

fn relist() {
    let mut pipeline = Pipeline::new(1_000);
    counted(&mut || pipeline.list(1_000));
}

/// An older object takes each path from its owner, and gives it back when it goes.
fn take_over() {
    let mut pipeline = Pipeline::new(TIMES);
    counted(&mut || {
        for name in names(TIMES) {
            pipeline.apply("older", 1, -1, &name);
            pipeline.take(What::Delete(object_key("older")));
        }
    });
}

/// An object goes whose many keys wait, as they do while a check refuses them.
fn take_back() {
    let mut pipeline = Pipeline::publishing(Some(Publishing { set: false, keeps_good: false }), 0);
    let spool = pipeline.store.spool();
    let entries = names(HELD).map(|key| Entry { key, content: spool.content(Kind::ConfigMap, b"value") }).collect();
    pipeline.take(What::Apply(Object {
        key: object_key("held"),
        resource_version: None,
        uid: None,
        created: None,
        folder: None,
        entries,
    }));
    counted(&mut || pipeline.take(What::Delete(object_key("held"))));
}
