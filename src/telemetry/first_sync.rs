//! What is shown of a first sync that takes longer than a moment: on a terminal a line that is drawn again in its place, else
//! a line of the log now and then. How much is still to come no server says while it streams a list, so it is a count.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::sink::STDERR;
use super::{Format, Level};

/// A sync that is over by then needs no telling, on a terminal…
const BAR_AFTER: Duration = Duration::from_secs(1);
/// …and in the log, where the next line waits twice as long, up to…
const LINE_AFTER: Duration = Duration::from_secs(3);
/// …this.
const LINE_WAIT_MAX: Duration = Duration::from_secs(60);

/// How often the line of a terminal is drawn while something happens…
const BAR_BUSY: Duration = Duration::from_millis(200);
/// …and while nothing does, so that its clock goes on.
const BAR_IDLE: Duration = Duration::from_secs(1);

/// To the beginning of the line, and nothing after it (ECMA-48: CR, EL).
const CLEAR: &[u8] = b"\r\x1b[K";

/// Whether the terminal's last line is the bar, which has to go before anything else is written.
static IS_DRAWN: AtomicBool = AtomicBool::new(false);

/// stderr without the bar; see [`STDERR`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Console;

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        clear();
        STDERR.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The first sync, from its beginning to its end.
#[derive(Debug)]
pub struct FirstSync {
    is_bar: bool,
    began: Instant,
    /// When to show something next; `None`: never again.
    due: Option<Instant>,
    /// How long the last wait was.
    wait: Duration,
    objects: usize,
    /// How many objects the bar shows.
    drawn: usize,
}

impl FirstSync {
    /// It begins now, with a log of this form and level.
    #[must_use]
    pub fn begin(format: Format, level: Level) -> Self {
        let is_terminal = io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self::new(format == Format::Text && level >= Level::Info && is_terminal)
    }

    fn new(is_bar: bool) -> Self {
        let (began, wait) = (Instant::now(), if is_bar { BAR_AFTER } else { LINE_AFTER });
        Self { is_bar, began, due: Some(began + wait), wait, objects: 0, drawn: 0 }
    }

    /// An object has been read.
    pub fn read_object(&mut self) {
        self.objects += 1;
    }

    /// Waits until it is time to show something.
    pub async fn due(&self) {
        match self.due {
            Some(due) => sleep_until(due).await,
            None => std::future::pending().await,
        }
    }

    /// Shows how far it is; so many files have been written.
    pub fn show(&mut self, files: usize) {
        if self.due.is_none() {
            return;
        }
        let (objects, seconds) = (self.objects, self.began.elapsed().as_secs());
        let text = format!("syncing: {objects} objects read, {files} files written, {seconds} s");
        if self.is_bar {
            draw(&text);
            self.wait = if objects == self.drawn { BAR_IDLE } else { BAR_BUSY };
            self.drawn = objects;
        } else {
            tracing::info!(event = "syncing", objects, files, seconds, "{text}");
            self.wait = (self.wait * 2).min(LINE_WAIT_MAX);
        }
        self.due = Some(Instant::now() + self.wait);
    }

    /// It is over. Gives how long it took.
    pub fn end(&mut self) -> Duration {
        self.due = None;
        if self.is_bar {
            clear();
        }
        self.began.elapsed()
    }
}

impl Drop for FirstSync {
    fn drop(&mut self) {
        self.end();
    }
}

/// Draws the bar, unless the terminal takes nothing at the moment.
fn draw(text: &str) {
    if !STDERR.is_blocked() {
        STDERR.write(&[CLEAR, text.as_bytes()].concat());
        IS_DRAWN.store(true, Ordering::Relaxed);
    }
}

fn clear() {
    if IS_DRAWN.swap(false, Ordering::Relaxed) {
        STDERR.write(CLEAR);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_quick_sync_is_over_before_anything_is_shown() {
        for is_bar in [true, false] {
            let mut sync = FirstSync::new(is_bar);
            let early = tokio::time::timeout(Duration::from_millis(999), sync.due()).await;
            assert!(early.is_err(), "{is_bar}");
            sync.end();
            let late = tokio::time::timeout(Duration::from_secs(3600), sync.due()).await;
            assert!(late.is_err(), "{is_bar}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn in_the_log_the_lines_become_rare_and_end_with_the_sync() {
        let mut sync = FirstSync::new(false);
        let mut waits = Vec::new();
        for _ in 0..7 {
            let before = Instant::now();
            sync.due().await;
            waits.push((before.elapsed().as_millis() + 500) / 1000);
            sync.show(0);
        }
        assert_eq!(waits, [3, 6, 12, 24, 48, 60, 60]);
        assert!(sync.end() > Duration::from_secs(200));
        let again = tokio::time::timeout(Duration::from_secs(3600), sync.due()).await;
        assert!(again.is_err(), "nothing wakes up after the end");
    }
}
