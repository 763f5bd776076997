//! Changes under one fault after the other, for half an hour (`make soak`) or for a minute: nothing is lost, nothing grows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::process::Signal;

use crate::faults::bad_answers;
use crate::harness::access::Access;
use crate::harness::cluster::ApiServer;
use crate::harness::faulty::{Fault, Faulty};
use crate::harness::link::{Link, State};
use crate::harness::namespace::{Item, Namespace};
use crate::harness::object::{config_map, secret};
use crate::harness::sidecar::{Launch, Sidecar};
use crate::harness::usage::Usage;
use crate::harness::wait::{lasting, run};
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

/// How often the sidecar is measured at least.
const MOMENTS_MIN: usize = 6;

/// The objects, and what leads from the sidecar to the server: the link, then the proxy.
struct World {
    namespace: Namespace,
    faulty: Faulty,
    link: Link,
    rng: Rng,
    /// The value of each object, by its name, which is also its key.
    objects: BTreeMap<String, String>,
    /// What was deleted since the directory was looked at.
    deleted: Vec<String>,
}

impl World {
    async fn new(seed: u64) -> Self {
        let faulty = Faulty::before(&ApiServer::shared().admin_access()).await;
        let link = Link::to(faulty.access.address, State::Up).await;
        let (objects, deleted, rng) = (BTreeMap::new(), Vec::new(), Rng::with_seed(seed));
        Self { namespace: Namespace::new().await, faulty, link, rng, objects, deleted }
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
            put(&self.namespace, &secret(&name, [(&name, value.as_bytes())]), is_there, goes).await;
        } else {
            put(&self.namespace, &config_map(&name, [(&name, &value)]), is_there, goes).await;
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

    /// One fault, from its beginning to its end.
    async fn fault(&mut self, sidecar: &Sidecar<'_>) {
        let mut answers = bad_answers();
        match self.rng.usize(..answers.len() + 5) {
            0 => {
                self.link.set(State::Down);
                self.suffer().await;
                self.link.set(State::Up);
            }
            1 => {
                self.link.lose_connections();
                self.suffer().await;
            }
            2 => {
                self.faulty.expire();
                self.suffer().await;
                self.faulty.renew();
            }
            3 => {
                sidecar.signal(Signal::STOP);
                self.suffer().await;
                sidecar.signal(Signal::CONT);
            }
            4 => self.suffer().await,
            bad => {
                self.faulty.set(answers.swap_remove(bad - 5).1);
                self.suffer().await;
                self.faulty.set(Fault::None);
            }
        }
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
    let seconds = std::env::var(DURATION).map_or(60, |text| text.parse().expect("a number of seconds"));
    let seed = fastrand::u64(..);
    println!("seed: {seed}");
    run(async {
        let (mut world, workspace) = (World::new(seed).await, Workspace::new());
        let access = Access { address: world.link.address, ..world.faulty.access.clone() };
        let launch = Launch::new(&workspace).access(&access).args(["--namespace", &world.namespace.name]);
        let sidecar = launch.args(["--kinds", "configmaps,secrets", "--exec", "true"]).start();
        sidecar.in_sync().await;
        let mut witness = Witness::of(&workspace);
        let (began, mut moments) = (Instant::now(), Vec::<Usage>::new());
        while began.elapsed() < Duration::from_secs(seconds) || moments.len() < MOMENTS_MIN {
            world.fault(&sidecar).await;
            sidecar.holds_within(Duration::from_secs(60), &Files::new(&world.objects)).await;
            let removed = witness.removed();
            assert!(removed.iter().all(|name| world.deleted.contains(name)), "{removed:?}: {:?}", world.deleted);
            world.deleted.clear();
            moments.push(sidecar.usage());
        }
        let each = |what: fn(&Usage) -> u64| moments.iter().map(what).collect::<Vec<_>>();
        assert_flat("descriptors", &each(|usage| usage.descriptors), 4);
        assert_flat("threads", &each(|usage| usage.threads), 4);
        assert_flat("resident KiB", &each(|usage| usage.resident_kib), 4096);
        sidecar.terminate().await;
    });
}
