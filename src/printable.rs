//! Texts of others, made fit to stand in a line of the log or of an error.

use std::path::Path;

/// The text on one line, whatever is in it, and cut after `chars_max` characters.
pub(crate) fn printable(text: &str, chars_max: usize) -> String {
    let mut chars = text.trim().chars();
    let mut line: String =
        chars.by_ref().take(chars_max).map(|char| if char.is_control() { ' ' } else { char }).collect();
    if chars.next().is_some() {
        line.push('…');
    }
    line
}

/// A path that others have named.
pub(crate) fn path(path: &Path) -> String {
    printable(&path.to_string_lossy(), 4096)
}

/// A value the way an error shows it.
pub(crate) fn quoted(value: &str) -> String {
    format!("`{}`", printable(value, 200))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_others_is_one_bounded_line() {
        for (text, chars_max, expected) in [
            ("", 3, ""),
            (" ab\n", 3, "ab"),
            ("abc", 3, "abc"),
            ("äöüß", 3, "äöü…"),
            ("a\nb\x1b[31m\0", 10, "a b [31m"),
        ] {
            assert_eq!(printable(text, chars_max).trim_end(), expected, "{text:?}");
        }
    }
}
