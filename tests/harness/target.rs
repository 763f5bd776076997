//! A target of signals that notes each HUP, with what it finds then.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::processes::Processes;
use super::program::Program;
use super::workspace::Workspace;

/// The log is made when the handler is there. The `sleep` bounds the life of a target that nobody ends.
const SCRIPT: &str = r#"
    dir=$1 log=$2 note=$3
    trap 'echo "$(eval "$note")" >>"$log"' HUP
    : >"$log"
    sleep 600 &
    while kill -0 $! 2>/dev/null; do wait $!; done
"#;

/// Notes the content of DIR.
const CONTENT: &str = r#"cat "$dir"/*"#;

pub struct Target {
    program: Program,
    log: PathBuf,
}

impl Target {
    /// One that notes the content of DIR.
    pub async fn start(workspace: &Workspace) -> Self {
        Self::noting(workspace, CONTENT).await
    }

    /// One that notes, as a line, what this piece of shell prints; `$dir` in it is DIR.
    pub async fn noting(workspace: &Workspace, note: &str) -> Self {
        let log = workspace.fresh("bumps");
        Self::ready(Program::start(workspace, "sh", Self::args(workspace, &log, note)), log).await
    }

    /// One that is the first process of a container.
    pub async fn entering(processes: &Processes, workspace: &Workspace) -> Self {
        let log = workspace.fresh("bumps");
        Self::ready(processes.enter(workspace, "sh", Self::args(workspace, &log, CONTENT)), log).await
    }

    /// One whose parent is the first process of a container.
    pub async fn below(processes: &Processes, workspace: &Workspace) -> Self {
        let (log, parent) = (workspace.fresh("bumps"), workspace.fresh("parent"));
        let args = Self::args(workspace, &log, CONTENT).map(|arg| format!("'{}'", arg.display()));
        fs::write(&parent, format!("sh {} & wait", args.join(" "))).expect("a file");
        Self::ready(processes.enter(workspace, "sh", [parent]), log).await
    }

    /// What a shell is given to be a target that notes in this file.
    pub fn args(workspace: &Workspace, log: &Path, note: &str) -> [OsString; 4] {
        let script = Self::name(workspace);
        fs::write(&script, SCRIPT).expect("a file");
        [script.into(), workspace.dir().into(), log.into(), note.into()]
    }

    async fn ready(program: Program, log: PathBuf) -> Self {
        program
            .until("a target with a handler", async || {
                log.exists().then_some(()).ok_or_else(|| "it has none yet".to_owned())
            })
            .await;
        Self { program, log }
    }

    /// What is in the command line of the targets in this workspace, and of no others.
    pub fn name(workspace: &Workspace) -> String {
        workspace.beside("target").display().to_string()
    }

    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// What it noted, a line a bump.
    pub fn bumps(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.log).expect("the target's log");
        log.lines().map(str::to_owned).collect()
    }

    /// Waits until it has noted this line so often, and nothing else.
    pub async fn noted_times(&self, line: &str, count: usize) {
        self.program
            .until(&format!("{count} bumps that see {line:?}"), async || {
                let bumps = self.bumps();
                if bumps == vec![line; count] { Ok(()) } else { Err(format!("{bumps:?}")) }
            })
            .await;
    }

    /// Waits until it has noted exactly this.
    pub async fn noted<const N: usize>(&self, wanted: [&str; N]) {
        self.program
            .until(&format!("bumps that see {wanted:?}"), async || {
                let bumps = self.bumps();
                if bumps == wanted { Ok(()) } else { Err(format!("{bumps:?}")) }
            })
            .await;
    }
}
