//! Signals where the kernel shows or allows less: without signal masks in `/proc`, without pidfds, with a security module.

use std::fs;

use crate::bump::signalling;
use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::sidecar::Launch;
use crate::harness::target::Target;
use crate::harness::wait::{PATIENCE, run, until};
use crate::harness::workspace::Workspace;

/// Numbers of system calls, the same on every architecture.
const PIDFD_SEND_SIGNAL: u32 = 424;
const PIDFD_OPEN: u32 = 434;

const EPERM: i32 = 1;
const EACCES: i32 = 13;
const ENOSYS: i32 = 38;

/// Installs a seccomp filter under which a system call fails, and becomes the command (`seccomp(2)`, `prctl(2)`).
const SECCOMP: &str = r#"
    use POSIX ();
    my ($number, $error, @command) = @ARGV;
    my ($load, $equal, $return) = (0x20, 0x15, 0x06);
    my $filter = pack "SCCL" x 4, $load, 0, 0, 0, $equal, 0, 1, $number,
        $return, 0, 0, 0x50000 | $error, $return, 0, 0, 0x7fff0000;
    my $program = pack "Sx6P", 4, $filter;
    my $prctl = (POSIX::uname())[4] eq "aarch64" ? 167 : 157;
    syscall($prctl, 22, 2, $program) == 0 or die "cannot install a filter: $!";
    exec "setpriv", "--pdeathsig", "KILL", @command or die "cannot run setpriv: $!";
"#;

/// The same, with the system call refused by this error.
fn without(launch: Launch<'_>, number: u32, error: i32) -> Launch<'_> {
    launch.prelude(format!("exec perl -e '{SECCOMP}' {number} {error} \"$@\""))
}

#[test]
fn without_signal_masks_a_program_is_signalled() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let target = Target::start(&workspace).await;
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let (status, masked) = (format!("/proc/{}/status", target.pid()), workspace.beside("status"));
        let hide = format!("grep -v ^Sig {status} >'{0}'; mount --bind '{0}' {status}", masked.display());
        for (way, count) in [("send", 1), ("wait", 2), ("skip", 3)] {
            let launch =
                signalling(&namespace, &workspace).args(["--unhandled-signal", way, "--initial-bump", "always"]);
            let sidecar = launch.mounting(hide.as_str()).start();
            sidecar.says("sent SIGHUP to").await;
            target.noted_times("1", count).await;
            sidecar.kill();
        }
    });
}

#[test]
fn without_pidfds_its_own_program_is_signalled() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let log = workspace.beside("bumps");
        let args = Target::args(&workspace, &log, "echo bumped");
        let launch = without(Launch::within(&namespace, &workspace), PIDFD_OPEN, EPERM);
        let sidecar = launch.args(["--", "sh"]).args(args).start();
        sidecar.in_sync().await;
        until(PATIENCE, "a program with a handler", async || log.exists().then_some(()).ok_or("none yet".to_owned()))
            .await;
        namespace.replace(&config_map("routes", [("a", "2")])).await;
        sidecar.says("sent SIGHUP to").await;
        until(PATIENCE, "a bump", async || match fs::read_to_string(&log) {
            Ok(bumps) if bumps == "bumped\n" => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    });
}

#[test]
fn another_program_needs_pidfds_and_the_log_says_how() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let target = Target::start(&workspace).await;
        namespace.create(&config_map("routes", [("a", "1")])).await;
        for (error, remedy) in [(EPERM, "use a seccomp profile that allows pidfd_open"), (ENOSYS, "Linux 5.3 or newer")]
        {
            let sidecar = without(signalling(&namespace, &workspace), PIDFD_OPEN, error).start();
            let line = sidecar.says("cannot open a pidfd of").await;
            assert!(line.contains(remedy) && line.contains("(-- COMMAND)"), "{line}");
            sidecar.kill();
        }
        target.noted([]).await;
    });
}

#[test]
fn a_signal_that_a_security_module_denies_names_the_remedy() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let target = Target::start(&workspace).await;
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let sidecar = without(signalling(&namespace, &workspace), PIDFD_SEND_SIGNAL, EACCES).start();
        let line = sidecar.says("may not send SIGHUP to").await;
        assert!(line.contains("denies it") && line.contains("give both containers the same"), "{line}");
        target.noted([]).await;
    });
}
