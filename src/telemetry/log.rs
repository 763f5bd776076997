//! The set-up of the log.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::LazyLock;

use clap::ValueEnum;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::Recent;
use super::first_sync::Console;
use super::sink::STDERR;

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; in colour on a terminal unless `NO_COLOR` is set
    Text,
    /// One object a line, with `timestamp`, `level`, `message` and the fields of the event
    Json,
}

/// The least severity that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

/// The target of lines that others have written, such as the user's check. They stay in the log.
pub const OF_OTHERS: &str = concat!(env!("CARGO_CRATE_NAME"), "::of_others");

/// Sends the log to stderr from here on; times are RFC 3339 in UTC. Its warnings go to `recent` as well, whatever the level.
///
/// # Panics
///
/// If it is called twice.
pub fn init(format: Format, level: Level, recent: Option<&Recent>) {
    // Before the sandbox, which may refuse to open a terminal.
    LazyLock::force(&STDERR);
    // At debug and below it matters which module speaks.
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(Console::default)
        .with_target(level >= Level::Debug)
        // It would report to stderr that stderr is gone, which panics.
        .log_internal_errors(false);
    let layer = match format {
        Format::Text => layer.with_ansi(is_coloured()).fmt_fields(debug_fn(write_field)).boxed(),
        Format::Json => layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    let own =
        Targets::new().with_target(env!("CARGO_CRATE_NAME"), Level::Warn).with_target(OF_OTHERS, LevelFilter::OFF);
    let recent = recent.map(|recent| recent.clone().with_filter(own));
    tracing_subscriber::registry().with(layer.with_filter(filter(level))).with(recent).init();
}

/// Of an event of configbump's the message says all that its fields do: those are for machines. Of a library's all is shown.
fn write_field(to: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let is_own = field.callsite().0.metadata().target().starts_with(env!("CARGO_CRATE_NAME"));
    match field.name() {
        "message" => write!(to, "{value:?}"),
        _ if is_own => Ok(()),
        name => write!(to, " {name}={value:?}"),
    }
}

/// The level for configbump itself. Of its libraries only errors are shown, unless it is the last level, which shows all.
fn filter(level: Level) -> Targets {
    let of_libraries = if level == Level::Trace { level } else { Level::Error };
    Targets::new().with_target(env!("CARGO_CRATE_NAME"), level).with_default(of_libraries)
}

/// Whether people look at it, and did not object: <https://no-color.org>.
fn is_coloured() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use tracing::Level as Severity;

    use super::*;

    #[test]
    fn the_level_is_that_of_configbump_and_libraries_only_tell_of_errors() {
        for (level, own, of_libraries) in [
            (Level::Error, Severity::ERROR, Severity::ERROR),
            (Level::Warn, Severity::WARN, Severity::ERROR),
            (Level::Info, Severity::INFO, Severity::ERROR),
            (Level::Debug, Severity::DEBUG, Severity::ERROR),
            (Level::Trace, Severity::TRACE, Severity::TRACE),
        ] {
            let filter = filter(level);
            let most = |target| {
                let every = [Severity::ERROR, Severity::WARN, Severity::INFO, Severity::DEBUG, Severity::TRACE];
                every.into_iter().filter(|severity| filter.would_enable(target, severity)).max()
            };
            assert_eq!(most("configbump::store"), Some(own), "{level:?}");
            assert_eq!(most("kube_client::client"), Some(of_libraries), "{level:?}");
        }
    }
}
