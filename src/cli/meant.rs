//! From what was typed to what was meant: the rules that span several options.

use std::path::{Path, PathBuf};

use super::variables::Variables;
use super::{Cli, Objects, Source, UsageError};
use crate::config::{ClusterConfig, Config, Modes, Namespaces, Selection, SourceConfig};

impl Cli {
    /// The configuration, without the impossible combinations.
    pub(super) fn meant(self, variables: &Variables) -> Result<Config, UsageError> {
        let Self { objects, source, files, running, logging } = self;
        refuse_overlap(&source.manifests, &files.dir, variables)?;
        Ok(Config {
            dir: files.dir,
            selection: objects.meant(variables)?,
            source: source.meant(variables)?,
            layout: files.layout,
            folder_annotation: files.folder_annotation,
            modes: Modes { config_map: files.file_mode, secret: files.secret_file_mode },
            prune: files.prune,
            once: running.once,
            log_format: logging.log_format,
            log_level: logging.log_level,
        })
    }
}

impl Objects {
    fn meant(mut self, variables: &Variables) -> Result<Selection, UsageError> {
        if self.labels.is_none() && self.names.is_empty() {
            return Err(UsageError(
                "--labels is missing; write --labels app=web (or set CONFIG_BUMP_LABELS) to follow what a selector \
                 picks, or --names web to follow objects by name"
                    .to_owned(),
            ));
        }
        if self.all_namespaces && !self.namespace.is_empty() {
            return Err(UsageError(format!(
                "{} and {} exclude each other; leave one of them out",
                variables.origin("--namespace"),
                variables.origin("--all-namespaces"),
            )));
        }
        self.kinds.sort_unstable();
        self.kinds.dedup();
        Ok(Selection {
            kinds: self.kinds,
            namespaces: match self.namespace {
                _ if self.all_namespaces => Namespaces::All,
                named if named.is_empty() => Namespaces::Unset,
                named => Namespaces::Named(each_once(named)),
            },
            labels: self.labels,
            names: each_once(self.names),
        })
    }
}

impl Source {
    fn meant(self, variables: &Variables) -> Result<SourceConfig, UsageError> {
        let Self { kubeconfig, context, tls_verify, manifests } = self;
        if manifests.is_empty() {
            return Ok(SourceConfig::Cluster(ClusterConfig {
                kubeconfig,
                context,
                tls_verify: tls_verify.unwrap_or(true),
            }));
        }
        let of_cluster = [
            ("--kubeconfig", kubeconfig.is_some()),
            ("--context", context.is_some()),
            ("--tls-verify", tls_verify.is_some()),
        ];
        match of_cluster.into_iter().find(|(_, is_set)| *is_set) {
            None => Ok(SourceConfig::Manifests(manifests)),
            Some((option, _)) => Err(UsageError(format!(
                "{} and {} exclude each other, for manifests are read without a cluster; leave one of them out",
                variables.origin("--manifests"),
                variables.origin(option),
            ))),
        }
    }
}

/// Manifests in the directory would be files that nobody asked for, and `--prune all` would remove them.
fn refuse_overlap(manifests: &[PathBuf], dir: &Path, variables: &Variables) -> Result<(), UsageError> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match manifests.iter().find(|path| absolute(path).starts_with(absolute(dir))) {
        None => Ok(()),
        Some(path) => Err(UsageError(format!(
            "{}: `{}` is in the directory that {} keeps in step; choose another directory",
            variables.origin("--manifests"),
            path.display(),
            variables.origin("--dir"),
        ))),
    }
}

/// The list without what it has already, in its order.
fn each_once(list: Vec<String>) -> Vec<String> {
    let mut once = Vec::new();
    for item in list {
        if !once.contains(&item) {
            once.push(item);
        }
    }
    once
}
