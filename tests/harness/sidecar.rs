//! The real executable, run as its users run it.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::access::Access;
use super::cluster::ApiServer;
use super::namespace::Namespace;
use super::object::LABELS;
use super::wait::{PATIENCE, until};
use super::workspace::{Files, Workspace};

/// A command line that can be run, and run again.
#[derive(Clone)]
pub struct Launch<'w> {
    workspace: &'w Workspace,
    args: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    prelude: Option<String>,
    own_mounts: bool,
    own_processes: bool,
}

impl<'w> Launch<'w> {
    /// No option at all, and nothing in the environment but a home without a kubeconfig.
    pub fn bare(workspace: &'w Workspace) -> Self {
        let (args, environment) = (Vec::new(), Vec::new());
        Self { workspace, args, environment, prelude: None, own_mounts: false, own_processes: false }
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

    pub fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.args.extend(args.map(OsString::from));
        self
    }

    pub fn environment(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Runs this piece of shell first, in the process that becomes the sidecar.
    pub fn prelude(mut self, script: impl Into<String>) -> Self {
        self.prelude = Some(script.into());
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

    pub fn start(&self) -> Sidecar<'w> {
        let log = self.workspace.fresh("log");
        let output = || File::create_new(&log).expect("a temporary folder takes a file");
        let mut command = Command::new(if self.own_mounts { "unshare" } else { "sh" });
        if self.own_mounts {
            command.args(["--map-root-user", "--mount"]);
            if self.own_processes {
                command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
            }
            command.arg("sh");
        }
        // setpriv sees to it that the sidecar ends with the test's thread, even if that is killed.
        let prelude = self.prelude.as_deref().unwrap_or("true");
        command.args(["-ec", &format!("{prelude}\nexec setpriv --pdeathsig KILL \"$@\""), "sh"]);
        command.arg(env!("CARGO_BIN_EXE_configbump")).args(&self.args);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.workspace.beside("home")).envs(self.environment.iter().cloned());
        let stdout = self.workspace.fresh("stdout");
        command.stdin(Stdio::null()).stderr(output());
        command.stdout(File::create_new(&stdout).expect("a temporary folder takes a file"));
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; it is part of util-linux"));
        Sidecar { workspace: self.workspace, command: format!("{:?}", self.args), child: child.into(), log, stdout }
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
    pub stdout: String,
    pub stderr: String,
}

/// A running sidecar; dropping it kills it. While a test panics, that prints what there is to know.
pub struct Sidecar<'w> {
    workspace: &'w Workspace,
    command: String,
    child: RefCell<Child>,
    log: PathBuf,
    stdout: PathBuf,
}

impl Sidecar<'_> {
    /// Waits until DIR holds exactly these files.
    pub async fn holds<P: Into<String>, C: AsRef<[u8]>>(&self, files: impl IntoIterator<Item = (P, C)>) {
        let wanted = Files::new(files);
        self.until(&format!("DIR to hold {wanted:?}\n"), || {
            let files = self.workspace.files();
            if files == wanted { Ok(()) } else { Err(format!("{files:?}")) }
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

    /// Waits for a line on stderr that contains the text, and gives it.
    pub async fn says(&self, text: &str) -> String {
        self.until(&format!("a line with {text:?}"), || {
            self.lines().into_iter().find(|line| line.contains(text)).ok_or_else(|| "no such line".to_owned())
        })
        .await
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
    pub async fn until<T>(&self, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
        until(PATIENCE, what, async || {
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

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child.borrow()), signal).expect("the sidecar is running");
    }

    /// Waits for its end.
    pub async fn ended(self, patience: Duration) -> Ended {
        let status =
            until(patience, "the sidecar's end", async || self.status().ok_or_else(|| "it is running".to_owned()))
                .await;
        Ended { code: status.code(), stdout: read(&self.stdout), stderr: self.stderr() }
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
        let child = self.child.get_mut();
        child.kill().and_then(|()| child.wait()).expect("a child can be killed");
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).expect("the sidecar's output")).into_owned()
}
