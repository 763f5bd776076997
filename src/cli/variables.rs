//! The environment of a command line: the variables that count, and the names that errors give to options.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory};

use super::{Cli, variable_of};

/// An option that the variable of another tool stands for, in its long form without dashes.
pub(super) struct Foreign {
    pub name: &'static str,
    pub option: &'static str,
    pub value: OsString,
}

/// Of these pairs one counts for nothing where the other is given.
const EXCLUSIVE: [(&str, &str); 2] = [("--namespace", "--all-namespaces"), ("--url-tls-verify", "--url-ca-file")];

/// The start of every variable that is read here; the help also names KUBECONFIG, which the Kubernetes client reads.
const PREFIX: &str = "CONFIG_BUMP_";

/// A variable of cm-bump, which counts where ours is not set.
pub(super) struct Alias {
    pub name: &'static str,
    /// The option that it stands for, in its long form without dashes.
    pub option: &'static str,
    /// The option beside which it is ignored, as cm-bump ignores it, in its long form.
    ignored_beside: Option<&'static str>,
}

const fn alias(name: &'static str, option: &'static str) -> Alias {
    Alias { name, option, ignored_beside: None }
}

/// All that cm-bump reads.
pub(super) const OF_CM_BUMP: [Alias; 10] = [
    alias("CM_DIR", "dir"),
    alias("CM_LABELS", "labels"),
    alias("CM_NAMESPACE", "namespace"),
    alias("CM_TLS_VERIFY", "tls-verify"),
    alias("CM_PROC_SIGNAL", "signal"),
    alias("CM_PROC_PID", "process-pid"),
    Alias { ignored_beside: Some("--process-pid"), ..alias("CM_PROC_CMD", "process-command") },
    alias("CMD_PROC_PARENT_PID", "process-parent-pid"),
    Alias { ignored_beside: Some("--process-parent-pid"), ..alias("CMD_PROC_PARENT_CMD", "process-parent-command") },
    alias(LOG, "log-level"),
];

/// It holds a filter of `env_logger`.
const LOG: &str = "CM_LOG";

/// The variables that are set, are not empty, and whose option was not typed.
#[derive(Default)]
pub(super) struct Variables(Vec<Variable>);

struct Variable {
    name: String,
    /// The option in its long form, with its dashes.
    option: String,
    value: OsString,
}

impl Variable {
    /// The option's own; else that of cm-bump.
    fn of(arg: &Arg, lookup: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let option = arg.get_long()?;
        let own = variable_of(arg).filter(|name| name.starts_with(PREFIX));
        let of_cm_bump = OF_CM_BUMP.iter().find(|alias| alias.option == option).map(|alias| alias.name.to_owned());
        own.into_iter().chain(of_cm_bump).find_map(|name| {
            let value = lookup(&name).filter(|value| !value.is_empty())?;
            let value = if name == LOG { level_of(value.to_str()?)?.into() } else { value };
            Some(Self { name, option: format!("--{option}"), value })
        })
    }

    /// Whether it counts for nothing where this option is given.
    fn gives_way_to(&self, option: &str) -> bool {
        let is_pair =
            |(a, b): &(&str, &str)| (self.option == *a && option == *b) || (self.option == *b && option == *a);
        self.option == option || EXCLUSIVE.iter().any(is_pair)
    }

    fn is_ignored_beside(&self, options: &[String]) -> bool {
        let alias = OF_CM_BUMP.iter().find(|alias| alias.name == self.name);
        alias.and_then(|alias| alias.ignored_beside).is_some_and(|other| options.iter().any(|option| option == other))
    }
}

impl From<Foreign> for Variable {
    fn from(Foreign { name, option, value }: Foreign) -> Self {
        Self { name: name.to_owned(), option: format!("--{option}"), value }
    }
}

impl Variables {
    /// Those that count beside what was typed; the foreign ones only where neither that nor a variable has the option.
    pub(super) fn beside(typed: &ArgMatches, lookup: impl Fn(&str) -> Option<OsString>, foreign: Vec<Foreign>) -> Self {
        let is_typed = |arg: &&Arg| typed.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
        let command = Cli::command();
        let (typed, open): (Vec<_>, Vec<_>) = command.get_arguments().partition(is_typed);
        let mut found: Vec<_> = open.into_iter().filter_map(|arg| Variable::of(arg, &lookup)).collect();
        let typed = typed.into_iter().filter_map(Arg::get_long).map(|option| format!("--{option}"));
        let given: Vec<String> = typed.chain(found.iter().map(|variable| variable.option.clone())).collect();
        found.retain(|variable| !variable.is_ignored_beside(&given));
        let foreign = foreign.into_iter().map(Variable::from);
        found.extend(foreign.filter(|variable| !given.iter().any(|option| variable.gives_way_to(option))));
        Self(found)
    }

    /// What one would type instead of the variables.
    pub(super) fn as_arguments(&self) -> impl Iterator<Item = OsString> {
        self.0.iter().map(|variable| {
            let mut argument = OsString::from(format!("{}=", variable.option));
            argument.push(&variable.value);
            argument
        })
    }

    /// The option the way an error names it: with its variable if its value came from there.
    pub(super) fn origin(&self, option: &str) -> String {
        match self.0.iter().find(|variable| variable.option == option) {
            Some(Variable { name, .. }) => format!("{option} (from {name})"),
            None => option.to_owned(),
        }
    }
}

/// The level that a filter such as `info,cm_bump=trace,kube=warn` has for cm-bump, if it has one: for itself, else for all.
/// Off is the least that there is.
fn level_of(filter: &str) -> Option<String> {
    let directives = || filter.split('/').next().unwrap_or_default().split(',').map(str::trim);
    let own = directives().filter_map(|directive| directive.strip_prefix("cm_bump=")).next_back();
    let of_all = || directives().rfind(|directive| !directive.is_empty() && !directive.contains('='));
    let level = own.or_else(of_all)?.to_lowercase();
    Some(if level == "off" { "error".to_owned() } else { level })
}
