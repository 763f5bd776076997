//! Events, pages and failures as servers send them, and as they should not.

use super::*;
use crate::content::Body;
use crate::fuzz::{Faults, faulty};

/// Gives its bytes one at a time, as a slow connection may.
struct Drip<'a>(&'a [u8]);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = buffer.len().min(1);
        self.0.read(&mut buffer[..len])
    }
}

fn wanted(kind: Kind) -> (tempfile::TempDir, Wanted) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let spool = Spool::for_tests(folder.path());
    (folder, Wanted { kind, folder_annotation: Some("x/folder".into()), spool })
}

fn event(kind: Kind, text: &str) -> Result<WatchEvent, WireError> {
    read_event(&mut Drip(text.as_bytes()), &wanted(kind).1)
}

fn applied(kind: Kind, text: &str) -> Result<Object, Unusable> {
    match event(kind, text) {
        Ok(WatchEvent::Applied(found)) => found.object,
        other => panic!("{other:?}"),
    }
}

fn values(object: &Object) -> Vec<(&str, Vec<u8>)> {
    let bytes = |content: &Content| match &content.body {
        Body::Memory(bytes) => bytes.to_vec(),
        other => panic!("{other:?}"),
    };
    object.entries.iter().map(|entry| (entry.key.as_str(), bytes(&entry.content))).collect()
}

#[test]
fn an_object_is_read_with_all_that_matters_and_without_the_rest() {
    let object = applied(
        Kind::ConfigMap,
        r#"{"type":"ADDED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"n","namespace":"s",
        "uid":"u","resourceVersion":"42","creationTimestamp":"1970-01-01T00:01:00Z","labels":{"a":"b"},
        "annotations":{"other":"1","x/folder":"sub"},"managedFields":[{"fieldsV1":{"f:data":{".":{},"f:k":{}}}}]},
        "immutable":true,"data":{"k":"a\n\u003c\ud83d\ude00","empty":""},"binaryData":{"b":"/wA="}}}"#,
    )
    .expect("it can be used");
    assert_eq!(object.key.to_string(), "ConfigMap s/n");
    assert_eq!(object.resource_version.as_deref(), Some("42"));
    assert_eq!(object.created, Some(60));
    assert_eq!(object.folder.as_deref(), Some("sub"));
    let expected = [("k", "a\n<😀".as_bytes().to_vec()), ("empty", vec![]), ("b", vec![0xff, 0])];
    assert_eq!(values(&object), expected);
}

#[test]
fn a_secrets_data_is_decoded_and_null_is_empty() {
    let text = r#"{"type":"MODIFIED","object":{"metadata":{"name":"n"},"data":{"k":"aGk=","none":null}}}"#;
    let object = applied(Kind::Secret, text).expect("it can be used");
    assert_eq!(values(&object), [("k", b"hi".to_vec()), ("none", vec![])]);
    let text = r#"{"type":"MODIFIED","object":{"metadata":{"name":"n","annotations":null},"data":null}}"#;
    assert_eq!(values(&applied(Kind::Secret, text).expect("it can be used")), []);
}

#[test]
fn a_value_that_is_not_base64_makes_the_object_unusable_and_the_stream_goes_on() {
    let text = r#"{"type":"ADDED","object":{"metadata":{"name":"n"},"data":{"k":"%%%%not base64%%%%","l":"aGk="}}}"#;
    let unusable = applied(Kind::Secret, text).expect_err("its value is broken");
    assert!(unusable.why.contains("\"k\""), "{}", unusable.why);
}

#[test]
fn large_values_are_spooled_and_hashed() {
    let text = "x<\u{1}".repeat(100_000);
    let line =
        serde_json::json!({"type": "ADDED", "object": {"metadata": {"name": "n"}, "data": {"k": text}}}).to_string();
    let (folder, wanted) = wanted(Kind::ConfigMap);
    let Ok(WatchEvent::Applied(found)) = read_event(&mut line.as_bytes(), &wanted) else { panic!("an object") };
    let object = found.object.expect("it can be used");
    let content = &object.entries[0].content;
    assert_eq!(content.digest.len_bytes, 300_000);
    assert_eq!(content.digest, wanted.spool.content(Kind::ConfigMap, text.as_bytes()).digest);
    assert!(matches!(content.body, Body::Spooled(_)));
    drop(object);
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0, "what is dropped leaves no file");
}

#[test]
fn deletions_bookmarks_and_errors_are_told_apart() {
    let deleted = event(
        Kind::Secret,
        r#"{"type":"DELETED","object":{"metadata":{"name":"n","namespace":"s","resourceVersion":"9"},"data":{"k":"?"}}}"#,
    );
    assert!(matches!(deleted, Ok(WatchEvent::Deleted { key, version }) if key.name == "n" && version == "9"));
    let bookmark = event(
        Kind::Secret,
        r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"10","annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
    );
    assert!(matches!(bookmark, Ok(WatchEvent::Bookmark { version, initial_events_end: true }) if version == "10"));
    let error = event(
        Kind::Secret,
        r#"{"type":"ERROR","object":{"kind":"Status","status":"Failure","message":"too old","reason":"Expired","details":{"retryAfterSeconds":3},"code":410}}"#,
    );
    let Ok(WatchEvent::Error(status)) = error else { panic!("{error:?}") };
    assert_eq!((status.code, status.reason.as_str(), status.retry_after_s), (410, "Expired", Some(3)));
}

#[test]
fn what_is_no_event_is_an_error_and_not_an_object() {
    for text in [
        "",
        "{",
        "[]",
        "null",
        r#"{"type":"ADDED"}"#,
        r#"{"type":"ADDED","object":{"metadata":{}}}"#,
        r#"{"type":"SURPRISE","object":{"metadata":{"name":"n"}}}"#,
        r#"{"type":"ADDED","object":{"metadata":{"name":"n"},"data":{"k":"cut"#,
        r#"{"type":"ADDED","object":{"metadata":{"name":"n"},"data":{"k":7}}}"#,
        "<html>502 Bad Gateway</html>",
    ] {
        assert!(event(Kind::ConfigMap, text).is_err(), "{text}");
    }
    let long = format!(r#"{{"type":"ADDED","object":{{"metadata":{{"name":"{}"}}}}}}"#, "x".repeat(300_000));
    assert!(event(Kind::ConfigMap, &long).is_err());
    let deep = format!(r#"{{"type":"ADDED","object":{{"spec":{}"#, "[".repeat(100_000));
    assert!(event(Kind::ConfigMap, &deep).is_err());
}

#[test]
fn what_nobody_reads_may_nest_as_deep_as_an_object_is_long() {
    let deep = "{\"f:x\":".repeat(300_000) + "{}" + &"}".repeat(300_000);
    let text = format!(r#"{{"type":"ADDED","object":{{"metadata":{{"name":"n","managedFields":[{deep}]}}}}}}"#);
    assert_eq!(values(&applied(Kind::ConfigMap, &text).expect("it can be used")), []);
}

fn page(text: &str) -> Result<(Vec<String>, PageEnd), WireError> {
    let mut names = Vec::new();
    let end = read_page(&mut Drip(text.as_bytes()), &wanted(Kind::ConfigMap).1, |found| {
        names.push(found.object.map_or_else(|unusable| unusable.key.to_string(), |object| object.key.to_string()));
        true
    })?;
    Ok((names, end))
}

#[test]
fn a_page_gives_its_objects_and_where_it_ends() {
    let text = r#"{"kind":"ConfigMapList","metadata":{"resourceVersion":"7","continue":"token"},
        "items":[{"metadata":{"name":"a","namespace":"s"},"data":{"k":"v"}},{"metadata":{"name":"b","namespace":"s"}}]}"#;
    let (names, end) = page(text).expect("a page");
    assert_eq!(names, ["ConfigMap s/a", "ConfigMap s/b"]);
    assert_eq!(end, PageEnd { version: "7".into(), continue_token: "token".into() });
    let (names, end) =
        page(r#"{"kind":"ConfigMapList","items":null,"metadata":{"resourceVersion":"7"}}"#).expect("a page");
    assert_eq!((names.len(), end.continue_token.as_str()), (0, ""));
}

#[test]
fn a_page_that_is_cut_or_no_list_is_never_complete() {
    let whole = r#"{"kind":"ConfigMapList","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"a"}}]}"#;
    for len in 0..whole.len() {
        assert!(page(&whole[..len]).is_err(), "{}", &whole[..len]);
    }
    assert!(page(r#"{"kind":"Status","code":200,"metadata":{}}"#).is_err());
    assert!(page(r#"{"kind":"SecretList","items":[],"metadata":{"resourceVersion":"7"}}"#).is_err());
    assert!(page(&format!("{whole}{{}}")).is_err());
}

#[test]
fn an_account_of_a_failure_may_be_anything() {
    let (_folder, wanted) = wanted(Kind::ConfigMap);
    let text = br#"{"kind":"Status","metadata":{},"message":"no","reason":"Forbidden","code":403}"#;
    assert_eq!(read_status(text, &wanted).message, "no");
    for text in ["", "<html>", "{\"message\":1}"] {
        assert_eq!(read_status(text.as_bytes(), &wanted), Status::default());
    }
}

/// As servers send them.
const LINES: [&str; 6] = [
    r#"{"type":"ADDED","object":{"kind":"ConfigMap","metadata":{"name":"n","namespace":"s","resourceVersion":"42","annotations":{"x/folder":"sub"},"managedFields":[{"f":{}}]},"data":{"k":"a\n\u003c\ud83d\ude00"},"binaryData":{"b":"/wA="}}}"#,
    r#"{"type":"DELETED","object":{"metadata":{"name":"n","namespace":"s","resourceVersion":"43"}}}"#,
    r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"44","annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
    r#"{"type":"ERROR","object":{"kind":"Status","status":"Failure","message":"too old","reason":"Expired","code":410}}"#,
    r#"{"kind":"ConfigMapList","metadata":{"resourceVersion":"9","continue":"c"},"items":[{"metadata":{"name":"a","namespace":"s"},"data":{"k":"v"}}]}"#,
    r#"{"kind":"Status","message":"no","details":{"retryAfterSeconds":3},"code":429}"#,
];

#[test]
fn fuzz_answers_with_faults_are_read_or_refused_and_leave_no_file_behind() {
    let (folder, wanted) = wanted(Kind::ConfigMap);
    let wanted = std::panic::AssertUnwindSafe(wanted);
    bolero::check!().with_type::<Faults>().for_each(|faults| {
        let bytes = faulty(&LINES, faults);
        drop(read_event(&mut bytes.as_slice(), &wanted));
        drop(read_page(&mut bytes.as_slice(), &wanted, |_| true));
        read_status(&bytes, &wanted);
    });
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0);
}

#[test]
fn an_event_is_read_to_the_end_of_its_line_and_nothing_else_may_stand_there() {
    let (_folder, wanted) = wanted(Kind::ConfigMap);
    let text = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"10"}}}"#;
    let line = format!("{text} \r");
    let mut drip = Drip(line.as_bytes());
    assert!(read_event(&mut drip, &wanted).is_ok());
    assert_eq!(drip.0, b"", "who waits for the newline must not take it that nobody reads any more");
    assert!(event(Kind::ConfigMap, &format!("{text}{text}")).is_err());
}

#[test]
fn an_object_whose_name_cannot_be_is_an_error_of_one_line() {
    for (namespace, name) in
        [("s", "a\\nINFO all is well"), ("s\\n", "a"), ("s.t", "a"), ("s", "A"), ("s", "../a"), ("s", "a/b")]
    {
        for kind in ["ADDED", "DELETED"] {
            let metadata = format!(r#""metadata":{{"name":"{name}","namespace":"{namespace}","resourceVersion":"1"}}"#);
            let read = event(Kind::ConfigMap, &format!(r#"{{"type":"{kind}","object":{{{metadata}}}}}"#));
            let error = read.expect_err(name).to_string();
            assert!(error.contains("cannot be") && !error.contains(char::is_control), "{error}");
        }
    }
}

#[test]
fn a_bookmark_without_a_version_is_no_place_to_go_on_from() {
    for metadata in ["{}", r#"{"resourceVersion":"","annotations":{"k8s.io/initial-events-end":"true"}}"#] {
        let read = event(Kind::ConfigMap, &format!(r#"{{"type":"BOOKMARK","object":{{"metadata":{metadata}}}}}"#));
        assert!(read.is_err_and(|error| error.to_string().contains("version")), "{metadata}");
    }
}
