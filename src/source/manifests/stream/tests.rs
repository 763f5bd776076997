use std::fmt::Write as _;

use proptest::prelude::*;

use super::super::node::{Entry, Key, Value};
use super::*;

fn read_nodes(bytes: &[u8]) -> Result<Vec<Node>, Problem> {
    let mut nodes = Vec::new();
    read(bytes, &mut |node| {
        nodes.push(node);
        Ok(true)
    })?;
    Ok(nodes)
}

/// A value in a notation that a table can hold.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Text(text) => format!("{text:?}"),
        Value::Plain(what) => format!("<{what}>"),
        Value::Refused(_) => "<refused>".to_owned(),
        Value::List(nodes) => format!("[{}]", nodes.iter().map(|node| show(&node.value)).collect::<Vec<_>>().join(" ")),
        Value::Map(entries) => format!("{{{}}}", entries.iter().map(show_entry).collect::<Vec<_>>().join(" ")),
    }
}

fn show_entry(entry: &Entry) -> String {
    match &entry.key {
        Key::Text(key) => format!("{key}:{}", show(&entry.value)),
        Key::Other(_) => format!("<other>:{}", show(&entry.value)),
        Key::Refused(_) => "<refused>".to_owned(),
    }
}

/// The documents of a text.
fn shown(text: &str) -> Vec<String> {
    let nodes = read_nodes(text.as_bytes()).unwrap_or_else(|problem| panic!("{problem:?} in {text}"));
    nodes.iter().map(|node| show(&node.value)).collect()
}

#[test]
fn scalars_are_resolved_as_kubectl_resolves_them() {
    let cases = [
        ("b", "\"b\""),
        ("5", "<a number>"),
        ("-5", "<a number>"),
        ("0x1F", "<a number>"),
        ("0o17", "<a number>"),
        ("0b-1", "<a number>"),
        ("08", "<a number>"),
        ("1_000", "<a number>"),
        ("1.5", "<a number>"),
        (".inf", "<a number>"),
        ("18446744073709551615", "<a number>"),
        ("1e999", "\"1e999\""),
        ("0x", "\"0x\""),
        ("yes", "<a boolean>"),
        ("y", "<a boolean>"),
        ("TRUE", "<a boolean>"),
        ("Off", "<a boolean>"),
        ("tRue", "\"tRue\""),
        ("oN", "\"oN\""),
        ("nULL", "\"nULL\""),
        ("Null", "null"),
        ("~", "null"),
        ("", "null"),
        ("''", "\"\""),
        ("'yes'", "\"yes\""),
        ("!!str 5", "\"5\""),
        ("!local 5", "\"5\""),
        ("! 5", "<refused>"),
        ("!!binary aGk=", "<refused>"),
        ("2024-05-06", "\"2024-05-06\""),
        ("12:30:45", "\"12:30:45\""),
        ("|\n    x\n    y\n", "\"x\\ny\\n\""),
        ("|\n    x", "\"x\\n\""),
        (">-\n    x\n    y\n", "\"x y\""),
        ("[a, b]", "[]"),
        ("{a: b}", "{}"),
    ];
    for (text, expected) in cases {
        assert_eq!(shown(&format!("data:\n  a: {text}")), [format!("{{data:{{a:{expected}}}}}")], "{text}");
    }
}

#[test]
fn keys_are_those_that_kubectl_writes() {
    let cases = [
        ("8080", "8080"),
        ("-5", "-5"),
        ("1.5", "1.5"),
        ("no", "false"),
        ("y", "true"),
        ("tRue", "tRue"),
        ("'0644'", "0644"),
        ("!!str 0644", "0644"),
        ("0644", "<other>"),
        ("0x1F", "<other>"),
        ("+5", "<other>"),
        ("1_0", "<other>"),
        ("1.10", "<other>"),
        ("1234567.5", "<other>"),
        ("0.00001", "<other>"),
        ("18446744073709551615", "<other>"),
        ("~", "<other>"),
        ("? [a]\n  ", "<other>"),
    ];
    for (key, expected) in cases {
        assert_eq!(shown(&format!("data:\n  {key}: v")), [format!("{{data:{{{expected}:\"v\"}}}}")], "{key}");
    }
}

#[test]
fn aliases_and_merge_keys_stand_for_their_anchors() {
    let cases = [
        ("x: &x {p: q}\ndata: *x", r#"{data:{p:"q"}}"#),
        ("x: &x q\ndata: {p: *x}", r#"{data:{p:"q"}}"#),
        ("x: &x q\ndata: {*x : r}", r#"{data:{q:"r"}}"#),
        ("x: &x {p: q}\ndata: {a: *x}", "{data:{a:{}}}"),
        ("x: &x {p: q}\ndata: {<<: *x, r: s}", r#"{data:{p:"q" r:"s"}}"#),
        // The first map of several is the last to be written, so it counts.
        ("x: &x {p: q}\ny: &y {p: r}\ndata: {<<: [*x, *y]}", r#"{data:{p:"r" p:"q"}}"#),
        ("x: &x {p: q}\ny: &y {<<: *x, r: s}\ndata: {<<: *y}", r#"{data:{p:"q" r:"s"}}"#),
        ("data: {<<: p}", "{data:{<refused>}}"),
        ("data: {'<<': p}", r#"{data:{<<:"p"}}"#),
        ("x: &x {kind: a}\n<<: *x", r#"{kind:"a"}"#),
    ];
    for (text, expected) in cases {
        assert_eq!(shown(text), [expected], "{text}");
    }
}

#[test]
fn merge_key_after_its_repetition_is_refused() {
    let fields = |text: &str| read_nodes(text.as_bytes()).expect(text).remove(0).into_fields("it");
    let error = fields("x: &x {kind: a}\nkind: b\n<<: *x").expect_err("kubectl would take a");
    assert_eq!(error.line, Some(3));
    assert!(error.text.contains("merge first"), "{error:?}");
    let fields = fields("x: &x {kind: a}\n<<: *x\nkind: b").expect("the same to everyone");
    assert_eq!(fields["kind"].value.as_text(), Some("b"));
    for text in ["{kind: 1,\nitems: 2,\nkind: 3}", "kind: 1\n\n'kind': 3"] {
        let node = read_nodes(text.as_bytes()).expect(text).remove(0);
        assert_eq!(node.into_fields("data").expect_err(text).line, Some(3), "{text}");
    }
}

#[test]
fn json_objects_may_follow_each_other() {
    let one = "{\"kind\":\"a\"}";
    for text in [format!("{one}\n{one}\n{one}\n"), format!("{one}{one}{one}"), format!(" \n{one}\r\n\t{one} {one}")] {
        assert_eq!(shown(&text), [r#"{kind:"a"}"#; 3], "{text}");
    }
    let nodes = read_nodes(format!("{one}\n{{\n\"data\":\n{{\"k\"\n:1}}}}").as_bytes()).expect("valid");
    assert_eq!(nodes[1].line, 2);
    let Value::Map(entries) = &nodes[1].value else { panic!("{nodes:?}") };
    assert_eq!(entries[0].line, 3);
    // YAML may follow one object, and braces may be YAML.
    assert_eq!(shown(&format!("{one}\n---\nkind: b\n")), [r#"{kind:"a"}"#, r#"{kind:"b"}"#]);
    assert_eq!(shown("{kind: a}\n---\n{kind: b}"), [r#"{kind:"a"}"#, r#"{kind:"b"}"#]);
    let problem = read_nodes(format!("{one}\n{one}\n---\nkind: b\n").as_bytes()).expect_err("kubectl refuses it");
    assert_eq!(problem.line, Some(3));
}

#[test]
fn json_is_read_with_its_escapes_and_tabs() {
    let text = "{\n\t\"data\":\t{\"a\": \"\\u00e9 \\ud83d\\ude00 \\/ \\u003c\\n\\t\",\r\n\t\"b\":1,\t\"c\": null, \"d\": true}\n}\n";
    assert_eq!(shown(text), [r#"{data:{a:"é 😀 / <\n\t" b:<a number> c:null d:<a boolean>}}"#]);
}

#[test]
fn lines_count_through_all_documents_and_empty_ones_are_left_out() {
    let text =
        "# nothing\n---\n---\na: b\n---\nnull\n--- # also nothing\n...\n---\nmetadata:\n  x: |\n    x\n  name: 1\n";
    let nodes = read_nodes(text.as_bytes()).expect("valid");
    assert_eq!(nodes.iter().map(|node| node.line).collect::<Vec<_>>(), [4, 10]);
    let Some(Value::Map(metadata)) = nodes[1].value.get("metadata") else { panic!("{nodes:?}") };
    assert_eq!(metadata[0].line, 13);
}

#[test]
fn byte_order_mark_may_stand_before_any_document() {
    let expected = [r#"{kind:"a"}"#, r#"{kind:"b"}"#];
    for text in [
        "\u{feff}kind: a\n---\n\u{feff}kind: b\n",
        "kind: a\n\u{feff}---\nkind: b\n",
        "\u{feff}{\"kind\":\"a\"}\n{\"kind\":\"b\"}",
        "\u{feff}kind: a\r\n---\r\nkind: b\r\n",
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
}

#[test]
fn broken_documents_are_errors_with_their_line() {
    let cases: [(&[u8], u64); 15] = [
        (b"a: b\n c: d\n", 2),
        (b"a: b\n---\nc: 'd\ne: f\n", 3),
        (b"a:\n\tb: c\n", 2),
        (b"a: 1\nb: @c\n", 2),
        (b"a: 1\nb: *c\n", 2),
        (b"a: 1\nb: &c [*c]\n", 2),
        (b"a:\n  b: [\n", 2),
        (b"a: b\n--- c: d\n", 2),
        (b"a: b\n...\nc: d\n", 3),
        (b"kind: a\ndata: {k: 'a\xc2\x85b'}\n", 2),
        (b"{\"a\": 1,\n\"b\": ]}\n", 2),
        (b"{\"a\": 1}\n{\"b\": 2}\n{\"c\"\n", 4),
        (b"{\"a\": 1}\n{\"b\": 2}\n5\n", 3),
        (b"a: b\n\nc: \xff\xfe\n", 3),
        (b"{\"a\":\n\"\xff\xfe\"}\n", 2),
    ];
    for (text, line) in cases {
        let shown = String::from_utf8_lossy(text);
        let error = read_nodes(text).expect_err(&shown);
        assert_eq!(error.line, Some(line), "{shown}{error:?}");
        assert!(!error.text.contains(&format!("line {line}")), "{shown}{error:?}");
    }
}

#[test]
fn a_comment_may_be_long_wherever_it_stands() {
    let comment = "  # comment\n".repeat(1_000);
    let text = format!(
        "{comment}a:\n{comment}  - b\n{comment}  - c\n{comment}data:\n{comment}  e:\n{comment}    f\n{comment}  g: {{\n{comment}  h: i}}\n{comment}"
    );
    assert_eq!(shown(&text), [r#"{data:{e:"f" g:{}}}"#]);
}

#[test]
fn documents_of_other_kinds_have_no_limits() {
    let many = "- *x\n".repeat(1_000);
    let cases = [
        format!("kind: a\nx: &x {{a: 1}}\ny:\n{many}"),
        format!("kind: a\nx: {}{}", "[".repeat(9_000), "]".repeat(9_000)),
        format!("kind: a\nx:\n{}", (1..1_000).map(|depth| " ".repeat(depth) + "a:\n").collect::<String>()),
        format!("kind: a\nx: [{}]", "1,".repeat(260_000)),
        format!("{{\"kind\":\"a\",\"x\":{}{}}}", "[".repeat(9_000), "]".repeat(9_000)),
        format!("{{\"kind\":\"a\",\"x\":[{}1]}}", "1,".repeat(260_000)),
        format!("{{\"kind\":\"a\",\"{}\":1}}", "k".repeat(2_000)),
    ];
    for text in cases {
        assert_eq!(shown(&format!("{text}\n---\nkind: b\n")), [r#"{kind:"a"}"#, r#"{kind:"b"}"#], "{text:.60}");
    }
    let items = "{\"kind\":\"a\",\"data\":{\"k\":1}},".repeat(170_000);
    let text = format!("{{\"kind\":\"List\",\"items\":[{items}{{\"kind\":\"Secret\"}}]}}");
    assert!(shown(&text)[0].ends_with(r#"{kind:"a"} {kind:"Secret"}]}"#));
}

#[test]
fn alias_bombs_are_refused_where_they_count() {
    let mut bomb = "x: &a {k0: v}\n".to_owned();
    for (name, of) in ('b'..='z').zip('a'..) {
        writeln!(bomb, "{name}: &{name} {{items: [{}]}}", vec![format!("*{of}"); 10].join(",")).expect("a string");
    }
    assert_eq!(shown(&bomb), ["{}"]);
    assert!(shown(&format!("{bomb}items: [*z]"))[0].contains("<refused>"));
    let long = "v".repeat(1 << 20);
    let uses: String = (0..40).map(|number| format!("  k{number}: *x\n")).collect();
    let text = format!("x: &x {long}\ndata:\n{uses}");
    assert_eq!(shown(&text)[0].matches("<refused>").count(), 9, "40 MiB are too many");
}

#[test]
fn what_is_kept_is_bounded() {
    for text in [
        format!("{{\"data\":{{{}\"k\":1}}}}", "\"a\":1,".repeat(500_100)),
        format!("data:\n{}", "  a: 1\n".repeat(500_100)),
    ] {
        let shown = shown(&text);
        assert!(shown[0].ends_with("<refused>}}"), "{:.60}", shown[0]);
    }
    let nest = |levels: usize| format!("{}{}", "{\"items\":[".repeat(levels), "]}".repeat(levels));
    assert!(!shown(&nest(30))[0].contains("<refused>"));
    assert!(shown(&nest(1_000))[0].contains("<refused>"));
}

#[test]
fn a_nest_is_refused_before_the_stack_of_a_thread_ends() {
    const STACK_BYTES: usize = 2 * 1024 * 1024;
    let nests = ["[", "{a: ", "- ", "items: [", "{\"items\":[", "<<: {", "{<<: [", "? "];
    for nest in nests {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
        let text = nest.repeat(20_000);
        let refused = thread.spawn(move || read_nodes(text.as_bytes()).is_err()).expect("a thread").join();
        assert!(refused.expect("no panic"), "{nest}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            "([a-b:#&*!|>'\"{}\\[\\],?%@`~<0-9. \n\t-]|---\n|: |- |data: |items: |<<: ){0,60}".prop_map(String::into_bytes),
            "([a:'\"{}\\[\\],0-9 \n]|\\{\"data\":|\\{\"items\":\\[|\\{\\}){0,60}".prop_map(String::into_bytes),
        ],
    ) {
        if let Err(error) = read_nodes(&bytes) {
            prop_assert!(!error.text.contains('\n'));
        }
    }
}
