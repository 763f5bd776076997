//! Options of one run of configbump, drawn at random.

use std::fs;

use fastrand::Rng;

use super::model::{BAD, EVIL, FOLDER_ANNOTATION, Layout};
use crate::harness::sidecar::Launch;
use crate::harness::target::Target;
use crate::harness::workspace::Workspace;

/// Time for which the deletion guard holds, and the share of the files that it lets go at once.
pub const HOLD_S: u64 = 2;
pub const GUARD_SHARE: f64 = 0.5;

/// Piece of shell that prints, in one line, each file of `$dir` with its first line.
pub const VIEW: &str = r#"cd "$dir" && find . -name .configbump -prune -o -name '..*' -prune -o \( -type f -o -type l \) -print | sort |
    while read -r file; do { IFS= read -r line <"$file" && printf '%s=%s;' "${file#./}" "$line"; } 2>/dev/null; done"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prune {
    Owned,
    All,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct Mode {
    pub set: bool,
    pub check: bool,
    pub rollback: bool,
    pub guard: bool,
    pub prune: Prune,
    pub layout: Layout,
    /// A command is bumped, else a process.
    pub exec: bool,
}

impl Mode {
    pub fn random(rng: &mut Rng) -> Self {
        let one_in = |rng: &mut Rng, count: u8| rng.u8(..count) == 0;
        let rollback = one_in(rng, 3);
        Self {
            set: one_in(rng, 2),
            check: one_in(rng, 3),
            rollback,
            guard: one_in(rng, 2),
            prune: [Prune::Owned, Prune::Owned, Prune::All][rng.usize(..3)],
            layout: [Layout::Flat, Layout::Flat, Layout::Tree, Layout::Unique][rng.usize(..4)],
            exec: rollback || one_in(rng, 2),
        }
    }

    /// Deletions may be held.
    pub fn holds_deletions(self) -> bool {
        self.guard && self.prune != Prune::Never
    }

    /// Adds the options. The hook writes a line into the file `calls` for each call: its verdict and its view. The check
    /// writes the first lines that it refuses into the file `refused`.
    pub fn launch<'w>(self, base: &Launch<'w>, workspace: &'w Workspace, calls: &str) -> Launch<'w> {
        let prune = match self.prune {
            Prune::Owned => "owned",
            Prune::All => "all",
            Prune::Never => "never",
        };
        let publish = if self.set { "set" } else { "file" };
        let mut launch = base.clone().args(["--publish", publish, "--prune", prune, "--layout", self.layout.option()]);
        launch = launch.args(["--folder-annotation", FOLDER_ANNOTATION, "--listen", "127.0.0.1:0"]);
        if self.check {
            let script = format!("! grep -rh ' {BAD}$' \"$CONFIG_BUMP_CANDIDATE\" >>refused");
            launch = launch.args(["--check", &command(workspace, "check", &script)]);
        }
        if self.rollback {
            launch = launch.arg("--rollback");
        }
        if self.guard {
            let hold = format!("{HOLD_S}s");
            launch = launch.args(["--max-delete", &GUARD_SHARE.to_string(), "--max-delete-hold", &hold]);
            // Deletions may arrive in pieces.
            launch = launch.args(["--settle", "1s", "--settle-max", "20s"]);
        }
        if !self.exec {
            return launch.args(["--signal", "HUP", "--process-command", &Target::name(workspace)]);
        }
        let script = format!(
            "dir='{}'\nview=$({VIEW})\ncase $view in *' {EVIL};'*) verdict=1;; *) verdict=0;; esac\n\
             printf '%s %s\\n' $verdict \"$view\" >>'{calls}'\nexit $verdict",
            workspace.dir().display()
        );
        launch.args(["--exec", &command(workspace, calls, &script)])
    }
}

/// Writes a script that runs beside DIR. Returns the command that runs it.
fn command(workspace: &Workspace, name: &str, script: &str) -> String {
    let path = workspace.beside(&format!("{name}.sh"));
    fs::write(&path, format!("cd '{}'\n{script}\n", workspace.beside("").display())).expect("a script");
    format!("sh '{}'", path.display())
}
