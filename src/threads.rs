//! Threads for work that may wait: reading long answers and manifests, looking up names, starting programs.
//!
//! The kernel can refuse a thread at any time: by the `pids.max` of a cgroup, by `RLIMIT_NPROC`, or by a seccomp profile.
//! So a pool that has a thread keeps one, and work waits for the pool's threads while there can be no other. Without any
//! thread the work is refused, and the caller tries again later.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;

#[cfg(test)]
mod tests;

/// Reads long answers and files, and looks up names.
pub static READERS: Pool = Pool::new("reader", Growth::ByCaller);

/// How many threads one pool has at most.
const THREADS_MAX: usize = 64;

/// How many pieces of work may wait for a thread.
const WAITING_MAX: usize = 1024;

/// How long a thread without work stays, unless it is the last one.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// How much of its stack the work uses at most, without optimization, where values are in reach.
const USED_STACK_BYTES: usize = 48 * 1024;

type Job = Box<dyn FnOnce() + Send>;

/// Why work is not done.
#[derive(Debug, Error)]
pub enum ThreadError {
    #[error(
        "cannot start a thread: {0}; raise the limit on processes (pids.max of the cgroup, RLIMIT_NPROC), or allow clone and \
         clone3 in the seccomp profile"
    )]
    Refused(io::Error),
    #[error("cannot wait for a thread: {WAITING_MAX} others wait already; see what keeps the threads")]
    Full,
    #[error("cannot finish the work of a thread: the thread has ended; this is a bug, please report it")]
    Ended,
}

impl From<ThreadError> for io::Error {
    fn from(error: ThreadError) -> Self {
        Self::other(error)
    }
}

/// Which thread starts another one, and so gives it its own rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Growth {
    /// The thread that asks for work.
    ByCaller,
    /// A thread of the pool that begins work while no other one is idle. The first is started by the caller.
    ByThread,
}

/// Threads that share one queue.
#[derive(Debug)]
pub struct Pool {
    name: &'static str,
    growth: Growth,
    state: Mutex<State>,
    /// Tells idle threads that there is work, or that they are replaced.
    news: Condvar,
}

struct State {
    waiting: VecDeque<Job>,
    threads: usize,
    idle: usize,
    /// Counts the calls of [`Pool::renew`]; threads of an earlier one end after their work.
    era: usize,
    /// A thread was refused, and none has been started since.
    is_short: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("threads", &self.threads).field("idle", &self.idle).finish_non_exhaustive()
    }
}

impl Pool {
    #[must_use]
    pub const fn new(name: &'static str, growth: Growth) -> Self {
        let state = State { waiting: VecDeque::new(), threads: 0, idle: 0, era: 0, is_short: false };
        Self { name, growth, state: Mutex::new(state), news: Condvar::new() }
    }

    /// Does the work on a thread of the pool, and returns the outcome.
    ///
    /// # Errors
    ///
    /// As [`Pool::spawn`].
    pub async fn run<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ThreadError> {
        self.spawn(work)?.await.map_err(|_| ThreadError::Ended)
    }

    /// Begins the work on a thread of the pool; the receiver gets the outcome. Work whose receiver is gone is left out.
    ///
    /// # Errors
    ///
    /// [`ThreadError`] if the pool has no thread and cannot start one, or too much work waits.
    pub fn spawn<T: Send + 'static>(
        &'static self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<oneshot::Receiver<T>, ThreadError> {
        let (reply, outcome) = oneshot::channel();
        self.push(Box::new(move || {
            if !reply.is_closed() {
                // A caller that has given up needs no outcome.
                drop(reply.send(work()));
            }
        }))?;
        Ok(outcome)
    }

    /// Replaces the threads by one that the calling thread starts, and so has the rights of the calling thread. It stays in
    /// reserve.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started. The pool tries again when there is work.
    pub fn renew(&'static self) -> io::Result<()> {
        let mut state = self.lock();
        state.era += 1;
        (state.threads, state.idle) = (0, 0);
        self.news.notify_all();
        self.start(&mut state)
    }

    fn push(&'static self, job: Job) -> Result<(), ThreadError> {
        let mut state = self.lock();
        if state.waiting.len() >= WAITING_MAX {
            return Err(ThreadError::Full);
        }
        state.waiting.push_back(job);
        if state.idle >= state.waiting.len() {
            self.news.notify_one();
            return Ok(());
        }
        if state.threads > 0 && (self.growth == Growth::ByThread || state.threads >= THREADS_MAX) {
            return Ok(());
        }
        match self.start(&mut state) {
            Ok(()) => Ok(()),
            Err(error) if state.threads == 0 => {
                state.waiting.pop_back();
                Err(ThreadError::Refused(error))
            }
            Err(error) => {
                warn(state, error);
                Ok(())
            }
        }
    }

    fn start(&'static self, state: &mut State) -> io::Result<()> {
        let era = state.era;
        thread::Builder::new().name(self.name.to_owned()).spawn(move || self.work(era))?;
        state.threads += 1;
        state.is_short = false;
        Ok(())
    }

    /// The life of a thread.
    fn work(&'static self, era: usize) {
        let mut state = self.lock();
        while state.era == era {
            let Some(job) = state.waiting.pop_front() else {
                let is_over;
                (state, is_over) = self.wait(state, era);
                if is_over {
                    return;
                }
                continue;
            };
            if self.growth == Growth::ByThread && state.idle == 0 && state.threads < THREADS_MAX {
                match self.start(&mut state) {
                    Ok(()) => drop(state),
                    Err(error) => warn(state, error),
                }
            } else {
                drop(state);
            }
            job();
            overwrite_stack();
            state = self.lock();
        }
    }

    /// Waits for news as an idle thread. Returns whether the thread ends, because there was no work for long and others are
    /// left; the thread is not counted any more then.
    fn wait<'s>(&self, mut state: MutexGuard<'s, State>, era: usize) -> (MutexGuard<'s, State>, bool) {
        state.idle += 1;
        let was_long;
        if state.threads > 1 {
            let (waited, timeout) = self.news.wait_timeout(state, IDLE_MAX).unwrap_or_else(PoisonError::into_inner);
            (state, was_long) = (waited, timeout.timed_out());
        } else {
            (state, was_long) = (self.news.wait(state).unwrap_or_else(PoisonError::into_inner), false);
        }
        if state.era != era {
            return (state, true);
        }
        state.idle -= 1;
        let is_over = was_long && state.threads > 1 && state.waiting.is_empty();
        if is_over {
            state.threads -= 1;
        }
        (state, is_over)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No work is done while the lock is held, and the state is whole at each step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Overwrites the stack that the work has used: the last block of a hash there can be a Secret's value.
#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "the stack is what it overwrites")]
fn overwrite_stack() {
    std::hint::black_box(&mut [0_u8; USED_STACK_BYTES]);
}

/// Logs once that a pool cannot grow, after releasing the lock.
fn warn(mut state: MutexGuard<'_, State>, error: io::Error) {
    let (threads, was_short) = (state.threads, std::mem::replace(&mut state.is_short, true));
    drop(state);
    if !was_short {
        let error = ThreadError::Refused(error);
        tracing::warn!(event = "thread_refused", threads, "{error}; work waits for the {threads} that there are");
    }
}
