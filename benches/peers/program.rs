//! The programs that are compared, each started as its users start it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use inotify::{Inotify, WatchMask};

use crate::harness::access::Access;
use crate::harness::object::LABELS;

/// How a line of a watch or a file begins its value: with this, a version, and this again.
pub const MARK: char = '@';

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Ours,
    Go,
    /// curl with the same request as ours: it parses nothing and writes no file. What no follower can do without.
    Floor,
}

impl Program {
    pub const ALL: [Self; 3] = [Self::Ours, Self::Go, Self::Floor];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "configbump",
            Self::Go => "configbump (Go)",
            Self::Floor => "raw watch (curl)",
        }
    }
}

/// Where they are.
pub struct Programs {
    pub ours: PathBuf,
    pub go: Option<PathBuf>,
}

impl Programs {
    /// Those that can be run, in the order of [`Program::ALL`].
    pub fn present(&self) -> impl Iterator<Item = Program> {
        Program::ALL.into_iter().filter(|program| *program != Program::Go || self.go.is_some())
    }

    /// The file of a program that is measured by its size, too.
    pub fn file(&self, program: Program) -> Option<&Path> {
        match program {
            Program::Ours => Some(&self.ours),
            Program::Go => self.go.as_deref(),
            Program::Floor => None,
        }
    }
}

/// What has been seen: when, and the file's name or the version in the line.
pub type Sightings = Receiver<(Instant, String)>;

/// A program that runs; dropping it kills it.
pub struct Running {
    child: Child,
    pub program: Program,
    pub dir: PathBuf,
    /// For a program that writes files, their names, as they are written; for the floor the versions in the lines.
    pub sightings: Sightings,
    folder: tempfile::TempDir,
}

impl Running {
    /// Follows the ConfigMaps of the selector in the namespace into a fresh directory.
    pub fn start(programs: &Programs, program: Program, access: &Access, namespace: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dir = folder.path().join("dir");
        let (sender, sightings) = channel();
        let mut command = command(programs, program, access, namespace, folder.path());
        if program != Program::Floor {
            watch_files(&dir, sender.clone());
        }
        let log = File::create(folder.path().join("log")).expect("a temporary folder takes a file");
        let is_floor = program == Program::Floor;
        command.stdin(Stdio::null()).stderr(log).stdout(if is_floor { Stdio::piped() } else { Stdio::null() });
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        if let Some(lines) = child.stdout.take() {
            std::thread::spawn(move || watch_lines(BufReader::with_capacity(1 << 16, lines), &sender));
        }
        Self { child, program, dir, sightings, folder }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a file, or a line, has this version, and gives when that was.
    pub fn saw(&self, name: &str, version: &str) -> Instant {
        loop {
            let (at, what) = self.next();
            let is_it = match self.program {
                Program::Floor => what == version,
                Program::Ours | Program::Go => {
                    // Who writes in place may have written what was there.
                    what == name && version_in(&fs::read(self.dir.join(name)).unwrap_or_default()) == Some(version)
                }
            };
            if is_it {
                return at;
            }
        }
    }

    /// Waits until so many files, or lines with a version, have been seen first.
    pub fn saw_all(&self, count: usize) -> Instant {
        let mut names = std::collections::HashSet::new();
        loop {
            let (at, what) = self.next();
            names.insert(what);
            if names.len() == count {
                return at;
            }
        }
    }

    fn next(&self) -> (Instant, String) {
        let patience = std::time::Duration::from_secs(120);
        self.sightings.recv_timeout(patience).unwrap_or_else(|_| {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            panic!("{} shows nothing more; its log ends with: {:?}", self.program.name(), log.lines().last())
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("a child can be killed");
    }
}

/// What follows the ConfigMaps of the selector in the namespace into the empty directory `dir` in this folder.
pub fn command(programs: &Programs, program: Program, access: &Access, namespace: &str, folder: &Path) -> Command {
    let beside = |name: &str, content: &str| {
        let path = folder.join(name);
        fs::write(&path, content).expect("a temporary folder takes a file");
        path
    };
    let (dir, config) = (folder.join("dir"), beside("kubeconfig", &access.kubeconfig()));
    fs::create_dir(&dir).expect("a temporary folder takes a folder");
    let Some(file) = programs.file(program) else {
        let authority = beside("ca.pem", access.authority.as_deref().expect("the servers have one"));
        let header = beside("header", &format!("Authorization: Bearer {}", access.token));
        let mut command = Command::new("curl");
        command.args(["--silent", "--no-buffer", "--fail", "--cacert"]).arg(authority);
        command.arg("--header").arg(format!("@{}", header.display())).arg(stream_url(access, namespace));
        return command;
    };
    let mut command = Command::new(file);
    command.arg("--dir").arg(&dir).args(["--labels", LABELS, "--namespace", namespace]);
    command.env("KUBECONFIG", &config);
    command
}

/// The initial list as a stream, and the watch after it.
fn stream_url(access: &Access, namespace: &str) -> String {
    format!(
        "{}/api/v1/namespaces/{namespace}/configmaps?watch=1&sendInitialEvents=true&allowWatchBookmarks=true\
         &resourceVersionMatch=NotOlderThan&labelSelector=app%3Dweb",
        access.url()
    )
}

/// The version that a value begins with.
pub fn version_in(line: &[u8]) -> Option<&str> {
    let mut parts = line.splitn(3, |byte| *byte == MARK as u8);
    parts.next();
    let version = std::str::from_utf8(parts.next()?).ok();
    parts.next().and(version)
}

fn watch_lines(mut lines: impl BufRead, sender: &Sender<(Instant, String)>) {
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
        let at = Instant::now();
        if let Some(version) = version_in(&line)
            && sender.send((at, version.to_owned())).is_err()
        {
            break;
        }
        line.clear();
    }
}

/// A file is there when something is renamed to its name, or when who wrote it in place closes it.
fn watch_files(dir: &Path, sender: Sender<(Instant, String)>) {
    let mut inotify = Inotify::init().expect("an inotify instance");
    inotify.watches().add(dir, WatchMask::MOVED_TO | WatchMask::CLOSE_WRITE | WatchMask::DELETE_SELF).expect("a watch");
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(events) = inotify.read_events_blocking(&mut buffer) {
            let at = Instant::now();
            for event in events {
                let Some(name) = event.name else { return };
                if sender.send((at, name.to_string_lossy().into_owned())).is_err() {
                    return;
                }
            }
        }
    });
}
