//! Process 1 of a PID namespace.

use std::process::Command;

use rustix::process::{Signal, kill_process};

use crate::harness::{Asked, children_of, until, zombies_of};
use crate::role;
use crate::signals::passes_on_every_signal;

crate::tests!(
    process_1_ends_with_the_code_of_the_command,
    process_1_reaps_what_the_supervisor_is_not_told_of,
    process_1_passes_every_signal_on,
    a_supervisor_that_is_killed_ends_process_1_with_137,
    ctrl_c_on_the_terminal_of_process_1_reaches_the_command_once,
    process_1_that_cannot_start_itself_says_so_in_one_line,
);

fn process_1_ends_with_the_code_of_the_command() {
    assert_eq!(Asked::PLAIN.in_namespace().shell("exit 42").code(), 42);
    assert_eq!(Asked::PLAIN.in_namespace().shell("kill -KILL $$").code(), 137);
    assert_eq!(
        Asked::PLAIN.in_namespace().shell("[ $$ -gt 2 ] && [ \"$(cat /proc/$PPID/stat | cut -d' ' -f4)\" = 1 ]").code(),
        0
    );
}

fn process_1_reaps_what_the_supervisor_is_not_told_of() {
    // A process that is moved into the namespace is no descendant of the supervisor, so its orphans go to process 1.
    let supervised = Asked::PLAIN.in_namespace().shell("echo ready $$ >> \"$0\"; exec sleep 1000");
    supervised.ready(1);
    let init = supervised.process_1();
    let supervisor = until("the supervisor", || children_of(init).first().copied());
    let status = Command::new("nsenter")
        .args([
            "--pid",
            "--target",
            &init.as_raw_pid().to_string(),
            "sh",
            "-c",
            "for i in 1 2 3; do (sleep 0.2 &) ; done",
        ])
        .status()
        .expect("nsenter");
    assert!(status.success());
    until("all but the supervisor are reaped", || {
        (children_of(init) == [supervisor] && zombies_of(init).is_empty()).then_some(())
    });
}

fn process_1_passes_every_signal_on() {
    let mut supervised = Asked::PLAIN.in_namespace().grace_ms(300).recorder();
    let init = supervised.process_1();
    passes_on_every_signal(init, &supervised);
    assert_eq!(supervised.code(), 137);
}

fn a_supervisor_that_is_killed_ends_process_1_with_137() {
    let mut supervised = Asked::PLAIN.in_namespace().shell("echo ready $$ >> \"$0\"; exec sleep 1000");
    supervised.ready(1);
    let supervisor = until("the supervisor", || children_of(supervised.process_1()).first().copied());
    kill_process(supervisor, Signal::KILL).expect("to kill it");
    assert_eq!(supervised.code(), 137);
}

fn ctrl_c_on_the_terminal_of_process_1_reaches_the_command_once() {
    let mut supervised = Asked::PLAIN.in_namespace().grace_ms(1000).on_terminal().recorder();
    supervised.type_in("\x03");
    supervised.recorded("got 2");
    // Nor has either of the two that passed it on taken it for two, which would have ended the grace.
    assert_eq!(supervised.code(), 137);
    assert_eq!(supervised.record().iter().filter(|line| *line == "got 2").count(), 1);
}

fn process_1_that_cannot_start_itself_says_so_in_one_line() {
    let ourselves = std::env::current_exe().expect("this executable");
    let script = "mount -t tmpfs none /proc && exec \"$0\" true";
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--mount", "sh", "-c", script])
        .arg(ourselves)
        .env(role::ROLE, role::SUPERVISOR)
        .output()
        .expect("unshare");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.starts_with("configbump: as process 1, cannot start /proc/self/exe: No such file"), "{text}");
    assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
}
