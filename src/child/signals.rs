//! The signals that configbump gets and the program should have.
//!
//! These are all that a process can get, real-time ones included, but for SIGCHLD, which is about configbump's own children.
//! `signal-hook` catches most of them, since it tells where one comes from: a SIGPIPE of configbump's own write must not kill
//! the program, and a Ctrl-C that the terminal has given to both must not reach it twice. It leaves out those of a fault, which
//! come another way.

use std::io;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Signal, getpid};
use rustix_libc_wrappers::process::SignalExt as _;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};

use super::faults::Faults;
use super::{Farewell, Handle, Message, shares_terminal};

/// What a process cannot catch, what is about configbump's own children, and the [`faults`](super::faults).
const NOT_CAUGHT: [Signal; 9] = [
    Signal::KILL,
    Signal::STOP,
    Signal::CHILD,
    Signal::ILL,
    Signal::FPE,
    Signal::SEGV,
    Signal::BUS,
    Signal::TRAP,
    Signal::SYS,
];

/// What stops a process that does not catch it. A configbump that shares the terminal with the program stops with it.
const JOB_CONTROL: [Signal; 3] = [Signal::TSTP, Signal::TTIN, Signal::TTOU];

/// What a terminal sends: `termios(3)`, and SIGHUP, SIGCONT and SIGWINCH of `tty_ioctl(4)`.
const OF_A_TERMINAL: [Signal; 8] =
    [Signal::INT, Signal::QUIT, Signal::HUP, Signal::CONT, Signal::WINCH, Signal::TSTP, Signal::TTIN, Signal::TTOU];

/// One past the highest signal of any kind of Linux.
const SIGNAL_MAX: i32 = 128;

/// `timeout(1)` sends its signal to the process, and then to its group: for whoever leads the group that is one request.
const SAME_REQUEST: Duration = Duration::from_millis(200);

/// A signal that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    pub signal: Signal,
    /// The terminal has sent it, to every process of the group.
    pub by_terminal: bool,
}

/// The signals that come, from the moment that this is made: those that are asked for, and faults that are held.
#[derive(Debug)]
pub(super) struct Arrivals {
    caught: SignalDelivery<UnixStream, WithOrigin>,
    faults: Faults,
}

impl Arrivals {
    pub(super) fn of(signals: impl IntoIterator<Item = Signal>) -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        let signals = signals.into_iter().map(Signal::as_raw);
        let caught = SignalDelivery::with_pipe(read, write, WithOrigin::default(), signals)?;
        Ok(Self { caught, faults: Faults::new()? })
    }

    /// Waits for the next ones, for ever.
    pub(super) fn next(&mut self) -> io::Result<Vec<Arrival>> {
        let mut sources =
            [PollFd::new(self.caught.get_read(), PollFlags::IN), PollFd::new(&self.faults, PollFlags::IN)];
        match poll(&mut sources, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut arrivals: Vec<Arrival> = self.caught.pending().filter_map(|origin| arrival(&origin)).collect();
        while let Some(signal) = self.faults.next()? {
            arrivals.push(Arrival { signal, by_terminal: false });
        }
        Ok(arrivals)
    }
}

/// All that is caught and passed on.
pub(super) fn passed_on() -> impl Iterator<Item = Signal> {
    (1..SIGNAL_MAX).filter_map(Signal::from_raw).filter(|signal| !NOT_CAUGHT.contains(signal))
}

/// What has come, unless it is about configbump itself: raised by a system call of its own, or by one of its limits.
fn arrival(origin: &Origin) -> Option<Arrival> {
    let signal = Signal::from_raw(origin.signal)?;
    let ours = origin.process.is_some_and(|sender| sender.pid == getpid().as_raw_nonzero().get());
    match origin.cause {
        Cause::Kernel if OF_A_TERMINAL.contains(&signal) => Some(Arrival { signal, by_terminal: true }),
        Cause::Kernel => None,
        Cause::Sent(_) if ours => None,
        _ => Some(Arrival { signal, by_terminal: false }),
    }
}

/// From now on the program gets what configbump is sent. SIGTERM and SIGINT ask it to end, and configbump with it; a
/// second one of them ends the grace. Those of a fault are passed on if they were [held](super::hold_faults).
///
/// # Errors
///
/// When the signals cannot be caught, or there is no thread to wait for them.
pub fn pass_on(handle: Handle) -> io::Result<()> {
    let shared = shares_terminal();
    let mut arrivals = Arrivals::of(passed_on().filter(|signal| !(shared && JOB_CONTROL.contains(signal))))?;
    let mut relay = Relay { shared, first_request: None };
    let wait = move || {
        loop {
            let batch = match arrivals.next() {
                Ok(batch) => batch,
                Err(error) => {
                    return tracing::error!("signals reach the program no more, as they cannot be waited for: {error}");
                }
            };
            for arrival in batch {
                if let Some(message) = relay.message(arrival, Instant::now())
                    && !handle.send_blocking(message)
                {
                    return;
                }
            }
        }
    };
    thread::Builder::new().name("signals".into()).spawn(wait).map(drop)
}

/// What a signal to configbump means for the program.
#[derive(Debug)]
struct Relay {
    /// The program is in configbump's process group.
    shared: bool,
    first_request: Option<Instant>,
}

impl Relay {
    fn message(&mut self, Arrival { signal, by_terminal }: Arrival, now: Instant) -> Option<Message> {
        let had = self.shared && by_terminal;
        match signal {
            Signal::TERM | Signal::INT => match self.first_request {
                None => {
                    self.first_request = Some(now);
                    Some(Message::Stop(match signal {
                        Signal::TERM => Farewell::Usual,
                        _ if had => Farewell::Had(signal),
                        _ => Farewell::This(signal),
                    }))
                }
                Some(first) if now.duration_since(first) < SAME_REQUEST => None,
                Some(_) => Some(Message::StopNow),
            },
            _ if had => None,
            _ => Some(Message::Signal(signal)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: Arrival = Arrival { signal: Signal::TERM, by_terminal: false };
    const CTRL_C: Arrival = Arrival { signal: Signal::INT, by_terminal: true };

    #[test]
    fn a_second_request_ends_the_grace_unless_it_comes_with_the_first() {
        let mut relay = Relay { shared: false, first_request: None };
        let start = Instant::now();
        assert!(matches!(relay.message(SENT, start), Some(Message::Stop(Farewell::Usual))));
        assert!(relay.message(SENT, start + SAME_REQUEST / 2).is_none());
        assert!(matches!(relay.message(SENT, start + SAME_REQUEST), Some(Message::StopNow)));
    }

    #[test]
    fn what_a_shared_terminal_sends_is_not_sent_twice() {
        let now = Instant::now();
        let hangup = Arrival { signal: Signal::HUP, by_terminal: true };

        let mut shared = Relay { shared: true, first_request: None };
        assert!(shared.message(hangup, now).is_none());
        assert!(matches!(shared.message(CTRL_C, now), Some(Message::Stop(Farewell::Had(Signal::INT)))));

        let mut apart = Relay { shared: false, first_request: None };
        assert!(matches!(apart.message(hangup, now), Some(Message::Signal(Signal::HUP))));
        assert!(matches!(apart.message(CTRL_C, now), Some(Message::Stop(Farewell::This(Signal::INT)))));
    }

    #[test]
    fn real_time_signals_are_caught_and_those_about_ourselves_are_not() {
        let passed: Vec<_> = passed_on().map(Signal::as_raw).collect();
        assert!([1, 2, 3, 10, 13, 15, 20, 28, 35, 50, 64].iter().all(|signal| passed.contains(signal)), "{passed:?}");
        assert!(NOT_CAUGHT.iter().all(|signal| !passed.contains(&signal.as_raw())), "{passed:?}");
    }
}
