//! The words that a command line may begin with, and what they print.

use std::fs;
use std::process::Command;

use clap::CommandFactory;

use super::super::verb::VERBS;
use super::super::{Asked, Cli, variable_of};
use super::{asked, refusal_in};

fn printed(line: &str) -> String {
    match asked(line, &[]) {
        Ok(Asked::Print(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

/// What a program says of a script, whose path comes after these arguments.
fn judged(program: &str, arguments: &[&str], script: &str, more: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("script");
    fs::write(&path, script.to_owned() + more).expect("a file");
    let output = Command::new(program).args(arguments).arg(&path).env("HOME", folder.path()).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; install it"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program}: {said}");
    said
}

#[test]
fn a_doctor_has_the_options_of_a_run() {
    match asked("doctor --dir /d -l app=web --once", &[]) {
        Ok(Asked::Examine(config)) => assert!(config.once),
        other => panic!("{other:?}"),
    }
    assert!(refusal_in("doctor", &[]).contains("--dir is missing"));
}

#[test]
fn a_word_counts_only_at_the_beginning() {
    assert!(refusal_in("--dir /d -l app=web doctor", &[]).contains("`doctor` belongs to no option"));
    assert!(matches!(asked("--dir doctor -l man", &[]), Ok(Asked::Run(_))));
    assert!(matches!(asked("--dir /d -l man -- doctor", &[]), Ok(Asked::Run(_))));
    assert!(refusal_in("man now", &[]).contains("man stands alone"));
}

#[test]
fn the_help_and_the_page_name_every_word() {
    for (_, name, what) in VERBS {
        for text in [printed("--help"), printed("man").replace("\\-", "-")] {
            assert!(text.contains(name) && text.contains(what), "{name}: {text}");
        }
    }
}

/// A terminal's page as it reads: a letter, a backspace and the letter again are a bold one.
fn without_overstrikes(page: &str) -> String {
    let mut text = String::new();
    for char in page.chars() {
        if char == '\u{8}' {
            text.pop();
        } else {
            text.push(char);
        }
    }
    text
}

#[test]
fn the_page_is_one_and_has_every_option_with_its_variable() {
    let page = printed("man");
    let text = without_overstrikes(&judged("mandoc", &["-T", "utf8"], &page, ""));
    judged("mandoc", &["-T", "lint", "-W", "error"], &page, "");
    assert!(text.contains("EXIT STATUS"), "{text}");
    let plain = page.replace("\\-", "-");
    for arg in Cli::command().get_arguments().filter(|arg| !arg.is_positional()) {
        let (long, variable) = (arg.get_long().expect("a name"), variable_of(arg).expect("a variable"));
        assert!(
            plain.contains(&format!("\\fB--{long}\\fR")) && plain.contains(&format!("[env: {variable}]")),
            "{long}"
        );
    }
}

#[test]
fn bash_completes_words_options_and_values() {
    let script = printed("completions bash");
    let offered = |words: &str| {
        let ask = format!(
            "COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _configbump; echo \"${{COMPREPLY[*]}}\"\n"
        );
        judged("bash", &["--norc"], &script, &ask).trim().to_owned()
    };
    assert_eq!(offered("configbump do"), "doctor");
    assert_eq!(offered("configbump doctor --lay"), "--layout");
    assert_eq!(offered("configbump --layout ''"), "flat unique tree");
    assert_eq!(offered("configbump --layout = u"), "unique");
    assert_eq!(offered("configbump completions z"), "zsh");
    assert_eq!(offered("configbump -- --lay"), "");
    let every: Vec<String> =
        Cli::command().get_arguments().filter_map(|arg| Some(format!("--{}", arg.get_long()?))).collect();
    let all = offered("configbump -d /d --");
    every.iter().for_each(|option| assert!(all.split(' ').any(|word| word == option), "{option}: {all}"));
}

#[test]
fn fish_completes_words_options_and_values() {
    let script = printed("completions fish");
    let offered = |line: &str| {
        let said = judged("fish", &["--no-config"], &script, &format!("complete -C '{line}'\n"));
        said.lines().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(offered("configbump doc"), ["doctor"]);
    assert_eq!(offered("configbump --lay"), ["--layout"]);
    assert_eq!(offered("configbump --layout "), ["flat", "tree", "unique"]);
    assert_eq!(offered("configbump completions "), ["bash", "fish", "zsh"]);
}

#[test]
fn zsh_completes_words_options_and_values() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = folder.path().join("_configbump");
    fs::write(&script, printed("completions zsh")).expect("a file");
    // A shell with a terminal of its own, which says what it makes of the line when Tab is pressed.
    let offered = |line: &str| {
        let ask = format!(
            "zmodload zsh/zpty\nzpty z 'zsh -f -i'\n\
             zpty -w z 'PS1=; autoload -Uz compinit; compinit -D -u; source {}; \
             report() {{ print -rn -- \"<$compstate[nmatches]|$compstate[unambiguous]>\" }}; \
             zle -C tell complete-word told; told() {{ _main_complete; report }}; bindkey \"^I\" tell; echo REA''DY'\n\
             zpty -r z x '*READY*'\nzpty -w -n z $'{line}\\t'\nzpty -r z x '*\\<*\\>*'\nprint -r -- \"$x\"\nzpty -d z\n",
            script.display()
        );
        let said = judged("timeout", &["60", "zsh", "-f"], &ask, "");
        let (_, report) = said.rsplit_once('<').unwrap_or_else(|| panic!("{said}"));
        report.split_once('>').unwrap_or_else(|| panic!("{said}")).0.to_owned()
    };
    assert_eq!(offered("configbump doc"), "1|doctor");
    assert_eq!(offered("configbump --lay"), "1|--layout");
    assert_eq!(offered("configbump --layout t"), "1|tree");
    assert_eq!(offered("configbump completions z"), "1|zsh");
}
