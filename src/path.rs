//! Paths below the directory, checked: nothing an object says can lead out of it.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;

use thiserror::Error;

/// The folder inside the directory that is configbump's own. Hidden, so that programs that read the directory pass over
/// it; no object can claim a path in it.
pub const OWN_FOLDER: &str = ".configbump";

/// `NAME_MAX` of Linux file systems, in bytes.
const COMPONENT_BYTES_MAX: usize = 255;

/// Leaves room for the directory itself below `PATH_MAX`, in bytes.
const PATH_BYTES_MAX: usize = 2048;

/// How many parts a path may have: each of them is opened by itself, and an object may have thousands of files.
const PARTS_MAX: usize = 32;

/// A path relative to the directory: components joined by `/`, none of which is empty, `.`, or begins with `..` (the API
/// server refuses such keys too, and kubelet's volumes keep their own entries under such names), and no control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Arc<str>);

/// Why a text is no [`RelPath`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathError {
    #[error("it is empty")]
    Empty,
    #[error("it is absolute")]
    Absolute,
    #[error("it has an empty part")]
    EmptyComponent,
    #[error("it has a part that is `.` or begins with `..`")]
    Dots,
    #[error("it has a control character")]
    Control,
    #[error("it has a part of more than {COMPONENT_BYTES_MAX} bytes")]
    LongComponent,
    #[error("it has more than {PARTS_MAX} parts")]
    Deep,
    #[error("it is longer than {PATH_BYTES_MAX} bytes")]
    Long,
    #[error("`{OWN_FOLDER}` is configbump's own folder")]
    Own,
}

impl RelPath {
    /// Checks a path relative to the directory.
    ///
    /// # Errors
    /// When it could lead out of the directory, into configbump's own folder, or is no path that a file can have.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.starts_with('/') {
            return Err(PathError::Absolute);
        }
        if text.len() > PATH_BYTES_MAX {
            return Err(PathError::Long);
        }
        if text.chars().any(char::is_control) {
            return Err(PathError::Control);
        }
        for (depth, component) in text.split('/').enumerate() {
            match component {
                _ if depth == PARTS_MAX => return Err(PathError::Deep),
                "" => return Err(PathError::EmptyComponent),
                "." => return Err(PathError::Dots),
                _ if component.starts_with("..") => return Err(PathError::Dots),
                _ if component.len() > COMPONENT_BYTES_MAX => return Err(PathError::LongComponent),
                _ if depth == 0 && is_own_name(component) => return Err(PathError::Own),
                _ => {}
            }
        }
        Ok(Self(text.into()))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folders from the directory down to the file, and the file's name.
    #[must_use]
    pub fn split(&self) -> (Option<&str>, &str) {
        match self.0.rsplit_once('/') {
            Some((folder, name)) => (Some(folder), name),
            None => (None, &self.0),
        }
    }

    /// Every folder above the path, the topmost first: `a/b/c` gives `a`, `a/b`.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(at, _)| &self.0[..at])
    }
}

/// Returns true if a file system can take a name for that of configbump's own directory: some ignore case, and dots and spaces at
/// the end.
pub(crate) fn is_own_name(name: &str) -> bool {
    name.trim_end_matches(['.', ' ']).eq_ignore_ascii_case(OWN_FOLDER)
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Ordered maps of paths can be searched by text, parts of paths included.
impl Borrow<str> for RelPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// What a map has for the paths below a folder.
pub(crate) fn below<'a, T>(
    paths: &'a BTreeMap<RelPath, T>,
    folder: &str,
) -> impl Iterator<Item = (&'a RelPath, &'a T)> {
    // `0` follows `/`, so this range is every path that begins with the folder and a slash.
    let (from, to) = (format!("{folder}/"), format!("{folder}0"));
    paths.range::<str, _>((Bound::Included(from.as_str()), Bound::Excluded(to.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_paths_are_accepted_as_they_are() {
        for text in ["a", "a.yaml", ".hidden", "a/b/c", "a/.configbump", "_-.x", "übung/日本", &"x".repeat(255)] {
            assert_eq!(RelPath::parse(text).map(|path| path.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn hostile_paths_are_refused_with_their_reason() {
        for (text, why) in [
            ("", PathError::Empty),
            ("/", PathError::Absolute),
            ("/etc/passwd", PathError::Absolute),
            (".", PathError::Dots),
            ("..", PathError::Dots),
            ("a/../b", PathError::Dots),
            ("a/./b", PathError::Dots),
            ("..data", PathError::Dots),
            ("a/..", PathError::Dots),
            ("a//b", PathError::EmptyComponent),
            ("a/", PathError::EmptyComponent),
            ("a\0b", PathError::Control),
            ("a\nb", PathError::Control),
            ("a\u{85}b", PathError::Control),
            (".configbump", PathError::Own),
            (".configbump/record", PathError::Own),
            (".ConfigBump/record", PathError::Own),
            (".CONFIGBUMP", PathError::Own),
            (".configbump. ./lock", PathError::Own),
            (&"x".repeat(256), PathError::LongComponent),
            (&"x/".repeat(2000), PathError::Long),
            (&format!("{}x", "x/".repeat(PARTS_MAX)), PathError::Deep),
        ] {
            assert_eq!(RelPath::parse(text), Err(why), "{text:?}");
        }
        assert!(RelPath::parse(&format!("{}x", "x/".repeat(PARTS_MAX - 1))).is_ok());
    }

    #[test]
    fn a_path_knows_its_folders() -> Result<(), PathError> {
        let path = RelPath::parse("a/b/c")?;
        assert_eq!(path.split(), (Some("a/b"), "c"));
        assert_eq!(path.ancestors().collect::<Vec<_>>(), ["a", "a/b"]);
        assert_eq!(RelPath::parse("c")?.split(), (None, "c"));
        Ok(())
    }
}
