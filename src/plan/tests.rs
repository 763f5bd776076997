//! What the plan says, event by event. That the disk then is as the contract says is tested with the store, in `run`.

use std::path::Path;

use super::*;
use crate::config::Layout;
use crate::content::Body;
use crate::object::Kind;

fn key(name: &str) -> Arc<ObjectKey> {
    Arc::new(ObjectKey { kind: Kind::ConfigMap, namespace: "ns".into(), name: name.into() })
}

/// An object whose values are their own digests.
fn object(name: &str, created: i64, keys: &[&str]) -> Object {
    let entry = |key: &&str| {
        let bytes = format!("{key} of {name}");
        let mut sha256 = [0; 32];
        sha256[..bytes.len()].copy_from_slice(bytes.as_bytes());
        let body = Body::Memory(bytes.as_bytes().into());
        Entry {
            key: (*key).to_owned(),
            content: Content { digest: Digest { sha256, len_bytes: bytes.len() as u64 }, body },
        }
    };
    Object {
        key: key(name),
        resource_version: None,
        uid: None,
        created: Some(created),
        folder: None,
        entries: keys.iter().map(entry).collect(),
    }
}

/// A plan that many scopes of the same breadth feed, and what it said, in short words.
struct Fixture(Plan);

impl Fixture {
    fn new(scopes: usize) -> Self {
        let scope = Scope { kind: None, namespace: None, name: None };
        Self(Plan::new(Places::new(Layout::Flat, &[Kind::ConfigMap], Path::new("/dir")), vec![scope; scopes]))
    }

    fn step(&mut self, scope: ScopeId, what: What) -> Vec<String> {
        self.0.step(Event { scope, what }).changes.iter().map(words).collect()
    }

    fn apply(&mut self, object: Object) -> Vec<String> {
        self.step(0, What::Apply(object))
    }

    fn list(&mut self, objects: Vec<Object>) -> Vec<String> {
        let mut said = self.step(0, What::ListStarted);
        said.extend(objects.into_iter().flat_map(|object| self.apply(object)));
        said.extend(self.step(0, What::ListDone));
        said
    }
}

fn words(change: &Change) -> String {
    match change {
        Change::Write { path, owner, .. } => format!("write {path} of {}", owner.name),
        Change::Park { claim, owner, .. } => format!("park {claim} of {}", owner.name),
        Change::Demote { path, owner, claim, .. } => format!("demote {path} of {} to {claim}", owner.name),
        Change::Promote { path, owner, claim, .. } => format!("promote {claim} of {} to {path}", owner.name),
        Change::Drop { claim } => format!("drop {claim}"),
        Change::Remove { path, owner, makes_way: false } => format!("remove {path} of {}", owner.name),
        Change::Remove { path, owner, makes_way: true } => format!("make way by {path} of {}", owner.name),
    }
}

#[test]
fn keys_come_before_others_go() {
    let mut plan = Fixture::new(1);
    assert_eq!(plan.apply(object("x", 1, &["a", "b"])), ["write a of x", "write b of x"]);
    assert_eq!(plan.apply(object("x", 1, &["b", "c"])), ["write b of x", "write c of x", "remove a of x"]);
    assert_eq!(plan.step(0, What::ListDone), [""; 0], "an object that was applied without a list is held by it");
}

#[test]
fn the_older_claimant_wins_whichever_comes_first() {
    let mut plan = Fixture::new(1);
    plan.apply(object("old", 1, &["a"]));
    assert_eq!(plan.apply(object("young", 2, &["a"])), ["park 1 of young"]);

    let mut plan = Fixture::new(1);
    plan.apply(object("young", 2, &["a"]));
    assert_eq!(plan.apply(object("old", 1, &["a"])), ["demote a of young to 0", "write a of old"]);
}

#[test]
fn of_two_of_one_age_the_first_by_kind_namespace_and_name_wins() {
    let mut plan = Fixture::new(1);
    plan.apply(object("b", 1, &["k"]));
    assert_eq!(plan.apply(object("a", 1, &["k"])), ["demote k of b to 0", "write k of a"]);
    let mut secret = object("0", 1, &["k"]);
    secret.key = Arc::new(ObjectKey { kind: Kind::Secret, ..(*secret.key).clone() });
    assert_eq!(plan.apply(secret), ["park 2 of 0"]);
}

#[test]
fn an_object_of_unknown_age_is_the_youngest() {
    let mut plan = Fixture::new(1);
    plan.apply(Object { created: None, ..object("a", 0, &["k"]) });
    assert_eq!(plan.apply(object("b", i64::MAX, &["k"])), ["demote k of a to 0", "write k of b"]);
}

#[test]
fn the_loser_takes_over_when_the_winner_or_its_key_goes() {
    let mut plan = Fixture::new(1);
    plan.apply(object("old", 1, &["a"]));
    plan.apply(object("young", 2, &["a"]));
    assert_eq!(plan.apply(object("old", 1, &[])), ["promote 1 of young to a"]);
    plan.apply(object("old", 1, &["a"]));
    assert_eq!(plan.step(0, What::Delete(key("old"))), ["promote 1 of young to a"]);
}

#[test]
fn a_loser_that_changes_or_goes_leaves_the_file_alone() {
    let mut plan = Fixture::new(1);
    plan.apply(object("old", 1, &["a"]));
    plan.apply(object("young", 2, &["a"]));
    assert_eq!(plan.apply(object("young", 2, &["a"])), ["park 1 of young"]);
    assert_eq!(plan.step(0, What::Delete(key("young"))), ["drop 1"]);
}

#[test]
fn a_file_and_a_folder_of_one_name_are_a_conflict_too() {
    let in_folder = |name, created| Object { folder: Some("a".into()), ..object(name, created, &["x", "y"]) };
    let mut plan = Fixture::new(1);
    plan.apply(in_folder("young", 2));
    assert_eq!(
        plan.apply(object("old", 1, &["a"])),
        [
            "demote a/x of young to 0",
            "demote a/y of young to 1",
            "make way by a/x of young",
            "make way by a/y of young",
            "write a of old"
        ]
    );
    assert_eq!(
        plan.step(0, What::Delete(key("old"))),
        ["make way by a of old", "promote 0 of young to a/x", "promote 1 of young to a/y"]
    );
}

#[test]
fn a_removal_makes_way_only_for_a_winner() {
    let in_folder = |name, key: &'static str| Object { folder: Some("f".into()), ..object(name, 1, &[key]) };
    let mut plan = Fixture::new(1);
    for (name, path) in [("x", "1"), ("y", "2"), ("z", "3")] {
        plan.apply(in_folder(name, path));
    }
    assert_eq!(plan.apply(object("waits", 2, &["f"])), ["park 3 of waits"]);
    assert_eq!(plan.step(0, What::Delete(key("x"))), ["remove f/1 of x"]);
    assert_eq!(plan.apply(in_folder("y", "4")), ["write f/4 of y", "remove f/2 of y"]);
    plan.step(0, What::Delete(key("y")));
    assert_eq!(plan.step(0, What::Delete(key("z"))), ["make way by f/3 of z", "promote 3 of waits to f"]);
}

#[test]
fn only_a_completed_list_removes_what_it_did_not_have() {
    let mut plan = Fixture::new(1);
    plan.list(vec![object("x", 1, &["a"]), object("y", 1, &["b"])]);
    assert_eq!(plan.step(0, What::ListStarted), [""; 0]);
    assert_eq!(plan.apply(object("y", 1, &["b"])), ["write b of y"]);
    assert_eq!(plan.step(0, What::ListStarted), [""; 0], "the list broke off, and another began");
    assert_eq!(plan.step(0, What::Keep(key("y"))), [""; 0]);
    assert_eq!(plan.step(0, What::ListDone), ["remove a of x"]);
}

#[test]
fn an_object_that_two_scopes_hold_stays_until_both_let_go() {
    let mut plan = Fixture::new(2);
    for scope in [0, 1] {
        plan.step(scope, What::ListStarted);
        plan.step(scope, What::Apply(object("x", 1, &["a"])));
        plan.step(scope, What::ListDone);
    }
    assert_eq!(plan.step(0, What::Delete(key("x"))), [""; 0]);
    assert_eq!(plan.step(1, What::Delete(key("x"))), ["remove a of x"]);
}

#[test]
fn a_scope_that_lags_behind_another_changes_nothing() {
    let mut plan = Fixture::new(2);
    let at = |version: &str, keys| Object { resource_version: Some(version.into()), ..object("x", 1, keys) };
    plan.step(0, What::Apply(at("10", &["a", "b"])));
    assert_eq!(plan.step(1, What::Apply(at("9", &["a"]))), [""; 0]);
    assert_eq!(plan.step(0, What::Apply(at("9", &["a"]))), ["write a of x", "remove b of x"], "its own order counts");
}

#[test]
fn what_an_earlier_run_left_is_its_objects_until_a_list_is_complete() -> Result<(), crate::path::PathError> {
    let mut plan = Fixture::new(1);
    plan.0.restore(RelPath::parse("a")?, &key("gone"));
    plan.0.restore(RelPath::parse("b")?, &key("here"));
    assert!(!plan.0.in_sync());
    plan.step(0, What::ListStarted);
    assert_eq!(plan.apply(object("older", 0, &["a", "b"])), ["park 2 of older", "park 3 of older"], "nothing flaps");
    assert_eq!(plan.apply(object("here", 1, &["b"])), ["park 1 of here", "promote 3 of older to b"]);
    assert_eq!(plan.step(0, What::ListDone), ["promote 2 of older to a"]);
    Ok(())
}

#[test]
fn a_refused_folder_leaves_the_objects_files_and_is_told_once_a_version() {
    let mut plan = Fixture::new(1);
    plan.apply(object("x", 1, &["a"]));
    let refused =
        || Object { folder: Some("../out".into()), resource_version: Some("7".into()), ..object("x", 1, &["a", "b"]) };
    let told = |plan: &mut Fixture| {
        let step = plan.0.step(Event { scope: 0, what: What::Apply(refused()) });
        (step.changes.len(), step.notices.len())
    };
    assert_eq!(told(&mut plan), (0, 1));
    assert_eq!(told(&mut plan), (0, 0));
}

#[test]
fn what_an_earlier_run_left_of_a_refused_object_stays_unless_an_older_one_claims_it()
-> Result<(), crate::path::PathError> {
    let mut plan = Fixture::new(1);
    plan.0.restore(RelPath::parse("a")?, &key("refused"));
    plan.0.restore(RelPath::parse("b")?, &key("refused"));
    plan.apply(object("older", 1, &["b"]));
    let refused = Object { folder: Some("..".into()), ..object("refused", 2, &["a", "b"]) };
    assert_eq!(plan.apply(refused), ["demote b of refused to 1", "promote 2 of older to b"]);
    assert_eq!(plan.step(0, What::ListDone), [""; 0]);
    Ok(())
}

#[test]
fn a_refused_key_leaves_the_others_alone() {
    let mut plan = Fixture::new(1);
    let step = plan.0.step(Event { scope: 0, what: What::Apply(object("x", 1, &["a", "..", "b/c"])) });
    assert_eq!(step.changes.iter().map(words).collect::<Vec<_>>(), ["write a of x"]);
    assert_eq!(step.notices.len(), 2);
}

#[test]
fn a_conflict_is_told_when_it_arises_and_not_again() {
    let mut plan = Fixture::new(1);
    plan.apply(object("old", 1, &["a"]));
    let mut told =
        |created| plan.0.step(Event { scope: 0, what: What::Apply(object("young", created, &["a"])) }).notices;
    let conflict = |path| Notice::Conflict { path, winner: key("old"), loser: key("young") };
    assert_eq!(told(2), RelPath::parse("a").map(conflict).into_iter().collect::<Vec<_>>());
    assert_eq!(told(2), []);
}

#[test]
fn without_case_twins_are_one_path() {
    let mut fixture = Fixture::new(1);
    fixture.0.ignore_case();
    assert_eq!(fixture.list(vec![object("a", 1, &["Ok"]), object("b", 2, &["ok"])]), ["write Ok of a", "park 1 of b"]);
    assert!(fixture.0.is_claimed("OK"));
    assert_eq!(fixture.step(0, What::Delete(key("a"))), ["promote 1 of b to Ok"]);
    let both = Event { scope: 0, what: What::Apply(object("c", 3, &["X", "x"])) };
    let Step { changes, notices } = fixture.0.step(both);
    assert_eq!(changes.iter().map(words).collect::<Vec<_>>(), ["write X of c"]);
    assert!(matches!(&notices[..], [Notice::Refused { why: PlaceError::SameFile { key, .. }, .. }] if key == "x"));
}
