use std::fs::write;

use tokio::time::timeout;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

fn watch() -> (tempfile::TempDir, Watch) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut watch = Watch::new(&[folder.path().to_owned()]).expect("a watch");
    watch.take();
    (folder, watch)
}

#[tokio::test]
async fn nothing_is_to_be_done_while_nothing_happens_and_what_does_not_matter_is_not_reported() {
    let (folder, mut watch) = watch();
    assert_eq!(watch.log.alarm(), None);
    for name in ["x.txt", ".x.yaml.swp", ".x.yaml", "x.yaml~"] {
        write(folder.path().join(name), "").expect("written");
    }
    watch.log.drain(watch.inotify.get_mut());
    assert!(!watch.log.due);
    assert!(watch.take().files.is_empty());
}

#[tokio::test]
async fn a_file_in_the_working_folder_is_watched_by_its_bare_name() {
    let mut watch = Watch::new(&[PathBuf::from("Cargo.toml")]).expect("a watch");
    watch.take();
    assert_eq!(watch.log.alarm(), None);
    assert_eq!(watch.log.folders[0].path.join("Cargo.toml"), Path::new("Cargo.toml"));
}

#[tokio::test]
async fn it_is_calm_only_some_time_after_something_happened() {
    let (folder, mut watch) = watch();
    assert!(watch.is_calm());
    write(folder.path().join("x.yaml"), "a").expect("written");
    assert!(!watch.is_calm(), "something happened since the changes were taken");
    watch.take();
    let last = watch.log.last.as_mut().expect("something happened");
    *last = Instant::now() + QUIET;
    assert!(!watch.is_calm(), "something happened shortly before");
    watch.look_again();
    timeout(DEADLINE, watch.changed()).await.expect("it is looked at again though nothing more happens");
    watch.log.last = Instant::now().checked_sub(QUIET);
    watch.take();
    assert!(watch.is_calm());
}

#[tokio::test]
async fn two_paths_to_one_folder_are_both_watched_though_one_is_turned_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    for name in ["1", "2"] {
        std::fs::create_dir(path(name)).expect("a folder");
    }
    std::os::unix::fs::symlink("1", path("link")).expect("a link");
    let mut watch = Watch::new(&[path("1"), path("link")]).expect("a watch");
    watch.take();
    std::os::unix::fs::symlink("2", path("new")).expect("a link");
    std::fs::rename(path("new"), path("link")).expect("renamed");
    timeout(DEADLINE, watch.changed()).await.expect("noticed");
    assert!(watch.take().anything);
    for file in ["1/x.yaml", "2/y.yaml"] {
        write(path(file), "a").expect("written");
        timeout(DEADLINE, watch.changed()).await.expect("noticed");
    }
    assert_eq!(watch.take().files, HashSet::from([path("1/x.yaml"), path("link/y.yaml")]));
}

#[tokio::test]
async fn a_file_that_nobody_closes_is_read_in_the_end() {
    let (folder, mut watch) = watch();
    let path = folder.path().join("x.yaml");
    write(&path, "a: b").expect("written");
    timeout(DEADLINE, watch.changed()).await.expect("noticed");
    assert_eq!(watch.take().files, HashSet::from([path.clone()]));
    assert!(!watch.is_unsettled(&path));
    let writer = std::fs::File::create(&path).expect("truncated");
    assert!(watch.is_unsettled(&path));
    assert!(!watch.log.due, "it is not over yet");
    let last = watch.log.written.get_mut(&path).expect("it is being written");
    *last = Instant::now().checked_sub(WRITING_MAX).expect("a machine that runs for a while");
    timeout(DEADLINE, watch.changed()).await.expect("noticed");
    assert_eq!(watch.take().files, HashSet::from([path.clone()]));
    assert!(!watch.is_unsettled(&path));
    assert_eq!(watch.log.alarm(), None);
    drop(writer);
}

#[tokio::test]
async fn after_too_many_events_anything_may_have_changed() {
    let (folder, mut watch) = watch();
    let queue = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").expect("a limit");
    let queue: usize = queue.trim().parse().expect("a number");
    for _ in 0..=queue / 4 {
        write(folder.path().join("x.yaml"), "a").expect("written");
        write(folder.path().join("z.yaml"), "b").expect("written");
    }
    timeout(DEADLINE, watch.changed()).await.expect("noticed");
    assert!(watch.take().anything);
}

#[tokio::test]
async fn a_folder_that_is_gone_is_tried_again_less_and_less_often() {
    let (folder, mut watch) = watch();
    let path = folder.path().to_owned();
    folder.close().expect("removed");
    timeout(DEADLINE, watch.changed()).await.expect("noticed");
    let mut delays = Vec::new();
    for _ in 0..7 {
        let State::Lost { delay, at, .. } = &mut watch.log.folders[0].state else { panic!("{watch:?}") };
        delays.push(delay.as_secs());
        *at = Instant::now();
        watch.take();
        timeout(DEADLINE, watch.changed()).await.expect("looked at");
    }
    assert_eq!(delays, [2, 4, 8, 16, 30, 30, 30]);
    assert!(!watch.take().anything);
    std::fs::create_dir(&path).expect("a folder");
    let State::Lost { at, .. } = &mut watch.log.folders[0].state else { panic!("{watch:?}") };
    *at = Instant::now();
    timeout(DEADLINE, watch.changed()).await.expect("noticed");
    assert!(watch.take().anything);
    assert_eq!(watch.log.alarm(), None);
    std::fs::remove_dir(&path).expect("removed");
}
