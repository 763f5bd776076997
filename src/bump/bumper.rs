//! The task that bumps: takes what has changed when the governor says so, and goes through the actions.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::governor::{Again, Governor, Pace};
use super::{Action, Batch, BumpError, Changes};
use crate::telemetry::{Outcome, Telemetry, millis};

/// How long a target that is not ready is waited for where one that is not there is not waited for at all.
const UNREADY_MAX: Duration = Duration::from_secs(10);

/// Tells the actions of every change.
pub struct Bumper {
    actions: Vec<Action>,
    changes: Changes,
    governor: Governor,
    /// What is being told, and how many of the actions know it.
    telling: Option<(Batch, usize)>,
    /// Since when the next of them has had a target that is not ready.
    unready_since: Option<Instant>,
    /// What was logged last about the present batch.
    logged: Option<BumpError>,
    /// Whether a target that is not there is waited for.
    patient: bool,
    telemetry: Telemetry,
}

impl Bumper {
    #[must_use]
    pub fn new(actions: Vec<Action>, changes: Changes, pace: Pace) -> Self {
        let (governor, telemetry) = (Governor::new(pace), Telemetry::default());
        Self { actions, changes, governor, telling: None, unready_since: None, logged: None, patient: true, telemetry }
    }

    /// Tells this how it goes.
    #[must_use]
    pub fn reporting_to(self, telemetry: Telemetry) -> Self {
        telemetry.will_bump(self.actions.iter().map(Action::kind));
        Self { telemetry, ..self }
    }

    /// A target that is not there is not waited for, and one that is not ready not for long: nobody else will come.
    #[must_use]
    pub fn impatient(self) -> Self {
        Self { patient: false, ..self }
    }

    /// Bumps from here on, for as long as it is polled.
    pub async fn run(mut self) {
        loop {
            let due = self.governor.due();
            tokio::select! {
                () = self.changes.added() => self.governor.changed(Instant::now()),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.tell().await,
            }
        }
    }

    /// One try: all that has changed until now, to the actions that do not know it yet.
    async fn tell(&mut self) {
        self.governor.tries();
        if let Some(mut batch) = self.changes.take() {
            if let Some((untold, _)) = self.telling.take() {
                batch.take_in(untold);
            }
            self.telling = Some((batch, 0));
            self.logged = None;
            self.telemetry.telling();
        }
        let Some((batch, told)) = &mut self.telling else { return };
        for action in &mut self.actions[*told..] {
            let began = Instant::now();
            let bumped = action.bump(batch).await;
            let (bump, took) = (action.kind(), began.elapsed());
            self.telemetry.bumped(bump, Outcome::of(&bumped), took);
            let (duration_ms, files) = (millis(took), batch.changes.len());
            if let Ok(Some(done)) = &bumped {
                tracing::info!(event = "bumped", bump, duration_ms, files, "{done}");
            }
            if let Err(error) = bumped {
                let is_waited_for = match error {
                    BumpError::Waiting(_) => self.patient,
                    BumpError::Unready(_) => {
                        let since = *self.unready_since.get_or_insert_with(Instant::now);
                        self.patient || since.elapsed() < UNREADY_MAX
                    }
                    BumpError::Failed(_) | BumpError::Refused(_) => true,
                };
                if !is_waited_for {
                    tracing::info!("{error}; it is not waited for any longer, and nobody is bumped");
                    self.unready_since = None;
                    *told += 1;
                    continue;
                }
                let why = match error {
                    BumpError::Refused(_) => {
                        self.changes.refuse();
                        Again::Failed
                    }
                    BumpError::Failed(_) => Again::Failed,
                    BumpError::Waiting(_) | BumpError::Unready(_) => Again::Waiting,
                };
                let wait = self.governor.again(why, Instant::now());
                self.telemetry.not_told((why == Again::Failed).then_some(&error));
                if self.logged.as_ref() == Some(&error) {
                    tracing::debug!("{error}; next try in {} ms", wait.as_millis());
                } else if why == Again::Waiting {
                    tracing::info!(event = "bump_waits", bump, "{error}; the bump waits for it");
                } else {
                    let again = wait.as_secs();
                    tracing::warn!(
                        event = "bump_failed",
                        bump,
                        duration_ms,
                        files,
                        "{error}; it is tried again, in {again} s first"
                    );
                }
                self.logged = Some(error);
                return;
            }
            self.governor.reached(Instant::now());
            self.unready_since = None;
            *told += 1;
        }
        self.telling = None;
        self.governor.succeeded(Instant::now());
        self.telemetry.told();
        self.changes.done();
    }
}

impl Outcome {
    fn of<T>(bumped: &Result<T, BumpError>) -> Self {
        match bumped {
            Ok(_) => Self::Succeeded,
            Err(BumpError::Failed(_)) => Self::Failed,
            Err(BumpError::Refused(_)) => Self::Refused,
            Err(BumpError::Waiting(_) | BumpError::Unready(_)) => Self::Waiting,
        }
    }
}
