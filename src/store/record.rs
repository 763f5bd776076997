//! What configbump wrote below the directory, remembered across restarts: which file is whose, and which folders it made.
//!
//! A log of lines, each a JSON object: a line is added before the file or folder that it announces exists and after the
//! one that it cancels is gone. So whatever the moment of a kill, nothing that configbump made is missing from the record. A
//! change of a file that is recorded already writes nothing here. When the log is much longer than what it says, it is
//! written anew beside itself and renamed over.
//!
//! The first line names the version of the format; a log without one is of version 1. A reader ignores lines and fields that
//! it does not know, and drops them when it writes the log anew. So a newer version may add lines and fields, and an older one
//! still knows every file, and the newer one again after that. What a known line means never changes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::generation;
use crate::content::Spool;
use crate::disk;
use crate::object::{Kind, ObjectKey};
use crate::path::RelPath;

pub(super) const NAME: &str = "record";

/// Only configbump reads it.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A log larger than this, in bytes, was not written by configbump. What is beyond is not read.
const BYTES_MAX: u64 = 64 << 20;

/// Nor was a line larger than this, in bytes: a path of 2 KiB and two names are less, however they are written.
const LINE_BYTES_MAX: u64 = 32 << 10;

/// Version of the format that is written.
const FORMAT: u32 = 1;

/// The log is written anew when it has this many lines more than twice what it says.
const SLACK_LINES: usize = 1000;

/// A line of the log. The names are the format.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line<'a> {
    /// Version of the format that the following lines have.
    Format { version: u32 },
    Own {
        #[serde(borrow)]
        path: Cow<'a, str>,
        #[serde(borrow)]
        kind: Cow<'a, str>,
        #[serde(borrow)]
        namespace: Cow<'a, str>,
        #[serde(borrow)]
        name: Cow<'a, str>,
    },
    Disown {
        #[serde(borrow)]
        path: Cow<'a, str>,
    },
    Made {
        #[serde(borrow)]
        folder: Cow<'a, str>,
    },
    Unmade {
        #[serde(borrow)]
        folder: Cow<'a, str>,
    },
    /// A tree of files is about to be made.
    Generation {
        #[serde(borrow)]
        generation: Cow<'a, str>,
    },
    /// The files of this tree are the files of the directory from here on, though not all may have been put there yet.
    Live {
        #[serde(borrow)]
        generation: Cow<'a, str>,
    },
    /// All of them have been.
    Shown,
    /// A tree is gone.
    Retired {
        #[serde(borrow)]
        generation: Cow<'a, str>,
    },
    /// A file is about to change that nobody has been told of.
    Untold,
    /// Everybody has been told of everything before: the tree that is live, if it is shown, is one to go back to.
    Told,
}

impl<'a> Line<'a> {
    fn own(path: &'a RelPath, owner: &'a ObjectKey) -> Self {
        let ObjectKey { kind, namespace, name } = owner;
        Self::Own {
            path: path.as_str().into(),
            kind: kind.name().into(),
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

/// What the log says.
#[derive(Debug, Default)]
struct Known {
    /// Newest version of the format that the log names.
    format: u32,
    owned: BTreeMap<RelPath, Arc<ObjectKey>>,
    made: BTreeSet<String>,
    generations: BTreeSet<String>,
    live: Option<String>,
    /// Whether all of that one's files are in their places.
    shown: bool,
    untold: bool,
    /// The one that was live, as a whole, when everybody had been told last.
    good: Option<String>,
    /// For whom each file was then that has another owner now, or had meanwhile; `None`: it was nobody's.
    since_good: BTreeMap<RelPath, Option<Arc<ObjectKey>>>,
}

/// The record, in memory and on disk.
#[derive(Debug)]
pub(super) struct Record {
    /// Makes the temporary files in configbump's own folder, where the record is too.
    spool: Spool,
    known: Known,
    log: File,
    log_lines: usize,
    /// Whether the end of the log is in doubt, because an append to it failed.
    torn: bool,
    /// Whether anybody is to be told of changes.
    tells: bool,
}

impl Record {
    /// Reads the record in configbump's own folder. It writes nothing if that is configbump's, so that a full disk does not hinder a
    /// start.
    pub fn open(spool: Spool) -> io::Result<Self> {
        let mut known = Known::default();
        let (mut log_lines, mut unreadable, mut torn) = (0, 0_usize, false);
        if let Some(file) = disk::open_file(spool.folder(), NAME)? {
            torn = file.metadata()?.len() > BYTES_MAX;
            let mut lines = BufReader::new(file.take(BYTES_MAX));
            let mut line = Vec::new();
            while lines.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? > 0 {
                log_lines += 1;
                // A kill during an append leaves the last line half-written, of a file that does not exist yet.
                torn |= line.last() != Some(&b'\n');
                unreadable += usize::from(!known.take_in(&line) && line.last() == Some(&b'\n'));
                line.clear();
            }
        }
        if unreadable > 0 {
            let newer = if known.format > FORMAT { ", which a newer configbump wrote" } else { "" };
            tracing::warn!(
                event = "state_unreadable",
                lines = unreadable,
                format = known.format,
                "cannot read {unreadable} lines of the state file{newer}: they are ignored; files that only they name stay"
            );
        }
        let log = match disk::open_log(spool.folder(), NAME, MODE) {
            Ok(log) if disk::is_single_file(&log)? => log,
            // Somebody put something else there, or a file that has its place elsewhere.
            _ => {
                let log = known.write(&spool)?;
                tracing::warn!(
                    "the record was somebody else's, or had a name elsewhere, and is replaced; what could not be read of it is left alone"
                );
                log
            }
        };
        Ok(Self { spool, known, log, log_lines, torn, tells: false })
    }

    /// Every file that is configbump's, and the object that it was written for.
    pub fn owned(&self) -> impl Iterator<Item = (&RelPath, &Arc<ObjectKey>)> {
        self.known.owned.iter()
    }

    /// Returns the files above and below a path.
    pub fn owned_near<'a>(&'a self, path: &'a RelPath) -> impl Iterator<Item = (&'a RelPath, &'a Arc<ObjectKey>)> {
        let above = path.ancestors().filter_map(|above| self.known.owned.get_key_value(above));
        above.chain(crate::path::below(&self.known.owned, path.as_str()))
    }

    pub fn count_owned(&self) -> usize {
        self.known.owned.len()
    }

    pub fn owns(&self, path: &str) -> bool {
        self.known.owned.contains_key(path)
    }

    /// The object that the file was written for.
    pub fn owner(&self, path: &RelPath) -> Option<&Arc<ObjectKey>> {
        self.known.owned.get(path)
    }

    /// Notes that the file is about to be written for this object.
    pub fn own(&mut self, path: &RelPath, owner: &Arc<ObjectKey>) -> io::Result<()> {
        if self.known.owned.get(path) == Some(owner) {
            return Ok(());
        }
        self.append(&Line::own(path, owner))?;
        self.known.own(path.clone(), Arc::clone(owner));
        Ok(())
    }

    /// Notes that the file is gone, or somebody else's now.
    pub fn disown(&mut self, path: &RelPath) -> io::Result<()> {
        if !self.owns(path.as_str()) {
            return Ok(());
        }
        // Without the line it is gone all the same, and from the log when that is written anew, which is next then.
        let noted = self.append(&Line::Disown { path: path.as_str().into() });
        self.known.disown(path.as_str());
        noted
    }

    /// Notes that the folder is about to be made.
    pub fn made(&mut self, folder: &str) -> io::Result<()> {
        if !self.known.made.contains(folder) {
            self.append(&Line::Made { folder: folder.into() })?;
            self.known.made.insert(folder.to_owned());
        }
        Ok(())
    }

    /// Every folder that configbump made and has not removed, one in another after it.
    pub fn folders(&self) -> impl Iterator<Item = &str> {
        self.known.made.iter().map(String::as_str)
    }

    pub fn has_made(&self, folder: &str) -> bool {
        self.known.made.contains(folder)
    }

    /// Notes that the folder is gone, or was there already.
    pub fn unmade(&mut self, folder: &str) -> io::Result<()> {
        if self.known.made.contains(folder) {
            self.append(&Line::Unmade { folder: folder.into() })?;
            self.known.made.remove(folder);
        }
        Ok(())
    }

    /// Every tree that configbump made and has not removed, the oldest first.
    pub fn generations(&self) -> impl Iterator<Item = &str> {
        self.known.generations.iter().map(String::as_str)
    }

    /// Notes that the tree is about to be made.
    pub fn generation(&mut self, name: &str) -> io::Result<()> {
        self.append(&Line::Generation { generation: name.into() })?;
        self.known.generations.insert(name.to_owned());
        Ok(())
    }

    /// The tree whose files were noted last to be those of the directory, if it has not been removed.
    pub fn live(&self) -> Option<&str> {
        self.known.live.as_deref()
    }

    pub fn set_live(&mut self, name: &str) -> io::Result<()> {
        self.append(&Line::Live { generation: name.into() })?;
        (self.known.live, self.known.shown) = (Some(name.to_owned()), false);
        Ok(())
    }

    /// Whether every file of this tree was put in its place.
    pub fn is_shown(&self, name: &str) -> bool {
        self.live() == Some(name) && self.known.shown
    }

    pub fn shown(&mut self) -> io::Result<()> {
        if !self.known.shown {
            self.append(&Line::Shown)?;
            self.known.shown = true;
        }
        Ok(())
    }

    /// Notes that the tree is gone.
    pub fn retired(&mut self, name: &str) -> io::Result<()> {
        self.append(&Line::Retired { generation: name.into() })?;
        self.known.retire(name);
        Ok(())
    }

    /// Whether a file changed, or may have, that nobody has been told of.
    pub fn is_untold(&self) -> bool {
        self.known.untold
    }

    pub fn tell_of_changes(&mut self) {
        self.tells = true;
    }

    /// Notes that a file is about to change, if anybody is to be told of that.
    pub fn untold(&mut self) -> io::Result<()> {
        if self.tells && !self.known.untold {
            self.append(&Line::Untold)?;
            self.known.untold = true;
        }
        Ok(())
    }

    /// Notes that everybody has been told.
    pub fn told(&mut self) -> io::Result<()> {
        if self.known.untold {
            self.append(&Line::Told)?;
            self.known.told();
        }
        Ok(())
    }

    /// The tree that was live when everybody had been told last, if it has not been removed.
    pub fn good(&self) -> Option<&str> {
        self.known.good.as_deref()
    }

    /// For whom each file was in that tree whose owner has changed since; `None`: it was nobody's.
    pub fn since_good(&self) -> &BTreeMap<RelPath, Option<Arc<ObjectKey>>> {
        &self.known.since_good
    }

    /// Notes that there is nothing to tell of what is live.
    pub fn note_good(&mut self) -> io::Result<()> {
        if self.known.shown && self.known.good != self.known.live {
            self.append(&Line::Told)?;
            self.known.told();
        }
        Ok(())
    }

    /// The next line finds no room, but the one after it does.
    #[cfg(test)]
    pub fn fill_once(&mut self) {
        self.log = File::options().append(true).open("/dev/full").expect("a device that is always full");
    }

    fn append(&mut self, line: &Line<'_>) -> io::Result<()> {
        disk::crash::point()?;
        if self.torn || self.log_lines > 2 * self.known.lines() + SLACK_LINES {
            self.log = self.known.write(&self.spool)?;
            self.log_lines = self.known.lines();
        }
        let is_new = self.log_lines == 0;
        let mut lines = if is_new { encode(&Line::Format { version: FORMAT })? } else { Vec::new() };
        lines.extend(encode(line)?);
        self.torn = true;
        self.log.write_all(&lines)?;
        self.torn = false;
        self.log_lines += 1 + usize::from(is_new);
        Ok(())
    }
}

impl Known {
    fn lines(&self) -> usize {
        let flags = usize::from(self.live.is_some()) + usize::from(self.shown) + usize::from(self.untold);
        let good = if self.good.is_some() { 3 + 2 * self.since_good.len() } else { 0 };
        1 + self.owned.len() + self.made.len() + self.generations.len() + flags + good
    }

    fn own(&mut self, path: RelPath, owner: Arc<ObjectKey>) {
        let before = self.owned.insert(path.clone(), owner);
        self.has_changed_owner(path, before);
    }

    fn disown(&mut self, path: &str) {
        if let Some((path, before)) = self.owned.remove_entry(path) {
            self.has_changed_owner(path, Some(before));
        }
    }

    fn has_changed_owner(&mut self, path: RelPath, before: Option<Arc<ObjectKey>>) {
        if self.good.is_some() {
            self.since_good.entry(path).or_insert(before);
        }
    }

    fn told(&mut self) {
        self.untold = false;
        if self.shown {
            self.good = self.live.clone();
            self.since_good.clear();
        }
    }

    fn retire(&mut self, generation: &str) {
        self.generations.remove(generation);
        self.live.take_if(|live| live == generation);
        if self.good.take_if(|good| good == generation).is_some() {
            self.since_good.clear();
        }
    }

    /// Takes in one line of the log; whether it could be read. What it says is checked as if an object had said it.
    fn take_in(&mut self, line: &[u8]) -> bool {
        match serde_json::from_slice(line) {
            Ok(Line::Format { version }) => self.format = self.format.max(version),
            Ok(Line::Own { path, kind, namespace, name }) => {
                let (Ok(path), Some(kind)) = (RelPath::parse(&path), Kind::from_name(&kind)) else { return false };
                let owner = ObjectKey { kind, namespace: namespace.into_owned(), name: name.into_owned() };
                self.own(path, Arc::new(owner));
            }
            Ok(Line::Disown { path }) => self.disown(&path),
            Ok(Line::Made { folder }) => {
                if RelPath::parse(&folder).is_err() {
                    return false;
                }
                self.made.insert(folder.into_owned());
            }
            Ok(Line::Unmade { folder }) => {
                self.made.remove(&*folder);
            }
            Ok(Line::Generation { generation }) => {
                if !generation::is_name(&generation) {
                    return false;
                }
                self.generations.insert(generation.into_owned());
            }
            Ok(Line::Live { generation }) => {
                (self.live, self.shown) = (self.generations.get(&*generation).cloned(), false);
            }
            Ok(Line::Shown) => self.shown = true,
            Ok(Line::Retired { generation }) => self.retire(&generation),
            Ok(Line::Untold) => self.untold = true,
            Ok(Line::Told) => self.told(),
            Err(_) => return false,
        }
        true
    }

    /// Writes the log from what is known, and gives it back open for appending. First comes what everybody has been told of.
    fn write(&self, spool: &Spool) -> io::Result<File> {
        let (temporary, file) = spool.create(MODE)?;
        let mut out = io::BufWriter::new(file);
        out.write_all(&encode(&Line::Format { version: FORMAT })?)?;
        let same = self.owned.iter().filter(|(path, _)| !self.since_good.contains_key(*path));
        let then = self.since_good.iter().filter_map(|(path, owner)| Some((path, owner.as_ref()?)));
        for (path, owner) in same.chain(then) {
            out.write_all(&encode(&Line::own(path, owner))?)?;
        }
        for folder in &self.made {
            out.write_all(&encode(&Line::Made { folder: folder.into() })?)?;
        }
        for generation in &self.generations {
            out.write_all(&encode(&Line::Generation { generation: generation.into() })?)?;
        }
        if let Some(generation) = &self.good {
            for line in [Line::Live { generation: generation.into() }, Line::Shown, Line::Told] {
                out.write_all(&encode(&line)?)?;
            }
        }
        for path in self.since_good.keys() {
            let now = self.owned.get(path).map(|owner| Line::own(path, owner));
            out.write_all(&encode(&now.unwrap_or(Line::Disown { path: path.as_str().into() }))?)?;
        }
        if let Some(generation) = &self.live {
            out.write_all(&encode(&Line::Live { generation: generation.into() })?)?;
        }
        if self.shown {
            out.write_all(&encode(&Line::Shown)?)?;
        }
        if self.untold {
            out.write_all(&encode(&Line::Untold)?)?;
        }
        let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        rustix::fs::fcntl_setfl(&file, OFlags::APPEND)?;
        temporary.publish(spool.folder(), NAME)?;
        Ok(file)
    }
}

fn encode(line: &Line<'_>) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line)?;
    bytes.push(b'\n');
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::{Faults, faulty};

    /// As configbump writes them.
    const LINES: [&str; 5] = [
        r#"{"own":{"path":"a/b","kind":"ConfigMap","namespace":"s","name":"n"}}"#,
        r#"{"made":{"folder":"a"}}"#,
        r#"{"generation":{"generation":"..2026_01_01_00_00_00.000000001"}}"#,
        r#"{"live":{"generation":"..2026_01_01_00_00_00.000000001"}}"#,
        r#""untold""#,
    ];

    /// What was told last stays in it, beside what has changed since.
    #[test]
    fn a_log_that_is_written_anew_says_the_same() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let spool = Spool::for_tests(dir.path());
        let mut known = Known::default();
        let own = |path: &str, name: &str| {
            format!(r#"{{"own":{{"path":"{path}","kind":"ConfigMap","namespace":"s","name":"{name}"}}}}"#)
        };
        let disown = |path: &str| format!(r#"{{"disown":{{"path":"{path}"}}}}"#);
        let tree = |what: &str, number: u8| {
            format!(r#"{{"{what}":{{"generation":"..2026_01_01_00_00_00.00000000{number}"}}}}"#)
        };
        let flag = |name: &str| format!("\"{name}\"");
        let lines = [
            r#"{"format":{"version":1}}"#.to_owned(),
            own("gone", "n"),
            own("other", "n"),
            own("same", "n"),
            tree("generation", 1),
            tree("live", 1),
            flag("shown"),
            flag("told"),
            flag("untold"),
            own("new", "n"),
            own("other", "m"),
            disown("gone"),
            tree("generation", 2),
            tree("live", 2),
            flag("shown"),
        ];
        for line in &lines {
            assert!(known.take_in(line.as_bytes()), "{line}");
        }
        let changed: Vec<_> = known.since_good.iter().map(|(path, owner)| (path.as_str(), owner.is_some())).collect();
        assert_eq!(changed, [("gone", true), ("new", false), ("other", true)]);
        known.write(&spool).expect("a log");
        let again = Record::open(spool).expect("the record");
        assert_eq!(format!("{:?}", again.known), format!("{known:?}"));
        assert!(again.good().is_some_and(|name| name.ends_with('1')));
    }

    /// As a later version could write: more fields, and lines of other sorts.
    #[test]
    fn a_newer_format_loses_no_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let newer = [
            r#"{"format":{"version":9,"writer":"configbump 9.0.0"}}"#,
            r#"{"own":{"path":"a/b","kind":"ConfigMap","namespace":"s","name":"n","digest":"abc"}}"#,
            r#"{"made":{"folder":"a","mode":493}}"#,
            r#"{"compacted":{"lines":7}}"#,
            r#"["of another form"]"#,
            r#""paused""#,
        ];
        std::fs::write(dir.path().join(NAME), newer.join("\n") + "\n").expect("a record");
        let open = || Record::open(Spool::for_tests(dir.path())).expect("the record");
        let knows_all = |record: &Record| record.owns("a/b") && record.has_made("a");
        let mut record = open();
        assert!(knows_all(&record) && record.known.format == 9);
        record.made("c").expect("a line");
        assert!(knows_all(&open()) && open().has_made("c"));
        record.known.write(&record.spool).expect("a log");
        assert!(knows_all(&open()) && open().known.format == FORMAT);
    }

    #[test]
    fn a_log_without_a_format_is_read_and_new_ones_begin_with_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join(NAME);
        std::fs::write(&path, LINES.join("\n") + "\n").expect("a record");
        let record = Record::open(Spool::for_tests(dir.path())).expect("the record");
        assert!(record.owns("a/b") && record.has_made("a") && record.is_untold() && record.live().is_some());
        std::fs::remove_file(&path).expect("the record");
        let mut record = Record::open(Spool::for_tests(dir.path())).expect("a record");
        record.made("a").expect("a line");
        record.made("b").expect("a line");
        let text = std::fs::read_to_string(&path).expect("the record");
        assert_eq!(text.lines().map(|line| line.contains("format")).collect::<Vec<_>>(), [true, false, false]);
        assert!(text.starts_with(r#"{"format":{"version":1}}"#), "{text}");
    }

    #[test]
    fn what_follows_a_line_that_no_configbump_wrote_is_read_all_the_same() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let endless = "x".repeat(3 * usize::try_from(LINE_BYTES_MAX).expect("a small number") + 1);
        std::fs::write(dir.path().join(NAME), format!("{endless}\n{}\n", LINES[0])).expect("a record");
        let mut record = Record::open(Spool::for_tests(dir.path())).expect("the record");
        let owned = |record: &Record| record.owned().map(|(path, _)| path.to_string()).collect::<Vec<_>>();
        assert_eq!(owned(&record), ["a/b"]);
        // The next line does not follow such a one.
        record.made("c").expect("a line");
        let length = std::fs::metadata(dir.path().join(NAME)).expect("the record").len();
        assert!(length < LINE_BYTES_MAX, "{length}");
        let record = Record::open(Spool::for_tests(dir.path())).expect("the record");
        assert!(owned(&record) == ["a/b"] && record.has_made("c"));
    }

    #[test]
    fn fuzz_lines_with_faults_lead_to_no_path_outside_and_to_no_tree_of_others() {
        bolero::check!().with_type::<Vec<Faults>>().for_each(|lines| {
            let mut known = Known::default();
            for faults in lines {
                known.take_in(&faulty(&LINES, faults));
            }
            for path in known.owned.keys().map(RelPath::as_str).chain(known.made.iter().map(String::as_str)) {
                assert!(RelPath::parse(path).is_ok(), "{path}");
            }
            assert!(known.generations.iter().all(|name| generation::is_name(name)), "{:?}", known.generations);
            assert!(known.live.iter().chain(&known.good).all(|name| known.generations.contains(name)));
        });
    }
}
