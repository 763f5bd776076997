//! The manual page, made of the options, in the macros of `man(7)`.

use clap::{Arg, Command};

use super::verb::VERBS;
use super::{EXAMPLE, USAGE};

/// The page for a command whose help names the variables.
pub(super) fn page(command: &Command) -> String {
    let mut command = command.clone();
    command.build();
    let mut page = format!(".TH CONFIGBUMP 1 \"\" \"configbump {}\"\n", env!("CARGO_PKG_VERSION"));
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    section(&mut page, "NAME", &format!("configbump \\- {}\n", decapitalised(&about)));
    let lines: Vec<_> = VERBS.map(|(_, name, _)| format!(".br\n\\fBconfigbump {}\\fR", escaped(name))).into();
    section(&mut page, "SYNOPSIS", &format!("{}\n{}\n", escaped(USAGE), lines.join("\n")));
    page.push_str(".SH COMMANDS\n");
    for (_, name, what) in VERBS {
        page.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", escaped(name), escaped(what)));
    }
    page.push_str(".SH OPTIONS\n");
    let mut heading = None;
    for arg in command.get_arguments() {
        if let Some(next) = arg.get_help_heading().filter(|next| heading != Some(*next)) {
            heading = Some(next);
            page.push_str(&format!(".SS {}\n", escaped(next)));
        }
        page.push_str(&item(arg));
    }
    section(
        &mut page,
        "EXIT STATUS",
        ".TP\n\\fB0\\fR\nThe work is done, or SIGTERM or SIGINT asked to end it; \\fBdoctor\\fR found nothing wrong.\n\
         .TP\n\\fB1\\fR\nIt cannot start or cannot go on; \\fBdoctor\\fR found something wrong.\n\
         .TP\n\\fB2\\fR\nWrong usage.\n.PP\nWith \\fB\\-\\- COMMAND\\fR, the exit status is that of the command.\n",
    );
    section(
        &mut page,
        "FILES",
        ".TP\n\\fIDIR\\fB/.configbump\\fR\nThe record of what was written, and what is being written.\n",
    );
    let example: Vec<_> = EXAMPLE.lines().map(escaped).collect();
    section(&mut page, "EXAMPLES", &format!("{}\n", example.join("\n").replace("\n\n", "\n.PP\n")));
    page
}

fn section(page: &mut String, name: &str, text: &str) {
    page.push_str(&format!(".SH {name}\n{text}"));
}

fn item(arg: &Arg) -> String {
    let value = arg.get_value_names().filter(|_| arg.get_action().takes_values());
    let value = value.map(|names| names[0].as_str()).unwrap_or_default();
    let is_optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
    let shown = |name: String, joint: &str| match value {
        "" => format!("\\fB{name}\\fR"),
        value if is_optional => format!("\\fB{name}\\fR[=\\fI{value}\\fR]"),
        value => format!("\\fB{name}\\fR{joint}\\fI{value}\\fR"),
    };
    let short = arg.get_short().map(|short| shown(escaped(&format!("-{short}")), " "));
    let long = arg.get_long().map(|long| shown(escaped(&format!("--{long}")), " "));
    let names: Vec<_> = short.into_iter().chain(long).collect();
    let names = if names.is_empty() { format!("\\-\\- \\fI{value}\\fR …") } else { names.join(", ") };
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let mut text = format!(".TP\n{names}\n{}\n", escaped(&help));
    let values: Vec<_> = arg.get_possible_values().iter().map(|value| escaped(value.get_name())).collect();
    if !values.is_empty() {
        text.push_str(&format!("One of: {}.\n", values.join(", ")));
    }
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| escaped(&value.to_string_lossy())).collect();
    if !defaults.is_empty() && !arg.is_hide_default_value_set() {
        text.push_str(&format!("Default: {}.\n", defaults.join(",")));
    }
    text
}

/// Text that stands for itself: in particular, a dash that can be copied, and no line that begins with a control character.
fn escaped(text: &str) -> String {
    let text = text.trim().replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

fn decapitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}
