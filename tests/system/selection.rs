//! Which objects are followed: selectors, namespaces, kinds and names.

use std::fs;

use crate::harness::access::{Context, kubeconfig};
use crate::harness::cluster::ApiServer;
use crate::harness::namespace::Namespace;
use crate::harness::object::{config_map, labelled, secret};
use crate::harness::sidecar::Launch;
use crate::harness::wait::run;
use crate::harness::workspace::Workspace;

/// As administrator, with no selector and no namespace yet.
fn administrator(workspace: &Workspace) -> Launch<'_> {
    let launch = Launch::bare(workspace).access(&ApiServer::shared().admin_access());
    launch.arg("--dir").arg(workspace.dir())
}

#[test]
fn a_selector_has_the_whole_syntax() {
    run(async {
        let namespace = Namespace::new().await;
        for (name, labels) in [
            ("front", &[("app", "web"), ("tier", "front")][..]),
            ("back", &[("app", "web"), ("tier", "back")]),
            ("api", &[("app", "api"), ("example.com/owner", "me")]),
            ("empty", &[("app", "")]),
            ("none", &[]),
        ] {
            let mut object = labelled(config_map(name, [(name, "")]), []);
            object.metadata.labels = Some(labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect());
            namespace.create(&object).await;
        }
        for (selector, names) in [
            ("app=web", &["back", "front"][..]),
            ("app==web", &["back", "front"]),
            ("app = web , tier = front", &["front"]),
            ("app!=web", &["api", "empty", "none"]),
            ("app=", &["empty"]),
            ("tier in (front, back)", &["back", "front"]),
            ("tier in (front)", &["front"]),
            ("tier notin (front)", &["api", "back", "empty", "none"]),
            ("app,tier notin (front,back)", &["api", "empty"]),
            ("tier", &["back", "front"]),
            ("!tier", &["api", "empty", "none"]),
            ("app in (web,api),!tier", &["api"]),
            ("example.com/owner=me", &["api"]),
            ("app=nothing", &[]),
        ] {
            let workspace = Workspace::new();
            let launch =
                administrator(&workspace).args(["--namespace", &namespace.name, "--once", "--labels", selector]);
            let ended = launch.run().await;
            assert_eq!(ended.code, Some(0), "{selector}: {ended:?}");
            assert_eq!(workspace.files().paths(), names, "{selector}");
        }
    });
}

#[test]
fn several_namespaces_are_followed_and_no_other() {
    run(async {
        let [one, two, other] = [Namespace::new().await, Namespace::new().await, Namespace::new().await];
        for namespaces in [&[format!("{},{}", one.name, two.name)][..], &[one.name.clone(), two.name.clone()]] {
            let workspace = Workspace::new();
            let kept = one.create(&config_map("one", [("one", "1")])).await;
            other.create(&config_map("other", [("other", "")])).await;
            let launch = administrator(&workspace).args(["--labels", "app=web"]);
            let launch = namespaces.iter().fold(launch, |launch, names| launch.args(["--namespace", names]));
            let sidecar = launch.start();
            sidecar.in_sync().await;
            sidecar.holds([("one", "1")]).await;
            let gone = two.create(&config_map("two", [("two", "2")])).await;
            sidecar.holds([("one", "1"), ("two", "2")]).await;
            two.delete(&gone).await;
            sidecar.holds([("one", "1")]).await;
            one.delete(&kept).await;
            other.delete(&config_map("other", [])).await;
        }
    });
}

#[test]
fn all_namespaces_are_followed_those_to_come_included() {
    run(async {
        let (one, two, workspace) = (Namespace::new().await, Namespace::new().await, Workspace::new());
        // Nobody else's objects have this label.
        let label = [("all-namespaces", one.name.as_str())];
        one.create(&labelled(config_map("one", [("one", "1")]), label)).await;
        two.create(&labelled(config_map("two", [("two", "2")]), label)).await;
        let selector = format!("all-namespaces={}", one.name);
        let sidecar = administrator(&workspace).args(["--all-namespaces", "--labels", &selector]).start();
        sidecar.holds([("one", "1"), ("two", "2")]).await;
        let three = Namespace::new().await;
        three.create(&labelled(config_map("three", [("three", "3")]), label)).await;
        sidecar.holds([("one", "1"), ("three", "3"), ("two", "2")]).await;
    });
}

#[test]
fn both_kinds_are_followed_and_one_with_the_same_name_is_another_object() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let map = namespace.create(&config_map("same", [("map", "1")])).await;
        let secret_ = namespace.create(&secret("same", [("secret", b"2")])).await;
        let launch = Launch::within(&namespace, &workspace).args(["--kinds", "configmaps", "--kinds", "secrets"]);
        let sidecar = launch.start();
        sidecar.holds([("map", "1"), ("secret", "2")]).await;
        namespace.delete(&map).await;
        sidecar.holds([("secret", "2")]).await;
        namespace.delete(&secret_).await;
        sidecar.holds_nothing().await;
    });
}

#[test]
fn objects_are_followed_by_name() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let one = labelled(config_map("one", [("one", "1")]), []);
        namespace.create(&one).await;
        namespace.create(&config_map("other", [("other", "")])).await;
        let launch = administrator(&workspace).args(["--namespace", &namespace.name, "--names", "one,two"]);
        let sidecar = launch.args(["--names", "one"]).start();
        sidecar.in_sync().await;
        sidecar.holds([("one", "1")]).await;
        namespace.create(&config_map("two", [("two", "2")])).await;
        sidecar.holds([("one", "1"), ("two", "2")]).await;
        namespace.delete(&one).await;
        sidecar.holds([("two", "2")]).await;
    });
}

#[test]
fn names_and_labels_add_up() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let named = labelled(config_map("named", [("named", "1")]), []);
        let both = config_map("both", [("both", "2")]);
        namespace.create(&named).await;
        namespace.create(&both).await;
        namespace.create(&config_map("labelled", [("labelled", "3")])).await;
        namespace.create(&labelled(config_map("neither", [("neither", "")]), [])).await;
        let sidecar = Launch::within(&namespace, &workspace).args(["--names", "named,both"]).start();
        sidecar.in_sync().await;
        sidecar.holds([("both", "2"), ("labelled", "3"), ("named", "1")]).await;
        // Whoever loses the label is still followed by its name, and the other way round.
        namespace.replace(&labelled(config_map("both", [("both", "4")]), [])).await;
        sidecar.holds([("both", "4"), ("labelled", "3"), ("named", "1")]).await;
        namespace.replace(&config_map("both", [("both", "5")])).await;
        sidecar.holds([("both", "5"), ("labelled", "3"), ("named", "1")]).await;
        namespace.delete(&both).await;
        sidecar.holds([("labelled", "3"), ("named", "1")]).await;
    });
}

#[test]
fn the_environment_says_what_options_say() {
    run(async {
        let (one, two, workspace) = (Namespace::new().await, Namespace::new().await, Workspace::new());
        one.create(&config_map("map", [("map", "1")])).await;
        two.create(&secret("secret", [("secret", b"2")])).await;
        let path = workspace.beside("kubeconfig");
        fs::write(&path, ApiServer::shared().admin_access().kubeconfig()).expect("a file");
        let launch = Launch::bare(&workspace)
            .environment("KUBECONFIG", &path)
            .environment("CONFIG_BUMP_DIR", workspace.dir())
            .environment("CONFIG_BUMP_LABELS", "app in (web)")
            .environment("CONFIG_BUMP_NAMESPACE", format!("{},{}", one.name, two.name))
            .environment("CONFIG_BUMP_KINDS", "secrets,configmaps")
            .environment("CONFIG_BUMP_TLS_VERIFY", "true")
            .environment("CONFIG_BUMP_FILE_MODE", "0600")
            .environment("CONFIG_BUMP_ONCE", "true");
        let ended = launch.run().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(workspace.files().paths(), ["map", "secret"]);
        assert_eq!((workspace.mode("map"), workspace.mode("secret")), (0o600, 0o640));
        // What is typed counts more.
        let ended = launch.args(["--kinds", "configmaps", "--namespace", &one.name]).run().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(workspace.files().paths(), ["map"]);
    });
}

#[test]
fn the_namespace_is_that_of_the_context_unless_it_is_given() {
    run(async {
        let (one, two) = (Namespace::new().await, Namespace::new().await);
        one.create(&config_map("one", [("one", "1")])).await;
        two.create(&config_map("two", [("two", "2")])).await;
        let access = ApiServer::shared().admin_access();
        let contexts = [("one", &one), ("two", &two)];
        let contexts = contexts.map(|(name, home)| Context { name, access: &access, namespace: Some(&home.name) });
        for (options, file) in
            [(&[][..], "one"), (&["--context", "two"], "two"), (&["--context", "two", "--namespace", &one.name], "one")]
        {
            let workspace = Workspace::new();
            let path = workspace.beside("kubeconfig");
            fs::write(&path, kubeconfig(&contexts)).expect("a file");
            let launch = Launch::new(&workspace).arg("--kubeconfig").arg(path).args(["--once"]);
            let ended = options.iter().fold(launch, |launch, option| launch.args([option])).run().await;
            assert_eq!(ended.code, Some(0), "{ended:?}");
            assert_eq!(workspace.files().paths(), [file]);
        }
    });
}

#[test]
fn the_namespace_is_default_if_nothing_names_one() {
    run(async {
        let (elsewhere, workspace) = (Namespace::new().await, Workspace::new());
        elsewhere.create(&config_map("elsewhere", [("elsewhere", "")])).await;
        Namespace::known("default").create(&config_map("at-home", [("at-home", "1")])).await;
        let sidecar = Launch::new(&workspace).access(&ApiServer::shared().admin_access()).start();
        sidecar.in_sync().await;
        sidecar.holds([("at-home", "1")]).await;
    });
}

#[test]
fn a_kubeconfig_is_found_in_the_home_folder() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let kubeconfig = ApiServer::shared().admin_access().kubeconfig();
        crate::harness::workspace::write(&workspace.beside("home/.kube/config"), kubeconfig);
        let sidecar = Launch::new(&workspace).args(["--namespace", &namespace.name]).start();
        sidecar.holds([("a.yaml", "1")]).await;
    });
}
