//! Signals to real processes.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Uid, geteuid};
use rustix::thread::set_thread_uid;

use super::*;
use crate::bump::process::{Who, parse_expression};
use crate::bump::program::Signallers;
use crate::child::start_awaited;
use crate::default_signals::use_default_signals;

const PATIENCE: Duration = Duration::from_secs(30);

/// Every signal that a program can handle.
const HANDLED: &str = "1 2 3 4 5 6 7 8 10 11 12 13 14 15 16 17 18 20 21 22 23 24 25 26 27 28 29 30 31 34 35 36 37 38 \
    39 40 41 42 43 44 45 46 47 48 49 50 51 52 53 54 55 56 57 58 59 60 61 62 63 64";

/// A shell that prints the number of each signal that it handles, and ends with the test.
struct Program {
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    /// Starts one that handles these signals, and is ready.
    fn handling(numbers: &str, marker: &str) -> Self {
        let mut program = Self::late(numbers, marker);
        program.install();
        program
    }

    /// Starts one that handles these signals only after [`Self::install`].
    fn late(numbers: &str, marker: &str) -> Self {
        // `cat` ends with the test. To wait for it, unlike to read, is what every shell interrupts for a signal.
        let script = format!(
            "echo started; read -r go; for n in {numbers}; do trap \"echo $n\" $n; done; exec 3<&0; cat <&3 & echo ready
            while kill -0 $! 2>&-; do wait $!; done"
        );
        let program = Self::spawn(Command::new("sh").args(["-c", &script, marker]));
        program.expect("started");
        program
    }

    fn spawn(command: &mut Command) -> Self {
        use_default_signals();
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a program");
        let output = BufReader::new(child.stdout.take().expect("its output"));
        let (sender, lines) = channel();
        // It ends with the program.
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    fn install(&mut self) {
        self.child.stdin.as_mut().expect("its input").write_all(b"go\n").expect("a program that reads");
        self.expect("ready");
    }

    /// Waits for the next line.
    fn expect(&self, line: &str) {
        assert_eq!(self.lines.recv_timeout(PATIENCE).as_deref(), Ok(line));
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("an answer").is_none()
    }

    /// Lets it end by itself and gives what else it printed.
    fn rest(mut self) -> Vec<String> {
        drop(self.child.stdin.take());
        let ended = self.child.wait().expect("its end");
        assert_eq!(ended.signal(), None, "it was killed");
        self.lines.iter().collect()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // If it has ended already, that is as well.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

fn marker(test: &str) -> String {
    format!("configbump-test-{}-{test}", std::process::id())
}

fn by_command(text: &str) -> TargetSpec {
    TargetSpec { process: Who::Command(parse_expression(&format!("{text}$")).expect("an expression")), parent: None }
}

fn by_pid(pid: u32) -> TargetSpec {
    TargetSpec { process: Who::Pid(pid), parent: None }
}

fn signal(text: &str) -> Signal {
    text.parse().expect("a signal")
}

/// A batch that is complete, and after which every process that starts is seen to have started later.
fn batch() -> Batch {
    let complete_at = BootTime::now();
    until(|| BootTime::now().0 >= complete_at.0 + Duration::from_millis(10));
    Batch { changes: BTreeMap::new(), complete_at, to_everybody: false, is_cut: false }
}

fn until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain");
        thread::yield_now();
    }
}

fn bump(signaller: &mut Signaller, batch: &Batch) -> Result<(), BumpError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(signaller.bump(batch))
}

fn waiting(result: Result<(), BumpError>) -> String {
    match result {
        Err(BumpError::Unready(text) | BumpError::Waiting(text)) => text,
        other => panic!("{other:?} is not waiting"),
    }
}

#[test]
fn every_signal_that_can_be_handled_is_delivered() {
    let program = Program::handling(HANDLED, &marker("all"));
    for number in HANDLED.split_ascii_whitespace() {
        let mut signaller = Signaller::new(by_pid(program.pid()), signal(number), Unhandled::Wait);
        // As one that catches all of them it is given a moment.
        until(|| bump(&mut signaller, &batch()).is_ok());
        program.expect(number);
    }
}

#[test]
fn one_that_catches_every_signal_as_one_in_go_does_is_not_sent_any_while_it_is_young() {
    let program = Program::handling(HANDLED, &marker("go"));
    let (mut signaller, batch) = (Signaller::new(by_pid(program.pid()), Signal::HUP, Unhandled::Wait), batch());
    let [target] = &signaller.find().expect("one")[..] else { panic!() };
    let mut target = target.clone();
    let handle = Handle::open(&target).expect("a handle").expect("a process");
    until(|| BootTime::now().0 >= target.identity.started.0 + UNTOLD_START);
    assert_eq!(bump(&mut signaller, &batch), Ok(()));
    program.expect("1");
    // However long its start took: as if it had been just now.
    target.identity.started = BootTime::now();
    assert_eq!(signaller.may_be_starting(&handle, &target), Ok(true));
}

#[test]
fn kill_and_stop_need_no_handler() {
    let mut program = Program::late("1", &marker("stop"));
    assert_eq!(bump(&mut Signaller::new(by_pid(program.pid()), signal("STOP"), Unhandled::Wait), &batch()), Ok(()));
    let stat = format!("/proc/{}/stat", program.pid());
    until(|| std::fs::read_to_string(&stat).expect("a stat").contains(") T "));
    assert_eq!(bump(&mut Signaller::new(by_pid(program.pid()), signal("KILL"), Unhandled::Wait), &batch()), Ok(()));
    assert_eq!(program.child.wait().expect("its end").signal(), Some(9));
}

#[test]
fn a_program_that_installs_its_handler_late_is_waited_for_and_not_killed() {
    let mut program = Program::late("1 64", &marker("late"));
    let batch = batch();
    for name in ["HUP", "RTMAX"] {
        let text = waiting(bump(&mut Signaller::new(by_pid(program.pid()), signal(name), Unhandled::Wait), &batch));
        assert!(text.starts_with(&format!("PID {} (sh) has not installed a handler for SIG", program.pid())), "{text}");
    }
    assert!(program.is_running());
    program.install();
    assert_eq!(bump(&mut Signaller::new(by_pid(program.pid()), Signal::HUP, Unhandled::Wait), &batch), Ok(()));
    program.expect("1");
}

#[test]
fn a_signal_that_does_no_harm_is_sent_without_a_handler() {
    let mut program = Program::late("1", &marker("harmless"));
    assert_eq!(bump(&mut Signaller::new(by_pid(program.pid()), signal("WINCH"), Unhandled::Wait), &batch()), Ok(()));
    program.install();
}

#[test]
fn unhandled_send_kills_a_program_that_has_no_handler() {
    let mut program = Program::late("1", &marker("send"));
    assert_eq!(bump(&mut Signaller::new(by_pid(program.pid()), Signal::HUP, Unhandled::Send), &batch()), Ok(()));
    assert_eq!(program.child.wait().expect("its end").signal(), Some(1));
}

#[test]
fn unhandled_skip_leaves_a_program_that_has_no_handler_alone_for_this_batch() {
    let mut program = Program::late("1", &marker("skip"));
    let mut signaller = Signaller::new(by_pid(program.pid()), Signal::HUP, Unhandled::Skip);
    let first = batch();
    assert_eq!(bump(&mut signaller, &first), Ok(()));
    program.install();
    assert_eq!(bump(&mut signaller, &first), Ok(()));
    assert_eq!(bump(&mut signaller, &batch()), Ok(()));
    program.expect("1");
    assert!(program.rest().is_empty());
}

#[test]
fn a_program_that_ignores_the_signal_for_long_or_fetches_it_itself_is_sent_it() {
    for how in ["--ignore-signal=HUP", "--block-signal=HUP"] {
        let mut program = Program::spawn(Command::new("env").args([how, "cat"]));
        let status = format!("/proc/{}/status", program.pid());
        until(|| std::fs::read_to_string(&status).expect("a status").starts_with("Name:\tcat\n"));
        let (mut signaller, batch) = (Signaller::new(by_pid(program.pid()), Signal::HUP, Unhandled::Wait), batch());
        let why = waiting(bump(&mut signaller, &batch));
        assert!(why.contains("ignores or blocks SIGHUP"), "{why}");
        until(|| bump(&mut signaller, &batch).is_ok());
        assert!(program.is_running());
        let is_pending = std::fs::read_to_string(&status).expect("a status").contains("ShdPnd:\t0000000000000001\n");
        assert_eq!(is_pending, how.starts_with("--block"));
    }
}

#[test]
fn several_targets_are_each_told_once_a_batch_even_if_one_of_them_is_late() {
    let marker = marker("several");
    let ready = Program::handling("1", &marker);
    let mut late = Program::late("1", &marker);
    let mut signaller = Signaller::new(by_command(&marker), Signal::HUP, Unhandled::Wait);
    let first = batch();
    for _ in 0..3 {
        assert!(waiting(bump(&mut signaller, &first)).contains(&format!("PID {}", late.pid())));
    }
    ready.expect("1");
    late.install();
    assert_eq!(bump(&mut signaller, &first), Ok(()));
    late.expect("1");
    assert_eq!(bump(&mut signaller, &batch()), Ok(()));
    ready.expect("1");
    late.expect("1");
    assert!(ready.rest().is_empty() && late.rest().is_empty());
}

#[test]
fn of_the_processes_of_a_program_one_that_is_late_keeps_the_signal_from_no_other() {
    let marker = marker("program");
    let (ready, late) = (Program::handling("1", &marker), Program::late("1", &marker));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    for order in [[&late, &ready], [&ready, &late]] {
        let pids = order.map(|program| i32::try_from(program.pid()).expect("a PID"));
        let mut signallers = Signallers::new(Signal::HUP, Unhandled::Wait);
        let told = runtime.block_on(signallers.bump(&pids, &batch()));
        assert!(waiting(told).contains(&format!("PID {}", late.pid())));
        ready.expect("1");
    }
}

#[test]
fn a_program_that_was_started_after_the_batch_was_complete_is_not_told() {
    let marker = marker("fresh");
    let batch = batch();
    let mut signaller = Signaller::new(by_command(&marker), Signal::HUP, Unhandled::Wait);
    let text = waiting(bump(&mut signaller, &batch));
    assert!(text.contains(&format!("no process whose command line matches `{marker}$`")), "{text}");
    let program = Program::handling("1", &marker);
    assert_eq!(bump(&mut signaller, &batch), Ok(()));
    assert!(program.rest().is_empty());
}

#[test]
fn a_new_instance_of_the_target_is_a_new_target() {
    let marker = marker("instance");
    let mut signaller = Signaller::new(by_command(&marker), Signal::HUP, Unhandled::Wait);
    for _ in 0..2 {
        let program = Program::handling("1", &marker);
        assert_eq!(bump(&mut signaller, &batch()), Ok(()));
        program.expect("1");
        assert!(program.rest().is_empty());
        waiting(bump(&mut signaller, &batch()));
    }
}

#[test]
fn a_helper_is_never_the_target() {
    let marker = marker("helper");
    let named = marker.clone();
    let start = move || Ok(Program::handling("1", &named));
    let (program, awaited) = start_awaited(start, |program| Some(program.pid())).expect("a helper");
    let mut signaller = Signaller::new(by_command(&marker), Signal::HUP, Unhandled::Wait);
    waiting(bump(&mut signaller, &batch()));
    assert!(program.rest().is_empty());
    drop(awaited);
}

#[test]
fn a_batch_concerns_a_target_that_runs_since_before_it_or_is_to_be_told_in_any_case() {
    let marker = marker("before");
    let signaller = Signaller::new(by_command(&marker), Signal::HUP, Unhandled::Wait);
    assert_eq!(signaller.is_concerned(&batch()), Ok(false));
    let before = batch();
    let _program = Program::handling("1", &marker);
    assert_eq!(signaller.is_concerned(&before), Ok(false));
    assert_eq!(signaller.is_concerned(&Batch { to_everybody: true, ..before }), Ok(true));
    assert_eq!(signaller.is_concerned(&batch()), Ok(true));
}

#[test]
fn a_refused_signal_names_both_users_and_what_it_takes() {
    // The first process is anyone else's but root's. No program has anything done to it by URG.
    let program = Program::late("1", &marker("refused"));
    let is_root = geteuid().is_root();
    let pid = if is_root { program.pid() } else { 1 };
    // Of threads, Linux gives each a user of its own.
    let test = thread::spawn(move || {
        if is_root {
            set_thread_uid(Uid::from_raw(65_534)).expect("another user");
        }
        (bump(&mut Signaller::new(by_pid(pid), signal("URG"), Unhandled::Wait), &batch()), geteuid().as_raw())
    });
    let (result, user) = test.join().expect("a thread that ends");
    let Err(BumpError::Failed(text)) = result else { panic!("{result:?} is not refused") };
    assert!(text.starts_with(&format!("may not send SIGURG to PID {pid} (")), "{text}");
    assert!(
        text.contains(&format!("it runs as user 0 and configbump as user {user}; run both as the same user")),
        "{text}"
    );
    assert!(
        text.contains("(runAsUser), or configbump with the capability CAP_KILL") && !text.contains("PTRACE"),
        "{text}"
    );
}

#[test]
fn a_signal_that_is_refused_to_the_same_user_is_a_security_modules_doing() {
    let identity = Identity { pid: 12, started: BootTime(Duration::ZERO) };
    let target = Target { identity, name: "a\nb".to_owned(), wrapped: Vec::new() };
    let text = refused(Signal::HUP, &target, 5, 5).to_string();
    assert!(text.starts_with(r"may not send SIGHUP to PID 12 (a\nb): "), "{text}");
    assert!(text.contains("give both containers the same"), "{text}");
}

/// Starts a shell that handles what `trap` says, and that runs and waits for a program that prints 1 at each HUP.
fn wrapper(trap: &str, marker: &str) -> Program {
    let program =
        r#"$| = 1; $SIG{HUP} = sub { print "1\n" }; my $p = getppid; print "ready\n"; sleep 1 while getppid == $p"#;
    let script = format!("{trap}\nperl -e '{program}' {marker}\ntrue");
    let program = Program::spawn(Command::new("sh").args(["-c", &script, marker]));
    program.expect("ready");
    program
}

#[test]
fn program_below_a_shell_without_handler_is_signalled() {
    let marker = marker("wrapped");
    for unhandled in [Unhandled::Wait, Unhandled::Send, Unhandled::Skip] {
        let mut shell = wrapper("", &marker);
        assert_eq!(bump(&mut Signaller::new(by_command(&marker), Signal::HUP, unhandled), &batch()), Ok(()));
        shell.expect("1");
        assert!(shell.is_running());
    }
}

#[test]
fn shell_with_a_handler_is_signalled_itself() {
    let marker = marker("trapping");
    let shell = wrapper("trap : HUP", &marker);
    let mut signaller = Signaller::new(by_command(&marker), Signal::HUP, Unhandled::Wait);
    let [target] = &signaller.find().expect("one")[..] else { panic!() };
    assert_eq!((target.identity.pid, target.wrapped.len()), (shell.pid(), 1));
    assert_eq!(bump(&mut signaller, &batch()), Ok(()));
    assert_eq!(signaller.told.wrapper.map(|wrapper| wrapper.pid), Some(shell.pid()));
    // What the line in the log says to write. It would be the second line if the program had been signalled already.
    let expression = parse_expression(&format!("^perl .*{marker}$")).expect("an expression");
    let program = TargetSpec { process: Who::Command(expression), parent: None };
    assert_eq!(bump(&mut Signaller::new(program, Signal::HUP, Unhandled::Wait), &batch()), Ok(()));
    shell.expect("1");
    assert!(shell.lines.recv_timeout(Duration::from_millis(10)).is_err());
}

#[test]
fn tests_pass_with_ignored_and_blocked_signals() {
    let ourselves = std::env::current_exe().expect("this executable");
    let mut env = Command::new("env");
    // As below `nohup`.
    env.args(["--ignore-signal=HUP", "--block-signal=HUP"]).arg(ourselves);
    let name = "bump::signal::tests::unhandled_send_kills_a_program_that_has_no_handler";
    let output = env.args(["--exact", name]).output().expect("the tests");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
