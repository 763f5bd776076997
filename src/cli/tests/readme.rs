//! What the README says is so: its table of options, its manifests, and the tests that its promises name; and those that
//! SECURITY.md names.

use std::fs;
use std::path::Path;

use clap::{Arg, CommandFactory};

use super::super::variables::{Alias, OF_CM_BUMP};
use super::super::{Cli, variable_of};

const README: &str = include_str!("../../../README.md");
const SECURITY: &str = include_str!("../../../SECURITY.md");

/// What stands between the markers of this name.
fn marked(name: &str) -> &'static str {
    let (_, rest) = README.split_once(&format!("<!-- {name} -->\n")).expect("the README has a place for it");
    rest.split_once(&format!("<!-- /{name} -->")).expect("the place has an end").0
}

#[test]
fn the_readme_has_every_option_as_the_program_has_it() {
    let expected = table();
    assert!(marked("options") == expected, "write this between the options markers of README.md:\n{expected}");
}

#[test]
fn the_readme_has_every_variable_of_cm_bump_that_the_program_reads() {
    let mut rows = vec!["| cm-bump's | option | its own variable |".to_owned(), "| --- | --- | --- |".to_owned()];
    let command = Cli::command();
    for Alias { name, option, .. } in OF_CM_BUMP {
        let arg = command.get_arguments().find(|arg| arg.get_long() == Some(option)).expect(name);
        rows.push(format!("| `{name}` | `--{option}` | `{}` |", variable_of(arg).expect(name)));
    }
    let expected = rows.join("\n") + "\n";
    assert!(marked("cm-bump") == expected, "write this between the cm-bump markers of README.md:\n{expected}");
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

/// The rows of the tables in a section of a document, without their heads. Each names tests, all of which exist.
fn rows_with_tests(document: &'static str, section: &str) -> Vec<&'static str> {
    let text = document.split("\n## ").find(|text| text.starts_with(section));
    let lines = text.unwrap_or_else(|| panic!("no section {section:?}")).lines();
    let rows: Vec<&str> = lines.filter(|line| line.starts_with("| **")).collect();
    for row in &rows {
        let names: Vec<_> = row.split('`').filter_map(|word| word.split_once("::")).collect();
        assert!(!names.is_empty(), "{row}");
        for (module, name) in names {
            assert!(source_of(module).contains(&format!("fn {name}(")), "{module}::{name} is no test");
        }
    }
    rows
}

#[test]
fn every_promise_names_tests_that_exist() {
    assert_eq!(rows_with_tests(README, "The contract").len(), 13);
}

#[test]
fn every_comparison_with_a_neighbour_names_tests_that_exist() {
    let rows = rows_with_tests(README, "Beside its neighbours");
    rows.iter().for_each(|row| assert_eq!(row.matches(" | ").count(), 4, "three programs and the tests: {row}"));
}

#[test]
fn every_fault_and_attack_names_tests_that_exist() {
    let rows = rows_with_tests(SECURITY, "Faults and attacks");
    assert!(!rows.is_empty());
    rows.iter().for_each(|row| assert_eq!(row.matches(" | ").count(), 2, "what happens, what holds, the tests: {row}"));
}
