//! The signals with which the commands of tests begin.

use std::fs;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Once};

use nix::sys::signal::SigSet;
use signal_hook::consts::FORBIDDEN;
use signal_hook::flag;

/// Makes the commands that this thread starts begin with default signal actions and no blocked signal. `nohup` and some
/// shells run the tests with ignored or blocked signals, and a shell cannot trap a signal that it found ignored.
pub fn use_default_signals() {
    static HANDLED: Once = Once::new();
    // A handled signal becomes a default one when the command is executed.
    HANDLED.call_once(|| {
        for signal in ignored_signals() {
            flag::register(signal, Arc::new(AtomicBool::new(false))).expect("a handler");
        }
    });
    SigSet::empty().thread_set_mask().expect("a signal mask");
}

/// Returns the ignored signals that this process can handle (`proc_pid_status(5)`). The C library keeps 32 and 33.
fn ignored_signals() -> impl Iterator<Item = i32> {
    let status = fs::read_to_string("/proc/self/status").expect("the status of this process");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("a mask");
    let mask = u64::from_str_radix(mask.trim(), 16).expect("a number");
    (1..=64).filter(move |signal| {
        mask >> (signal - 1) & 1 == 1 && ![32, 33].contains(signal) && !FORBIDDEN.contains(signal)
    })
}
