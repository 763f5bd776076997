//! `configbump -- COMMAND`: the supervision of COMMAND and process 1, with real processes.
//!
//! As a subreaper, the supervisor adopts whatever its process starts, so each test gives it a process of its own: this
//! executable again, in one of the roles of `role`. That is why it has a `main` of its own.

#[path = "../harness/default_signals.rs"]
mod default_signals;
mod harness;
mod init;
mod role;
mod signals;
mod supervision;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    if let Some(code) = role::play() {
        return code;
    }
    let trials = supervision::TESTS.iter().chain(signals::TESTS).chain(init::TESTS);
    let trials = trials.map(|(name, test)| {
        Trial::test(*name, || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// Names each of these functions and lists them as this file's tests.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        pub const TESTS: &[(&str, fn())] = &[$((concat!(module_path!(), "::", stringify!($name)), $name)),+];
    };
}
pub(crate) use tests;
