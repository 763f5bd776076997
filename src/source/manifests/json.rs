//! Documents in JSON: objects that follow each other, as `jq -c` and `kubectl get -o json` write them.

use std::mem;

use struson::reader::{JsonReader as _, JsonStreamReader, ReaderError, ReaderSettings, ValueType};

use super::node::{Budget, DEPTH_MAX, Entry, Key, Node, Problem, Shape, TOO_DEEP, Value};

/// The objects of a text, one at a time.
pub struct Objects<'t, 'b> {
    json: JsonStreamReader<&'t [u8]>,
    budget: &'b mut Budget,
    /// The reader must not be asked for a further object before the first.
    has_begun: bool,
}

/// Where a reader is in its text.
#[derive(Clone, Copy, Debug)]
pub struct Position {
    pub offset_bytes: usize,
    /// From 1.
    pub line: u64,
}

impl<'t, 'b> Objects<'t, 'b> {
    pub fn new(text: &'t str, budget: &'b mut Budget) -> Self {
        let settings = ReaderSettings {
            allow_multiple_top_level: true,
            track_path: false,
            max_nesting_depth: None,
            restrict_number_values: false,
            ..ReaderSettings::default()
        };
        Self { json: JsonStreamReader::new_custom(text.as_bytes(), settings), budget, has_begun: false }
    }

    /// Returns the next object, or nothing at the end.
    pub fn next(&mut self) -> Result<Option<Node>, Problem> {
        self.object().map_err(|error| problem(&error, self.position().line))
    }

    pub fn position(&self) -> Position {
        let position = self.json.current_position(false);
        let offset_bytes = position.data_pos.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or_default();
        Position { offset_bytes, line: position.line_pos.map_or(1, |position| position.line + 1) }
    }

    fn object(&mut self) -> Result<Option<Node>, ReaderError> {
        self.budget.begin_document();
        if mem::replace(&mut self.has_begun, true) && !self.json.has_next()? {
            return Ok(None);
        }
        self.json.peek()?;
        let line = self.position().line;
        let value = self.map(Shape::Object, 0)?;
        Ok(Some(Node { line, value: Value::Map(value) }))
    }

    fn value(&mut self, shape: Shape, depth: usize) -> Result<Value, ReaderError> {
        let value = match self.json.peek()? {
            ValueType::Object if shape.keeps_map() && depth < DEPTH_MAX => {
                return Ok(Value::Map(self.map(shape, depth)?));
            }
            ValueType::Array if shape.keeps_list() && depth < DEPTH_MAX => return Ok(Value::List(self.list(depth)?)),
            ValueType::String => return Ok(Value::Text(self.json.next_string()?)),
            ValueType::Object if shape.keeps_map() => Value::Refused(TOO_DEEP),
            ValueType::Array if shape.keeps_list() => Value::Refused(TOO_DEEP),
            ValueType::Object => Value::Map(Vec::new()),
            ValueType::Array => Value::List(Vec::new()),
            ValueType::Number => Value::Plain("a number"),
            ValueType::Boolean => Value::Plain("a boolean"),
            ValueType::Null => Value::Null,
        };
        self.json.skip_value()?;
        Ok(value)
    }

    fn map(&mut self, shape: Shape, depth: usize) -> Result<Vec<Entry>, ReaderError> {
        let mut entries = Vec::new();
        self.json.begin_object()?;
        while self.json.has_next()? {
            let key = self.json.next_name_owned()?;
            let (line, field) = (self.position().line, shape.field(&key));
            if field == Shape::Skipped || !self.budget.admits_entry(&mut entries, line) {
                self.json.skip_value()?;
                continue;
            }
            let value = self.value(field, depth + 1)?;
            entries.push(Entry { line, key: Key::Text(key), value, merged: false });
        }
        self.json.end_object()?;
        Ok(entries)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, ReaderError> {
        let mut items = Vec::new();
        self.json.begin_array()?;
        while self.json.has_next()? {
            self.json.peek()?;
            let (line, before) = (self.position().line, self.budget.clone());
            if !self.budget.admits_item(&mut items, line) {
                self.json.skip_value()?;
                continue;
            }
            let value = self.value(Shape::Object, depth + 1)?;
            let value = self.budget.prune(value, &before);
            items.push(Node { line, value });
        }
        self.json.end_array()?;
        Ok(items)
    }
}

/// Returns the problem without a piece of the text, which may be of a Secret.
fn problem(error: &ReaderError, line: u64) -> Problem {
    match error {
        ReaderError::SyntaxError(error) => {
            let line = error.location.line_pos.map_or(line, |position| position.line + 1);
            Problem::at(line, format!("this is not JSON: {}", error.kind))
        }
        ReaderError::UnexpectedValueType { actual, .. } => {
            Problem::at(line, format!("this is not a JSON object: {actual}"))
        }
        _ => Problem::at(line, "this is not JSON"),
    }
}
