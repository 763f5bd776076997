//! What a command writes, cut into lines.

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{ChildStderr, ChildStdout};

use super::Stream;
use crate::printable::printable;

/// How many bytes of a line are handed over.
const LINE_BYTES_MAX: usize = 1000;

/// How many bytes are read at a time.
const READ_BYTES: usize = 4096;

/// Both streams of a run.
pub(super) struct Output {
    stdout: Pipe<ChildStdout>,
    stderr: Pipe<ChildStderr>,
}

impl Output {
    pub fn new(stdout: Option<ChildStdout>, stderr: Option<ChildStderr>) -> Self {
        Self { stdout: Pipe::new(stdout), stderr: Pipe::new(stderr) }
    }

    /// Hands over line by line what comes, until nobody can write any more.
    pub async fn relay(&mut self, heard: &mut impl FnMut(Stream, &str)) {
        loop {
            let (stream, lines) = tokio::select! {
                Some(lines) = self.stdout.read() => (Stream::Stdout, lines),
                Some(lines) = self.stderr.read() => (Stream::Stderr, lines),
                else => return,
            };
            lines.iter().for_each(|line| heard(stream, line));
        }
    }

    /// Hands over what has no end of line yet.
    pub fn finish(mut self, heard: &mut impl FnMut(Stream, &str)) {
        self.stdout.lines.finish().iter().for_each(|line| heard(Stream::Stdout, line));
        self.stderr.lines.finish().iter().for_each(|line| heard(Stream::Stderr, line));
    }
}

/// One of them.
struct Pipe<P> {
    /// None when nobody can write any more.
    source: Option<P>,
    bytes: Vec<u8>,
    lines: Lines,
}

impl<P: AsyncRead + Unpin> Pipe<P> {
    fn new(source: Option<P>) -> Self {
        Self { source, bytes: vec![0; READ_BYTES], lines: Lines::default() }
    }

    /// The lines that end with what comes next; none at the end. Whoever gives up waiting for them loses nothing.
    async fn read(&mut self) -> Option<Vec<String>> {
        match self.source.as_mut()?.read(&mut self.bytes).await {
            Ok(0) => {
                self.source = None;
                None
            }
            Ok(read) => Some(self.lines.take(&self.bytes[..read])),
            Err(error) => {
                self.source = None;
                Some(vec![format!("(it cannot be read: {error})")])
            }
        }
    }
}

/// Cuts a stream of bytes into printable lines of bounded length. Blank ones are passed over.
#[derive(Default)]
struct Lines {
    /// The beginning of the present line.
    line: Vec<u8>,
    /// How many bytes of the present line did not fit.
    over: usize,
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
                lines.extend(self.finish());
            }
        }
        lines
    }

    /// Ends the present line.
    fn finish(&mut self) -> Option<String> {
        let over = std::mem::take(&mut self.over);
        let line = std::mem::take(&mut self.line);
        if over == 0 && line.trim_ascii().is_empty() {
            return None;
        }
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
}
