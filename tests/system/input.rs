//! Wrong input: one line that names the option, the value and the remedy, and nothing is touched.

use std::fs;

use crate::harness::access::{Context, kubeconfig};
use crate::harness::cluster::{ApiServer, Port};
use crate::harness::sidecar::Launch;
use crate::harness::wait::run;
use crate::harness::workspace::Workspace;

const USAGE: i32 = 2;
const CANNOT_START: i32 = 1;

/// Runs it and expects that exit code, nothing but one line with all the texts, and nothing made where DIR is to be.
async fn refuses(launch: &Launch<'_>, code: i32, texts: &[&str]) {
    let before = launch.workspace().listing();
    let ended = launch.run().await;
    assert_eq!(ended.code, Some(code), "{texts:?}: {ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "{texts:?}: {ended:?}");
    assert_eq!(ended.stdout, "", "{texts:?}: {ended:?}");
    for text in texts {
        assert!(ended.stderr.contains(text), "no {text:?} in {ended:?}");
    }
    assert_eq!(launch.workspace().listing(), before, "nothing is touched");
}

#[test]
fn a_wrong_option_is_refused_in_one_line_with_its_value_and_a_remedy() {
    run(async {
        let workspace = Workspace::new();
        for (option, value, remedy) in [
            ("--labels", "app in web", "("),
            ("--labels", "app=web,,", ""),
            ("--labels", "a b", ""),
            ("--labels", "-x=y", ""),
            ("--labels", "", "app="),
            ("--kinds", "pods", "configmaps"),
            ("--kinds", "configmaps,pod", "`pod`"),
            ("--kinds", "", "configmaps"),
            ("--names", "", "--names "),
            ("--names", ",", "--names "),
            ("--names", "Upper_case", "lower-case"),
            ("--namespace", "Not/One", "lower-case"),
            ("--file-mode", "rw-r--r--", "0644"),
            ("--file-mode", "0888", "0644"),
            ("--file-mode", "10644", "0644"),
            ("--secret-file-mode", "-1", "0644"),
            ("--layout", "pyramid", "flat"),
            ("--prune", "some", "owned"),
            ("--log-level", "loud", "info"),
            ("--log-format", "xml", "json"),
            ("--tls-verify", "maybe", "true"),
            ("--folder-annotation", "not an annotation", "example.com/"),
            ("--signal", "HUPP", "HUP"),
            ("--signal", "99", "64"),
            ("--signal", "", "HUP"),
            ("--process-command", "a(b", "column"),
            ("--process-command", "", "column 1"),
            ("--process-parent-command", "a[", "column 2"),
            ("--process-pid", "0", "--process-command"),
            ("--process-pid", "-1", "17"),
            ("--process-parent-pid", "init", "17"),
            ("--unhandled-signal", "ignore", "wait"),
            ("--settle", "5", "500ms"),
            ("--settle-max", "-1s", "500ms"),
            ("--min-interval", "1.5s", "500ms"),
            ("--exec-timeout", "soon", "500ms"),
            ("--url-timeout", "1d", "500ms"),
            ("--initial-bump", "sometimes", "auto"),
            ("--exec", "sh -c 'open", "close it"),
            ("--exec", "", "nginx -s reload"),
            ("--url", "ftp://host/", "http"),
            ("--url", "host:8080", "http"),
            ("--publish", "folder", "set"),
            ("--check", "", "nginx -s reload"),
            ("--check", "sh -c 'open", "close it"),
            ("--check-timeout", "soon", "500ms"),
            ("--rollback", "maybe", "true"),
            ("--max-delete", "150%", "from 0% to 100%"),
            ("--max-delete", "1.5", "from 0 to 1"),
            ("--max-delete", "-1%", "from 0% to 100%"),
            ("--max-delete", "NaN", "from 0% to 100%"),
            ("--max-delete", "half", "from 0% to 100%"),
            ("--max-delete-hold", "5", "500ms"),
        ] {
            let launch = Launch::new(&workspace).args(["--once", &format!("{option}={value}")]);
            let launch = if option == "--labels" { without_labels(&workspace, value) } else { launch };
            refuses(&launch, USAGE, &[option, value.rsplit(',').next().unwrap_or_default(), remedy]).await;
        }
    });
}

#[test]
fn on_change_without_a_command_is_refused() {
    run(async {
        let workspace = Workspace::new();
        for what in ["signal", "restart"] {
            let launch = Launch::new(&workspace).args(["--once", "--on-change", what]);
            refuses(&launch, USAGE, &["--on-change", "there is none; write it at the end, after --"]).await;
        }
    });
}

fn without_labels<'w>(workspace: &'w Workspace, labels: &str) -> Launch<'w> {
    Launch::bare(workspace).arg("--dir").arg(workspace.dir()).args([&format!("--labels={labels}")])
}

#[test]
fn a_wrong_variable_is_refused_by_its_own_name() {
    run(async {
        let workspace = Workspace::new();
        for (variable, value, remedy) in [
            ("CONFIG_BUMP_KINDS", "pods", "configmaps"),
            ("CONFIG_BUMP_FILE_MODE", "rw", "0644"),
            ("CONFIG_BUMP_PRUNE", "some", "owned"),
            ("CONFIG_BUMP_ONCE", "maybe", "true"),
        ] {
            let launch = Launch::new(&workspace).environment(variable, value);
            refuses(&launch, USAGE, &[variable, value, remedy]).await;
        }
    });
}

#[test]
fn what_is_missing_is_named() {
    run(async {
        let workspace = Workspace::new();
        refuses(&Launch::bare(&workspace).args(["--labels", "app=web"]), USAGE, &["--dir", "CONFIG_BUMP_DIR"]).await;
        let launch = Launch::bare(&workspace).arg("--dir").arg(workspace.dir());
        refuses(&launch, USAGE, &["--labels", "--names"]).await;
        refuses(&Launch::new(&workspace).args(["--labels"]), USAGE, &["--labels"]).await;
    });
}

#[test]
fn options_that_exclude_each_other_are_named() {
    run(async {
        let workspace = Workspace::new();
        let launch = Launch::new(&workspace).args(["-A", "--namespace", "web"]);
        refuses(&launch, USAGE, &["--all-namespaces", "--namespace"]).await;
        let launch = Launch::new(&workspace).args(["--manifests", "/nowhere", "--kubeconfig", "/nowhere"]);
        refuses(&launch, USAGE, &["--manifests", "--kubeconfig"]).await;
    });
}

#[test]
fn a_signal_without_a_target_and_a_target_without_a_signal_are_refused() {
    run(async {
        let workspace = Workspace::new();
        let refused = async |options: &[&str], texts: &[&str]| {
            let launch = options.iter().fold(Launch::new(&workspace), |launch, &option| launch.arg(option));
            refuses(&launch, USAGE, texts).await;
        };
        refused(&["--signal", "HUP"], &["--signal", "--process-command", "--process-pid"]).await;
        refused(&["--process-command", "nginx"], &["--signal HUP", "is missing"]).await;
        refused(&["--process-pid", "17"], &["--signal HUP", "is missing"]).await;
        refused(&["--process-parent-pid", "0"], &["--signal HUP", "is missing"]).await;
        let both = ["--signal", "HUP", "--process-pid", "17", "--process-command", "nginx"];
        refused(&both, &["--process-pid", "--process-command", "leave one of them out"]).await;
        refused(&["--url-method", "PUT"], &["--url-method", "--url"]).await;
    });
}

#[test]
fn a_way_back_without_a_bump_that_can_say_no_is_refused() {
    run(async {
        let workspace = Workspace::new();
        let launch = Launch::new(&workspace).args(["--rollback"]);
        refuses(&launch, USAGE, &["--rollback", "--exec", "--url"]).await;
        let launch = launch.args(["--signal", "HUP", "--process-pid", "17"]);
        refuses(&launch, USAGE, &["--rollback", "--exec", "--url"]).await;
        let launch = Launch::new(&workspace).environment("CONFIG_BUMP_ROLLBACK", "true");
        refuses(&launch, USAGE, &["CONFIG_BUMP_ROLLBACK", "--exec", "--url"]).await;
    });
}

#[test]
fn an_unknown_option_or_argument_is_named() {
    run(async {
        let workspace = Workspace::new();
        refuses(&Launch::new(&workspace).args(["--lables", "app=web"]), USAGE, &["--lables", "--labels"]).await;
        refuses(&Launch::new(&workspace).args(["--frobnicate"]), USAGE, &["--frobnicate", "--help"]).await;
        refuses(&Launch::new(&workspace).args(["stray"]), USAGE, &["stray", "--help"]).await;
    });
}

#[test]
fn a_kubeconfig_that_cannot_be_used_is_named() {
    run(async {
        let workspace = Workspace::new();
        let missing = workspace.beside("missing").display().to_string();
        refuses(&Launch::new(&workspace).args(["--kubeconfig", &missing]), USAGE, &["--kubeconfig", &missing]).await;
        let launch = Launch::new(&workspace).environment("KUBECONFIG", &missing);
        refuses(&launch, USAGE, &["KUBECONFIG", &missing]).await;

        let broken = workspace.beside("broken").display().to_string();
        fs::write(&broken, "clusters: [").expect("a file");
        refuses(&Launch::new(&workspace).args(["--kubeconfig", &broken]), USAGE, &["--kubeconfig", &broken]).await;
        let folder = workspace.beside("").display().to_string();
        refuses(&Launch::new(&workspace).args(["--kubeconfig", &folder]), USAGE, &["--kubeconfig", &folder]).await;
    });
}

#[test]
fn a_context_that_is_not_there_is_named() {
    run(async {
        let workspace = Workspace::new();
        let access = ApiServer::shared().admin_access();
        let path = workspace.beside("kubeconfig");
        fs::write(&path, kubeconfig(&[Context { name: "main", access: &access, namespace: None }])).expect("a file");
        let launch = Launch::new(&workspace).arg("--kubeconfig").arg(path).args(["--context", "other"]);
        refuses(&launch, USAGE, &["--context", "other"]).await;
    });
}

#[test]
fn without_any_cluster_the_ways_to_name_one_are_named() {
    run(async {
        let workspace = Workspace::new();
        let ended = Launch::new(&workspace).run().await;
        assert!(matches!(ended.code, Some(USAGE | CANNOT_START)), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        for way in ["--kubeconfig", "--manifests"] {
            assert!(ended.stderr.contains(way), "{ended:?}");
        }
        assert!(!workspace.dir().exists());
    });
}

/// With a cluster that could be reached, so that only DIR is to blame.
#[test]
fn a_dir_that_cannot_be_one_is_named() {
    run(async {
        let workspace = Workspace::new();
        let port = Port::reserve();
        let access = crate::harness::access::Access { address: port.address, ..ApiServer::shared().admin_access() };
        let file = workspace.beside("file");
        fs::write(&file, "a file").expect("a file");
        for dir in [file.clone(), file.join("below"), "/proc/configbump".into()] {
            let dir = dir.display().to_string();
            let launch = Launch::bare(&workspace).access(&access).args(["--labels", "app=web", "--dir", &dir]);
            refuses(&launch, CANNOT_START, &[&dir]).await;
        }
        assert_eq!(fs::read(&file).expect("the file"), b"a file");
    });
}

#[test]
fn a_dir_on_a_read_only_mount_is_named() {
    run(async {
        let workspace = Workspace::new();
        workspace.write("foreign", "theirs");
        let dir = workspace.dir().display().to_string();
        let launch = Launch::new(&workspace).access(&ApiServer::shared().admin_access());
        let launch = launch.mounting(format!("mount --bind '{dir}' '{dir}'; mount -o remount,bind,ro '{dir}'"));
        refuses(&launch, CANNOT_START, &[&dir]).await;
    });
}

#[test]
fn manifests_that_are_not_there_are_named() {
    run(async {
        let workspace = Workspace::new();
        let missing = workspace.beside("missing").display().to_string();
        refuses(&Launch::new(&workspace).args(["--manifests", &missing]), USAGE, &["--manifests", &missing]).await;
        refuses(&Launch::new(&workspace).args(["--manifests", ""]), USAGE, &["--manifests"]).await;
    });
}
