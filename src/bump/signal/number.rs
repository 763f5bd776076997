//! A signal by name and number.

use std::fmt;
use std::str::FromStr;

use rustix::process::Signal as Raw;
use rustix_libc_wrappers::process::SignalExt;

use crate::bump::process::one_line;

/// The first and the last real-time signal as every program of glibc counts them (`signal(7)`), whatever C library
/// configbump itself is linked with: a name means what it means to the target. musl keeps the first for itself, so a static
/// configbump refuses it.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// The standard signals of `signal(7)`, each by the name that it is shown with.
const NAMES: [(&str, Raw); 31] = [
    ("HUP", Raw::HUP),
    ("INT", Raw::INT),
    ("QUIT", Raw::QUIT),
    ("ILL", Raw::ILL),
    ("TRAP", Raw::TRAP),
    ("ABRT", Raw::ABORT),
    ("BUS", Raw::BUS),
    ("FPE", Raw::FPE),
    ("KILL", Raw::KILL),
    ("USR1", Raw::USR1),
    ("SEGV", Raw::SEGV),
    ("USR2", Raw::USR2),
    ("PIPE", Raw::PIPE),
    ("ALRM", Raw::ALARM),
    ("TERM", Raw::TERM),
    ("STKFLT", Raw::STKFLT),
    ("CHLD", Raw::CHILD),
    ("CONT", Raw::CONT),
    ("STOP", Raw::STOP),
    ("TSTP", Raw::TSTP),
    ("TTIN", Raw::TTIN),
    ("TTOU", Raw::TTOU),
    ("URG", Raw::URG),
    ("XCPU", Raw::XCPU),
    ("XFSZ", Raw::XFSZ),
    ("VTALRM", Raw::VTALARM),
    ("PROF", Raw::PROF),
    ("WINCH", Raw::WINCH),
    ("IO", Raw::IO),
    ("PWR", Raw::POWER),
    ("SYS", Raw::SYS),
];

/// Other names of standard signals.
const SYNONYMS: [(&str, Raw); 4] = [("IOT", Raw::ABORT), ("CLD", Raw::CHILD), ("POLL", Raw::IO), ("UNUSED", Raw::SYS)];

/// A signal that can be sent, real-time ones included.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signal(Raw);

/// Why a text is no signal; one line that says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{}` is {problem}; write a name such as HUP, SIGUSR1 or RTMIN+3, or a number from 1 to {RTMAX}",
    one_line(text)
)]
pub struct SignalError {
    text: String,
    problem: &'static str,
}

impl Signal {
    pub const HUP: Self = Self(Raw::HUP);

    /// Its number, from 1 to 64.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0.as_raw()
    }

    pub(crate) fn raw(self) -> Raw {
        self.0
    }

    /// Whether it ends or stops a process that has done nothing about it (`signal(7)`, actions Term, Core and Stop).
    #[must_use]
    pub fn default_action_is_harmful(self) -> bool {
        ![Raw::CHILD, Raw::CONT, Raw::URG, Raw::WINCH].contains(&self.0)
    }

    /// Whether whoever sends it wants the process to end or to stop.
    #[must_use]
    pub fn is_meant_to_end(self) -> bool {
        [Raw::TERM, Raw::INT, Raw::QUIT, Raw::KILL, Raw::STOP].contains(&self.0)
    }
}

impl FromStr for Signal {
    type Err = SignalError;

    /// Reads a number, or a name in any case, with or without `SIG`; `RTMIN+3` and `RTMAX-1` are names, too.
    fn from_str(text: &str) -> Result<Self, SignalError> {
        let error = |problem| SignalError { text: text.to_owned(), problem };
        let upper = text.trim().to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some((_, raw)) = NAMES.iter().chain(&SYNONYMS).find(|(known, _)| *known == name) {
            return Ok(Self(*raw));
        }
        let number = count(&upper).or_else(|| real_time(name)).ok_or_else(|| error("no signal"))?;
        match Raw::from_raw(number) {
            Some(raw) => Ok(Self(raw)),
            None if (1..=RTMAX).contains(&number) => Err(error("kept by the C library for itself")),
            None => Err(error("no signal")),
        }
    }
}

/// The number of a real-time signal by its name without `SIG`.
fn real_time(name: &str) -> Option<i32> {
    let (base, direction, rest) = match name.strip_prefix("RTMIN") {
        Some(rest) => (RTMIN, '+', rest),
        None => (RTMAX, '-', name.strip_prefix("RTMAX")?),
    };
    if rest.is_empty() {
        return Some(base);
    }
    let offset = count(rest.strip_prefix(direction)?)?;
    let number = if direction == '+' { base.checked_add(offset)? } else { base.checked_sub(offset)? };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

/// A number without a sign.
fn count(text: &str) -> Option<i32> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, raw)| *raw == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None if self.number() == RTMIN => f.write_str("SIGRTMIN"),
            None => write!(f, "SIGRTMIN+{}", self.number() - RTMIN),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number_of(text: &str) -> i32 {
        text.parse::<Signal>().map_or_else(|error| panic!("{error}"), Signal::number)
    }

    #[test]
    fn a_name_is_read_with_or_without_sig_in_any_case() {
        for text in ["HUP", "hup", "SIGHUP", "sighup", "SigHup", " 1 ", "1", "01"] {
            assert_eq!(number_of(text), 1, "{text}");
        }
        assert_eq!(number_of("IOT"), number_of("SIGABRT"));
        assert_eq!(number_of("POLL"), number_of("IO"));
    }

    #[test]
    fn real_time_signals_are_counted_from_either_end() {
        let cases = [("RTMIN", 34), ("SIGRTMIN+3", 37), ("rtmin+0", 34), ("RTMIN+30", 64), ("RTMAX", 64)];
        for (text, number) in cases.into_iter().chain([("SIGRTMAX-1", 63), ("RTMAX-30", 34), ("34", 34), ("64", 64)]) {
            assert_eq!(number_of(text), number, "{text}");
        }
    }

    #[test]
    fn every_signal_is_read_back_from_what_it_is_shown_as() {
        for number in (1..=31).chain(RTMIN..=RTMAX) {
            let signal: Signal = number.to_string().parse().expect("a signal");
            assert_eq!(signal.number(), number);
            assert_eq!(signal.to_string().parse(), Ok(signal));
        }
        assert_eq!(Signal::HUP.to_string(), "SIGHUP");
        assert_eq!("rtmax".parse::<Signal>().expect("a signal").to_string(), "SIGRTMIN+30");
    }

    #[test]
    fn what_is_no_signal_is_refused_in_one_line_with_the_remedy() {
        let wrong = ["", "0", "-1", "+1", "65", "99999999999", "FOO", "SIG", "SIGSIGHUP", "SIG1", "HUP\nINT", "١"];
        let real_time = ["RTMIN-1", "RTMIN+31", "RTMAX+1", "RTMAX-31", "RTMIN+", "RTMIN3", "RTMIN+-1", "RTMIN++1"];
        for text in wrong.into_iter().chain(real_time) {
            let error = text.parse::<Signal>().expect_err(text).to_string();
            assert!(error.contains("is no signal; write a name such as HUP"), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let error = "33".parse::<Signal>().expect_err("a signal of the C library").to_string();
        assert!(error.starts_with("`33` is kept by the C library for itself; write"), "{error}");
    }

    #[test]
    fn only_four_signals_leave_a_process_alone_by_default() {
        let harmless = |number: &i32| !number.to_string().parse::<Signal>().expect("one").default_action_is_harmful();
        let harmless: Vec<i32> = (1..=31).chain(RTMIN..=RTMAX).filter(harmless).collect();
        assert_eq!(harmless, ["CHLD", "CONT", "URG", "WINCH"].map(number_of));
    }

    #[test]
    fn five_signals_are_meant_to_end() {
        let meant = |number: &i32| number.to_string().parse::<Signal>().expect("one").is_meant_to_end();
        let meant: Vec<i32> = (1..=31).chain(RTMIN..=RTMAX).filter(meant).collect();
        assert_eq!(meant, ["INT", "QUIT", "KILL", "TERM", "STOP"].map(number_of));
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in any::<String>()) {
            if let Err(error) = text.parse::<Signal>() {
                prop_assert_eq!(error.to_string().lines().count(), 1);
            }
        }
    }
}
