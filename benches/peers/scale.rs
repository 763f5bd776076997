//! Hundreds of followers of one API server, on one machine.
#![expect(clippy::cast_precision_loss, reason = "no count here is large")]

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use inotify::{Inotify, WatchDescriptor, WatchMask};
use tempfile::TempDir;

use crate::figures::{cpu_ms, quantile};
use crate::harness::access::Access;
use crate::harness::cluster::ApiServer;
use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::usage::Usage;
use crate::harness::wait::{lasting, until};
use crate::program::{Program, Programs, command};
use crate::workloads::{fill, name, value};

const FOLLOWERS: usize = 300;
const OBJECTS: usize = 10;
const VALUE_BYTES: usize = 1024;
const UPDATES: usize = 50;

/// How long all of them may take for anything.
const PATIENCE: Duration = Duration::from_secs(180);

/// Prints the figures of hundreds of configbumps, and for comparison of as many curls.
pub async fn run(programs: &Programs) {
    let namespace = Namespace::new().await;
    fill(&namespace, OBJECTS, VALUE_BYTES).await;
    for program in [Program::Floor, Program::Ours] {
        println!("{FOLLOWERS} × {}, {OBJECTS} maps of {VALUE_BYTES} bytes:", program.name());
        let server = server_pid(&ApiServer::shared().admin_access());
        let before = Usage::of(server).resident_kib;
        let mut crowd = Crowd::start(programs, program, &namespace.name).await;
        let after = Usage::of(server).resident_kib;
        println!("  API server: {before} KiB resident before, {after} KiB with them");
        crowd.updates(&namespace, server).await;
        if program == Program::Ours {
            crowd.restart(&namespace).await;
        }
    }
}

/// Followers, each with a directory of its own.
struct Crowd {
    children: Vec<Child>,
    writes_files: bool,
    inotify: Inotify,
    watches: Vec<WatchDescriptor>,
    folders: Vec<TempDir>,
}

impl Crowd {
    /// Waits until each has a connection and, if it writes files, all of them.
    async fn start(programs: &Programs, program: Program, namespace: &str) -> Self {
        let (access, inotify) = (ApiServer::shared().admin_access(), Inotify::init().expect("an inotify instance"));
        let writes_files = program != Program::Floor;
        let mut crowd = Self { children: Vec::new(), writes_files, inotify, watches: Vec::new(), folders: Vec::new() };
        for _ in 0..FOLLOWERS {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let mut command = command(programs, program, &access, namespace, folder.path());
            let dir = folder.path().join("dir");
            crowd.watches.push(crowd.inotify.watches().add(&dir, WatchMask::MOVED_TO).expect("a watch"));
            let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            crowd.children.push(quiet.spawn().expect("a follower starts"));
            crowd.folders.push(folder);
        }
        let what = "connections of all followers";
        until(PATIENCE, what, async || match connections(&access) {
            all if all.len() >= FOLLOWERS => Ok(()),
            some => Err(format!("{} of them", some.len())),
        })
        .await;
        if writes_files {
            crowd.saw_files(OBJECTS).await;
        }
        crowd
    }

    /// Waits until each has written so many files since this was asked last, and gives when each had.
    async fn saw_files(&mut self, files: usize) -> Vec<Instant> {
        let mut counts = vec![0; FOLLOWERS];
        let mut done = Vec::new();
        let mut buffer = vec![0; 1 << 20];
        let began = Instant::now();
        while done.len() < FOLLOWERS {
            assert!(began.elapsed() < PATIENCE, "{} of {FOLLOWERS} have their files", done.len());
            match self.inotify.read_events(&mut buffer) {
                Ok(events) => {
                    let at = Instant::now();
                    for event in events {
                        let who = self.watches.iter().position(|watch| *watch == event.wd).expect("a follower");
                        counts[who] += 1;
                        if counts[who] == files {
                            done.push(at);
                        }
                    }
                }
                Err(_) => lasting(Duration::from_millis(1)).await,
            }
        }
        done
    }

    /// Updates one after the other: when the files are there, and what the API server needs for them.
    async fn updates(&mut self, namespace: &Namespace, server: u32) {
        let access = ApiServer::shared().admin_access();
        let (cpu, bytes) = (cpu_ms(server), received(&access));
        let mut followers_ms = -self.cpu_ms();
        let (mut medians, mut lasts) = (Vec::new(), Vec::new());
        for number in 0..UPDATES {
            let began = Instant::now();
            update(namespace, number).await;
            if self.writes_files {
                let ms: Vec<f64> = self.saw_files(1).await.iter().map(|at| (*at - began).as_secs_f64() * 1e3).collect();
                medians.push(quantile(&ms, 0.5));
                lasts.push(quantile(&ms, 1.0));
            } else {
                lasting(Duration::from_millis(200)).await;
            }
        }
        followers_ms += self.cpu_ms();
        let each = |value: f64| value / (UPDATES * FOLLOWERS) as f64;
        println!("  CPU of the API server: {:.3} ms an update and follower", each(cpu_ms(server) - cpu));
        println!("  CPU of a follower: {:.3} ms an update", each(followers_ms));
        println!("  received: {:.0} bytes an update and follower", each(received(&access) - bytes));
        if self.writes_files {
            let (median, last) = (quantile(&medians, 0.5), quantile(&lasts, 0.5));
            println!("  from the request to the file: {median:.1} ms for half of them, {last:.1} ms for the last");
            println!("  the last of them in the slowest update: {:.1} ms", quantile(&lasts, 1.0));
        }
        let resident: Vec<_> = self.children.iter().map(|child| Usage::of(child.id()).resident_kib as f64).collect();
        println!("  resident: {:.0} KiB each (median)", quantile(&resident, 0.5));
    }

    fn cpu_ms(&self) -> f64 {
        self.children.iter().map(|child| cpu_ms(child.id())).sum()
    }

    /// The API server is killed, is away for some seconds and comes back: when does each follower write again?
    async fn restart(&mut self, namespace: &Namespace) {
        let server = ApiServer::shared();
        server.stop();
        lasting(Duration::from_secs(5)).await;
        server.start().await;
        let began = Instant::now();
        let (mut back, mut buffer) = (vec![None; FOLLOWERS], vec![0; 1 << 20]);
        let mut number = 0;
        while back.iter().any(Option::is_none) && began.elapsed() < PATIENCE {
            number += 1;
            update(namespace, number).await;
            lasting(Duration::from_millis(100)).await;
            for event in self.inotify.read_events(&mut buffer).into_iter().flatten() {
                let who = self.watches.iter().position(|watch| *watch == event.wd).expect("a follower");
                back[who].get_or_insert(began.elapsed().as_secs());
            }
        }
        println!("  after a restart of the API server, in the second after it was ready: followers that write again");
        for second in 0..=back.iter().flatten().copied().max().unwrap_or_default() {
            println!("    {second:3}: {}", back.iter().filter(|back| **back == Some(second)).count());
        }
        println!("    never: {}", back.iter().filter(|back| back.is_none()).count());
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().and_then(|()| child.wait()).expect("a child can be killed");
        }
    }
}

async fn update(namespace: &Namespace, number: usize) {
    let name = name(0);
    namespace.replace(&config_map(&name, [(&name, &value(&format!("u{number:09}"), VALUE_BYTES))])).await;
}

/// The bytes that the connections to the API server have brought, by the kernel's count.
fn connections(access: &Access) -> Vec<f64> {
    let output = Command::new("ss")
        .args(["--tcp", "--info", "--no-header", "--oneline", "state", "established", "dst"])
        .arg(access.address.to_string())
        .output()
        .expect("ss starts: install iproute2");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let bytes = |line: &str| line.split("bytes_received:").nth(1)?.split(' ').next()?.parse().ok();
    text.lines().map(|line| bytes(line).unwrap_or_default()).collect()
}

fn received(access: &Access) -> f64 {
    connections(access).iter().sum()
}

/// The process that serves at this address.
fn server_pid(access: &Access) -> u32 {
    let port = format!("--secure-port={}", access.address.port());
    let pids = fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let serves = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = line.split(|byte| *byte == 0);
        words.next().is_some_and(|word| word.ends_with(b"kube-apiserver")) && words.any(|word| word == port.as_bytes())
    };
    pids.into_iter().find(serves).expect("a running API server")
}
