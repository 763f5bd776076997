//! Command lines, good and bad, through the public function with an environment of their own.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use clap::CommandFactory;

use super::{Asked, Cli, parse, variable_of};
use crate::config::{Config, Layout, Namespaces, Prune, SourceConfig};
use crate::fuzz::{Faults, faulty};
use crate::object::Kind;
use crate::telemetry::{Format, Level};

mod cm_bump;
mod k8s_sidecar;
mod readme;
mod release;
mod verbs;

/// What a line of words says in an environment. A word in which `_` stands alone is empty.
fn asked(line: &str, environment: &[(&str, &str)]) -> Result<Asked, String> {
    let word = |word: &str| OsString::from(if word == "_" { "" } else { word });
    let words = ["configbump"].into_iter().chain(line.split(' ').filter(|part| !part.is_empty())).map(word);
    let variable = |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into());
    parse(words, variable).map_err(|error| error.to_string())
}

fn config_in(line: &str, environment: &[(&str, &str)]) -> Config {
    match asked(line, environment) {
        Ok(Asked::Run(config)) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

/// The configuration of a line that is complete but for its directory and labels.
fn config(line: &str) -> Config {
    config_in(&format!("--dir /d --labels app=web {line}"), &[])
}

/// The error of a whole line.
fn refusal_in(line: &str, environment: &[(&str, &str)]) -> String {
    match asked(line, environment) {
        Err(error) => error,
        Ok(asked) => panic!("{line} {environment:?} was accepted: {asked:?}"),
    }
}

/// The error of a line that is complete but for its directory and labels.
fn refusal(line: &str) -> String {
    refusal_in(&format!("--dir /d --labels app=web {line}"), &[])
}

#[test]
fn a_directory_and_labels_are_enough() {
    let config = config("");
    assert_eq!(config.dir, PathBuf::from("/d"));
    assert_eq!(config.selection.labels.map(|labels| labels.text).as_deref(), Some("app=web"));
    assert_eq!(config.selection.kinds, [Kind::ConfigMap]);
    assert_eq!(config.selection.namespaces, Namespaces::Unset);
    assert!(config.selection.names.is_empty());
    assert_eq!(config.layout, Layout::Flat);
    assert_eq!(config.folder_annotation, None);
    assert_eq!((config.modes.config_map, config.modes.secret), (0o644, 0o640));
    assert_eq!(config.prune, Prune::Owned);
    assert!(!config.once);
    assert_eq!((config.log_format, config.log_level), (Format::Text, Level::Info));
    let SourceConfig::Cluster(cluster) = config.source else { panic!("{:?}", config.source) };
    assert_eq!((cluster.kubeconfig, cluster.context, cluster.tls_verify), (None, None, true));
}

#[test]
fn the_options_of_the_go_configbump_are_understood() {
    let config = config_in("-d /d -l app=web -n web -t=false", &[]);
    assert_eq!(config.selection.namespaces, Namespaces::Named(vec!["web".to_owned()]));
    let SourceConfig::Cluster(cluster) = config.source else { panic!("{:?}", config.source) };
    assert!(!cluster.tls_verify);
}

#[test]
fn lists_take_commas_and_repetitions_and_hold_everything_once() {
    let config = config("-n b,a --namespace=c,a --names y,x --names x,z.w -k secrets -k configmaps,secrets");
    assert_eq!(config.selection.namespaces, Namespaces::Named(["b", "a", "c"].map(str::to_owned).into()));
    assert_eq!(config.selection.names, ["y", "x", "z.w"]);
    assert_eq!(config.selection.kinds, [Kind::ConfigMap, Kind::Secret]);
}

#[test]
fn names_do_without_labels() {
    let config = config_in("--dir /d --names web", &[]);
    assert!(config.selection.labels.is_none());
    assert_eq!(config.selection.names, ["web"]);
}

#[test]
fn a_yes_or_no_option_is_written_as_in_go() {
    for (line, verifies) in [
        ("", true),
        ("-t", true),
        ("-t=true", true),
        ("--tls-verify", true),
        ("--tls-verify=T", true),
        ("-t=0", false),
        ("-t=FALSE", false),
        ("--tls-verify=false", false),
    ] {
        let SourceConfig::Cluster(cluster) = config(line).source else { panic!("{line}") };
        assert_eq!(cluster.tls_verify, verifies, "{line}");
    }
    assert!(config("--once").once);
    assert!(!config("--once=false").once);
    assert_eq!(config("-A").selection.namespaces, Namespaces::All);
    assert_eq!(config("-A=false -n web").selection.namespaces, Namespaces::Named(vec!["web".to_owned()]));
}

#[test]
fn modes_are_octal_however_they_are_written() {
    for text in ["0604", "604", "0o604"] {
        let modes = config(&format!("--file-mode {text} --secret-file-mode=0400")).modes;
        assert_eq!((modes.config_map, modes.secret), (0o604, 0o400), "{text}");
    }
}

#[test]
fn every_other_option_reaches_the_configuration() {
    let config = config(
        "--kubeconfig k/config --context c@d --layout tree --folder-annotation example.com/Folder_1 \
         --prune all --log-format json --log-level debug",
    );
    let SourceConfig::Cluster(cluster) = config.source else { panic!("{:?}", config.source) };
    assert_eq!(cluster.kubeconfig, Some(PathBuf::from("k/config")));
    assert_eq!(cluster.context.as_deref(), Some("c@d"));
    assert_eq!(config.layout, Layout::Tree);
    assert_eq!(config.folder_annotation.as_deref(), Some("example.com/Folder_1"));
    assert_eq!(config.prune, Prune::All);
    assert_eq!((config.log_format, config.log_level), (Format::Json, Level::Debug));
}

#[test]
fn manifests_take_the_place_of_a_cluster() {
    let SourceConfig::Manifests(paths) = config("--manifests m/a.yaml,n --manifests o -n web").source else { panic!() };
    assert_eq!(paths, ["m/a.yaml", "n", "o"].map(PathBuf::from));
}

#[test]
fn every_option_can_come_from_its_variable() {
    let config = config_in(
        "",
        &[
            ("CONFIG_BUMP_DIR", "/from env"),
            ("CONFIG_BUMP_LABELS", "app=web\n"),
            ("CONFIG_BUMP_NAMES", "a, b"),
            ("CONFIG_BUMP_KINDS", "secrets"),
            ("CONFIG_BUMP_NAMESPACE", "n,m"),
            ("CONFIG_BUMP_ALL_NAMESPACES", "false"),
            ("CONFIG_BUMP_CONTEXT", "c"),
            ("CONFIG_BUMP_TLS_VERIFY", "false"),
            ("CONFIG_BUMP_LAYOUT", "unique"),
            ("CONFIG_BUMP_FOLDER_ANNOTATION", "folder"),
            ("CONFIG_BUMP_FILE_MODE", "0600"),
            ("CONFIG_BUMP_SECRET_FILE_MODE", "0400"),
            ("CONFIG_BUMP_PRUNE", "never"),
            ("CONFIG_BUMP_ONCE", "true"),
            ("CONFIG_BUMP_LISTEN", "127.0.0.1:8080"),
            ("CONFIG_BUMP_LOG_FORMAT", "json"),
            ("CONFIG_BUMP_LOG_LEVEL", "trace"),
        ],
    );
    assert_eq!(config.dir, PathBuf::from("/from env"));
    assert_eq!(config.selection.labels.map(|labels| labels.text).as_deref(), Some("app=web"));
    assert_eq!(config.selection.names, ["a", "b"]);
    assert_eq!(config.selection.kinds, [Kind::Secret]);
    assert_eq!(config.selection.namespaces, Namespaces::Named(["n", "m"].map(str::to_owned).into()));
    let SourceConfig::Cluster(cluster) = config.source else { panic!("{:?}", config.source) };
    assert_eq!((cluster.context.as_deref(), cluster.tls_verify), (Some("c"), false));
    assert_eq!(config.layout, Layout::Unique);
    assert_eq!(config.folder_annotation.as_deref(), Some("folder"));
    assert_eq!((config.modes.config_map, config.modes.secret), (0o600, 0o400));
    assert_eq!(config.prune, Prune::Never);
    assert!(config.once);
    assert_eq!(config.listen.map(|address| address.to_string()).as_deref(), Some("127.0.0.1:8080"));
    assert_eq!((config.log_format, config.log_level), (Format::Json, Level::Trace));

    let manifests = config_in("-d /d -l app=web", &[("CONFIG_BUMP_MANIFESTS", "a,b")]);
    let SourceConfig::Manifests(paths) = manifests.source else { panic!("{:?}", manifests.source) };
    assert_eq!(paths, ["a", "b"].map(PathBuf::from));
}

#[test]
fn what_is_typed_replaces_the_variable() {
    let config = config_in(
        "-d /typed -l app=typed -n typed",
        &[("CONFIG_BUMP_DIR", "/env"), ("CONFIG_BUMP_LABELS", "("), ("CONFIG_BUMP_NAMESPACE", "Not,Good")],
    );
    assert_eq!(config.dir, PathBuf::from("/typed"));
    assert_eq!(config.selection.namespaces, Namespaces::Named(vec!["typed".to_owned()]));
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let variables: Vec<String> = Cli::command().get_arguments().filter_map(variable_of).collect();
    let empty: Vec<(&str, &str)> = variables.iter().map(|name| (name.as_str(), "")).collect();
    assert_eq!(config_in("-d /d -l app=web", &empty).selection.namespaces, Namespaces::Unset);
}

#[test]
fn the_kubeconfig_variable_is_left_to_the_client() {
    let SourceConfig::Cluster(cluster) = config_in("-d /d -l app=web", &[("KUBECONFIG", "/a:/b")]).source else {
        panic!()
    };
    assert_eq!(cluster.kubeconfig, None);
}

#[test]
fn a_bad_value_is_named_with_its_option_and_the_remedy() {
    for (line, parts) in [
        ("--kinds pods", ["--kinds: `pods`", "configmaps, secrets, or both"]),
        ("-k configmaps,", ["--kinds: ``", "configmaps, secrets"]),
        ("--kinds both", ["--kinds: `both`", "configmaps,secrets"]),
        ("--namespace Web", ["--namespace: `Web`", "lower-case"]),
        ("-n a.b", ["--namespace: `a.b`", "lower-case"]),
        ("-n=-a", ["--namespace: `-a`", "letter or digit at either end"]),
        ("-n _", ["--namespace: ", "--all-namespaces"]),
        ("--names _", ["--names: ", "--names web,api"]),
        ("--names a,,b", ["--names: ", "--names web,api"]),
        ("--names a/b", ["--names: `a/b`", "lower-case"]),
        ("--names a..b", ["--names: `a..b`", "dotted part"]),
        ("--names a\nb", ["--names: `a\\nb`", "lower-case"]),
        ("--tls-verify=perhaps", ["--tls-verify: `perhaps`", "true or false"]),
        ("--once=_x", ["--once: `_x`", "true or false"]),
        ("--context _", ["--context: ", "kubectl config get-contexts"]),
        ("--kubeconfig _", ["--kubeconfig needs a value", "--kubeconfig FILE"]),
        ("--manifests _", ["--manifests needs a value", "--manifests PATH"]),
        ("--layout trees", ["--layout: `trees`", "flat, unique, tree"]),
        ("--prune none", ["--prune: `none`", "owned, all, never"]),
        ("--folder-annotation a/b/c", ["--folder-annotation: `a/b/c`", "example.com/folder"]),
        ("--folder-annotation _", ["--folder-annotation: ``", "example.com/folder"]),
        ("--folder-annotation=x_y/f", ["--folder-annotation: `x_y/f`", "example.com/folder"]),
        ("--file-mode rw-r--r--", ["--file-mode: `rw-r--r--`", "0644"]),
        ("--file-mode 0698", ["--file-mode: `0698`", "0644"]),
        ("--file-mode 0x1ff", ["--file-mode: `0x1ff`", "0644"]),
        ("--file-mode +644", ["--file-mode: `+644`", "0644"]),
        ("--file-mode 04644", ["--file-mode: `04644`", "0644"]),
        ("--file-mode 0044", ["--file-mode: `0044`", "as in 0444"]),
        ("--secret-file-mode 0", ["--secret-file-mode: `0`", "as in 0400"]),
        ("--listen 8080", ["--listen: `8080`", ":8080, or one of this machine"]),
        ("--listen localhost:8080", ["--listen: `localhost:8080`", "127.0.0.1:8080"]),
        ("--log-format xml", ["--log-format: `xml`", "text, json"]),
        ("--log-level loud", ["--log-level: `loud`", "error, warn, info, debug, trace"]),
    ] {
        let error = refusal(line);
        assert!(parts.iter().all(|part| error.contains(part)), "{line}: {error}");
        assert!(!error.chars().any(char::is_control), "{line}: {error}");
    }
}

#[test]
fn names_may_be_as_long_as_kubernetes_has_them_and_no_longer() {
    let (label, name) = ("a".repeat(63), format!("{}.b", "a".repeat(251)));
    let config = config(&format!("-n {label} --names {name} --folder-annotation {name}/{label}"));
    assert_eq!(config.selection.names, [name.as_str()]);
    assert!(refusal(&format!("-n {label}a")).contains("63"));
    assert!(refusal(&format!("--names {name}b")).contains("253"));
    assert!(refusal(&format!("--folder-annotation {label}a")).contains("example.com/folder"));
    assert!(refusal(&format!("--folder-annotation {name}b/a")).contains("example.com/folder"));
}

#[test]
fn a_bad_selector_is_refused_with_its_text() {
    for labels in ["a b", "app=web,tier in", "(app)"] {
        let line = ["configbump", "--dir", "/d", "--labels", labels].map(OsString::from);
        let error = parse(line, |_| None).expect_err(labels).to_string();
        assert!(error.starts_with("--labels: ") && error.contains(labels), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_line_that_clap_refuses_is_refused_in_one_line() {
    for (line, expected) in [
        ("", "--dir is missing; write --dir DIR, or set CONFIG_BUMP_DIR"),
        ("--labels app=web", "--dir is missing; write --dir DIR, or set CONFIG_BUMP_DIR"),
        ("--labels app=web --dir", "--dir needs a value: --dir DIR"),
        ("--labels app=web --dir _", "--dir needs a value: --dir DIR"),
        ("--dir /d --lables app=web", "there is no option `--lables`; did you mean --labels?"),
        ("--dir /d -l app=web -s HUP -p -1", "`-1` is a value below 0, which no option takes; see `configbump --help`"),
        (
            "--dir /d -l app=web --exec true --exec-timeout 0",
            "--exec-timeout: `0` leaves no time; write one such as 30s",
        ),
        ("--dir /d -x", "there is no option `-x`; `configbump --help` lists those there are"),
        ("--dir /d --dir /e -l app=web", "--dir is given twice; write it once"),
        ("--dir /d -l app=web out", "`out` belongs to no option; write one before it, see `configbump --help`"),
        (
            "--dir /d -l app=web -t false",
            "`false` stands alone; a yes-or-no option takes its value after `=`, as in --tls-verify=false",
        ),
    ] {
        assert_eq!(refusal_in(line, &[]), expected, "{line}");
    }
}

#[test]
fn impossible_combinations_are_refused() {
    for (line, parts) in [
        ("--dir /d", ["--labels is missing", "--names web"]),
        ("--dir /d --labels _", ["--labels: it is empty", "app=web"]),
        ("--dir /d -l app=web -n web -A", ["--namespace and --all-namespaces", "leave one of them out"]),
        ("--dir /d -l app=web --manifests m --kubeconfig k", ["--manifests and --kubeconfig", "leave one of them out"]),
        ("--dir /d -l app=web --manifests m --context c", ["--manifests and --context", "leave one of them out"]),
        ("--dir /d -l app=web --manifests m -t", ["--manifests and --tls-verify", "leave one of them out"]),
        ("--dir /d -l app=web --manifests /d", ["--manifests: `/d`", "another directory"]),
        ("--dir d -l app=web --manifests m,d/m", ["--manifests: `d/m`", "another directory"]),
    ] {
        let error = refusal_in(line, &[]);
        assert!(parts.iter().all(|part| error.contains(part)), "{line}: {error}");
    }
}

#[test]
fn an_error_names_the_variable_that_the_value_came_from() {
    for (environment, expected) in [
        (("CONFIG_BUMP_KINDS", "pods"), "--kinds (from CONFIG_BUMP_KINDS): `pods`"),
        (("CONFIG_BUMP_LAYOUT", "x"), "--layout (from CONFIG_BUMP_LAYOUT): `x`"),
        (("CONFIG_BUMP_ONCE", "yes"), "--once (from CONFIG_BUMP_ONCE): `yes`"),
        (("CONFIG_BUMP_LABELS", " "), "--labels (from CONFIG_BUMP_LABELS): it is empty"),
    ] {
        let error = refusal_in("-d /d", &[environment]);
        assert!(error.starts_with(expected), "{error}");
    }
    assert_eq!(
        refusal_in("-d /d -l app=web -n web", &[("CONFIG_BUMP_ALL_NAMESPACES", "true")]),
        "--namespace and --all-namespaces (from CONFIG_BUMP_ALL_NAMESPACES) exclude each other; leave one of them out"
    );
}

#[cfg(unix)]
#[test]
fn a_path_need_not_be_unicode_but_labels_must() {
    use std::os::unix::ffi::OsStringExt;
    let odd = OsString::from_vec(vec![b'd', 0xff]);
    let line = |dir: &OsString, labels: &OsString| {
        parse(["configbump".into(), "-d".into(), dir.clone(), "-l".into(), labels.clone()], |_| None)
    };
    match line(&odd, &"app=web".into()) {
        Ok(Asked::Run(config)) => assert_eq!(config.dir, PathBuf::from(&odd)),
        other => panic!("{other:?}"),
    }
    let error = line(&"d".into(), &odd).expect_err("labels are text").to_string();
    assert_eq!(error, "an argument is not valid UTF-8; only paths may be anything else");
}

#[test]
fn help_and_version_are_printed() {
    let printed = |line| match asked(line, &[]) {
        Ok(Asked::Print(text)) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(printed("--version"), format!("configbump {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(printed("-V"), printed("--version"));
    let (short, long) = (printed("-h"), printed("--help"));
    assert!(short.lines().count() < long.lines().count());
    for help in [short, long] {
        for heading in ["Objects:", "Source:", "Files:", "Running:", "Logging:", "Example:"] {
            assert!(help.lines().any(|line| line.starts_with(heading)), "{heading} is not in\n{help}");
        }
        let flowing = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for arg in Cli::command().get_arguments().filter(|arg| !arg.is_positional()) {
            let variable = variable_of(arg).unwrap_or_else(|| panic!("{arg} has no variable"));
            assert!(flowing.contains(&format!("[env: {variable}]")), "{variable} is not in\n{help}");
        }
        assert!(!flowing.contains("CONFIG_BUMP_KUBECONFIG"));
    }
}

#[test]
fn the_options_are_free_of_contradictions() {
    Cli::command().debug_assert();
}

/// As people write them, a word a line.
const TYPED: [&str; 4] = [
    "--dir\n/d\n--labels\napp=web,tier in (a,b),!c\n--namespace\na,b\n--file-mode\n0644\n--settle\n1s",
    "-d\n/d\n-l\na\n-s\nHUP\n-c\n^nginx: (master|x) [a-z]+$\n-i\n0\n--max-delete\n50%\n--publish=set",
    "-d\n/d\n--names\nx\n--url\nhttps://u:p@h:1/x?y\n--url-header\nA: b\n--exec\nsh -c 'echo \"{}\"'\n--once",
    "doctor\n-d\n/d\n-l\na\n--listen\n[::1]:80\n--\nnginx\n-g\ndaemon off;",
];

#[test]
fn fuzz_words_with_faults_are_understood_or_refused_in_one_line() {
    bolero::check!().with_type::<Faults>().for_each(|faults| {
        let bytes = faulty(&TYPED, faults);
        let words = bytes.split(|byte| *byte == b'\n').map(|word| OsString::from_vec(word.to_vec()));
        let words = [OsString::from("configbump")].into_iter().chain(words);
        if let Err(error) = parse(words, |_| None) {
            let line = error.to_string();
            assert!(!line.is_empty() && !line.contains('\n'), "{line}");
        }
    });
}

#[test]
fn fuzz_selectors_with_faults_are_understood_or_refused() {
    bolero::check!().with_type::<Faults>().for_each(|faults| {
        let bytes = faulty(&["app=web, tier in (a, b),!c,d!=e,f notin (g),h", "x.io/y==z"], faults);
        let text = String::from_utf8_lossy(&bytes);
        if let Err(error) = crate::source::selector::parse(&text) {
            assert!(!error.to_string().is_empty());
        }
    });
}
