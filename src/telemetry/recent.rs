//! The last warnings and errors of the log, for `/status`.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

/// How many of them are kept…
const LINES_MAX: usize = 20;
/// …and how many bytes of each.
const LINE_BYTES_MAX: usize = 500;

/// Cheap to clone: the log fills it, `/status` shows it.
#[derive(Clone, Debug, Default)]
pub struct Recent(Arc<Mutex<VecDeque<Line>>>);

/// A line of the log.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub time: SystemTime,
    pub message: String,
}

impl Recent {
    /// The oldest first.
    pub(super) fn lines(&self) -> Vec<Line> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn add(&self, message: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(Line { time: SystemTime::now(), message });
    }
}

/// Takes every line: which ones it is given is up to its filter.
impl<S: Subscriber> Layer<S> for Recent {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut message = Message(String::new());
        event.record(&mut message);
        self.add(message.0);
    }
}

/// The beginning of an event's message.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Fails when it is full, which is meant.
            let _ = write!(self, "{value:?}");
        }
    }
}

impl fmt::Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut fits = text.len().min(LINE_BYTES_MAX - self.0.len());
        while !text.is_char_boundary(fits) {
            fits -= 1;
        }
        self.0.push_str(&text[..fits]);
        if fits < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn the_last_lines_are_kept_and_no_more_of_them_than_fits() {
        let recent = Recent::default();
        let subscriber = tracing_subscriber::registry().with(recent.clone());
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..LINES_MAX + 3 {
                tracing::warn!(number, "line {number}");
            }
            tracing::error!("{}", "ä".repeat(LINE_BYTES_MAX));
        });
        let messages: Vec<_> = recent.lines().into_iter().map(|line| line.message).collect();
        assert_eq!(messages.len(), LINES_MAX);
        assert_eq!(messages[0], "line 4");
        assert_eq!(messages[LINES_MAX - 1], "ä".repeat(LINE_BYTES_MAX / 2));
    }
}
