//! How a scope is followed, without input or output: what to ask the server next, and what its answers mean.
//!
//! A list comes as a stream of events where the server can do that (watch-list, KEP-3157), otherwise in pages; a watch
//! goes on from the version where the list ended, and from where it was itself whenever it breaks. There is another list
//! only when the server has forgotten that version (410) or has another history, and when the pipeline asks for one.

use std::time::Duration;

use super::wire::Status;

/// The longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// The longest wait that a server may ask for: livez gives a silence of 240 s, of which the next tries need their part.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(120);

/// The wait after the first failure; it doubles with each one that follows.
const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// An answer that lasted as long as this, and brought anything, makes earlier failures forgotten.
pub(super) const STABLE: Duration = Duration::from_secs(10);

/// Watches that end as asked are reopened at once; those that end early, within this time, lest all followers of a
/// server that restarts come back together.
const SPREAD: Duration = Duration::from_secs(1);

/// A list follows an expired version at once this many times in a row. A server may expire what it has just sent.
const IMMEDIATE_RELISTS_MAX: u32 = 3;

/// After this many streamed lists in a row that began and were not completed, a list is asked for in pages. So is each list
/// after another such failure, until a streamed list is completed.
const BROKEN_STREAMS_MAX: u32 = 3;

/// How many objects a page of a list may have. It bounds the server's memory, not configbump's.
pub(super) const PAGE_OBJECTS: u32 = 100;

/// What to ask the server for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// A watch that begins with the present objects.
    StreamedList,
    /// A page of a list, or all of it.
    Page { objects_max: Option<u32>, continue_token: Option<String> },
    /// What happened after this version.
    Watch { version: String },
}

/// Why an answer did not come or broke off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The server said so; `in_stream`: by an event of a watch that had begun.
    Status { status: Status, in_stream: bool },
    /// There is no way to the server, its answer broke off, or cannot be read: `what` is one line about it.
    Trouble { trouble: Trouble, what: String },
}

/// What kind of trouble it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Trouble {
    /// The kubeconfig or the credentials cannot be used.
    Credentials,
    /// There is no connection, or it broke.
    Connection,
    /// Nothing came back when it was to be made.
    Unreachable,
    /// The server's certificate is not good.
    Certificate,
    /// The server has said nothing for too long.
    Silence,
    /// What it said cannot be, or not be read.
    Answer,
    /// Its versions are smaller than before: it has another history, as after a restored backup of etcd.
    History,
    /// There is no thread to read a long answer.
    Thread,
}

/// The kinds of failure, as metrics name them.
pub const REASONS: [&str; 14] = [
    "credentials",
    "connection",
    "certificate",
    "unreachable",
    "silence",
    "answer",
    "history",
    "thread",
    "unauthorized",
    "forbidden",
    "expired",
    "throttled",
    "server",
    "other",
];

impl Failure {
    /// What kind of failure it is, as metrics name it: one of [`REASONS`].
    pub fn reason(&self) -> &'static str {
        let [
            credentials,
            connection,
            certificate,
            unreachable,
            silence,
            answer,
            history,
            thread,
            unauthorized,
            forbidden,
            expired,
            ..,
        ] = REASONS;
        let [.., throttled, server, other] = REASONS;
        match self {
            Self::Trouble { trouble, .. } => match trouble {
                Trouble::Credentials => credentials,
                Trouble::Connection => connection,
                Trouble::Certificate => certificate,
                Trouble::Unreachable => unreachable,
                Trouble::Silence => silence,
                Trouble::Answer => answer,
                Trouble::History => history,
                Trouble::Thread => thread,
            },
            Self::Status { status, .. } => match status.code {
                401 => unauthorized,
                403 => forbidden,
                410 => expired,
                429 => throttled,
                500..=599 => server,
                _ => other,
            },
        }
    }

    /// Whether somebody has said so, the server or the network: then it is not only a wait of our own that has ended.
    pub fn is_heard(&self) -> bool {
        !matches!(self, Self::Trouble { trouble: Trouble::Silence | Trouble::Unreachable, .. })
    }
}

/// Form of the next list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ListMethod {
    Stream,
    /// One list in pages, because a stream failed. The list after that is a stream again.
    PagesOnce,
    /// The server has said that it streams no lists.
    Pages,
}

/// The state of following one scope.
#[derive(Debug)]
pub(super) struct Follow {
    ask: Ask,
    method: ListMethod,
    /// Whether the present answer has brought anything.
    progressed: bool,
    /// Whether the watch has come to a smaller version than it had.
    went_back: bool,
    /// Failures in a row.
    failures: u32,
    /// Versions in a row that the server had forgotten.
    expirations: u32,
    /// Streamed lists in a row that began and were not completed.
    broken_streams: u32,
}

impl Follow {
    pub fn new() -> Self {
        Self {
            ask: Ask::StreamedList,
            method: ListMethod::Stream,
            progressed: false,
            went_back: false,
            failures: 0,
            expirations: 0,
            broken_streams: 0,
        }
    }

    pub fn ask(&self) -> &Ask {
        &self.ask
    }

    /// Whether the answer to the present question is, or goes on, a list.
    pub fn is_listing(&self) -> bool {
        !matches!(self.ask, Ask::Watch { .. })
    }

    /// The server has begun to answer. Whether that begins a list.
    pub fn opened(&mut self) -> bool {
        (self.progressed, self.went_back) = (false, false);
        matches!(self.ask, Ask::StreamedList | Ask::Page { continue_token: None, .. })
    }

    /// An object came, in the state of this version.
    pub fn object(&mut self, version: &str) {
        self.progressed = true;
        // The objects of a list come in no order of versions: only its end tells where it is.
        if let Ask::Watch { version: seen } = &mut self.ask
            && !version.is_empty()
        {
            let number = |version: &str| version.parse::<u64>().ok();
            self.went_back |= number(version) < number(seen);
            version.clone_into(seen);
        }
    }

    /// Whether the watch has come to a smaller version than it had. Versions grow (KEP-5504), so that is another history, of
    /// which the beginning is missing.
    pub fn went_back(&self) -> bool {
        self.went_back
    }

    /// A bookmark came. Whether it completes a list.
    pub fn bookmark(&mut self, version: &str, initial_events_end: bool) -> bool {
        let completes = self.ask == Ask::StreamedList && initial_events_end;
        if completes {
            self.ask = Ask::Watch { version: version.to_owned() };
            self.broken_streams = 0;
        }
        self.object(version);
        completes
    }

    /// A page came. Whether it completes a list.
    pub fn page(&mut self, version: String, continue_token: String) -> bool {
        self.progressed = true;
        let completes = continue_token.is_empty();
        self.ask = if completes {
            // The next list, which is rare, finds out whether streams work again.
            if self.method == ListMethod::PagesOnce {
                self.method = ListMethod::Stream;
            }
            Ask::Watch { version }
        } else {
            Ask::Page { objects_max: Some(PAGE_OBJECTS), continue_token: Some(continue_token) }
        };
        completes
    }

    /// A page had less than it could, and yet there is to be another. A server fills its pages as far as there are objects;
    /// one that does not must not be asked without end, as fast as it answers.
    pub fn thin(&mut self, jitter: f64) -> Duration {
        self.back_off(jitter)
    }

    /// Asks for a whole list next.
    pub fn relist(&mut self) {
        self.ask = match self.method {
            ListMethod::Stream => Ask::StreamedList,
            ListMethod::PagesOnce | ListMethod::Pages => {
                Ask::Page { objects_max: Some(PAGE_OBJECTS), continue_token: None }
            }
        };
    }

    /// A watch ended without a failure, after `lasted` of the `asked` time. How long to wait; `jitter` is in `0.0..1.0`.
    pub fn ended(&mut self, lasted: Duration, asked: Duration, jitter: f64) -> Duration {
        self.forget_failures_if_stable(lasted);
        if lasted + SPREAD >= asked {
            return Duration::ZERO;
        }
        if lasted >= STABLE { SPREAD.mul_f64(jitter) } else { self.back_off(jitter) }
    }

    /// An answer failed after `lasted`. How long to wait; `jitter` is in `0.0..1.0`.
    pub fn failed(&mut self, failure: &Failure, lasted: Duration, jitter: f64) -> Duration {
        self.forget_failures_if_stable(lasted);
        if self.is_expired(failure) {
            return self.expired(jitter);
        }
        if self.ask == Ask::StreamedList
            && let Some(method) = self.method_after(failure)
        {
            self.method = method;
            self.relist();
            return Duration::ZERO;
        }
        if let Ask::Page { continue_token, .. } = &mut self.ask {
            // A list that was begun is void, so its pages begin anew.
            *continue_token = None;
        }
        let asked_for = match failure {
            Failure::Status { status, .. } => status.retry_after_s.map(Duration::from_secs).unwrap_or_default(),
            Failure::Trouble { .. } => Duration::ZERO,
        };
        self.back_off(jitter).max(asked_for.min(RETRY_AFTER_MAX))
    }

    /// Whether what was asked for cannot go on from where it is.
    fn is_expired(&self, failure: &Failure) -> bool {
        let gone = match failure {
            Failure::Status { status, .. } => {
                status.code == 410 || matches!(status.reason.as_str(), "Expired" | "Gone")
            }
            // A watch from a version of the future says nothing at all, not even bookmarks.
            Failure::Trouble { trouble, .. } => {
                !self.is_listing() && matches!(trouble, Trouble::Silence | Trouble::History)
            }
        };
        gone && self.ask != Ask::StreamedList
    }

    fn expired(&mut self, jitter: f64) -> Duration {
        if let Ask::Page { continue_token: Some(_), .. } = &self.ask {
            // The rest of this list is lost; one without pages cannot expire on the way.
            self.ask = Ask::Page { objects_max: None, continue_token: None };
            return self.back_off(jitter);
        }
        self.relist();
        self.expirations = (self.expirations + 1).min(IMMEDIATE_RELISTS_MAX + 1);
        if self.expirations <= IMMEDIATE_RELISTS_MAX { Duration::ZERO } else { self.back_off(jitter) }
    }

    /// Returns the method that replaces the stream after this failure of a streamed list, or `None` for another stream.
    fn method_after(&mut self, failure: &Failure) -> Option<ListMethod> {
        match failure {
            // 422: the feature is off (server 1.33); 400: unknown to it.
            Failure::Status { status: Status { code: 400 | 422, .. }, .. } => Some(ListMethod::Pages),
            // Its etcd is too old, or something failed this time.
            Failure::Status { in_stream, .. } => in_stream.then_some(ListMethod::PagesOnce),
            // Something in between does not let the end of the list through.
            Failure::Trouble { trouble, .. } => {
                let began = self.progressed || matches!(trouble, Trouble::Silence | Trouble::Answer);
                self.broken_streams = (self.broken_streams + u32::from(began)).min(BROKEN_STREAMS_MAX);
                (self.broken_streams >= BROKEN_STREAMS_MAX).then_some(ListMethod::PagesOnce)
            }
        }
    }

    fn forget_failures_if_stable(&mut self, lasted: Duration) {
        if self.progressed && lasted >= STABLE {
            (self.failures, self.expirations) = (0, 0);
        }
    }

    /// Exponential, and between half of it and all of it, so that followers spread.
    fn back_off(&mut self, jitter: f64) -> Duration {
        let doubled = BACKOFF_MIN.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = (self.failures + 1).min(16);
        doubled.min(BACKOFF_MAX).mul_f64(0.5 + jitter / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(120);
    const SHORT: Duration = Duration::from_millis(5);

    fn status(code: u16) -> Failure {
        Failure::Status { status: Status { code, ..Status::default() }, in_stream: false }
    }

    fn event(code: u16) -> Failure {
        Failure::Status { status: Status { code, ..Status::default() }, in_stream: true }
    }

    fn broken() -> Failure {
        Failure::Trouble { trouble: Trouble::Connection, what: "broken".into() }
    }

    fn watch(version: &str) -> Ask {
        Ask::Watch { version: version.into() }
    }

    fn page(objects_max: Option<u32>, continue_token: Option<&str>) -> Ask {
        Ask::Page { objects_max, continue_token: continue_token.map(str::to_owned) }
    }

    /// A follower whose list ended at version 5.
    fn watching() -> Follow {
        let mut follow = Follow::new();
        follow.opened();
        assert!(follow.bookmark("5", true));
        follow
    }

    #[test]
    fn a_streamed_list_is_complete_at_its_bookmark_and_the_same_answer_goes_on_as_a_watch() {
        let mut follow = Follow::new();
        assert_eq!(follow.ask(), &Ask::StreamedList);
        assert!(follow.opened(), "a list begins");
        follow.object("9");
        assert!(!follow.bookmark("4", false), "an ordinary bookmark completes nothing");
        assert!(follow.is_listing());
        assert!(follow.bookmark("5", true));
        assert_eq!(follow.ask(), &watch("5"), "the versions of the listed objects do not count");
        assert!(!follow.bookmark("6", true), "there is no list to complete");
        follow.object("7");
        assert_eq!(follow.ask(), &watch("7"));
    }

    #[test]
    fn a_watch_that_ends_or_breaks_goes_on_where_it_was() {
        let mut follow = watching();
        assert_eq!(follow.ended(LONG, LONG, 1.0), Duration::ZERO);
        assert_eq!(follow.ask(), &watch("5"));
        assert!(!follow.opened(), "no list begins");
        follow.object("8");
        follow.failed(&broken(), LONG, 0.0);
        follow.failed(&status(503), SHORT, 0.0);
        assert_eq!(follow.ask(), &watch("8"));
    }

    #[test]
    fn a_server_that_cannot_stream_lists_is_asked_for_pages_at_once_and_from_then_on() {
        for refusal in [status(422), status(400), event(422)] {
            let mut follow = Follow::new();
            assert_eq!(follow.failed(&refusal, SHORT, 1.0), Duration::ZERO, "{refusal:?}");
            assert_eq!(follow.ask(), &page(Some(PAGE_OBJECTS), None));
            assert!(follow.opened());
            assert!(!follow.page("7".into(), "more".into()));
            assert_eq!(follow.ask(), &page(Some(PAGE_OBJECTS), Some("more")));
            assert!(!follow.opened(), "a further page begins no list");
            assert!(follow.page("7".into(), String::new()));
            assert_eq!(follow.ask(), &watch("7"));
            follow.relist();
            assert_eq!(follow.ask(), &page(Some(PAGE_OBJECTS), None));
        }
    }

    #[test]
    fn stream_that_fails_once_is_asked_for_again() {
        for failure in [event(500), event(504)] {
            let mut follow = Follow::new();
            assert_eq!(follow.failed(&failure, SHORT, 1.0), Duration::ZERO, "{failure:?}");
            assert_eq!(follow.ask(), &page(Some(PAGE_OBJECTS), None));
            follow.failed(&status(500), SHORT, 0.0);
            assert_eq!(follow.ask(), &page(Some(PAGE_OBJECTS), None), "not before a list is complete");
            assert!(follow.page("7".into(), String::new()));
            follow.relist();
            assert_eq!(follow.ask(), &Ask::StreamedList);
        }
    }

    #[test]
    fn other_failures_of_a_streamed_list_do_not_give_it_up() {
        for failure in [status(401), status(403), status(429), status(500), broken()] {
            let mut follow = Follow::new();
            assert!(follow.failed(&failure, SHORT, 0.0) > Duration::ZERO);
            assert_eq!(follow.ask(), &Ask::StreamedList, "{failure:?}");
        }
    }

    #[test]
    fn a_forgotten_version_is_listed_anew_at_once_but_not_for_ever() {
        for gone in [status(410), event(410)] {
            let mut follow = watching();
            for _ in 0..IMMEDIATE_RELISTS_MAX {
                assert_eq!(follow.failed(&gone, SHORT, 1.0), Duration::ZERO);
                assert_eq!(follow.ask(), &Ask::StreamedList);
                follow.opened();
                follow.bookmark("6", true);
            }
            assert!(follow.failed(&gone, SHORT, 1.0) > Duration::ZERO);
            assert_eq!(follow.ask(), &Ask::StreamedList);
        }
    }

    #[test]
    fn a_forgotten_version_is_listed_anew_at_once_whatever_failed_before() {
        let mut follow = watching();
        for _ in 0..5 {
            follow.failed(&broken(), SHORT, 1.0);
        }
        assert_eq!(follow.failed(&status(410), SHORT, 1.0), Duration::ZERO);
    }

    #[test]
    fn a_silent_watch_and_one_of_another_history_are_listed_anew() {
        for trouble in [Trouble::Silence, Trouble::History] {
            let mut follow = watching();
            assert_eq!(follow.failed(&Failure::Trouble { trouble, what: String::new() }, LONG, 1.0), Duration::ZERO);
            assert_eq!(follow.ask(), &Ask::StreamedList);
        }
        let mut follow = watching();
        follow.object("7");
        assert!(!follow.went_back());
        follow.object("");
        assert_eq!(follow.ask(), &watch("7"), "no version would mean any version");
        follow.bookmark("6", false);
        assert!(follow.went_back());
    }

    #[test]
    fn streamed_lists_that_break_again_and_again_are_given_up() {
        let silent = Failure::Trouble { trouble: Trouble::Silence, what: String::new() };
        let mut follow = Follow::new();
        for _ in 1..BROKEN_STREAMS_MAX {
            follow.opened();
            assert!(follow.failed(&silent, SHORT, 0.0) > Duration::ZERO);
            assert_eq!(follow.ask(), &Ask::StreamedList);
        }
        for _ in 0..2 {
            assert_eq!(follow.failed(&silent, SHORT, 0.0), Duration::ZERO);
            assert_eq!(follow.ask(), &page(Some(PAGE_OBJECTS), None));
            follow.page("7".into(), String::new());
            follow.relist();
            assert_eq!(follow.ask(), &Ask::StreamedList, "the next list finds out");
        }
    }

    #[test]
    fn pages_that_expire_on_the_way_are_replaced_by_one_without_an_end() {
        let mut follow = Follow::new();
        follow.failed(&status(422), SHORT, 0.0);
        follow.page("7".into(), "more".into());
        assert!(follow.failed(&status(410), SHORT, 0.0) > Duration::ZERO);
        assert_eq!(follow.ask(), &page(None, None));
        assert!(follow.opened(), "a list begins anew");
    }

    #[test]
    fn a_server_that_sends_thin_pages_without_end_is_asked_less_and_less() {
        let mut follow = Follow::new();
        follow.failed(&status(422), SHORT, 0.0);
        let waits = [(); 3].map(|()| {
            follow.page("7".into(), "more".into());
            follow.thin(1.0).as_secs()
        });
        assert_eq!(waits, [1, 2, 4]);
        assert_eq!(follow.ask(), &page(Some(PAGE_OBJECTS), Some("more")), "and yet the list goes on");
    }

    #[test]
    fn pages_that_fail_on_the_way_begin_anew() {
        let mut follow = Follow::new();
        follow.failed(&status(422), SHORT, 0.0);
        follow.page("7".into(), "more".into());
        follow.failed(&broken(), SHORT, 0.0);
        assert_eq!(follow.ask(), &page(Some(PAGE_OBJECTS), None));
    }

    #[test]
    fn the_waits_double_to_a_bound_and_spread_over_half_of_it() {
        for (jitter, expected) in [
            (1.0, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]),
            (0.0, [500, 1000, 2000, 4000, 8000, 15_000, 15_000]),
        ] {
            let mut follow = watching();
            let waits = expected.map(|_| follow.failed(&broken(), SHORT, jitter).as_millis());
            assert_eq!(waits, expected);
        }
    }

    #[test]
    fn only_an_answer_that_lasted_and_brought_something_makes_failures_forgotten() {
        let mut follow = watching();
        let mut next = |lasted, brought| {
            follow.opened();
            if brought {
                follow.object("9");
            }
            follow.failed(&broken(), lasted, 1.0).as_secs()
        };
        assert_eq!([next(SHORT, true), next(SHORT, true), next(LONG, false)], [1, 2, 4]);
        assert_eq!([next(LONG, true), next(SHORT, true)], [1, 2]);
    }

    #[test]
    fn a_server_that_keeps_ending_watches_early_is_asked_less_and_less() {
        let mut follow = watching();
        let waits = [(); 3].map(|()| follow.ended(SHORT, LONG, 1.0).as_secs());
        assert_eq!(waits, [1, 2, 4]);
        assert!(follow.ended(Duration::from_secs(60), LONG, 0.5) <= SPREAD, "a restart spreads its followers");
    }

    #[test]
    fn the_server_may_ask_for_a_longer_wait_within_bounds() {
        let after = |retry_after_s| {
            let status = Status { code: 429, retry_after_s: Some(retry_after_s), ..Status::default() };
            watching().failed(&Failure::Status { status, in_stream: false }, SHORT, 1.0).as_secs()
        };
        assert_eq!([after(0), after(7), after(90), after(u64::MAX)], [1, 7, 90, 120]);
    }
}
