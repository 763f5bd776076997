//! What goes live together, with a kill at any step, and in a directory in which others do as they please.

use std::collections::BTreeSet;

use super::*;
use crate::disk::crash;

const SET: Publishing = Publishing { set: true, keeps_good: false };
const FILES: Publishing = Publishing { set: false, keeps_good: false };
const FILES_AND_GOOD: Publishing = Publishing { set: false, keeps_good: true };

/// A store whose changes are published together.
struct Fixture {
    outer: TempDir,
    store: Store,
}

/// The files at their paths.
type Tree = BTreeMap<&'static str, Vec<u8>>;

impl Fixture {
    fn new(publishing: Publishing) -> Self {
        let outer = tempfile::tempdir().expect("a temporary directory");
        let store = open(&outer, Some(publishing)).expect("a store");
        Self { outer, store }
    }

    /// Ends it without a word and opens the directory again, perhaps in another way.
    fn restart(self, publishing: Option<Publishing>) -> Self {
        let Self { outer, store } = self;
        drop(store);
        let store = open(&outer, publishing).expect("a store");
        Self { outer, store }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.outer.path().join("dir").join(path)
    }

    fn outside(&self) -> PathBuf {
        let outside = self.outer.path().join("outside");
        fs::create_dir(&outside).expect("a folder outside");
        fs::write(outside.join("a"), "outside").expect("a file outside");
        outside
    }

    fn write(&mut self, path: &str, bytes: &[u8]) -> Result<Effect, ChangeError> {
        let content = self.store.spool().content(Kind::ConfigMap, bytes);
        self.store.apply(Change::Write { path: path_of(path), owner: owner(), content })
    }

    fn remove(&mut self, path: &str) -> Result<Effect, ChangeError> {
        self.store.apply(Change::Remove { path: path_of(path), owner: owner(), makes_way: false })
    }

    /// Has all that waits go live, if the disk lets it.
    fn try_publish(&mut self) -> Result<Option<Published>, ChangeError> {
        let candidate = self.store.candidate(|_| true)?;
        Ok(candidate.map(|candidate| self.store.publish(candidate)))
    }

    fn publish(&mut self) -> Published {
        self.try_publish().expect("a candidate").expect("a change")
    }

    /// Stages these files, and the removal of those that are not among them, and has all go live.
    fn turn_to(&mut self, tree: &Tree) -> Result<(), ChangeError> {
        let gone: Vec<RelPath> = self.store.owned().map(|(path, _)| path.clone()).collect();
        for path in gone.iter().filter(|path| !tree.contains_key(path.as_str())) {
            self.remove(path.as_str())?;
        }
        for (path, bytes) in tree {
            self.write(path, bytes)?;
        }
        match self.try_publish()? {
            Some(Published { error: Some(error), .. }) => Err(error),
            _ => Ok(()),
        }
    }

    fn read(&self, path: &str) -> Option<Vec<u8>> {
        fs::read(self.at(path)).ok()
    }

    fn text(&self, path: &str) -> String {
        String::from_utf8(self.read(path).unwrap_or_default()).expect("text")
    }

    /// Where `..data` leads.
    fn live(&self) -> PathBuf {
        self.at(fs::read_link(self.at(DATA)).expect("a link").to_str().expect("a name"))
    }

    /// The trees that there are, in the directory and in the store's own folder.
    fn trees(&self) -> BTreeSet<String> {
        let names = |folder| fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        let names = names(self.at("")).chain(names(self.at(OWN_FOLDER)));
        names.map(|name| name.to_string_lossy().into_owned()).filter(|name| generation::is_name(name)).collect()
    }
}

fn open(outer: &TempDir, publishing: Option<Publishing>) -> Result<Store, OpenError> {
    Store::open(&outer.path().join("dir"), MODES, Prune::Owned, publishing)
}

fn tree<const N: usize>(files: [(&'static str, &str); N]) -> Tree {
    files.map(|(path, text)| (path, text.as_bytes().to_vec())).into()
}

fn old() -> Tree {
    tree([("a", "old"), ("b/c", "old"), ("gone", "old"), ("d", "old"), ("same", "same"), ("f/g", "old")])
}

/// Everything that can become of a path: it changes, comes, goes, becomes a folder or a file, stays.
fn new() -> Tree {
    tree([("a", "new"), ("b/c", "new"), ("d/e", "new"), ("f", "new"), ("h/i/j", "new"), ("same", "same")])
}

/// What who opens these paths finds in a folder.
fn tree_in(folder: &Path) -> Tree {
    let paths: BTreeSet<&str> = old().into_keys().chain(new().into_keys()).collect();
    paths.into_iter().filter_map(|path| Some((path, fs::read(folder.join(path)).ok()?))).collect()
}

/// The next start completes a publish that had gone live, and forgets one that had not.
#[test]
fn a_kill_at_every_step_of_a_publish_leaves_all_of_the_old_files_or_all_of_the_new_ones() {
    for way in [SET, FILES, FILES_AND_GOOD] {
        let mut kept = BTreeSet::new();
        for steps in 0.. {
            let mut fixture = Fixture::new(way);
            fixture.turn_to(&old()).expect("a publish");
            crash::after(Some(steps));
            let done = fixture.turn_to(&new()).is_ok();
            if way.set {
                let live = tree_in(&fixture.live());
                assert!(live == old() || live == new(), "after {steps} steps of {way:?}: {live:?}");
            }
            let Fixture { outer, store } = fixture;
            drop(store);
            crash::after(None);
            let store = open(&outer, Some(way)).expect("a store");
            let mut fixture = Fixture { outer, store };
            let mut live = tree_in(&fixture.at(""));
            if live.get("a") == new().get("a") && !way.set {
                // A file that only goes is the list's business: somebody else might have put it there.
                live.retain(|path, _| new().contains_key(path));
            }
            assert!(live == old() || live == new(), "after {steps} steps of {way:?} and a start: {live:?}");
            assert!(fixture.trees().len() <= 2, "{:?}", fixture.trees());
            kept.insert(live == new());
            fixture.turn_to(&new()).expect("a publish");
            assert_eq!(tree_in(&fixture.at("")), new());
            if done {
                break;
            }
        }
        assert_eq!(kept, BTreeSet::from([false, true]), "both were seen of {way:?}");
    }
}

#[test]
fn a_kill_at_every_step_of_a_switch_leaves_every_file_in_its_place() {
    let ways = [None, Some(SET), Some(FILES), Some(FILES_AND_GOOD)];
    let files = tree([("a", "1"), ("b/c", "1")]);
    for (from, to) in ways.into_iter().flat_map(|from| ways.map(|to| (from, to))).filter(|(from, to)| from != to) {
        for steps in 0.. {
            let mut fixture = Fixture::new(SET);
            fixture.turn_to(&files).expect("a publish");
            let Fixture { outer, store } = fixture.restart(from);
            drop(store);
            let is_whole = |when: &str| {
                assert_eq!(tree_in(&outer.path().join("dir")), files, "{when} {steps} steps from {from:?} to {to:?}");
            };
            is_whole("before");
            crash::after(Some(steps));
            let done = open(&outer, to).is_ok();
            crash::after(None);
            is_whole("after");
            // And whichever way is next.
            for way in [to, from] {
                drop(open(&outer, way).expect("a store"));
                is_whole("at the next start after");
            }
            if done {
                break;
            }
        }
    }
}

/// A step is a system call on disk.
#[test]
fn a_publish_costs_the_change_and_a_few_steps_a_file() {
    let steps_of = |files: usize, changes: usize| {
        let mut fixture = Fixture::new(SET);
        for number in 0..files {
            fixture.write(&format!("{number}"), b"old").expect("a write");
        }
        fixture.publish();
        for number in 0..changes {
            fixture.write(&format!("{number}"), b"new").expect("a write");
        }
        // A tree is before the live one from now on, so one is removed as well.
        fixture.publish();
        for number in 0..changes {
            fixture.write(&format!("{number}"), b"newer").expect("a write");
        }
        crash::after(Some(u32::MAX));
        fixture.publish();
        let steps = u32::MAX - crash::left().expect("it is counted");
        crash::after(None);
        steps
    };
    let one_of_few = steps_of(10, 1);
    let one_of_many = steps_of(1000, 1);
    let all_of_many = steps_of(1000, 1000);
    println!("{one_of_few} steps for 1 of 10, {one_of_many} for 1 of 1000, {all_of_many} for 1000 of 1000");
    // For a file that stays: to look at it, to give it a second name, and to remove its name from the tree that goes.
    assert!(one_of_many - one_of_few <= 990 * 3, "{one_of_few} for 10 files, {one_of_many} for 1000");
    // For one that changes, two of these are to compare its modification time with that of the file it replaces.
    assert!(all_of_many - one_of_many <= 999 * 4, "{one_of_many} for one change, {all_of_many} for 1000");
}

#[test]
fn what_stays_keeps_its_inode_and_is_in_every_tree() {
    let mut fixture = Fixture::new(SET);
    fixture.turn_to(&tree([("a", "1"), ("same", "same")])).expect("a publish");
    let before = fixture.live();
    let inode = |path: &Path| fs::metadata(path).expect("a file").ino();
    let same = inode(&fixture.at("same"));
    fixture.turn_to(&tree([("a", "2"), ("same", "same")])).expect("a publish");
    assert_eq!(inode(&fixture.at("same")), same);
    // Who holds the tree before goes on to find it whole.
    assert_eq!(fs::read(before.join("a")).expect("the old file"), b"1");
    assert_eq!(inode(&before.join("same")), same);
    fixture.turn_to(&tree([("a", "3"), ("same", "same")])).expect("a publish");
    assert!(!before.exists());
    assert_eq!(fixture.trees().len(), 2);
}

#[test]
fn what_is_discarded_leaves_nothing_behind() {
    for way in [SET, FILES] {
        let mut fixture = Fixture::new(way);
        fixture.turn_to(&tree([("a", "1")])).expect("a publish");
        let trees = fixture.trees();
        fixture.write("a", b"2").expect("a write");
        fixture.write("b", b"2").expect("a write");
        let candidate = fixture.store.candidate(|_| true).expect("a candidate").expect("a change");
        assert_eq!(fs::read(candidate.path().join("a")).expect("a file"), b"2");
        fixture.store.discard(&candidate);
        assert!(!candidate.path().exists());
        assert_eq!(fixture.trees(), trees);
        assert_eq!((fixture.text("a").as_str(), fixture.read("b")), ("1", None));
        fixture.publish();
        assert_eq!((fixture.text("a"), fixture.text("b")), ("2".to_owned(), "2".to_owned()));
    }
}

#[test]
fn everybody_may_look_into_a_tree_whatever_the_umask() {
    let mut fixture = Fixture::new(SET);
    carefully(|| fixture.turn_to(&tree([("a", "1")])).expect("a publish"));
    assert_eq!(mode(&fixture.live()), 0o755);
    assert_eq!(mode(&fixture.live().join("a")), MODES.config_map);
}

#[test]
fn a_data_link_that_others_turned_is_turned_back_and_never_followed() {
    let mut fixture = Fixture::new(SET);
    let outside = fixture.outside();
    fixture.turn_to(&tree([("a", "1"), ("b", "1")])).expect("a publish");
    let plant = |fixture: &Fixture, what: &dyn Fn(&Path)| {
        fs::remove_file(fixture.at(DATA)).expect("the link");
        what(&fixture.at(DATA));
    };
    let plants: [&dyn Fn(&Path); 3] =
        [&|data| symlink(&outside, data).expect("a link"), &|data| fs::write(data, "a file").expect("a file"), &|_| {}];
    for (number, what) in plants.into_iter().enumerate() {
        // While it runs, with the next publish.
        plant(&fixture, what);
        let text = number.to_string();
        fixture.write("b", text.as_bytes()).expect("a write");
        fixture.publish();
        assert_eq!((fixture.text("a"), fixture.text("b")), ("1".to_owned(), text.clone()));
        // And at a start.
        plant(&fixture, what);
        fixture = fixture.restart(Some(SET));
        assert_eq!((fixture.text("a"), fixture.text("b")), ("1".to_owned(), text.clone()));
        // Nor does a run without sets take the files from there.
        plant(&fixture, what);
        fixture = fixture.restart(None);
        assert_eq!((fixture.text("a"), fixture.text("b")), ("1".to_owned(), text));
        assert!(!fixture.at("a").is_symlink());
        fixture = fixture.restart(Some(SET));
    }
    assert_eq!(fs::read(outside.join("a")).expect("the file outside"), b"outside");
    assert_eq!(fs::read_dir(&outside).expect("the folder outside").count(), 1);
}

#[test]
fn a_folder_at_the_place_of_the_data_link_stays_and_the_error_names_it() {
    let mut fixture = Fixture::new(SET);
    fixture.turn_to(&tree([("a", "1")])).expect("a publish");
    fs::remove_file(fixture.at(DATA)).expect("the link");
    fs::create_dir(fixture.at(DATA)).expect("a folder");
    fs::write(fixture.at("..data/theirs"), "x").expect("a file");
    let trees = fixture.trees();
    fixture.write("a", b"2").expect("a write");
    let Published { is_live, changes, error } = fixture.publish();
    assert!(!is_live && changes.is_empty());
    let error = error.expect("a folder is there").to_string();
    assert!(error.contains("a folder is in the way"), "{error}");
    assert_eq!(fixture.trees(), trees);
    let Fixture { outer, store } = fixture;
    drop(store);
    let error = open(&outer, Some(SET)).expect_err("a folder is there").to_string();
    assert!(error.contains("dir/..data: ") && error.contains("a folder is in the way"), "{error}");
    let store = open(&outer, None).expect("without a set it is nobody's business");
    let fixture = Fixture { outer, store };
    assert_eq!((fixture.text("a").as_str(), fixture.text("..data/theirs").as_str()), ("1", "x"));
    fs::remove_dir_all(fixture.at(DATA)).expect("the folder");
    let mut fixture = fixture.restart(Some(SET));
    fixture.write("a", b"2").expect("a write");
    fixture.publish();
    assert_eq!(fixture.text("a"), "2");
}

#[test]
fn a_folder_in_the_way_of_one_path_keeps_no_other_from_being_seen() {
    for way in [SET, FILES] {
        let mut fixture = Fixture::new(way);
        fs::create_dir(fixture.at("a")).expect("a folder");
        fixture.write("a", b"1").expect("a write");
        fixture.write("b", b"1").expect("a write");
        let Published { is_live, changes, error } = fixture.publish();
        assert!(is_live);
        assert_eq!(changes.iter().map(|(path, ..)| path.as_str()).collect::<Vec<_>>(), ["b"]);
        assert!(error.expect("a folder is there").to_string().contains("dir/a: "));
        let mut fixture = fixture.restart(Some(way));
        assert!(fixture.store.is_half_visible());
        fixture.write("c", b"1").expect("a write");
        assert!(fixture.publish().is_live);
        assert_eq!((fixture.text("b").as_str(), fixture.text("c").as_str()), ("1", "1"));
        assert!(fixture.at("a").is_dir());
        fs::remove_dir(fixture.at("a")).expect("the folder");
        assert!(fixture.store.make_visible().error.is_none());
        assert_eq!(fixture.text("a"), "1");
    }
}

#[test]
fn a_link_that_others_replaced_comes_back_with_its_object() {
    let mut fixture = Fixture::new(SET);
    let outside = fixture.outside();
    fixture.turn_to(&tree([("a", "1"), ("b", "1")])).expect("a publish");
    let replace: [&dyn Fn(&Path); 3] = [
        &|path| fs::write(path, "theirs").expect("a file"),
        &|path| symlink(outside.join("a"), path).expect("a link"),
        &|path| fs::write(path, "1").expect("a file with the same bytes"),
    ];
    for what in replace {
        fs::remove_file(fixture.at("a")).expect("the link");
        what(&fixture.at("a"));
        // Nothing else mends it.
        fixture.write("b", format!("{}+", fixture.text("b")).as_bytes()).expect("a write");
        fixture.publish();
        assert_eq!(fixture.write("a", b"1").expect("a write"), Effect::Staged);
        fixture.publish();
        assert_eq!(fs::read_link(fixture.at("a")).expect("a link"), Path::new("..data/a"));
        assert_eq!(fixture.text("a"), "1");
        assert_eq!(fixture.write("a", b"1").expect("a write"), Effect::Nothing);
    }
    assert_eq!(fs::read(outside.join("a")).expect("the file outside"), b"outside");
}

#[test]
fn a_tree_that_vanished_or_was_replaced_is_made_anew() {
    for is_replaced in [false, true] {
        for is_away in [false, true] {
            let mut fixture = Fixture::new(SET);
            let outside = fixture.outside();
            fixture.turn_to(&tree([("a", "1"), ("b", "1")])).expect("a publish");
            let live = fixture.live();
            fs::remove_dir_all(&live).expect("the live tree");
            if is_replaced {
                symlink(&outside, &live).expect("a link");
            }
            if is_away {
                fixture = fixture.restart(Some(SET));
                assert_eq!(fixture.read("a"), None, "what is outside is not ours");
            }
            assert_eq!(fixture.write("a", b"1").expect("a write"), Effect::Staged);
            assert_eq!(fixture.write("b", b"2").expect("a write"), Effect::Staged);
            fixture.publish();
            assert_eq!((fixture.text("a").as_str(), fixture.text("b").as_str()), ("1", "2"));
            assert_eq!(fs::read(outside.join("a")).expect("the file outside"), b"outside");
            fixture.turn_to(&tree([("a", "3"), ("b", "2")])).expect("a publish");
            fixture.turn_to(&tree([("a", "4"), ("b", "2")])).expect("a publish");
            assert!(!live.exists() && !live.is_symlink(), "what is left of it goes in its turn");
        }
    }
}

#[test]
fn what_is_planted_in_a_tree_is_not_taken_over() {
    let mut fixture = Fixture::new(SET);
    let outside = fixture.outside();
    fixture.turn_to(&tree([("a", "1"), ("b/c", "1"), ("d", "1"), ("e", "1")])).expect("a publish");
    let live = fixture.live();
    fs::remove_file(live.join("a")).expect("a file");
    symlink(outside.join("a"), live.join("a")).expect("a link");
    fs::remove_dir_all(live.join("b")).expect("a folder");
    symlink(&outside, live.join("b")).expect("a link");
    fs::remove_file(live.join("d")).expect("a file");
    rustix::fs::mknodat(rustix::fs::CWD, live.join("d"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).expect("a FIFO");
    fixture.write("e", b"2").expect("a write");
    fixture.publish();
    assert_eq!(fixture.text("e"), "2");
    for path in ["a", "b/c", "d"] {
        assert!(!fixture.live().join(path).exists(), "{path}");
        // The source brings it back.
        assert_eq!(fixture.write(path, b"1").expect("a write"), Effect::Staged);
    }
    fixture.publish();
    assert_eq!(["a", "b/c", "d"].map(|path| fixture.text(path)), ["1", "1", "1"]);
    assert_eq!(fs::read(outside.join("a")).expect("the file outside"), b"outside");
}

#[test]
fn a_record_that_lists_a_foreign_tree_has_nothing_outside_removed() {
    let mut fixture = Fixture::new(SET);
    let outside = fixture.outside();
    fixture.turn_to(&tree([("a", "1")])).expect("a publish");
    let record = fixture.at(OWN_FOLDER).join("record");
    let mut text = fs::read_to_string(&record).expect("the record");
    for name in ["../outside", "..", "a", "", "..2001_01_01_00_00_00.000000000"] {
        text += &format!("{{\"generation\":{{\"generation\":\"{name}\"}}}}\n");
    }
    fs::write(&record, text).expect("a change");
    symlink(&outside, fixture.at("..2001_01_01_00_00_00.000000000")).expect("a link");
    let fixture = fixture.restart(Some(SET));
    assert_eq!(fixture.text("a"), "1");
    assert_eq!(fs::read(outside.join("a")).expect("the file outside"), b"outside");
}

/// A set whose record was lost, as by a power failure, is all that readers have until the source has told everything.
#[test]
fn a_set_that_the_record_does_not_know_stays_live_until_the_first_publish() {
    let mut fixture = Fixture::new(SET);
    fixture.write("a", b"1").expect("a write");
    fixture.publish();
    fs::remove_file(fixture.at(OWN_FOLDER).join(record::NAME)).expect("the record");
    for _ in 0..2 {
        fixture = fixture.restart(Some(SET));
        assert_eq!(fs::read(fixture.at("a")).expect("the file"), b"1");
    }
    fixture.write("a", b"2").expect("a write");
    assert_eq!(fs::read(fixture.at("a")).expect("the file"), b"1");
    fixture.publish();
    assert_eq!(fs::read(fixture.at("a")).expect("the file"), b"2");
    let fixture = fixture.restart(Some(SET));
    assert_eq!(fs::read(fixture.at("a")).expect("the file"), b"2");
}

#[test]
fn a_publish_and_a_rollback_make_no_file_older() {
    for way in [Publishing { keeps_good: true, ..SET }, FILES_AND_GOOD] {
        let mut fixture = Fixture::new(way);
        fixture.store.tell_of_changes();
        for text in ["good", "bad"] {
            fixture.write("a", text.as_bytes()).expect("a write");
            fixture.write("same", b"same").expect("a write");
            if text == "bad" {
                set_modified(&fixture.at("a"), FUTURE);
            }
            let before = fixture.read("a").map(|_| modified(&fixture.at("a")));
            fixture.publish();
            assert!(Some(modified(&fixture.at("a"))) > before, "{way:?}");
            if text == "good" {
                fixture.store.told().expect("a note");
            }
        }
        let (bad, same) = (modified(&fixture.at("a")), modified(&fixture.at("same")));
        fixture.store.roll_back().expect("a rollback").expect("a way back");
        assert_eq!(fixture.text("a"), "good", "{way:?}");
        assert!(modified(&fixture.at("a")) > bad, "{way:?}");
        assert_eq!(modified(&fixture.at("same")), same, "{way:?}");
    }
}
