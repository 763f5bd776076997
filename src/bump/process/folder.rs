//! The folder of one process in `/proc`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;
use rustix::param::clock_ticks_per_second;

use super::parse::{self, Stat, Status};
use crate::bump::BumpError;

/// What is read of a command line at most: it may be as long as its program likes, which may be a hostile one.
const COMMAND_LINE_BYTES_MAX: u64 = 64 * 1024;

/// What is read of the kernel's own text at most; the longest is the list of a user's groups, of which there may be
/// 65,536.
const TEXT_BYTES_MAX: u64 = 1024 * 1024;

/// Why something of a process cannot be read.
#[derive(Debug)]
pub enum Obstacle {
    /// It has ended.
    Gone,
    /// It is another user's, and `/proc` is mounted with `hidepid`.
    Hidden,
    Failed(BumpError),
}

/// The folder of one process, opened. It remains that of this process: once it has ended, nothing can be read from
/// there, even if its PID is used again.
#[derive(Debug)]
pub struct Folder {
    pid: u32,
    folder: OwnedFd,
}

impl Folder {
    pub fn open(pid: u32) -> Result<Self, Obstacle> {
        let path = format!("/proc/{pid}");
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&path, flags, Mode::empty());
        let folder = opened.map_err(|error| obstacle(&path, &error.into()))?;
        Ok(Self { pid, folder })
    }

    /// What it is and when it was started. A process is gone even if its parent has not taken note of its end yet.
    pub fn stat(&self) -> Result<Stat, Obstacle> {
        let text = self.read("stat", TEXT_BYTES_MAX)?;
        let stat = parse::stat(&text, clock_ticks_per_second()).ok_or_else(|| self.malformed("stat"))?;
        if stat.is_ended { Err(Obstacle::Gone) } else { Ok(stat) }
    }

    pub fn status(&self) -> Result<Status, Obstacle> {
        self.status_in("status")
    }

    /// The status of each of its threads.
    pub fn threads(&self) -> Result<Vec<Status>, Obstacle> {
        let failed = |error: Errno| obstacle(&format!("/proc/{}/task", self.pid), &error.into());
        let mut threads = Vec::new();
        for entry in Dir::new(self.open_at("task", OFlags::DIRECTORY).map_err(failed)?).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            match self.status_in(&format!("task/{name}/status")) {
                // A thread may end meanwhile.
                Err(Obstacle::Gone) => {}
                status => threads.push(status?),
            }
        }
        Ok(threads)
    }

    /// The words of its command line, as far as they are in its first 64 KiB; none of a kernel thread, nor
    /// for a moment of one within `execve(2)`.
    pub fn command_line(&self) -> Result<Option<String>, Obstacle> {
        Ok(parse::command_line(&self.read("cmdline", COMMAND_LINE_BYTES_MAX)?))
    }

    fn status_in(&self, name: &str) -> Result<Status, Obstacle> {
        parse::status(&self.read(name, TEXT_BYTES_MAX)?).ok_or_else(|| self.malformed(name))
    }

    fn read(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, Obstacle> {
        let mut bytes = Vec::new();
        let read = self.open_at(name, OFlags::empty()).map_err(io::Error::from);
        let read = read.and_then(|file| File::from(file).take(bytes_max).read_to_end(&mut bytes));
        read.map_err(|error| obstacle(&format!("/proc/{}/{name}", self.pid), &error))?;
        Ok(bytes)
    }

    fn open_at(&self, name: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        rustix::fs::openat(&self.folder, name, flags | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    }

    fn malformed(&self, name: &str) -> Obstacle {
        let pid = self.pid;
        Obstacle::Failed(BumpError::Failed(format!(
            "/proc/{pid}/{name} is not what proc(5) describes: mount the /proc of a Linux kernel"
        )))
    }
}

fn obstacle(path: &str, error: &io::Error) -> Obstacle {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::SRCH) => Obstacle::Gone,
        Some(Errno::ACCESS | Errno::PERM) => Obstacle::Hidden,
        _ => Obstacle::Failed(BumpError::Failed(format!("cannot read {path}: {error}"))),
    }
}
