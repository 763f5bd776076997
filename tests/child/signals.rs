//! What is sent to configbump reaches the program.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{Asked, Supervised, parent_of, until};

crate::tests!(
    every_signal_that_a_process_can_get_is_passed_on,
    a_real_fault_ends_the_supervisor_although_a_sent_one_does_not,
    a_sigterm_that_the_command_handles_ends_with_its_code,
    a_sigpipe_of_the_supervisor_itself_is_not_passed_on,
    ctrl_c_reaches_the_command_once,
);

/// By number, as `kill` takes real-time ones too.
fn kill(to: Pid, signal: i32) {
    let pid = to.as_raw_pid().to_string();
    assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().expect("kill").success());
}

/// What is sent to this process reaches the recorder that it runs. It has been asked to end afterwards.
pub fn passes_on_every_signal(to: Pid, supervised: &Supervised) {
    // Those that stop or kill whatever a process does, and SIGCHLD; the C library's own are 32 and 33, or 34 too.
    let not = [9, 17, 19, 32, 33, 34];
    // Last what asks it to end.
    for signal in (1..=64).filter(|signal| !not.contains(signal) && ![2, 15].contains(signal)).chain([15]) {
        kill(to, signal);
        until(&format!("signal {signal} in {:?}", supervised.record()), || {
            supervised.record().contains(&format!("got {signal}")).then_some(())
        });
    }
}

fn every_signal_that_a_process_can_get_is_passed_on() {
    let supervised = Asked::PLAIN.recorder();
    passes_on_every_signal(supervised.pid(), &supervised);
    let interrupted = Asked::PLAIN.recorder();
    interrupted.send(Signal::INT);
    interrupted.recorded("got 2");
}

fn a_real_fault_ends_the_supervisor_although_a_sent_one_does_not() {
    let mut supervised = Asked::PLAIN.controlled().recorder();
    supervised.send(Signal::SEGV);
    supervised.recorded("got 11");
    let command = supervised.ready(1);
    supervised.tell("overflow the stack");
    let status = supervised.end();
    kill_process(command, Signal::KILL).expect("it has been left behind");
    assert_eq!(status.signal(), Some(Signal::SEGV.as_raw()));
}

fn a_sigterm_that_the_command_handles_ends_with_its_code() {
    let mut supervised =
        Asked::PLAIN.shell("trap 'exit 6' TERM; echo ready $$ >> \"$0\"; while :; do sleep 0.01; done");
    supervised.ready(1);
    supervised.send(Signal::TERM);
    assert_eq!(supervised.code(), 6);
}

fn a_sigpipe_of_the_supervisor_itself_is_not_passed_on() {
    let mut supervised = Asked::PLAIN.controlled().recorder();
    assert_eq!(supervised.ask("raise SIGPIPE"), "raised");
    // It would have come before the next one.
    supervised.send(Signal::USR1);
    supervised.recorded("got 10");
    assert!(!supervised.record().contains(&"got 13".into()), "{:?}", supervised.record());
}

fn ctrl_c_reaches_the_command_once() {
    let mut supervised = Asked::PLAIN.on_terminal().recorder();
    let command = supervised.ready(1);
    supervised.type_in("\x03");
    supervised.recorded("got 2");
    // A second one would have come before this.
    kill_process(parent_of(command), Signal::USR1).expect("to signal the supervisor");
    supervised.recorded("got 10");
    assert_eq!(supervised.record().iter().filter(|line| *line == "got 2").count(), 1);
    // Typed again, it ends the grace.
    let first = Instant::now();
    until("200 ms, within which it would be the same request", || {
        (first.elapsed() > Duration::from_millis(200)).then_some(())
    });
    supervised.type_in("\x03");
    assert_eq!(supervised.code(), 137);
}
