//! What each program has to do, and what is measured of it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::figures::cpu_ms;
use crate::harness::access::Access;
use crate::harness::namespace::Namespace;
use crate::harness::object::{config_map, labelled};
use crate::harness::poller::Poller;
use crate::harness::usage::Usage;
use crate::program::{MARK, Program, Programs, Running};

/// How often an object is updated in one run.
pub const UPDATES: usize = 300;

/// What one run is about.
pub struct Scene<'a> {
    pub programs: &'a Programs,
    pub access: Access,
    pub namespace: &'a Namespace,
    /// How many objects are in the namespace, by [`name`].
    pub objects: usize,
}

/// The name of an object, which is also that of its key.
pub fn name(number: usize) -> String {
    format!("object-{number:05}")
}

/// A value of so many bytes that begins with its version.
pub fn value(version: &str, bytes: usize) -> String {
    let mut value = format!("{MARK}{version}{MARK}");
    value.extend(std::iter::repeat_n("0123456789abcde\n", bytes / 16 + 1));
    value.truncate(bytes);
    value
}

/// Makes so many objects with values of so many bytes.
pub async fn fill(namespace: &Namespace, objects: usize, bytes: usize) {
    let names: Vec<String> = (0..objects).map(name).collect();
    let maps: Vec<_> = names.iter().map(|name| config_map(name, [(name, &value(name, bytes))])).collect();
    namespace.create_all(&maps).await;
}

/// What is measured of a program while objects are updated.
pub struct Updates {
    /// How much later than in a raw watch each of them was on disk.
    pub later_ms: Vec<f64>,
    /// The processor time of one, on average.
    pub cpu_ms: f64,
    /// Resident memory in the end.
    pub resident_mib: f64,
}

impl Scene<'_> {
    /// Starts the program and waits until it has everything.
    pub fn start(&self, program: Program) -> Running {
        let running = Running::start(self.programs, program, &self.access, &self.namespace.name);
        running.saw_all(self.objects);
        running
    }

    /// Resident memory after the first sync and an update, and the most that there was until then, in MiB.
    pub async fn memory(&self, program: Program, bytes: usize) -> (f64, f64) {
        let running = self.start(program);
        let version = fresh_version();
        self.update(0, &version, bytes).await;
        running.saw(&name(0), &version);
        let usage = Usage::of(running.pid());
        (mib(usage.resident_kib), mib(usage.peak_kib))
    }

    /// The most memory for an object whose JSON is six times as long as its value, in its list and in an update, in MiB.
    pub async fn worst_object(&self, program: Program) -> f64 {
        let running = self.start(program);
        let version = fresh_version();
        self.namespace.replace(&worst(&version)).await;
        running.saw(&name(0), &version);
        mib(Usage::of(running.pid()).peak_kib)
    }

    /// What updates one after the other take.
    pub async fn updates(&self, program: Program) -> Updates {
        let watch = self.start(Program::Floor);
        let running = self.start(program);
        let before = cpu_ms(running.pid());
        let mut later_ms = Vec::new();
        for number in 0..UPDATES {
            let version = fresh_version();
            let number = number % self.objects;
            self.update(number, &version, 1024).await;
            let seen = watch.saw(&name(number), &version);
            let done = running.saw(&name(number), &version);
            let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
            later_ms.push(if done > seen { ms(done - seen) } else { -ms(seen - done) });
        }
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let each_cpu_ms = (cpu_ms(running.pid()) - before) / UPDATES as f64;
        Updates { later_ms, cpu_ms: each_cpu_ms, resident_mib: mib(Usage::of(running.pid()).resident_kib) }
    }

    /// The processor time that changes of objects outside the selector take, in ms.
    pub async fn unrelated(&self, program: Program, changes: usize) -> f64 {
        let running = self.start(program);
        let before = cpu_ms(running.pid());
        for number in 0..changes {
            let object = config_map("unrelated", [("unrelated", &number.to_string())]);
            self.namespace.replace(&labelled(object, [])).await;
        }
        // Events keep their order, so those have come before this one.
        let version = fresh_version();
        self.update(0, &version, 1024).await;
        running.saw(&name(0), &version);
        cpu_ms(running.pid()) - before
    }

    /// The time from the start to the last file, in s. For the floor: how long curl takes for the list.
    pub fn first_sync(&self, program: Program) -> f64 {
        let began = Instant::now();
        if program == Program::Floor {
            fetch(&self.access, &self.namespace.name);
            return began.elapsed().as_secs_f64();
        }
        let running = Running::start(self.programs, program, &self.access, &self.namespace.name);
        (running.saw_all(self.objects) - began).as_secs_f64()
    }

    /// The time from the start of curl to the last of the objects, as they come in a stream that becomes a watch, in s.
    pub fn first_stream(&self) -> f64 {
        let began = Instant::now();
        let running = Running::start(self.programs, Program::Floor, &self.access, &self.namespace.name);
        (running.saw_all(self.objects) - began).as_secs_f64()
    }

    /// Reads of a file that is updated all the time, and how many of them were of neither version.
    pub async fn torn_reads(&self, program: Program, updates: usize, bytes: usize) -> (usize, usize) {
        let running = self.start(program);
        let path = running.dir.join(name(0));
        let readers = Poller::start(move |(reads, torn): &mut (usize, usize)| {
            *reads += 1;
            *torn += usize::from(!is_whole(&path, bytes));
        });
        let mut version = String::new();
        for _ in 0..updates {
            version = fresh_version();
            let text = format!("{MARK}{version}{MARK}").repeat(bytes / (version.len() + 2));
            self.namespace.replace(&config_map(&name(0), [(&name(0), &text)])).await;
        }
        running.saw(&name(0), &version);
        readers.stop()
    }

    async fn update(&self, number: usize, version: &str, bytes: usize) {
        let name = name(number);
        self.namespace.replace(&config_map(&name, [(&name, &value(version, bytes))])).await;
    }
}

/// All of it is of one version.
fn is_whole(path: &Path, bytes: usize) -> bool {
    let text = fs::read_to_string(path).unwrap_or_default();
    let unit = text.find(MARK).and_then(|_| text.get(..VERSION_BYTES + 2)).unwrap_or("?");
    let first_value = value(&name(0), bytes);
    text == first_value || text == unit.repeat(bytes / (VERSION_BYTES + 2))
}

/// The worst legal object but for some bytes: every `<` is six bytes in JSON.
pub fn worst(version: &str) -> k8s_openapi::api::core::v1::ConfigMap {
    let text = format!("{MARK}{version}{MARK}{}", "<".repeat(1_040_000));
    config_map(&name(0), [(&name(0), &text)])
}

const VERSION_BYTES: usize = 10;

/// A text that was no version yet, of [`VERSION_BYTES`].
fn fresh_version() -> String {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("v{:09}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The list, to nowhere.
fn fetch(access: &Access, namespace: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let authority = folder.path().join("ca.pem");
    fs::write(&authority, access.authority.as_deref().expect("the servers have one")).expect("a file");
    let status = Command::new("curl")
        .args(["--silent", "--fail", "--cacert"])
        .arg(authority)
        .args(["--header", &format!("Authorization: Bearer {}", access.token)])
        .arg(format!("{}/api/v1/namespaces/{namespace}/configmaps?labelSelector=app%3Dweb", access.url()))
        .stdout(Stdio::null())
        .status();
    assert!(status.expect("curl starts: install curl").success(), "curl cannot fetch the list");
}

#[expect(clippy::cast_precision_loss, reason = "a process has less memory than that")]
fn mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}
