//! The source as a whole, on real files.

use std::collections::{HashMap, HashSet};
use std::fs::{File, create_dir, read_dir, remove_dir_all, remove_file, rename, write};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;
use tokio::sync::mpsc::{self, Receiver};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::config::Namespaces;
use crate::content::Body;
use crate::object::Kind;

const DEADLINE: Duration = Duration::from_secs(20);

/// A running source and what it reports.
struct Source {
    folder: TempDir,
    spool: TempDir,
    events: Receiver<Event>,
    resync: Arc<Notify>,
    run: JoinHandle<()>,
}

impl Source {
    /// Follows paths in a folder that has been filled.
    fn follow(fill: impl FnOnce(&Path), paths: &[&str]) -> Self {
        let (folder, spool) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        fill(folder.path());
        let paths = paths.iter().map(|path| folder.path().join(path)).collect();
        let manifests = Manifests::find(paths, any_object(), None).expect("a source");
        let (sender, events) = mpsc::channel(1);
        let resync = Arc::new(Notify::new());
        let run = tokio::spawn(manifests.run(Spool::for_tests(spool.path()), sender, Arc::clone(&resync)));
        Self { folder, spool, events, resync, run }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn event(&mut self) -> What {
        let event = timeout(DEADLINE, self.events.recv()).await.expect("an event in time").expect("a running source");
        assert_eq!(event.scope, 0);
        event.what
    }

    /// The objects of the next list that is completed, in short: `+name=value` applied, in it or in one that was given up
    /// before it; `=name` kept.
    async fn list(&mut self) -> String {
        assert!(matches!(self.event().await, What::ListStarted));
        let (mut list, mut applied) = (Vec::new(), HashMap::new());
        loop {
            match self.event().await {
                What::ListStarted => list.clear(),
                What::Apply(object) => {
                    let name = object.key.name.clone();
                    applied.insert(name.clone(), format!("+{name}={}", value(&object.entries[0].content)));
                    list.push(name);
                }
                What::Keep(key) => list.push(key.name.clone()),
                What::ListDone => break,
                what @ What::Delete(_) => panic!("{what:?} after {list:?}"),
            }
        }
        let shown = list.iter().map(|name| applied.get(name).cloned().unwrap_or_else(|| format!("={name}")));
        shown.collect::<Vec<_>>().join(" ")
    }

    /// The next list that is not this one: a change may show in two steps.
    async fn list_after(&mut self, before: &str) -> String {
        loop {
            let list = self.list().await;
            if list != before {
                return list;
            }
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.run.abort();
    }
}

fn value(content: &crate::content::Content) -> String {
    match &content.body {
        Body::Memory(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        body => format!("{body:?}"),
    }
}

fn any_object() -> Selection {
    let labels = crate::source::selector::parse("!unwanted").expect("a selector");
    Selection {
        kinds: vec![Kind::ConfigMap],
        namespaces: Namespaces::Unset,
        labels: Some(crate::config::Labels { text: "!unwanted".to_owned(), selector: labels }),
        names: Vec::new(),
    }
}

fn manifest(name: &str, value: &str) -> String {
    format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{key: '{value}'}}\n")
}

/// Fills a folder with `one.yaml` and `two.yaml`.
fn one_and_two(folder: &Path) {
    write(folder.join("one.yaml"), manifest("one", "1")).expect("written");
    write(folder.join("two.yaml"), manifest("two", "2")).expect("written");
}

#[tokio::test]
async fn a_path_that_does_not_exist_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("none");
    let error = Manifests::find(vec![path.clone()], any_object(), None);
    let error = error.expect_err("there is nothing").to_string();
    assert_eq!(
        error,
        format!("{}: No such file or directory (os error 2); give a file or folder that exists", path.display())
    );
}

#[tokio::test]
async fn a_folder_is_reported_and_then_followed() {
    let mut source = Source::follow(one_and_two, &[""]);
    assert_eq!(source.list().await, "+one=1 +two=2");
    write(source.path("two.yaml"), manifest("two", "3")).expect("written");
    assert_eq!(source.list().await, "=one +two=3");
    write(source.path("x.json"), r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"k":"v"}}"#)
        .expect("written");
    assert_eq!(source.list().await, "=one =two +x=v");
    rename(source.path("x.json"), source.path("x.json.bak")).expect("renamed");
    assert_eq!(source.list().await, "=one =two");
    remove_file(source.path("one.yaml")).expect("removed");
    assert_eq!(source.list().await, "=two");
}

#[tokio::test]
async fn a_burst_of_changes_is_one_list() {
    let mut source = Source::follow(one_and_two, &[""]);
    source.list().await;
    let names: Vec<_> = (10..60).map(|number| format!("n{number}")).collect();
    for name in &names {
        write(source.path(&format!("{name}.yaml")), manifest(name, "x")).expect("written");
    }
    let expected: Vec<_> = names.iter().map(|name| format!("+{name}=x")).collect();
    assert_eq!(source.list().await, format!("{} =one =two", expected.join(" ")));
}

#[tokio::test]
async fn a_broken_file_keeps_what_it_held_until_it_is_mended() {
    let mut source = Source::follow(one_and_two, &[""]);
    source.list().await;
    write(source.path("one.yaml"), "kind: [").expect("written");
    assert_eq!(source.list().await, "=one =two");
    write(source.path("two.yaml"), manifest("two", "3")).expect("written");
    assert_eq!(source.list().await, "=one +two=3");
    write(source.path("one.yaml"), manifest("one", "4")).expect("written");
    assert_eq!(source.list().await, "+one=4 =two");
}

#[tokio::test]
async fn a_list_is_not_completed_before_a_file_that_is_broken_from_the_start_was_read() {
    let broken = |folder: &Path| {
        one_and_two(folder);
        write(folder.join("one.yaml"), "a: [").expect("written");
    };
    let mut source = Source::follow(broken, &[""]);
    assert!(matches!(source.event().await, What::ListStarted));
    assert!(matches!(source.event().await, What::Apply(object) if object.key.name == "two"));
    write(source.path("one.yaml"), manifest("one", "1")).expect("written");
    assert_eq!(source.list().await, "+one=1 =two");
}

#[tokio::test]
async fn a_file_is_left_alone_while_somebody_writes_it() {
    let mut source = Source::follow(one_and_two, &[""]);
    source.list().await;
    let mut file = File::create(source.path("one.yaml")).expect("truncated");
    file.write_all(manifest("other", "x").as_bytes()).expect("written");
    write(source.path("two.yaml"), manifest("two", "3")).expect("written");
    assert_eq!(source.list().await, "=one +two=3");
    file.write_all(manifest("one", "4").as_bytes()).expect("written");
    drop(file);
    assert_eq!(source.list().await, "+other=x +one=4 =two");
}

#[tokio::test]
async fn a_file_that_is_made_anew_keeps_its_objects_until_it_is_written() {
    let mut source = Source::follow(one_and_two, &[""]);
    source.list().await;
    remove_file(source.path("one.yaml")).expect("removed");
    let mut file = File::create(source.path("one.yaml")).expect("made");
    assert_eq!(source.list().await, "=one =two");
    file.write_all(manifest("one", "3").as_bytes()).expect("written");
    drop(file);
    std::fs::hard_link(source.path("one.yaml"), source.path("same.yaml")).expect("a link");
    assert_eq!(source.list().await, "+one=3 =two", "a link to a file need not be waited for");
}

#[tokio::test]
async fn a_volume_of_a_kubelet_is_followed_through_its_links() {
    // ..data -> ..1 and one.yaml -> ..data/one.yaml, as in `pkg/volume/util/atomic_writer.go` of Kubernetes.
    let volume = |folder: &Path| {
        create_dir(folder.join("..1")).expect("a folder");
        write(folder.join("..1/one.yaml"), manifest("one", "1")).expect("written");
        symlink("..1", folder.join("..data")).expect("a link");
        symlink("..data/one.yaml", folder.join("one.yaml")).expect("a link");
    };
    for paths in [["."], ["one.yaml"]] {
        let mut source = Source::follow(volume, &paths);
        assert_eq!(source.list().await, "+one=1");
        create_dir(source.path("..2")).expect("a folder");
        write(source.path("..2/one.yaml"), manifest("one", "2")).expect("written");
        symlink("..2", source.path("..data_tmp")).expect("a link");
        rename(source.path("..data_tmp"), source.path("..data")).expect("renamed");
        remove_dir_all(source.path("..1")).expect("removed");
        assert_eq!(source.list().await, "+one=2", "{paths:?}");
    }
}

#[tokio::test]
async fn a_file_that_was_named_is_followed_though_editors_replace_it() {
    let mut source = Source::follow(one_and_two, &["one.yaml"]);
    assert_eq!(source.list().await, "+one=1");
    write(source.path("one.yaml.new"), manifest("one", "2")).expect("written");
    rename(source.path("one.yaml.new"), source.path("one.yaml")).expect("renamed");
    assert_eq!(source.list().await, "+one=2");
    remove_file(source.path("one.yaml")).expect("removed");
    assert_eq!(source.list().await, "=one");
    write(source.path("one.yaml"), manifest("one", "3")).expect("written");
    assert_eq!(source.list().await, "+one=3");
}

#[tokio::test]
async fn a_folder_that_is_taken_away_keeps_its_objects_and_is_followed_when_it_is_back() {
    let fill = |folder: &Path| {
        create_dir(folder.join("in")).expect("a folder");
        one_and_two(&folder.join("in"));
    };
    let mut source = Source::follow(fill, &["in"]);
    assert_eq!(source.list().await, "+one=1 +two=2");
    rename(source.path("in"), source.path("out")).expect("renamed");
    assert_eq!(source.list().await, "=one =two");
    create_dir(source.path("in")).expect("a folder");
    write(source.path("in/one.yaml"), manifest("one", "5")).expect("written");
    assert_eq!(source.list_after("=one =two").await, "+one=5");
    write(source.path("in/one.yaml"), manifest("one", "6")).expect("written");
    assert_eq!(source.list_after("=one").await, "+one=6", "it is watched again");
    remove_dir_all(source.path("in")).expect("removed");
    assert_eq!(source.list_after("").await, "=one");
}

#[tokio::test]
async fn a_folder_that_is_replaced_at_once_is_followed() {
    let fill = |folder: &Path| {
        for (inner, value) in [("in", "1"), ("next", "2")] {
            create_dir(folder.join(inner)).expect("a folder");
            write(folder.join(inner).join("one.yaml"), manifest("one", value)).expect("written");
        }
    };
    let mut source = Source::follow(fill, &["in"]);
    assert_eq!(source.list().await, "+one=1");
    rename(source.path("in"), source.path("old")).expect("renamed");
    rename(source.path("next"), source.path("in")).expect("renamed");
    assert_eq!(source.list_after("=one").await, "+one=2");
    write(source.path("in/one.yaml"), manifest("one", "3")).expect("written");
    assert_eq!(source.list_after("=one").await, "+one=3");
}

#[tokio::test]
async fn a_link_that_is_turned_to_another_folder_is_followed() {
    let fill = |folder: &Path| {
        for (inner, value) in [("1", "1"), ("2", "2")] {
            create_dir(folder.join(inner)).expect("a folder");
            write(folder.join(inner).join("one.yaml"), manifest("one", value)).expect("written");
        }
        symlink("1", folder.join("current")).expect("a link");
    };
    for path in ["current", "current/one.yaml"] {
        let mut source = Source::follow(fill, &[path]);
        assert_eq!(source.list().await, "+one=1");
        symlink("2", source.path("next")).expect("a link");
        rename(source.path("next"), source.path("current")).expect("renamed");
        assert_eq!(source.list().await, "+one=2", "{path}");
        write(source.path("2/one.yaml"), manifest("one", "3")).expect("written");
        assert_eq!(source.list().await, "+one=3", "{path}: the folder is watched that it leads to now");
        // In two steps, as older tools do.
        remove_file(source.path("current")).expect("removed");
        symlink("1", source.path("current")).expect("a link");
        assert_eq!(source.list_after("=one").await, "+one=1", "{path}");
    }
}

#[tokio::test]
async fn a_folder_of_a_volume_of_a_kubelet_is_followed_through_its_links() {
    // ..data -> ..1 and in -> ..data/in, as for an item with the path `in/one.yaml`.
    let revision = |folder: &Path, name: &str, value: &str| {
        std::fs::create_dir_all(folder.join(name).join("in")).expect("a folder");
        write(folder.join(name).join("in/one.yaml"), manifest("one", value)).expect("written");
    };
    let volume = |folder: &Path| {
        revision(folder, "..1", "1");
        symlink("..1", folder.join("..data")).expect("a link");
        symlink("..data/in", folder.join("in")).expect("a link");
    };
    let mut source = Source::follow(volume, &["in"]);
    assert_eq!(source.list().await, "+one=1");
    revision(source.folder.path(), "..2", "2");
    symlink("..2", source.path("..data_tmp")).expect("a link");
    rename(source.path("..data_tmp"), source.path("..data")).expect("renamed");
    assert_eq!(source.list_after("=one").await, "+one=2");
}

#[tokio::test]
async fn a_move_of_the_folder_above_is_noticed() {
    let fill = |folder: &Path| {
        for (above, value) in [("a", "1"), ("b", "2")] {
            std::fs::create_dir_all(folder.join(above).join("in")).expect("a folder");
            write(folder.join(above).join("in/one.yaml"), manifest("one", value)).expect("written");
        }
    };
    let mut source = Source::follow(fill, &["a/in"]);
    assert_eq!(source.list().await, "+one=1");
    rename(source.path("a"), source.path("old")).expect("renamed");
    rename(source.path("b"), source.path("a")).expect("renamed");
    assert_eq!(source.list_after("=one").await, "+one=2");
    write(source.path("a/in/one.yaml"), manifest("one", "3")).expect("written");
    assert_eq!(source.list_after("=one").await, "+one=3");
}

/// Replaces files in two steps again and again. Returns the objects for which that took so long that they may be missed.
fn replace_in_two_steps(folder: &Path, files: usize, go_on: impl Fn() -> bool) -> HashSet<String> {
    let mut slow = HashSet::new();
    for (round, file) in (0..).flat_map(|round| (0..files).map(move |file| (round, file))) {
        if !go_on() {
            break;
        }
        let (name, path) = (format!("o{file}"), folder.join(format!("f{file}.yaml")));
        let begin = Instant::now();
        remove_file(&path).expect("removed");
        write(&path, manifest(&name, &round.to_string())).expect("written");
        if begin.elapsed() >= super::watch::QUIET {
            slow.insert(name);
        }
    }
    slow
}

#[tokio::test]
async fn what_is_replaced_in_two_steps_is_never_gone() {
    const FILES: usize = 100;
    let fill = |folder: &Path| {
        for file in 0..FILES {
            write(folder.join(format!("f{file}.yaml")), manifest(&format!("o{file}"), "0")).expect("written");
        }
    };
    let mut source = Source::follow(fill, &[""]);
    source.list().await;
    let folder = source.folder.path().to_owned();
    let end = Instant::now() + Duration::from_secs(2);
    let enough = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let enough = Arc::clone(&enough);
        move || replace_in_two_steps(&folder, FILES, || !enough.load(Ordering::Relaxed))
    });
    let (mut listed, mut missed) = (HashSet::new(), HashSet::new());
    let (mut lists_begun, mut lists_done) = (0, 0);
    while !writer.is_finished() || lists_done == 0 {
        // Changes are reported while others go on, however busy the machine is.
        enough.store(lists_begun > 2 && Instant::now() >= end, Ordering::Relaxed);
        match source.event().await {
            What::ListStarted => {
                listed.clear();
                lists_begun += 1;
            }
            What::Apply(object) => _ = listed.insert(object.key.name.clone()),
            What::Keep(key) => _ = listed.insert(key.name.clone()),
            What::ListDone => {
                missed.extend((0..FILES).map(|file| format!("o{file}")).filter(|name| !listed.contains(name)));
                lists_done += 1;
            }
            what @ What::Delete(_) => panic!("{what:?}"),
        }
    }
    let slow = writer.join().expect("no panic");
    assert!(missed.is_subset(&slow), "{missed:?}, {slow:?}");
}

#[tokio::test]
async fn a_list_is_completed_in_the_end_though_something_happens_all_the_time() {
    let mut source = Source::follow(one_and_two, &[""]);
    assert_eq!(source.list().await, "+one=1 +two=2");
    write(source.path("f0.yaml"), manifest("o0", "0")).expect("written");
    source.list_after("=one =two").await;
    let folder = source.folder.path().to_owned();
    let stop = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let stop = Arc::clone(&stop);
        move || replace_in_two_steps(&folder, 1, || !stop.load(Ordering::Relaxed))
    });
    remove_file(source.path("two.yaml")).expect("removed");
    let list = source.list_after("=one =two").await;
    assert!(list.contains("one") && !list.contains("two"), "{list}");
    stop.store(true, Ordering::Relaxed);
    writer.join().expect("no panic");
}

#[tokio::test]
async fn a_pipe_and_a_dangling_link_are_passed_over_without_waiting() {
    let fill = |folder: &Path| {
        one_and_two(folder);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, folder.join("pipe.yaml"), mode).expect("a pipe");
        symlink("nowhere", folder.join("link.yaml")).expect("a link");
        create_dir(folder.join("folder.yaml")).expect("a folder");
    };
    let mut source = Source::follow(fill, &[""]);
    assert!(matches!(source.event().await, What::ListStarted));
    for expected in ["one", "two"] {
        assert!(matches!(source.event().await, What::Apply(object) if object.key.name == expected));
    }
    remove_file(source.path("pipe.yaml")).expect("removed");
    remove_file(source.path("link.yaml")).expect("removed");
    assert_eq!(source.list().await, "=one =two");
}

#[tokio::test]
async fn a_resync_reports_everything_in_full() {
    let mut source = Source::follow(one_and_two, &[""]);
    assert_eq!(source.list().await, "+one=1 +two=2");
    source.resync.notify_one();
    assert_eq!(source.list().await, "+one=1 +two=2");
    write(source.path("two.yaml"), "? [").expect("written");
    assert_eq!(source.list().await, "=one =two");
    source.resync.notify_one();
    assert_eq!(source.list().await, "+one=1 =two");
}

#[tokio::test]
async fn paths_are_read_in_the_order_in_which_they_are_given_and_each_file_once() {
    let fill = |folder: &Path| {
        one_and_two(folder);
        create_dir(folder.join("in")).expect("a folder");
        write(folder.join("in/a.yaml"), manifest("one", "from a folder")).expect("written");
    };
    let mut source = Source::follow(fill, &["two.yaml", "in", "one.yaml", "two.yaml"]);
    assert_eq!(source.list().await, "+two=2 +one=from a folder");
    remove_file(source.path("in/a.yaml")).expect("removed");
    assert_eq!(source.list().await, "=two +one=1");
}

#[tokio::test]
async fn it_ends_when_nobody_listens_any_more() {
    let mut source = Source::follow(one_and_two, &[""]);
    source.list().await;
    source.events.close();
    timeout(DEADLINE, &mut source.run).await.expect("an end in time").expect("no panic");
}

#[tokio::test]
async fn nothing_of_a_broken_file_stays_in_the_spool() {
    let large = "x".repeat(100_000);
    let fill = |folder: &Path| write(folder.join("f.yaml"), manifest("f", &large) + "---\n}\n").expect("written");
    let mut source = Source::follow(fill, &[""]);
    assert!(matches!(source.event().await, What::ListStarted));
    write(source.path("g.yaml"), manifest("g", "1")).expect("written");
    assert!(matches!(source.event().await, What::ListStarted));
    assert_eq!(read_dir(source.spool.path()).expect("a folder").count(), 0);
}
