//! Images with nothing in them but a program and what it needs, all of it from this machine: no registry is asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::workspace::{Workspace, write};

/// What an image is built from.
pub struct Image {
    /// As the manifests name it.
    pub name: String,
    pub containerfile: PathBuf,
    /// The folder with what it copies.
    pub context: PathBuf,
}

impl Image {
    /// That of `make image`, from a static executable that is no release.
    pub fn configbump(workspace: &Workspace) -> Self {
        let executable = std::env::var_os("CONFIGBUMP_STATIC").map(PathBuf::from).unwrap_or_default();
        assert!(
            executable.is_file(),
            "CONFIGBUMP_STATIC={:?} is no file: run `make test`, or set it to a static executable of configbump",
            executable.display()
        );
        let context = workspace.fresh("image");
        copy(&executable, &context.join("configbump"));
        let containerfile = Path::new(env!("CARGO_MANIFEST_DIR")).join("Containerfile");
        Self { name: concat!("configbump:", env!("CARGO_PKG_VERSION")).to_owned(), containerfile, context }
    }

    /// One with a program of this machine, its libraries and these files, all of which are the user's who runs it. `last`
    /// is the last instruction.
    pub fn of_program(
        workspace: &Workspace,
        name: &str,
        (program, user): (&str, u32),
        files: &[(&str, &str)],
        last: &str,
    ) -> Self {
        let context = workspace.fresh("image");
        let root = context.join("root");
        let inside = |path: &str| root.join(path.trim_start_matches('/'));
        let found = said("sh", &["-c", &format!("PATH=$PATH:/usr/sbin command -v {program}")]).expect(program);
        // A path each, or a name, an arrow and a path; of a static program it fails.
        let libraries = said("ldd", &[found.trim()]).unwrap_or_default();
        let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
        libraries.for_each(|path| copy(Path::new(path), &inside(path)));
        copy(Path::new(found.trim()), &inside("/usr/bin").join(program));
        files.iter().for_each(|(path, content)| write(&inside(path), content));

        let containerfile = context.join("Containerfile");
        write(
            &containerfile,
            format!("FROM scratch\nCOPY --chown={user}:{user} root /\nENV PATH=/usr/bin\nUSER {user}\n{last}\n"),
        );
        Self { name: name.to_owned(), containerfile, context }
    }
}

/// Copies a file, or what a link leads to, making folders.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().expect("a file in a folder")).expect("a folder");
    fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}

/// What a program prints, if it succeeds.
fn said(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    output.status.success().then(|| String::from_utf8(output.stdout).expect("UTF-8"))
}
