//! Writes to stderr without waiting for its reader.
//!
//! When a pipe is full because its reader has stopped, a write would keep the whole pipeline, the probes and SIGTERM
//! waiting. COMMAND and others share the description of stderr, so it must stay as it is (`O_NONBLOCK` is a property of
//! the description). configbump opens a description of its own for the same pipe or terminal. What cannot be written at
//! once waits in a bounded queue; lines without room there are dropped and counted.

use std::io::{self, Stderr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::{Errno, retry_on_intr};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

#[cfg(test)]
mod tests;

/// The stderr of this process.
pub static STDERR: LazyLock<Sink> = LazyLock::new(|| Sink::new(Target::stderr()));

/// How many bytes wait for the reader at most.
const WAITING_BYTES_MAX: usize = 64 * 1024;

/// A pipe takes this much whole or not at all (`PIPE_BUF`), so lines of several writers do not mix.
const PIECE_BYTES_MAX: usize = 4096;

/// How long the lines that wait when configbump ends may take.
const FINISH_MAX: Duration = Duration::from_secs(1);

/// Lets the reader make more room than a terminal reports first.
const PAUSE: Duration = Duration::from_millis(20);

/// The wait between two attempts where the kernel does not report that there is room.
const RETRY: Duration = Duration::from_secs(1);

/// Where lines go, and those that wait.
#[derive(Debug)]
pub struct Sink {
    target: Target,
    queue: Mutex<Queue>,
    /// Tells [`Sink::drain`] that something waits.
    news: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    bytes: Vec<u8>,
    /// Lines that had no room since this was last logged.
    dropped: usize,
}

#[derive(Debug)]
enum Target {
    /// Its own description of a pipe or terminal, which does not block.
    Own(OwnedFd),
    /// A pipe, terminal or socket that cannot be opened again. Before each write, `poll(2)` says whether there is room.
    Shared(Stderr),
    /// A file, which has no reader to wait for.
    File(Stderr),
}

impl Sink {
    fn new(target: Target) -> Self {
        Self { target, queue: Mutex::default(), news: Notify::new() }
    }

    /// Writes a line at once, or queues it.
    pub fn write(&self, line: &[u8]) {
        let mut queue = self.lock();
        let written = if queue.is_empty() { self.target.write(line) } else { Err(Errno::AGAIN) };
        let rest = match written {
            Ok(length) => &line[length..],
            Err(Errno::AGAIN) => line,
            // There is no stderr any more, and nothing else to log to.
            Err(_) => return,
        };
        if rest.is_empty() {
            return;
        }
        // The end of a line that has begun needs its room.
        if rest.len() == line.len() && queue.bytes.len() + rest.len() > WAITING_BYTES_MAX {
            queue.dropped += 1;
        } else {
            queue.bytes.extend_from_slice(rest);
        }
        self.news.notify_one();
    }

    /// Returns true if something waits for the reader.
    pub fn is_blocked(&self) -> bool {
        !self.lock().is_empty()
    }

    /// Writes what waits whenever the reader has made room, for ever. Never wakes up while nothing waits.
    pub async fn drain(&self) {
        loop {
            self.news.notified().await;
            while !self.write_waiting() {
                self.writable().await;
                tokio::time::sleep(PAUSE).await;
            }
            self.log_dropped();
        }
    }

    /// Writes what waits, for a bounded time; to be called when nothing follows.
    pub fn finish(&self) {
        let end = Instant::now() + FINISH_MAX;
        while !self.write_waiting() && Instant::now() < end {
            self.target.wait(end.saturating_duration_since(Instant::now()));
        }
        self.log_dropped();
    }

    /// Writes what waits as far as there is room. Returns true if nothing is left.
    fn write_waiting(&self) -> bool {
        let mut queue = self.lock();
        while !queue.bytes.is_empty() {
            match self.target.write(piece(&queue.bytes)) {
                Ok(length) => drop(queue.bytes.drain(..length)),
                Err(Errno::AGAIN) => return false,
                Err(_) => queue.bytes.clear(),
            }
        }
        queue.bytes = Vec::new();
        true
    }

    /// Logs how many lines were dropped, once there is room.
    fn log_dropped(&self) {
        let mut queue = self.lock();
        if !queue.bytes.is_empty() {
            return;
        }
        let lines = std::mem::take(&mut queue.dropped);
        drop(queue);
        if lines > 0 {
            tracing::warn!(
                event = "log_dropped",
                lines,
                "dropped {lines} log lines: the reader of stderr did not read; see what reads the log"
            );
        }
    }

    /// Waits until there may be room.
    async fn writable(&self) {
        #[allow(deprecated, reason = "its replacement is unsafe, for types that may change their descriptor")]
        let fd = AsyncFd::with_interest(self.target.as_fd(), Interest::WRITABLE);
        match fd {
            // A reader that is gone counts as room, and the write fails.
            Ok(fd) => drop(fd.writable().await),
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.dropped == 0
    }
}

/// Returns the whole lines at the beginning that are written at once; a part of a line that is too long for that.
fn piece(bytes: &[u8]) -> &[u8] {
    let piece = &bytes[..bytes.len().min(PIECE_BYTES_MAX)];
    let end = piece.iter().rposition(|byte| *byte == b'\n').map_or(piece.len(), |last| last + 1);
    &piece[..end]
}

impl Target {
    fn stderr() -> Self {
        let stderr = io::stderr();
        let kind = fstat(&stderr).map(|stat| FileType::from_raw_mode(stat.st_mode));
        match kind {
            Ok(FileType::Fifo | FileType::CharacterDevice) => {}
            Ok(FileType::Socket) => return Self::Shared(stderr),
            _ => return Self::File(stderr),
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match open("/proc/self/fd/2", flags, Mode::empty()) {
            Ok(own) => Self::Own(own),
            // Without /proc, or where another user has made the pipe.
            Err(_) => Self::Shared(stderr),
        }
    }

    /// Writes as much as there is room for; [`Errno::AGAIN`] if there is none.
    fn write(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let bytes = match self {
            Self::Own(_) | Self::File(_) => bytes,
            Self::Shared(_) if !self.wait(Duration::ZERO) => return Err(Errno::AGAIN),
            Self::Shared(_) => &bytes[..bytes.len().min(PIECE_BYTES_MAX)],
        };
        retry_on_intr(|| rustix::io::write(self.as_fd(), bytes))
    }

    /// Waits for so long until there is room. Returns true if there is.
    fn wait(&self, limit: Duration) -> bool {
        let limit = Timespec::try_from(limit).ok();
        let fd = self.as_fd();
        poll(&mut [PollFd::new(&fd, PollFlags::OUT)], limit.as_ref()).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for Target {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(own) => own.as_fd(),
            Self::Shared(stderr) | Self::File(stderr) => stderr.as_fd(),
        }
    }
}
