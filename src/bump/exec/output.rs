//! What a command writes, on its way into the log.

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::bump::printable::printable;

/// How many lines of one stream of one run are logged…
const LINES_MAX: usize = 100;
/// …and how many bytes of each.
const LINE_BYTES_MAX: usize = 1000;

/// How many bytes are read at a time.
const READ_BYTES: usize = 4096;

/// One stream of a run.
pub(super) struct Output<'a> {
    command: &'a str,
    stream: &'static str,
    lines: Lines,
}

impl<'a> Output<'a> {
    pub fn new(command: &'a str, stream: &'static str) -> Self {
        Self { command, stream, lines: Lines::default() }
    }

    /// Logs line by line what comes, until nobody can write any more.
    pub async fn relay(&mut self, pipe: Option<impl AsyncRead + Unpin>) {
        let Some(mut pipe) = pipe else { return };
        let mut bytes = vec![0; READ_BYTES];
        loop {
            match pipe.read(&mut bytes).await {
                Ok(0) => return,
                Ok(read) => self.lines.take(&bytes[..read]).iter().for_each(|line| self.log(line)),
                Err(error) => return self.log(&format!("(it cannot be read: {error})")),
            }
        }
    }

    /// Logs what has no end of line yet, and how much was left out.
    pub fn finish(mut self) {
        std::mem::take(&mut self.lines).finish().iter().for_each(|line| self.log(line));
    }

    fn log(&self, line: &str) {
        tracing::info!("{} {}: {line}", self.command, self.stream);
    }
}

/// Cuts a stream of bytes into printable lines, of bounded length and number. Blank ones are passed over.
#[derive(Default)]
struct Lines {
    /// The beginning of the present line.
    line: Vec<u8>,
    /// How many bytes of the present line did not fit.
    over: usize,
    given: usize,
    left_out: usize,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let fits = text.len().min(LINE_BYTES_MAX - self.line.len());
            self.line.extend_from_slice(&text[..fits]);
            self.over += text.len() - fits;
            if is_whole {
                lines.extend(self.end_line());
            }
        }
        lines
    }

    fn finish(mut self) -> Vec<String> {
        let mut lines: Vec<String> = self.end_line().into_iter().collect();
        if self.left_out > 0 {
            lines.push(format!("({} more lines are left out)", self.left_out));
        }
        lines
    }

    fn end_line(&mut self) -> Option<String> {
        let over = std::mem::take(&mut self.over);
        let line = std::mem::take(&mut self.line);
        if over == 0 && line.trim_ascii().is_empty() {
            return None;
        }
        if self.given == LINES_MAX {
            self.left_out += 1;
            return None;
        }
        self.given += 1;
        let mut text = printable(&String::from_utf8_lossy(&line), LINE_BYTES_MAX);
        if over > 0 {
            text.push_str(&format!("… ({over} more bytes)"));
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let mut lines = Lines::default();
        let mut all: Vec<String> = chunks.iter().flat_map(|chunk| lines.take(chunk)).collect();
        all.extend(lines.finish());
        all
    }

    #[test]
    fn lines_are_the_same_however_they_arrive() {
        let text = "one\r\n\n  \ntwo äöü\nthe last has no end";
        let expected = ["one", "two äöü", "the last has no end"];
        assert_eq!(lines(&[text.as_bytes()]), expected);
        assert_eq!(lines(&text.as_bytes().chunks(1).collect::<Vec<_>>()), expected);
    }

    #[test]
    fn no_control_character_and_no_broken_text_gets_through() {
        assert_eq!(lines(&[b"a\x1b[31mb\xffc\x07\td\n"]), ["a [31mb\u{fffd}c  d"]);
    }

    #[test]
    fn a_long_line_is_cut_and_the_rest_is_counted() {
        let long = "x".repeat(LINE_BYTES_MAX + 17);
        let cut = format!("{}… (17 more bytes)", "x".repeat(LINE_BYTES_MAX));
        assert_eq!(lines(&[long.as_bytes(), b"\nnext"]), [cut.as_str(), "next"]);
    }

    #[test]
    fn the_lines_over_the_bound_are_counted() {
        let all = lines(&["line\n".repeat(LINES_MAX + 5).as_bytes()]);
        assert_eq!(all.len(), LINES_MAX + 1);
        assert_eq!(all.last().map(String::as_str), Some("(5 more lines are left out)"));
    }
}
