//! The documents of a file, split as kubectl splits them: JSON objects that follow each other, or YAML between `---`.

#[cfg(test)]
mod tests;

use super::json::{Objects, Position};
use super::node::{Budget, Node, Problem};
use super::yaml;

const BYTE_ORDER_MARK: char = '\u{feff}';

const LINE_BREAKS_OF_YAML_1_1: [char; 3] = ['\u{85}', '\u{2028}', '\u{2029}'];

/// Reads every document of a file, and hands each to `take`. Empty documents are left out.
///
/// A text that begins with `{` is JSON. If that fails at its first or second object, the rest is YAML: a map in braces, or
/// documents behind an object. Where there were more objects it is JSON and broken.
///
/// # Errors
///
/// Fails at the first document that cannot be read, or that `take` refuses. Limits are no errors here: a part that is over
/// one says so where it is used.
pub fn read(bytes: &[u8], take: &mut impl FnMut(Node) -> Result<bool, Problem>) -> Result<(), Problem> {
    let text = text(bytes)?;
    let mut budget = Budget::new();
    if !text.trim_start().starts_with('{') {
        return documents(text, 1, &mut budget, take);
    }
    let Some((at, problem)) = objects(text, &mut budget, take)? else { return Ok(()) };
    let (rest, line) = behind_line_end(&text[at.offset_bytes..], at.line);
    let is_json = rest.trim_start().strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with('"'));
    let mut refused = false;
    let mut first = true;
    let read = documents(rest, line, &mut budget, &mut |node| {
        first = false;
        take(node).inspect_err(|_| refused = true)
    });
    read.map_err(|of_yaml| if is_json && first && !refused { problem } else { of_yaml })
}

/// The text without a byte order mark in front.
fn text(bytes: &[u8]) -> Result<&str, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = 1 + line_ends(&bytes[..error.valid_up_to()]);
        Problem::at(line, "this is not UTF-8 text; save the file as UTF-8")
    })?;
    Ok(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text))
}

fn line_ends(bytes: &[u8]) -> u64 {
    bytes.iter().map(|byte| u64::from(*byte == b'\n')).sum()
}

/// Reads JSON objects. Returns the problem of a text that can still be YAML, and where that begins.
fn objects(
    text: &str,
    budget: &mut Budget,
    take: &mut impl FnMut(Node) -> Result<bool, Problem>,
) -> Result<Option<(Position, Problem)>, Problem> {
    let mut objects = Objects::new(text, budget);
    for count in 0_u64.. {
        let position = objects.position();
        match objects.next() {
            Ok(Some(node)) => drop(take(node)?),
            Ok(None) => break,
            Err(problem) if count > 1 => return Err(problem),
            Err(problem) => return Ok(Some((position, problem))),
        }
    }
    Ok(None)
}

/// Skips white space up to the end of the line.
fn behind_line_end(text: &str, line: u64) -> (&str, u64) {
    let rest = text.trim_start_matches(|character: char| character.is_whitespace() && character != '\n');
    rest.strip_prefix('\n').map_or((rest, line), |rest| (rest, line + 1))
}

/// Reads YAML documents, of which the first begins at this line. As with kubectl, a separator in front of a document is part of
/// it only if no document ends there.
fn documents(
    text: &str,
    first_line: u64,
    budget: &mut Budget,
    take: &mut impl FnMut(Node) -> Result<bool, Problem>,
) -> Result<(), Problem> {
    let (mut begin, mut begin_line, mut end) = (0, first_line, 0);
    for (number, line) in (first_line..).zip(text.split_inclusive('\n')) {
        let start = end;
        end += line.len();
        let Some(behind) = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line).strip_prefix("---") else { continue };
        let behind = behind.trim();
        if !behind.is_empty() && !behind.starts_with('#') {
            return Err(Problem::at(number, "text stands behind the separator ---; move it to the next line"));
        }
        if begin < start {
            document(&text[begin..start], begin_line, budget, take)?;
            (begin, begin_line) = (end, number + 1);
        }
    }
    document(&text[begin..], begin_line, budget, take)
}

fn document(
    text: &str,
    line: u64,
    budget: &mut Budget,
    take: &mut impl FnMut(Node) -> Result<bool, Problem>,
) -> Result<(), Problem> {
    let before = budget.clone();
    budget.begin_document();
    let Some(node) = yaml::read(text, line, budget)? else { return Ok(()) };
    if !take(node)? {
        *budget = before;
        return Ok(());
    }
    match text.find(LINE_BREAKS_OF_YAML_1_1) {
        Some(at) => {
            let line = line + line_ends(&text.as_bytes()[..at]);
            Err(Problem::at(line, "kubectl breaks the line at U+0085, U+2028 and U+2029; escape them in double quotes"))
        }
        None => Ok(()),
    }
}
