//! A supervisor in a process of its own, and what can be seen of it.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group, test_kill_process};

use crate::default_signals::use_default_signals;
use crate::role;

const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for `what`.
pub fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(it) = found() {
            return it;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub struct Supervised {
    /// The supervisor; or what stands between the test and it, if it is asked for a namespace or a terminal.
    child: Child,
    folder: tempfile::TempDir,
    control: Option<fs::File>,
}

/// What to start and how.
pub struct Asked {
    grace_ms: u64,
    namespace: bool,
    controlled: bool,
    on_terminal: bool,
}

impl Asked {
    pub const PLAIN: Self = Self { grace_ms: 60_000, namespace: false, controlled: false, on_terminal: false };

    pub fn grace_ms(self, grace_ms: u64) -> Self {
        Self { grace_ms, ..self }
    }

    /// As process 1 of a PID namespace.
    pub fn in_namespace(self) -> Self {
        Self { namespace: true, ..self }
    }

    /// With a terminal of its own, which hears [`Supervised::type_in`].
    pub fn on_terminal(self) -> Self {
        Self { on_terminal: true, ..self }
    }

    /// Open to requests.
    pub fn controlled(self) -> Self {
        Self { controlled: true, ..self }
    }

    /// `configbump -- sh -c SCRIPT`; `$0` of the script is the file of the record.
    pub fn shell(self, script: &str) -> Supervised {
        let folder = tempfile::tempdir().expect("a folder");
        let record = folder.path().join("record");
        self.start(folder, &["sh".as_ref(), "-c".as_ref(), script.as_ref(), record.as_os_str()])
    }

    /// `configbump -- RECORDER`.
    pub fn recorder(self) -> Supervised {
        let folder = tempfile::tempdir().expect("a folder");
        let command = format!("{} {}", recorder(), folder.path().join("record").display());
        let words: Vec<_> = command.split(' ').map(OsStr::new).collect();
        let supervised = self.start(folder, &words);
        supervised.ready(1);
        supervised
    }

    pub fn command(self, command: &[&OsStr]) -> Supervised {
        self.start(tempfile::tempdir().expect("a folder"), command)
    }

    fn start(self, folder: tempfile::TempDir, command: &[&OsStr]) -> Supervised {
        let ourselves = std::env::current_exe().expect("this executable");
        let unshare = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"].map(OsStr::new);
        let mut words = if self.namespace { unshare.to_vec() } else { Vec::new() };
        words.push(ourselves.as_os_str());
        words.extend(command);
        let mut start = if self.on_terminal {
            // It takes a line for a shell; no word of it has a space or a quote.
            let mut script = Command::new("script");
            script.args(["-qefc", &format!("exec {}", words.join(OsStr::new(" ")).display()), "/dev/null"]);
            script
        } else {
            let mut start = Command::new(words[0]);
            start.args(&words[1..]);
            start
        };
        start.env(role::ROLE, role::SUPERVISOR).env(role::GRACE, self.grace_ms.to_string());
        let control = folder.path().join("control");
        if self.controlled {
            assert!(Command::new("mkfifo").arg(&control).status().expect("mkfifo").success());
            start.env(role::CONTROL, &control);
        }
        start.stdin(if self.on_terminal { Stdio::piped() } else { Stdio::null() });
        start.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        use_default_signals();
        let child = start.spawn().expect("to start");
        let control = self.controlled.then(|| fs::OpenOptions::new().write(true).open(&control).expect("its pipe"));
        Supervised { child, folder, control }
    }
}

impl Supervised {
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The supervisor's PID if it is process 1 of a namespace: seen from here.
    pub fn process_1(&self) -> Pid {
        until("unshare has forked", || children_of(self.pid()).first().copied())
    }

    pub fn send(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("to signal the supervisor");
    }

    /// As a user types.
    pub fn type_in(&mut self, keys: &str) {
        self.child.stdin.as_mut().expect("a terminal").write_all(keys.as_bytes()).expect("to type");
    }

    pub fn tell(&mut self, request: &str) {
        let control = self.control.as_mut().expect("a controlled one");
        control.write_all(format!("{request}\n").as_bytes()).expect("to ask");
    }

    pub fn ask(&mut self, request: &str) -> String {
        self.tell(request);
        let mut answer = String::new();
        // A byte at a time is what a reader that is dropped afterwards may take.
        let stdout = self.child.stdout.as_mut().expect("its output");
        BufReader::with_capacity(1, stdout).read_line(&mut answer).expect("an answer");
        answer.trim().to_owned()
    }

    pub fn record(&self) -> Vec<String> {
        let record = fs::read_to_string(self.folder.path().join("record")).unwrap_or_default();
        // A line that is being written counts when it is whole.
        record.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(str::to_owned).collect()
    }

    pub fn recorded(&self, line: &str) {
        until(&format!("{line} in {:?}", self.record()), || self.record().iter().any(|l| l == line).then_some(()));
    }

    /// The PID of the program that was the `nth` to say that it is ready.
    pub fn ready(&self, nth: usize) -> Pid {
        until("the program is ready", || {
            let record = self.record();
            let line = record.iter().filter_map(|line| line.strip_prefix("ready ")).nth(nth - 1)?;
            Pid::from_raw(line.parse().expect("a PID"))
        })
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// How it ended, by itself.
    pub fn end(&mut self) -> ExitStatus {
        until("the supervisor has ended", || self.child.try_wait().expect("its status"))
    }

    pub fn code(&mut self) -> i32 {
        let status = self.end();
        status.code().unwrap_or_else(|| panic!("killed by {:?}: {}", status.signal(), self.stderr()))
    }

    pub fn stderr(&mut self) -> String {
        let mut text = String::new();
        self.child.stderr.take().expect("once").read_to_string(&mut text).expect("its text");
        text
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // What the supervisor has started, and itself; whoever has gone meanwhile is not missed.
            for pid in descendants_of(self.pid()) {
                let _ = kill_process(pid, Signal::KILL);
            }
            let _ = kill_process_group(self.pid(), Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// How a shell starts this executable as a recorder.
pub fn recorder() -> String {
    let ourselves: PathBuf = std::env::current_exe().expect("this executable");
    format!("env {}={} {}", role::ROLE, role::RECORDER, ourselves.display())
}

pub fn exists(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}

pub fn parent_of(pid: Pid) -> Pid {
    stat(pid).expect("a process").0
}

/// (parent, state) of a process.
fn stat(pid: Pid) -> Option<(Pid, char)> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_pid())).ok()?;
    let mut words = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = words.next()?.chars().next()?;
    Some((Pid::from_raw(words.next()?.parse().ok()?)?, state))
}

fn processes() -> Vec<Pid> {
    let names = fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| Pid::from_raw(name.parse().ok()?)).collect()
}

pub fn children_of(parent: Pid) -> Vec<Pid> {
    processes().into_iter().filter(|pid| stat(*pid).is_some_and(|(its, _)| its == parent)).collect()
}

pub fn zombies_of(parent: Pid) -> Vec<Pid> {
    let dead = |pid: &Pid| stat(*pid).is_some_and(|(_, state)| state == 'Z');
    children_of(parent).into_iter().filter(dead).collect()
}

fn descendants_of(parent: Pid) -> Vec<Pid> {
    let children = children_of(parent);
    children.iter().flat_map(|child| descendants_of(*child)).chain(children.iter().copied()).collect()
}
