//! Manifests as objects, by the rules of the API server.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use base64::alphabet;
use base64::engine::{Engine as _, GeneralPurpose, GeneralPurposeConfig};
use jiff::Timestamp;

use super::yaml::{self, Node, Problem, Value};
use crate::config::{Namespaces, Selection};
use crate::content::Content;
use crate::object::{Entry, Kind, Object, ObjectKey};
use crate::source::selector;
use crate::store::Spool;

/// The server's base64: padded, and lenient about the bits that the padding cuts off.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// Where an object is that names no namespace.
const NAMESPACE: &str = "default";

/// A selected object and the line where its document begins.
#[derive(Debug)]
pub struct Found {
    pub object: Object,
    pub line: u64,
}

/// Reads the selected objects of a file, and spools their values.
#[derive(Debug)]
pub struct Reader {
    pub selection: Selection,
    pub folder_annotation: Option<String>,
    pub spool: Spool,
}

/// What a document is to us.
enum Class {
    Object(Kind),
    /// Objects in a document, with the kind of those that name none.
    List(Option<Kind>),
    Other,
}

impl Reader {
    /// The selected objects of all documents. Documents of other kinds are passed over whatever is in them; for an object
    /// that is not selected, so are its values. `path` is for the log.
    ///
    /// # Errors
    ///
    /// Fails if the file is no YAML, or an object in it is one that the API server would refuse.
    pub fn read(&self, source: &mut impl Read, path: &Path) -> Result<Vec<Found>, Problem> {
        let mut found = Vec::new();
        for document in yaml::documents(source) {
            self.collect(document?, None, path, &mut found)?;
        }
        Ok(found)
    }

    fn collect(&self, node: Node, implied: Option<Kind>, path: &Path, found: &mut Vec<Found>) -> Result<(), Problem> {
        match self.class(&node, implied)? {
            Class::Object(kind) => found.extend(self.object(kind, node)?),
            Class::List(implied) => {
                for item in items(node)? {
                    self.collect(item, implied, path, found)?;
                }
            }
            Class::Other => tracing::debug!("{}:{}: passed over", path.display(), node.line),
        }
        Ok(())
    }

    fn class(&self, node: &Node, implied: Option<Kind>) -> Result<Class, Problem> {
        let class = match (node.get("kind"), implied) {
            (None, Some(kind)) => return Ok(self.wanted(kind)),
            (None, None) => return Ok(Class::Other),
            (Some(kind), _) => match kind.as_text() {
                Some("List") => Class::List(None),
                Some("ConfigMapList") => Class::List(Some(Kind::ConfigMap)),
                Some("SecretList") => Class::List(Some(Kind::Secret)),
                name => name.and_then(Kind::from_name).map_or(Class::Other, |kind| self.wanted(kind)),
            },
        };
        match (&class, node.get("apiVersion")) {
            (Class::Other, _) => Ok(class),
            (_, Some(version)) if version.as_text() == Some("v1") => Ok(class),
            (_, Some(_)) => Ok(Class::Other),
            (_, None) if implied.is_some() => Ok(class),
            (_, None) => Err(Problem::at(node.line, "apiVersion is missing; write apiVersion: v1")),
        }
    }

    fn wanted(&self, kind: Kind) -> Class {
        if self.selection.kinds.contains(&kind) { Class::Object(kind) } else { Class::Other }
    }

    fn object(&self, kind: Kind, node: Node) -> Result<Option<Found>, Problem> {
        let line = node.line;
        let mut fields = node.into_fields(kind.name())?;
        let metadata = Metadata::read(fields.remove("metadata"), line)?;
        let Some(namespace) = self.namespace(metadata.namespace) else { return Ok(None) };
        if !self.selection.selects(&metadata.name, &metadata.labels) {
            return Ok(None);
        }
        let folder = self.folder_annotation.as_ref().and_then(|name| metadata.annotations.get(name).cloned());
        let contents = match kind {
            Kind::ConfigMap => self.config_map(fields)?,
            Kind::Secret => self.secret(fields)?,
        };
        let object = Object {
            key: Arc::new(ObjectKey { kind, namespace, name: metadata.name }),
            resource_version: None,
            created: metadata.created,
            folder,
            entries: contents.into_iter().map(|(key, content)| Entry { key, content }).collect(),
        };
        Ok(Some(Found { object, line }))
    }

    /// The namespace that an object is in, if that is followed.
    fn namespace(&self, named: Option<String>) -> Option<String> {
        match &self.selection.namespaces {
            Namespaces::Unset | Namespaces::All => Some(named.unwrap_or_else(|| NAMESPACE.to_owned())),
            Namespaces::Named(followed) => match named {
                Some(named) => followed.contains(&named).then_some(named),
                None => followed.first().cloned(),
            },
        }
    }

    fn config_map(&self, mut fields: BTreeMap<String, Node>) -> Result<BTreeMap<String, Content>, Problem> {
        refuse(&fields, "stringData", "a ConfigMap has no stringData; move it to data")?;
        let mut contents = BTreeMap::new();
        for (key, text) in texts(fields.remove("data"), "data")? {
            contents.insert(key, self.spool.content(Kind::ConfigMap, text.value.as_bytes()));
        }
        for (key, text) in texts(fields.remove("binaryData"), "binaryData")? {
            let bytes = decode(&text, "binaryData", &key, "data")?;
            if contents.insert(key.clone(), self.spool.content(Kind::ConfigMap, &bytes)).is_some() {
                return Err(Problem::at(text.line, format!("{key:?} stands in data and in binaryData; remove one")));
            }
        }
        Ok(contents)
    }

    fn secret(&self, mut fields: BTreeMap<String, Node>) -> Result<BTreeMap<String, Content>, Problem> {
        refuse(&fields, "binaryData", "a Secret has no binaryData; move it to data")?;
        let mut contents = BTreeMap::new();
        for (key, text) in texts(fields.remove("data"), "data")? {
            let bytes = decode(&text, "data", &key, "stringData")?;
            contents.insert(key, self.spool.content(Kind::Secret, &bytes));
        }
        for (key, text) in texts(fields.remove("stringData"), "stringData")? {
            contents.insert(key, self.spool.content(Kind::Secret, text.value.as_bytes()));
        }
        Ok(contents)
    }
}

/// The part of an object's metadata that matters.
struct Metadata {
    name: String,
    namespace: Option<String>,
    created: Option<i64>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

impl Metadata {
    fn read(node: Option<Node>, document_line: u64) -> Result<Self, Problem> {
        let line = node.as_ref().map_or(document_line, |node| node.line);
        let mut fields = node.map(|node| node.into_fields("metadata")).transpose()?.unwrap_or_default();
        let mut text = |name: &str| field_text(fields.remove(name), &format!("metadata.{name}"));
        let name =
            text("name")?.ok_or_else(|| Problem::at(line, "metadata.name is missing; give the object a name"))?;
        if !selector::is_dns_subdomain(&name.value) {
            return Err(Problem::at(
                name.line,
                "metadata.name is no lower-case DNS name; write at most 253 of a-z, 0-9, \"-\" and \".\"",
            ));
        }
        let namespace = text("namespace")?;
        if let Some(namespace) = namespace.as_ref().filter(|namespace| !selector::is_dns_label(&namespace.value)) {
            return Err(Problem::at(
                namespace.line,
                "metadata.namespace is no lower-case DNS label; write at most 63 of a-z, 0-9 and \"-\"",
            ));
        }
        let created = text("creationTimestamp")?.map(|text| timestamp(&text)).transpose()?;
        let mut map = |name: &str| -> Result<BTreeMap<String, String>, Problem> {
            let texts = texts(fields.remove(name), &format!("metadata.{name}"))?;
            Ok(texts.into_iter().map(|(key, text)| (key, text.value)).collect())
        };
        Ok(Self {
            name: name.value,
            namespace: namespace.map(|namespace| namespace.value),
            created,
            labels: map("labels")?,
            annotations: map("annotations")?,
        })
    }
}

/// A string and the line of its key.
struct Text {
    line: u64,
    value: String,
}

/// The string of a field that may be absent, null or empty, which are the same to the API server.
fn field_text(node: Option<Node>, name: &str) -> Result<Option<Text>, Problem> {
    let text = node.map(|node| string(node, name)).transpose()?;
    Ok(text.filter(|text| !text.value.is_empty()))
}

/// The strings of a map that may be absent or null.
fn texts(node: Option<Node>, name: &str) -> Result<BTreeMap<String, Text>, Problem> {
    let fields = node.map(|node| node.into_fields(name)).transpose()?.unwrap_or_default();
    let text = |(key, node): (String, Node)| {
        let text = string(node, &format!("{key:?} in {name}"))?;
        Ok((key, text))
    };
    fields.into_iter().map(text).collect()
}

/// The string that a node is. Null is the empty string, as it is to the API server.
fn string(node: Node, name: &str) -> Result<Text, Problem> {
    let line = node.line;
    match node.value {
        Value::Text(value) => Ok(Text { line, value }),
        Value::Null => Ok(Text { line, value: String::new() }),
        Value::Plain(what, _) => Err(Problem::at(line, format!("{name} is {what}, not a string; put it in quotes"))),
        other => Err(Problem::at(line, format!("{name} is {}, not a string; write it as a block (|)", other.what()))),
    }
}

/// The bytes of a base64 value, in which line breaks do not count. `instead` is the field that takes plain text.
fn decode(text: &Text, name: &str, key: &str, instead: &str) -> Result<Vec<u8>, Problem> {
    let encoded: Vec<u8> = text.value.bytes().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
    BASE64.decode(encoded).map_err(|_| {
        let remedy = format!("encode it, or move it to {instead}");
        Problem::at(text.line, format!("{key:?} in {name} is not base64; {remedy}"))
    })
}

fn timestamp(text: &Text) -> Result<i64, Problem> {
    let timestamp: Timestamp = text.value.parse().map_err(|_| {
        let remedy = "write it like 2026-01-31T12:00:00Z, or leave it out";
        Problem::at(text.line, format!("metadata.creationTimestamp is no RFC 3339 time; {remedy}"))
    })?;
    Ok(timestamp.as_second())
}

/// Refuses a field that the kind does not have but that its writer counted on.
fn refuse(fields: &BTreeMap<String, Node>, name: &str, text: &str) -> Result<(), Problem> {
    match fields.get(name) {
        Some(node) if !matches!(node.value, Value::Null) => Err(Problem::at(node.line, text)),
        _ => Ok(()),
    }
}

fn items(node: Node) -> Result<Vec<Node>, Problem> {
    let Some(items) = node.into_fields("the list")?.remove("items") else { return Ok(Vec::new()) };
    match items.value {
        Value::List(items) => Ok(items),
        Value::Null => Ok(Vec::new()),
        other => Err(Problem::at(items.line, format!("items is {}, not a list", other.what()))),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Selector;
    use tempfile::TempDir;

    use super::*;
    use crate::config::Labels;
    use crate::content::Body;

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
            self.reader.read(&mut text.as_bytes(), Path::new("x.yaml"))
        }

        /// Each object as `line kind namespace/name key=value …`.
        fn show(&self, text: &str) -> Vec<String> {
            let found = self.read(text).unwrap_or_else(|problem| panic!("{problem:?} in {text}"));
            found.iter().map(Self::show_one).collect()
        }

        fn show_one(Found { object, line }: &Found) -> String {
            let mut shown = format!("{line} {}", object.key);
            for Entry { key, content } in &object.entries {
                let bytes = match &content.body {
                    Body::Memory(bytes) => bytes.to_vec(),
                    Body::Spooled(_) => format!("{} bytes", content.len_bytes).into_bytes(),
                    Body::Lost(error) => panic!("{error}"),
                };
                shown += &format!(" {key}={}", bytes.escape_ascii());
            }
            shown
        }
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
            ("apiVersion: v1\nkind: Secret\nmetadata:\n  name: ../a\n", 4, "metadata.name is no lower-case DNS name;"),
            (
                "apiVersion: v1\nkind: Secret\nmetadata: {name: a,\n namespace: a.b}\n",
                4,
                "metadata.namespace is no lower",
            ),
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
            (
                "ConfigMap",
                "data:\n  a:\n    b: c\n",
                5,
                "\"a\" in data is a map, not a string; write it as a block (|)",
            ),
            ("ConfigMap", "data:\n  a: b\n  a: b\n", 6, "\"a\" stands twice in data; remove one"),
            (
                "ConfigMap",
                "data: {a: b}\nbinaryData: {\na: YQ==}\n",
                6,
                "\"a\" stands in data and in binaryData; remove one",
            ),
            (
                "ConfigMap",
                "binaryData: {\na: YQ}\n",
                5,
                "\"a\" in binaryData is not base64; encode it, or move it to data",
            ),
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
        ];
        for (kind, rest, line, text) in cases {
            let problem = fixture.read(&document(kind, rest)).expect_err(rest);
            assert_eq!((problem.line, problem.text.as_str()), (Some(line), text), "{rest}");
        }
    }
}
