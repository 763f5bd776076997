//! From what was typed to what was meant: the rules that span several options.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use regex_lite::Regex;

use super::values::Words;
use super::variables::Variables;
use super::{Cli, ExecOptions, Objects, PublishOptions, SignalOptions, Source, UrlArgs, UsageError, WhatOnChange};
use crate::bump::exec::ExecConfig;
use crate::bump::governor::Pace;
use crate::bump::process::{TargetSpec, Who};
use crate::bump::signal::Signal;
use crate::bump::url::{UrlConfig, UrlConfigError, UrlOptions};
use crate::child::ChildConfig;
use crate::config::{
    ClusterConfig, Config, Modes, Namespaces, OnChange, Publish, Selection, SignalConfig, SourceConfig,
};
use crate::publish::brake::BrakeConfig;
use crate::publish::check::CheckConfig;

impl Cli {
    /// The configuration, without the impossible combinations.
    pub(super) fn meant(self, variables: &Variables) -> Result<Config, UsageError> {
        let Self {
            objects,
            source,
            files,
            publishing,
            pacing,
            signal,
            exec,
            url,
            running,
            endpoints,
            logging,
            program,
        } = self;
        refuse_overlap(&source.manifests, &files.dir, variables)?;
        if running.once && !program.is_empty() {
            return Err(UsageError(format!(
                "{} ends when the files are there, and the command after -- would be ended with it; leave one of them out",
                variables.origin("--once")
            )));
        }
        let (signal, program) = signal.meant(program, variables)?;
        let pace = Pace { settle: pacing.settle, settle_max: pacing.settle_max, min_interval: pacing.min_interval };
        if publishing.rollback && exec.exec.is_none() && url.url.is_none() {
            return Err(UsageError(format!(
                "{} needs a bump that can say that files are bad; write --exec or --url as well",
                variables.origin("--rollback")
            )));
        }
        Ok(Config {
            publish: publishing.meant(&files.dir, pace),
            bump: crate::config::Bump {
                program,
                exec: exec.meant(&files.dir),
                url: url.meant(variables)?,
                signal,
                pace,
                initial: pacing.initial_bump,
            },
            dir: files.dir,
            selection: objects.meant(variables)?,
            source: source.meant(variables)?,
            layout: files.layout,
            folder_annotation: files.folder_annotation,
            modes: Modes { config_map: files.file_mode, secret: files.secret_file_mode },
            prune: files.prune,
            once: running.once,
            sandbox: running.sandbox,
            listen: endpoints.listen,
            log_format: logging.log_format,
            log_level: logging.log_level,
            notes: Vec::new(),
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
        let Self { kubeconfig, context, tls_verify, events, manifests } = self;
        if manifests.is_empty() {
            return Ok(SourceConfig::Cluster(ClusterConfig {
                kubeconfig,
                context,
                tls_verify: tls_verify.unwrap_or(true),
                events,
            }));
        }
        let of_cluster = [
            ("--kubeconfig", kubeconfig.is_some()),
            ("--context", context.is_some()),
            ("--tls-verify", tls_verify.is_some()),
            ("--events", events),
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

impl PublishOptions {
    fn meant(self, dir: &Path, pace: Pace) -> Publish {
        let Self { publish, check, check_timeout, rollback, max_delete, max_delete_hold } = self;
        Publish {
            way: publish,
            check: check.map(|Words(command)| CheckConfig { command, dir: dir.to_owned(), timeout: check_timeout }),
            rollback,
            brake: max_delete.map(|share_max| BrakeConfig { share_max, hold: max_delete_hold }),
            pace: Pace { min_interval: Duration::ZERO, ..pace },
        }
    }
}

impl ExecOptions {
    fn meant(self, dir: &Path) -> Option<ExecConfig> {
        let Words(command) = self.exec?;
        Some(ExecConfig { command, dir: dir.to_owned(), timeout: self.exec_timeout })
    }
}

impl SignalOptions {
    /// Which process is signalled, and what becomes of the program that configbump runs itself.
    #[expect(clippy::type_complexity, reason = "two answers that the same options give")]
    fn meant(
        self,
        program: Vec<OsString>,
        variables: &Variables,
    ) -> Result<(Option<SignalConfig>, Option<(ChildConfig, OnChange)>), UsageError> {
        let names_process = self.process_pid.is_some()
            || self.process_command.is_some()
            || self.process_parent_pid.is_some()
            || self.process_parent_command.is_some();
        let mut words = program.into_iter();
        let Some(name) = words.next() else {
            if self.on_change.is_some() {
                return Err(UsageError(format!(
                    "{} speaks of a command, and there is none; write it at the end, after --",
                    variables.origin("--on-change")
                )));
            }
            return Ok((self.target(variables)?, None));
        };
        if name.is_empty() {
            return Err(UsageError(
                "the command after -- has an empty name; write a program and its arguments".to_owned(),
            ));
        }
        let on_change = match (self.on_change, names_process) {
            (Some(WhatOnChange::Restart), false) if self.signal.is_some() => {
                return Err(UsageError(format!(
                    "{} has no process to go to, for --on-change restart restarts the command; leave one of them out",
                    variables.origin("--signal")
                )));
            }
            (Some(WhatOnChange::Restart), _) => OnChange::Restart,
            (Some(WhatOnChange::Signal) | None, false) => {
                OnChange::Signal(self.signal.unwrap_or(Signal::HUP), self.unhandled_signal)
            }
            (Some(WhatOnChange::Signal), true) => OnChange::Signal(Signal::HUP, self.unhandled_signal),
            (None, true) => OnChange::Nothing,
        };
        let config = ChildConfig { program: name, arguments: words.collect(), ..ChildConfig::default() };
        let target = if names_process { self.target(variables)? } else { None };
        Ok((target, Some((config, on_change))))
    }

    fn target(self, variables: &Variables) -> Result<Option<SignalConfig>, UsageError> {
        let process = who("--process-pid", self.process_pid, "--process-command", self.process_command, variables)?;
        let parent = who(
            "--process-parent-pid",
            self.process_parent_pid,
            "--process-parent-command",
            self.process_parent_command,
            variables,
        )?;
        let process = match (process, &parent) {
            // Without more, the first process of a container is what is meant, or the child of a parent.
            (None, Some(_)) => Some(Who::Command(any_command()?)),
            (process, _) => process,
        };
        match (self.signal, process) {
            (None, None) => Ok(None),
            (Some(signal), Some(process)) => {
                let target = TargetSpec { process, parent };
                Ok(Some(SignalConfig { signal, target, unhandled: self.unhandled_signal }))
            }
            (Some(_), None) => Err(UsageError(format!(
                "{} has no process to go to; name it by --process-command or --process-pid",
                variables.origin("--signal")
            ))),
            (None, Some(_)) => Err(UsageError(
                "--signal is missing for the process that is named; write one such as --signal HUP, or name no process"
                    .to_owned(),
            )),
        }
    }
}

/// A process by one of two options.
fn who(
    pid_option: &str,
    pid: Option<u32>,
    command_option: &str,
    command: Option<Regex>,
    variables: &Variables,
) -> Result<Option<Who>, UsageError> {
    match (pid, command) {
        (Some(_), Some(_)) => Err(UsageError(format!(
            "{} and {} exclude each other; leave one of them out",
            variables.origin(pid_option),
            variables.origin(command_option)
        ))),
        (Some(pid), None) => Ok(Some(Who::Pid(pid))),
        (None, command) => Ok(command.map(Who::Command)),
    }
}

fn any_command() -> Result<Regex, UsageError> {
    Regex::new(".").map_err(|error| UsageError(error.to_string()))
}

impl UrlArgs {
    fn meant(self, variables: &Variables) -> Result<Option<UrlConfig>, UsageError> {
        let Some(url) = self.url else {
            let companions = [
                ("--url-method", self.url_method.is_some()),
                ("--url-body", self.url_body.is_some()),
                ("--url-header", !self.url_header.is_empty()),
                ("--url-user-file", self.url_user_file.is_some()),
                ("--url-password-file", self.url_password_file.is_some()),
                ("--url-tls-verify", self.url_tls_verify.is_some()),
                ("--url-ca-file", self.url_ca_file.is_some()),
            ];
            return match companions.into_iter().find(|(_, is_set)| *is_set) {
                None => Ok(None),
                Some((option, _)) => {
                    Err(UsageError(format!("{} needs a URL to call; write --url as well", variables.origin(option))))
                }
            };
        };
        let options = UrlOptions {
            url,
            method: self.url_method,
            body: self.url_body,
            headers: self.url_header,
            timeout: self.url_timeout,
            user_file: self.url_user_file,
            password_file: self.url_password_file,
            tls_verify: self.url_tls_verify.unwrap_or(true),
            ca_file: self.url_ca_file,
        };
        let config = UrlConfig::new(options);
        config
            .map(Some)
            .map_err(|UrlConfigError { option, why }| UsageError(format!("{}: {why}", variables.origin(option))))
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
