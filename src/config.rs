//! What was meant: the options after every check, with the impossible combinations gone.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::ValueEnum;
use kube::core::{Selector, SelectorExt};

use crate::bump::exec::ExecConfig;
use crate::bump::governor::Pace;
use crate::bump::process::TargetSpec;
use crate::bump::signal::{Signal, Unhandled};
use crate::bump::url::UrlConfig;
use crate::child::ChildConfig;
pub use crate::content::Modes;
use crate::object::Kind;
use crate::publish::brake::BrakeConfig;
use crate::publish::check::CheckConfig;
use crate::store::Publishing;
use crate::telemetry::endpoints::Address;
use crate::telemetry::{Format, Level};

/// Everything that configbump was asked to do.
#[derive(Clone, Debug)]
pub struct Config {
    pub dir: PathBuf,
    pub selection: Selection,
    pub source: SourceConfig,
    pub layout: Layout,
    /// The annotation that names a sub-folder of `dir` for its object.
    pub folder_annotation: Option<String>,
    pub modes: Modes,
    pub prune: Prune,
    pub publish: Publish,
    pub bump: Bump,
    /// Whether to end after the first sync.
    pub once: bool,
    pub sandbox: Sandbox,
    /// Where the endpoints are, if anywhere.
    pub listen: Option<Address>,
    pub log_format: Format,
    pub log_level: Level,
    /// What was asked for and cannot be had, a line each.
    pub notes: Vec<String>,
}

impl Config {
    /// Whether commands are run, which may leave orphans behind.
    #[must_use]
    pub fn starts_commands(&self) -> bool {
        self.bump.exec.is_some() || self.bump.program.is_some() || self.publish.check.is_some()
    }
}

/// Which objects are followed: those of the kinds and namespaces that the labels select or the names name.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Never empty, in the order of the enumeration, each once.
    pub kinds: Vec<Kind>,
    pub namespaces: Namespaces,
    /// Absent only if there are names.
    pub labels: Option<Labels>,
    /// Objects followed whatever their labels are; each once.
    pub names: Vec<String>,
}

impl Selection {
    /// Whether an object of this name with these labels is selected; its kind and namespace are not looked at.
    #[must_use]
    pub fn selects(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.names.iter().any(|wanted| wanted == name)
            || self.labels.as_ref().is_some_and(|wanted| wanted.selector.matches(labels))
    }
}

/// A label selector, as typed (a server evaluates that) and as parsed (manifests are matched against this).
#[derive(Clone, Debug)]
pub struct Labels {
    pub text: String,
    pub selector: Selector,
}

/// The namespaces that are followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    /// None was named: that of the credentials in a cluster, every one in manifests.
    Unset,
    /// Never empty, each once.
    Named(Vec<String>),
    All,
}

/// Where the objects come from.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    Cluster(ClusterConfig),
    /// Files and folders of manifests, never empty.
    Manifests(Vec<PathBuf>),
}

/// How to reach the API server.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    pub tls_verify: bool,
    /// Whether Events tell what becomes of objects.
    pub events: bool,
}

/// How changes go live.
#[derive(Clone, Debug)]
pub struct Publish {
    pub way: PublishWay,
    /// What has to pass before.
    pub check: Option<CheckConfig>,
    /// Whether what the program refuses is taken back.
    pub rollback: bool,
    pub brake: Option<BrakeConfig>,
    /// When a batch is complete.
    pub pace: Pace,
}

impl Publish {
    /// How batches go live, unless each change does at once.
    #[must_use]
    pub fn staged(&self) -> Option<Publishing> {
        let set = self.way == PublishWay::Set;
        let is_staged = set || self.check.is_some() || self.rollback;
        is_staged.then_some(Publishing { set, keeps_good: self.rollback })
    }
}

/// What goes live together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PublishWay {
    /// Each file by itself
    File,
    /// All files of a batch, by one symlink, as in the volumes that kubelet makes
    Set,
}

/// Who is told of changes, and when.
#[derive(Clone, Debug)]
pub struct Bump {
    pub exec: Option<ExecConfig>,
    pub url: Option<UrlConfig>,
    pub signal: Option<SignalConfig>,
    /// The program that configbump runs itself, and what a change means for it.
    pub program: Option<(ChildConfig, OnChange)>,
    pub pace: Pace,
    pub initial: InitialBump,
}

impl Bump {
    /// Whether anybody is.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.exec.is_some() || self.url.is_some() || self.signal.is_some() || self.program.is_some()
    }
}

/// Which process is sent which signal.
#[derive(Clone, Debug)]
pub struct SignalConfig {
    pub signal: Signal,
    pub target: TargetSpec,
    pub unhandled: Unhandled,
}

/// What a change means for the program that configbump runs itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnChange {
    /// Nothing: others are told.
    Nothing,
    Signal(Signal, Unhandled),
    Restart,
}

/// Whether the first sync bumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum InitialBump {
    /// If it changed a file; a process that was started after that is left alone
    Auto,
    /// Whether it changed a file or not
    Always,
    /// Later changes only
    Never,
}

/// Where below the directory a key's file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// `KEY`
    Flat,
    /// `namespace_NAMESPACE.configmap_NAME.KEY` or `….secret_NAME.KEY`, the unique file names of k8s-sidecar
    Unique,
    /// `NAMESPACE/NAME/KEY`
    Tree,
}

/// Which files that no selected object asks for are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Prune {
    /// Those that configbump wrote
    Owned,
    /// Every file, as the Go configbump does
    All,
    /// None
    Never,
}

/// Whether configbump gives up what it does not need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sandbox {
    /// Where the kernel can; the commands that it starts are not limited
    Auto,
    /// No
    Off,
}
