//! A target of signals that notes each HUP, with what it finds then.

use std::fs;
use std::path::{Path, PathBuf};

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

pub struct Target {
    program: Program,
    log: PathBuf,
}

impl Target {
    /// One that notes the content of DIR.
    pub async fn start(workspace: &Workspace) -> Self {
        Self::noting(workspace, r#"cat "$dir"/*"#).await
    }

    /// One that notes, as a line, what this piece of shell prints; `$dir` in it is DIR.
    pub async fn noting(workspace: &Workspace, note: &str) -> Self {
        let log = workspace.fresh("bumps");
        let (dir, name) = (workspace.dir(), Self::name(workspace));
        let args = [Path::new("-c"), Path::new(SCRIPT), Path::new(&name), &dir, &log, Path::new(note)];
        let program = Program::start(workspace, "sh", args);
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
