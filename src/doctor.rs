//! `configbump doctor`: whether what a run needs is there, a line each, and the least that would have to be granted.
//!
//! Nothing is changed, sent or run. Each room of the pipeline looks at its own matters; this one asks them in turn and puts what
//! they say into lines.

mod advice;

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use crate::bump::BumpError;
use crate::bump::process::Handling;
use crate::bump::signal::Signaller;
use crate::bump::url::Url;
use crate::command;
use crate::config::{Config, PublishWay, SourceConfig};
use crate::printable::quoted;
use crate::source::Source;
use crate::source::cluster::{Account, Cluster, Scoped};
use crate::store::{self, Traits};

/// Less room than this is soon used up: an object may have 1 MiB, and is there twice for a moment.
const FREE_BYTES_MIN: u64 = 16 << 20;

/// How well something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    /// A run would go on.
    Warn,
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Fail => "fail",
        })
    }
}

/// Who would run where, as far as that was found out.
#[derive(Debug, Default)]
struct Facts {
    account: Option<Account>,
    /// The user of the process that would be signalled.
    target_user: Option<u32>,
    /// Whose the directory is.
    owner: Option<u32>,
    /// What would be followed in the cluster, if there is one.
    scopes: Vec<crate::event::Scope>,
}

/// Writes a line for each finding as it is made, then what to grant. Whether nothing is wrong.
///
/// # Errors
///
/// When the lines cannot be written.
pub async fn examine(config: &Config, out: &mut impl Write) -> io::Result<bool> {
    let mut doctor = Doctor { config, out, facts: Facts::default(), failed: false };
    doctor.source().await?;
    doctor.directory()?;
    doctor.commands()?;
    doctor.target()?;
    doctor.url().await?;
    doctor.listen()?;
    let Doctor { facts, failed, .. } = doctor;
    out.write_all(advice::text(config, &facts).as_bytes())?;
    out.flush()?;
    Ok(!failed)
}

struct Doctor<'a, W> {
    config: &'a Config,
    out: &'a mut W,
    facts: Facts,
    failed: bool,
}

impl<W: Write> Doctor<'_, W> {
    fn say(&mut self, verdict: Verdict, what: &str, text: impl fmt::Display) -> io::Result<()> {
        self.failed |= verdict == Verdict::Fail;
        writeln!(self.out, "{verdict:<5} {what}: {text}")?;
        self.out.flush()
    }

    async fn source(&mut self) -> io::Result<()> {
        match Source::find(self.config).await {
            Ok(Source::Cluster(cluster)) => self.cluster(&cluster).await,
            Ok(Source::Manifests(_)) => {
                let SourceConfig::Manifests(paths) = &self.config.source else { return Ok(()) };
                let paths: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
                self.say(Verdict::Ok, "manifests", format_args!("{} can be followed", paths.join(", ")))
            }
            Err(error) => self.say(Verdict::Fail, "source", error),
        }
    }

    async fn cluster(&mut self, cluster: &Cluster) -> io::Result<()> {
        self.facts.scopes = cluster.scopes();
        let inquiry = cluster.inquiry();
        let server = inquiry.server().await;
        match inquiry.account().await {
            Ok(account) => {
                self.say(Verdict::Ok, "API server", format_args!("{server} answers, to {account}"))?;
                self.facts.account = Some(account);
            }
            Err(why) => self.say(Verdict::Warn, "API server", format_args!("{server} does not say who asks: {why}"))?,
        }
        let mut asked = 0;
        while let Some(Scoped { scope, missing, has_objects }) = inquiry.scope(asked).await {
            asked += 1;
            // Each question may take as long as a dead server is waited for.
            let others = self.facts.scopes.len() - asked;
            let is_lost = missing.is_err() && others > 0;
            let missing =
                missing.map_err(|why| if is_lost { format!("{why}; not asked about {others} others") } else { why });
            self.rights("Role", "list and watch", &scope, missing)?;
            if is_lost {
                return Ok(());
            }
            if has_objects == Some(false) {
                let text = format!("there are none yet of the {scope}; label or name them as --labels or --names say");
                self.say(Verdict::Warn, "objects", text)?;
            }
        }
        for (namespace, missing) in inquiry.events().await {
            let place = namespace.map_or_else(|| "all namespaces".to_owned(), |name| format!("namespace {name}"));
            self.rights("--events", "create and patch", &format_args!("events in {place}"), missing)?;
        }
        Ok(())
    }

    /// Which of these verbs are missing, if that could be found out.
    fn rights(
        &mut self,
        what: &str,
        verbs: &str,
        on: &impl fmt::Display,
        missing: Result<Vec<&str>, String>,
    ) -> io::Result<()> {
        match missing {
            Ok(missing) if missing.is_empty() => self.say(Verdict::Ok, what, format_args!("may {verbs} {on}")),
            Ok(missing) => {
                let text = format!("may not {} {on}; apply what stands at the end", missing.join(" and "));
                self.say(Verdict::Fail, what, text)
            }
            Err(why) => self.say(Verdict::Fail, what, format_args!("cannot find out about {on}: {why}")),
        }
    }

    fn directory(&mut self) -> io::Result<()> {
        let dir = self.config.dir.display().to_string();
        let own = rustix::process::geteuid().as_raw();
        let examined = match store::examine(&self.config.dir, self.config.modes) {
            Ok(examined) => examined,
            Err(error) => {
                self.facts.owner = owner(&self.config.dir);
                let owned = self.facts.owner.map(|owner| format!(" (it belongs to user {owner})")).unwrap_or_default();
                return self.say(Verdict::Fail, "directory", format_args!("{error}; this is user {own}{owned}"));
            }
        };
        match &examined.present {
            None => self.say(Verdict::Ok, "directory", format_args!("{dir} can be made by user {own}"))?,
            Some(present) => {
                self.facts.owner = Some(present.owner);
                let kept = if present.is_kept { ", and is kept by a configbump that runs" } else { "" };
                let text = format!("{dir} belongs to user {}, can be written by user {own}{kept}", present.owner);
                self.say(Verdict::Ok, "directory", text)?;
                self.traits(&dir, &present.traits)?;
            }
        }
        let (mebibytes, files) = (examined.free_bytes >> 20, examined.free_files);
        if examined.free_bytes < FREE_BYTES_MIN || files.is_some_and(|files| files < 64) {
            let files = files.map(|files| format!(" and for {files} files")).unwrap_or_default();
            let text = format!("{dir} has room for {mebibytes} MiB{files} only; make room, or raise its sizeLimit");
            return self.say(Verdict::Warn, "room", text);
        }
        self.say(Verdict::Ok, "room", format_args!("{mebibytes} MiB are free"))
    }

    fn traits(&mut self, dir: &str, traits: &Traits) -> io::Result<()> {
        let publish = &self.config.publish;
        let (way, is_set) = (way(publish.way), publish.way == PublishWay::Set);
        if let Some(lack) = &traits.lack {
            self.say(Verdict::Warn, "permissions", format_args!("{dir} {lack}"))?;
        }
        if traits.ignores_case {
            let text = format!("{dir} ignores case, so keys that differ only in case are one path; rename such keys");
            self.say(Verdict::Warn, "case", text)?;
        }
        if !traits.has_locks {
            let text =
                format!("{dir} cannot be locked (seccomp, or NFS without lockd); use it for one configbump only");
            self.say(Verdict::Warn, "lock", text)?;
        }
        if is_set && !traits.has_symlinks {
            let text = format!("the file system of {dir} has no symlinks; use --publish file, or an emptyDir");
            self.say(Verdict::Fail, way, text)?;
        } else if !traits.has_links && publish.staged().is_some() {
            let text = format!("{dir} takes no hard links, so each publish copies every file; use an emptyDir");
            self.say(Verdict::Warn, way, text)?;
        }
        Ok(())
    }

    fn commands(&mut self) -> io::Result<()> {
        let config = self.config;
        let check = config.publish.check.as_ref().map(|check| &check.command);
        let exec = config.bump.exec.as_ref().map(|exec| &exec.command);
        let words = [("--check", check), ("--exec", exec)];
        let first = words.into_iter().filter_map(|(what, words)| Some((what, OsStr::new(words?.first()?))));
        let program = config.bump.program.as_ref().map(|(child, _)| ("-- COMMAND", child.program.as_os_str()));
        for (what, name) in first.chain(program).collect::<Vec<_>>() {
            match command::locate(name) {
                Ok(path) => self.say(Verdict::Ok, what, format_args!("{} can be run", path.display()))?,
                Err(why) => self.say(Verdict::Fail, what, format_args!("{} {why}", quoted(&name.to_string_lossy())))?,
            }
        }
        Ok(())
    }

    fn target(&mut self) -> io::Result<()> {
        let Some(signal) = &self.config.bump.signal else { return Ok(()) };
        let name = signal.signal;
        let signaller = Signaller::new(signal.target.clone(), signal.signal, signal.unhandled);
        let targets = match signaller.examine() {
            Ok(targets) => targets,
            Err(BumpError::Waiting(why)) => {
                let text = format!("{why}; start it, or correct the options that name it");
                return self.say(Verdict::Fail, "target", text);
            }
            Err(why) => return self.say(Verdict::Fail, "target", why),
        };
        for found in targets {
            let (target, user) = (&found.target, found.user);
            self.facts.target_user = Some(user);
            match found.refusal {
                Some(why) => self.say(Verdict::Fail, "target", why)?,
                None if found.handling == Handling::Yes => {
                    self.say(Verdict::Ok, "target", format_args!("{target} of user {user} may be sent {name}"))?;
                }
                None if found.handling == Handling::Unknown => {
                    let text = format!(
                        "{target} of user {user} may be sent {name}, but the kernel does not show whether it handles it"
                    );
                    let remedy =
                        "configbump sends it when the program is 2 s old; check that the program handles it by then";
                    self.say(Verdict::Warn, "target", format_args!("{text}; {remedy}"))?;
                }
                None => {
                    let text = format!("{target} of user {user} has no handler for {name}, which would end or stop it");
                    let remedy = "send a signal that it knows, or wait until it has started";
                    self.say(Verdict::Warn, "target", format_args!("{text}; {remedy}"))?;
                }
            }
        }
        Ok(())
    }

    async fn url(&mut self) -> io::Result<()> {
        let Some(config) = &self.config.bump.url else { return Ok(()) };
        match Url::new(config.clone()).examine().await {
            Ok(shown) => self.say(Verdict::Ok, "--url", format_args!("{shown} accepts connections; it was not called")),
            Err(why) => self.say(Verdict::Fail, "--url", why),
        }
    }

    fn listen(&mut self) -> io::Result<()> {
        let Some(address) = self.config.listen else { return Ok(()) };
        match address.examine() {
            Ok(()) => self.say(Verdict::Ok, "--listen", format_args!("{address} is free")),
            Err(why) => {
                self.say(Verdict::Warn, "--listen", format_args!("{why} (unless it is the configbump that runs)"))
            }
        }
    }
}

fn way(way: PublishWay) -> &'static str {
    match way {
        PublishWay::File => "--check",
        PublishWay::Set => "--publish set",
    }
}

/// Whose a directory is that cannot be used.
fn owner(dir: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(dir).ok().map(|found| found.uid())
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ServiceAccount { namespace, name } => write!(f, "ServiceAccount {namespace}/{name}"),
            Self::User(name) => write!(f, "user {}", quoted(name)),
        }
    }
}
