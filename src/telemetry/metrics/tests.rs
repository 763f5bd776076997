//! The page about the metrics is what the program serves.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::bump;
use crate::source::cluster::REASONS;

const PAGE: &str = include_str!("../../../docs/metrics.md");

const START: &str = "<!-- metrics -->\n";
const END: &str = "<!-- /metrics -->";

/// All metrics, with every value of a label that there can be.
fn all() -> Metrics {
    let metrics = Metrics::new();
    metrics.will_fail(REASONS);
    bump::KINDS.into_iter().for_each(|kind| metrics.will_bump(kind));
    metrics
}

/// A Markdown table, of what is served: a row for each `HELP`, with the labels of the samples below it.
fn table(text: &str) -> String {
    let mut rows = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"].map(str::to_owned).to_vec();
    for family in text.split("# HELP ").skip(1) {
        let (head, samples) = family.split_once("# TYPE ").expect("every metric has a type");
        let (name, help) = head.trim_end().split_once(' ').expect("every metric has a meaning");
        let (described, samples) = samples.split_once('\n').expect("a line");
        let kind = described.strip_prefix(name).expect("the type is the same metric's").trim();
        let suffix = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        let label = |(label, values): (&str, BTreeSet<&str>)| match Vec::from_iter(values) {
            values if values.is_empty() => format!("`{label}`"),
            values => format!("`{label}`: {}", values.join(", ")),
        };
        let labels: Vec<_> = labels(samples).into_iter().map(label).collect();
        rows.push(format!("| `{name}{suffix}` | {kind} | {} | {} |", labels.join("; "), help.trim_end_matches('.')));
    }
    rows.join("\n") + "\n"
}

/// The labels, and the values that they have. Bounds of buckets and versions are no news.
fn labels(samples: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut labels: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for sample in samples.lines() {
        let Some((_, rest)) = sample.split_once('{') else { continue };
        let (pairs, _) = rest.split_once('}').expect("labels end");
        for (label, value) in pairs.split(',').filter_map(|pair| pair.split_once('=')) {
            if label == "le" {
                continue;
            }
            let values = labels.entry(label).or_default();
            if label != "version" {
                values.insert(value.trim_matches('"'));
            }
        }
    }
    labels
}

#[test]
fn the_page_has_every_metric_as_the_program_serves_it() {
    let (_, rest) = PAGE.split_once(START).expect("the page has a place for the metrics");
    let (found, _) = rest.split_once(END).expect("the place for the metrics has an end");
    let expected = table(&all().text(&Present::default()));
    assert!(found == expected, "write this between the markers of docs/metrics.md:\n{expected}");
}

/// The names of metrics in a text, without what the format or a query adds to a histogram's.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    let names = words.filter(|word| word.starts_with("configbump_"));
    names.map(|name| name.strip_suffix("_bucket").unwrap_or(name)).collect()
}

#[test]
fn dashboard_alerts_and_the_page_know_no_metric_that_is_not_served_and_the_dashboard_shows_all() {
    let text = table(&all().text(&Present::default()));
    let served = names(&text);
    let dashboard = names(include_str!("../../../deploy/grafana/configbump.json"));
    assert_eq!(dashboard, served);
    for used in [include_str!("../../../deploy/prometheus/configbump.rules.yaml"), PAGE] {
        let used = names(used);
        assert!(!used.is_empty() && used.is_subset(&served), "{:?}", used.difference(&served));
    }
}

#[test]
fn names_follow_the_conventions() {
    for family in all().text(&Present::default()).split("# HELP ").skip(1) {
        let name = family.split(' ').next().unwrap_or_default();
        assert!(name.starts_with("configbump_"), "{name}");
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        // The format adds it.
        assert!(!name.ends_with("_total"), "{name}");
        assert_eq!(name.contains("duration") || name.contains("timestamp"), name.ends_with("_seconds"), "{name}");
    }
}

#[test]
fn what_is_counted_is_served() {
    let metrics = all();
    metrics.took(&What::ListStarted, false);
    metrics.took(&What::ListDone, false);
    metrics.took(&What::ListStarted, true);
    metrics.bookmark();
    metrics.bumped("exec", Outcome::Failed, Duration::from_millis(20));
    metrics.bumped("exec", Outcome::Waiting, Duration::from_millis(20));
    let moment = UNIX_EPOCH + Duration::from_millis(1500);
    let present = Present { files: 3, ready: true, last_bump: Some(moment), ..Present::default() };
    let text = metrics.text(&present);
    for line in [
        "configbump_lists_total 1",
        "configbump_relists_total 1",
        "configbump_events_total{type=\"bookmark\"} 1",
        "configbump_events_total{type=\"apply\"} 0",
        "configbump_source_failures_total{reason=\"forbidden\"} 0",
        "configbump_bumps_total{kind=\"exec\",outcome=\"failure\"} 1",
        "configbump_bumps_total{kind=\"url\",outcome=\"failure\"} 0",
        "configbump_bump_duration_seconds_count{kind=\"exec\"} 1",
        "configbump_files 3",
        "configbump_ready 1",
        "configbump_last_bump_timestamp_seconds 1.5",
        "configbump_last_sync_timestamp_seconds 0.0",
        concat!("configbump_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
    ] {
        assert!(text.lines().any(|found| found == line), "no line {line:?} in\n{text}");
    }
    assert!(text.ends_with("# EOF\n"), "{text}");
}
