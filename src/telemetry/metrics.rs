//! Every metric that there is. `docs/metrics.md` is made of this, and a test compares the two.
//!
//! The values of a label are few, known here or where a bump is chosen, and never anything that an object says. To add a
//! metric: a field, a line in [`Metrics::new`], the place that counts, and in the page what the test prints.

#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use super::{Announced, Check, Outcome};
use crate::event::What;

/// What sources say of objects, and a server of none.
pub(super) const EVENTS: [&str; 4] = ["apply", "keep", "delete", "bookmark"];

/// The bounds of the buckets for the time that a bump takes, in seconds: a signal takes a millisecond, a restart seconds.
const BUMP_BUCKETS: [f64; 8] = [0.001, 0.01, 0.05, 0.25, 1.0, 5.0, 15.0, 60.0];

type Labels<const N: usize> = [(&'static str, &'static str); N];
type Histograms = Family<Labels<1>, Histogram, fn() -> Histogram>;

/// In seconds, or a moment in seconds since 1970.
type Seconds = Gauge<f64, AtomicU64>;

#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    events: Family<Labels<1>, Counter>,
    lists: Counter,
    relists: Counter,
    pub watches: Counter,
    failures: Family<Labels<1>, Counter>,
    pub writes: Counter,
    pub removals: Counter,
    pub failed_changes: Counter,
    pub publishes: Counter,
    checks: Family<Labels<1>, Counter>,
    pub rollbacks: Counter,
    bumps: Family<Labels<2>, Counter>,
    bump_duration: Histograms,
    kubernetes_events: Family<Labels<1>, Counter>,
    gauges: Gauges,
}

/// What is looked up when somebody looks.
#[derive(Debug)]
struct Gauges {
    last_progress: Seconds,
    last_sync: Seconds,
    last_bump: Seconds,
    ready: Gauge,
    objects: Gauge,
    files: Gauge,
    conflicts: Gauge,
    refused: Gauge,
    held_objects: Gauge,
    held_removals: Gauge,
    bump_pending: Gauge,
}

/// The values for the gauges. A moment that has not been is none.
#[derive(Debug, Default)]
pub(super) struct Present {
    pub last_progress: Option<SystemTime>,
    pub last_sync: Option<SystemTime>,
    pub last_bump: Option<SystemTime>,
    pub ready: bool,
    pub objects: usize,
    pub files: usize,
    pub conflicts: usize,
    pub refused: usize,
    pub held_objects: usize,
    pub held_removals: usize,
    pub bump_pending: bool,
}

impl Metrics {
    pub fn new() -> Self {
        let mut to = Registry::with_prefix("configbump");
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        to.register("build", "The version that runs; always 1", version);
        let metrics = Self {
            events: add(&mut to, "events", "What sources have reported, by type", Family::default()),
            lists: add(&mut to, "lists", "Lists that were complete", Counter::default()),
            relists: add(
                &mut to,
                "relists",
                "Lists begun of what had been listed completely before",
                Counter::default(),
            ),
            watches: add(&mut to, "watches", "Watches that the server has begun", Counter::default()),
            failures: add(
                &mut to,
                "source_failures",
                "Questions to the server that failed, by reason",
                Family::default(),
            ),
            writes: add(&mut to, "writes", "Files written", Counter::default()),
            removals: add(&mut to, "removals", "Files removed", Counter::default()),
            failed_changes: add(
                &mut to,
                "failed_changes",
                "Changes that could not be made on disk, each try counted",
                Counter::default(),
            ),
            publishes: add(&mut to, "publishes", "Sets of changes that have gone live together", Counter::default()),
            checks: add(&mut to, "checks", "Runs of the check, by outcome", Family::default()),
            rollbacks: add(&mut to, "rollbacks", "Sets of changes that were taken back", Counter::default()),
            bumps: add(&mut to, "bumps", "Tries to bump, by kind and outcome", Family::default()),
            bump_duration: add(
                &mut to,
                "bump_duration_seconds",
                "How long a try to bump took that found somebody to bump, by kind",
                Family::new_with_constructor(|| Histogram::new(BUMP_BUCKETS)),
            ),
            kubernetes_events: add(
                &mut to,
                "kubernetes_events",
                "What was to be told by Kubernetes Events, by outcome",
                Family::default(),
            ),
            gauges: Gauges::new(&mut to),
            registry: to,
        };
        EVENTS.into_iter().for_each(|kind| drop(metrics.events.get_or_create(&[("type", kind)])));
        for check in [Check::Passed, Check::Refused, Check::NotRun] {
            drop(metrics.checks.get_or_create(&[("outcome", check.name())]));
        }
        for outcome in [Announced::Sent, Announced::Failed, Announced::Dropped] {
            drop(metrics.kubernetes_events.get_or_create(&[("outcome", outcome.name())]));
        }
        metrics
    }

    /// An event of a scope, of which a list had been complete before or not.
    pub fn took(&self, what: &What, had_listed: bool) {
        let [apply, keep, delete, _] = EVENTS;
        match what {
            What::Apply(_) => self.event(apply),
            What::Keep(_) => self.event(keep),
            What::Delete(_) => self.event(delete),
            What::ListStarted => _ = self.relists.inc_by(had_listed.into()),
            What::ListDone => _ = self.lists.inc(),
        }
    }

    pub fn bookmark(&self) {
        let [.., bookmark] = EVENTS;
        self.event(bookmark);
    }

    #[cfg(test)]
    pub fn bookmarks(&self) -> u64 {
        let [.., bookmark] = EVENTS;
        self.events.get_or_create(&[("type", bookmark)]).get()
    }

    fn event(&self, kind: &'static str) {
        self.events.get_or_create(&[("type", kind)]).inc();
    }

    pub fn checked(&self, check: Check) {
        self.checks.get_or_create(&[("outcome", check.name())]).inc();
    }

    pub fn announced(&self, outcome: Announced) {
        self.kubernetes_events.get_or_create(&[("outcome", outcome.name())]).inc();
    }

    pub fn source_failed(&self, reason: &'static str) {
        self.failures.get_or_create(&[("reason", reason)]).inc();
    }

    /// Has them count from 0: a rate needs a beginning.
    pub fn will_fail(&self, reasons: impl IntoIterator<Item = &'static str>) {
        reasons.into_iter().for_each(|reason| drop(self.failures.get_or_create(&[("reason", reason)])));
    }

    /// The same for a kind of bump.
    pub fn will_bump(&self, kind: &'static str) {
        for outcome in [Outcome::Succeeded, Outcome::Failed, Outcome::Refused, Outcome::Waiting] {
            drop(self.bumps.get_or_create(&[("kind", kind), ("outcome", outcome.name())]));
        }
        drop(self.bump_duration.get_or_create(&[("kind", kind)]));
    }

    pub fn bumped(&self, kind: &'static str, outcome: Outcome, took: Duration) {
        self.bumps.get_or_create(&[("kind", kind), ("outcome", outcome.name())]).inc();
        if outcome != Outcome::Waiting {
            self.bump_duration.get_or_create(&[("kind", kind)]).observe(took.as_secs_f64());
        }
    }

    /// In the text format of OpenMetrics.
    pub fn text(&self, present: &Present) -> String {
        self.gauges.set(present);
        let mut text = String::new();
        // A string takes whatever is written.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl Gauges {
    fn new(to: &mut Registry) -> Self {
        Self {
            last_progress: add(
                to,
                "last_progress_timestamp_seconds",
                "When every source had last said something, an object or a bookmark; 0: not yet",
                Seconds::default(),
            ),
            last_sync: add(
                to,
                "last_sync_timestamp_seconds",
                "When the directory was last brought in step, or found to be; 0: not yet",
                Seconds::default(),
            ),
            last_bump: add(
                to,
                "last_bump_timestamp_seconds",
                "When all had last been told of all changes; 0: not yet",
                Seconds::default(),
            ),
            ready: add(to, "ready", "1 if readyz says so, else 0", Gauge::default()),
            objects: add(to, "objects", "Objects followed", Gauge::default()),
            files: add(to, "files", "Files in the directory that are configbump's", Gauge::default()),
            conflicts: add(to, "conflicts", "Files that wait for a path that an older object has", Gauge::default()),
            refused: add(to, "refused_objects", "Objects that ask for a place that they cannot have", Gauge::default()),
            held_objects: add(to, "held_objects", "Objects of which a change is held back", Gauge::default()),
            held_removals: add(to, "held_removals", "Removals that are held back", Gauge::default()),
            bump_pending: add(to, "bump_pending", "1 while a change on disk is to be told, else 0", Gauge::default()),
        }
    }

    fn set(&self, present: &Present) {
        let seconds = |moment: Option<SystemTime>| {
            moment.and_then(|moment| moment.duration_since(UNIX_EPOCH).ok()).map_or(0.0, |since| since.as_secs_f64())
        };
        let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.last_progress.set(seconds(present.last_progress));
        self.last_sync.set(seconds(present.last_sync));
        self.last_bump.set(seconds(present.last_bump));
        self.ready.set(present.ready.into());
        self.objects.set(count(present.objects));
        self.files.set(count(present.files));
        self.conflicts.set(count(present.conflicts));
        self.refused.set(count(present.refused));
        self.held_objects.set(count(present.held_objects));
        self.held_removals.set(count(present.held_removals));
        self.bump_pending.set(present.bump_pending.into());
    }
}

impl Check {
    fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Refused => "refused",
            Self::NotRun => "not_run",
        }
    }
}

impl Announced {
    fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Dropped => "dropped",
        }
    }
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "success",
            Self::Failed => "failure",
            Self::Refused => "refused",
            Self::Waiting => "waiting",
        }
    }
}

fn add<M: Metric + Clone>(to: &mut Registry, name: &str, help: &str, metric: M) -> M {
    to.register(name, help, metric.clone());
    metric
}
