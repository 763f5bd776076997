//! What is to be told and when, without input or output: one Event for an object and a reason, which counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::object::ObjectKey;
use crate::source::announcer::{Announcement, Reason};

/// How many objects and reasons are known at a time. Those of which all is told make way.
const SERIES_MAX: usize = 1024;

/// One Event is written again after this at the earliest.
const INTERVAL: Duration = Duration::from_secs(60);

/// What is told again within this is counted by the same Event.
const SERIES_LASTS: Duration = Duration::from_secs(600);

/// Over all objects, so many may be written at once…
const BURST: u32 = 25;
/// …and from then on one in this time.
const STEADY: Duration = Duration::from_secs(1);

/// How long nothing is written in a namespace after a failure there; it doubles with each…
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// …up to this: a missing Role is no matter of seconds.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// The longest message, in bytes: what an Event of events.k8s.io takes.
pub(super) const MESSAGE_BYTES_MAX: usize = 1024;

/// The longest name of an object, in bytes, and how much of one an Event's name repeats; the rest is a random number.
const NAME_BYTES_MAX: usize = 253;
const NUMBER_BYTES: usize = 16;

type Topic = (Arc<ObjectKey>, Reason);

/// All that was to be told lately.
#[derive(Debug)]
pub(super) struct Book {
    series: BTreeMap<Topic, Series>,
    /// When all that was written would have been, one after the other at the steady rate.
    busy_until: Instant,
    /// By namespace, since something was written there last.
    pauses: BTreeMap<String, Pause>,
    /// Whether all that is left is to be written now.
    is_ending: bool,
}

/// What follows a failure.
#[derive(Clone, Copy, Debug)]
struct Pause {
    until: Instant,
    /// How long the next one is at most.
    next: Duration,
}

/// What is told of one object for one reason.
#[derive(Debug)]
struct Series {
    uid: Box<str>,
    /// The Event's.
    name: String,
    /// Whether the server has it.
    is_there: bool,
    /// Whether something is to be told.
    is_news: bool,
    count: u32,
    first: Timestamp,
    last: Timestamp,
    message: String,
    /// When it may be told.
    due: Instant,
}

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    pub object: Arc<ObjectKey>,
    pub reason: Reason,
    pub uid: Box<str>,
    pub name: String,
    pub version: Version,
    pub count: u32,
    pub first: Timestamp,
    pub last: Timestamp,
    pub message: String,
}

/// Whether an Event is made, or one that is there changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    First,
    Later,
}

impl Book {
    pub fn new(now: Instant) -> Self {
        Self { series: BTreeMap::new(), busy_until: now, pauses: BTreeMap::new(), is_ending: false }
    }

    /// Takes in what is to be told; false if there is no room for it.
    pub fn enter(&mut self, announcement: Announcement, now: Instant, moment: Timestamp) -> bool {
        let Announcement { object, uid, reason, message } = announcement;
        let topic = (object, reason);
        let is_over = |series: &Series| !series.is_news && series.due + SERIES_LASTS <= now;
        if self.series.get(&topic).is_some_and(|series| series.uid != uid || is_over(series)) {
            self.series.remove(&topic);
        }
        if !self.series.contains_key(&topic) && self.series.len() >= SERIES_MAX {
            self.series.retain(|_, series| series.is_news);
            if self.series.len() >= SERIES_MAX {
                return false;
            }
        }
        let series = self.series.entry(topic).or_insert_with_key(|(object, _)| Series {
            uid,
            name: name(&object.name),
            is_there: false,
            is_news: true,
            count: 0,
            first: moment,
            last: moment,
            message: String::new(),
            due: now,
        });
        series.is_news = true;
        series.count = series.count.saturating_add(1);
        series.last = moment;
        series.message = cut(&message);
        true
    }

    /// When something is to be written, if anything is.
    pub fn due(&self) -> Option<Instant> {
        let (first, _, _) = self.first()?;
        // As many as a burst has may be written ahead of the steady rate.
        let free = self.busy_until.checked_sub(STEADY * (BURST - 1)).filter(|_| !self.is_ending);
        Some(free.map_or(first, |free| first.max(free)))
    }

    /// What is to be written first, and when it may be.
    fn first(&self) -> Option<(Instant, &Topic, &Series)> {
        let news = self.series.iter().filter(|(_, series)| series.is_news);
        let with_time = news.map(|(topic, series)| {
            let pause = self.pauses.get(&topic.0.namespace).filter(|_| !self.is_ending);
            (pause.map_or(series.due, |pause| series.due.max(pause.until)), topic, series)
        });
        with_time.min_by_key(|(due, ..)| *due)
    }

    /// What is to be written now; it is to be said what became of it.
    pub fn next(&mut self, now: Instant) -> Option<Letter> {
        let is_ending = self.is_ending;
        let (_, (object, reason), series) = self.first().filter(|(due, ..)| is_ending || *due <= now)?;
        let letter = Letter {
            object: Arc::clone(object),
            reason: *reason,
            uid: series.uid.clone(),
            name: series.name.clone(),
            version: if series.is_there { Version::Later } else { Version::First },
            count: series.count,
            first: series.first,
            last: series.last,
            message: series.message.clone(),
        };
        self.busy_until = self.busy_until.max(now) + STEADY;
        Some(letter)
    }

    /// The server has it.
    pub fn written(&mut self, letter: &Letter, now: Instant) {
        self.pauses.remove(&letter.object.namespace);
        self.change(letter, |series| {
            series.is_there = true;
            series.is_news = false;
            series.due = now + INTERVAL;
        });
    }

    /// The server does not have the Event any more: it is made anew, by another name.
    pub fn begin_anew(&mut self, letter: &Letter) {
        self.change(letter, |series| {
            series.name = name(&letter.object.name);
            series.is_there = false;
        });
    }

    /// The server has the Event already, as it was at an earlier try.
    pub fn found(&mut self, letter: &Letter) {
        self.change(letter, |series| series.is_there = true);
    }

    /// The server will never take it.
    pub fn give_up(&mut self, letter: &Letter) {
        self.series.remove(&(Arc::clone(&letter.object), letter.reason));
    }

    /// It has to wait, with all of its namespace, for between half of the pause and all of it.
    pub fn failed(&mut self, letter: &Letter, now: Instant, jitter: f64) {
        let pauses = &mut self.pauses;
        // Where nothing has been tried since, nothing is to be told.
        pauses.retain(|_, pause| pause.until + PAUSE_MAX > now);
        let pause = pauses.entry(letter.object.namespace.clone()).or_insert(Pause { until: now, next: PAUSE_MIN });
        pause.until = now + pause.next.mul_f64(jitter.mul_add(0.5, 0.5));
        pause.next = (pause.next * 2).min(PAUSE_MAX);
    }

    /// Nothing comes any more: what is left is written now.
    pub fn end(&mut self) {
        self.is_ending = true;
    }

    fn change(&mut self, letter: &Letter, change: impl FnOnce(&mut Series)) {
        if let Some(series) = self.series.get_mut(&(Arc::clone(&letter.object), letter.reason)) {
            change(series);
        }
    }
}

/// A name for an Event about an object of this one, as others make them.
fn name(object: &str) -> String {
    let cut = object.get(..NAME_BYTES_MAX - NUMBER_BYTES - 1).unwrap_or(object);
    // A part of a name ends in a letter or digit.
    format!("{}.{:016x}", cut.trim_end_matches(['.', '-']), fastrand::u64(..))
}

/// On one line, and no longer than it may be.
fn cut(message: &str) -> String {
    const MORE: &str = "…";
    let mut message = message.replace(char::is_control, " ");
    if message.len() > MESSAGE_BYTES_MAX {
        let mut end = MESSAGE_BYTES_MAX - MORE.len();
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
        message.push_str(MORE);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;

    fn announcement(name: &str, reason: Reason, message: &str) -> Announcement {
        let object = Arc::new(ObjectKey { kind: Kind::ConfigMap, namespace: "ns".into(), name: name.into() });
        Announcement { object, uid: "uid".into(), reason, message: message.into() }
    }

    fn enter(book: &mut Book, name: &str, now: Instant) -> bool {
        book.enter(announcement(name, Reason::Applied, "wrote it"), now, Timestamp::UNIX_EPOCH)
    }

    /// Writes what is due until then, and gives when, with the counts.
    fn written(book: &mut Book, from: Instant, until: Instant) -> Vec<(u64, u32, Version)> {
        let mut letters = Vec::new();
        while let Some(due) = book.due().filter(|due| *due <= until) {
            let letter = book.next(due).expect("what is due is there");
            book.written(&letter, due);
            letters.push((due.duration_since(from).as_secs(), letter.count, letter.version));
        }
        letters
    }

    #[test]
    fn an_object_that_flaps_is_one_event_written_once_a_minute() {
        let start = Instant::now();
        let mut book = Book::new(start);
        let mut letters = Vec::new();
        for second in 0..180 {
            let now = start + Duration::from_secs(second);
            assert!(enter(&mut book, "x", now));
            letters.extend(written(&mut book, start, now));
        }
        assert_eq!(letters, [(0, 1, Version::First), (60, 61, Version::Later), (120, 121, Version::Later)]);
        assert_eq!(written(&mut book, start, start + Duration::from_secs(300)), [(180, 180, Version::Later)]);
        assert_eq!(book.due(), None, "nothing wakes up when nothing is to be told");
        let later = start + Duration::from_secs(1000);
        enter(&mut book, "x", later);
        assert_eq!(written(&mut book, start, later), [(1000, 1, Version::First)], "another series");
    }

    #[test]
    fn many_objects_are_written_in_a_burst_and_then_one_a_second() {
        let start = Instant::now();
        let mut book = Book::new(start);
        for number in 0..BURST + 5 {
            enter(&mut book, &number.to_string(), start);
        }
        let seconds = |letters: Vec<(u64, u32, Version)>| letters.into_iter().map(|(at, ..)| at).collect::<Vec<_>>();
        let letters = seconds(written(&mut book, start, start + Duration::from_secs(60)));
        let expected: Vec<u64> = std::iter::repeat_n(0, BURST as usize).chain(1..=5).collect();
        assert_eq!(letters, expected);
    }

    #[test]
    fn there_is_room_for_so_many_and_what_is_told_makes_way() {
        let start = Instant::now();
        let mut book = Book::new(start);
        for number in 0..SERIES_MAX {
            assert!(enter(&mut book, &number.to_string(), start));
        }
        assert!(!enter(&mut book, "one too many", start));
        assert!(enter(&mut book, "0", start), "what is known has room");
        let letter = book.next(start).expect("a letter");
        book.written(&letter, start);
        assert!(enter(&mut book, "one too many", start));
    }

    #[test]
    fn a_failure_holds_its_namespace_longer_and_longer_and_no_other_and_the_end_holds_nothing() {
        let start = Instant::now();
        let mut book = Book::new(start);
        enter(&mut book, "x", start);
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..10 {
            let letter = book.next(now).expect("a letter");
            book.failed(&letter, now, 1.0);
            assert!(book.next(now).is_none());
            let due = book.due().expect("it is tried again");
            waits.push(due.duration_since(now).as_secs());
            now = due;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        let letter = book.next(now).expect("a letter");
        book.failed(&letter, now, 1.0);
        let object = Arc::new(ObjectKey { namespace: "other".into(), ..(*letter.object).clone() });
        let other = Announcement { object, ..announcement("x", Reason::Applied, "") };
        book.enter(other, now, Timestamp::UNIX_EPOCH);
        let letter = book.next(now).expect("a letter");
        assert_eq!(letter.object.namespace, "other");
        book.written(&letter, now);
        book.end();
        assert_eq!(book.due(), Some(start));
        assert!(book.next(start).is_some());
    }

    #[test]
    fn what_the_server_has_lost_is_made_anew_with_its_count() {
        let start = Instant::now();
        let mut book = Book::new(start);
        enter(&mut book, "x", start);
        let first = book.next(start).expect("a letter");
        book.written(&first, start);
        enter(&mut book, "x", start);
        let later = book.next(start + INTERVAL).expect("a letter");
        assert_eq!((later.version, &later.name), (Version::Later, &first.name));
        book.begin_anew(&later);
        let anew = book.next(start + INTERVAL).expect("a letter");
        assert_eq!((anew.version, anew.count), (Version::First, 2));
        assert_ne!(anew.name, first.name);
    }

    #[test]
    fn what_the_server_has_from_a_try_without_an_answer_is_no_second_event() {
        let start = Instant::now();
        let mut book = Book::new(start);
        enter(&mut book, "x", start);
        let first = book.next(start).expect("a letter");
        book.failed(&first, start, 1.0);
        enter(&mut book, "x", start);
        let again = book.next(start + PAUSE_MIN).expect("a letter");
        assert_eq!((again.version, &again.name), (Version::First, &first.name));
        book.found(&again);
        let later = book.next(start + PAUSE_MIN).expect("a letter");
        assert_eq!((later.version, &later.name, later.count), (Version::Later, &first.name, 2));
    }

    #[test]
    fn an_object_of_the_same_name_that_is_another_has_its_own_event() {
        let start = Instant::now();
        let mut book = Book::new(start);
        enter(&mut book, "x", start);
        assert_eq!(written(&mut book, start, start).len(), 1);
        let other = Announcement { uid: "other".into(), ..announcement("x", Reason::Applied, "") };
        book.enter(other, start, Timestamp::UNIX_EPOCH);
        assert_eq!(written(&mut book, start, start), [(0, 1, Version::First)]);
    }

    #[test]
    fn messages_are_one_line_of_at_most_1024_bytes_and_names_are_names() {
        let cut_off = cut(&"ä".repeat(2000));
        assert!(cut_off.len() <= MESSAGE_BYTES_MAX && cut_off.ends_with("ä…"), "{}", cut_off.len());
        assert_eq!(cut("a\nb\u{1b}[31m"), "a b [31m");
        assert_eq!(cut(&"x".repeat(MESSAGE_BYTES_MAX)).len(), MESSAGE_BYTES_MAX);
        let long = format!("{}.-.{}", "a".repeat(233), "b".repeat(17));
        let named = name(&long);
        assert!(named.len() <= NAME_BYTES_MAX && named.starts_with(&"a".repeat(233)), "{named}");
        assert_eq!(named.as_bytes()[233], b'.');
        assert_ne!(named.as_bytes()[234], b'.');
    }
}
