//! Reads the API server's JSON as a stream: a value goes through a small buffer into the [`Spool`], so memory stays flat
//! whatever an object holds, and what is of no use (`managedFields`, say) is passed over.

#[cfg(test)]
mod tests;

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
use crate::printable::quoted;
use crate::source::selector::{is_dns_label, is_dns_subdomain};

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

/// Reads one event of a watch, and the white space that follows it: the end of its line may come late.
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
    reader.json.consume_trailing_whitespace()?;
    match event_type.as_str() {
        "ADDED" | "MODIFIED" => fields.found(wanted.kind).map(WatchEvent::Applied),
        "DELETED" => Ok(WatchEvent::Deleted { version: fields.version.clone(), key: fields.key(wanted.kind)? }),
        // A watch from no version would begin anywhere.
        "BOOKMARK" if fields.version.is_empty() => {
            Err(WireError("the server sent a bookmark without a version".into()))
        }
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
    uid: String,
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
        // They stand in lines of the log.
        if !is_dns_subdomain(&self.name) || !(self.namespace.is_empty() || is_dns_label(&self.namespace)) {
            let (namespace, name) = (quoted(&self.namespace), quoted(&self.name));
            return Err(WireError(format!(
                "the server sent an object that cannot be: {name} in namespace {namespace}"
            )));
        }
        Ok(Arc::new(ObjectKey { kind, namespace: self.namespace, name: self.name }))
    }

    fn found(mut self, kind: Kind) -> Result<Found, WireError> {
        let version = self.version.clone();
        let (created, folder) = (self.created, self.folder.take());
        let uid = Some(std::mem::take(&mut self.uid)).filter(|uid| !uid.is_empty()).map(String::into_boxed_str);
        let (entries, unusable) = (std::mem::take(&mut self.entries), self.unusable.take());
        let key = self.key(kind)?;
        let object = match unusable {
            Some(why) => Err(Unusable { key, why }),
            None => Ok(Object { key, resource_version: Some(version.clone()), uid, created, folder, entries }),
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
                "uid" => fields.uid = self.text()?,
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
