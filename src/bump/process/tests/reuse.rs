//! PIDs that are used again, in a PID namespace where the next one can be chosen.

use std::fs;

use super::*;

const INSIDE: &str = "CONFIGBUMP_TEST_IN_PID_NAMESPACE";

/// Whether this is a PID namespace of the test's own. If not, runs the test in one.
fn is_inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.arg(std::env::current_exe().expect("this executable"));
    command.args(["--exact", &format!("bump::process::tests::reuse::{test}")]).env(INSIDE, "yes");
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; it is part of util-linux"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    false
}

/// A program that HUP would end, and that ends with its input.
struct Cat(Child);

impl Cat {
    fn start() -> Self {
        let mut command = Command::new("cat");
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("a program"))
    }

    /// The next one with this PID, which nobody has.
    fn with(pid: u32) -> Self {
        loop {
            fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())
                .expect("a kernel that lets itself be told");
            let cat = Self::start();
            if cat.0.id() == pid {
                return cat;
            }
            cat.end();
        }
    }

    fn found(&self) -> Target {
        let spec = spec(Who::Pid(self.0.id()), None);
        become_visible(&spec, 1);
        find(&spec, &nobody_helps).expect("a target").pop().expect("one")
    }

    /// Its PID is free from here on.
    fn end(mut self) {
        drop(self.0.stdin.take());
        let status = self.0.wait().expect("its end");
        assert!(status.success(), "it was killed: {status}");
    }
}

#[test]
fn whoever_has_the_pid_of_one_that_was_found_is_neither_looked_at_nor_signalled_in_its_place() {
    if !is_inside("whoever_has_the_pid_of_one_that_was_found_is_neither_looked_at_nor_signalled_in_its_place") {
        return;
    }
    let signal = "HUP".parse().expect("a signal");
    let first = Cat::start();
    let target = first.found();
    let pid = target.identity.pid;
    first.end();
    until(|| BootTime::now().0 >= target.identity.started.0 + Duration::from_millis(20));
    let second = Cat::with(pid);
    assert!(Handle::open(&target).expect("an answer").is_none());

    let target = second.found();
    let handle = Handle::open(&target).expect("an answer").expect("a process");
    second.end();
    let third = Cat::with(pid);
    assert_eq!(handle.handles(signal, &target).expect("an answer"), None);
    assert_eq!(handle.is_deaf(signal, &target).expect("an answer"), None);
    assert_eq!(handle.user(&target).expect("an answer"), None);
    assert_eq!(handle.send(signal, &target).expect("an answer"), Sent::Gone);
    third.end();
}
