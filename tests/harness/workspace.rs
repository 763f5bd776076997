//! The temporary folder of a test, with the directory that the sidecar keeps in step.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Debug, Write as _};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// The store's own folder in DIR; what is in it is nobody else's business.
const STATE: &str = ".configbump";

/// The link to the live files of a set.
pub const DATA: &str = "..data";

pub struct Workspace {
    root: TempDir,
    files_made: Cell<usize>,
}

impl Workspace {
    /// DIR does not exist yet.
    pub fn new() -> Self {
        Self { root: tempfile::tempdir().expect("a temporary folder"), files_made: Cell::new(0) }
    }

    /// DIR.
    pub fn dir(&self) -> PathBuf {
        self.root.path().join("out")
    }

    /// A path below DIR.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir().join(relative)
    }

    /// A path beside DIR.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A path beside DIR that was not given out before.
    pub fn fresh(&self, name: &str) -> PathBuf {
        self.files_made.set(self.files_made.get() + 1);
        self.beside(&format!("{name}-{}", self.files_made.get()))
    }

    /// Writes a file below DIR as somebody else would, making its folders.
    pub fn write(&self, relative: &str, content: impl AsRef<[u8]>) {
        write(&self.path(relative), content);
    }

    /// Every file below DIR, but for the store's own and the trees of a set.
    pub fn files(&self) -> Files {
        Files::below(&self.dir())
    }

    /// The files of a set, as who follows `..data` once finds them.
    pub fn set(&self) -> Files {
        let live = self.path(DATA);
        Files::below(&fs::canonicalize(&live).unwrap_or_else(|error| panic!("{}: {error}", live.display())))
    }

    /// The trees that there are of files that go live together, in DIR and in the store's own folder.
    pub fn trees(&self) -> Vec<PathBuf> {
        let entries = [self.dir(), self.path(STATE)].map(|folder| fs::read_dir(folder).into_iter().flatten());
        let paths = entries.into_iter().flatten().map(|entry| entry.expect("an entry of a folder").path());
        paths.filter(|path| is_of_set(path) && !path.ends_with(DATA)).collect()
    }

    /// Every folder below DIR, but for the store's own.
    pub fn folders(&self) -> BTreeSet<String> {
        let mut folders = BTreeSet::new();
        walk(&self.dir(), Path::new(""), &mut |relative, path| {
            if path.is_dir() {
                folders.insert(relative.display().to_string());
            }
            Ok(())
        });
        folders
    }

    /// Everything below DIR, the store's own included, and DIR itself if it is there.
    pub fn listing(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = self.dir().exists().then(|| self.dir()).into_iter().collect();
        walk(&self.dir(), Path::new(""), &mut |_, path| {
            paths.push(path.to_owned());
            Ok(())
        });
        paths.extend(self.path(STATE).exists().then(|| self.path(STATE)));
        paths
    }

    /// The permissions of a file below DIR.
    pub fn mode(&self, relative: &str) -> u32 {
        self.metadata(relative).mode() & 0o7777
    }

    /// What changes when a file below DIR is written or replaced.
    pub fn identity(&self, relative: &str) -> (u64, i64, i64) {
        let metadata = self.metadata(relative);
        (metadata.ino(), metadata.mtime(), metadata.mtime_nsec())
    }

    fn metadata(&self, relative: &str) -> fs::Metadata {
        fs::metadata(self.path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
    }
}

/// Writes a file, making its folders.
pub fn write(path: &Path, content: impl AsRef<[u8]>) {
    let folder = path.parent().expect("a file in a folder");
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, content))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// Whether it is the link to the live files of a set, or a tree of files: no object can have a file of such a name.
fn is_of_set(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."))
}

/// Visits what is below `folder`. What vanishes meanwhile was not there.
fn walk(folder: &Path, relative: &Path, visit: &mut impl FnMut(&Path, &Path) -> io::Result<()>) {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if is_of_change(error.kind()) => return,
        Err(error) => panic!("{}: {error}", folder.display()),
    };
    for entry in entries.map(|entry| entry.expect("an entry of a folder")) {
        let (path, relative) = (entry.path(), relative.join(entry.file_name()));
        if relative == Path::new(STATE) || is_of_set(&relative) {
            continue;
        }
        match visit(&relative, &path) {
            Ok(()) => {}
            Err(error) if is_of_change(error.kind()) => continue,
            Err(error) => panic!("{}: {error}", path.display()),
        }
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&path, &relative, visit);
        }
    }
}

/// Returns true if the error says that the path was removed, or that a file and a directory replaced each other.
fn is_of_change(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory)
}

/// Files by their path below DIR.
#[derive(Default, PartialEq, Eq)]
pub struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    pub fn new<P: Into<String>, C: AsRef<[u8]>>(files: impl IntoIterator<Item = (P, C)>) -> Self {
        Self(files.into_iter().map(|(path, content)| (path.into(), content.as_ref().to_vec())).collect())
    }

    /// Reads the files below a directory, but for the store's own and the trees of a set.
    pub fn below(folder: &Path) -> Self {
        let mut files = Self::default();
        walk(folder, Path::new(""), &mut |relative, path| {
            if path.is_dir() {
                return Ok(());
            }
            // The target of a symbolic link counts as the file's content; a dangling one has none.
            files.0.insert(relative.display().to_string(), fs::read(path)?);
            Ok(())
        });
        files
    }

    pub fn into_map(self) -> BTreeMap<String, Vec<u8>> {
        self.0
    }

    pub fn contents(&self) -> impl Iterator<Item = &[u8]> {
        self.0.values().map(Vec::as_slice)
    }

    pub fn paths(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

/// Long contents are cut.
impl Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_BYTES_MAX: usize = 60;
        let mut shown = String::new();
        for (path, content) in &self.0 {
            let head = String::from_utf8_lossy(&content[..content.len().min(SHOWN_BYTES_MAX)]).into_owned();
            write!(shown, "\n    {path} ({} bytes): {head:?}", content.len())?;
        }
        f.write_str(if shown.is_empty() { "no file" } else { &shown })
    }
}
