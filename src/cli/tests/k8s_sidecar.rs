//! The variables of k8s-sidecar, as its users set them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use clap::CommandFactory as _;

use super::{asked, config_in, refusal_in};
use crate::config::{Config, InitialBump, Layout, Namespaces, SourceConfig};
use crate::object::Kind;
use crate::telemetry::endpoints::Address;
use crate::telemetry::{Format, Level};

/// What most of its users set, and this.
fn sidecar(variables: &[(&str, &str)]) -> Config {
    let usual = [("LABEL", "grafana_dashboard"), ("FOLDER", "/dashboards")];
    config_in("k8s-sidecar", &[variables, &usual].concat())
}

#[test]
fn its_least_variables_are_enough_and_its_defaults_hold() {
    let config = sidecar(&[]);
    assert_eq!(config.dir, PathBuf::from("/dashboards"));
    assert_eq!(config.selection.labels.map(|labels| labels.text).as_deref(), Some("grafana_dashboard"));
    assert_eq!(config.selection.kinds, [Kind::ConfigMap]);
    assert_eq!(config.selection.namespaces, Namespaces::Unset);
    assert_eq!(config.folder_annotation.as_deref(), Some("k8s-sidecar-target-directory"));
    assert_eq!((config.modes.config_map, config.modes.secret), (0o644, 0o644));
    assert_eq!((config.layout, config.once), (Layout::Flat, false));
    assert_eq!((config.log_format, config.log_level), (Format::Json, Level::Info));
    assert!(matches!(&config.notes[..], [note] if note.contains(".url")), "{:?}", config.notes);
}

#[test]
fn its_variables_are_the_options_that_do_the_same() {
    let config = sidecar(&[
        ("LABEL_VALUE", "1"),
        ("RESOURCE", "both"),
        ("NAMESPACE", "a,b"),
        ("FOLDER_ANNOTATION", "folder"),
        ("UNIQUE_FILENAMES", "True"),
        ("DEFAULT_FILE_MODE", "440"),
        ("METHOD", "LIST"),
        ("SKIP_TLS_VERIFY", "true"),
        ("REQ_SKIP_INIT", "true"),
        ("LOG_LEVEL", "CRITICAL"),
        ("LOG_FORMAT", "LOGFMT"),
        ("IGNORE_ALREADY_PROCESSED", "true"),
    ]);
    assert_eq!(config.selection.labels.map(|labels| labels.text).as_deref(), Some("grafana_dashboard=1"));
    assert_eq!(config.selection.kinds, [Kind::ConfigMap, Kind::Secret]);
    assert_eq!(config.selection.namespaces, Namespaces::Named(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!(config.folder_annotation.as_deref(), Some("folder"));
    assert_eq!((config.layout, config.once), (Layout::Unique, true));
    assert_eq!((config.modes.config_map, config.modes.secret), (0o440, 0o440));
    assert_eq!(config.bump.initial, InitialBump::Never);
    assert_eq!((config.log_format, config.log_level), (Format::Text, Level::Error));
    let SourceConfig::Cluster(cluster) = config.source else { panic!("{:?}", config.source) };
    assert!(!cluster.tls_verify);
    assert!(matches!(&config.notes[..], [note] if note.contains(".url")), "{:?}", config.notes);
}

#[test]
fn all_namespaces_are_all_and_names_take_the_place_of_labels() {
    assert_eq!(sidecar(&[("NAMESPACE", "ALL"), ("RESOURCE_NAME", "x")]).selection.namespaces, Namespaces::All);
    let named = sidecar(&[("RESOURCE_NAME", "web,api")]).selection;
    assert_eq!((named.labels.is_none(), named.names), (true, vec!["web".to_owned(), "api".to_owned()]));
}

#[test]
fn its_call_is_made_as_it_was() {
    let url = [
        ("REQ_URL", "http://localhost:3000/reload"),
        ("REQ_METHOD", "POST"),
        ("REQ_PAYLOAD", "{\"a\": 1}"),
        ("REQ_USERNAME", "admin"),
        ("REQ_PASSWORD", "pässword"),
        ("REQ_TIMEOUT", "2.5"),
    ];
    let shown = format!("{:?}", sidecar(&url).bump.url.expect("a URL"));
    assert!(shown.contains("http://localhost:3000/reload") && shown.contains("POST"), "{shown}");
    assert!(sidecar(&url[1..]).bump.url.is_none());
    let refusal = |name, value| {
        refusal_in("k8s-sidecar", &[&[("LABEL", "a"), ("FOLDER", "/d"), (name, value)], &url[..5]].concat())
    };
    assert!(refusal("REQ_TIMEOUT", "soon").starts_with("REQ_TIMEOUT: `soon` is no number of seconds"));
    assert!(refusal("REQ_METHOD", "PUSH").starts_with("--url-method (from REQ_METHOD): "));
    let greek = [("LABEL", "a"), ("FOLDER", "/d"), ("REQ_URL", url[0].1), ("REQ_USERNAME", "a"), ("REQ_PASSWORD", "ω")];
    assert!(refusal_in("k8s-sidecar", &greek).contains("set REQ_BASIC_AUTH_ENCODING to utf-8"));
    sidecar(&[&greek[2..], &[("REQ_BASIC_AUTH_ENCODING", "utf-8")]].concat());
}

#[test]
fn its_script_is_run_as_it_was() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = folder.path().join("my script");
    let text = script.to_str().expect("a path").to_owned();
    let command = || sidecar(&[("SCRIPT", &text)]).bump.exec.expect("a command").command;
    assert_eq!(command(), ["sh", &text]);
    fs::write(&script, "").expect("a file");
    assert_eq!(command(), ["sh", &text]);
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("its mode");
    assert_eq!(command(), [text.as_str()]);
}

#[test]
fn what_is_not_supported_is_told_in_a_line_each() {
    let config = sidecar(&[("METHOD", "SLEEP"), ("SLEEP_TIME", "30"), ("ENABLE_5XX", "true"), ("HEALTH_PORT", "8080")]);
    assert_eq!(config.listen, Some(Address::Every { port: 8080 }));
    let told = |name: &str| config.notes.iter().filter(|note| note.starts_with(name)).count();
    assert_eq!(["METHOD", "SLEEP_TIME", "ENABLE_5XX", "HEALTH_PORT"].map(told), [1; 4], "{:?}", config.notes);
    assert!(config.notes.iter().all(|note| !note.contains('\n')) && config.notes.len() == 5);
    for (name, value, parts) in [
        ("RESOURCE", "pods", "RESOURCE: `pods`"),
        ("RESOURCE_NAME", "secret/web", "RESOURCE_NAME: `secret/web`"),
        ("DEFAULT_FILE_MODE", "rw", "(from DEFAULT_FILE_MODE)"),
        ("LABEL", "a=b=c", "--labels (from LABEL)"),
        ("NAMESPACE", "A b", "--namespace (from NAMESPACE)"),
    ] {
        let refused = refusal_in("k8s-sidecar", &[(name, value), ("LABEL", "a"), ("FOLDER", "/d")]);
        assert!(refused.contains(parts), "{refused}");
    }
}

#[test]
fn options_and_variables_of_its_own_come_first() {
    let line = "k8s-sidecar --dir /typed --namespace web --listen :8081";
    let environment =
        [("LABEL", "a"), ("FOLDER", "/d"), ("NAMESPACE", "ALL"), ("CONFIG_BUMP_LABELS", "own"), ("HEALTH_PORT", "1")];
    let config = config_in(line, &environment);
    assert_eq!(config.dir, PathBuf::from("/typed"));
    assert_eq!(config.selection.namespaces, Namespaces::Named(vec!["web".to_owned()]));
    assert_eq!(config.selection.labels.map(|labels| labels.text).as_deref(), Some("own"));
    assert_eq!(config.listen, Some(Address::Every { port: 8081 }));
}

#[test]
fn without_the_word_its_variables_count_for_nothing() {
    let environment =
        [("LABEL", "a"), ("FOLDER", "/d"), ("NAMESPACE", "ALL"), ("SCRIPT", "/x"), ("LOG_LEVEL", "DEBUG")];
    assert!(asked("", &environment).is_err());
    let config = config_in("-d /d -l app=web", &environment);
    assert_eq!((config.selection.namespaces, config.log_level), (Namespaces::Unset, Level::Info));
    assert!(config.bump.exec.is_none());
}

#[test]
fn a_service_named_health_sets_no_port() {
    for link in ["tcp://10.96.0.9:80", "udp://10.96.0.9:53", "sctp://[fd00::9]:80"] {
        let config = sidecar(&[("HEALTH_PORT", link)]);
        assert_eq!(config.listen, None, "{link}");
        let notes: Vec<_> = config.notes.iter().filter(|note| note.contains("HEALTH_PORT")).collect();
        assert!(
            matches!(notes[..], [note] if note.contains(link) && note.contains("enableServiceLinks: false")),
            "{notes:?}"
        );
    }
    assert!(
        refusal_in("k8s-sidecar", &[("LABEL", "a"), ("FOLDER", "/d"), ("HEALTH_PORT", "http://a")])
            .contains("HEALTH_PORT")
    );
}

#[test]
fn no_other_variable_can_be_a_service_link() {
    let lookups = std::cell::RefCell::new(std::collections::BTreeSet::new());
    // So that every variable is looked up.
    let values = [("REQ_URL", "http://a"), ("REQ_METHOD", "POST"), ("REQ_USERNAME", "a"), ("REQ_PASSWORD", "a")];
    let lookup = |name: &str| {
        lookups.borrow_mut().insert(name.to_owned());
        values.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).into())
    };
    crate::cli::k8s_sidecar::Asked::read(lookup).unwrap_or_else(|error| panic!("{error}"));
    let own = crate::cli::Cli::command().get_arguments().filter_map(crate::cli::variable_of).collect::<Vec<_>>();
    let of_cm_bump = crate::cli::variables::OF_CM_BUMP.iter().map(|alias| alias.name.to_owned());
    let names: Vec<_> = lookups.into_inner().into_iter().chain(own).chain(of_cm_bump).collect();
    assert!(names.len() > 50, "{names:?}");
    // A Service `name` sets NAME_PORT, NAME_PORT_80_TCP and its like, and NAME_SERVICE_HOST and its like.
    let is_link = |name: &&String| name.ends_with("_PORT") || name.contains("_PORT_") || name.contains("_SERVICE_");
    assert_eq!(names.iter().filter(is_link).collect::<Vec<_>>(), ["HEALTH_PORT"]);
}
