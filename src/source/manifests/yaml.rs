//! YAML documents as they were written: every node with its line, nothing decided yet. JSON is YAML, too.
//!
//! Plain scalars are read as Kubernetes reads them (YAML 1.1 booleans, numbers), so that what a manifest means here is what
//! it means to a cluster. A key that is a number or a boolean becomes its text, as on the way to an API server.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::NonFiniteFloatPolicy;
use serde_saphyr::{DuplicateKeyPolicy, Localizer, Location, Options, Spanned, UserMessageFormatter};

/// What is wrong with a file, and where; one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// From 1; absent if it is about the file as a whole.
    pub line: Option<u64>,
    pub text: String,
}

impl Problem {
    pub fn at(line: u64, text: impl Into<String>) -> Self {
        Self { line: Some(line), text: text.into() }
    }

    pub fn whole(text: impl Into<String>) -> Self {
        Self { line: None, text: text.into() }
    }
}

/// One node of a document.
#[derive(Debug)]
pub struct Node {
    pub line: u64,
    pub value: Value,
}

#[derive(Debug)]
pub enum Value {
    Null,
    Text(String),
    /// What is neither text nor a container, by what it is and as a key would be written.
    Plain(&'static str, String),
    List(Vec<Node>),
    /// In the order of the document; a key may stand in it twice.
    Map(Vec<(Node, Node)>),
}

impl Value {
    /// What the value is, with an article.
    pub fn what(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Text(_) => "a string",
            Self::Plain(what, _) => what,
            Self::List(_) => "a list",
            Self::Map(_) => "a map",
        }
    }
}

impl Node {
    /// The value of a key in a map, the first one if there are several.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let Value::Map(pairs) = &self.value else { return None };
        pairs.iter().find(|(name, _)| name.as_key() == Some(key)).map(|(_, value)| value)
    }

    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn as_key(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) | Value::Plain(_, text) => Some(text),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The fields of a map, each with the line of its key. Null is an empty map. `name` is what messages call the map.
    pub fn into_fields(self, name: &str) -> Result<BTreeMap<String, Node>, Problem> {
        let pairs = match self.value {
            Value::Map(pairs) => pairs,
            Value::Null => Vec::new(),
            other => return Err(Problem::at(self.line, format!("{name} is {}, not a map", other.what()))),
        };
        let mut fields = BTreeMap::new();
        for (key, Node { value, .. }) in pairs {
            let line = key.line;
            let Some(text) = key.as_key() else {
                return Err(Problem::at(line, format!("a key of {name} is {}, not a string", key.value.what())));
            };
            if fields.insert(text.to_owned(), Node { line, value }).is_some() {
                return Err(Problem::at(line, format!("{text:?} stands twice in {name}; remove one")));
            }
        }
        Ok(fields)
    }
}

/// The documents of a file, one at a time; those that are empty are left out. After an error there is no more to expect.
///
/// The parser's limits on depth, number of nodes and expansion of aliases are on, for each document on its own.
pub fn documents(reader: &mut impl Read) -> impl Iterator<Item = Result<Node, Problem>> + '_ {
    serde_saphyr::read_with_options(reader, options()).map(|document| document.map_err(|error| problem(&error)))
}

fn options() -> Options {
    serde_saphyr::options! {
        // What is not ours may have duplicate keys; in what is ours `into_fields` finds them.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        // The parser would hold back no more than a few dozen lines of comment in a row, and refuse the file otherwise.
        emit_comments: false,
        // A message must never show a piece of the file: it may be a Secret.
        with_snippet: false,
    }
}

fn problem(error: &serde_saphyr::Error) -> Problem {
    match error {
        serde_saphyr::Error::IOError { cause } if cause.kind() == io::ErrorKind::InvalidData => {
            Problem::whole("this is not UTF-8 text")
        }
        serde_saphyr::Error::IOError { cause } => Problem::whole(cause.to_string()),
        error => Problem {
            line: error.location().map(|location| location.line()),
            text: error.render_with_formatter(&UserMessageFormatter.with_localizer(&Bare)),
        },
    }
}

/// Leaves the location out of messages: it stands before them.
struct Bare;

impl Localizer for Bare {
    fn attach_location<'a>(&self, base: Cow<'a, str>, _: Location) -> Cow<'a, str> {
        base
    }

    fn alias_used_at(&self, _: Location) -> String {
        String::new()
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let node = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { line: node.referenced.line(), value: node.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Plain("a boolean", value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Plain("a number", value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Plain("a number", value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Plain("a number", value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = list.next_element()? {
            nodes.push(node);
        }
        Ok(Value::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Value::Map(pairs))
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn read(text: &[u8]) -> Result<Vec<Node>, Problem> {
        documents(&mut &text[..]).collect()
    }

    /// A node in a notation that a table can hold.
    fn show(node: &Node) -> String {
        match &node.value {
            Value::Null => "null".to_owned(),
            Value::Text(text) => format!("{text:?}"),
            Value::Plain(_, text) => format!("<{text}>"),
            Value::List(nodes) => format!("[{}]", nodes.iter().map(show).collect::<Vec<_>>().join(" ")),
            Value::Map(pairs) => {
                let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{}:{}", show(key), show(value))).collect();
                format!("{{{}}}", pairs.join(" "))
            }
        }
    }

    #[test]
    fn scalars_are_what_kubernetes_takes_them_for() {
        let cases = [
            ("a: b", r#"{"a":"b"}"#),
            ("a: 5", r#"{"a":<5>}"#),
            ("a: -5", r#"{"a":<-5>}"#),
            ("a: 0x1F", r#"{"a":<31>}"#),
            ("a: 1.5", r#"{"a":<1.5>}"#),
            ("a: .inf", r#"{"a":<inf>}"#),
            ("a: yes", r#"{"a":<true>}"#),
            ("a: Off", r#"{"a":<false>}"#),
            ("a: 'yes'", r#"{"a":"yes"}"#),
            ("a: !!str 5", r#"{"a":"5"}"#),
            ("a: 2024-05-06", r#"{"a":"2024-05-06"}"#),
            ("a: 12:30:45", r#"{"a":"12:30:45"}"#),
            ("a:", r#"{"a":null}"#),
            ("a: ~", r#"{"a":null}"#),
            ("a: ''", r#"{"a":""}"#),
            ("a: |\n  x\n  y\n", r#"{"a":"x\ny\n"}"#),
            ("a: >-\n  x\n  y\n", r#"{"a":"x y"}"#),
            ("8080: x", r#"{<8080>:"x"}"#),
            ("no: x", r#"{<false>:"x"}"#),
            ("? [a]\n: b", r#"{["a"]:"b"}"#),
            ("a: &x {p: q}\nb: *x\nc: {<<: *x, r: s}", r#"{"a":{"p":"q"} "b":{"p":"q"} "c":{"r":"s" "p":"q"}}"#),
            ("a: 1\na: 2", r#"{"a":<1> "a":<2>}"#),
            ("\u{feff}a: b\r\nc: d\r\n", r#"{"a":"b" "c":"d"}"#),
        ];
        for (text, expected) in cases {
            let nodes = read(text.as_bytes()).expect(text);
            assert_eq!(nodes.iter().map(show).collect::<Vec<_>>(), [expected], "{text}");
        }
    }

    #[test]
    fn json_is_read_with_its_escapes_and_tabs() {
        let text = "{\n\t\"a\":\t\"\\u00e9 \\ud83d\\ude00 \\/ \\u003c\\n\\t\",\r\n\t\"b\":[1,\tnull,true]\n}\n";
        let nodes = read(text.as_bytes()).expect("valid");
        assert_eq!(nodes.iter().map(show).collect::<Vec<_>>(), [r#"{"a":"é 😀 / <\n\t" "b":[<1> null <true>]}"#]);
        assert_eq!(nodes[0].get("b").map(|node| node.line), Some(3));
    }

    #[test]
    fn lines_count_through_all_documents_and_empty_ones_are_left_out() {
        let text = "# nothing\n---\n---\na: b\n---\nnull\n--- # also nothing\n...\n---\nc:\n  d: |\n    x\n  e: 1\n";
        let nodes = read(text.as_bytes()).expect("valid");
        assert_eq!(nodes.iter().map(|node| node.line).collect::<Vec<_>>(), [4, 10]);
        let line = nodes[1].get("c").and_then(|c| c.get("e")).map(|node| node.line);
        assert_eq!(line, Some(13));
    }

    #[test]
    fn what_is_no_yaml_is_an_error_with_its_line() {
        let cases: [(&[u8], u64); 8] = [
            (b"a: b\n c: d\n", 2),
            (b"a: b\n---\nc: 'd\ne: f\n", 3),
            (b"a:\n\tb: c\n", 2),
            (b"a: 1\nb: @c\n", 2),
            (b"a: 1\nb: *c\n", 2),
            (b"{\"a\": 1}\n{\"b\": 2}\n", 2),
            (b"a:\n  b: [\n", 2),
            (b"a: !!int x\n", 1),
        ];
        for (text, line) in cases {
            let shown = String::from_utf8_lossy(text);
            let error = read(text).expect_err(&shown);
            assert_eq!(error.line, Some(line), "{shown}{error:?}");
            assert!(!error.text.contains("line"), "{shown}{error:?}");
        }
        assert_eq!(read(b"a: \xff\xfe\n").expect_err("no text"), Problem::whole("this is not UTF-8 text"));
    }

    #[test]
    fn a_comment_may_be_long_wherever_it_stands() {
        let comment = "  # comment\n".repeat(1_000);
        let text = format!(
            "{comment}a:\n{comment}  - b\n{comment}  - c\n{comment}d:\n{comment}  e: {{\n{comment}  f: g}}\n{comment}"
        );
        let nodes = read(text.as_bytes()).expect("valid");
        assert_eq!(nodes.iter().map(show).collect::<Vec<_>>(), [r#"{"a":["b" "c"] "d":{"e":{"f":"g"}}}"#]);
    }

    #[test]
    fn an_alias_bomb_is_refused() {
        let mut bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (name, of) in ('b'..='i').zip('a'..) {
            writeln!(bomb, "{name}: &{name} [{}]", vec![format!("*{of}"); 10].join(",")).expect("a string");
        }
        let error = read(bomb.as_bytes()).expect_err("a bomb");
        assert!(error.text.starts_with("YAML document too large or too complex"), "{error:?}");
    }

    #[test]
    fn a_nest_is_refused_before_the_stack_of_a_main_thread_ends() {
        const STACK_BYTES: usize = 8 * 1024 * 1024;
        let block = (0..2_000).map(|depth| " ".repeat(depth) + "a:\n").collect();
        for text in ["[".repeat(20_000), "{a: ".repeat(20_000), "- ".repeat(20_000), block] {
            let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
            let refused = thread.spawn(move || read(text.as_bytes()).is_err()).expect("a thread").join();
            assert!(refused.expect("no panic"));
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_where_it_stands_again() {
        for text in ["{a: 1,\nb: 2,\na: 3}", "1: a\nb: c\n'1': d"] {
            let node = read(text.as_bytes()).expect(text).remove(0);
            assert_eq!(node.into_fields("data").expect_err(text).line, Some(3), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                "([a-b:#&*!|>'\"{}\\[\\],?%@`~<0-9. \n\t-]|---\n|: |- ){0,60}".prop_map(String::into_bytes),
            ],
        ) {
            if let Err(error) = read(&bytes) {
                prop_assert!(!error.text.contains('\n'));
            }
        }
    }
}
