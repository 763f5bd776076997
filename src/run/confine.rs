//! What configbump gives up once it has what it needs, so that a hole in it is worth little.
//!
//! Limits are inherited by whatever a limited thread starts, and a program of the user's may need what configbump does not.
//! So programs are started by a thread that there is before, and that does nothing else.

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, make_bitflags, path_beneath_rules,
};
use rustix::process::DumpableBehavior;
use tokio::runtime::Handle;

use crate::bump::process;
use crate::child;
use crate::config::{Config, Sandbox};
use crate::source::Source;
use crate::store::Store;

/// Below these are processes, the configuration of the machine, its certificates, and the libraries that a look-up of a
/// name may load.
const SYSTEM: [&str; 6] = ["/proc", "/etc", "/usr", "/lib", "/lib64", "/var/lib/ca-certificates"];

/// What may be a link out of those.
const SYSTEM_FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Where other certificates of authorities may be.
const AUTHORITIES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];

/// The newest rules that are asked for; a kernel that knows fewer keeps those.
const NEWEST: ABI = ABI::V5;

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});

const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    WriteFile | Truncate | MakeReg | MakeDir | MakeSym | RemoveFile | RemoveDir | Refer
});

/// Keeps others of the same user from the memory and the environment of this process, and both out of a core dump. What is
/// started from here is not concerned.
///
/// # Errors
///
/// If the system refuses that, on one line. Everything else works.
pub fn close_memory() -> Result<(), String> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| {
        format!(
            "cannot call prctl(PR_SET_DUMPABLE): {error}; allow it in the seccomp profile, until then others of the same user can \
             read the memory of configbump"
        )
    })
}

/// Gives up what this run does not need, but not for the programs that it starts. To be done within the runtime, before
/// there is another thread that works on what comes from outside.
pub(super) fn confine(config: &Config, source: &Source, store: &Store) {
    if (config.starts_commands() || source.starts_commands())
        && let Err(error) = child::keep_rights_for_children(Handle::current())
    {
        tracing::warn!("not confined, for the programs that it starts would be, too: {error}");
        return;
    }
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        tracing::warn!(
            "cannot call prctl(PR_SET_NO_NEW_PRIVS): {error}; allow it in the seccomp profile, until then configbump could start \
             programs with more privileges"
        );
    }
    if config.sandbox == Sandbox::Off {
        return;
    }
    // Of its own children, too, it looks at the process groups there.
    if (config.bump.signal.is_some() || config.starts_commands()) && process::is_hiding() {
        tracing::info!(
            "not confined by Landlock, for /proc is mounted with hidepid, which would hide other processes then"
        );
        return;
    }
    let reads = source.reads().map(|files| {
        let of_url = config.bump.url.iter().flat_map(|url| url.files().map(Path::to_owned));
        let of_system = SYSTEM_FILES.iter().map(PathBuf::from);
        let authorities = AUTHORITIES
            .iter()
            .filter_map(std::env::var_os)
            .flat_map(|paths| std::env::split_paths(&paths).collect::<Vec<_>>());
        let folders = files.into_iter().chain(of_url).chain(of_system).chain(authorities);
        folders.flat_map(|file| homes(&file)).chain(SYSTEM.iter().map(PathBuf::from)).collect::<BTreeSet<_>>()
    });
    match limit(store.root(), reads.as_ref()) {
        Ok(()) => tracing::debug!("confined by Landlock to writing {}, and reading {reads:?}", config.dir.display()),
        Err(error) => tracing::info!(
            "not confined by Landlock, which takes Linux 5.19: {error}; --sandbox off says that this is meant"
        ),
    }
}

/// The folders that a file is in, by its name and where a link leads now, since it may be replaced there; of a folder, itself.
/// A file in the root is only itself, lest all that there is could be read: one that takes its place cannot be.
fn homes(path: &Path) -> Vec<PathBuf> {
    let home = |path: &Path| {
        if path.is_dir() {
            return Some(path.to_owned());
        }
        let parent = path.parent()?;
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let is_root = parent.canonicalize().is_ok_and(|parent| parent == Path::new("/"));
        Some(if is_root { path } else { parent }.to_owned())
    };
    [home(path), path.canonicalize().ok().and_then(|path| home(&path))].into_iter().flatten().collect()
}

/// From here on, this thread and those that it starts write below this folder only, run no program, and read there and in
/// `reads`, or anywhere.
fn limit(dir: BorrowedFd<'_>, reads: Option<&BTreeSet<PathBuf>>) -> Result<(), RulesetError> {
    let mut handled = AccessFs::from_all(NEWEST);
    if reads.is_none() {
        handled.remove(READ);
    }
    // Without rules for renames there are none from one folder to another.
    let rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::Refer)?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(handled)?
        .create()?
        .add_rule(PathBeneath::new(dir, handled & (READ | WRITE)))?;
    let rules = match reads {
        Some(reads) => rules.add_rules(path_beneath_rules(reads, READ))?,
        None => rules,
    };
    rules.restrict_self().map(drop)
}
