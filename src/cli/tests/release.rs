//! What a release depends on beside the code: the changelog, the versions in manifests, and the workflows.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

const VERSION: &str = env!("CARGO_PKG_VERSION");

const CHANGELOG: &str = include_str!("../../../CHANGELOG.md");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = entries.map(|entry| entry.expect("an entry of a folder").path());
    paths.flat_map(|path| if path.is_dir() { below(&path) } else { vec![path] }).collect()
}

#[test]
fn the_changelog_begins_with_what_is_unreleased_and_goes_back_in_time() {
    let heads: Vec<&str> = CHANGELOG.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(heads.first(), Some(&"Unreleased"), "{heads:?}");
    let releases = heads[1..].iter().map(|head| head.split_once(" - ").unwrap_or_else(|| panic!("no date: {head}")));
    let numbers = |version: &str| {
        let parts = version.split('.').map(|part| part.parse().unwrap_or_else(|error| panic!("{version}: {error}")));
        parts.collect::<Vec<u32>>()
    };
    let mut before = numbers(VERSION);
    for (number, (version, date)) in releases.enumerate() {
        let version = numbers(version);
        assert!(version < before || (number == 0 && version == before), "{version:?} is no older than {before:?}");
        assert!(date.parse::<jiff::civil::Date>().is_ok(), "{date}");
        before = version;
    }
    let kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"];
    for kind in CHANGELOG.lines().filter_map(|line| line.strip_prefix("### ")) {
        assert!(kinds.contains(&kind), "{kind}");
    }
}

#[test]
fn every_manifest_names_the_image_of_this_version() {
    let files = ["examples", "deploy"].into_iter().flat_map(|folder| below(&root().join(folder)));
    let mut count = 0;
    for file in files.chain([root().join("README.md")]) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        let images = text.split_whitespace().filter_map(|word| word.strip_prefix("configbump:"));
        for tag in images.map(|tag| tag.trim_end_matches(|char: char| !char.is_ascii_alphanumeric())) {
            assert_eq!(tag, VERSION, "{}", file.display());
            count += 1;
        }
    }
    assert!(count > 0, "no manifest names an image");
}

/// An action of another version would be another program.
#[test]
fn the_workflows_are_yaml_and_use_well_known_actions_of_a_fixed_version() {
    for file in below(&root().join(".github/workflows")) {
        let text = fs::read_to_string(&file).expect("a file");
        let workflow: Value =
            serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(workflow["on"].is_object() && workflow["permissions"]["contents"] == "read", "{}", file.display());
        let jobs = workflow["jobs"].as_object().expect("jobs");
        for step in jobs.values().flat_map(|job| job["steps"].as_array().expect("steps")) {
            let Some(action) = step["uses"].as_str() else {
                assert!(step["run"].is_string(), "{step}");
                continue;
            };
            let (name, version) = action.split_once("@v").unwrap_or_else(|| panic!("no version: {action}"));
            assert!(name.starts_with("actions/"), "{action}");
            assert!(
                version.split('.').count() == 3 && version.split('.').all(|part| part.parse::<u32>().is_ok()),
                "{action}"
            );
        }
    }
}
