//! The brake on removals: one of many files at once is more often a mistake than a wish. Without input or output, and told the
//! time.

use std::time::Duration;

use tokio::time::Instant;

/// What is held, and for how long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BrakeConfig {
    /// The share of the files that may go at once, from 0 to 1. The last file never goes unseen.
    pub share_max: f64,
    /// How long more than that is held.
    pub hold: Duration,
}

/// What becomes of the removals that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They may be carried out.
    Go,
    /// They are held from now on.
    Held,
    /// They are held still.
    StillHeld,
    /// The hold is over: the source is to be asked once more. The guard does not count these removals any more.
    Ask,
}

/// The state of the brake.
#[derive(Debug)]
pub struct Brake {
    config: BrakeConfig,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Loose,
    /// Until then.
    Holding(Instant),
}

impl Brake {
    #[must_use]
    pub fn new(config: BrakeConfig) -> Self {
        Self { config, state: State::Loose }
    }

    /// Judges that so many of so many files are to go.
    pub fn judge(&mut self, removals: usize, files: usize, now: Instant) -> Verdict {
        #[expect(clippy::cast_precision_loss, reason = "no directory has 2⁵² files")]
        let is_too_many = removals > 0 && (removals >= files || removals as f64 > self.config.share_max * files as f64);
        match self.state {
            _ if !is_too_many => {
                self.state = State::Loose;
                Verdict::Go
            }
            State::Loose => {
                self.state = State::Holding(now + self.config.hold);
                Verdict::Held
            }
            State::Holding(until) if now < until => Verdict::StillHeld,
            State::Holding(_) => {
                self.state = State::Loose;
                Verdict::Ask
            }
        }
    }

    /// When to judge again; nothing if nothing is held.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        match self.state {
            State::Holding(until) => Some(until),
            State::Loose => None,
        }
    }

    /// Whether removals are held.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.state != State::Loose
    }

    #[must_use]
    pub fn config(&self) -> BrakeConfig {
        self.config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLD: Duration = Duration::from_secs(300);

    fn brake(share_max: f64) -> Brake {
        Brake::new(BrakeConfig { share_max, hold: HOLD })
    }

    #[test]
    fn a_small_share_goes_at_once_and_a_large_one_or_the_last_file_is_held() {
        let now = Instant::now();
        for (share, removals, files, held) in [
            (0.5, 0, 0, false),
            (0.5, 5, 10, false),
            (0.5, 6, 10, true),
            (0.5, 1, 1, true),
            (1.0, 1, 1, true),
            (1.0, 9, 10, false),
            (1.0, 10, 10, true),
            (0.0, 1, 100, true),
        ] {
            let verdict = brake(share).judge(removals, files, now);
            assert_eq!(verdict == Verdict::Held, held, "{removals} of {files} with {share}");
        }
    }

    #[test]
    fn the_source_is_asked_when_the_hold_is_over() {
        let (mut brake, now) = (brake(0.5), Instant::now());
        assert_eq!(brake.judge(9, 10, now), Verdict::Held);
        assert_eq!(brake.judge(9, 10, now + HOLD / 2), Verdict::StillHeld);
        assert_eq!(brake.due(), Some(now + HOLD));
        assert_eq!(brake.judge(9, 10, now + HOLD), Verdict::Ask);
        assert!(!brake.is_holding());
        assert_eq!(brake.judge(1, 1, now + HOLD), Verdict::Held, "the next ones have a hold of their own");
    }

    #[test]
    fn what_comes_back_loosens_the_brake() {
        let (mut brake, now) = (brake(0.5), Instant::now());
        assert_eq!(brake.judge(9, 10, now), Verdict::Held);
        assert_eq!(brake.judge(2, 10, now), Verdict::Go);
        assert_eq!(brake.judge(9, 10, now + HOLD), Verdict::Held, "it begins anew");
    }
}
