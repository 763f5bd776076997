//! What was typed: the options, their environment variables and the help. What was meant is a
//! [`Config`](crate::config::Config).

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use regex_lite::Regex;

use clap::builder::StyledStr;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, ValueEnum};

use crate::bump::signal::{Signal, Unhandled};
use crate::config::{Config, InitialBump, Labels, Layout, Prune, PublishWay, Sandbox};
use crate::object::Kind;
use crate::telemetry::endpoints::Address;
use crate::telemetry::{Format, Level};

mod completions;
mod k8s_sidecar;
mod man;
mod meant;
#[cfg(test)]
mod tests;
mod usage;
mod values;
mod variables;
mod verb;

pub use usage::UsageError;
use values::Words;
use variables::Variables;
use verb::Verb;

const USAGE: &str = "configbump --dir DIR --labels SELECTOR [OPTIONS] [-- COMMAND [ARG...]]";

const EXAMPLE: &str = "\
Example: keep the files of every ConfigMap labelled app=gateway in /etc/gateway

  configbump --dir /etc/gateway --labels app=gateway --namespace web

Lists take commas and may be repeated. A variable counts where its option is not typed; an empty one counts as unset.";

/// Keeps a directory in step with the ConfigMaps and Secrets that a label selector picks.
#[derive(Debug, Parser)]
#[command(name = "configbump", version, override_usage = USAGE, max_term_width = 120)]
struct Cli {
    #[command(flatten)]
    objects: Objects,
    #[command(flatten)]
    source: Source,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    publishing: PublishOptions,
    #[command(flatten)]
    pacing: Pacing,
    #[command(flatten)]
    signal: SignalOptions,
    #[command(flatten)]
    exec: ExecOptions,
    #[command(flatten)]
    url: UrlArgs,
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    endpoints: Endpoints,
    #[command(flatten)]
    logging: Logging,
    /// Program to run once its files are there; it gets configbump's signals, and its exit code is configbump's
    #[arg(last = true, value_name = "COMMAND")]
    program: Vec<OsString>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Objects")]
struct Objects {
    /// Label selector with the whole syntax of Kubernetes: =, ==, !=, in, notin, key, !key
    #[arg(short, long, env = "CONFIG_BUMP_LABELS", value_name = "SELECTOR", value_parser = values::labels)]
    labels: Option<Labels>,
    /// Objects to follow by name, instead of those of the selector or besides them
    #[arg(long, env = "CONFIG_BUMP_NAMES", value_name = "NAME", value_delimiter = ',', value_parser = values::name)]
    names: Vec<String>,
    /// Kinds to follow: configmaps, secrets, or both
    #[arg(
        short,
        long,
        env = "CONFIG_BUMP_KINDS",
        value_name = "KIND",
        value_delimiter = ',',
        value_parser = values::kind,
        default_value = "configmaps"
    )]
    kinds: Vec<Kind>,
    /// Namespaces to follow; unset: that of the kubeconfig's context, in a pod without one the pod's own, else default;
    /// with --manifests, every namespace
    #[arg(
        short,
        long,
        env = "CONFIG_BUMP_NAMESPACE",
        value_name = "NAMESPACE",
        value_delimiter = ',',
        value_parser = values::namespace
    )]
    namespace: Vec<String>,
    /// Follow every namespace
    #[arg(short = 'A', long, env = "CONFIG_BUMP_ALL_NAMESPACES", default_value = "false", hide_default_value = true)]
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(action = ArgAction::Set, value_parser = values::boolean)]
    all_namespaces: bool,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Source")]
struct Source {
    /// Kubeconfig file; unset: the files that KUBECONFIG lists, else ~/.kube/config, else the pod's service account
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; unset: its current one
    #[arg(long, env = "CONFIG_BUMP_CONTEXT", value_name = "CONTEXT", value_parser = values::context)]
    context: Option<String>,
    /// Whether to verify the API server's certificate; true unless it is set to false
    #[arg(short, long, env = "CONFIG_BUMP_TLS_VERIFY")]
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = values::boolean)]
    tls_verify: Option<bool>,
    /// Tell on the objects what becomes of them, by Kubernetes Events; takes the verbs create and patch on events
    #[arg(long, env = "CONFIG_BUMP_EVENTS", default_value = "false", hide_default_value = true)]
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(action = ArgAction::Set, value_parser = values::boolean)]
    events: bool,
    /// Read these files and folders of ConfigMap and Secret manifests (YAML or JSON) instead of a cluster, and follow
    /// their changes
    #[arg(long, env = "CONFIG_BUMP_MANIFESTS", value_name = "PATH", value_delimiter = ',')]
    manifests: Vec<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Files")]
struct Files {
    /// Directory to keep in step; created if it is missing; required
    #[arg(short, long, env = "CONFIG_BUMP_DIR", value_name = "DIR")]
    dir: PathBuf,
    /// Where below DIR the file of a key is
    #[arg(long, env = "CONFIG_BUMP_LAYOUT", value_name = "LAYOUT", value_enum, default_value = "flat")]
    layout: Layout,
    /// Annotation that names a sub-folder of DIR for its object
    #[arg(long, env = "CONFIG_BUMP_FOLDER_ANNOTATION", value_name = "ANNOTATION", value_parser = values::annotation)]
    folder_annotation: Option<String>,
    /// Permissions of a ConfigMap's files, in octal, set at creation
    #[arg(long, env = "CONFIG_BUMP_FILE_MODE", value_name = "MODE", value_parser = values::mode, default_value = "0644")]
    file_mode: u32,
    /// Permissions of a Secret's files, in octal, set at creation
    #[arg(long, env = "CONFIG_BUMP_SECRET_FILE_MODE", value_name = "MODE", value_parser = values::mode)]
    #[arg(default_value = "0640")]
    secret_file_mode: u32,
    /// Which files that no followed object asks for are removed
    #[arg(long, env = "CONFIG_BUMP_PRUNE", value_name = "FILES", value_enum, default_value = "owned")]
    prune: Prune,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "All or nothing")]
struct PublishOptions {
    /// What goes live together, when nothing has changed for --settle
    #[arg(long, env = "CONFIG_BUMP_PUBLISH", value_name = "WHAT", value_enum, default_value = "file")]
    publish: PublishWay,
    /// Command that has to accept the files before they go live, split into words as a shell does, but run without one; {}
    /// stands for a directory with all of them
    #[arg(long, env = "CONFIG_BUMP_CHECK", value_name = "COMMAND", value_parser = values::command)]
    check: Option<Words>,
    /// How long it may run
    #[arg(long, env = "CONFIG_BUMP_CHECK_TIMEOUT", value_name = "TIME", value_parser = values::limit)]
    #[arg(default_value = "30s")]
    check_timeout: Duration,
    /// Bring the previous files back when the bump says that the new ones are bad: by the exit code of --exec, or a 4xx of --url
    #[arg(long, env = "CONFIG_BUMP_ROLLBACK", default_value = "false", hide_default_value = true)]
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(action = ArgAction::Set, value_parser = values::boolean)]
    rollback: bool,
    /// Hold the removal of more than this share of the files at once, or of the last one: 50% or 0.5
    #[arg(long, env = "CONFIG_BUMP_MAX_DELETE", value_name = "SHARE", value_parser = values::share)]
    max_delete: Option<f64>,
    /// How long it is held; then it is carried out if the source still says so
    #[arg(long, env = "CONFIG_BUMP_MAX_DELETE_HOLD", value_name = "TIME", value_parser = values::duration)]
    #[arg(default_value = "5m")]
    max_delete_hold: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Bump: tell a program that its files have changed")]
struct Pacing {
    /// Bump, or publish together, when nothing has changed for this long
    #[arg(long, env = "CONFIG_BUMP_SETTLE", value_name = "TIME", value_parser = values::duration, default_value = "100ms")]
    settle: Duration,
    /// Do so at the latest this long after the first change
    #[arg(long, env = "CONFIG_BUMP_SETTLE_MAX", value_name = "TIME", value_parser = values::duration, default_value = "2s")]
    settle_max: Duration,
    /// The least time from one bump to the next
    #[arg(long, env = "CONFIG_BUMP_MIN_INTERVAL", value_name = "TIME", value_parser = values::duration)]
    #[arg(default_value = "0s")]
    min_interval: Duration,
    /// Whether the first sync bumps
    #[arg(long, env = "CONFIG_BUMP_INITIAL_BUMP", value_name = "WHEN", value_enum, default_value = "auto")]
    initial_bump: InitialBump,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Bump by a signal")]
struct SignalOptions {
    /// Signal to send: a name with or without SIG, or a number
    #[arg(short, long, env = "CONFIG_BUMP_SIGNAL", value_name = "SIGNAL", value_parser = values::signal)]
    signal: Option<Signal>,
    /// The process to send it to, by its PID
    #[arg(short, long, env = "CONFIG_BUMP_PROCESS_PID", value_name = "PID", value_parser = values::pid)]
    process_pid: Option<u32>,
    /// The process to send it to, by a regular expression that is found in its command line
    #[arg(short = 'c', long, env = "CONFIG_BUMP_PROCESS_COMMAND", value_name = "REGEX", value_parser = values::expression)]
    process_command: Option<Regex>,
    /// The parent of that process, by its PID; 0: the process is the first one of a container
    #[arg(short = 'i', long, env = "CONFIG_BUMP_PARENT_PROCESS_PID", value_name = "PID")]
    #[arg(value_parser = values::parent_pid)]
    process_parent_pid: Option<u32>,
    /// The parent of that process, by a regular expression that is found in its command line
    #[arg(short = 'a', long, env = "CONFIG_BUMP_PARENT_PROCESS_COMMAND", value_name = "REGEX")]
    #[arg(value_parser = values::expression)]
    process_parent_command: Option<Regex>,
    /// What a change means for COMMAND: it gets the signal (HUP, unless --signal says otherwise), or is restarted
    #[arg(long, env = "CONFIG_BUMP_ON_CHANGE", value_name = "WHAT", value_enum)]
    on_change: Option<WhatOnChange>,
    /// What to do while the process would be ended by the signal, because it has not seen to it yet
    #[arg(long, env = "CONFIG_BUMP_UNHANDLED_SIGNAL", value_name = "WHAT", value_enum, default_value = "wait")]
    unhandled_signal: Unhandled,
}

/// What was typed for `--on-change`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum WhatOnChange {
    Signal,
    Restart,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Bump by a command")]
struct ExecOptions {
    /// Command to run after a change, split into words as a shell does, but run without one; {} stands for DIR
    #[arg(long, env = "CONFIG_BUMP_EXEC", value_name = "COMMAND", value_parser = values::command)]
    exec: Option<Words>,
    /// How long it may run
    #[arg(long, env = "CONFIG_BUMP_EXEC_TIMEOUT", value_name = "TIME", value_parser = values::limit)]
    #[arg(default_value = "30s")]
    exec_timeout: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Bump by a URL")]
struct UrlArgs {
    /// URL to call after a change
    #[arg(long, env = "CONFIG_BUMP_URL", value_name = "URL")]
    url: Option<String>,
    /// Method of the call; unset: POST with a body, else GET
    #[arg(long, env = "CONFIG_BUMP_URL_METHOD", value_name = "METHOD")]
    url_method: Option<String>,
    /// Body of the call
    #[arg(long, env = "CONFIG_BUMP_URL_BODY", value_name = "TEXT")]
    url_body: Option<String>,
    /// Header of the call, as in 'Name: value'; may be repeated
    #[arg(long, env = "CONFIG_BUMP_URL_HEADER", value_name = "HEADER")]
    url_header: Vec<String>,
    /// How long the call may take
    #[arg(long, env = "CONFIG_BUMP_URL_TIMEOUT", value_name = "TIME", value_parser = values::duration)]
    #[arg(default_value = "10s")]
    url_timeout: Duration,
    /// File with the user for basic authentication
    #[arg(long, env = "CONFIG_BUMP_URL_USER_FILE", value_name = "FILE")]
    url_user_file: Option<PathBuf>,
    /// File with the password for basic authentication
    #[arg(long, env = "CONFIG_BUMP_URL_PASSWORD_FILE", value_name = "FILE")]
    url_password_file: Option<PathBuf>,
    /// Whether to verify the certificate of an https URL; true unless it is set to false
    #[arg(long, env = "CONFIG_BUMP_URL_TLS_VERIFY")]
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(value_parser = values::boolean)]
    url_tls_verify: Option<bool>,
    /// File with the authorities that an https URL's certificate may be from; unset: those that the system trusts
    #[arg(long, env = "CONFIG_BUMP_URL_CA_FILE", value_name = "FILE")]
    url_ca_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Running")]
struct Running {
    /// End after the first sync, as an init container does
    #[arg(long, env = "CONFIG_BUMP_ONCE", default_value = "false", hide_default_value = true)]
    #[arg(value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(action = ArgAction::Set, value_parser = values::boolean)]
    once: bool,
    /// Whether to limit itself by Landlock to writing DIR, and to reading what it needs
    #[arg(long, env = "CONFIG_BUMP_SANDBOX", value_name = "WHETHER", value_enum, default_value = "auto")]
    sandbox: Sandbox,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Endpoints")]
struct Endpoints {
    /// Serve /livez, /readyz, /metrics and /status at this address, such as :8080 or 127.0.0.1:8080
    #[arg(long, env = "CONFIG_BUMP_LISTEN", value_name = "ADDRESS", value_parser = values::address)]
    listen: Option<Address>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
struct Logging {
    /// Form of the log lines on stderr
    #[arg(long, env = "CONFIG_BUMP_LOG_FORMAT", value_name = "FORMAT", value_enum, default_value = "text")]
    log_format: Format,
    /// Least severity that is logged
    #[arg(long, env = "CONFIG_BUMP_LOG_LEVEL", value_name = "LEVEL", value_enum, default_value = "info")]
    log_level: Level,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// Follow the objects.
    Run(Box<Config>),
    /// Say whether that would go well.
    Examine(Box<Config>),
    /// Print this text, such as the help or the version, and end.
    Print(String),
}

/// Reads a command line, the name of the program first, with `variable` looking up the environment.
///
/// # Errors
///
/// [`UsageError`] if an option is unknown, malformed, missing, or cannot stand beside another one.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Asked, UsageError> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    match Verb::take(&mut arguments) {
        Verb::Run => configured(arguments, variable, k8s_sidecar::Asked::default(), Asked::Run),
        Verb::Doctor => configured(arguments, variable, k8s_sidecar::Asked::default(), Asked::Examine),
        Verb::K8sSidecar => {
            let asked = k8s_sidecar::Asked::read(&variable)?;
            configured(arguments, variable, asked, Asked::Run)
        }
        Verb::Completions => completions::print(&arguments[1..]).map(Asked::Print),
        Verb::Man => match &arguments[1..] {
            [] => Ok(Asked::Print(man::page(&command()))),
            _ => Err(UsageError("man stands alone; write `configbump man`".to_owned())),
        },
    }
}

/// What options and variables ask for.
fn configured(
    mut arguments: Vec<OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
    k8s_sidecar::Asked { options, notes }: k8s_sidecar::Asked,
    ask: fn(Box<Config>) -> Asked,
) -> Result<Asked, UsageError> {
    let mut variables = Variables::default();
    let read = typed(&arguments).and_then(|typed| {
        variables = Variables::beside(&typed, variable, options);
        let program = arguments.len().min(1);
        arguments.splice(program..program, variables.as_arguments());
        Cli::from_arg_matches(&command().try_get_matches_from(&arguments)?)
    });
    match read {
        Ok(cli) => cli.meant(&variables).map(|config| ask(Box::new(Config { notes, ..config }))),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Ok(Asked::Print(error.to_string()))
        }
        Err(error) => Err(UsageError::from_clap(&error, &variables)),
    }
}

/// What the arguments alone set. What is missing may still come from the environment.
fn typed(arguments: &[OsString]) -> Result<ArgMatches, clap::Error> {
    command().mut_args(|arg| arg.required(false)).try_get_matches_from(arguments)
}

/// The options, with their variables in the help only. clap would look them up in the environment of the process, where
/// a test cannot set them, and take an empty one for a value.
fn command() -> Command {
    Cli::command().after_help(format!("{}\n\n{EXAMPLE}", verb::help())).mut_args(|arg| {
        let Some(variable) = variable_of(&arg) else { return arg };
        let help = format!("{} [env: {variable}]", arg.get_help().unwrap_or(&StyledStr::new()));
        arg.env(None).help(help)
    })
}

/// The environment variable of an option.
fn variable_of(arg: &Arg) -> Option<String> {
    arg.get_env().map(|name| name.to_string_lossy().into_owned())
}
