//! Paths on a file system that ignores case: all that are one file there have one spelling, so that they are one path to the plan.

use std::collections::HashMap;

use crate::path::RelPath;

/// The most spellings for each path that is claimed, and beyond that: unclaimed ones are forgotten then.
const FOR_EACH_PATH_MAX: usize = 4;
const MORE_MAX: usize = 1000;

/// Spelling of each path and directory that came first. Its memory grows with the number of claimed paths.
#[derive(Debug, Default)]
pub(super) struct Spellings {
    by_folded: HashMap<String, String>,
}

impl Spellings {
    /// Returns the path as it was spelled first.
    pub fn first(&mut self, path: RelPath) -> RelPath {
        let mut spelled = String::with_capacity(path.as_str().len());
        for part in path.as_str().split('/') {
            if !spelled.is_empty() {
                spelled.push('/');
            }
            spelled.push_str(part);
            let folded = spelled.to_lowercase();
            spelled.clone_from(self.by_folded.entry(folded).or_insert_with(|| spelled.clone()));
        }
        RelPath::parse(&spelled).unwrap_or(path)
    }

    /// Returns the spelling of a path that has one.
    pub fn known<'a>(&'a self, path: &'a str) -> &'a str {
        self.by_folded.get(&path.to_lowercase()).map_or(path, String::as_str)
    }

    /// Forgets spellings that no claimed path has, once there are many.
    pub fn trim<'a>(&mut self, claimed: impl ExactSizeIterator<Item = &'a RelPath>) {
        if self.by_folded.len() > FOR_EACH_PATH_MAX * claimed.len() + MORE_MAX {
            self.by_folded.clear();
            claimed.for_each(|path| drop(self.first(path.clone())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::PathError;

    #[test]
    fn the_first_spelling_of_each_part_stays() -> Result<(), PathError> {
        let mut spellings = Spellings::default();
        for (path, spelled) in [
            ("Dir/Ok", "Dir/Ok"),
            ("dir/ok", "Dir/Ok"),
            ("DIR/other", "Dir/other"),
            ("ok", "ok"),
            ("É/x", "É/x"),
            ("é/X", "É/x"),
        ] {
            assert_eq!(spellings.first(RelPath::parse(path)?).as_str(), spelled);
        }
        assert_eq!((spellings.known("DIR/OK"), spellings.known("New")), ("Dir/Ok", "New"));
        Ok(())
    }

    #[test]
    fn spellings_are_bounded_by_the_claimed_paths() -> Result<(), PathError> {
        let (mut spellings, claimed) = (Spellings::default(), [RelPath::parse("Claimed/A")?]);
        for number in 0..10_000 {
            spellings.first(RelPath::parse(&format!("Key-{number}"))?);
            spellings.trim(claimed.iter());
        }
        assert!(spellings.by_folded.len() <= MORE_MAX + FOR_EACH_PATH_MAX);
        assert_eq!(spellings.first(RelPath::parse("claimed/a")?).as_str(), "Claimed/A");
        Ok(())
    }
}
