//! The real executable, run as its users run it.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::access::Access;
use super::cluster::ApiServer;
use super::default_signals::use_default_signals;
use super::namespace::Namespace;
use super::object::LABELS;
use super::processes::Processes;
use super::terminal;
use super::usage::Usage;
use super::wait::{LONG_PATIENCE, PATIENCE, until};
use super::workspace::{Files, Workspace};

/// The values of `--publish`: files go live each by itself, or all at one moment.
pub const WAYS: [&str; 2] = ["file", "set"];

/// A command line that can be run, and run again.
#[derive(Clone)]
pub struct Launch<'w> {
    workspace: &'w Workspace,
    args: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    /// Pieces of shell.
    preludes: Vec<String>,
    own_mounts: bool,
    own_processes: bool,
    /// Who it runs as, and a piece of shell before it that does so, too.
    user: Option<(u32, String)>,
    /// What joins other processes, if it is to.
    join: Vec<OsString>,
    /// How long the machine has been up for the sidecar, in seconds beyond what is true.
    uptime_s: u64,
    on_terminal: bool,
}

impl<'w> Launch<'w> {
    /// No option at all, and nothing in the environment but a home without a kubeconfig.
    pub fn bare(workspace: &'w Workspace) -> Self {
        let (args, environment) = (Vec::new(), Vec::new());
        let (preludes, join) = (Vec::new(), Vec::new());
        let (own_mounts, own_processes, on_terminal, uptime_s, user) = (false, false, false, 0, None);
        Self { workspace, args, environment, preludes, own_mounts, own_processes, user, join, uptime_s, on_terminal }
    }

    /// `--dir`, and `--labels` that select what [`config_map`](super::object::config_map) makes.
    pub fn new(workspace: &'w Workspace) -> Self {
        Self::bare(workspace).arg("--dir").arg(workspace.dir()).args(["--labels", LABELS])
    }

    /// The same, as administrator, in the namespace.
    pub fn within(namespace: &Namespace, workspace: &'w Workspace) -> Self {
        Self::new(workspace).access(&ApiServer::shared().admin_access()).args(["--namespace", &namespace.name])
    }

    /// With a kubeconfig for this access.
    pub fn access(self, access: &Access) -> Self {
        let path = self.workspace.fresh("kubeconfig");
        fs::write(&path, access.kubeconfig()).expect("a temporary folder takes a file");
        self.arg("--kubeconfig").arg(path)
    }

    pub fn workspace(&self) -> &'w Workspace {
        self.workspace
    }

    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn args<A: Into<OsString>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub fn environment(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Runs this piece of shell first, after those that were given already, in the process that becomes the sidecar.
    pub fn prelude(mut self, script: impl Into<String>) -> Self {
        self.preludes.push(script.into());
        self
    }

    /// The same, and what it mounts is seen by the sidecar only.
    pub fn mounting(mut self, script: impl Into<String>) -> Self {
        self.own_mounts = true;
        self.prelude(script)
    }

    /// The same in a PID namespace of its own, which ends with the sidecar: there is nobody but what the script starts.
    pub fn among(mut self, script: impl Into<String>) -> Self {
        self.own_processes = true;
        self.mounting(script)
    }

    /// As this user, who may do nothing that others may not, as may this piece of shell, which runs last.
    pub fn running_as(mut self, user: u32, script: impl Into<String>) -> Self {
        self.user = Some((user, script.into()));
        self
    }

    /// What becomes the sidecar, whose words are its arguments.
    fn script(&self) -> String {
        // setpriv sees to it that the sidecar ends with the test's thread, even if that is killed.
        let become_it = r#"exec setpriv --pdeathsig KILL "$@""#;
        let preludes: String = self.preludes.iter().map(|script| format!("{script}\n")).collect();
        let Some((user, script)) = &self.user else { return preludes + become_it };
        let script = format!("{script}\n{become_it}");
        format!(
            r#"{preludes}exec unshare --map-user={user} --map-group={user} sh -ec {} sh "$@""#,
            shell_words::quote(&script)
        )
    }

    /// In a container beside others, with which it shares the processes. What the prelude mounts is seen by the sidecar
    /// only.
    pub fn inside(mut self, processes: &Processes) -> Self {
        self.join = processes.join().into();
        self
    }

    /// In a time namespace of its own, in which the machine has been up for so much longer.
    pub fn uptime(mut self, seconds: u64) -> Self {
        self.uptime_s = seconds;
        self.mounting("true")
    }

    /// With a terminal for its stderr; what is on that counts as its log.
    pub fn on_terminal(mut self) -> Self {
        self.on_terminal = true;
        self
    }

    pub fn start(&self) -> Sidecar<'w> {
        let log = self.workspace.fresh("log");
        let output = || File::create_new(&log).expect("a temporary folder takes a file");
        let stderr = if self.on_terminal { Stdio::from(terminal::open_into(&log)) } else { output().into() };
        let mut words = self.join.clone();
        if self.own_mounts {
            words.extend(["unshare", "--map-root-user", "--mount"].map(OsString::from));
            if self.own_processes {
                words.extend(["--pid", "--fork", "--kill-child", "--mount-proc"].map(OsString::from));
            }
            if self.uptime_s > 0 {
                let seconds = self.uptime_s.to_string();
                words.extend(["--time", "--boottime", &seconds, "--monotonic", &seconds].map(OsString::from));
            }
        }
        words.push("sh".into());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command.args(["-ec", &self.script(), "sh"]);
        command.arg(env!("CARGO_BIN_EXE_configbump")).args(&self.args);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.workspace.beside("home")).envs(self.environment.iter().cloned());
        let stdout = self.workspace.fresh("stdout");
        command.stdin(Stdio::null()).stderr(stderr);
        command.stdout(File::create_new(&stdout).expect("a temporary folder takes a file"));
        use_default_signals();
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; it is part of util-linux"));
        let (workspace, command, is_below) = (self.workspace, format!("{:?}", self.args), !self.join.is_empty());
        Sidecar { workspace, command, child: child.into(), is_below, log, stdout }
    }

    /// Runs it to its end.
    pub async fn run(&self) -> Ended {
        self.start().ended(PATIENCE).await
    }
}

/// What a sidecar left behind.
#[derive(Debug)]
pub struct Ended {
    /// `None`: it was killed by a signal.
    pub code: Option<i32>,
    /// Whether the kernel has written its memory down.
    pub dumped_core: bool,
    pub stdout: String,
    pub stderr: String,
}

/// A running sidecar; dropping it kills it. While a test panics, that prints what there is to know.
pub struct Sidecar<'w> {
    workspace: &'w Workspace,
    command: String,
    child: RefCell<Child>,
    /// Whether it is the child's child: what joins other processes waits for it, outside.
    is_below: bool,
    log: PathBuf,
    stdout: PathBuf,
}

impl Sidecar<'_> {
    /// Waits until DIR holds exactly these files.
    pub async fn holds<P: Into<String>, C: AsRef<[u8]>>(&self, files: impl IntoIterator<Item = (P, C)>) {
        self.holds_within(PATIENCE, &Files::new(files)).await;
    }

    /// The same, where it has failed for so long that it does not try often, or has much to do until then.
    pub async fn soon_holds<P: Into<String>, C: AsRef<[u8]>>(&self, files: impl IntoIterator<Item = (P, C)>) {
        self.holds_within(LONG_PATIENCE, &Files::new(files)).await;
    }

    /// Waits until DIR holds exactly these files.
    pub async fn holds_within(&self, patience: Duration, wanted: &Files) {
        self.until_within(patience, &format!("DIR to hold {wanted:?}\n"), || {
            let files = self.workspace.files();
            if files == *wanted { Ok(()) } else { Err(format!("{files:?}")) }
        })
        .await;
    }

    /// Waits until DIR holds no file.
    pub async fn holds_nothing(&self) {
        self.holds([] as [(&str, &str); 0]).await;
    }

    /// Whether there is a file of this path below DIR now.
    pub fn has(&self, path: &str) -> bool {
        self.workspace.path(path).is_file()
    }

    /// A path as the sidecar sees it, among its own mounts.
    pub fn sees(&self, path: &Path) -> PathBuf {
        let mut seen = PathBuf::from(format!("/proc/{}/root", self.child.borrow().id()));
        seen.push(path.strip_prefix("/").unwrap_or(path));
        seen
    }

    /// Waits until the first sync is on disk.
    pub async fn in_sync(&self) {
        self.says("in sync").await;
    }

    /// The same, where there is much to do until then.
    pub async fn soon_in_sync(&self) {
        self.soon("a first sync", || self.first_line_with("in sync")).await;
    }

    /// Waits for a line on stderr that contains the text, and gives it.
    pub async fn says(&self, text: &str) -> String {
        self.until(&format!("a line with {text:?}"), || self.first_line_with(text)).await
    }

    /// The same, where it has failed for so long that it does not try often.
    pub async fn soon_says(&self, text: &str) -> String {
        self.soon(&format!("a line with {text:?}"), || self.first_line_with(text)).await
    }

    fn first_line_with(&self, text: &str) -> Result<String, String> {
        self.lines().into_iter().find(|line| line.contains(text)).ok_or_else(|| "no such line".to_owned())
    }

    /// Waits until exactly so many lines on stderr contain the text.
    pub async fn says_times(&self, text: &str, count: usize) {
        self.until(&format!("{count} lines with {text:?}"), || match self.lines_with(&[text]) {
            lines if lines.len() == count => Ok(()),
            lines => Err(format!("{lines:?}")),
        })
        .await;
    }

    /// The lines on stderr that contain every one of the texts.
    pub fn lines_with(&self, texts: &[&str]) -> Vec<String> {
        let lines = self.lines().into_iter();
        lines.filter(|line| texts.iter().all(|&text| line.contains(text))).collect()
    }

    fn lines(&self) -> Vec<String> {
        self.stderr().lines().map(str::to_owned).collect()
    }

    /// Waits until `look` is content, or the sidecar ends.
    pub async fn until<T>(&self, what: &str, look: impl FnMut() -> Result<T, String>) -> T {
        self.until_within(PATIENCE, what, look).await
    }

    /// The same, where it has failed for so long that it does not try often.
    pub async fn soon<T>(&self, what: &str, look: impl FnMut() -> Result<T, String>) -> T {
        self.until_within(LONG_PATIENCE, what, look).await
    }

    async fn until_within<T>(&self, patience: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
        until(patience, what, async || {
            let alive = self.status().is_none();
            let found = look();
            assert!(alive || found.is_ok(), "the sidecar ended before {what}");
            found
        })
        .await
    }

    pub fn pid(&self) -> u32 {
        self.child.borrow().id()
    }

    /// The TCP ports that it listens on: those of `/proc/PID/net` whose sockets it holds (`proc_net(5)`).
    pub fn ports(&self) -> Vec<u16> {
        let process = PathBuf::from(format!("/proc/{}", self.pid()));
        let held: Vec<_> = fs::read_dir(process.join("fd"))
            .expect("its files")
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .map(|target| target.display().to_string())
            .collect();
        let mut ports = Vec::new();
        for table in ["net/tcp", "net/tcp6"] {
            let lines = fs::read_to_string(process.join(table)).unwrap_or_default();
            for line in lines.lines().skip(1) {
                let fields: Vec<_> = line.split_whitespace().collect();
                // 0A is LISTEN.
                if fields[3] == "0A" && held.contains(&format!("socket:[{}]", fields[9])) {
                    let port = fields[1].rsplit_once(':').and_then(|(_, port)| u16::from_str_radix(port, 16).ok());
                    ports.push(port.expect("a port"));
                }
            }
        }
        ports
    }

    /// Calls `look` on a thread in the sidecar's network namespace.
    pub fn in_its_network<T: Send>(&self, look: impl FnOnce() -> T + Send) -> T {
        let network = File::open(format!("/proc/{}/ns/net", self.process())).expect("a running process");
        let enter = || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(network.as_fd(), kind).expect("root may enter a network namespace");
            look()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().expect("the thread does not panic"))
    }

    /// Sends a signal, by its name or number, to the first process of its own PID namespace.
    pub fn signal_process_1(&self, signal: &str) {
        let unshare = self.pid();
        let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).expect("its children");
        let kill = Command::new("kill").args(["-s", signal, children.trim()]).status();
        assert!(kill.expect("kill").success(), "{signal} to {children}");
    }

    /// The process that is configbump, as seen from here.
    pub fn process(&self) -> u32 {
        self.below().map_or(self.pid(), |pid| pid.as_raw_pid().unsigned_abs())
    }

    /// What the kernel says of a property of it (`proc_pid_status(5)`).
    pub fn status_of(&self, property: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process())).expect("a running process");
        let value = status.lines().find_map(|line| line.strip_prefix(property)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {property} in {status}")).trim().to_owned()
    }

    /// What it takes of the machine now.
    pub fn usage(&self) -> Usage {
        Usage::of(self.pid())
    }

    pub fn signal(&self, signal: Signal) {
        let process = self.below().unwrap_or(Pid::from_child(&self.child.borrow()));
        kill_process(process, signal).expect("the sidecar is running");
    }

    /// The sidecar itself if it is the child's child, and runs.
    fn below(&self) -> Option<Pid> {
        let children = format!("/proc/{0}/task/{0}/children", self.pid());
        let children = self.is_below.then(|| fs::read_to_string(children).unwrap_or_default())?;
        children.split_ascii_whitespace().next().and_then(|pid| Pid::from_raw(pid.parse().ok()?))
    }

    /// Waits for its end.
    pub async fn ended(self, patience: Duration) -> Ended {
        let status =
            until(patience, "the sidecar's end", async || self.status().ok_or_else(|| "it is running".to_owned()))
                .await;
        let dumped_core = status.core_dumped();
        Ended { code: status.code(), dumped_core, stdout: read(&self.stdout), stderr: self.stderr() }
    }

    /// Ends it as kubelet does.
    pub async fn terminate(self) {
        self.signal(Signal::TERM);
        let ended = self.ended(PATIENCE).await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }

    /// Ends it as a power cut does.
    pub fn kill(self) {
        drop(self);
    }

    fn status(&self) -> Option<ExitStatus> {
        self.child.borrow_mut().try_wait().expect("a child can be waited for")
    }

    fn stderr(&self) -> String {
        read(&self.log)
    }
}

impl Drop for Sidecar<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (files, folders) = (self.workspace.files(), self.workspace.folders());
            eprintln!("configbump {}\nexit status: {:?}", self.command, self.status());
            eprintln!("files: {files:?}\nfolders: {folders:?}\nlog:\n{}", self.stderr());
        }
        let below = self.below();
        let child = self.child.get_mut();
        // What waits for it ends with it, so that it has ended then.
        let killed = below.map_or_else(|| child.kill(), |pid| kill_process(pid, Signal::KILL).map_err(Into::into));
        killed.and_then(|()| child.wait()).expect("a child can be killed");
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).expect("the sidecar's output")).into_owned()
}
