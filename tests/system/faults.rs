//! Answers that are refusals, nonsense, cut or out of order: nothing is removed, nobody is pestered, and all is well by
//! itself once the answers are.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::harness::cluster::ApiServer;
use crate::harness::faulty::{Answer, Fault, Faulty, Line, find};
use crate::harness::namespace::Namespace;
use crate::harness::object::{config_map, labelled};
use crate::harness::sidecar::{Launch, Sidecar};
use crate::harness::wait::{lasting, run};
use crate::harness::witness::Witness;
use crate::harness::workspace::Workspace;
use crate::outage::server_without_watch_lists;

const MINUTE: Duration = Duration::from_secs(60);

/// The waits are at least 0.5, 1, 2, 4, 8, 15, 15 s, which is eight requests in the first minute; some more because streams
/// are given up for pages at once.
const REQUESTS_A_MINUTE_MAX: usize = 12;

fn everything(_: &str) -> bool {
    true
}

/// The same answer to every request.
fn answer(status: u16, retry_after: Option<&'static str>, body: &'static [u8]) -> Fault {
    Fault::Answer(everything, Answer { status, retry_after, body })
}

/// An event, the first of a streamed list.
fn is_of_a(line: &[u8]) -> bool {
    line.starts_with(br#"{"type":"#) && find(line, r#""name":"a""#).is_some()
}

fn half(line: &Bytes) -> Bytes {
    line.slice(..line.len() / 2)
}

pub fn bad_answers() -> Vec<(&'static str, Fault)> {
    const STATUS: &[u8] = br#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"of the test"}"#;
    const PAGE: &[u8] = b"<!DOCTYPE html><html><body>Please log in to this network.</body></html>";
    const CUT: Line = Line::Cut(Bytes::new());
    const END: Line = Line::Ended(Bytes::new());
    vec![
        ("401", answer(401, None, STATUS)),
        ("403", answer(403, None, STATUS)),
        ("429", answer(429, None, STATUS)),
        ("429 for a second", answer(429, Some("1"), STATUS)),
        ("429 for a while", answer(429, Some("20"), STATUS)),
        // As a server says it whose clock is behind.
        ("429 until a date that is past", answer(429, Some("Wed, 21 Oct 2015 07:28:00 GMT"), STATUS)),
        ("500", answer(500, None, STATUS)),
        ("503 without a word", answer(503, None, b"")),
        ("a redirection", answer(302, None, b"")),
        ("bytes", answer(200, None, b"\x00\xff{\xfe[[[\n\n\x00")),
        ("a page of HTML", answer(200, None, PAGE)),
        ("nothing", answer(200, None, b"")),
        ("an empty object", answer(200, None, b"{}\n")),
        ("lines cut in the middle", Fault::lines(|line| Line::Cut(half(&line)))),
        ("answers that end in the middle of a line", Fault::lines(|line| Line::Ended(half(&line)))),
        (
            "answers that break after an event",
            Fault::lines(|line| if is_of_a(&line) { Line::Passed(line) } else { CUT }),
        ),
        ("answers that end after an event", Fault::lines(|line| if is_of_a(&line) { Line::Passed(line) } else { END })),
        ("garbled lines", Fault::lines(|_| Line::Changed(Bytes::from_static(b"\xff\xfe\"}\n")))),
    ]
}

/// A sidecar that suffers a fault.
struct Case<'w> {
    name: String,
    faulty: Faulty,
    sidecar: Sidecar<'w>,
    witness: Witness,
    /// When the fault began.
    began: Instant,
}

impl<'w> Case<'w> {
    /// The fault begins while it watches, or before it starts with a full directory.
    async fn begin(name: &str, fault: Fault, restarted: bool, namespace: &Namespace, workspace: &'w Workspace) -> Self {
        let name = format!("{name}, {}", if restarted { "from its start" } else { "while it watches" });
        let faulty = Faulty::before(&ApiServer::shared().admin_access()).await;
        let launch = Launch::new(workspace).access(&faulty.access).args(["--namespace", &namespace.name]);
        let sidecar = launch.start();
        sidecar.in_sync().await;
        sidecar.holds([("a", "1"), ("b", "1"), ("c", "1")]).await;
        let witness = Witness::of(workspace);
        let began = Instant::now();
        let sidecar = if restarted {
            sidecar.terminate().await;
            faulty.set(fault);
            launch.args(["--prune", "all"]).start()
        } else {
            faulty.set(fault);
            sidecar
        };
        Self { name, faulty, sidecar, witness, began }
    }

    /// After the minute: it has tried, but not often, and removed nothing.
    fn check(&mut self) {
        let (name, requests) = (&self.name, self.faulty.requests_in_the_minute_from(self.began));
        assert!((2..=REQUESTS_A_MINUTE_MAX).contains(&requests.len()), "{name}: {} requests", requests.len());
        assert!(self.faulty.spoilt() >= 2, "{name}: {} answers were bad", self.faulty.spoilt());
        assert_eq!(self.witness.removed(), [""; 0], "{name}");
        let lines = self.sidecar.lines_with(&["configmaps"]);
        assert!((1..=4).contains(&lines.len()), "{name}: {lines:?}");
        if name.starts_with("429 for a while") {
            let soonest = requests.windows(2).map(|pair| pair[1] - pair[0]).min();
            assert!(soonest >= Some(Duration::from_secs(20)), "{name}: {soonest:?}");
        }
    }
}

#[test]
pub fn bad_answers_remove_nothing_cause_few_requests_and_are_over_when_they_are() {
    run(async {
        let namespace = Namespace::new().await;
        namespace.create_all(&["a", "b", "c"].map(|name| config_map(name, [(name, "1")]))).await;
        let faults = || {
            [false, true].into_iter().flat_map(|restarted| bad_answers().into_iter().map(move |bad| (bad, restarted)))
        };
        let workspaces: Vec<_> = faults().map(|_| Workspace::new()).collect();
        let mut cases = Vec::new();
        for (((name, fault), restarted), workspace) in faults().zip(&workspaces) {
            cases.push(Case::begin(name, fault, restarted, &namespace, workspace).await);
        }
        namespace.replace(&config_map("a", [("a", "2")])).await;
        namespace.delete(&config_map("b", [])).await;
        namespace.create(&config_map("d", [("d", "1")])).await;
        lasting(MINUTE).await;
        cases.iter_mut().for_each(Case::check);
        cases.iter().for_each(|case| case.faulty.set(Fault::None));
        for case in &mut cases {
            case.sidecar.soon_holds([("a", "2"), ("c", "1"), ("d", "1")]).await;
            assert_eq!(case.witness.removed(), ["b"], "{}", case.name);
        }
    });
}

/// A value that no server would have stored.
#[test]
fn an_event_of_3_mib_arrives_whole() {
    run(async {
        const SIZE: usize = 3 << 20;
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let faulty = Faulty::before(&ApiServer::shared().admin_access()).await;
        faulty.set(Fault::lines(|line| match find(&line, "GROWS") {
            Some(at) => Line::Changed([&line[..at], "x".repeat(SIZE).as_bytes(), &line[at + 5..]].concat().into()),
            None => Line::Passed(line),
        }));
        let launch = Launch::new(&workspace).access(&faulty.access).args(["--namespace", &namespace.name]);
        let sidecar = launch.start();
        sidecar.in_sync().await;
        namespace.create(&config_map("a", [("a", "GROWS")])).await;
        namespace.create(&config_map("b", [("b", "1")])).await;
        sidecar.holds([("a", "x".repeat(SIZE)), ("b", "1".to_owned())]).await;
        assert_eq!(sidecar.lines_with(&["WARN"]), [""; 0]);
    });
}

/// Each event comes twice, and those of two namespaces change places: what comes last is not always what is newest.
#[test]
fn events_that_come_twice_and_in_another_order_lead_to_the_right_files_with_few_requests() {
    run(async {
        let (one, other) = (Namespace::new().await, Namespace::new().await);
        let workspace = Workspace::new();
        let (label, selector) = ([("order", one.name.as_str())], format!("order={}", one.name));
        let object = |name: &str, value: &str| labelled(config_map(name, [(name, value)]), label);
        for (namespace, name) in [(&one, "a"), (&one, "gone"), (&other, "b"), (&other, "c")] {
            namespace.create(&object(name, "0")).await;
        }
        let faulty = Faulty::before(&ApiServer::shared().admin_access()).await;
        let mut held = Bytes::new();
        faulty.set(Fault::lines(move |line| {
            // An event of the first namespace waits for one of the other.
            if line.starts_with(br#"{"type":"MODIFIED""#) && is_of_a(&line) {
                held = line;
                return Line::Changed(Bytes::new());
            }
            let after = std::mem::take(&mut held);
            Line::Changed([line.as_ref(), &line, &after, &after].concat().into())
        }));
        let launch = Launch::bare(&workspace).access(&faulty.access).arg("--dir").arg(workspace.dir());
        let sidecar = launch.args(["-A", "--labels", &selector, "--log-level", "debug"]).start();
        sidecar.in_sync().await;
        sidecar.holds([("a", "0"), ("b", "0"), ("c", "0"), ("gone", "0")]).await;
        let mut witness = Witness::of(&workspace);
        let began = Instant::now();
        for number in 1..=20 {
            one.replace(&object("a", &number.to_string())).await;
            other.replace(&object("b", &number.to_string())).await;
            other.replace(&object("c", &number.to_string())).await;
        }
        one.delete(&object("gone", "")).await;
        other.replace(&object("b", "last")).await;
        sidecar.soon_holds([("a", "20"), ("b", "last"), ("c", "20")]).await;
        assert_eq!(witness.removed(), ["gone"]);
        sidecar.says("versions are smaller than before").await;
        lasting(MINUTE.saturating_sub(began.elapsed())).await;
        let requests = faulty.requests_in_the_minute_from(began).len();
        assert!((1..=REQUESTS_A_MINUTE_MAX).contains(&requests), "{requests} requests");
        sidecar.holds([("a", "20"), ("b", "last"), ("c", "20")]).await;
        witness.saw_nothing_go();
    });
}

#[test]
fn an_event_of_the_past_does_not_bring_an_old_content_back() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("a", [("a", "0")])).await;
        namespace.create(&config_map("b", [("b", "0")])).await;
        let faulty = Faulty::before(&ApiServer::shared().admin_access()).await;
        let mut first = None;
        faulty.set(Fault::lines(move |line| {
            if !line.starts_with(br#"{"type":"MODIFIED""#) {
                return Line::Passed(line);
            }
            if is_of_a(&line) {
                first.get_or_insert_with(|| line.clone());
                return Line::Passed(line);
            }
            let first = first.take().unwrap_or_default();
            Line::Changed([first, line].concat().into())
        }));
        let launch = Launch::new(&workspace).access(&faulty.access).args(["--namespace", &namespace.name]);
        let sidecar = launch.args(["--log-level", "debug"]).start();
        sidecar.in_sync().await;
        for (name, value) in [("a", "1"), ("a", "2"), ("b", "1")] {
            namespace.replace(&config_map(name, [(name, value)])).await;
        }
        sidecar.holds([("a", "2"), ("b", "1")]).await;
        sidecar.says("versions are smaller than before").await;
        assert_eq!(sidecar.lines_with(&["INFO", "wrote a "]).len(), 2, "once for each of its changes");
    });
}

/// As long as that lasts, the lists alone keep the directory in step.
#[test]
fn a_server_that_answers_every_watch_with_410_is_listed_again_and_again_but_not_often() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("a", [("a", "1")])).await;
        let faulty = Faulty::before(&server_without_watch_lists().await.admin_access()).await;
        let is_watch = |uri: &str| uri.contains("watch=true") && !uri.contains("sendInitialEvents");
        faulty.set(Fault::Answer(is_watch, Answer { status: 410, retry_after: None, body: b"" }));
        let launch = Launch::new(&workspace).access(&faulty.access).args(["--namespace", &namespace.name]);
        let sidecar = launch.start();
        sidecar.holds([("a", "1")]).await;
        let (mut witness, began) = (Witness::of(&workspace), Instant::now());
        namespace.replace(&config_map("a", [("a", "2")])).await;
        sidecar.soon_holds([("a", "2")]).await;
        lasting(MINUTE.saturating_sub(began.elapsed())).await;
        // A list and a watch each time.
        let requests = faulty.requests_in_the_minute_from(began).len();
        assert!((4..=2 * REQUESTS_A_MINUTE_MAX).contains(&requests), "{requests} requests");
        witness.saw_nothing_go();
        faulty.set(Fault::None);
        namespace.replace(&config_map("a", [("a", "3")])).await;
        sidecar.soon_holds([("a", "3")]).await;
    });
}
