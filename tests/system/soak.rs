//! Changes under one fault after the other, for half an hour (`make soak`) or until each was there: nothing is lost, nothing grows.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use k8s_openapi::api::rbac::v1::PolicyRule;
use rustix::process::Signal;

use crate::faults::bad_answers;
use crate::harness::access::Access;
use crate::harness::account::{Account, least};
use crate::harness::cluster::{ApiServer, Cluster};
use crate::harness::endpoints::Endpoints;
use crate::harness::faulty::{Fault, Faulty};
use crate::harness::link::{Link, State};
use crate::harness::namespace::{Item, Namespace};
use crate::harness::object::{config_map, secret};
use crate::harness::pod::Pod;
use crate::harness::sidecar::{Launch, Sidecar};
use crate::harness::usage::Usage;
use crate::harness::wait::{PATIENCE, lasting, run};
use crate::harness::web::ask;
use crate::harness::witness::Witness;
use crate::harness::workspace::{Files, Workspace};

/// The variable that says how long, in seconds.
const DURATION: &str = "CONFIGBUMP_SOAK_S";

/// How many objects of each kind there may be, and how many of them change, come or go under a fault.
const OBJECTS: usize = 30;
const CHANGES: usize = 10;

/// How long a value may be, in bytes.
const SIZES: [usize; 5] = [0, 10, 4_000, 70_000, 300_000];

/// The longest time that a fault lasts.
const FAULT_S_MAX: f64 = 3.0;

/// The longest time from its end until all is right: the longest wait between two tries, and time to spare.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

/// The size of the disk that DIR is on: there is room for every object twice.
const DISK: &str = "size=40m";

/// What takes the rest of it.
const FILLER: &str = "filler";

/// What can be wrong. Each is wrong at least once.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    None,
    LinkDown,
    ConnectionsLost,
    CertificateExpired,
    Stopped,
    BadAnswers,
    ServerKilled,
    EtcdStopped,
    DiskFull,
    Killed,
    RoleTaken,
    TokenReplaced,
}

const TROUBLES: [Trouble; 12] = [
    Trouble::None,
    Trouble::LinkDown,
    Trouble::ConnectionsLost,
    Trouble::CertificateExpired,
    Trouble::Stopped,
    Trouble::BadAnswers,
    Trouble::ServerKilled,
    Trouble::EtcdStopped,
    Trouble::DiskFull,
    Trouble::Killed,
    Trouble::RoleTaken,
    Trouble::TokenReplaced,
];

/// A small disk at DIR.
struct Disk<'w>(&'w Workspace);

impl<'w> Disk<'w> {
    fn at(workspace: &'w Workspace) -> Self {
        fs::create_dir(workspace.dir()).expect("a folder");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "none"]).arg(workspace.dir()).status();
        assert!(mount.expect("mount").success());
        Self(workspace)
    }

    fn fill(&self) {
        let mut filler = File::create(self.0.path(FILLER)).expect("a file");
        while filler.write_all(&[0; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        fs::remove_file(self.0.path(FILLER)).expect("the file that takes the room");
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        // What is left of it would only keep the folder from being removed.
        let _ = Command::new("umount").arg("--lazy").arg(self.0.dir()).status();
    }
}

/// The objects, and what leads from a sidecar to the server: the link, then the proxy.
struct World<'a> {
    cluster: &'a Cluster,
    server: &'a ApiServer,
    namespace: &'a Namespace,
    account: Account<'a>,
    disk: Disk<'a>,
    faulty: Faulty,
    link: Link,
    rng: Rng,
    /// The value of each object, by its name, which is also its key.
    objects: BTreeMap<String, String>,
    /// What was deleted since the directory was looked at.
    deleted: Vec<String>,
}

/// What the account of the sidecars is allowed.
fn rule() -> PolicyRule {
    least(&["configmaps", "secrets"])
}

impl<'a> World<'a> {
    async fn new(
        seed: u64,
        cluster: &'a Cluster,
        server: &'a ApiServer,
        namespace: &'a Namespace,
        workspace: &'a Workspace,
    ) -> Self {
        let account = Account::new(namespace, "sidecar").await;
        account.allow(namespace, rule()).await;
        let faulty = Faulty::before(&server.admin_access()).await;
        let link = Link::to(faulty.access.address, State::Up).await;
        let (objects, deleted, rng) = (BTreeMap::new(), Vec::new(), Rng::with_seed(seed));
        Self { cluster, server, namespace, account, disk: Disk::at(workspace), faulty, link, rng, objects, deleted }
    }

    /// An object comes, changes or goes. The sidecar's way to the server is not used.
    async fn change(&mut self) {
        let (is_secret, number) = (self.rng.bool(), self.rng.usize(..OBJECTS));
        let name = format!("{}-{number}", if is_secret { "secret" } else { "map" });
        let size = SIZES[self.rng.usize(..SIZES.len())];
        let value = self.rng.alphanumeric().to_string().repeat(size);
        let is_there = self.objects.remove(&name).is_some();
        let goes = is_there && self.rng.u8(..4) == 0;
        if is_secret {
            put(self.namespace, &secret(&name, [(&name, value.as_bytes())]), is_there, goes).await;
        } else {
            put(self.namespace, &config_map(&name, [(&name, &value)]), is_there, goes).await;
        }
        if goes {
            self.deleted.push(name);
        } else {
            self.objects.insert(name, value);
        }
    }

    /// Changes, and then quiet, while something is wrong.
    async fn suffer(&mut self) {
        for _ in 0..CHANGES {
            self.change().await;
        }
        lasting(Duration::from_secs_f64(FAULT_S_MAX * self.rng.f64())).await;
    }

    /// One fault, from its beginning to its end. `victim` is killed, if that is the fault.
    async fn fault(&mut self, trouble: Trouble, sidecar: &Sidecar<'_>, pod: &Pod<'_>, victim: &mut Victim<'_>) {
        match trouble {
            Trouble::None => self.suffer().await,
            Trouble::LinkDown => {
                self.link.set(State::Down);
                self.suffer().await;
                self.link.set(State::Up);
            }
            Trouble::ConnectionsLost => {
                self.link.lose_connections();
                self.suffer().await;
            }
            Trouble::CertificateExpired => {
                self.faulty.expire();
                self.suffer().await;
                self.faulty.renew();
            }
            Trouble::Stopped => {
                sidecar.signal(Signal::STOP);
                self.suffer().await;
                sidecar.signal(Signal::CONT);
            }
            Trouble::BadAnswers => {
                let mut answers = bad_answers();
                self.faulty.set(answers.swap_remove(self.rng.usize(..answers.len())).1);
                self.suffer().await;
                self.faulty.set(Fault::None);
            }
            Trouble::ServerKilled => {
                self.server.stop();
                lasting(Duration::from_secs_f64(FAULT_S_MAX * self.rng.f64())).await;
                self.server.start().await;
                self.suffer().await;
            }
            Trouble::EtcdStopped => {
                self.cluster.etcd.freeze();
                self.link.cut();
                lasting(Duration::from_secs_f64(FAULT_S_MAX * self.rng.f64())).await;
                self.cluster.etcd.thaw();
                self.suffer().await;
            }
            Trouble::DiskFull => {
                self.disk.fill();
                self.suffer().await;
                self.disk.make_room();
                self.deleted.push(FILLER.to_owned());
            }
            Trouble::Killed => {
                self.change().await;
                victim.kill();
                self.suffer().await;
                victim.start();
            }
            Trouble::RoleTaken => {
                self.account.forbid(self.namespace, &rule()).await;
                self.link.cut();
                self.suffer().await;
                self.account.bind(self.namespace, &rule()).await;
            }
            Trouble::TokenReplaced => {
                pod.put("token", "no token");
                self.link.cut();
                self.suffer().await;
                pod.put("token", &self.account.token().await);
            }
        }
    }
}

/// A second sidecar, which is killed now and then, so that the first can be measured all the time.
struct Victim<'w> {
    launch: Launch<'w>,
    running: Option<Sidecar<'w>>,
}

impl Victim<'_> {
    fn start(&mut self) {
        self.running = Some(self.launch.start());
    }

    fn kill(&mut self) {
        self.running.take().expect("it is started after each kill").kill();
    }

    async fn holds(&self, files: &Files) {
        self.running.as_ref().expect("it is running").holds_within(RECOVERY_MAX, files).await;
    }
}

/// Returns how long a random test goes on, in seconds.
pub fn duration() -> u64 {
    std::env::var(DURATION).map_or(60, |text| text.parse().expect("a number of seconds"))
}

/// Asks all endpoints, again and again, as long as the test's runtime runs.
async fn poll(address: SocketAddr, answers: Rc<Cell<usize>>) {
    loop {
        for path in ["/livez", "/readyz", "/metrics", "/status"] {
            // It may be stopped.
            if let Ok(Ok(_)) = tokio::time::timeout(PATIENCE, ask(address, path)).await {
                answers.set(answers.get() + 1);
            }
        }
        lasting(Duration::from_millis(100)).await;
    }
}

async fn put<K: Item>(namespace: &Namespace, object: &K, is_there: bool, goes: bool) {
    match (is_there, goes) {
        (false, _) => drop(namespace.create(object).await),
        (true, false) => drop(namespace.replace(object).await),
        (true, true) => namespace.delete(object).await,
    }
}

/// Fails if the last third of the moments has more of it than the first third, and this more.
fn assert_flat(what: &str, moments: &[u64], slack: u64) {
    let third = moments.len() / 3;
    let most = |some: &[u64]| some.iter().copied().max().unwrap_or_default();
    let (first, last) = (most(&moments[..third]), most(&moments[moments.len() - third..]));
    println!("{what}: {moments:?}");
    assert!(last <= first + slack, "{what} grew from {first} to {last}");
}

#[test]
fn under_one_fault_after_the_other_the_directory_is_right_and_nothing_grows() {
    let seconds = duration();
    let seed = fastrand::u64(..);
    println!("seed: {seed}");
    run(async {
        let cluster = Cluster::start();
        let server = cluster.api_server("soaked", &[]).await;
        let (namespace, workspace, other) = (Namespace::on(&server).await, Workspace::new(), Workspace::new());
        let mut world = World::new(seed, &cluster, &server, &namespace, &workspace).await;
        let token = world.account.token().await;
        let access = Access { address: world.link.address, token, ..world.faulty.access.clone() };
        let options = ["--kinds", "configmaps,secrets", "--exec", "true"];
        let pod = Pod::new(&workspace, &namespace.name, &access);
        let sidecar = pod.launch(&access).args(options).args(["--listen", "127.0.0.1:0"]).start();
        let admin = Access { token: server.admin_access().token, ..access.clone() };
        let launch = Launch::new(&other).access(&admin).args(["--namespace", &namespace.name]).args(options);
        let mut victim = Victim { launch, running: None };
        victim.start();
        sidecar.in_sync().await;
        let (endpoints, answers) = (Endpoints::of(&sidecar).await, Rc::new(Cell::new(0)));
        let mut witness = Witness::of(&workspace);
        let soak = async {
            let (began, mut moments, mut to_come) = (Instant::now(), Vec::<Usage>::new(), Vec::new());
            while began.elapsed() < Duration::from_secs(seconds) || moments.len() < TROUBLES.len() {
                if to_come.is_empty() {
                    to_come.extend(TROUBLES);
                    world.rng.shuffle(&mut to_come);
                }
                let Some(trouble) = to_come.pop() else { continue };
                println!("{:?}: {trouble:?}", began.elapsed());
                world.fault(trouble, &sidecar, &pod, &mut victim).await;
                let files = Files::new(&world.objects);
                sidecar.holds_within(RECOVERY_MAX, &files).await;
                victim.holds(&files).await;
                endpoints.becomes("/readyz", 200).await;
                endpoints.becomes("/livez", 200).await;
                let removed = witness.removed();
                assert!(removed.iter().all(|name| world.deleted.contains(name)), "{removed:?}: {:?}", world.deleted);
                world.deleted.clear();
                moments.push(sidecar.usage());
            }
            moments
        };
        let moments = tokio::select! {
            moments = soak => moments,
            () = poll(endpoints.address, Rc::clone(&answers)) => unreachable!("it does not end"),
        };
        println!("{} answers of the endpoints", answers.get());
        assert!(answers.get() > 4 * moments.len(), "the endpoints gave {} answers", answers.get());
        let each = |what: fn(&Usage) -> u64| moments.iter().map(what).collect::<Vec<_>>();
        assert_flat("descriptors", &each(|usage| usage.descriptors), 6);
        assert_flat("threads", &each(|usage| usage.threads), 4);
        assert_flat("resident KiB", &each(|usage| usage.resident_kib), 4096);
        sidecar.terminate().await;
    });
}
