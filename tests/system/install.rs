//! `make install`, and what `make` checks before a release.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::harness::workspace::{Workspace, write};

const EXECUTABLE: &str = env!("CARGO_BIN_EXE_configbump");

/// As somebody types it in this folder, whatever make this test is run by.
fn make(folder: &Path, words: &[String]) -> Output {
    let mut make = Command::new("make");
    make.arg("-f").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Makefile")).current_dir(folder).args(words);
    for variable in ["MAKEFLAGS", "MFLAGS", "MAKELEVEL", "DESTDIR", "PREFIX", "EXECUTABLE", "TAG"] {
        make.env_remove(variable);
    }
    make.output().unwrap_or_else(|error| panic!("make: {error}"))
}

/// Every file below a folder, with its permissions.
fn below(folder: &Path) -> BTreeMap<PathBuf, u32> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry of a folder").path();
        if path.is_dir() {
            files.extend(below(&path));
        } else {
            files.insert(path.clone(), fs::metadata(&path).expect("a file").permissions().mode() & 0o7777);
        }
    }
    files
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn what_make_installs_is_where_a_system_looks_for_it() {
    let workspace = Workspace::new();
    let root = workspace.beside("root");
    let words = [
        "install".to_owned(),
        format!("EXECUTABLE={EXECUTABLE}"),
        format!("DESTDIR={}", root.display()),
        "PREFIX=/usr".to_owned(),
    ];
    // Twice, as over an earlier version.
    for _ in 0..2 {
        let output = make(Path::new(env!("CARGO_MANIFEST_DIR")), &words);
        assert!(output.status.success(), "{output:?}");
    }
    let bin = root.join("usr/bin/configbump");
    let share = |path: &str| root.join("usr/share").join(path);
    let (man, bash) = (share("man/man1/configbump.1"), share("bash-completion/completions/configbump"));
    let (zsh, fish) = (share("zsh/site-functions/_configbump"), share("fish/vendor_completions.d/configbump.fish"));
    let text = [&man, &bash, &zsh, &fish].map(|path| (path.clone(), 0o644));
    assert_eq!(below(&root), text.into_iter().chain([(bin.clone(), 0o755)]).collect());

    let version = said(Command::new(&bin).arg("--version"));
    assert_eq!(version, format!("configbump {}\n", env!("CARGO_PKG_VERSION")));
    said(Command::new("mandoc").args(["-T", "lint", "-W", "error"]).arg(&man));
    let source = r#"source "$1"; complete -p configbump"#;
    assert!(said(Command::new("bash").args(["-c", source, "bash"]).arg(&bash)).contains("configbump"));
    let load = r#"fpath=("$1" $fpath); autoload -Uz compinit && compinit -u -d "$2"; print -- ${_comps[configbump]}"#;
    let zsh = Command::new("zsh")
        .args(["-fc", load, "zsh"])
        .args([zsh.parent().expect("a folder"), &workspace.beside("zcompdump")])
        .output()
        .expect("zsh");
    assert_eq!(String::from_utf8_lossy(&zsh.stdout), "_configbump\n", "{zsh:?}");
    let offered = said(
        Command::new("fish").args(["--no-config", "-c", r#"source $argv[1]; complete -C "configbump doc""#]).arg(&fish),
    );
    assert!(offered.starts_with("doctor"), "{offered}");
}

#[test]
fn a_release_has_the_version_of_its_tag_and_a_heading_in_the_changelog() {
    let workspace = Workspace::new();
    let folder = workspace.beside("release");
    write(&folder.join("Cargo.toml"), "[package]\nname = \"configbump\"\nversion = \"1.2.3\"\n");
    let old = "## 1.2.2 - 2026-01-01\n\n- Old.\n";
    let new = format!("# Changelog\n\n## Unreleased\n\n## 1.2.3 - 2026-02-01\n\n- New.\n\n{old}");
    let check = |changelog: &str, tag: &str| {
        write(&folder.join("CHANGELOG.md"), changelog);
        let output = make(&folder, &["release-check".to_owned(), format!("TAG={tag}")]);
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    assert_eq!(check(&new, "v1.2.3"), (true, String::new()));
    for (changelog, tag, expected) in [
        (new.as_str(), "v1.2.4", "tag v1.2.3, or change it there"),
        (&new, "1.2.3", "tag v1.2.3"),
        (&format!("## Unreleased\n\n- New.\n\n{old}"), "v1.2.3", "has no heading '## 1.2.3"),
    ] {
        let (is_right, error) = check(changelog, tag);
        assert!(!is_right && error.contains(expected), "{tag}: {error}");
    }
    write(&folder.join("CHANGELOG.md"), &new);
    let notes = make(&folder, &["release-notes".to_owned(), "TAG=v1.2.3".to_owned()]);
    assert_eq!(String::from_utf8_lossy(&notes.stdout).trim(), "- New.");
}

/// Runs `tests/setup` as root on a machine that has only a few tools, and these scripts by name.
fn setup(workspace: &Workspace, scripts: &[(&str, &str)]) -> Output {
    let tools = workspace.fresh("tools");
    fs::create_dir(&tools).expect("a directory");
    for tool in ["sh", "sed", "uname", "dirname", "id"] {
        let found = said(Command::new("sh").args(["-c", "command -v \"$0\"", tool]));
        std::os::unix::fs::symlink(found.trim(), tools.join(tool)).expect("a link");
    }
    for (name, script) in scripts {
        write(&tools.join(name), script);
        fs::set_permissions(tools.join(name), fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup");
    Command::new("sh").arg(setup).env_clear().env("PATH", &tools).output().expect("a shell")
}

/// Every package of the list in `tests/setup`, except those that a machine has in `/usr/sbin`.
fn packages() -> Vec<String> {
    let script = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup")).expect("a script");
    let list = script.split("packages='").nth(1).and_then(|rest| rest.split('\'').next()).expect("a list");
    let is_elsewhere =
        |contents: &&str| contents.contains('/') || ["nginx", "haproxy", "runc", "mkfs.vfat"].contains(contents);
    let lines = list.lines().filter_map(|line| line.split_once(' '));
    lines.filter(|(_, contents)| !is_elsewhere(contents)).map(|(package, _)| package.to_owned()).collect()
}

#[test]
fn setup_lists_everything_that_is_missing_at_once() {
    let output = setup(&Workspace::new(), &[]);
    let error = String::from_utf8(output.stderr).expect("text");
    assert!(!output.status.success() && error.starts_with("make test: these are missing"), "{error}");
    let wanted =
        ["  cargo: install Rust", "  go: install Go", "`rustup component add clippy`", "-unknown-linux-musl: run"];
    assert!(wanted.iter().all(|line| error.contains(line)), "{error}");
    assert!(packages().len() > 10);
    for package in packages() {
        assert_eq!(error.matches(&format!(": install the package {package}\n")).count(), 1, "{package}: {error}");
    }
}

#[test]
fn setup_as_root_installs_everything_by_apt_get() {
    let workspace = Workspace::new();
    let calls = workspace.beside("calls");
    let record = |name: &str| format!("#!/bin/sh\necho {name} \"$@\" >>'{}'\nexit 1\n", calls.display());
    let output = setup(
        &workspace,
        &[("apt-get", &record("apt-get")), ("cargo", &record("cargo")), ("rustup", &record("rustup"))],
    );
    let error = String::from_utf8(output.stderr).expect("text");
    let calls = fs::read_to_string(&calls).expect("the calls");
    let install = calls.lines().find(|line| line.starts_with("apt-get install")).expect("a call");
    for package in packages() {
        let is_named = |line: &str| line.split(' ').any(|word| word == package);
        assert!(is_named(install) && error.lines().next().is_some_and(is_named), "{package}: {install}: {error}");
    }
    for call in ["rustup component add rustfmt", "rustup target add", "cargo install --locked cargo-deny"] {
        assert!(calls.contains(call) && error.contains(&format!("running {call}")), "{call}: {calls}{error}");
    }
    assert!(!output.status.success() && error.contains("  go: install Go"), "{error}");
}
