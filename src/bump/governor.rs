//! When to bump: after a quiet window, not too often, and again after a failure. Without input or output, and told the time.

use std::time::Duration;

use tokio::time::Instant;

/// The wait after a bump that failed; it doubles with each failure in a row…
const FAILED_WAIT_MIN: Duration = Duration::from_secs(1);
/// …up to this.
const FAILED_WAIT_MAX: Duration = Duration::from_secs(60);

/// The same for a target that is not there, or not ready, yet: it is looked for more often, as a start takes seconds.
const WAITING_WAIT_MIN: Duration = Duration::from_millis(50);
const WAITING_WAIT_MAX: Duration = Duration::from_secs(1);

/// How bumps are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// A bump waits until nothing has changed for this long…
    pub settle: Duration,
    /// …but not longer than this after the first change.
    pub settle_max: Duration,
    /// The least time from one bump to the next.
    pub min_interval: Duration,
}

/// Why a bump is to be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// It failed.
    Failed,
    /// Its target is not there, or not ready, yet.
    Waiting,
}

/// The state of the timing.
#[derive(Debug)]
pub struct Governor {
    pace: Pace,
    /// When the changes that no bump has been tried for began, and when the last of them came.
    unsettled: Option<(Instant, Instant)>,
    /// When to try again what failed.
    retry_at: Option<Instant>,
    /// When a bump last reached a target, or may have.
    last_bump: Option<Instant>,
    failures: u32,
    waits: u32,
}

impl Governor {
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self { pace, unsettled: None, retry_at: None, last_bump: None, failures: 0, waits: 0 }
    }

    /// Something has changed. A newer batch takes the place of one that failed, so its wait is over.
    pub fn changed(&mut self, now: Instant) {
        let first = self.unsettled.map_or(now, |(first, _)| first);
        self.unsettled = Some((first, now));
    }

    /// When to bump next; nothing if there is nothing to tell.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let settled = self
            .unsettled
            .map(|(first, last)| (last + self.pace.settle).min(first + self.pace.settle_max.max(self.pace.settle)));
        // What is tried again goes on where it stopped, so a target that was waited for need not wait any longer.
        let not_too_soon = |due: Instant| self.last_bump.map_or(due, |last| due.max(last + self.pace.min_interval));
        settled.map(not_too_soon).or(self.retry_at)
    }

    /// A bump is tried: what has changed until now is in it.
    pub fn tries(&mut self) {
        if self.unsettled.take().is_some() {
            (self.failures, self.waits) = (0, 0);
        }
        self.retry_at = None;
    }

    /// An action has reached its target.
    pub fn reached(&mut self, now: Instant) {
        self.last_bump = Some(now);
    }

    /// All actions know.
    pub fn succeeded(&mut self, now: Instant) {
        (self.failures, self.waits) = (0, 0);
        self.reached(now);
    }

    /// The bump did not succeed. How long it waits before the next try, unless something changes.
    pub fn again(&mut self, why: Again, now: Instant) -> Duration {
        let (count, min, max) = match why {
            Again::Failed => (&mut self.failures, FAILED_WAIT_MIN, FAILED_WAIT_MAX),
            Again::Waiting => (&mut self.waits, WAITING_WAIT_MIN, WAITING_WAIT_MAX),
        };
        let wait = min.saturating_mul(1 << *count).min(max);
        *count = (*count + 1).min(16);
        self.retry_at = Some(now + wait);
        if why == Again::Failed {
            self.reached(now);
            self.retry_at = Some(now + wait.max(self.pace.min_interval));
        }
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace {
        settle: Duration::from_millis(100),
        settle_max: Duration::from_secs(2),
        min_interval: Duration::from_secs(5),
    };

    fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// A governor, and a moment to count from.
    fn governor(pace: Pace) -> (Governor, Instant) {
        (Governor::new(pace), Instant::now())
    }

    #[test]
    fn nothing_is_due_before_anything_changed_or_after_it_was_told() {
        let (mut governor, start) = governor(PACE);
        assert_eq!(governor.due(), None);
        governor.changed(start);
        governor.tries();
        governor.succeeded(start + ms(100));
        assert_eq!(governor.due(), None);
    }

    #[test]
    fn a_bump_waits_for_quiet_but_not_for_ever() {
        let (mut governor, start) = governor(PACE);
        governor.changed(start);
        assert_eq!(governor.due(), Some(start + ms(100)));
        for at in (50..3000).step_by(50) {
            governor.changed(start + ms(at));
        }
        assert_eq!(governor.due(), Some(start + ms(2000)));
    }

    #[test]
    fn a_settle_time_above_its_bound_is_its_own_bound() {
        let (mut governor, start) = governor(Pace { settle: ms(5000), ..PACE });
        governor.changed(start);
        assert_eq!(governor.due(), Some(start + ms(5000)));
    }

    #[test]
    fn two_bumps_have_their_least_time_between_them() {
        let (mut governor, start) = governor(PACE);
        governor.changed(start);
        governor.tries();
        governor.succeeded(start + ms(100));
        governor.changed(start + ms(200));
        assert_eq!(governor.due(), Some(start + ms(5100)));
        governor.changed(start + ms(9000));
        assert_eq!(governor.due(), Some(start + ms(5100)), "the first change counts");
    }

    #[test]
    fn a_failure_is_tried_again_later_and_later_up_to_a_bound() {
        let (mut governor, start) = governor(Pace { min_interval: Duration::ZERO, ..PACE });
        governor.changed(start);
        let waits: Vec<_> = (0..8)
            .map(|_| {
                governor.tries();
                let wait = governor.again(Again::Failed, start);
                assert_eq!(governor.due(), Some(start + wait));
                wait.as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_target_that_is_not_ready_is_looked_for_often() {
        let (mut governor, start) = governor(PACE);
        let waits: Vec<_> = (0..7).map(|_| governor.again(Again::Waiting, start).as_millis()).collect();
        assert_eq!(waits, [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(governor.due(), Some(start + ms(1000)), "looking is no bump");
    }

    #[test]
    fn a_bump_of_which_a_part_waits_counts_for_the_next_but_not_for_its_own_rest() {
        let (mut governor, start) = governor(PACE);
        governor.changed(start);
        governor.tries();
        governor.reached(start + ms(100));
        governor.again(Again::Waiting, start + ms(100));
        assert_eq!(governor.due(), Some(start + ms(150)), "the rest has waited long enough");
        governor.changed(start + ms(200));
        assert_eq!(governor.due(), Some(start + ms(5100)), "what is new would tell all of them again");
    }

    #[test]
    fn a_newer_batch_takes_the_place_of_one_that_failed() {
        let (mut governor, start) = governor(Pace { min_interval: Duration::ZERO, ..PACE });
        for _ in 0..6 {
            governor.tries();
            governor.again(Again::Failed, start);
        }
        governor.changed(start + ms(10));
        assert_eq!(governor.due(), Some(start + ms(110)));
        governor.tries();
        assert_eq!(governor.again(Again::Failed, start), FAILED_WAIT_MIN, "its failures are its own");
    }
}
