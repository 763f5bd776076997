//! Reads the API server's JSON as a stream: a value goes through a small buffer into the [`Spool`], so memory stays flat
//! whatever an object holds, and what is of no use (`managedFields`, say) is passed over.

use std::io::{self, Read};
use std::sync::Arc;

use base64::engine::general_purpose::STANDARD;
use base64::read::DecoderReader;
use jiff::Timestamp;
use struson::reader::{JsonReader, JsonStreamReader, ReaderError, ReaderSettings, ValueType};
use thiserror::Error;

use crate::content::Content;
use crate::content::Spool;
use crate::object::{Entry, Kind, Object, ObjectKey};

/// The longest text that is read whole, in bytes: an annotation may have 256 KiB, all others are far shorter.
const TEXT_BYTES_MAX: u64 = 256 * 1024;

/// The annotation that ends the initial events of a watch-list (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// What is read out of the objects of a request.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub kind: Kind,
    pub folder_annotation: Option<String>,
    pub spool: Spool,
}

/// One event of a watch.
#[derive(Debug)]
pub(super) enum WatchEvent {
    Applied(Found),
    Deleted { key: Arc<ObjectKey>, version: String },
    Bookmark { version: String, initial_events_end: bool },
    Error(Status),
}

/// An object, and the version up to which the watch has come with it.
#[derive(Debug)]
pub(super) struct Found {
    pub version: String,
    pub object: Result<Object, Unusable>,
}

/// An object that exists and cannot be used as it is.
#[derive(Debug)]
pub(super) struct Unusable {
    pub key: Arc<ObjectKey>,
    pub why: String,
}

/// What follows after a page of a list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PageEnd {
    pub version: String,
    /// Empty after the last page.
    pub continue_token: String,
}

/// The API server's account of a failure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    pub code: u16,
    pub reason: String,
    pub message: String,
    pub retry_after_s: Option<u64>,
}

/// The server's bytes are not what they should be, or ended early.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct WireError(String);

impl From<ReaderError> for WireError {
    fn from(error: ReaderError) -> Self {
        Self(format!("the server's answer cannot be read: {error}"))
    }
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self(format!("the server's answer cannot be read: {error}"))
    }
}

/// Reads one event of a watch.
pub(super) fn read_event(from: &mut dyn Read, wanted: &Wanted) -> Result<WatchEvent, WireError> {
    let mut reader = Reader::new(from, wanted);
    let mut event_type = String::new();
    let mut fields = Fields::default();
    reader.json.begin_object()?;
    while reader.json.has_next()? {
        match reader.json.next_name()? {
            "type" => event_type = reader.text()?,
            "object" => fields = reader.object(!matches!(event_type.as_str(), "DELETED" | "BOOKMARK"))?,
            _ => reader.json.skip_value()?,
        }
    }
    reader.json.end_object()?;
    match event_type.as_str() {
        "ADDED" | "MODIFIED" => fields.found(wanted.kind).map(WatchEvent::Applied),
        "DELETED" => Ok(WatchEvent::Deleted { version: fields.version.clone(), key: fields.key(wanted.kind)? }),
        "BOOKMARK" => {
            Ok(WatchEvent::Bookmark { version: fields.version, initial_events_end: fields.initial_events_end })
        }
        "ERROR" => Ok(WatchEvent::Error(fields.status)),
        other => Err(WireError(format!("the server sent an event of the unknown type {other:?}"))),
    }
}

/// Reads a page of a list and hands each of its objects to `each`, which may end the reading by `false`.
pub(super) fn read_page(
    from: &mut dyn Read,
    wanted: &Wanted,
    mut each: impl FnMut(Found) -> bool,
) -> Result<PageEnd, WireError> {
    let mut reader = Reader::new(from, wanted);
    let mut end = PageEnd::default();
    let mut kind = String::new();
    let mut has_items = false;
    reader.json.begin_object()?;
    while reader.json.has_next()? {
        match reader.json.next_name()? {
            "kind" => kind = reader.text()?,
            "metadata" => {
                let mut fields = Fields::default();
                reader.metadata(&mut fields)?;
                end = PageEnd { version: fields.version, continue_token: fields.continue_token };
            }
            "items" => {
                has_items = true;
                if reader.is_null()? {
                    continue;
                }
                reader.json.begin_array()?;
                while reader.json.has_next()? {
                    if !each(reader.object(true)?.found(wanted.kind)?) {
                        return Err(WireError("nobody wants the rest of the list".into()));
                    }
                }
                reader.json.end_array()?;
            }
            _ => reader.json.skip_value()?,
        }
    }
    reader.json.end_object()?;
    reader.json.consume_trailing_whitespace()?;
    if kind != format!("{}List", wanted.kind.name()) || !has_items || end.version.is_empty() {
        return Err(WireError(format!("the server's answer is no list of {}", wanted.kind.resource())));
    }
    Ok(end)
}

/// Reads what the server says of a failure; empty where it says nothing that can be read.
pub(super) fn read_status(mut from: &[u8], wanted: &Wanted) -> Status {
    Reader::new(&mut from, wanted).object(false).map(|fields| fields.status).unwrap_or_default()
}

/// What is taken from an object, a list's metadata or a status.
#[derive(Default)]
struct Fields {
    name: String,
    namespace: String,
    version: String,
    created: Option<i64>,
    folder: Option<String>,
    initial_events_end: bool,
    continue_token: String,
    entries: Vec<Entry>,
    unusable: Option<String>,
    status: Status,
}

impl Fields {
    fn key(self, kind: Kind) -> Result<Arc<ObjectKey>, WireError> {
        if self.name.is_empty() {
            return Err(WireError("the server sent an object without a name".into()));
        }
        Ok(Arc::new(ObjectKey { kind, namespace: self.namespace, name: self.name }))
    }

    fn found(mut self, kind: Kind) -> Result<Found, WireError> {
        let version = self.version.clone();
        let (created, folder) = (self.created, self.folder.take());
        let (entries, unusable) = (std::mem::take(&mut self.entries), self.unusable.take());
        let key = self.key(kind)?;
        let object = match unusable {
            Some(why) => Err(Unusable { key, why }),
            None => Ok(Object { key, resource_version: Some(version.clone()), created, folder, entries }),
        };
        Ok(Found { version, object })
    }
}

struct Reader<'a> {
    json: JsonStreamReader<&'a mut dyn Read>,
    wanted: &'a Wanted,
}

impl<'a> Reader<'a> {
    fn new(from: &'a mut dyn Read, wanted: &'a Wanted) -> Self {
        // `managedFields` may nest as deep as their author likes; they are passed over without recursion.
        let settings = ReaderSettings { track_path: false, max_nesting_depth: None, ..ReaderSettings::default() };
        Self { json: JsonStreamReader::new_custom(from, settings), wanted }
    }

    fn object(&mut self, values: bool) -> Result<Fields, WireError> {
        let mut fields = Fields::default();
        self.json.begin_object()?;
        while self.json.has_next()? {
            match (self.json.next_name()?, self.wanted.kind) {
                ("metadata", _) => self.metadata(&mut fields)?,
                ("data", Kind::ConfigMap) if values => self.values(&mut fields, Reader::plain)?,
                ("binaryData", Kind::ConfigMap) | ("data", Kind::Secret) if values => {
                    self.values(&mut fields, Reader::base64)?;
                }
                ("code", _) => fields.status.code = self.number()?.unwrap_or_default(),
                ("reason", _) => fields.status.reason = self.text()?,
                ("message", _) => fields.status.message = self.text()?,
                ("details", _) => self.details(&mut fields.status)?,
                _ => self.json.skip_value()?,
            }
        }
        self.json.end_object()?;
        Ok(fields)
    }

    fn metadata(&mut self, fields: &mut Fields) -> Result<(), WireError> {
        self.json.begin_object()?;
        while self.json.has_next()? {
            match self.json.next_name()? {
                "name" => fields.name = self.text()?,
                "namespace" => fields.namespace = self.text()?,
                "resourceVersion" => fields.version = self.text()?,
                "continue" => fields.continue_token = self.text()?,
                "creationTimestamp" => {
                    fields.created = self.text()?.parse::<Timestamp>().ok().map(Timestamp::as_second);
                }
                "annotations" => self.annotations(fields)?,
                _ => self.json.skip_value()?,
            }
        }
        Ok(self.json.end_object()?)
    }

    fn annotations(&mut self, fields: &mut Fields) -> Result<(), WireError> {
        if self.is_null()? {
            return Ok(());
        }
        self.json.begin_object()?;
        while self.json.has_next()? {
            match self.json.next_name()? {
                INITIAL_EVENTS_END => fields.initial_events_end = self.text()? == "true",
                name if self.wanted.folder_annotation.as_deref() == Some(name) => fields.folder = Some(self.text()?),
                _ => self.json.skip_value()?,
            }
        }
        Ok(self.json.end_object()?)
    }

    fn details(&mut self, status: &mut Status) -> Result<(), WireError> {
        if self.is_null()? {
            return Ok(());
        }
        self.json.begin_object()?;
        while self.json.has_next()? {
            match self.json.next_name()? {
                "retryAfterSeconds" => status.retry_after_s = self.number()?,
                _ => self.json.skip_value()?,
            }
        }
        Ok(self.json.end_object()?)
    }

    /// Reads a map of values by `read`, which gives nothing if a value cannot be decoded.
    fn values(
        &mut self,
        fields: &mut Fields,
        read: impl Fn(&mut Self) -> Result<Option<Content>, WireError>,
    ) -> Result<(), WireError> {
        if self.is_null()? {
            return Ok(());
        }
        self.json.begin_object()?;
        while self.json.has_next()? {
            let key = self.json.next_name_owned()?;
            match read(self)? {
                Some(content) => fields.entries.push(Entry { key, content }),
                None => fields.unusable = Some(format!("the value of its key {key:?} is not base64")),
            }
        }
        Ok(self.json.end_object()?)
    }

    fn plain(&mut self) -> Result<Option<Content>, WireError> {
        let mut writer = self.wanted.spool.begin(self.wanted.kind);
        if !self.is_null()? {
            copy(&mut self.json.next_string_reader()?, |bytes| writer.append(bytes))?;
        }
        Ok(Some(writer.finish()))
    }

    fn base64(&mut self) -> Result<Option<Content>, WireError> {
        let mut writer = self.wanted.spool.begin(self.wanted.kind);
        // An empty byte slice may come as `null`.
        if self.is_null()? {
            return Ok(Some(writer.finish()));
        }
        let mut text = Noting { inner: self.json.next_string_reader()?, failed: false };
        match copy(&mut DecoderReader::new(&mut text, &STANDARD), |bytes| writer.append(bytes)) {
            Ok(()) => Ok(Some(writer.finish())),
            Err(error) if text.failed => Err(error.into()),
            Err(_) => {
                // The string has to be read to its end before the JSON goes on.
                copy(&mut text, |_| ())?;
                Ok(None)
            }
        }
    }

    /// A string in whole; `null` is an empty one.
    fn text(&mut self) -> Result<String, WireError> {
        if self.is_null()? {
            return Ok(String::new());
        }
        let mut text = String::new();
        self.json.next_string_reader()?.take(TEXT_BYTES_MAX + 1).read_to_string(&mut text)?;
        if text.len() as u64 > TEXT_BYTES_MAX {
            return Err(WireError(format!("the server sent a text of more than {TEXT_BYTES_MAX} bytes")));
        }
        Ok(text)
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<Option<T>, WireError> {
        Ok(self.json.next_number::<T>()?.ok())
    }

    /// Whether the next value is `null`, which is passed over then.
    fn is_null(&mut self) -> Result<bool, WireError> {
        let null = self.json.peek()? == ValueType::Null;
        if null {
            self.json.next_null()?;
        }
        Ok(null)
    }
}

fn copy(from: &mut impl Read, mut to: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = [0; 4096];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            len => to(&buffer[..len]),
        }
    }
}

/// Tells a failure of the reader inside a decoder from one of the decoder.
struct Noting<R> {
    inner: R,
    failed: bool,
}

impl<R: Read> Read for Noting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer);
        self.failed |= read.is_err();
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::content::Body;

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
        let text =
            r#"{"type":"ADDED","object":{"metadata":{"name":"n"},"data":{"k":"%%%%not base64%%%%","l":"aGk="}}}"#;
        let unusable = applied(Kind::Secret, text).expect_err("its value is broken");
        assert!(unusable.why.contains("\"k\""), "{}", unusable.why);
    }

    #[test]
    fn large_values_are_spooled_and_hashed() {
        let text = "x<\u{1}".repeat(100_000);
        let line = serde_json::json!({"type": "ADDED", "object": {"metadata": {"name": "n"}, "data": {"k": text}}})
            .to_string();
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
        let whole =
            r#"{"kind":"ConfigMapList","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"a"}}]}"#;
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
}
