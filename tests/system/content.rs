//! Every legal value arrives as it is, under every legal key.

use crate::harness::namespace::Namespace;
use crate::harness::object::{annotated, binary_config_map, config_map, secret};
use crate::harness::sidecar::Launch;
use crate::harness::wait::run;
use crate::harness::workspace::Workspace;

/// The most that the values of an object may add up to.
const OBJECT_BYTES_MAX: usize = 1 << 20;

#[test]
fn an_empty_value_is_an_empty_file() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("empty", ""), ("full", "1")])).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds([("empty", ""), ("full", "1")]).await;
        namespace.replace(&config_map("routes", [("empty", "1"), ("full", "")])).await;
        sidecar.holds([("empty", "1"), ("full", "")]).await;
    });
}

#[test]
fn an_object_without_values_has_no_files_and_hinders_nothing() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("a-empty", [])).await;
        namespace.create(&config_map("b-full", [("a.yaml", "1")])).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds([("a.yaml", "1")]).await;
        namespace.create(&config_map("c-empty", [])).await;
        namespace.create(&config_map("d-full", [("b.yaml", "2")])).await;
        sidecar.holds([("a.yaml", "1"), ("b.yaml", "2")]).await;
    });
}

#[test]
fn an_object_as_large_as_may_be_arrives_whole() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let value: String = ('a'..='z').cycle().take(OBJECT_BYTES_MAX).collect();
        let binary: Vec<u8> = (0..=255).cycle().take(OBJECT_BYTES_MAX).collect();
        namespace.create(&config_map("text", [("text", value.as_str())])).await;
        namespace.create(&binary_config_map("binary", [("binary", binary.as_slice())])).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds([("binary", binary.as_slice()), ("text", value.as_bytes())]).await;
        // And once more by the watch, after the list.
        namespace.create(&secret("secret", [("secret", binary.as_slice())])).await;
        let reversed: String = value.chars().rev().collect();
        namespace.replace(&config_map("text", [("text", reversed.as_str())])).await;
        sidecar.holds([("binary", binary.as_slice()), ("text", reversed.as_bytes())]).await;
    });
}

#[test]
fn a_secret_as_large_as_may_be_arrives_whole() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let value: Vec<u8> = (0..=255).cycle().take(OBJECT_BYTES_MAX).collect();
        namespace.create(&secret("secret", [("secret", value.as_slice())])).await;
        let sidecar = Launch::within(&namespace, &workspace).args(["--kinds", "secrets"]).start();
        sidecar.holds([("secret", value.as_slice())]).await;
    });
}

/// The server writes `<` as `\u003c`: the line of this object in a watch is six times as long as its value.
#[test]
fn the_worst_legal_object_arrives_whole() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let value = "<".repeat(OBJECT_BYTES_MAX);
        let note = "&".repeat(250_000);
        namespace.create(&annotated(config_map("worst", [("worst", value.as_str())]), "note", &note)).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds([("worst", value.as_str())]).await;
        let value = format!("{}>", "<".repeat(OBJECT_BYTES_MAX - 1));
        namespace.replace(&annotated(config_map("worst", [("worst", value.as_str())]), "note", &note)).await;
        sidecar.holds([("worst", value.as_str())]).await;
    });
}

#[test]
fn control_characters_quotes_and_backslashes_arrive_as_they_are() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let all: String = (0..0x20_u8).map(char::from).chain("\"\\/\u{7f}\u{80}\u{9f}".chars()).collect();
        // As many as fit into a request, which carries each as six bytes.
        let many = "\u{1}\u{1f}\"\\\n".repeat(130_000);
        namespace.create(&config_map("all", [("all", all.as_str())])).await;
        namespace.create(&config_map("many", [("many", many.as_str())])).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds([("all", all.as_str()), ("many", many.as_str())]).await;
    });
}

#[test]
fn text_in_every_script_arrives_as_it_is() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let few = "Grüße, 世界, שלום, 👩‍👩‍👧‍👦, \u{2028}\u{2029}\u{feff}\u{fffd}\u{ffff}\u{10ffff}, e\u{301}";
        // Characters of one to four bytes, so that every border of a buffer falls into one sooner or later.
        let many = "aé世👩".repeat(50_000);
        namespace.create(&config_map("routes", [("few", few), ("many", many.as_str())])).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds([("few", few), ("many", many.as_str())]).await;
    });
}

#[test]
fn bytes_that_are_no_text_arrive_as_they_are() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let all: Vec<u8> = (0..=255).collect();
        // Every length of base64 padding.
        let files: [(&str, &[u8]); 5] =
            [("0", b""), ("1", b"\xff"), ("2", b"\xff\xfe"), ("3", b"\xc3\x28\x00"), ("all", &all)];
        let mut object = binary_config_map("binary", files);
        object.data = config_map("", [("text", "beside")]).data;
        namespace.create(&object).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds(files.into_iter().chain([("text", &b"beside"[..])])).await;
    });
}

#[test]
fn every_legal_key_is_a_file_name() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let longest = "k".repeat(253);
        let keys = ["a.b-c_D", ".hidden", "-dash", "_", "trailing.", "a..b", "CON", "0", longest.as_str()];
        namespace.create(&config_map("routes", keys.map(|key| (key, key)))).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds(keys.map(|key| (key, key))).await;
    });
}

#[test]
fn a_key_named_like_the_folder_of_the_state_is_refused_alone() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [(".configbump", "hostile"), ("a.yaml", "1")])).await;
        let launch = Launch::within(&namespace, &workspace);
        let sidecar = launch.start();
        sidecar.holds([("a.yaml", "1")]).await;
        sidecar.in_sync().await;
        let refusals = sidecar.lines_with(&[".configbump", "routes"]);
        assert_eq!(refusals.len(), 1, "{refusals:?}");
        assert!(workspace.path(".configbump").is_dir());
        sidecar.terminate().await;
        launch.start().in_sync().await;
    });
}

#[test]
fn a_thousand_objects_arrive_and_go() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let paths: Vec<String> = (0..1000).map(|number| format!("{number:04}.yaml")).collect();
        let objects: Vec<_> = paths.iter().map(|path| config_map(path, [(path, path)])).collect();
        namespace.create_all(&objects).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.holds(paths.iter().map(|path| (path, path))).await;
        sidecar.in_sync().await;
        namespace.delete_all(&objects[1..]).await;
        sidecar.holds([&paths[0]].map(|path| (path, path))).await;
    });
}
