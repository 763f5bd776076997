//! The store against a directory in which others do as they please.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Mutex;

use tempfile::TempDir;

mod together;

use super::own::LOCK_NAME;
use super::*;

const MODES: Modes = Modes { config_map: 0o664, secret: 0o600 };

/// More than what is kept in memory.
const LARGE: &[u8] = &[b'x'; 100_000];

struct Fixture {
    outer: TempDir,
    store: Store,
}

impl Fixture {
    fn new(prune: Prune) -> Self {
        let outer = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(&outer.path().join("dir"), MODES, prune, None).expect("a store");
        Self { outer, store }
    }

    fn dir(&self) -> PathBuf {
        self.outer.path().join("dir")
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir().join(path)
    }

    /// Ends it without a word and opens the directory again.
    fn restart(self) -> Self {
        let Self { outer, store } = self;
        let prune = store.prune;
        drop(store);
        let store = Store::open(&outer.path().join("dir"), MODES, prune, None).expect("a store");
        Self { outer, store }
    }

    fn write_as(&mut self, kind: Kind, path: &str, bytes: &[u8]) -> Result<Effect, ChangeError> {
        let owner = Arc::new(ObjectKey { kind, namespace: "ns".into(), name: "name".into() });
        let content = self.store.spool().content(kind, bytes);
        self.store.apply(Change::Write { path: path_of(path), owner, content })
    }

    fn write(&mut self, path: &str, bytes: &[u8]) -> Result<Effect, ChangeError> {
        self.write_as(Kind::ConfigMap, path, bytes)
    }

    fn remove(&mut self, path: &str) -> Result<Effect, ChangeError> {
        self.store.apply(Change::Remove { path: path_of(path), owner: owner(), makes_way: false })
    }

    fn owned(&self) -> Vec<&str> {
        self.store.owned().map(|(path, _)| path.as_str()).collect()
    }

    /// Every name in the store's own folder.
    fn own_folder(&self) -> Vec<String> {
        let entries = fs::read_dir(self.at(OWN_FOLDER)).expect("the own folder");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn path_of(text: &str) -> RelPath {
    RelPath::parse(text).expect("a path")
}

fn owner() -> Arc<ObjectKey> {
    Arc::new(ObjectKey { kind: Kind::ConfigMap, namespace: "ns".into(), name: "name".into() })
}

/// Modification time of the file that readers find.
fn modified(path: &Path) -> (i64, i64) {
    let metadata = fs::metadata(path).expect("metadata");
    (metadata.mtime(), metadata.mtime_nsec())
}

/// Makes a file look as if it had been changed at this second.
fn set_modified(path: &Path, second: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(second);
    File::options().append(true).open(path).and_then(|file| file.set_modified(time)).expect("a time");
}

/// Later than any clock of a test.
const FUTURE: u64 = 1 << 33;

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("metadata").permissions().mode() & 0o7777
}

#[test]
fn bytes_that_are_there_already_are_not_written() {
    for bytes in [b"small".as_slice(), b"", LARGE] {
        let mut fixture = Fixture::new(Prune::Owned);
        assert_eq!(fixture.write("a", bytes).expect("a write"), Effect::Written);
        let inode = fs::metadata(fixture.at("a")).expect("a file").ino();
        let mut fixture = fixture.restart();
        assert_eq!(fixture.write("a", bytes).expect("a write"), Effect::Nothing);
        assert_eq!(fs::metadata(fixture.at("a")).expect("a file").ino(), inode);
        assert_eq!(fixture.own_folder(), ["lock", "record"]);
    }
}

/// With the umask of a careful user, which is the whole process's.
fn carefully<T>(work: impl FnOnce() -> T) -> T {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock();
    let before = rustix::process::umask(Mode::from_raw_mode(0o077));
    let done = work();
    rustix::process::umask(before);
    done
}

#[test]
fn a_file_has_its_kinds_permissions_whatever_the_umask() {
    let mut fixture = Fixture::new(Prune::Owned);
    for (kind, name, expected) in [(Kind::ConfigMap, "c", 0o664), (Kind::Secret, "s", 0o600)] {
        for (bytes, path) in [(b"small".as_slice(), format!("{name}1")), (LARGE, format!("{name}2"))] {
            carefully(|| fixture.write_as(kind, &path, bytes).expect("a write"));
            assert_eq!(mode(&fixture.at(&path)), expected, "{path}");
        }
    }
}

#[test]
fn a_file_that_somebody_changed_is_restored() {
    let mut fixture = Fixture::new(Prune::Owned);
    fixture.write("a", b"one").expect("a write");
    fs::write(fixture.at("a"), "two").expect("a change");
    assert_eq!(fixture.write("a", b"one").expect("a write"), Effect::Written);
    assert_eq!(fs::read(fixture.at("a")).expect("a file"), b"one");
}

#[test]
fn what_is_planted_at_a_files_place_is_replaced_and_never_followed() {
    for bytes in [b"new".as_slice(), LARGE] {
        let mut fixture = Fixture::new(Prune::Owned);
        let outside = fixture.outer.path().join("outside");
        fs::write(&outside, bytes).expect("a file outside");
        symlink(&outside, fixture.at("link")).expect("a symlink");
        rustix::fs::mknodat(rustix::fs::CWD, fixture.at("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0)
            .expect("a FIFO");
        let _socket = std::os::unix::net::UnixListener::bind(fixture.at("socket")).expect("a socket");
        for name in ["link", "fifo", "socket"] {
            assert_eq!(fixture.write(name, bytes).expect("a write"), Effect::Written, "{name}");
            assert!(fs::symlink_metadata(fixture.at(name)).expect("metadata").is_file(), "{name}");
        }
        fixture.write("link", b"changed").expect("a write");
        assert_eq!(fs::read(&outside).expect("the file outside"), bytes);
    }
}

#[test]
fn a_folder_that_became_a_symlink_is_not_entered() {
    let mut fixture = Fixture::new(Prune::Owned);
    let outside = fixture.outer.path().join("outside");
    fs::create_dir(&outside).expect("a folder outside");
    fixture.write("sub/a", b"one").expect("a write");
    fs::rename(fixture.at("sub"), fixture.outer.path().join("moved")).expect("a rename");
    symlink(&outside, fixture.at("sub")).expect("a symlink");
    fs::write(outside.join("a"), "theirs").expect("a file outside");

    assert!(fixture.write("sub/a", b"two").is_err());
    assert_eq!(fixture.remove("sub/a").expect("it is not there"), Effect::Nothing);
    assert_eq!(fs::read(outside.join("a")).expect("the file outside"), b"theirs");
}

#[test]
fn a_folder_at_a_files_place_stays_and_the_error_names_it() {
    let mut fixture = Fixture::new(Prune::Owned);
    fs::create_dir(fixture.at("a")).expect("a folder");
    let error = fixture.write("a", b"one").expect_err("a folder is there").to_string();
    assert!(error.contains("dir/a"), "{error}");
    assert_eq!(fixture.remove("a").expect("nothing of ours is there"), Effect::Nothing);
    assert!(fixture.at("a").is_dir());
    assert_eq!(fixture.own_folder(), ["lock", "record"]);
}

#[test]
fn own_directories_make_way_once_files_of_others_leave() {
    let mut fixture = Fixture::new(Prune::Owned);
    fixture.write("a/b/c", b"1").expect("a write");
    fs::write(fixture.at("a/b/foreign"), "").expect("a file of others");
    fixture.remove("a/b/c").expect("a removal");
    fixture.write("a", b"2").expect_err("a file of others is below it");
    fs::remove_file(fixture.at("a/b/foreign")).expect("a file of others");
    assert_eq!(fixture.write("a", b"2").expect("a write"), Effect::Written);
    assert_eq!(fs::read(fixture.at("a")).expect("a file"), b"2");
}

#[test]
fn folders_that_it_made_go_with_their_last_file_and_others_stay() {
    let mut fixture = Fixture::new(Prune::Owned);
    fs::create_dir(fixture.at("theirs")).expect("a folder");
    for path in ["ours/deep/a", "ours/b", "theirs/sub/c"] {
        fixture.write(path, b"x").expect("a write");
    }
    let mut fixture = fixture.restart();
    fixture.remove("ours/deep/a").expect("a removal");
    assert!(fixture.at("ours").is_dir() && !fixture.at("ours/deep").exists());
    fixture.remove("ours/b").expect("a removal");
    fixture.remove("theirs/sub/c").expect("a removal");
    assert!(!fixture.at("ours").exists());
    assert!(fixture.at("theirs").is_dir() && !fixture.at("theirs/sub").exists());
}

#[test]
fn a_folder_that_is_a_strangers_home_now_stays() {
    let mut fixture = Fixture::new(Prune::Owned);
    fixture.write("sub/a", b"x").expect("a write");
    fs::write(fixture.at("sub/theirs"), "x").expect("a foreign file");
    fixture.remove("sub/a").expect("a removal");
    assert!(fixture.at("sub/theirs").exists());
}

#[test]
fn the_record_survives_and_forgets_what_is_gone() {
    let mut fixture = Fixture::new(Prune::Owned);
    for path in ["a", "b", "sub/\"quoted\" ü"] {
        fixture.write(path, b"x").expect("a write");
    }
    fixture.remove("b").expect("a removal");
    assert_eq!(fixture.restart().owned(), ["a", "sub/\"quoted\" ü"]);
}

#[test]
fn a_record_with_foreign_or_torn_lines_loses_only_those() {
    let mut fixture = Fixture::new(Prune::Owned);
    fixture.write("a", b"x").expect("a write");
    let record = fixture.at(OWN_FOLDER).join("record");
    let mut text = fs::read_to_string(&record).expect("the record");
    text += "{\"own\":{\"path\":\"../../etc/passwd\",\"kind\":\"ConfigMap\",\"namespace\":\"n\",\"name\":\"n\"}}\n";
    text += "{\"made\":{\"folder\":\"/etc\"}}\nnonsense\n\u{0}\n{\"own\":{\"path\":\"tor";
    fs::write(&record, text).expect("a change");
    assert_eq!(fixture.restart().owned(), ["a"]);
}

#[test]
fn a_record_that_is_a_second_name_of_a_file_elsewhere_is_replaced_and_not_written() {
    let mut fixture = Fixture::new(Prune::Owned);
    let (victim, record) = (fixture.outer.path().join("victim"), fixture.at(OWN_FOLDER).join("record"));
    fs::write(&victim, "a treasure").expect("a file");
    fixture.write("a", b"x").expect("a write");
    fs::remove_file(&record).and_then(|()| fs::hard_link(&victim, &record)).expect("a second name");
    let mut fixture = fixture.restart();
    fixture.write("b", b"x").expect("a write");
    assert_eq!(fs::read_to_string(&victim).expect("the file"), "a treasure");
    assert_eq!(fixture.restart().owned(), ["b"]);
}

#[test]
fn a_folder_of_the_state_that_has_another_name_is_not_in_its_place() {
    let fixture = Fixture::new(Prune::Owned);
    assert!(fixture.store.is_in_place());
    for other in ["dir/.other", "outside"] {
        let other = fixture.outer.path().join(other);
        fs::rename(fixture.at(OWN_FOLDER), &other).expect("a rename");
        assert!(!fixture.store.is_in_place(), "{other:?}");
        fs::create_dir(fixture.at(OWN_FOLDER)).expect("a folder");
        assert!(!fixture.store.is_in_place(), "another one has its name");
        fs::remove_dir(fixture.at(OWN_FOLDER))
            .and_then(|()| fs::rename(other, fixture.at(OWN_FOLDER)))
            .expect("a rename");
        assert!(fixture.store.is_in_place());
    }
}

#[test]
fn the_record_does_not_grow_with_changes() {
    let mut fixture = Fixture::new(Prune::Owned);
    let record = fixture.at(OWN_FOLDER).join("record");
    for _ in 0..2000 {
        fixture.write("a", b"x").expect("a write");
        fixture.remove("a").expect("a removal");
    }
    let lines = fs::read_to_string(&record).expect("the record").lines().count();
    assert!(lines <= 1100, "{lines} lines");
    let before = fs::metadata(&record).expect("the record").len();
    fixture.write("a", b"x").expect("a write");
    let first = fs::metadata(&record).expect("the record").len();
    for n in 0..100 {
        fixture.write("a", format!("{n}").as_bytes()).expect("a write");
    }
    assert!(first > before);
    assert_eq!(fs::metadata(&record).expect("the record").len(), first, "a change of a known file is no news");
}

#[test]
fn what_a_kill_left_half_done_is_cleared_away() {
    let fixture = Fixture::new(Prune::Owned);
    for name in ["tmp-0", "tmp-17", "parked-3"] {
        fs::write(fixture.at(OWN_FOLDER).join(name), "x").expect("a leftover");
    }
    assert_eq!(fixture.restart().own_folder(), ["lock", "record"]);
}

#[test]
fn what_cannot_be_cleared_away_hinders_no_start() {
    let mut fixture = Fixture::new(Prune::Owned);
    fixture.write("d/a", b"1").expect("a write");
    fixture.remove("d/a").expect("a removal");
    let mut deep = fixture.at(OWN_FOLDER).join("tmp-deep");
    (0..80).for_each(|_| deep.push("d"));
    fs::create_dir_all(&deep).expect("folders");
    let names = fixture.restart().own_folder();
    assert_eq!(names, ["lock", "record", "tmp-deep"]);
}

#[test]
fn a_file_that_others_may_read_is_none_of_a_secret_even_with_the_same_bytes() {
    let mut fixture = Fixture::new(Prune::Owned);
    let permissions = |fixture: &Fixture| mode(&fixture.at("a"));
    fixture.write_as(Kind::ConfigMap, "a", b"x").expect("a write");
    // It is closed, of which nobody has to be told.
    assert_eq!(fixture.write_as(Kind::Secret, "a", b"x").expect("a write"), Effect::Nothing);
    assert_eq!(permissions(&fixture), MODES.secret);
    // Permissions that allow less are nobody's loss of a secret, and stay.
    assert_eq!(fixture.write_as(Kind::ConfigMap, "a", b"x").expect("a write"), Effect::Nothing);

    fs::write(fixture.at("b"), b"x").expect("a file of somebody who knew what would be in it");
    fs::set_permissions(fixture.at("b"), fs::Permissions::from_mode(0o666)).expect("a mode");
    std::os::unix::fs::chown(fixture.at("b"), Some(65_534), None).expect("root may do that");
    assert_eq!(fixture.write_as(Kind::Secret, "b", b"x").expect("a write"), Effect::Written);
    assert_eq!(mode(&fixture.at("b")), MODES.secret);
    assert_eq!(fixture.own_folder(), ["lock", "record"]);
}

#[test]
fn who_may_only_read_the_directory_cannot_keep_a_start_out() {
    let fixture = Fixture::new(Prune::Owned);
    assert_eq!(mode(&fixture.at(OWN_FOLDER).join(LOCK_NAME)), 0o600, "nobody else opens what is locked");
    let readable = File::open(fixture.at(OWN_FOLDER)).expect("the folder");
    rustix::fs::flock(&readable, FlockOperation::NonBlockingLockExclusive).expect("a lock");
    fixture.restart();
}

#[test]
fn a_second_store_is_kept_out_whatever_stood_at_the_place_of_the_lock() {
    let outer = tempfile::tempdir().expect("a temporary directory");
    let (dir, outside) = (outer.path().join("dir"), outer.path().join("outside"));
    let place = dir.join(OWN_FOLDER).join(LOCK_NAME);
    fs::create_dir_all(&place).expect("a folder");
    let open = || Store::open(&dir, MODES, Prune::Owned, None);
    drop(open().expect("a store"));
    fs::remove_file(&place).expect("a file");
    symlink(&outside, &place).expect("a link");
    let store = open().expect("a store");
    assert!(!outside.exists());
    assert!(matches!(open(), Err(OpenError::Locked { .. })));
    drop(store);
    open().expect("the lock is given up");
}

#[test]
fn a_lock_that_has_a_second_name_is_replaced_unless_it_is_held() {
    let fixture = Fixture::new(Prune::Owned);
    let (lock, elsewhere) = (fixture.at(OWN_FOLDER).join(LOCK_NAME), fixture.outer.path().join("elsewhere"));
    fs::hard_link(&lock, &elsewhere).expect("a second name");
    let open = || Store::open(&fixture.dir(), MODES, Prune::Owned, None);
    assert!(matches!(open(), Err(OpenError::Locked { .. })));
    assert!(fixture.store.is_in_place());
    let Fixture { outer: _outer, store } = fixture;
    let dir = store.dir.clone();
    drop(store);
    let store = Store::open(&dir, MODES, Prune::Owned, None).expect("a store");
    assert_ne!(fs::metadata(&lock).expect("the lock").ino(), fs::metadata(&elsewhere).expect("the file").ino());
    // Who has lost it to another one notices.
    assert!(store.is_in_place());
    fs::remove_file(&lock).expect("the lock");
    assert!(!store.is_in_place());
}

#[test]
fn what_is_kept_aside_takes_its_place_whole() {
    let mut fixture = Fixture::new(Prune::Owned);
    for bytes in [b"loser".as_slice(), LARGE] {
        let content = fixture.store.spool().content(Kind::ConfigMap, bytes);
        let digest = Some(content.digest);
        fixture.store.apply(Change::Park { claim: 7, owner: owner(), content }).expect("a park");
        fixture.write("a", b"winner").expect("a write");
        let promote = |digest| Change::Promote { path: path_of("a"), owner: owner(), claim: 7, digest };
        let other = fixture.store.spool().content(Kind::ConfigMap, b"other").digest;
        assert!(fixture.store.apply(promote(Some(other))).is_err(), "it was changed meanwhile");
        assert_eq!(fs::read(fixture.at("a")).expect("a file"), b"winner");
        assert_eq!(fixture.store.apply(promote(digest)).expect("a promotion"), Effect::Written);
        assert_eq!(fs::read(fixture.at("a")).expect("a file"), bytes);
        assert!(fixture.store.apply(promote(digest)).is_err(), "there is nothing kept aside any more");
    }
}

#[test]
fn a_demoted_file_stays_while_it_is_copied_aside() {
    let mut fixture = Fixture::new(Prune::Owned);
    fixture.write_as(Kind::Secret, "a", LARGE).expect("a write");
    let owner = Arc::new(ObjectKey { kind: Kind::Secret, ..(*owner()).clone() });
    let digest = Some(fixture.store.spool().content(Kind::Secret, LARGE).digest);
    let demote = || Change::Demote { path: path_of("a"), owner: Arc::clone(&owner), claim: 3, digest };
    fixture.store.apply(demote()).expect("a demotion");
    let parked = fixture.at(OWN_FOLDER).join("parked-3");
    assert_eq!(fs::read(&parked).expect("the copy"), LARGE);
    assert_eq!(mode(&parked), MODES.secret);
    assert_eq!(fs::read(fixture.at("a")).expect("the file"), LARGE);
    fixture.store.apply(Change::Drop { claim: 3 }).expect("a drop");
    assert_eq!(fixture.own_folder(), ["lock", "record"]);
}

#[test]
fn prune_all_removes_every_foreign_file_and_follows_no_link() {
    let mut fixture = Fixture::new(Prune::All);
    let outside = fixture.outer.path().join("outside");
    fs::create_dir(&outside).expect("a folder outside");
    fs::write(outside.join("kept"), "x").expect("a file outside");
    fixture.write("sub/a", b"x").expect("a write");
    fs::write(fixture.at("sub/theirs"), "x").expect("a foreign file");
    fs::create_dir_all(fixture.at("t/u")).expect("a foreign folder");
    fs::write(fixture.at("t/u/theirs"), "x").expect("a foreign file");
    symlink(&outside, fixture.at("link")).expect("a symlink");
    fs::write(fixture.at("claimed"), "x").expect("a file that an object claims");
    let mut removed = fixture.store.remove_foreign(|path| path == "claimed");
    removed.sort();
    assert_eq!(removed, ["link", "sub/theirs", "t/u/theirs"]);
    assert!(fixture.at("sub/a").exists() && fixture.at("claimed").exists() && outside.join("kept").exists());
    assert_eq!(fixture.own_folder(), ["lock", "record"]);
}

#[test]
fn other_prunes_remove_no_foreign_file_and_never_removes_nothing() {
    for prune in [Prune::Owned, Prune::Never] {
        let mut fixture = Fixture::new(prune);
        fixture.write("ours", b"x").expect("a write");
        fs::write(fixture.at("theirs"), "x").expect("a foreign file");
        assert_eq!(fixture.store.remove_foreign(|_| false), [""; 0]);
        fixture.remove("ours").expect("a removal");
        assert!(fixture.at("theirs").exists());
        assert_eq!(fixture.at("ours").exists(), prune == Prune::Never);
        assert_eq!(fixture.owned().len(), usize::from(prune == Prune::Never), "what stays is remembered");
    }
}

#[test]
fn a_second_store_on_the_directory_is_refused_until_the_first_is_gone() {
    let fixture = Fixture::new(Prune::Owned);
    let second = Store::open(&fixture.dir(), MODES, Prune::Owned, None);
    assert!(matches!(second, Err(OpenError::Locked { .. })), "{second:?}");
    fixture.restart();
}

#[test]
fn an_unusable_directory_is_an_error_and_stays_as_it_is() {
    let outer = tempfile::tempdir().expect("a temporary directory");
    let file = outer.path().join("file");
    fs::write(&file, "x").expect("a file");
    assert!(matches!(Store::open(&file, MODES, Prune::All, None), Err(OpenError::NotADirectory { .. })));
    assert!(matches!(Store::open(&file.join("below"), MODES, Prune::All, None), Err(OpenError::Make { .. })));
    assert_eq!(fs::read(&file).expect("the file"), b"x");
    let dir = outer.path().join("dir");
    fs::create_dir(&dir).expect("a folder");
    // It is not followed, and gives way.
    symlink(outer.path(), dir.join(OWN_FOLDER)).expect("a symlink");
    drop(Store::open(&dir, MODES, Prune::All, None).expect("a store"));
    assert!(fs::symlink_metadata(dir.join(OWN_FOLDER)).expect("the folder").is_dir());
}

#[test]
fn under_prune_never_a_file_makes_way_for_a_folder_all_the_same() {
    let mut fixture = Fixture::new(Prune::Never);
    fixture.write("a", b"x").expect("a write");
    let remove = Change::Remove { path: path_of("a"), owner: owner(), makes_way: true };
    assert_eq!(fixture.store.apply(remove).expect("a removal"), Effect::Removed);
    fixture.write("a/b", b"x").expect("a write");
}

#[test]
fn a_planted_file_of_any_length_is_not_read_to_its_end() {
    let mut fixture = Fixture::new(Prune::Owned);
    let content = fixture.store.spool().content(Kind::ConfigMap, b"loser");
    let digest = Some(content.digest);
    fixture.store.apply(Change::Park { claim: 7, owner: owner(), content }).expect("a park");
    let plant = |path: PathBuf| fs::File::create(path).expect("a file").set_len(1 << 42).expect("a sparse file");

    plant(fixture.at("a"));
    let demote = |digest| Change::Demote { path: path_of("a"), owner: owner(), claim: 3, digest };
    assert!(fixture.store.apply(demote(digest)).is_err());
    assert!(fixture.store.apply(demote(None)).is_err());
    let promote = || Change::Promote { path: path_of("a"), owner: owner(), claim: 7, digest };
    assert_eq!(fixture.store.apply(promote()).expect("a promotion"), Effect::Written);
    assert_eq!(fs::read(fixture.at("a")).expect("a file"), b"loser");

    plant(fixture.at("a"));
    assert_eq!(fixture.write("a", b"winner").expect("a write"), Effect::Written);
    plant(fixture.at(OWN_FOLDER).join("parked-7"));
    assert!(fixture.store.apply(promote()).is_err());
    assert_eq!(fs::read(fixture.at("a")).expect("a file"), b"winner");
}

#[test]
fn a_takeover_with_the_same_bytes_writes_nothing() {
    let mut fixture = Fixture::new(Prune::Owned);
    let content = fixture.store.spool().content(Kind::ConfigMap, LARGE);
    let digest = Some(content.digest);
    fixture.store.apply(Change::Park { claim: 7, owner: owner(), content }).expect("a park");
    fixture.write("a", LARGE).expect("a write");
    let inode = fs::metadata(fixture.at("a")).expect("a file").ino();
    let promote = Change::Promote { path: path_of("a"), owner: owner(), claim: 7, digest };
    assert_eq!(fixture.store.apply(promote).expect("a promotion"), Effect::Nothing);
    assert_eq!(fs::metadata(fixture.at("a")).expect("a file").ino(), inode);
    assert_eq!(fixture.own_folder(), ["lock", "record"]);
}

#[test]
fn what_prune_all_cannot_remove_is_passed_over() {
    let mut fixture = Fixture::new(Prune::All);
    let deep = "d/".repeat(80);
    fs::create_dir_all(fixture.at(&deep)).expect("folders");
    fs::write(fixture.at(&deep).join("theirs"), "x").expect("a foreign file");
    fs::write(fixture.at("theirs"), "x").expect("a foreign file");
    assert_eq!(fixture.store.remove_foreign(|_| false), ["theirs"]);
    assert_eq!(fixture.store.remove_foreign(|_| false), [""; 0]);
}

#[test]
fn a_start_writes_nothing_that_a_full_disk_could_hinder() {
    let mut fixture = Fixture::new(Prune::Owned);
    fixture.write("a", b"x").expect("a write");
    let record = fixture.at(OWN_FOLDER).join("record");
    let before = fs::metadata(&record).expect("the record");
    let fixture = fixture.restart();
    let after = fs::metadata(&record).expect("the record");
    assert_eq!((before.ino(), before.len()), (after.ino(), after.len()));
    assert_eq!(fixture.owned(), ["a"]);
}

#[test]
fn on_a_full_disk_a_removal_makes_the_room_that_its_note_needs() {
    for tells in [true, false] {
        let mut fixture = Fixture::new(Prune::Owned);
        fixture.write("d/a", b"x").expect("a write");
        if tells {
            fixture.store.tell_of_changes();
        }
        fixture.store.record.fill_once();
        assert_eq!(fixture.remove("d/a").expect("a removal"), Effect::Removed);
        assert!(!fixture.at("d/a").exists() && fixture.owned().is_empty());
        assert_eq!(fixture.store.is_untold(), tells);
        fixture.write("b", b"x").expect("a write");
        let fixture = fixture.restart();
        assert_eq!((fixture.owned(), fixture.store.is_untold()), (vec!["b"], tells));
        assert!(!fixture.at("d").exists());
    }
}

#[test]
fn a_torn_record_is_written_anew_before_it_goes_on() {
    let mut fixture = Fixture::new(Prune::Owned);
    fixture.write("a", b"x").expect("a write");
    let record = fixture.at(OWN_FOLDER).join("record");
    let text = fs::read_to_string(&record).expect("the record");
    fs::write(&record, format!("{text}{{\"own\":{{\"pa")).expect("a change");
    let mut fixture = fixture.restart();
    fixture.write("b", b"x").expect("a write");
    assert_eq!(fixture.restart().owned(), ["a", "b"]);
}

#[test]
fn a_file_that_takes_over_is_never_older() {
    for second in [1, FUTURE] {
        let mut fixture = Fixture::new(Prune::Owned);
        let content = fixture.store.spool().content(Kind::ConfigMap, b"loser");
        let digest = Some(content.digest);
        fixture.store.apply(Change::Park { claim: 7, owner: owner(), content }).expect("a park");
        set_modified(&fixture.at(OWN_FOLDER).join("parked-7"), 1);
        fixture.write("a", b"winner").expect("a write");
        set_modified(&fixture.at("a"), second);
        let before = modified(&fixture.at("a"));
        let promote = Change::Promote { path: path_of("a"), owner: owner(), claim: 7, digest };
        assert_eq!(fixture.store.apply(promote).expect("a promotion"), Effect::Written);
        assert!(modified(&fixture.at("a")) > before, "{second}");
        set_modified(&fixture.at("a"), FUTURE);
        let before = modified(&fixture.at("a"));
        fixture.write("a", b"a new value").expect("a write");
        assert!(modified(&fixture.at("a")) > before, "{second}");
    }
}
