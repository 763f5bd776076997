//! What a process takes of the machine.

use std::fs;
use std::path::{Path, PathBuf};

/// At one moment.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Open file descriptors.
    pub descriptors: u64,
    pub threads: u64,
    /// Memory that is resident, in KiB.
    pub resident_kib: u64,
    /// The most that was ever resident, in KiB.
    pub peak_kib: u64,
}

impl Usage {
    pub fn of(pid: u32) -> Self {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let status = fs::read_to_string(process.join("status")).expect("a running process");
        let number = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name));
            let number = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
            number.unwrap_or_else(|| panic!("no {name} in {status}"))
        };
        Self {
            descriptors: count(&process.join("fd")),
            threads: number("Threads:"),
            resident_kib: number("VmRSS:"),
            peak_kib: number("VmHWM:"),
        }
    }
}

fn count(folder: &Path) -> u64 {
    fs::read_dir(folder).expect("a running process").count() as u64
}
