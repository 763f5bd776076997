//! Objects on the server, the run of configbump, and what others put into DIR.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::mode::{Mode, Prune, VIEW};
use super::model::{BAD, EVIL, Name, Object, Objects, Version, head, named};
use super::observer::Observer;
use crate::harness::access::Access;
use crate::harness::namespace::Namespace;
use crate::harness::sidecar::{Launch, Sidecar};
use crate::harness::target::Target;
use crate::harness::wait::lasting;
use crate::harness::workspace::Workspace;

/// Objects of each namespace that conflict with each other.
const OBJECTS: usize = 4;

/// Most operations at a time.
const OPERATIONS_MAX: usize = 8;

/// Longest time from an operation to a kill.
const KILL_MS_MAX: u64 = 300;

/// Object and key that exist all the time. They are in the first namespace.
pub const PINNED: &str = "pinned";

/// Namespace whose Role is revoked.
pub const REVOKED: usize = 1;

/// One run of configbump, and where its bumps are recorded.
pub struct Run {
    pub calls: String,
    /// Bumps of the target before this run; `None`: the run bumps a command.
    pub target_bumps: Option<usize>,
}

pub struct World<'a> {
    pub workspace: &'a Workspace,
    pub namespaces: [Namespace; 3],
    pub names: Vec<String>,
    pub target: Target,
    pub observer: Observer,
    pub base: Launch<'a>,
    pub rng: Rng,
    pub began: Instant,
    pub serial: u64,
    pub objects: Objects,
    /// Objects of the revoked namespace as configbump saw them last.
    pub last_seen: Option<Objects>,
    pub foreign: BTreeMap<String, Vec<u8>>,
    /// Foreign files that configbump may have removed.
    pub foreign_at_risk: BTreeSet<String>,
    /// Foreign files that the first sync removes.
    pub foreign_doomed: BTreeSet<String>,
    /// Path at which a foreign directory stands.
    pub blocked: Option<String>,
    /// Files of the forbidden namespace when configbump was started.
    pub forbidden: Vec<String>,
    /// configbump was started while a path was blocked, or a namespace was forbidden.
    pub is_blind: bool,
    pub mode: Mode,
    pub runs: Vec<Run>,
    pub sidecar: Option<Sidecar<'a>>,
}

impl<'a> World<'a> {
    pub async fn new(seed: u64, workspace: &'a Workspace, namespaces: [Namespace; 3], access: &Access) -> Self {
        let names: Vec<_> = namespaces.iter().map(|namespace| namespace.name.clone()).collect();
        let base = Launch::new(workspace).access(access).args(["--namespace", &names.join(",")]);
        let mut rng = Rng::with_seed(seed);
        let mode = Mode::random(&mut rng);
        let target = Target::noting(workspace, VIEW).await;
        let observer = Observer::of(workspace.dir());
        let mut world = Self {
            workspace,
            namespaces,
            names,
            target,
            observer,
            base,
            rng,
            began: Instant::now(),
            serial: 0,
            objects: Objects::new(),
            last_seen: None,
            foreign: BTreeMap::new(),
            foreign_at_risk: BTreeSet::new(),
            foreign_doomed: BTreeSet::new(),
            blocked: None,
            forbidden: Vec::new(),
            is_blind: false,
            mode,
            runs: Vec::new(),
            sidecar: None,
        };
        world.put_single((0, PINNED.to_owned()), "good").await;
        world.start(mode);
        world.becomes_quiet().await;
        world
    }

    pub fn say(&self, what: &str) {
        println!("{:7.3} s: {what}", self.began.elapsed().as_secs_f64());
    }

    pub fn sidecar(&self) -> &Sidecar<'a> {
        self.sidecar.as_ref().expect("a sidecar that runs")
    }

    // Objects.

    /// Creates or replaces an object on the server.
    pub async fn put(&mut self, name: Name, version: Version, is_selected: bool) {
        self.observer.give(&self.names, &name, &version);
        let before = self.objects.get(&name);
        let mut history = before.map(|object| object.history.clone()).unwrap_or_default();
        if let Some(before) = before.filter(|before| !before.is_refused()) {
            history.push(before.version.clone());
        }
        let created = before.and_then(|before| before.created.clone());
        let is_there = before.is_some();
        let mut object = Object { created, is_selected, version, history };
        let config_map = object.to_config_map(&name);
        let heads: Vec<_> = object.version.values.values().map(|value| head(value.as_bytes())).collect();
        self.say(&format!("put {name:?} in {:?}, selected: {is_selected}: {heads:?}", object.version.directory));
        if is_there {
            self.namespaces[name.0].replace(&config_map).await;
        } else {
            object.created = self.namespaces[name.0].create(&config_map).await.metadata.creation_timestamp;
        }
        self.objects.insert(name, object);
        self.risk_foreign();
    }

    pub async fn put_single(&mut self, name: Name, mark: &str) {
        self.serial += 1;
        let version = Version::single(&mut self.rng, &name, self.serial, mark);
        self.put(name, version, true).await;
    }

    pub async fn delete(&mut self, name: &Name) {
        self.say(&format!("delete {name:?}"));
        self.objects.remove(name);
        self.namespaces[name.0].delete(&named(name)).await;
        self.risk_foreign();
    }

    /// Foreign files at paths that an object wins now may be replaced.
    pub fn risk_foreign(&mut self) {
        let files = self.wanted();
        let at_risk = self.foreign.keys().filter(|path| files.contains_key(*path)).cloned();
        self.foreign_at_risk.extend(at_risk);
    }

    /// Runs one random operation.
    pub async fn operate(&mut self) {
        if self.rng.u8(..8) == 0 {
            return self.put_single((0, PINNED.to_owned()), "good").await;
        }
        let name = (self.rng.usize(..self.namespaces.len()), format!("object-{}", self.rng.usize(..OBJECTS)));
        self.serial += 1;
        let fresh = Version::random(&mut self.rng, &name, self.serial);
        let Some(object) = self.objects.get(&name) else {
            return self.put(name, fresh, true).await;
        };
        let (is_selected, current, history) = (object.is_selected, object.version.clone(), object.history.clone());
        match self.rng.u8(..10) {
            0..4 => self.put(name, fresh, is_selected).await,
            4..6 => self.delete(&name).await,
            6..8 => self.put(name, current, !is_selected).await,
            8 if !history.is_empty() => {
                let earlier = history[self.rng.usize(..history.len())].clone();
                self.put(name, earlier, is_selected).await;
            }
            _ => self.put(name, Version { directory: fresh.directory, ..current }, is_selected).await,
        }
    }

    pub async fn operate_some(&mut self) {
        for _ in 0..self.rng.usize(1..=OPERATIONS_MAX) {
            self.operate().await;
        }
    }

    // The process.

    pub fn start(&mut self, mode: Mode) {
        if mode.layout != self.mode.layout {
            self.observer.pin(None);
        }
        self.observer.is_set(false);
        self.mode = mode;
        self.is_blind = self.blocked.is_some() || self.last_seen.is_some();
        self.forbidden.clear();
        if self.last_seen.is_some() {
            let files = self.workspace.files().into_map();
            let is_forbidden = |content: &[u8]| head(content).starts_with(&format!("{REVOKED}/"));
            let forbidden = files.into_iter().filter(|(_, content)| is_forbidden(content));
            self.forbidden.extend(forbidden.map(|(path, _)| path));
        }
        self.risk_foreign();
        // An earlier run may have been killed before it removed the files of others.
        self.foreign_at_risk.extend(std::mem::take(&mut self.foreign_doomed));
        if mode.prune == Prune::All {
            self.foreign_doomed.extend(self.foreign.keys().cloned());
        }
        let calls = format!("calls-{}", self.runs.len());
        self.say(&format!("start {calls}: {mode:?}"));
        let target_bumps = (!mode.exec).then(|| self.target.bumps().len());
        self.sidecar = Some(mode.launch(&self.base, self.workspace, &calls).start());
        self.runs.push(Run { calls, target_bumps });
    }

    /// Kills configbump at a random moment.
    pub async fn kill(&mut self) {
        lasting(Duration::from_millis(self.rng.u64(..KILL_MS_MAX))).await;
        self.say("kill");
        self.observer.saw_no_violation();
        self.observer.keep_until(Vec::new(), Instant::now());
        self.sidecar.take().expect("a sidecar that runs").kill();
    }

    /// Starts configbump in a random mode. Without something that refuses them, refused contents have to go first.
    pub async fn start_anew(&mut self) {
        let mut mode = Mode::random(&mut self.rng);
        if self.blocked.is_some() {
            mode.rollback = false;
            mode.prune = if mode.prune == Prune::All { Prune::Owned } else { mode.prune };
        }
        if self.last_seen.is_some() {
            mode.layout = self.mode.layout;
        }
        let before = self.mode;
        let has = |mark| self.objects.values().any(|object| object.is_marked(mark));
        let keeps_bad = mode.check && before.check || !has(BAD);
        let keeps_evil = mode.rollback && before.rollback || !has(EVIL);
        if !keeps_bad || !keeps_evil {
            self.mend_all().await;
        }
        self.start(mode);
    }

    /// Has all refused contents leave: by deletion, without the label, by their earlier content or a new one.
    pub async fn mend_all(&mut self) {
        let refused = self.objects.iter().filter(|(_, object)| object.is_refused());
        let refused: Vec<_> = refused.map(|(name, object)| (name.clone(), object.clone())).collect();
        for (name, object) in refused {
            match (self.rng.u8(..4), object.history.last()) {
                (0, _) => self.delete(&name).await,
                (1, _) => {
                    self.put(name.clone(), object.version, false).await;
                    // A content that is selected again is good.
                    if self.rng.bool() {
                        self.delete(&name).await;
                    }
                }
                (2, Some(earlier)) => self.put(name, earlier.clone(), true).await,
                _ => self.put_single(name, "good").await,
            }
        }
    }

    /// Puts a whole file of others to a path.
    pub fn plant(&mut self, path: &str) {
        self.serial += 1;
        let content = format!("foreign {}\n", self.serial).into_bytes();
        self.say(&format!("plant foreign {path}: {:?}", head(&content)));
        self.observer.give_file(path, &content);
        let temporary = self.workspace.fresh("foreign");
        fs::write(&temporary, &content)
            .and_then(|()| fs::rename(&temporary, self.workspace.path(path)))
            .expect("a file");
        self.foreign.insert(path.to_owned(), content);
    }
}
