//! Random operations, kills and changes of mode: DIR is as the model of the contract says, once quiet and at every moment.

mod expectation;
mod mode;
mod model;
mod observer;
mod world;

use std::fs;
use std::time::{Duration, Instant};

use k8s_openapi::api::rbac::v1::PolicyRule;
use rustix::process::Signal;

use self::mode::{GUARD_SHARE, HOLD_S, Prune};
use self::model::{BAD, DIRECTORIES, EVIL, Name, Object};
use self::world::{PINNED, REVOKED, World};
use crate::harness::access::Access;
use crate::harness::account::{Account, least};
use crate::harness::cluster::ApiServer;
use crate::harness::link::{Link, State};
use crate::harness::namespace::Namespace;
use crate::harness::wait::run;
use crate::harness::workspace::Workspace;
use crate::soak::duration;

/// Variable with the seed. A failed test prints its seed.
const SEED: &str = "CONFIGBUMP_RANDOM_SEED";

/// Objects of each namespace whose content may be refused.
const RISKY: usize = 2;

/// Path that belongs to others, and one that objects may claim later.
const FOREIGN: [&str; 2] = ["zz", "c"];

/// Each scenario runs at least once.
#[derive(Clone, Copy, Debug)]
enum Scenario {
    Changes,
    Batch,
    Killed,
    Refused,
    Purge,
    Revoked,
    Blocked,
    Foreign,
}

const SCENARIOS: [Scenario; 10] = [
    Scenario::Changes,
    Scenario::Batch,
    Scenario::Killed,
    Scenario::Killed,
    Scenario::Refused,
    Scenario::Refused,
    Scenario::Purge,
    Scenario::Revoked,
    Scenario::Blocked,
    Scenario::Foreign,
];

/// Account of the sidecars, its rights, and its connections.
struct Role<'a> {
    account: Account<'a>,
    rule: PolicyRule,
    link: Link,
}

impl World<'_> {
    async fn play(&mut self, scenario: Scenario, role: &Role<'_>) {
        self.say(&format!("{scenario:?}"));
        match scenario {
            Scenario::Changes => self.operate_some().await,
            Scenario::Batch => self.batch().await,
            Scenario::Killed => self.killed().await,
            Scenario::Refused => self.refused().await,
            Scenario::Purge => self.purge().await,
            Scenario::Revoked => self.revoked(role).await,
            Scenario::Blocked => self.blocked().await,
            Scenario::Foreign => self.foreign(),
        }
        self.becomes_quiet().await;
    }

    /// Changes that configbump sees together.
    async fn batch(&mut self) {
        self.sidecar().signal(Signal::STOP);
        self.operate_some().await;
        self.sidecar().signal(Signal::CONT);
    }

    /// A kill amid changes, changes without configbump, and perhaps another kill early in the next run.
    async fn killed(&mut self) {
        self.operate_some().await;
        self.kill().await;
        if self.rng.bool() {
            self.operate_some().await;
        }
        self.start_anew().await;
        if self.rng.bool() {
            self.operate_some().await;
            self.kill().await;
            self.start_anew().await;
        }
    }

    /// Contents that the check or the program refuses, among others, until they leave.
    async fn refused(&mut self) {
        let marks: Vec<_> =
            [(self.mode.check, BAD), (self.mode.rollback, EVIL)].into_iter().filter(|(is_on, _)| *is_on).collect();
        if marks.is_empty() {
            return self.operate_some().await;
        }
        let is_batch = self.rng.bool();
        if is_batch {
            self.sidecar().signal(Signal::STOP);
        }
        for _ in 0..self.rng.usize(1..=2) {
            let namespace = self.rng.usize(..self.namespaces.len());
            let name = (namespace, format!("risky-{namespace}-{}", self.rng.usize(..RISKY)));
            if name.0 == REVOKED && self.last_seen.is_some() {
                continue;
            }
            let (_, mark) = marks[self.rng.usize(..marks.len())];
            if self.rng.bool() && self.objects.contains_key(&name) {
                self.put_single(name.clone(), "good").await;
            }
            self.put_single(name, mark).await;
        }
        self.operate_some().await;
        if is_batch {
            self.sidecar().signal(Signal::CONT);
        }
        self.becomes_quiet().await;
        match self.rng.u8(..4) {
            0 => self.operate_some().await,
            1 => {
                self.operate_some().await;
                self.kill().await;
                self.start_anew().await;
            }
            _ => {}
        }
        self.becomes_quiet().await;
        self.mend_all().await;
    }

    /// Most objects are deleted at once. The deletion guard keeps their files for a while.
    async fn purge(&mut self) {
        let before = self.wanted();
        self.sidecar().signal(Signal::STOP);
        let mut names: Vec<_> = self.objects.keys().filter(|(_, name)| name != PINNED).cloned().collect();
        names.retain(|(namespace, _)| *namespace != REVOKED || self.last_seen.is_none());
        self.rng.shuffle(&mut names);
        names.truncate(names.len() - self.rng.usize(..3).min(names.len()));
        for name in &names {
            self.delete(name).await;
        }
        let after = self.wanted();
        let gone: Vec<_> = before.keys().filter(|path| !after.contains_key(*path)).cloned().collect();
        #[expect(clippy::cast_precision_loss, reason = "there are few files")]
        let is_held = self.mode.holds_deletions() && gone.len() as f64 > GUARD_SHARE * (before.len() + 1) as f64;
        if is_held && self.last_seen.is_none() {
            let makes_way = |path: &String| after.keys().any(|winner| model::conflicts(winner, path));
            let kept: Vec<_> = gone.into_iter().filter(|path| !makes_way(path)).collect();
            self.say(&format!("the guard keeps {kept:?} of {:?}", before.keys()));
            self.observer.keep_until(kept, Instant::now() + Duration::from_secs(HOLD_S));
        }
        self.sidecar().signal(Signal::CONT);
    }

    /// The Role of one namespace is revoked. The others go on.
    async fn revoked(&mut self, role: &Role<'_>) {
        let of_revoked = |((namespace, _), _): &(&Name, &Object)| *namespace == REVOKED;
        self.last_seen = Some(self.objects.iter().filter(of_revoked).map(|(n, o)| (n.clone(), o.clone())).collect());
        self.say("revoke");
        role.account.forbid(&self.namespaces[REVOKED], &role.rule).await;
        role.link.cut();
        match self.rng.u8(..3) {
            0 => self.refused().await,
            1 => {
                self.purge().await;
                self.becomes_quiet().await;
                self.operate_some().await;
            }
            _ => self.operate_some().await,
        }
        self.becomes_quiet().await;
        if self.rng.bool() {
            self.kill().await;
            self.start_anew().await;
            self.operate_some().await;
            self.becomes_quiet().await;
        }
        self.say("give back");
        role.account.bind(&self.namespaces[REVOKED], &role.rule).await;
        self.last_seen = None;
        self.is_blind = false;
    }

    /// A directory of others stands where a file belongs. Other files go on.
    async fn blocked(&mut self) {
        // A directory in which configbump has files could not be freed.
        let is_of_objects = |path: &String| DIRECTORIES.contains(&Some(path.as_str()));
        let mut candidates: Vec<_> = self.wanted().into_keys().collect();
        candidates.retain(|path| !path.ends_with(PINNED) && !is_of_objects(path));
        if candidates.is_empty() || self.mode.prune == Prune::All {
            return self.operate_some().await;
        }
        let path = candidates[self.rng.usize(..candidates.len())].clone();
        self.say(&format!("block {path}"));
        fs::remove_file(self.workspace.path(&path)).expect("a file");
        fs::create_dir(self.workspace.path(&path)).expect("a directory");
        let keep = format!("{path}/keep");
        self.plant(&keep);
        self.blocked = Some(path.clone());
        let value = self.wanted().remove(&path);
        let is_owner = |(name, object): &(&Name, &Object)| {
            let mut claims = self.claims(name, object);
            object.is_selected && claims.any(|claim| claim.0 == path && Some(claim.1.as_bytes()) == value.as_deref())
        };
        let owner = self.objects.iter().find(is_owner).map(|(name, object)| (name.clone(), object.version.clone()));
        let (name, version) = owner.expect("each file has an owner");
        self.serial += 1;
        self.put(name, version.renewed(self.serial), true).await;
        self.operate_some().await;
        self.becomes_quiet().await;
        if self.rng.bool() {
            self.kill().await;
            self.start_anew().await;
            self.operate_some().await;
            self.becomes_quiet().await;
        }
        self.say(&format!("free {path}"));
        fs::remove_file(self.workspace.path(&keep)).expect("a file of others");
        fs::remove_dir(self.workspace.path(&path)).expect("an empty directory");
        self.foreign.remove(&keep);
        self.blocked = None;
        self.is_blind = false;
    }

    /// Files of others come, change and go.
    fn foreign(&mut self) {
        for path in FOREIGN {
            let claims = self.objects.iter().flat_map(|(name, object)| self.claims(name, object));
            let is_claimed = claims.into_iter().any(|(claimed, _)| claimed == path);
            let is_there = self.workspace.path(path).exists();
            if self.foreign.contains_key(path) && self.rng.bool() {
                self.say(&format!("remove foreign {path}"));
                self.foreign.remove(path);
                fs::remove_file(self.workspace.path(path)).expect("a file of others");
            } else if self.foreign.contains_key(path) || !is_there && !is_claimed {
                self.plant(path);
            }
        }
    }
}

#[test]
#[ignore = "its model is not complete: it still fails on about one seed in four; make soak runs it"]
fn random_operations_and_kills_keep_the_contract() {
    let seconds = duration();
    let seed = std::env::var(SEED).map_or_else(|_| fastrand::u64(..), |text| text.parse().expect("a seed"));
    println!("seed: {SEED}={seed}");
    run(async {
        let workspace = Workspace::new();
        let namespaces = [Namespace::new().await, Namespace::new().await, Namespace::new().await];
        let home = Namespace::new().await;
        let (account, rule) = (Account::new(&home, "sidecar").await, least(&["configmaps"]));
        for namespace in &namespaces {
            account.allow(namespace, rule.clone()).await;
        }
        let admin = ApiServer::shared().admin_access();
        let link = Link::to(admin.address, State::Up).await;
        let access = Access { address: link.address, token: account.token().await, ..admin };
        let role = Role { account, rule, link };
        let mut world = World::new(seed, &workspace, namespaces, &access).await;
        let (mut played, mut to_come) = (0, Vec::new());
        while world.began.elapsed() < Duration::from_secs(seconds) || played < SCENARIOS.len() {
            if to_come.is_empty() {
                to_come.extend(SCENARIOS);
                world.rng.shuffle(&mut to_come);
            }
            let Some(scenario) = to_come.pop() else { continue };
            world.play(scenario, &role).await;
            played += 1;
        }
        world.say(&format!("{played} scenarios, {} runs", world.runs.len()));
        world.sidecar.take().expect("a sidecar that runs").terminate().await;
        world.observer.saw_no_violation();
    });
}
