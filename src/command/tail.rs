//! The last lines of many.

use std::collections::VecDeque;

/// Keeps the last lines of what it is given, as many as there is room for, and counts the others.
#[derive(Clone, Debug)]
pub struct Tail {
    bytes_max: usize,
    bytes: usize,
    lines: VecDeque<String>,
    left_out: usize,
}

impl Tail {
    /// With room for so many bytes of text. The last line is kept whatever its length.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, lines: VecDeque::new(), left_out: 0 }
    }

    pub fn push(&mut self, line: &str) {
        self.bytes += line.len();
        self.lines.push_back(line.to_owned());
        while self.bytes > self.bytes_max && self.lines.len() > 1 {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
            self.left_out += 1;
        }
    }

    /// The lines that are kept, in their order.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }

    /// How many lines were before these.
    #[must_use]
    pub fn left_out(&self) -> usize {
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_kept_within_the_room_and_the_others_are_counted() {
        let mut tail = Tail::new(6);
        for (line, kept, left_out) in [
            ("ab", vec!["ab"], 0),
            ("cd", vec!["ab", "cd"], 0),
            ("ef", vec!["ab", "cd", "ef"], 0),
            ("g", vec!["cd", "ef", "g"], 1),
            ("longer than the room", vec!["longer than the room"], 4),
            ("h", vec!["h"], 5),
        ] {
            tail.push(line);
            assert_eq!(tail.lines().collect::<Vec<_>>(), kept);
            assert_eq!(tail.left_out(), left_out);
        }
    }
}
