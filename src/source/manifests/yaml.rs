//! One YAML document as kubectl reads it, which is YAML 1.1 by the rules of go-yaml v2.
//!
//! Only what can be ours becomes nodes; the parser's events of all else are passed over, as deep and as many as there are. The
//! events of anchored nodes are recorded, and an alias replays them if what it stands for is kept.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, StrInput, Tag};

use super::node::{Budget, DEPTH_MAX, Entry, Key, Node, Problem, Shape, TOO_DEEP, TOO_MUCH_ALIASED, Value, refusal};
use super::scalar::{self, Plain};

/// The deepest nesting that go-yaml reads.
const NESTING_MAX: usize = 10_000;

/// The most events that are recorded of the anchors of a document.
const RECORDED_MAX: usize = 250_000;

/// The most anchors of a document.
const ANCHORS_MAX: usize = 100_000;

const TAG: &str = "has a tag that kubectl reads in its own manner; remove the tag";
const MERGE: &str = "a merge key (<<) takes a map or a list of maps";

/// Reads a document that begins at this line of its file. An empty document is nothing.
///
/// # Errors
///
/// Fails if this is no YAML, or no single document.
pub fn read(text: &str, first_line: u64, budget: &mut Budget) -> Result<Option<Node>, Problem> {
    let options = granit_parser::options! {
        emit_comments: false,
        flow_nesting_limit: NESTING_MAX,
        block_nesting_limit: NESTING_MAX,
    };
    let parser = Parser::new_from_str_with_options(text, options);
    let mut composer = Composer { parser, first_line, budget, tape: Tape::default(), replays: Vec::new() };
    composer.document()
}

/// A step of a document.
#[derive(Clone, Debug)]
struct Step<'t> {
    line: u64,
    kind: StepKind<'t>,
}

#[derive(Clone, Debug)]
enum StepKind<'t> {
    Scalar(Cow<'t, str>, Style),
    List,
    Map,
    End,
    Alias(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Plain,
    /// In quotes or a block, or with a tag that makes it a string.
    Text,
    /// With another tag.
    Tagged,
}

/// The steps of anchored nodes.
#[derive(Debug, Default)]
struct Tape<'t> {
    steps: Vec<Step<'t>>,
    text_bytes: usize,
    /// The anchors whose nodes are not over yet, outermost first.
    open: Vec<OpenAnchor>,
    anchors: HashMap<usize, Recorded>,
    depth: usize,
    seen: usize,
}

#[derive(Debug)]
struct OpenAnchor {
    id: usize,
    depth: usize,
    start: usize,
    text_bytes: usize,
}

#[derive(Clone, Debug)]
struct Recorded {
    steps: Range<usize>,
    text_bytes: usize,
}

impl<'t> Tape<'t> {
    /// Takes a step, of a node with this anchor if that is not 0.
    fn record(&mut self, step: &Step<'t>, anchor: usize) {
        if matches!(step.kind, StepKind::End) {
            self.depth -= 1;
        }
        if anchor > 0 {
            self.seen += 1;
            let open =
                OpenAnchor { id: anchor, depth: self.depth, start: self.steps.len(), text_bytes: self.text_bytes };
            self.open.push(open);
        }
        if !self.open.is_empty() && self.steps.len() < RECORDED_MAX {
            if let StepKind::Scalar(text, _) = &step.kind {
                self.text_bytes += text.len();
            }
            self.steps.push(step.clone());
        }
        if matches!(step.kind, StepKind::List | StepKind::Map) {
            self.depth += 1;
        } else if self.open.last().is_some_and(|open| open.depth == self.depth) {
            self.close();
        }
    }

    /// Ends the innermost anchor. One that was not recorded to its end is not kept.
    fn close(&mut self) {
        let Some(OpenAnchor { id, start, text_bytes, .. }) = self.open.pop() else { return };
        if self.steps.len() < RECORDED_MAX {
            let recorded = Recorded { steps: start..self.steps.len(), text_bytes: self.text_bytes - text_bytes };
            self.anchors.insert(id, recorded);
        }
    }
}

/// Makes nodes of the events of a document.
struct Composer<'t, 'b> {
    parser: Parser<'t, StrInput<'t>>,
    first_line: u64,
    budget: &'b mut Budget,
    tape: Tape<'t>,
    /// What is left to replay of the aliases that are being followed, outermost first.
    replays: Vec<Range<usize>>,
}

impl<'t> Composer<'t, '_> {
    fn document(&mut self) -> Result<Option<Node>, Problem> {
        let Some(step) = self.event()? else { return Ok(None) };
        let line = step.line;
        let value = self.value(step, Shape::Object, 0)?;
        if let Some(Step { line, .. }) = self.event()? {
            return Err(Problem::at(line, "kubectl ignores a document behind ...; begin it with ---"));
        }
        Ok(Some(Node { line, value }).filter(|node| !matches!(node.value, Value::Null)))
    }

    /// Returns the next step that the parser sees, or nothing at the end.
    fn event(&mut self) -> Result<Option<Step<'t>>, Problem> {
        while let Some(event) = self.parser.next_event() {
            let (event, span) = event.map_err(|error| self.problem(&error))?;
            let (kind, anchor) = match event {
                Event::Scalar(text, style, anchor, tag) => {
                    (StepKind::Scalar(text, self::style(style, tag.as_deref())), anchor)
                }
                Event::SequenceStart(_, anchor, _) => (StepKind::List, anchor),
                Event::MappingStart(_, anchor, _) => (StepKind::Map, anchor),
                Event::SequenceEnd | Event::MappingEnd => (StepKind::End, 0),
                Event::Alias(anchor) => (StepKind::Alias(anchor), 0),
                _ => continue,
            };
            let step = Step { line: self.line(span.start.line()), kind };
            self.tape.record(&step, anchor);
            if self.tape.seen > ANCHORS_MAX {
                return Err(Problem::at(
                    step.line,
                    format!("there are more than {ANCHORS_MAX} anchors; split the file"),
                ));
            }
            return Ok(Some(step));
        }
        Ok(None)
    }

    /// Returns the next step of a node that is not over.
    fn step(&mut self) -> Result<Step<'t>, Problem> {
        if let Some(step) = self.replays.last_mut().and_then(Iterator::next) {
            return Ok(self.tape.steps[step].clone());
        }
        self.event()?.ok_or_else(|| Problem::whole("the document ends too early"))
    }

    fn line(&self, line: usize) -> u64 {
        self.first_line + u64::try_from(line).unwrap_or(u64::MAX).saturating_sub(1)
    }

    fn problem(&self, error: &ScanError) -> Problem {
        Problem::at(self.line(error.marker().line()), format!("this is not YAML: {}", error.kind()))
    }

    fn value(&mut self, step: Step<'t>, shape: Shape, depth: usize) -> Result<Value, Problem> {
        match step.kind {
            StepKind::Scalar(_, Style::Tagged) => Ok(Value::Refused(TAG)),
            StepKind::Scalar(text, style) => Ok(match (style, scalar::plain(&text)) {
                (Style::Plain, Plain::Null) => Value::Null,
                (Style::Plain, Plain::Boolean(_)) => Value::Plain("a boolean"),
                (Style::Plain, Plain::Number) => Value::Plain("a number"),
                _ => Value::Text(text.into_owned()),
            }),
            StepKind::List if shape.keeps_list() && depth < DEPTH_MAX => Ok(Value::List(self.list(depth)?)),
            StepKind::Map if shape.keeps_map() && depth < DEPTH_MAX => Ok(Value::Map(self.map(shape, depth)?)),
            StepKind::List => {
                self.skip()?;
                Ok(if shape.keeps_list() { Value::Refused(TOO_DEEP) } else { Value::List(Vec::new()) })
            }
            StepKind::Map => {
                self.skip()?;
                Ok(if shape.keeps_map() { Value::Refused(TOO_DEEP) } else { Value::Map(Vec::new()) })
            }
            StepKind::Alias(anchor) => self.alias(anchor, step.line, shape, depth),
            StepKind::End => Err(Problem::at(step.line, "a value is missing")),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Problem> {
        let mut items = Vec::new();
        loop {
            let step = self.step()?;
            if matches!(step.kind, StepKind::End) {
                return Ok(items);
            }
            let (line, before) = (step.line, self.budget.clone());
            if !self.budget.admits_item(&mut items, line) {
                self.pass(&step)?;
                continue;
            }
            let value = self.value(step, Shape::Object, depth + 1)?;
            let value = self.budget.prune(value, &before);
            items.push(Node { line, value });
        }
    }

    fn map(&mut self, shape: Shape, depth: usize) -> Result<Vec<Entry>, Problem> {
        let mut entries = Vec::new();
        loop {
            let step = self.step()?;
            let line = step.line;
            match &step.kind {
                StepKind::End => return Ok(entries),
                StepKind::Scalar(text, Style::Plain) if text == "<<" => {
                    let step = self.step()?;
                    self.merge(step, line, shape, depth + 1, &mut entries)?;
                    continue;
                }
                _ => {}
            }
            let key = self.key(step)?;
            let (step, field) = (self.step()?, field(shape, &key));
            if field == Shape::Skipped || !self.budget.admits_entry(&mut entries, line) {
                self.pass(&step)?;
                continue;
            }
            let value = self.value(step, field, depth + 1)?;
            entries.push(Entry { line, key, value, merged: false });
        }
    }

    fn key(&mut self, step: Step<'t>) -> Result<Key, Problem> {
        Ok(match step.kind {
            StepKind::Scalar(_, Style::Tagged) => Key::Refused(TAG),
            StepKind::Scalar(text, Style::Plain) => scalar::key(text),
            StepKind::Scalar(text, Style::Text) => Key::Text(text.into_owned()),
            StepKind::Alias(anchor) => match self.recorded(anchor, step.line)? {
                None => Key::Refused(TOO_MUCH_ALIASED),
                Some(Recorded { steps, .. }) => match self.tape.steps[steps.start].clone() {
                    head @ Step { kind: StepKind::Scalar(..), .. } => return self.key(head),
                    Step { kind: StepKind::List, .. } => Key::Other("a list, not a string"),
                    _ => Key::Other("a map, not a string"),
                },
            },
            StepKind::List => {
                self.skip()?;
                Key::Other("a list, not a string")
            }
            StepKind::Map | StepKind::End => {
                self.skip()?;
                Key::Other("a map, not a string")
            }
        })
    }

    /// Adds what a merge key brings, in the order in which go-yaml writes it: the first of several maps is the last.
    fn merge(
        &mut self,
        step: Step<'t>,
        line: u64,
        shape: Shape,
        depth: usize,
        entries: &mut Vec<Entry>,
    ) -> Result<(), Problem> {
        let is_list = matches!(step.kind, StepKind::List);
        let mut maps = Vec::new();
        if is_list {
            loop {
                let step = self.step()?;
                if matches!(step.kind, StepKind::End) {
                    break;
                }
                maps.push(self.value(step, shape, depth)?);
            }
        } else {
            maps.push(self.value(step, shape, depth)?);
        }
        for value in maps.into_iter().rev() {
            match value {
                Value::Map(merged) => {
                    entries.extend(merged.into_iter().map(|entry| Entry { line, merged: true, ..entry }));
                }
                Value::Refused(text) => entries.push(refusal(line, text)),
                _ => entries.push(refusal(line, MERGE)),
            }
        }
        Ok(())
    }

    /// Returns what an alias stands for, so far as it is kept.
    fn alias(&mut self, anchor: usize, line: u64, shape: Shape, depth: usize) -> Result<Value, Problem> {
        let Some(Recorded { steps, text_bytes }) = self.recorded(anchor, line)? else {
            return Ok(Value::Refused(TOO_MUCH_ALIASED));
        };
        let head = self.tape.steps[steps.start].clone();
        let size = match &head.kind {
            StepKind::List if !shape.keeps_list() => return Ok(Value::List(Vec::new())),
            StepKind::Map if !shape.keeps_map() => return Ok(Value::Map(Vec::new())),
            _ => steps.len() + text_bytes,
        };
        if !self.budget.take_aliased(size) {
            return Ok(Value::Refused(TOO_MUCH_ALIASED));
        }
        self.replays.push(steps.start + 1..steps.end);
        let value = self.value(head, shape, depth);
        self.replays.pop();
        value
    }

    /// Returns the recorded node of an alias, or nothing if it was too large.
    fn recorded(&self, anchor: usize, line: u64) -> Result<Option<Recorded>, Problem> {
        if self.tape.open.iter().any(|open| open.id == anchor) {
            return Err(Problem::at(line, "an alias stands within the value of its own anchor; write the value out"));
        }
        Ok(self.tape.anchors.get(&anchor).cloned())
    }

    /// Passes over a node whose first step this is.
    fn pass(&mut self, step: &Step<'t>) -> Result<(), Problem> {
        match step.kind {
            StepKind::List | StepKind::Map => self.skip(),
            StepKind::Alias(anchor) => self.recorded(anchor, step.line).map(|_| ()),
            StepKind::Scalar(..) | StepKind::End => Ok(()),
        }
    }

    /// Passes over the rest of a list or map.
    fn skip(&mut self) -> Result<(), Problem> {
        let mut depth = 1_usize;
        while depth > 0 {
            let step = self.step()?;
            match step.kind {
                StepKind::List | StepKind::Map => depth += 1,
                StepKind::End => depth -= 1,
                StepKind::Alias(anchor) => self.recorded(anchor, step.line).map(|_| ())?,
                StepKind::Scalar(..) => {}
            }
        }
        Ok(())
    }
}

/// Returns the shape of the value of a key. A key that no object can have is kept where it has to be refused.
fn field(shape: Shape, key: &Key) -> Shape {
    match key {
        Key::Text(key) => shape.field(key),
        Key::Other(_) | Key::Refused(_) => Shape::Leaf,
    }
}

fn style(style: ScalarStyle, tag: Option<&Tag>) -> Style {
    match tag {
        Some(tag) if tag.is_yaml_core_schema_tag("str") || tag.handle() == "!" => Style::Text,
        Some(_) => Style::Tagged,
        None if style == ScalarStyle::Plain => Style::Plain,
        None => Style::Text,
    }
}
