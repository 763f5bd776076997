//! The environment of a command line: the variables that count, and the names that errors give to options.

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory};

use super::{Cli, variable_of};

/// The start of every variable that is read here; the help also names KUBECONFIG, which the Kubernetes client reads.
const PREFIX: &str = "CONFIG_BUMP_";

/// The variables that are set, are not empty, and whose option was not typed.
#[derive(Default)]
pub(super) struct Variables(Vec<Variable>);

struct Variable {
    name: String,
    /// The option in its long form, with its dashes.
    option: String,
    value: OsString,
}

impl Variables {
    /// Those that count beside what was typed.
    pub(super) fn beside(typed: &ArgMatches, lookup: impl Fn(&str) -> Option<OsString>) -> Self {
        let counts = |arg: &clap::Arg| {
            let name = variable_of(arg).filter(|name| name.starts_with(PREFIX))?;
            let value = lookup(&name).filter(|value| !value.is_empty())?;
            let is_typed = typed.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
            (!is_typed).then_some(Variable { name, option: format!("--{}", arg.get_long()?), value })
        };
        Self(Cli::command().get_arguments().filter_map(counts).collect())
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
