use kube::core::Selector;
use tempfile::TempDir;

use super::*;
use crate::config::Labels;
use crate::content::Body;
use crate::fuzz::{Faults, faulty};
use crate::source::selector;

struct Fixture {
    reader: Reader,
    folder: TempDir,
}

/// A reader of both kinds in all namespaces that have the label `pick`.
fn fixture() -> Fixture {
    let folder = tempfile::tempdir().expect("a folder");
    let selector: Selector = selector::parse("pick").expect("a selector");
    let selection = Selection {
        kinds: vec![Kind::ConfigMap, Kind::Secret],
        namespaces: Namespaces::Unset,
        labels: Some(Labels { text: "pick".to_owned(), selector }),
        names: vec!["named".to_owned()],
    };
    let spool = Spool::for_tests(folder.path());
    Fixture { reader: Reader { selection, folder_annotation: Some("dir".to_owned()), spool }, folder }
}

impl Fixture {
    fn read(&self, text: &str) -> Result<Vec<Found>, Problem> {
        self.reader.read(text.as_bytes(), Path::new("x.yaml"))
    }

    /// Each object as `line kind namespace/name key=value …`.
    fn show(&self, text: &str) -> Vec<String> {
        let found = self.read(text).unwrap_or_else(|problem| panic!("{problem:?} in {text}"));
        found.iter().map(show).collect()
    }
}

fn show(Found { object, line }: &Found) -> String {
    let entry = |Entry { key, content }: &Entry| match &content.body {
        Body::Memory(bytes) => format!(" {key}={}", bytes.escape_ascii()),
        Body::Spooled(_) => format!(" {key}={} bytes", content.digest.len_bytes),
        Body::Lost(error) => panic!("{error}"),
    };
    let entries: String = object.entries.iter().map(entry).collect();
    format!("{line} {}{entries}", object.key)
}

/// A document with a label that is selected.
fn document(kind: &str, rest: &str) -> String {
    format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: a, labels: {{pick: ''}}}}\n{rest}")
}

#[test]
fn values_are_taken_as_the_server_takes_them() {
    let cases = [
        ("ConfigMap", "", ""),
        ("ConfigMap", "data:\nbinaryData: {}\n", ""),
        ("ConfigMap", "data: {b: x, a: ''}\n", " a= b=x"),
        ("ConfigMap", "data: {a: }\n", " a="),
        ("ConfigMap", "data:\n  a: |\n    x\n    y\n", " a=x\\ny\\n"),
        ("ConfigMap", "data: {8080: x}\n", " 8080=x"),
        ("ConfigMap", "data: {t: x}\nbinaryData: {b: gP8=}\n", " b=\\x80\\xff t=x"),
        ("ConfigMap", "binaryData:\n  b: |\n    gP\n    8=\n", " b=\\x80\\xff"),
        ("ConfigMap", "immutable: true\nstringData:\ndata: {a: b}\n", " a=b"),
        ("Secret", "data: {a: aGk=, b: ''}\n", " a=hi b="),
        ("Secret", "data: {a: aGl=}\n", " a=hi"),
        ("Secret", "data: {a: aGk=}\nstringData: {a: x, b: z}\ntype: Opaque\n", " a=x b=z"),
    ];
    let fixture = fixture();
    for (kind, rest, values) in cases {
        let expected = format!("1 {kind} default/a{values}");
        assert_eq!(fixture.show(&document(kind, rest)), [expected], "{rest}");
    }
}

#[test]
fn a_value_of_a_mebibyte_is_spooled_in_yaml_and_json() {
    let fixture = fixture();
    let value = "x".repeat(1024 * 1024);
    let yaml = document("ConfigMap", &format!("data:\n  a: {value}\n  b: |\n    {value}\n"));
    assert_eq!(fixture.show(&yaml), ["1 ConfigMap default/a a=1048576 bytes b=1048577 bytes"]);
    let json = format!(
        "{{\n\t\"kind\": \"ConfigMap\",\n\t\"apiVersion\": \"v1\",\n\t\"metadata\": {{\"name\": \"named\"}},\n\t\
             \"data\": {{\"a\": \"{value}\"}}\n}}\n"
    );
    assert_eq!(fixture.show(&json), ["1 ConfigMap default/named a=1048576 bytes"]);
    assert_eq!(std::fs::read_dir(fixture.folder.path()).expect("a folder").count(), 0, "all was dropped");
}

#[test]
fn only_selected_objects_are_read() {
    let fixture = fixture();
    let text = "
{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: 5}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: b, labels: {pick: no-matter}}, data: {k: v}}
---
{apiVersion: v1, kind: Secret, metadata: {name: named, namespace: other}, data: {k: dg==}}
";
    assert_eq!(fixture.show(text), ["4 ConfigMap default/b k=v", "6 Secret other/named k=v"]);
}

#[test]
fn what_is_no_configmap_or_secret_is_passed_over_whatever_is_in_it() {
    let fixture = fixture();
    for text in [
        "just text",
        "- a\n- b",
        "data: {a: 1, a: 2}",
        "kind: [a]",
        "kind:",
        "{apiVersion: apps/v1, kind: Deployment, metadata: 5, data: [1], spec: {a: 1, a: 2, ? [b] : c}, x: .nan}",
        "{apiVersion: example.com/v1, kind: ConfigMap, data: {a: 5}}",
        "{apiVersion: example.com/v1, kind: List, items: 5}",
        "{apiVersion: v1, kind: PodList, items: [{kind: ConfigMap}]}",
        "{apiVersion: v1, kind: configmap, data: 5}",
        "",
        "---\n---\n# nothing\n",
    ] {
        assert_eq!(fixture.show(text), [""; 0], "{text}");
    }
}

#[test]
fn a_kind_that_is_not_followed_is_passed_over() {
    let mut fixture = fixture();
    fixture.reader.selection.kinds = vec![Kind::ConfigMap];
    assert_eq!(fixture.show(&document("Secret", "data: {a: '?'}\n")), [""; 0]);
}

#[test]
fn lists_are_read_item_by_item() {
    let fixture = fixture();
    let text = "
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Secret
  metadata: {name: named}
- {apiVersion: v1, kind: Service, metadata: {name: named}}
- apiVersion: v1
  kind: List
  items:
  - {apiVersion: v1, kind: ConfigMap, metadata: {name: named}, data: {k: v}}
---
apiVersion: v1
kind: ConfigMapList
metadata: {resourceVersion: '1'}
items:
- metadata: {name: named, namespace: p}
  data: {k: w}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: other}}
---
{apiVersion: v1, kind: SecretList, items: }
---
{apiVersion: v1, kind: SecretList, items: [{metadata: {name: named, namespace: q}, stringData: {k: w}}]}
";
    let expected = [
        "5 Secret default/named",
        "12 ConfigMap default/named k=v",
        "18 ConfigMap p/named k=w",
        "24 Secret q/named k=w",
    ];
    assert_eq!(fixture.show(text), expected);
}

#[test]
fn a_namespace_is_looked_at_only_if_some_are_named() {
    let text = "{apiVersion: v1, kind: ConfigMap, metadata: {name: named}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: named, namespace: x}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: named, namespace: z}}
";
    let cases = [
        (Namespaces::Unset, vec!["default", "x", "z"]),
        (Namespaces::All, vec!["default", "x", "z"]),
        (Namespaces::Named(vec!["y".to_owned(), "x".to_owned()]), vec!["y", "x"]),
        (Namespaces::Named(vec!["default".to_owned()]), vec!["default"]),
    ];
    let mut fixture = fixture();
    for (namespaces, expected) in cases {
        fixture.reader.selection.namespaces = namespaces.clone();
        let found = fixture.read(text).expect("valid");
        let found: Vec<_> = found.iter().map(|found| found.object.key.namespace.as_str()).collect();
        assert_eq!(found, expected, "{namespaces:?}");
    }
}

#[test]
fn age_and_folder_are_taken_from_the_metadata() {
    let cases = [
        ("", None, None),
        ("creationTimestamp: null, annotations: ", None, None),
        ("creationTimestamp: 1970-01-02T00:00:00Z", Some(86_400), None),
        ("creationTimestamp: '1970-01-01T00:00:00.9-01:00'", Some(3_600), None),
        ("annotations: {dir: a/b, other: c}", None, Some("a/b")),
        ("annotations: {dir: }", None, Some("")),
    ];
    let fixture = fixture();
    for (metadata, created, folder) in cases {
        let text = format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: named, {metadata}}}}}");
        let object = fixture.read(&text).expect(&text).remove(0).object;
        assert_eq!((object.created, object.folder.as_deref()), (created, folder), "{text}");
        assert_eq!(object.resource_version, None);
    }
}

#[test]
fn what_the_server_would_refuse_is_a_problem_with_its_line_and_remedy() {
    let cases = [
        ("kind: ConfigMap\n", 1, "apiVersion is missing; write apiVersion: v1"),
        ("kind: ConfigMap\napiVersion: v1\n", 1, "metadata.name is missing; give the object a name"),
        ("apiVersion: v1\nkind: Secret\nmetadata:\n  name: ''\n", 3, "metadata.name is missing; give the object"),
        ("apiVersion: v1\nkind: Secret\nmetadata:\n  name: 5\n", 4, "metadata.name is a number, not a string; put"),
        ("apiVersion: v1\nkind: Secret\nmetadata:\n  name: ../a\n", 4, "metadata.name is no DNS name;"),
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: a,\n namespace: a.b}\n", 4, "metadata.namespace is no DNS"),
        ("apiVersion: v1\nkind: Secret\nmetadata: [a]\n", 3, "metadata is a list, not a map"),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a,\n labels: {a: yes}}\n",
            4,
            "\"a\" in metadata.labels is a b",
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a,\n annotations: [a]}\n",
            4,
            "metadata.annotations is a list",
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a,\n creationTimestamp: now}\n",
            4,
            "metadata.creationTimestamp is no",
        ),
        ("apiVersion: v1\nkind: Secret\nkind: Secret\n", 3, "\"kind\" stands twice in Secret; remove one"),
        ("apiVersion: v1\nkind: List\nitems: {}\n", 3, "items is a map, not a list"),
        ("apiVersion: v1\nkind: List\nitems:\n- kind: Secret\n", 4, "apiVersion is missing; write apiVersion: v1"),
    ];
    let fixture = fixture();
    for (text, line, start) in cases {
        let problem = fixture.read(text).expect_err(text);
        assert_eq!(problem.line, Some(line), "{text}{problem:?}");
        assert!(problem.text.starts_with(start), "{text}{problem:?}");
    }
    let cases = [
        ("ConfigMap", "data: x\n", 4, "data is a string, not a map"),
        ("ConfigMap", "data:\n  a: b\n  c: 5\n", 6, "\"c\" in data is a number, not a string; put it in quotes"),
        ("ConfigMap", "data:\n  a:\n    b: c\n", 5, "\"a\" in data is a map, not a string; write it as a block (|)"),
        ("ConfigMap", "data:\n  a: b\n  a: b\n", 6, "\"a\" stands twice in data; remove one"),
        (
            "ConfigMap",
            "data: {a: b}\nbinaryData: {\na: YQ==}\n",
            6,
            "\"a\" stands in data and in binaryData; remove one",
        ),
        ("ConfigMap", "binaryData: {\na: YQ}\n", 5, "\"a\" in binaryData is not base64; encode it, or move it to data"),
        (
            "ConfigMap",
            "binaryData: {a: 'Y Q='}\n",
            4,
            "\"a\" in binaryData is not base64; encode it, or move it to data",
        ),
        ("ConfigMap", "stringData: {a: b}\n", 4, "a ConfigMap has no stringData; move it to data"),
        ("Secret", "binaryData: {a: YQ==}\n", 4, "a Secret has no binaryData; move it to data"),
        ("Secret", "data:\n  p: hunter2!\n", 5, "\"p\" in data is not base64; encode it, or move it to stringData"),
        ("Secret", "data: {? [a] : b}\n", 4, "a key of data is a list, not a string"),
        (
            "ConfigMap",
            "data:\n  a: b\n  a b: c\n",
            6,
            "\"a b\" in data is no key that a file can have; write at most 253 letters (a to z, A to Z), digits, \"-\", \
             \"_\" and \".\", and no \"..\" in front",
        ),
    ];
    for (kind, rest, line, text) in cases {
        let problem = fixture.read(&document(kind, rest)).expect_err(rest);
        assert_eq!((problem.line, problem.text.as_str()), (Some(line), text), "{rest}");
    }
}

#[test]
fn keys_are_those_that_the_server_takes() {
    let fixture = fixture();
    let longest = "k".repeat(253);
    for key in ["a", ".a", "a..b", "-", "_", "A-1_b.C", &longest] {
        let found = fixture.read(&document("ConfigMap", &format!("data: {{\"{key}\": x}}\n"))).expect(key);
        assert_eq!(found[0].object.entries[0].key, key);
    }
    for key in ["", " ", "a b", "ü", "a/b", "../a", ".", "..", "...", "..data", "a\\n", &format!("{longest}k")] {
        for (kind, field) in
            [("ConfigMap", "data"), ("ConfigMap", "binaryData"), ("Secret", "data"), ("Secret", "stringData")]
        {
            let problem = fixture.read(&document(kind, &format!("{field}:\n  a: eA==\n  \"{key}\": eA==\n")));
            let problem = problem.expect_err(key);
            assert_eq!(problem.line, Some(6), "{key}: {problem:?}");
            assert!(problem.text.contains(&format!("in {field} is no key")), "{problem:?}");
        }
    }
}

#[test]
fn foreign_documents_in_a_file_do_not_limit_ours() {
    let fixture = fixture();
    let ours = document("ConfigMap", "data: {k: v}\n");
    for other in [
        "kind: Foo\ndata: [a]\nmetadata: {name: 5}\n".to_owned(),
        format!("kind: Foo\nspec: {}{}\n", "{a: ".repeat(5_000), "}".repeat(5_000)),
        format!("kind: Foo\nx: &x {{a: 1}}\nspec:\n{}", "- *x\n".repeat(1_000)),
        format!("kind: Foo\ndata: {{{}}}\n", "a: 1,".repeat(500_100)),
        "kind: Foo\nspec: 'a\u{2028}b'\n".to_owned(),
    ] {
        let found = fixture.read(&format!("{other}---\n{ours}")).expect("readable");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].object.entries[0].key, "k");
    }
}

#[test]
fn many_aliases_of_one_anchor_are_values() {
    let keys: String = (0..2_000).map(|number| format!("  k{number}: *x\n")).collect();
    let found = fixture().read(&document("ConfigMap", &format!("x: &x hello\ndata:\n{keys}"))).expect("readable");
    assert_eq!(found[0].object.entries.len(), 2_000);
    let uses: String = (0..40).map(|number| format!("  k{number}: *x\n")).collect();
    let bomb = document("ConfigMap", &format!("x: &x {}\ndata:\n{uses}", "v".repeat(1 << 20)));
    let problem = fixture().read(&bomb).expect_err("40 MiB are too many");
    assert!(problem.line.is_some() && problem.text.contains("more than 32 MiB"), "{problem:?}");
}

#[test]
fn json_lists_of_thousands_of_objects_are_read() {
    let item = |number: usize| {
        let value = "x".repeat(300);
        format!(
            r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"n{number}","labels":{{"pick":""}}}},"data":{{"k":"{value}"}}}}"#
        )
    };
    let items: Vec<_> = (0..9_000).map(item).collect();
    let list = format!("{{\"apiVersion\":\"v1\",\"items\":[{}],\"kind\":\"List\"}}", items.join(","));
    assert_eq!(fixture().read(&list).expect("readable").len(), 9_000);
    let found = fixture().read(&items.join("\n")).expect("readable");
    assert_eq!((found.len(), found[8_999].line), (9_000, 9_000));
}

/// As people write them.
const TEXTS: [&str; 5] = [
    "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n  labels: {pick: yes}\ndata:\n  k: |\n    text\n  'n': \"1\"\n---\nkind: Secret\n",
    r#"{"kind":"List","items":[{"kind":"Secret","metadata":{"name":"named"},"data":{"k":"dg=="},"stringData":{"s":"t"}}]}"#,
    "a: &a [1, 2]\nb: *a\nkind: ConfigMap\nmetadata: {name: named, annotations: {dir: x/y}}\nbinaryData: {b: /wA=}\n",
    "{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"named\"}}\n{\"kind\":\"a\"}{\"kind\":\"Secret\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"named\"},\"data\":{\"k\":\"dg==\"}}\n",
    "x: &x {a: b, c: &c d}\n...\n---\n\u{feff}apiVersion: v1\nkind: ConfigMap\nmetadata: &m {name: named}\ny: &y {e: f}\ndata: {<<: [*y, {g: h}], 0644: i, '1': *m}\n",
];

#[test]
fn fuzz_manifests_with_faults_are_read_or_refused() {
    let fixture = std::panic::AssertUnwindSafe(fixture());
    bolero::check!().with_type::<Faults>().for_each(|faults| {
        let bytes = faulty(&TEXTS, faults);
        for found in fixture.reader.read(&bytes, Path::new("x.yaml")).into_iter().flatten() {
            assert!(!found.object.key.name.is_empty(), "{}", bytes.escape_ascii());
        }
    });
}
