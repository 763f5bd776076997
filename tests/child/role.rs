//! What this executable is when a test starts it again.

use std::fs::{File, OpenOptions};
use std::hint::black_box;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode};
use std::thread;
use std::time::Duration;

use configbump::child::{self, ChildConfig, Handle};
use configbump::command::Command;
use nix::sys::signal::{SigSet, Signal as Fault};
use nix::sys::signalfd::SignalFd;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, waitid};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::raise;

/// Which role to play.
pub const ROLE: &str = "CHILD_TEST_ROLE";
/// Of the supervisor: where it reads what it is asked to do, a word a line.
pub const CONTROL: &str = "CHILD_TEST_CONTROL";
/// Of the supervisor: the grace in milliseconds.
pub const GRACE: &str = "CHILD_TEST_GRACE";

/// `configbump -- COMMAND`, without the files.
pub const SUPERVISOR: &str = "supervisor";
/// A program that survives every signal that it can, and writes each to the file that is its argument.
pub const RECORDER: &str = "recorder";

/// By which the kernel tells a process of its own fault.
const FAULTS: [i32; 6] = [4, 5, 7, 8, 11, 31];

/// Plays the role that the environment names; `None` if this is the test itself.
pub fn play() -> Option<ExitCode> {
    let role = std::env::var(ROLE).ok()?;
    Some(match role.as_str() {
        SUPERVISOR => supervisor(),
        RECORDER => recorder(),
        role => panic!("no such role: {role}"),
    })
}

fn supervisor() -> ExitCode {
    child::init::take_name().expect("a name");
    match child::init::serve_as_process_1() {
        Some(Ok(code)) => return ExitCode::from(code),
        Some(Err(error)) => {
            eprintln!("configbump: {error}");
            return ExitCode::FAILURE;
        }
        None => {}
    }
    child::hold_faults().expect("to block signals");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(supervise()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("configbump: {error}");
            ExitCode::from(error.code())
        }
    }
}

async fn supervise() -> Result<u8, child::ChildError> {
    let mut arguments = std::env::args_os().skip(1);
    let config = ChildConfig {
        program: arguments.next().expect("COMMAND"),
        arguments: arguments.collect(),
        stop_signal: Signal::TERM,
        grace: Duration::from_millis(std::env::var(GRACE).map_or(60_000, |grace| grace.parse().expect("a number"))),
    };
    // COMMAND may be this executable, in another role.
    let (handle, supervisor) = child::supervise(config)?;
    child::pass_on(handle.clone()).expect("to catch signals");
    handle.start().await;
    if let Some(control) = std::env::var_os(CONTROL) {
        let runtime = tokio::runtime::Handle::current();
        let (asked, mut asks) = tokio::sync::mpsc::channel(1);
        thread::spawn(move || {
            for line in BufReader::new(File::open(control).expect("a pipe")).lines() {
                asked.blocking_send(line.expect("a line")).expect("somebody who listens");
            }
        });
        runtime.spawn(async move {
            while let Some(line) = asks.recv().await {
                obey(&handle, &line).await;
            }
        });
    }
    supervisor.await
}

/// Does what a line asks for, and answers by a line.
async fn obey(handle: &Handle, line: &str) {
    match line {
        "processes" => {
            let pids: Vec<_> = handle.processes().iter().map(|pid| pid.as_raw_pid().to_string()).collect();
            println!("processes {}", pids.join(" "));
        }
        "restart" => match handle.restart().await {
            Ok(()) => println!("restarted"),
            Err(error) => println!("not restarted: {error}"),
        },
        "run a hook" => println!("the hook's code is {:?}", hook(handle).await),
        "run a hook that leaves a process" => println!("it left {}", leaving_hook().await),
        "raise SIGPIPE" => {
            raise(Signal::PIPE.as_raw()).expect("to raise it");
            println!("raised");
        }
        "overflow the stack" => println!("the stack has no end: {}", overflow(0)),
        other => panic!("no such request: {other}"),
    }
}

/// The only fault that safe code can commit.
fn overflow(depth: u64) -> u64 {
    if black_box(depth) == u64::MAX { 0 } else { black_box(overflow(depth + 1)) + 1 }
}

/// Starts a process as a hook is started, and waits for it only when the supervisor has looked at its remains.
async fn hook(handle: &Handle) -> Option<i32> {
    let spawn = || std::process::Command::new("sh").args(["-c", "exit 3"]).spawn();
    let (mut hook, awaited) = child::start_awaited(spawn, |hook: &Child| Some(hook.id())).expect("a hook");
    let remains = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(Pid::from_child(&hook)), remains).expect("to wait for its end");
    handle.restart().await.expect("to restart");
    let code = hook.wait().expect("its status is still there").code();
    drop(awaited);
    code
}

/// Runs a command as hooks are run, and gives the PID that it printed.
async fn leaving_hook() -> String {
    let words = ["sh", "-c", "sleep 1000 & echo $!"].map(str::to_owned);
    let mut pid = String::new();
    let hook = Command::new(&words, Path::new("/"), Duration::from_secs(30));
    hook.run([], |_, line| line.clone_into(&mut pid)).await.expect("a hook");
    pid
}

fn recorder() -> ExitCode {
    let file = PathBuf::from(std::env::args_os().nth(1).expect("a file"));
    assert_eq!(SigSet::thread_get_mask(), Ok(SigSet::empty()), "it starts with the signals as usual");
    child::hold_faults().expect("to block signals");
    let faults = FAULTS.map(|fault| Fault::try_from(fault).expect("a signal")).into_iter().collect();
    let mut faults = SignalFd::new(&faults).expect("a descriptor");
    let caught = (1..=64).filter(|signal| !FAULTS.contains(signal) && ![9, 19, 32, 33].contains(signal));
    // With its origin each counts by itself; without, those that come together are one.
    let mut signals = SignalsInfo::<WithOrigin>::new(caught).expect("to catch signals");
    record(&file, &format!("ready {}", std::process::id()));
    thread::spawn({
        let file = file.clone();
        move || faults.by_ref().for_each(|info| record(&file, &format!("got {}", info.ssi_signo)))
    });
    for origin in signals.forever() {
        record(&file, &format!("got {}", origin.signal));
    }
    ExitCode::FAILURE
}

fn record(file: &Path, line: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(file).expect("the record");
    file.write_all(format!("{line}\n").as_bytes()).expect("to write the record");
}
