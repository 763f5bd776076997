//! The signals that configbump gets and the program should have.
//!
//! These are all that can be caught, real-time ones included, but for SIGCHLD, which is about configbump's own children,
//! and those that a fault of configbump itself raises. `signal-hook` catches them, since it tells where one comes from: a
//! SIGPIPE of configbump's own write must not kill the program, and a Ctrl-C that the terminal has given to both must not
//! reach it twice.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid};
use rustix_libc_wrappers::process::SignalExt as _;
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::{Cause, Origin};

use super::{Farewell, Handle, Message, shares_terminal};

/// What a process cannot catch, what is about configbump's own children, and what a fault raises in whoever commits it.
const OUR_OWN: [Signal; 9] = [
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

/// The signals that come, from the moment that this is made.
#[derive(Debug)]
pub(super) struct Arrivals(SignalsInfo<WithOrigin>);

impl Arrivals {
    pub(super) fn of(signals: impl IntoIterator<Item = Signal>) -> io::Result<Self> {
        SignalsInfo::new(signals.into_iter().map(Signal::as_raw)).map(Self)
    }

    /// Waits for the next one, for ever.
    pub(super) fn iter(&mut self) -> impl Iterator<Item = Arrival> {
        self.0.forever().filter_map(|origin| arrival(&origin))
    }
}

/// All that is passed on.
pub(super) fn passed_on() -> impl Iterator<Item = Signal> {
    (1..SIGNAL_MAX).filter_map(Signal::from_raw).filter(|signal| !OUR_OWN.contains(signal))
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
/// second one of them ends the grace.
///
/// # Errors
///
/// When the signals cannot be caught, or there is no thread to wait for them.
pub fn pass_on(handle: Handle) -> io::Result<()> {
    let shared = shares_terminal();
    let mut arrivals = Arrivals::of(passed_on().filter(|signal| !(shared && JOB_CONTROL.contains(signal))))?;
    let mut relay = Relay { shared, first_request: None };
    let wait = move || {
        for arrival in arrivals.iter() {
            if let Some(message) = relay.message(arrival, Instant::now())
                && !handle.send_blocking(message)
            {
                break;
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
    fn real_time_signals_are_passed_on_and_those_about_ourselves_are_not() {
        let passed: Vec<_> = passed_on().map(Signal::as_raw).collect();
        assert!([1, 2, 3, 10, 13, 15, 20, 28, 35, 50, 64].iter().all(|signal| passed.contains(signal)), "{passed:?}");
        assert!(OUR_OWN.iter().all(|signal| !passed.contains(&signal.as_raw())), "{passed:?}");
    }
}
