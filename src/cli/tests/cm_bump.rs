//! The variables of cm-bump, which stand for ours.

use super::super::variables::OF_CM_BUMP;
use super::{config_in, refusal_in};
use crate::bump::process::Who;
use crate::config::{Config, Namespaces, SourceConfig};
use crate::telemetry::Level;

/// What cm-bump needs, and more.
fn with<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [("CM_DIR", "/cm"), ("CM_LABELS", "config-bump==reload")].iter().chain(more).copied().collect()
}

/// The configuration of an environment alone.
fn of(environment: &[(&str, &str)]) -> Config {
    config_in("", environment)
}

#[test]
fn they_mean_what_they_meant() {
    let config = of(&with(&[
        ("CM_NAMESPACE", "web"),
        ("CM_TLS_VERIFY", "false"),
        ("CM_PROC_CMD", "signal-hand.*"),
        ("CMD_PROC_PARENT_CMD", "sh"),
        ("CM_PROC_SIGNAL", "SIGHUP"),
        ("CM_LOG", "debug"),
    ]));
    assert_eq!(config.dir.to_str(), Some("/cm"));
    assert_eq!(config.selection.labels.map(|labels| labels.text).as_deref(), Some("config-bump==reload"));
    assert_eq!(config.selection.namespaces, Namespaces::Named(vec!["web".to_owned()]));
    let SourceConfig::Cluster(cluster) = config.source else { panic!("{:?}", config.source) };
    assert!(!cluster.tls_verify);
    let signal = config.bump.signal.expect("a signal");
    assert_eq!(signal.signal.to_string(), "SIGHUP");
    assert!(matches!(signal.target.process, Who::Command(expression) if expression.as_str() == "signal-hand.*"));
    assert!(matches!(signal.target.parent, Some(Who::Command(expression)) if expression.as_str() == "sh"));
    assert_eq!(config.log_level, Level::Debug);

    let pids = [("CM_PROC_PID", "7"), ("CMD_PROC_PARENT_PID", "0"), ("CM_PROC_SIGNAL", "USR2")];
    let target = of(&with(&pids)).bump.signal.expect("a signal").target;
    assert!(matches!((target.process, target.parent), (Who::Pid(7), Some(Who::Pid(0)))));
}

#[test]
fn ours_and_what_is_typed_win() {
    let environment = with(&[("CONFIG_BUMP_DIR", "/ours"), ("CM_NAMESPACE", "Not,Good")]);
    assert_eq!(config_in("-n typed", &environment).dir.to_str(), Some("/ours"));
    assert_eq!(config_in("-n typed -d /typed", &environment).dir.to_str(), Some("/typed"));
    let config = of(&with(&[("CONFIG_BUMP_DIR", ""), ("CM_NAMESPACE", "")]));
    assert_eq!((config.dir.to_str(), config.selection.namespaces), (Some("/cm"), Namespaces::Unset), "empty is unset");
}

#[test]
fn beside_a_pid_a_command_is_ignored_as_by_cm_bump() {
    let both = with(&[("CM_PROC_PID", "7"), ("CM_PROC_CMD", "("), ("CM_PROC_SIGNAL", "HUP")]);
    let commands = with(&[("CM_PROC_CMD", "("), ("CMD_PROC_PARENT_CMD", "("), ("CM_PROC_SIGNAL", "HUP")]);
    for config in [of(&both), config_in("--process-pid 7 --process-parent-pid 1", &commands)] {
        assert!(matches!(config.bump.signal.expect("a signal").target.process, Who::Pid(7)));
    }
    let ours = with(&[("CONFIG_BUMP_PROCESS_PID", "7"), ("CM_PROC_CMD", "("), ("CM_PROC_SIGNAL", "HUP")]);
    assert!(matches!(of(&ours).bump.signal.expect("a signal").target.process, Who::Pid(7)));
}

#[test]
fn a_filter_of_the_log_gives_its_level_for_cm_bump() {
    for (filter, level) in [
        ("warn", Level::Warn),
        ("WARN", Level::Warn),
        ("info,kube=warn", Level::Info),
        ("info, cm_bump=trace ,kube=warn", Level::Trace),
        ("cm_bump=debug,info", Level::Debug),
        ("error,debug/some text", Level::Debug),
        ("off", Level::Error),
        ("kube=trace", Level::Info),
        (",", Level::Info),
    ] {
        assert_eq!(of(&with(&[("CM_LOG", filter)])).log_level, level, "{filter}");
    }
}

#[test]
fn an_error_names_the_variable_that_was_used() {
    for alias in OF_CM_BUMP {
        // Any path is a directory. As an expression or a selector, only the parenthesis is wrong.
        let wrong = match alias.name {
            "CM_DIR" => continue,
            "CM_LABELS" | "CM_PROC_CMD" | "CMD_PROC_PARENT_CMD" => "(",
            _ => "Not good",
        };
        let environment: Vec<_> = with(&[]).into_iter().filter(|(name, _)| *name != alias.name).collect();
        let error = refusal_in("", &[environment, vec![(alias.name, wrong)]].concat());
        assert!(error.starts_with(&format!("--{} (from {}): ", alias.option, alias.name)), "{error}");
    }
    let both = refusal_in("--names a -A", &with(&[("CM_NAMESPACE", "web")]));
    assert!(both.contains("--namespace (from CM_NAMESPACE)"), "{both}");
    assert!(!both.contains("CONFIG_BUMP_NAMESPACE"), "{both}");
}
