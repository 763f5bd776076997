//! The alerts and the dashboard in `deploy`, judged by Prometheus' own tool.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::cluster::free_address;
use crate::harness::endpoints::Endpoints;
use crate::harness::program::Program;
use crate::harness::sidecar::Launch;
use crate::harness::wait::{LONG_PATIENCE, run, until};
use crate::harness::web::ask;
use crate::harness::workspace::{Workspace, write};

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(deploy(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What promtool says of a file; the run fails if it objects.
fn promtool(words: [&str; 2], file: &Path) -> String {
    let output = Command::new("promtool").args(words).arg(file).output();
    let output = output.unwrap_or_else(|error| panic!("promtool: {error}; install prometheus"));
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "promtool {words:?} {}: {said}", file.display());
    said
}

/// The words that follow this one at the beginning of a line.
fn following<'t>(text: &'t str, key: &str) -> BTreeSet<&'t str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(key)).map(str::trim).collect()
}

#[test]
fn the_alerts_are_well_formed_and_each_fires_when_it_should_and_not_else() {
    let (rules, tests) = (read("prometheus/configbump.rules.yaml"), read("prometheus/configbump.test.yaml"));
    let alerts = following(&rules, "- alert: ");
    assert!(!alerts.is_empty());
    assert_eq!(following(&tests, "- name: "), alerts, "each alert has its test");
    for alert in alerts {
        let fires = format!("'ALERTS{{alertname=\"{alert}\", alertstate=\"firing\", instance=\"bad\"");
        assert!(tests.contains(&fires), "the test of {alert} says when it fires");
    }
    let said = promtool(["check", "rules"], &deploy("prometheus/configbump.rules.yaml"));
    assert!(said.contains("SUCCESS"), "{said}");
    let said = promtool(["test", "rules"], &deploy("prometheus/configbump.test.yaml"));
    assert!(said.contains("SUCCESS"), "{said}");
}

/// Every query of the dashboard, with a value for what Grafana puts in.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries = targets.map(|target| target["expr"].as_str().expect("a query").replace("$__rate_interval", "5m"));
    queries.map(|query| query.replace("$job", ".*").replace("$instance", ".*")).collect()
}

#[test]
fn every_query_of_the_dashboard_can_be_parsed_and_every_panel_has_a_place_and_a_meaning() {
    let dashboard: Value = serde_json::from_str(&read("grafana/configbump.json")).expect("JSON");
    let queries = queries(&dashboard);
    assert!(queries.len() > 10 && queries.iter().all(|query| !query.contains('$')), "{queries:?}");
    // Two rules of one name would be refused.
    let rule = |(number, query)| json!({"record": format!("query:{number}"), "expr": query});
    let rules: Vec<_> = queries.iter().enumerate().map(rule).collect();
    let workspace = Workspace::new();
    let file = workspace.beside("rules.json");
    write(&file, json!({"groups": [{"name": "dashboard", "rules": rules}]}).to_string());
    let said = promtool(["check", "rules"], &file);
    assert!(said.contains(&format!("{} rules found", queries.len())), "{said}");

    let panels = dashboard["panels"].as_array().expect("panels");
    let mut taken = BTreeSet::new();
    for panel in panels {
        let place = |name: &str| panel["gridPos"][name].as_u64().expect("a place");
        assert!(place("x") + place("w") <= 24, "{panel}");
        for x in place("x")..place("x") + place("w") {
            for y in place("y")..place("y") + place("h") {
                assert!(taken.insert((x, y)), "two panels at ({x}, {y}): {panel}");
            }
        }
        assert!(
            panel["type"] == "row" || panel["description"].as_str().is_some_and(|text| !text.is_empty()),
            "{panel}"
        );
    }
}

/// A real Prometheus takes the rules, reads a sidecar's metrics, and finds something for every query that has to have an answer.
#[test]
fn prometheus_reads_the_metrics_and_the_dashboards_queries_have_answers() {
    run(async {
        let (workspace, address) = (Workspace::new(), free_address());
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"app": "web"}}, "data": {"a": "1"},
        });
        write(&workspace.beside("manifests/map.yaml"), map.to_string());
        let launch = Launch::new(&workspace).arg("--manifests").arg(workspace.beside("manifests"));
        let sidecar = launch.args(["--listen", "127.0.0.1:0", "--exec", "true"]).start();
        let endpoints = Endpoints::of(&sidecar).await;
        let config = workspace.beside("prometheus.yaml");
        let targets = json!([{"targets": [endpoints.address.to_string()]}]);
        let scrape = json!([{"job_name": "configbump", "scrape_interval": "200ms", "static_configs": targets}]);
        let rules = deploy("prometheus/configbump.rules.yaml");
        write(&config, json!({"scrape_configs": scrape, "rule_files": [rules.display().to_string()]}).to_string());
        let data = workspace.beside("data");
        let arguments = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", data.display()),
            format!("--web.listen-address={address}"),
        ];
        let _prometheus = Program::start(&workspace, "prometheus", arguments);
        let dashboard: Value = serde_json::from_str(&read("grafana/configbump.json")).expect("JSON");
        for query in queries(&dashboard) {
            // Nothing has failed, and no source is a server.
            let may_be_empty = query.ends_with("> 0") || query.contains("last_progress") || query.contains("quantile");
            let encoded: String = form_urlencoded::Serializer::new(String::new()).append_pair("query", &query).finish();
            until(LONG_PATIENCE, &format!("an answer to {query}"), async || {
                let answer =
                    ask(address, &format!("/api/v1/query?{encoded}")).await.map_err(|error| error.to_string())?;
                let found: Value = serde_json::from_str(&answer.body).map_err(|error| error.to_string())?;
                let has_some = found["data"]["result"].as_array().is_some_and(|found| !found.is_empty());
                if found["status"] == "success" && (has_some || may_be_empty) { Ok(()) } else { Err(answer.body) }
            })
            .await;
        }
        sidecar.terminate().await;
    });
}
