//! What the README says is so: its table of options, its manifests, and the tests that its promises name.

use std::fs;
use std::path::Path;

use clap::{Arg, CommandFactory};

use super::super::{Cli, variable_of};

const START: &str = "<!-- options -->\n";
const END: &str = "<!-- /options -->";

const README: &str = include_str!("../../../README.md");

#[test]
fn the_readme_has_every_option_as_the_program_has_it() {
    let (_, rest) = README.split_once(START).expect("the README has a place for the options");
    let (found, _) = rest.split_once(END).expect("the place for the options has an end");
    let expected = table();
    assert!(found == expected, "write this between the options markers of README.md:\n{expected}");
}

/// A block of the README is a file if a comment with the file's path stands above it.
#[test]
fn the_manifests_in_the_readme_are_the_files() {
    let shown = README.split("<!-- examples/").skip(1).filter_map(|rest| rest.split_once(" -->\n```yaml\n"));
    let mut count = 0;
    for (path, rest) in shown {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(path);
        let content = fs::read_to_string(&file).expect(path);
        let (block, _) = rest.split_once("```").expect("a block has an end");
        assert!(block == content, "the block of README.md under examples/{path} is not that file:\n{content}");
        count += 1;
    }
    assert!(count > 0, "the README shows no manifest");
}

/// The options as a Markdown table, a row each, under the headings of the help.
fn table() -> String {
    let mut rows =
        ["| option | environment | meaning | default |", "| --- | --- | --- | --- |"].map(str::to_owned).to_vec();
    let mut heading = None;
    let mut command = Cli::command().disable_help_flag(true).disable_version_flag(true);
    command.build();
    for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
        if heading != arg.get_help_heading() {
            heading = arg.get_help_heading();
            rows.push(format!("| **{}** | | | |", heading.unwrap_or_default()));
        }
        let short = arg.get_short().map(|short| format!("`-{short}`, ")).unwrap_or_default();
        let long = arg.to_string().replace(['<', '>'], "");
        let variable = variable_of(arg).unwrap_or_default();
        rows.push(format!("| {short}`{long}` | `{variable}` | {} | {} |", meaning(arg), default(arg)));
    }
    rows.join("\n") + "\n"
}

fn default(arg: &Arg) -> String {
    let values: Vec<_> = arg.get_default_values().iter().map(|value| format!("`{}`", value.display())).collect();
    values.join(",")
}

fn meaning(arg: &Arg) -> String {
    let values: Vec<_> = arg.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    if values.is_empty() { help } else { format!("{help}: {}", values.join(", ")) }
}

/// The source of the test that a name like `module::test` in the contract stands for.
fn source_of(module: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    ["tests/system/{}.rs", "src/{}/tests.rs", "src/{}.rs"]
        .into_iter()
        .find_map(|place| fs::read_to_string(root.join(place.replace("{}", module))).ok())
        .unwrap_or_else(|| panic!("there is no module {module}"))
}

#[test]
fn every_promise_names_tests_that_exist() {
    let contract = README.split("\n## ").find(|section| section.starts_with("The contract")).expect("a contract");
    let promises: Vec<&str> = contract.lines().filter(|line| line.starts_with("| **")).collect();
    assert_eq!(promises.len(), 8);
    for promise in promises {
        let names: Vec<_> = promise.split('`').filter_map(|word| word.split_once("::")).collect();
        assert!(!names.is_empty(), "{promise}");
        for (module, name) in names {
            assert!(source_of(module).contains(&format!("fn {name}(")), "{module}::{name} is no test");
        }
    }
}
