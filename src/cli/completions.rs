//! What shells offer while a command line is typed, made of the options.

use std::ffi::OsString;

use clap::{Arg, Command, CommandFactory};

use super::values::quoted;
use super::verb::VERBS;
use super::{Cli, UsageError};

const SHELLS: [&str; 3] = ["bash", "fish", "zsh"];

/// What an option has for a value.
enum Value {
    /// One of these words.
    Words(Vec<String>),
    Folder,
    File,
    /// Anything; yes or no, after `=`, if it may be left out.
    Text {
        may_be_left_out: bool,
    },
}

impl Value {
    fn of(arg: &Arg) -> Self {
        let words: Vec<_> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        let name = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
        match name {
            _ if !words.is_empty() => Self::Words(words),
            "KIND" => Self::Words(["configmaps", "secrets", "configmaps,secrets"].map(str::to_owned).into()),
            "DIR" => Self::Folder,
            "FILE" | "PATH" => Self::File,
            _ => Self::Text { may_be_left_out: arg.get_num_args().is_some_and(|range| range.min_values() == 0) },
        }
    }
}

/// The script for the shell that the words name.
pub(super) fn print(words: &[OsString]) -> Result<String, UsageError> {
    let mut command = Cli::command();
    command.build();
    let named: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
    match named.iter().map(AsRef::as_ref).collect::<Vec<_>>()[..] {
        ["bash"] => Ok(bash(&command)),
        ["fish"] => Ok(fish(&command)),
        ["zsh"] => Ok(zsh(&command)),
        [other] => {
            Err(UsageError(format!("{} is no shell it knows; write one of {}", quoted(other), SHELLS.join(", "))))
        }
        _ => Err(UsageError("completions needs a shell; write `configbump completions bash`, fish or zsh".to_owned())),
    }
}

fn options(command: &Command) -> impl Iterator<Item = (&str, &Arg)> {
    command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)))
}

fn help(arg: &Arg) -> String {
    arg.get_help().map(ToString::to_string).unwrap_or_default()
}

fn verbs() -> String {
    VERBS.map(|(_, name, _)| name).join(" ")
}

/// bash takes `=` for a word of its own.
fn bash(command: &Command) -> String {
    let mut cases = String::new();
    for (long, arg) in options(command) {
        let short = arg.get_short().map(|short| format!("-{short} | ")).unwrap_or_default();
        let action = match Value::of(arg) {
            _ if !takes_value(arg) => continue,
            Value::Words(words) => format!("COMPREPLY=($(compgen -W '{}' -- \"$cur\"))", words.join(" ")),
            Value::Folder => "compopt -o filenames; mapfile -t COMPREPLY < <(compgen -d -- \"$cur\")".to_owned(),
            Value::File => "compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")".to_owned(),
            Value::Text { may_be_left_out: true } => continue,
            Value::Text { .. } => ":".to_owned(),
        };
        cases.push_str(&format!("        {short}--{long}) {action}; return ;;\n"));
    }
    let words: Vec<_> = options(command).map(|(long, _)| format!("--{long}")).collect();
    format!(
        r#"_configbump() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}} word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        [[ $word == -- ]] && return
    done
    if [[ $cur == = ]]; then
        cur=
    elif [[ $prev == = ]]; then
        prev=${{COMP_WORDS[COMP_CWORD - 2]}}
    fi
    case $prev in
        completions) COMPREPLY=($(compgen -W '{shells}' -- "$cur")); return ;;
{cases}    esac
    local words='{words}'
    ((COMP_CWORD == 1)) && words+=' {verbs}'
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o default -F _configbump configbump
"#,
        shells = SHELLS.join(" "),
        words = words.join(" "),
        verbs = verbs(),
    )
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

fn fish(command: &Command) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let mut script = "complete -c configbump -f\n".to_owned();
    for (_, name, what) in VERBS {
        script.push_str(&format!("complete -c configbump -n __fish_use_subcommand -a {name} -d {}\n", quoted(what)));
    }
    let shells = SHELLS.join(" ");
    script.push_str(&format!("complete -c configbump -n '__fish_seen_subcommand_from completions' -a '{shells}'\n"));
    for (long, arg) in options(command) {
        let short = arg.get_short().map(|short| format!(" -s {short}")).unwrap_or_default();
        let value = match Value::of(arg) {
            _ if !takes_value(arg) => String::new(),
            Value::Words(words) => format!(" -x -a '{}'", words.join(" ")),
            Value::Folder => " -x -a '(__fish_complete_directories)'".to_owned(),
            Value::File => " -r -F".to_owned(),
            Value::Text { may_be_left_out: true } => String::new(),
            Value::Text { may_be_left_out: false } => " -x".to_owned(),
        };
        script.push_str(&format!("complete -c configbump{short} -l {long}{value} -d {}\n", quoted(&help(arg))));
    }
    script
}

fn zsh(command: &Command) -> String {
    let escaped = |text: String| {
        let special = |c: char| if "[]:\\".contains(c) { format!("\\{c}") } else { c.to_string() };
        text.chars().map(special).collect::<String>().replace('\'', r"'\''")
    };
    let mut specs = String::new();
    for (long, arg) in options(command) {
        let (help, name) = (escaped(help(arg)), arg.get_value_names().map_or("value", |names| names[0].as_str()));
        let (after_short, after_long, value) = match Value::of(arg) {
            _ if !takes_value(arg) => ("", "", String::new()),
            Value::Words(words) => ("+", "=", format!(":{name}:({})", words.join(" "))),
            Value::Folder => ("+", "=", format!(":{name}:_directories")),
            Value::File => ("+", "=", format!(":{name}:_files")),
            Value::Text { may_be_left_out: true } => ("", "", String::new()),
            Value::Text { may_be_left_out: false } => ("+", "=", format!(":{name}: ")),
        };
        specs.push_str(&format!("        '*--{long}{after_long}[{help}]{value}' \\\n"));
        if let Some(short) = arg.get_short() {
            specs.push_str(&format!("        '*-{short}{after_short}[{help}]{value}' \\\n"));
        }
    }
    format!(
        r#"#compdef configbump
_configbump() {{
    if [[ ${{words[2]}} == completions ]]; then
        _arguments '2:shell:({shells})'
        return
    fi
    _arguments -S \
{specs}        '1::command:({verbs})'
}}
if [[ ${{funcstack[1]}} == _configbump ]]; then
    _configbump "$@"
else
    compdef _configbump configbump
fi
"#,
        shells = SHELLS.join(" "),
        verbs = verbs(),
    )
}
