//! The program's life: how it ends, is ended, is started again, and puts itself in the background.

use std::ffi::OsStr;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::{WaitStatus, waitpid};
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Asked, children_of, exists, recorder, until, zombies_of};

crate::tests!(
    the_exit_code_is_that_of_the_command,
    a_command_killed_by_signal_n_gives_128_plus_n,
    a_command_that_is_not_there_gives_127_and_one_line,
    a_command_that_cannot_be_run_gives_126_and_one_line,
    a_command_that_ignores_sigterm_is_killed_when_the_grace_is_over,
    a_second_sigterm_ends_the_grace,
    two_sigterms_at_once_are_one_request,
    a_stopped_command_is_ended_by_sigterm,
    a_restart_gives_a_new_process_and_the_old_one_is_gone,
    a_restart_kills_a_command_that_ignores_sigterm_and_what_it_started,
    a_restart_that_the_kernel_hinders_fails_in_time_and_happens_when_it_can,
    a_stop_ends_it_although_the_kernel_hinders_the_restart,
    a_stop_during_a_restart_ends_it,
    a_command_that_ends_itself_after_a_restart_ends_the_supervisor,
    a_command_that_cannot_be_started_again_ends_the_supervisor_with_127,
    a_command_that_daemonises_is_followed_until_its_last_process_ends,
    a_daemon_gets_the_signals,
    a_daemon_is_restarted,
    a_command_that_fails_takes_what_it_started_along,
    what_a_stopped_shell_leaves_is_told_to_end_as_well,
    orphans_are_reaped_while_the_command_runs,
    a_child_of_somebody_else_is_neither_reaped_nor_ended,
    a_hook_is_left_to_whoever_started_it,
    what_a_hook_leaves_in_the_background_is_no_part_of_the_program,
);

fn the_exit_code_is_that_of_the_command() {
    assert_eq!(Asked::PLAIN.shell("exit 0").code(), 0);
    assert_eq!(Asked::PLAIN.shell("exit 42").code(), 42);
}

fn a_command_killed_by_signal_n_gives_128_plus_n() {
    assert_eq!(Asked::PLAIN.shell("kill -KILL $$").code(), 137);
    assert_eq!(Asked::PLAIN.shell("kill -USR1 $$").code(), 138);
}

fn a_command_that_is_not_there_gives_127_and_one_line() {
    let mut supervised = Asked::PLAIN.command(&[OsStr::new("/no/such/program")]);
    assert_eq!(supervised.code(), 127);
    let text = supervised.stderr();
    assert!(text.contains("cannot start /no/such/program: No such file") && text.lines().count() == 1, "{text}");
}

fn a_command_that_cannot_be_run_gives_126_and_one_line() {
    let mut supervised = Asked::PLAIN.command(&[OsStr::new("/dev/null")]);
    assert_eq!(supervised.code(), 126);
    let text = supervised.stderr();
    assert!(text.contains("cannot start /dev/null: Permission denied") && text.lines().count() == 1, "{text}");
}

fn a_command_that_ignores_sigterm_is_killed_when_the_grace_is_over() {
    let mut supervised = Asked::PLAIN.grace_ms(300).recorder();
    let start = Instant::now();
    supervised.send(Signal::TERM);
    assert_eq!(supervised.code(), 137);
    assert!(start.elapsed() >= Duration::from_millis(300), "{:?}", start.elapsed());
    assert!(supervised.record().contains(&"got 15".into()), "{:?}", supervised.record());
}

fn a_second_sigterm_ends_the_grace() {
    for second in [Signal::TERM, Signal::INT] {
        let mut supervised = Asked::PLAIN.recorder();
        supervised.send(Signal::TERM);
        supervised.recorded("got 15");
        let first = Instant::now();
        until("200 ms, within which it would be the same request", || {
            (first.elapsed() > Duration::from_millis(200)).then_some(())
        });
        supervised.send(second);
        assert_eq!(supervised.code(), 137);
        assert!(first.elapsed() < Duration::from_secs(30), "the grace is 60 s");
    }
}

fn two_sigterms_at_once_are_one_request() {
    // As `timeout` sends them: to the process, and to its group.
    let mut supervised = Asked::PLAIN.shell(
        "trap 'echo ended >> \"$0\"; exit 7' TERM; echo ready $$ >> \"$0\"; \
                                             while :; do sleep 0.01; done",
    );
    supervised.ready(1);
    supervised.send(Signal::TERM);
    supervised.send(Signal::TERM);
    assert_eq!(supervised.code(), 7);
    assert_eq!(supervised.record().last().map(String::as_str), Some("ended"));
}

fn a_stopped_command_is_ended_by_sigterm() {
    let mut supervised = Asked::PLAIN.shell("echo ready $$ >> \"$0\"; exec sleep 1000");
    kill_process(supervised.ready(1), Signal::STOP).expect("to stop it");
    supervised.send(Signal::TERM);
    assert_eq!(supervised.code(), 143);
}

fn a_restart_gives_a_new_process_and_the_old_one_is_gone() {
    let mut supervised = Asked::PLAIN.controlled().shell("echo ready $$ >> \"$0\"; exec sleep 1000");
    let old = supervised.ready(1);
    assert_eq!(supervised.ask("processes"), format!("processes {}", old.as_raw_pid()));
    assert_eq!(supervised.ask("restart"), "restarted");
    let new = supervised.ready(2);
    assert_ne!(new, old);
    assert!(!exists(old));
    assert_eq!(supervised.ask("processes"), format!("processes {}", new.as_raw_pid()));
    supervised.send(Signal::TERM);
    assert_eq!(supervised.code(), 143);
}

fn a_restart_kills_a_command_that_ignores_sigterm_and_what_it_started() {
    let script = format!("{} \"$0\" & {} \"$0\" & wait; wait", recorder(), recorder());
    let script = format!("trap '' TERM; {script}");
    let mut supervised = Asked::PLAIN.controlled().grace_ms(200).shell(&script);
    let old = [supervised.ready(1), supervised.ready(2)];
    assert_eq!(supervised.ask("restart"), "restarted");
    let new = supervised.ready(4);
    assert!(old.iter().all(|pid| !exists(*pid)) && exists(new));
}

fn a_restart_that_the_kernel_hinders_fails_in_time_and_happens_when_it_can() {
    let mut supervised = Asked::PLAIN.controlled().grace_ms(100).shell("echo ready $$ >> \"$0\"; exec sleep 1000");
    let command = nix::unistd::Pid::from_raw(supervised.ready(1).as_raw_pid());
    // One that has been killed is not gone while somebody traces it who does not look (ptrace(2)).
    ptrace::attach(command).expect("to trace it");
    let refusal = "not restarted: the program has been killed, and the kernel keeps it";
    for _ in 0..2 {
        let answer = supervised.ask("restart");
        assert!(answer.starts_with(refusal), "{answer}");
    }
    while !matches!(waitpid(command, None).expect("to look"), WaitStatus::Signaled(..)) {}
    supervised.ready(2);
}

fn a_stop_ends_it_although_the_kernel_hinders_the_restart() {
    let mut supervised = Asked::PLAIN.controlled().grace_ms(100).shell("echo ready $$ >> \"$0\"; exec sleep 1000");
    let command = nix::unistd::Pid::from_raw(supervised.ready(1).as_raw_pid());
    ptrace::attach(command).expect("to trace it");
    assert!(supervised.ask("restart").starts_with("not restarted"));
    supervised.send(Signal::TERM);
    assert_eq!(supervised.code(), 137);
    while !matches!(waitpid(command, None).expect("to look"), WaitStatus::Signaled(..)) {}
}

fn a_stop_during_a_restart_ends_it() {
    let mut supervised = Asked::PLAIN.controlled().grace_ms(500).recorder();
    let program = supervised.ready(1);
    kill_process(supervised.pid(), Signal::USR2).expect("to signal it");
    supervised.recorded("got 12");
    let request = std::thread::scope(|scope| {
        let pid = supervised.pid();
        let record = supervised.path().join("record");
        scope.spawn(move || {
            until("the restart has begun", || fs::read_to_string(&record).ok()?.contains("got 15").then_some(()));
            kill_process(pid, Signal::INT).expect("to stop it");
        });
        supervised.ask("restart")
    });
    assert!(request.is_empty() || request.starts_with("not restarted"), "{request}");
    assert_eq!(supervised.code(), 137);
    assert!(!exists(program));
    assert_eq!(supervised.record().iter().filter(|line| line.starts_with("ready")).count(), 1);
}

fn a_command_that_ends_itself_after_a_restart_ends_the_supervisor() {
    let script = "echo ready $$ >> \"$0\"; [ \"$(grep -c ready \"$0\")\" = 2 ] && exit 9; exec sleep 1000";
    let mut supervised = Asked::PLAIN.controlled().shell(script);
    supervised.ready(1);
    assert_eq!(supervised.ask("restart"), "restarted");
    assert_eq!(supervised.code(), 9);
}

fn a_command_that_cannot_be_started_again_ends_the_supervisor_with_127() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("program");
    std::os::unix::fs::symlink("/bin/cat", &program).expect("a program");
    let fifo = folder.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let mut supervised = Asked::PLAIN.controlled().command(&[program.as_os_str(), fifo.as_os_str()]);
    assert!(supervised.ask("processes").len() > "processes ".len());
    fs::remove_file(&program).expect("to remove it");
    let answer = supervised.ask("restart");
    assert!(answer.is_empty() || answer.starts_with("not restarted"), "{answer}");
    assert_eq!(supervised.code(), 127);
}

fn a_command_that_daemonises_is_followed_until_its_last_process_ends() {
    let script = "sh -c 'echo ready $$ >> \"$0\"; until [ -e \"$0.end\" ]; do sleep 0.01; done; exit 5' \"$0\" &";
    let mut supervised = Asked::PLAIN.controlled().shell(script);
    let daemon = supervised.ready(1);
    let adopted = format!("processes {}", daemon.as_raw_pid());
    until("the daemon is the program", || (supervised.ask("processes") == adopted).then_some(()));
    fs::write(supervised.path().join("record.end"), "").expect("to end it");
    assert_eq!(supervised.code(), 5);
}

fn a_daemon_gets_the_signals() {
    let mut supervised = Asked::PLAIN.grace_ms(200).shell(&format!("setsid {} \"$0\" &", recorder()));
    let daemon = supervised.ready(1);
    until("the supervisor has the daemon", || children_of(supervised.pid()).eq(&[daemon]).then_some(()));
    supervised.send(Signal::HUP);
    supervised.recorded("got 1");
    supervised.send(Signal::TERM);
    supervised.recorded("got 15");
    assert_eq!(supervised.code(), 137);
    assert!(!exists(daemon));
}

fn a_daemon_is_restarted() {
    let script = "setsid sh -c 'echo ready $$ >> \"$0\"; exec sleep 1000' \"$0\" &";
    let mut supervised = Asked::PLAIN.controlled().shell(script);
    let old = supervised.ready(1);
    until("the shell has ended", || children_of(supervised.pid()).eq(&[old]).then_some(()));
    assert_eq!(supervised.ask("restart"), "restarted");
    let new = supervised.ready(2);
    assert!(!exists(old) && exists(new));
    supervised.send(Signal::TERM);
    supervised.end();
    assert!(!exists(new));
}

fn a_command_that_fails_takes_what_it_started_along() {
    let script = "setsid sh -c 'echo ready $$ >> \"$0\"; exec sleep 1000' \"$0\" & \
                  until [ -s \"$0\" ]; do sleep 0.01; done; exit 3";
    let mut supervised = Asked::PLAIN.shell(script);
    let left = supervised.ready(1);
    assert_eq!(supervised.code(), 3);
    assert!(!exists(left));
}

fn what_a_stopped_shell_leaves_is_told_to_end_as_well() {
    // The shell dies of SIGTERM; what it waits for would never have heard of it.
    let script = "sh -c 'trap \"echo ended >> $0; exit 0\" TERM; echo ready $$ >> \"$0\"; \
                  while :; do sleep 0.01; done' \"$0\"; exit 1";
    let mut supervised = Asked::PLAIN.shell(script);
    let inner = supervised.ready(1);
    supervised.send(Signal::TERM);
    assert_eq!(supervised.code(), 143);
    assert_eq!(supervised.record().last().map(String::as_str), Some("ended"));
    assert!(!exists(inner));
}

fn orphans_are_reaped_while_the_command_runs() {
    let script = "for i in 1 2 3 4 5 6 7 8 9 10; do (sleep 0.05 & echo ready $! >> \"$0\"); done; \
                  echo ready $$ >> \"$0\"; exec sleep 1000";
    let supervised = Asked::PLAIN.shell(script);
    let command = supervised.ready(11);
    until("only the command is left", || {
        (children_of(supervised.pid()) == [command] && zombies_of(supervised.pid()).is_empty()).then_some(())
    });
}

fn a_child_of_somebody_else_is_neither_reaped_nor_ended() {
    // A shell that becomes the supervisor has a child already.
    let mut shell = std::process::Command::new("sh");
    let supervisor = std::env::current_exe().expect("this executable");
    let script = format!("sleep 1000 & echo $!; exec env CHILD_TEST_ROLE=supervisor {} true", supervisor.display());
    let output = shell.args(["-c", &script]).stderr(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    let mut child = output.spawn().expect("a shell");
    let mut line = String::new();
    let stdout = child.stdout.take().expect("its output");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).expect("a line");
    let stranger = Pid::from_raw(line.trim().parse().expect("a PID")).expect("a PID");
    let status = until("the supervisor has ended", || child.try_wait().expect("its status"));
    assert_eq!(status.code(), Some(0));
    assert!(exists(stranger));
    kill_process(stranger, Signal::KILL).expect("to end it");
}

fn a_hook_is_left_to_whoever_started_it() {
    let mut supervised = Asked::PLAIN.controlled().shell("echo ready $$ >> \"$0\"; exec sleep 1000");
    supervised.ready(1);
    assert_eq!(supervised.ask("run a hook"), "the hook's code is Some(3)");
    supervised.ready(2);
}

fn what_a_hook_leaves_in_the_background_is_no_part_of_the_program() {
    let script = "echo ready $$ >> \"$0\"; until [ -e \"$0.end\" ]; do sleep 0.01; done";
    let mut supervised = Asked::PLAIN.controlled().shell(script);
    supervised.ready(1);
    let answer = supervised.ask("run a hook that leaves a process");
    let left = answer.strip_prefix("it left ").and_then(|pid| Pid::from_raw(pid.parse().ok()?)).expect("a PID");
    until("the supervisor has it", || children_of(supervised.pid()).contains(&left).then_some(()));
    assert_eq!(supervised.ask("restart"), "restarted");
    supervised.ready(2);
    fs::write(supervised.path().join("record.end"), "").expect("to end it");
    assert_eq!(supervised.code(), 0);
    assert!(exists(left));
    kill_process(left, Signal::KILL).expect("to end it");
}
