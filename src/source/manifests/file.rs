//! Manifest files on disk: which there are, whether they changed, and how they are opened without waiting for anybody.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

/// A larger file is refused: it is no manifest, or it would take too much memory.
pub const FILE_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[cfg(test)]
impl Identity {
    pub fn of_inode(inode: u64) -> Self {
        Self { inode, ..Self::default() }
    }
}

impl From<&Metadata> for Identity {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The identity of a file that could be read. `None`: there is no file, or it is a folder.
///
/// # Errors
///
/// Says in a few words why the file can't be a manifest: it is a link to nothing, or a device, or out of reach.
pub fn look(path: &Path) -> Result<Option<Identity>, String> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(None),
        Ok(metadata) => check(&metadata).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_symlink() => Err("this is a link to nothing".to_owned()),
            // If there is something now, it came this instant, and its event will come.
            _ => Ok(None),
        },
        Err(error) => Err(error.to_string()),
    }
}

/// Opens a regular file. Links are followed, since the files of a kubelet's volumes are links.
///
/// # Errors
///
/// Says in a few words why that can't be.
pub fn open(path: &Path) -> Result<(File, Identity), String> {
    // Without NONBLOCK a pipe that has come into the place of the file would be waited for.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file =
        File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(|error| io::Error::from(error).to_string())?);
    let identity = identify(&file)?;
    Ok((file, identity))
}

/// The identity of an open file.
///
/// # Errors
///
/// As [`look`].
pub fn identify(file: &File) -> Result<Identity, String> {
    file.metadata().map_err(|error| error.to_string()).and_then(|metadata| check(&metadata))
}

fn check(metadata: &Metadata) -> Result<Identity, String> {
    if !metadata.is_file() {
        return Err("this is no regular file; only those are read".to_owned());
    }
    if metadata.len() > FILE_BYTES_MAX {
        return Err(format!("this is larger than {} MiB; split it", FILE_BYTES_MAX / 1024 / 1024));
    }
    Ok(Identity::from(metadata))
}

/// The manifests in a folder, by name.
///
/// # Errors
///
/// Fails unless the whole folder was read.
pub fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if is_manifest(&name) {
            paths.push(folder.join(name));
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// Whether a file of this name in a folder is a manifest, by the rule of `kubectl apply -f FOLDER`, except that hidden files
/// are none.
pub fn is_manifest(name: &OsStr) -> bool {
    let hidden = name.as_bytes().starts_with(b".");
    let extension = Path::new(name).extension().and_then(OsStr::to_str);
    !hidden && matches!(extension, Some("yaml" | "yml" | "json"))
}

/// Whether somebody made this file to write it now, and not a link to one that was written before.
pub fn has_just_been_made(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 1)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_manifests_of_a_folder_are_those_of_kubectl_less_the_hidden_ones() {
        let folder = tempfile::tempdir().expect("a folder");
        let names = [
            "b.yaml", "a.yml", "c.json", "d.txt", "e.yaml~", ".f.yaml", "..data", "g.YAML", "yaml", ".json", "h.i.yaml",
        ];
        for name in names {
            fs::write(folder.path().join(name), "").expect("a file");
        }
        let listed = list(folder.path()).expect("a list");
        let listed: Vec<_> = listed.iter().filter_map(|path| path.file_name()?.to_str()).collect();
        assert_eq!(listed, ["a.yml", "b.yaml", "c.json", "h.i.yaml"]);
    }

    #[test]
    fn only_a_regular_file_is_opened_and_nothing_is_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "x").expect("a file");
        symlink("file", path("link")).expect("a link");
        symlink("nowhere", path("dangling")).expect("a link");
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), Mode::RUSR | Mode::WUSR).expect("a pipe");
        let large = File::create(path("large")).expect("a file");
        large.set_len(FILE_BYTES_MAX + 1).expect("a large file");

        assert!(matches!(look(&path("file")), Ok(Some(_))));
        assert_eq!(look(&path("file")), look(&path("link")));
        assert_eq!(look(&path("none")), Ok(None));
        assert_eq!(look(folder.path()), Ok(None));
        assert_eq!(look(&path("dangling")), Err("this is a link to nothing".to_owned()));
        for name in ["pipe", "/dev/null"] {
            assert_eq!(look(&path(name)), Err("this is no regular file; only those are read".to_owned()), "{name}");
            assert!(open(&path(name)).is_err(), "{name}");
        }
        assert_eq!(look(&path("large")), Err("this is larger than 32 MiB; split it".to_owned()));
        assert_eq!(open(&path("link")).map(|(_, identity)| Some(identity)), look(&path("file")));
    }
}
