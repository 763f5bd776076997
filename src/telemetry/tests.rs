//! What the reports of the pipeline come to.

use serde_json::Value;

use super::*;
use crate::object::{Kind, Object};
use crate::telemetry::status::Pages;

const SECOND: Duration = Duration::from_secs(1);

/// What the pipeline would report.
struct Reporter {
    telemetry: Telemetry,
    _inquiries: mpsc::Receiver<Inquiry>,
}

fn key(name: &str) -> Arc<ObjectKey> {
    Arc::new(ObjectKey { kind: Kind::ConfigMap, namespace: "web".into(), name: name.into() })
}

fn apply(name: &str, version: Option<&str>) -> What {
    let resource_version = version.map(str::to_owned);
    What::Apply(Object {
        key: key(name),
        resource_version,
        uid: None,
        created: None,
        folder: None,
        entries: Vec::new(),
    })
}

impl Reporter {
    fn new() -> Self {
        let scope = Scope { kind: Some(Kind::ConfigMap), namespace: Some("web".into()), name: None };
        let (telemetry, inquiries) = Telemetry::new(vec![scope], Recent::default());
        Self { telemetry, _inquiries: inquiries }
    }

    /// Takes an event that changes a file or not, all of which is on disk.
    fn takes(&self, what: What, touched: bool) {
        self.takes_as_far(what, Done { touched, ..Done::default() });
    }

    fn takes_as_far(&self, what: What, done: Done) {
        let is_there = !matches!(what, What::Delete(_));
        let about = self.telemetry.taking(&Event { scope: 0, what });
        self.telemetry.taken(about.as_ref(), done, |_| is_there);
    }

    /// Something goes live, or is taken back, with `staged` still waiting; of `touched` a file changes.
    fn goes_live(&self, taken_back: bool, staged: &[&str], touched: &[&str]) {
        let set = |names: &[&str]| names.iter().copied().map(key).collect();
        self.telemetry.gone_live(taken_back, || set(staged), || set(touched));
    }

    fn shared(&self) -> &Arc<Shared> {
        self.telemetry.0.as_ref().expect("it is on")
    }

    fn status(&self) -> Value {
        let pages = Pages::new(Arc::clone(self.shared()), &Picture::default());
        serde_json::from_slice(&pages.flatten().collect::<Vec<u8>>()).expect("JSON")
    }

    /// The versions of the only object that were seen, written and bumped; `-` is none.
    fn stages(&self) -> [String; 3] {
        let status = self.status();
        let object = &status["objects"][0];
        ["seen", "written", "bumped"].map(|stage| object[stage].as_str().unwrap_or("-").to_owned())
    }

    fn dead(&self) -> Vec<String> {
        self.shared().state().health.dead(Instant::now())
    }

    fn unready(&self) -> Vec<String> {
        self.shared().state().health.unready()
    }
}

#[test]
fn without_endpoints_there_is_nothing_behind_it() {
    let telemetry = Telemetry::default();
    assert_eq!(telemetry.taking(&Event { scope: 7, what: apply("a", Some("1")) }), None);
    telemetry.signs(7, ["connection"]).failed("connection", true, || panic!("nobody wants to know"));
    assert_eq!(size_of::<Telemetry>(), size_of::<usize>());
}

#[tokio::test(start_paused = true)]
async fn a_scope_of_a_server_may_be_silent_for_a_while_and_not_for_ever() {
    let reporter = Reporter::new();
    let signs = reporter.telemetry.signs(0, []);
    let long = health::SILENCE_MAX;
    // An object, a bookmark, or a byte of either.
    for _ in 0..3 {
        tokio::time::advance(long).await;
        assert_eq!(reporter.dead(), [""; 0]);
        signs.progress();
    }
    // Not what only our own waits say.
    for _ in 0..4 {
        signs.failed("silence", false, String::new);
        tokio::time::advance(long / 4 + SECOND).await;
    }
    assert_eq!(
        reporter.dead(),
        ["nothing has been heard from the server about configmaps in namespace web for 244 s".to_owned()]
    );
    // A server that refuses is a server.
    signs.failed("forbidden", true, || "not allowed".to_owned());
    assert_eq!(reporter.dead(), [""; 0]);
    assert_eq!(reporter.status()["scopes"][0]["failure"], "not allowed");
    signs.recovered();
    assert_eq!(reporter.status()["scopes"][0]["failure"], Value::Null);
}

#[tokio::test(start_paused = true)]
async fn manifests_may_rest_for_ever() {
    let reporter = Reporter::new();
    reporter.takes(What::ListStarted, false);
    reporter.takes(What::ListDone, false);
    tokio::time::advance(100 * health::SILENCE_MAX).await;
    assert_eq!(reporter.dead(), [""; 0]);
}

#[test]
fn ready_is_after_the_first_sync_and_while_no_change_and_no_bump_has_failed() {
    let reporter = Reporter::new();
    let telemetry = &reporter.telemetry;
    let ready = || reporter.unready().is_empty();
    assert!(!ready(), "before the first sync");
    telemetry.in_step();
    assert!(ready());
    telemetry.change_failed(&"no room");
    assert!(!ready() && reporter.status()["failedChange"] == "no room");
    telemetry.in_step();
    assert!(ready(), "it is done after all");
    telemetry.not_told(Some(&"exit code 1"));
    assert!(!ready() && reporter.status()["failedBump"] == "exit code 1");
    telemetry.in_step();
    assert!(!ready(), "a write is no bump");
    telemetry.told();
    assert!(ready());
    telemetry.not_told(Some(&"exit code 1"));
    telemetry.not_told(None::<&String>);
    assert!(ready(), "there is nobody to bump: whoever starts reads what is there");
}

#[test]
fn an_object_is_seen_then_written_then_bumped() {
    let reporter = Reporter::new();
    let telemetry = &reporter.telemetry;
    telemetry.will_bump(["exec"].into_iter());
    reporter.takes(apply("a", Some("1")), true);
    assert_eq!(reporter.stages(), ["1", "1", "-"]);
    telemetry.telling();
    reporter.takes(apply("a", Some("2")), true);
    telemetry.told();
    assert_eq!(reporter.stages(), ["2", "2", "1"], "the bump had begun before the second");
    telemetry.telling();
    telemetry.not_told(Some(&"failed"));
    assert_eq!(reporter.stages(), ["2", "2", "1"]);
    telemetry.told();
    assert_eq!(reporter.stages(), ["2", "2", "2"]);
    reporter.takes_as_far(apply("a", Some("3")), Done { failed: true, ..Done::default() });
    assert_eq!(reporter.stages(), ["3", "2", "2"], "the disk is full");
    reporter.takes(What::Delete(key("a")), true);
    assert_eq!(reporter.status()["objects"], Value::Array(Vec::new()));
}

#[test]
fn what_changes_no_file_needs_no_bump() {
    let reporter = Reporter::new();
    let telemetry = &reporter.telemetry;
    telemetry.will_bump(["exec"].into_iter());
    reporter.takes(apply("a", Some("1")), false);
    assert_eq!(reporter.stages(), ["1", "1", "1"]);
    reporter.takes(apply("a", Some("2")), true);
    reporter.takes(apply("a", Some("3")), false);
    assert_eq!(reporter.stages(), ["3", "3", "1"], "2 is still to be told");
    telemetry.telling();
    reporter.takes(apply("a", Some("4")), false);
    telemetry.told();
    assert_eq!(reporter.stages(), ["4", "4", "4"]);
}

#[test]
fn where_an_earlier_run_left_something_untold_nothing_is_told_before_a_bump() {
    let reporter = Reporter::new();
    reporter.telemetry.will_bump(["exec"].into_iter());
    reporter.telemetry.owes_a_bump();
    reporter.takes(apply("a", Some("1")), false);
    assert_eq!(reporter.stages(), ["1", "1", "-"]);
    reporter.telemetry.telling();
    reporter.telemetry.told();
    assert_eq!(reporter.stages(), ["1", "1", "1"]);
}

#[test]
fn without_a_bump_nothing_is_bumped_and_without_versions_states_are_counted() {
    let reporter = Reporter::new();
    reporter.takes(apply("a", None), true);
    reporter.takes(apply("a", None), true);
    assert_eq!(reporter.stages(), ["2", "2", "-"]);
    reporter.takes(What::Keep(key("a")), false);
    assert_eq!(reporter.stages(), ["2", "2", "-"]);
}

#[test]
fn a_refusal_is_shown_until_the_object_is_another() {
    let reporter = Reporter::new();
    let refused = || reporter.status()["objects"][0]["refused"].clone();
    reporter.takes(apply("a", Some("1")), false);
    reporter.telemetry.refused(&key("a"), &"it leads out");
    assert_eq!(refused(), "it leads out");
    reporter.takes(apply("a", Some("1")), false);
    assert_eq!(refused(), "it leads out", "the same state is listed again");
    assert_eq!(reporter.shared().state().objects.refused_count(), 1);
    reporter.takes(apply("a", Some("2")), false);
    assert_eq!(refused(), Value::Null);
}

#[test]
fn what_waits_to_go_live_with_others_is_written_when_it_is() {
    const STAGED: Done = Done { staged: true, touched: false, failed: false };
    let reporter = Reporter::new();
    let telemetry = &reporter.telemetry;
    telemetry.will_bump(["exec"].into_iter());
    reporter.takes_as_far(apply("a", Some("1")), STAGED);
    assert_eq!(reporter.stages(), ["1", "-", "-"]);
    reporter.goes_live(false, &["a"], &[]);
    assert_eq!(reporter.stages(), ["1", "-", "-"], "the check holds it back");
    reporter.takes(apply("a", Some("2")), false);
    reporter.goes_live(false, &[], &["a"]);
    assert_eq!(reporter.stages(), ["2", "2", "-"]);
    telemetry.telling();
    telemetry.told();
    reporter.takes_as_far(apply("a", Some("3")), STAGED);
    reporter.goes_live(false, &[], &["a"]);
    telemetry.telling();
    assert_eq!(reporter.stages(), ["3", "3", "2"]);
    reporter.goes_live(true, &["a"], &["a"]);
    assert_eq!(reporter.stages(), ["3", "2", "2"], "the program refuses it");
    reporter.takes_as_far(apply("a", Some("4")), STAGED);
    reporter.goes_live(false, &[], &[]);
    assert_eq!(reporter.stages(), ["4", "4", "4"], "it is as it was at 2");
}
