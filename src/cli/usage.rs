//! Wrong usage, told in one line: the option, the value, and what to write instead.

use std::error::Error as _;

use clap::error::{ContextKind, ErrorKind};
use thiserror::Error;

use super::values::quoted;
use super::variables::Variables;

/// A command line that cannot be followed. Its text is one line.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct UsageError(pub(super) String);

impl UsageError {
    /// What clap says in several lines.
    pub(super) fn from_clap(error: &clap::Error, variables: &Variables) -> Self {
        let context = |kind| error.get(kind).map(ToString::to_string).unwrap_or_default();
        let argument = context(ContextKind::InvalidArg).replace(['<', '>'], "");
        let option = argument.split([' ', '[', '=']).next().unwrap_or_default();
        let origin = variables.origin(option);
        let value = context(ContextKind::InvalidValue);
        Self(match error.kind() {
            ErrorKind::UnknownArgument => unknown(&argument, &context(ContextKind::SuggestedArg)),
            ErrorKind::InvalidValue if value.is_empty() => format!("{origin} needs a value: {argument}"),
            ErrorKind::InvalidValue => {
                format!(
                    "{origin}: {} is none of its values; write one of {}",
                    quoted(&value),
                    context(ContextKind::ValidValue)
                )
            }
            ErrorKind::ValueValidation => match error.source() {
                Some(reason) => format!("{origin}: {reason}"),
                None => format!("{origin}: {} is not a value it takes", quoted(&value)),
            },
            ErrorKind::ArgumentConflict => format!("{origin} is given twice; write it once"),
            ErrorKind::MissingRequiredArgument => {
                format!("{option} is missing; write {argument}, or set CONFIG_BUMP_DIR")
            }
            ErrorKind::InvalidUtf8 => "an argument is not valid UTF-8; only paths may be anything else".to_owned(),
            _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
        })
    }
}

/// An argument that no option takes.
fn unknown(argument: &str, suggestion: &str) -> String {
    let shown = quoted(argument);
    if !argument.starts_with('-') {
        return match argument {
            "true" | "false" => {
                format!(
                    "{shown} stands alone; a yes-or-no option takes its value after `=`, as in --tls-verify={argument}"
                )
            }
            _ => format!("{shown} belongs to no option; write one before it, see `configbump --help`"),
        };
    }
    if argument[1..].starts_with(|first: char| first.is_ascii_digit()) {
        return format!("{shown} is a value below 0, which no option takes; see `configbump --help`");
    }
    match suggestion {
        "" => format!("there is no option {shown}; `configbump --help` lists those there are"),
        _ => format!("there is no option {shown}; did you mean {suggestion}?"),
    }
}
