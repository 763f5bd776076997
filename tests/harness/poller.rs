//! Somebody who looks at DIR all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// Looks again and again, on a thread of its own, until it is told to stop.
pub struct Poller<T> {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Default + Send + 'static> Poller<T> {
    /// `look` panics at what must never be seen, and notes what it has seen.
    pub fn start(mut look: impl FnMut(&mut T) + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let watch = move || {
            let mut seen = T::default();
            while !is_over.load(Ordering::Relaxed) {
                look(&mut seen);
            }
            seen
        };
        Self { over, thread: Some(std::thread::spawn(watch)) }
    }

    /// What it has seen. Fails if it ever saw what must not be.
    pub fn stop(mut self) -> T {
        self.over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it is stopped once");
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// However the test ends, nobody goes on looking.
impl<T> Drop for Poller<T> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}
