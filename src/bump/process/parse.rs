//! What the files of `/proc/PID` say (`proc_pid_stat(5)`, `proc_pid_status(5)`, `proc_pid_cmdline(5)`).

use std::time::Duration;

use crate::bump::BootTime;
use crate::bump::signal::Signal;

/// What `/proc/PID/stat` says of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The name of its executable, or what it has made of that.
    pub name: String,
    /// Whether it has ended and only waits for its parent to take note.
    pub is_ended: bool,
    /// Whether it is a thread of the kernel's own.
    pub is_of_kernel: bool,
    /// The PID of its parent; 0 if that is in another PID namespace.
    pub parent: u32,
    /// When it was started, to the tick (10 ms) before.
    pub started: BootTime,
}

/// What `/proc/PID/status` says of a process, or of one of its threads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its real user.
    pub user: u32,
    /// None where the kernel does not show them, as gVisor.
    pub signals: Option<SignalMasks>,
}

/// A bit for each signal that a process or thread blocks, ignores or catches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalMasks {
    pub blocked: u64,
    pub ignored: u64,
    pub caught: u64,
}

/// The flag of a kernel thread, in `include/linux/sched.h` of Linux.
const PF_KTHREAD: u64 = 0x0020_0000;

impl SignalMasks {
    /// Whether it has seen to it what this signal does.
    pub fn handles(&self, signal: Signal) -> bool {
        is_in(self.ignored | self.caught, signal)
    }

    /// Whether it catches every real-time signal. No program asks for all of them; the runtime of Go installs handlers
    /// for every signal at its start, and ends the program by those that the program has not asked for.
    pub fn catches_everything(&self) -> bool {
        // Signals 35 to 64: the C library keeps some of the ones before for itself.
        const REAL_TIME: u64 = !0 << 34;
        self.caught & REAL_TIME == REAL_TIME
    }

    /// Whether this signal comes to nothing.
    pub fn ignores(&self, signal: Signal) -> bool {
        is_in(self.ignored, signal)
    }

    /// Whether this signal waits until it is asked for.
    pub fn blocks(&self, signal: Signal) -> bool {
        is_in(self.blocked, signal)
    }
}

fn is_in(mask: u64, signal: Signal) -> bool {
    let bit = u32::try_from(signal.number() - 1).unwrap_or(u32::MAX);
    mask.checked_shr(bit).is_some_and(|mask| mask & 1 == 1)
}

/// Reads `/proc/PID/stat`. The name may hold anything, parentheses, spaces and line ends included; after the last `)`
/// there are only numbers and the letter of the state.
pub fn stat(text: &[u8], ticks_per_second: u64) -> Option<Stat> {
    let open = text.iter().position(|&byte| byte == b'(')?;
    let close = text.iter().rposition(|&byte| byte == b')')?;
    let name = String::from_utf8_lossy(text.get(open + 1..close)?).into_owned();
    // The first of them is field 3.
    let mut fields = std::str::from_utf8(text.get(close + 1..)?).ok()?.split_ascii_whitespace();
    let is_ended = matches!(fields.next()?, "Z" | "X" | "x");
    let parent = fields.next()?.parse().ok()?;
    let flags: u64 = fields.nth(9 - 5)?.parse().ok()?;
    let started = boot_time(fields.nth(22 - 10)?.parse().ok()?, ticks_per_second)?;
    Some(Stat { name, is_ended, is_of_kernel: flags & PF_KTHREAD != 0, parent, started })
}

fn boot_time(ticks: u64, ticks_per_second: u64) -> Option<BootTime> {
    let seconds = ticks.checked_div(ticks_per_second)?;
    let nanoseconds = u128::from(ticks % ticks_per_second) * 1_000_000_000 / u128::from(ticks_per_second);
    Some(BootTime(Duration::new(seconds, u32::try_from(nanoseconds).ok()?)))
}

/// Reads `/proc/PID/status`.
pub fn status(text: &[u8]) -> Option<Status> {
    let line = |key: &str| {
        let value = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(key.as_bytes()))?;
        std::str::from_utf8(value).ok()?.split_ascii_whitespace().next()
    };
    let user = line("Uid:")?.parse().ok()?;
    let Some(masks) = ["SigBlk:", "SigIgn:", "SigCgt:"].map(line).into_iter().collect::<Option<Vec<_>>>() else {
        return Some(Status { user, signals: None });
    };
    let [blocked, ignored, caught] = masks[..] else { return None };
    let mask = |text| u64::from_str_radix(text, 16).ok();
    let signals = SignalMasks { blocked: mask(blocked)?, ignored: mask(ignored)?, caught: mask(caught)? };
    Some(Status { user, signals: Some(signals) })
}

/// Reads `/proc/PID/cmdline`: the words of the command line with a space between two of them. Kernel threads,
/// processes that have ended, and for a moment those within `execve(2)` have none.
pub fn command_line(bytes: &[u8]) -> Option<String> {
    // A program that shows a title of its own there fills the rest with NULs.
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    let words = String::from_utf8_lossy(&bytes[..end]).replace('\0', " ");
    (!bytes.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const STAT: &str = "327321 (NAME) S 135114 327321 135114 34824 327321 1077936128 3274 0 0 0 21 0 0 0 20 0 9 0 \
        3568036 657534976 6792 18446744073709551615 1 1 0 0 0 0 0 4096 1088 0 0 0 17 6 0 0 0 0 0\n";

    #[test]
    fn the_fields_of_stat_are_counted_from_its_last_parenthesis() {
        for name in ["nginx", "cm)bump", ") Z 1 (", "a b\nc", "(((", ")", ""] {
            let stat = stat(STAT.replace("NAME", name).as_bytes(), 100).expect("a stat");
            let started = BootTime(Duration::from_millis(35_680_360));
            assert_eq!(
                stat,
                Stat { name: name.to_owned(), is_ended: false, is_of_kernel: false, parent: 135_114, started }
            );
        }
    }

    #[test]
    fn a_zombie_has_ended() {
        let zombie = STAT.replace(") S ", ") Z ");
        assert!(stat(zombie.as_bytes(), 100).expect("a stat").is_ended);
    }

    #[test]
    fn a_kernel_thread_is_told_by_its_flag_and_not_by_its_want_of_a_command_line() {
        let kthreadd = "2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 1 0 0 20 0 1 0 5 0 0 18446744073709551615\n";
        assert!(stat(kthreadd.as_bytes(), 100).expect("a stat").is_of_kernel);
    }

    #[test]
    fn a_name_that_is_no_utf_8_is_no_obstacle() {
        let stat = stat(&[b"1 (\xff) ", STAT.split_once(") ").expect("a name").1.as_bytes()].concat(), 100);
        assert_eq!(stat.expect("a stat").name, "\u{fffd}");
    }

    #[test]
    fn the_masks_of_status_have_a_bit_for_each_signal() {
        let text = "Name:\tUid: 7\nUid:\t101\t0\t0\t0\nGroups:\t1 2 3\nSigPnd:\t0\nSigBlk:\t0000000000000002\n\
            SigIgn:\t8000000000000000\nSigCgt:\t0000000000000001\n";
        let status = status(text.as_bytes()).expect("a status");
        assert_eq!(status.user, 101);
        let status = status.signals.expect("masks");
        let signal = |text: &str| text.parse().expect("a signal");
        assert!(status.handles(signal("HUP")) && status.handles(signal("64")) && status.blocks(signal("INT")));
        assert!(!status.handles(signal("INT")) && !status.handles(signal("63")) && !status.blocks(signal("HUP")));
    }

    #[test]
    fn status_without_signal_masks_leaves_them_unknown() {
        let text = "Name:\ta\nState:\tS (sleeping)\nPid:\t7\nPPid:\t1\nUid:\t5\t5\t5\t5\nThreads:\t1\n";
        assert_eq!(status(text.as_bytes()), Some(Status { user: 5, signals: None }));
        let wrong = format!("{text}SigBlk:\t0\nSigIgn:\tx\nSigCgt:\t0\n");
        assert_eq!(status(wrong.as_bytes()), None);
    }

    #[test]
    fn a_program_in_go_is_seen_to_catch_everything() {
        let catching = |caught| SignalMasks { blocked: 0, ignored: 0, caught };
        // A program of Go, and two masks such as those of servers that ask for what they need.
        for (caught, is) in [(0xffff_fffd_7fc1_fefd, true), (0x1_9800_4a07, false), (0x1_8000_0440, false)] {
            assert_eq!(catching(caught).catches_everything(), is, "{caught:x}");
        }
    }

    #[test]
    fn the_words_of_a_command_line_have_spaces_between_them() {
        let cases: [(&[u8], Option<&str>); 6] = [
            (b"nginx\0-g\0daemon off;\0", Some("nginx -g daemon off;")),
            (b"nginx: master process nginx\0\0\0\0\0", Some("nginx: master process nginx")),
            (b"a\0\0b", Some("a  b")),
            (b"\xff\0", Some("\u{fffd}")),
            (b"\0", Some("")),
            (b"", None),
        ];
        for (bytes, words) in cases {
            assert_eq!(command_line(bytes).as_deref(), words);
        }
    }

    const PARTS: &[&str] =
        &["(", ")", " ", "\n", "S", "Uid:", "SigBlk:", "SigIgn:", "SigCgt:", "\0", "99999999999999999999"];

    /// Bytes in which the parts of a real file are likely.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            prop::sample::select(PARTS).prop_map(|part| part.as_bytes().to_vec()),
            any::<u64>().prop_map(|number| format!("{number} ").into_bytes()),
            prop::collection::vec(any::<u8>(), 0..4),
        ];
        prop::collection::vec(part, 0..60).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(bytes in bytes(), ticks_per_second in any::<u64>()) {
            stat(&bytes, ticks_per_second);
            status(&bytes);
            command_line(&bytes);
        }
    }
}
