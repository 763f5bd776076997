//! Complete trees of files. One of them is what readers see, another what they are to see next.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::Offset;
use rustix::fs::Mode;
use rustix::io::Errno;

use crate::content::{Permissions, Spool, Spooled};
use crate::disk::{self, Place};
use crate::path::RelPath;

/// How many folders one in another are removed with a tree: more than any path of ours has.
const DEPTH_MAX: u32 = 1100;

/// The longest name: a moment, and room for what keeps it unlike another. In bytes.
const NAME_BYTES_MAX: usize = 64;

/// One tree, in a folder of its own.
#[derive(Debug)]
pub(super) struct Generation {
    name: String,
    folder: OwnedFd,
}

impl Generation {
    /// Opens a tree in the folder that trees are in; nothing if it is not there.
    pub fn open(home: BorrowedFd<'_>, name: &str) -> io::Result<Option<Self>> {
        match disk::open_folder(home, name) {
            Ok(folder) => Ok(Some(Self { name: name.to_owned(), folder })),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes an empty tree. Every user may look into it, whatever the umask, as into the volumes of a kubelet.
    pub fn make(home: BorrowedFd<'_>, name: &str, permissions: &Permissions) -> io::Result<Self> {
        if !disk::make_folder(home, name)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let folder = disk::open_folder(home, name)?;
        permissions.apply(&folder, Mode::from_raw_mode(disk::FOLDER_MODE))?;
        Ok(Self { name: name.to_owned(), folder })
    }

    /// Removes a tree, if it is there.
    pub fn remove(home: BorrowedFd<'_>, name: &str) -> io::Result<()> {
        disk::remove_tree(home, &CString::new(name)?, DEPTH_MAX).map(drop)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// The file at a path, if there is one.
    pub fn file(&self, path: &RelPath) -> io::Result<Option<File>> {
        match Place::open(self.folder(), path) {
            Ok(place) => disk::open_file(place.folder(), place.name),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes in a temporary file at a path.
    pub fn take_in(&self, path: &RelPath, file: &Spooled, spool: &Spool) -> io::Result<()> {
        let place = self.place_for(path)?;
        file.link_to(spool, place.folder(), place.name)
    }

    /// Takes in the file that another tree, or the directory, has at a path; whether there was one that may be read.
    pub fn take_over(&self, path: &RelPath, from: BorrowedFd<'_>, spool: &Spool) -> io::Result<bool> {
        let Some(source) = regular(from, path)? else { return Ok(false) };
        let place = self.place_for(path)?;
        if disk::link(source.folder(), source.name, place.folder(), place.name)? {
            return Ok(true);
        }
        match spool.link(source.folder(), source.name) {
            Ok(copy) => copy.publish(place.folder(), place.name).map(|()| true),
            // Another user keeps it to himself, or has put there what is none of ours: the source brings it anew.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::FileTooLarge) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The place of a path, in folders that are made for it.
    fn place_for<'a>(&'a self, path: &'a RelPath) -> io::Result<Place<'a>> {
        match Place::open(self.folder(), path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut above: Option<OwnedFd> = None;
                for folder in path.ancestors() {
                    let name = folder.rsplit_once('/').map_or(folder, |(_, name)| name);
                    let parent = above.as_ref().map_or(self.folder(), AsFd::as_fd);
                    disk::make_folder(parent, name)?;
                    above = Some(disk::open_folder(parent, name)?);
                }
                Place::open(self.folder(), path)
            }
            place => place,
        }
    }
}

/// The place of a regular file, if there is one at the path.
pub(super) fn regular<'a>(root: BorrowedFd<'a>, path: &'a RelPath) -> io::Result<Option<Place<'a>>> {
    let place = match Place::open(root, path) {
        Ok(place) => place,
        Err(error) if is_absence(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(disk::is_file(place.folder(), place.name)?.then_some(place))
}

/// Whether an error says that there is nothing at a path, or something else on the way to it: a folder that may not be looked into is
/// another user's, for those of configbump are open to all.
pub(super) fn is_absence(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS))
}

/// A name for a tree that is made now, in the form that kubelet's volumes have (`atomic_writer.go` of Kubernetes): the later
/// of two trees has the greater name, whatever the clock does.
pub(super) fn name_after(last: Option<&str>) -> String {
    let now = Timestamp::try_from(SystemTime::now()).unwrap_or_default();
    let at = Offset::UTC.to_datetime(now);
    let name = format!(
        "..{:04}_{:02}_{:02}_{:02}_{:02}_{:02}.{:09}",
        at.year(),
        at.month(),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.subsec_nanosecond()
    );
    match last {
        Some(last) if *last >= *name => next_name(last),
        _ => name,
    }
}

/// The name with its last number one higher.
fn next_name(name: &str) -> String {
    let counted = name.rsplit_once('.').and_then(|(moment, count)| {
        let next = count.parse::<u64>().ok()?.checked_add(1)?.to_string();
        (next.len() <= count.len()).then(|| format!("{moment}.{next:0>width$}", width = count.len()))
    });
    counted.unwrap_or_else(|| format!("{name}0"))
}

/// Whether this may be the name of a tree: no other name is ever opened as one, or removed.
pub(super) fn is_name(name: &str) -> bool {
    let digits = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'_' | b'.');
    name.len() <= NAME_BYTES_MAX
        && name
            .strip_prefix("..")
            .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()) && rest.bytes().all(digits))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_tree_has_a_greater_name_whatever_the_clock_does() {
        let mut last = "..2999_12_31_23_59_59.999999997".to_owned();
        for _ in 0..20 {
            let next = name_after(Some(&last));
            assert!(next > last && is_name(&next), "{next} after {last}");
            last = next;
        }
        assert!(name_after(None) < last);
    }

    #[test]
    fn a_name_with_the_greatest_number_has_a_next_one() {
        let last = format!("..2999_12_31_23_59_59.{}", u64::MAX);
        let next = name_after(Some(&last));
        assert!(next > last && is_name(&next), "{next} after {last}");
    }

    #[test]
    fn nothing_but_the_name_of_a_tree_is_taken_for_one() {
        assert!(is_name(&name_after(None)));
        for name in
            ["", ".", "..", "...", "..data", "../2026", "..2026/a", "..2026 ", "2026", ".2026", &"..1".repeat(40)]
        {
            assert!(!is_name(name), "{name}");
        }
    }
}
