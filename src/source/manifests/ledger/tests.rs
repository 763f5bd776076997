use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::object::{Kind, Object};

/// The state of a file at the time of a list.
#[derive(Clone, Debug)]
enum State {
    /// A state of the file by number, and its objects by name.
    Good(u64, &'static str),
    Broken(u64),
    /// It can't be opened.
    Shut,
    /// It can't be read just now.
    Unsettled,
    /// It is not there, but may be back already.
    Away,
}

use State::{Away, Broken, Good, Shut, Unsettled};

/// What a list came to: its events in short (`+name` applied, `=name` kept), warnings and notes, and whether it was completed.
#[derive(Debug, Default)]
struct List {
    events: String,
    lines: Vec<String>,
    done: bool,
}

impl List {
    fn add(&mut self, step: Step) {
        for what in step.whats {
            let event = match what {
                What::Apply(object) => format!("+{}@{}", object.key.name, object.folder.unwrap_or_default()),
                What::Keep(key) => format!("={}", key.name),
                what => panic!("a step must not contain {what:?}"),
            };
            self.events += if self.events.is_empty() { "" } else { " " };
            self.events += &event;
        }
        self.lines.extend(step.warnings);
        self.lines.extend(step.notes);
    }
}

fn problem() -> Problem {
    Problem::at(7, "it is broken")
}

/// Objects with these one-letter names, whose folder tells the file and its state; each has a line of its own.
fn objects(path: &str, state: u64, names: &str) -> Vec<Found> {
    let object = |(name, line): (char, u64)| {
        let key = ObjectKey { kind: Kind::ConfigMap, namespace: "default".to_owned(), name: name.to_string() };
        let folder = Some(format!("{path}{state}"));
        let object = Object {
            key: Arc::new(key),
            resource_version: None,
            uid: None,
            created: None,
            folder,
            entries: Vec::new(),
        };
        Found { object, line }
    };
    names.chars().zip(1..).map(object).collect()
}

/// Takes one list over files of the root `0`, in the way of `Manifests`.
fn list(ledger: &mut Ledger, files: &[(&str, State)]) -> List {
    let mut list = list_without_end(ledger, files);
    for path in ledger.missing() {
        if files.iter().any(|(away, state)| Path::new(away) == &*path && matches!(state, Away)) {
            list.add(ledger.keep_missing(&path));
        }
    }
    list.done = ledger.end();
    list
}

/// Takes one list that is given up in the end.
fn list_without_end(ledger: &mut Ledger, files: &[(&str, State)]) -> List {
    let mut list = List::default();
    ledger.begin();
    ledger.root_is_readable(0);
    for (path, state) in files {
        let at: Arc<Path> = Path::new(path).into();
        assert!(ledger.visit(0, &at));
        list.add(match state {
            Good(number, _) | Broken(number) if ledger.is_unchanged(&at, Identity::of_inode(*number)) => {
                ledger.keep(&at)
            }
            Good(number, names) => ledger.read(&at, Identity::of_inode(*number), objects(path, *number, names)),
            Broken(number) => ledger.failed(&at, Some(Identity::of_inode(*number)), problem()),
            Shut => ledger.failed(&at, None, problem()),
            Unsettled => ledger.keep(&at),
            Away => {
                ledger.gone(&at);
                Step::default()
            }
        });
    }
    list
}

fn ledger() -> Ledger {
    Ledger::new([Path::new("dir")])
}

#[test]
fn what_changed_is_applied_and_the_rest_is_kept_until_it_is_forgotten() {
    let mut ledger = ledger();
    assert_eq!(list(&mut ledger, &[("f", Good(1, "ab")), ("g", Good(1, "c"))]).events, "+a@f1 +b@f1 +c@g1");
    assert_eq!(list(&mut ledger, &[("f", Good(1, "ab")), ("g", Good(2, "d"))]).events, "=a =b +d@g2");
    ledger.forget(Path::new("f"));
    assert_eq!(list(&mut ledger, &[("f", Good(1, "ab")), ("g", Good(2, "d"))]).events, "+a@f1 +b@f1 =d");
    ledger.forget_all();
    assert_eq!(list(&mut ledger, &[("f", Good(1, "ab")), ("g", Good(2, "d"))]).events, "+a@f1 +b@f1 +d@g2");
    assert_eq!(list(&mut ledger, &[("g", Good(2, "d"))]).events, "=d", "a file that is gone reports nothing");
}

#[test]
fn a_broken_file_keeps_what_it_held_and_is_reported_once_a_state() {
    let mut ledger = ledger();
    list(&mut ledger, &[("f", Good(1, "ab"))]);
    let broken = list(&mut ledger, &[("f", Broken(2))]);
    assert_eq!(broken.events, "=a =b");
    assert_eq!(broken.lines, ["f:7: it is broken; what it held before stays as it is"]);
    ledger.forget_all();
    for _ in 0..2 {
        let again = list(&mut ledger, &[("f", Broken(2))]);
        assert_eq!((again.events.as_str(), again.lines.len()), ("=a =b", 0));
    }
    assert_eq!(list(&mut ledger, &[("f", Broken(3))]).lines.len(), 1, "it changed, and is still broken");
    assert_eq!(list(&mut ledger, &[("f", Shut)]).lines.len(), 1);
    assert_eq!(list(&mut ledger, &[("f", Shut)]).lines.len(), 0);
    let mended = list(&mut ledger, &[("f", Good(4, "a"))]);
    assert_eq!(mended.events, "+a@f4");
    assert_eq!(mended.lines, ["f: can be read again"]);
    assert_eq!(list(&mut ledger, &[("f", Unsettled)]).events, "=a");
}

#[test]
fn of_two_files_with_an_object_the_first_wins_and_the_other_is_reported_once() {
    let mut ledger = ledger();
    let both = [("f", Good(1, "xa")), ("g", Good(1, "a"))];
    let first = list(&mut ledger, &both);
    assert_eq!(first.events, "+x@f1 +a@f1");
    let expected =
        "g:1: ConfigMap default/a is left out, since f:2 has it, too, and comes first; remove or rename one of them";
    assert_eq!(first.lines, [expected]);
    assert_eq!(list(&mut ledger, &both).lines.len(), 0);
    let read_again = list(&mut ledger, &[("f", Good(1, "xa")), ("g", Good(2, "ya"))]);
    assert_eq!((read_again.events.as_str(), read_again.lines.len()), ("=x =a +y@g2", 0));
    let successor = list(&mut ledger, &[("f", Good(2, "x")), ("g", Good(2, "ya"))]);
    assert_eq!(successor.events, "+x@f2 +y@g2 +a@g2", "the other file is read again in the same list");
    let earlier = list(&mut ledger, &[("e", Good(1, "a")), ("f", Good(2, "x")), ("g", Good(2, "ya"))]);
    assert_eq!((earlier.events.as_str(), earlier.lines.len()), ("+a@e1 =x =y", 1));
}

#[test]
fn an_object_that_stands_twice_in_a_file_is_reported_once_and_the_file_is_not_read_for_ever() {
    let mut ledger = ledger();
    let first = list(&mut ledger, &[("f", Good(1, "aa"))]);
    assert_eq!(first.events, "+a@f1");
    assert!(first.lines[0].starts_with("f:2: ConfigMap default/a is left out, since f:1 has it"), "{first:?}");
    let second = list(&mut ledger, &[("f", Good(1, "aa"))]);
    assert_eq!((second.events.as_str(), second.lines.len()), ("=a", 0));
}

#[test]
fn a_broken_file_keeps_its_objects_from_the_files_after_it() {
    let mut ledger = ledger();
    list(&mut ledger, &[("f", Good(1, "a")), ("g", Good(1, "a"))]);
    assert_eq!(list(&mut ledger, &[("f", Broken(2)), ("g", Good(1, "a"))]).events, "=a");
    assert_eq!(list(&mut ledger, &[("g", Good(1, "a"))]).events, "+a@g1");
}

#[test]
fn a_file_that_inherits_an_object_while_it_is_broken_is_read_as_soon_as_it_can_be() {
    let mut ledger = ledger();
    list(&mut ledger, &[("f", Good(1, "a")), ("g", Good(1, "a"))]);
    assert_eq!(list(&mut ledger, &[("g", Unsettled)]).events, "=a", "the content of f stays");
    assert_eq!(list(&mut ledger, &[("g", Good(1, "a"))]).events, "+a@g1");
}

#[test]
fn a_root_that_is_out_of_reach_keeps_all_its_files() {
    let mut ledger = Ledger::new([Path::new("dir"), Path::new("other")]);
    list(&mut ledger, &[("f", Good(1, "a")), ("g", Good(1, "b"))]);
    for lines in [1, 0] {
        let mut list = List::default();
        ledger.begin();
        list.add(ledger.root_failed(0, "it is out of reach"));
        ledger.root_is_readable(1);
        let also = Path::new("f").into();
        assert!(!ledger.visit(1, &also), "it was reported by the first root already");
        assert!(ledger.end());
        assert_eq!((list.events.as_str(), list.lines.len()), ("=a =b", lines));
    }
    assert_eq!(list(&mut ledger, &[("g", Good(1, "b"))]).events, "=b");
}

#[test]
fn no_list_is_complete_before_everything_was_read_once() {
    let mut ledger = ledger();
    let first = list(&mut ledger, &[("f", Good(1, "a")), ("g", Broken(1)), ("h", Unsettled)]);
    assert!(!first.done);
    assert_eq!(first.lines, ["g:7: it is broken; until it can be read, nothing is removed"]);
    assert!(!list(&mut ledger, &[("g", Broken(1)), ("h", Good(1, ""))]).done);
    ledger.begin();
    let lost = ledger.root_failed(0, "it is out of reach");
    assert!(!ledger.end(), "{lost:?}");
    assert!(list(&mut ledger, &[("g", Good(2, "")), ("h", Good(1, ""))]).done);
    let new = list(&mut ledger, &[("g", Good(2, "")), ("i", Broken(1))]);
    assert!(new.done, "a file that came later held nothing before");
    assert_eq!(new.lines, ["i:7: it is broken"]);
}

#[test]
fn no_list_is_complete_before_every_root_was_read_once() {
    let mut ledger = ledger();
    ledger.begin();
    let step = ledger.root_failed(0, "it is out of reach");
    assert_eq!(step.warnings, ["dir: it is out of reach; until it can be read, nothing is removed"]);
    assert!(!ledger.end());
    assert!(list(&mut ledger, &[]).done);
}

#[test]
fn a_list_that_is_given_up_forgets_no_file() {
    let mut ledger = ledger();
    list(&mut ledger, &[("f", Good(1, "a")), ("g", Good(1, "b"))]);
    assert_eq!(list_without_end(&mut ledger, &[("g", Good(1, "b"))]).events, "=b");
    assert_eq!(list_without_end(&mut ledger, &[("f", Away), ("g", Good(1, "b"))]).events, "=b");
    assert_eq!(list(&mut ledger, &[("f", Broken(2)), ("g", Good(1, "b"))]).events, "=a =b", "it is known what f held");
    assert_eq!(list(&mut ledger, &[("g", Good(1, "b"))]).events, "=b");
    assert_eq!(list(&mut ledger, &[("f", Broken(2)), ("g", Good(1, "b"))]).events, "=b", "f was gone");
}

#[test]
fn a_missing_file_that_may_be_back_keeps_what_nothing_else_has() {
    let mut ledger = ledger();
    list(&mut ledger, &[("f", Good(1, "ab")), ("g", Good(1, "c"))]);
    let renamed = list(&mut ledger, &[("f", Away), ("g", Good(1, "c")), ("h", Good(1, "a"))]);
    assert_eq!(renamed.events, "=c +a@h1 =b");
    assert_eq!(renamed.lines, [""; 0]);
    assert_eq!(list(&mut ledger, &[("g", Good(1, "c")), ("h", Good(1, "a"))]).events, "=c =a");
}

fn any_state() -> impl Strategy<Value = State> {
    let names = || prop::sample::select(vec!["", "a", "b", "ab", "bc", "cab", "aa"]);
    prop_oneof![
        4 => (1..4_u64, names()).prop_map(|(number, names)| Good(number, names)),
        1 => (4..6_u64).prop_map(Broken),
        1 => Just(Shut),
        1 => Just(Unsettled),
        1 => Just(Away),
    ]
}

/// What the files are, and whether the list is ended.
fn any_list() -> impl Strategy<Value = (Vec<Option<State>>, bool)> {
    (prop::collection::vec(prop::option::weighted(0.8, any_state()), 3), prop::bool::weighted(0.7))
}

proptest! {
    /// A follower that knows nothing but the events has, whenever all files can be read, exactly what is in them.
    #[test]
    fn who_follows_the_events_ends_with_what_the_files_hold(lists in prop::collection::vec(any_list(), 1..8)) {
        let paths = ["f", "g", "h"];
        let mut ledger = ledger();
        let mut placed: BTreeMap<char, String> = BTreeMap::new();
        // A number stands for one content of a file, as an inode and its times do.
        let mut contents: HashMap<(&str, u64), &str> = HashMap::new();
        for (states, ends) in lists {
            let mut files = Vec::new();
            for (path, state) in paths.into_iter().zip(states) {
                let Some(state) = state else { continue };
                files.push((path, match state {
                    Good(number, names) => Good(number, contents.entry((path, number)).or_insert(names)),
                    other => other,
                }));
            }
            let list = if ends { list(&mut ledger, &files) } else { list_without_end(&mut ledger, &files) };
            let mut reported = BTreeMap::new();
            for event in list.events.split_whitespace() {
                let name = event.chars().nth(1).unwrap_or_default();
                let content = event.split_once('@').map(|(_, content)| content.to_owned());
                prop_assert!(reported.insert(name, content).is_none(), "{} is reported twice: {list:?}", name);
            }
            if list.done {
                placed.retain(|name, _| reported.contains_key(name));
            }
            for (name, content) in reported {
                match content {
                    Some(content) => _ = placed.insert(name, content),
                    None => prop_assert!(placed.contains_key(&name), "{name} is kept but was never there: {list:?}"),
                }
            }
            let mut expected = BTreeMap::new();
            let readable = files.iter().all(|(_, state)| matches!(state, Good(..)));
            for (path, state) in &files {
                if let Good(number, names) = state {
                    for name in names.chars() {
                        expected.entry(name).or_insert(format!("{path}{number}"));
                    }
                }
            }
            if readable && ends {
                prop_assert!(list.done);
                prop_assert_eq!(&placed, &expected);
            }
        }
    }
}
