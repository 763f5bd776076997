//! Bumps: after the disk, at least once for a batch that changed a byte, never for another, and not too often.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::namespace::Namespace;
use crate::harness::object::{annotated, config_map};
use crate::harness::sidecar::Launch;
use crate::harness::target::Target;
use crate::harness::wait::run;
use crate::harness::workspace::Workspace;

/// One that sends HUP to the targets of the workspace.
pub fn signalling<'w>(namespace: &Namespace, workspace: &'w Workspace) -> Launch<'w> {
    let target = Target::name(workspace);
    Launch::within(namespace, workspace).args(["--signal", "HUP", "--process-command", &target])
}

#[test]
fn what_changes_no_byte_is_no_bump() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let target = Target::start(&workspace).await;
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let sidecar = signalling(&namespace, &workspace).args(["--settle", "0"]).start();
        target.noted(["1"]).await;
        namespace.replace(&annotated(config_map("routes", [("a", "1")]), "example.com/note", "touched")).await;
        namespace.create(&config_map("nothing", [])).await;
        namespace.replace(&config_map("routes", [("a", "2")])).await;
        target.noted(["1", "2"]).await;
        sidecar.says_times("sent SIGHUP", 2).await;
    });
}

#[test]
fn a_thousand_changes_are_a_handful_of_bumps_and_the_last_follows_the_last_change() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let target = Target::noting(&workspace, r#"ls "$dir" | wc -l"#).await;
        let sidecar = signalling(&namespace, &workspace).start();
        sidecar.in_sync().await;
        let names: Vec<_> = (0..1000).map(|number| format!("{number:04}")).collect();
        let objects: Vec<_> = names.iter().map(|name| config_map(name, [(name, "1")])).collect();
        // They come together however slow the machine is.
        sidecar.signal(Signal::STOP);
        namespace.create_all(&objects).await;
        sidecar.signal(Signal::CONT);
        sidecar
            .until("a bump that sees everything", || match target.bumps() {
                bumps if bumps.last().is_some_and(|seen| seen.trim() == "1000") => Ok(()),
                bumps => Err(format!("{bumps:?}")),
            })
            .await;
        assert!(target.bumps().len() <= 10, "{:?}", target.bumps());
    });
}

#[test]
fn a_thousand_updates_of_an_object_are_a_handful_of_bumps_and_the_last_follows_the_last_update() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "0")])).await;
        let target = Target::noting(&workspace, r#"cat "$dir/a""#).await;
        // A machine that is busy makes a pause now and then; it is to be none of the settling.
        let sidecar = signalling(&namespace, &workspace).args(["--settle=1s", "--settle-max=5s"]).start();
        sidecar.in_sync().await;
        let begun = Instant::now();
        for number in 1..=1000 {
            namespace.replace(&config_map("routes", [("a", &number.to_string())])).await;
        }
        sidecar
            .until("a bump that sees the last", || match target.bumps() {
                bumps if bumps.last().is_some_and(|seen| seen.trim() == "1000") => Ok(()),
                bumps => Err(format!("{bumps:?}")),
            })
            .await;
        // On a machine that has much else to do there may be a pause every second.
        let handful = usize::try_from(begun.elapsed().as_secs()).unwrap_or(usize::MAX).max(10);
        assert!(target.bumps().len() <= handful, "{:?}", target.bumps());
    });
}

#[test]
fn the_first_sync_bumps_who_ran_before_it() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let target = Target::start(&workspace).await;
        let launch = signalling(&namespace, &workspace);
        let sidecar = launch.start();
        target.noted(["1"]).await;
        sidecar.terminate().await;

        // A first sync that changes nothing bumps nobody.
        let sidecar = launch.start();
        sidecar.in_sync().await;
        namespace.replace(&config_map("routes", [("a", "2")])).await;
        target.noted(["1", "2"]).await;
        sidecar.says_times("sent SIGHUP", 1).await;
    });
}

#[test]
fn who_starts_after_the_first_sync_has_read_it() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let sidecar = signalling(&namespace, &workspace).start();
        let line = sidecar.says("the bump waits for it").await;
        assert!(line.contains(&Target::name(&workspace)), "{line}");
        let target = Target::start(&workspace).await;
        namespace.replace(&config_map("routes", [("a", "2")])).await;
        target.noted(["2"]).await;
        sidecar.says_times("sent SIGHUP", 1).await;
    });
}

#[test]
fn the_first_sync_always_or_never_bumps_where_that_is_asked_for() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let target = Target::start(&workspace).await;
        let sidecar = signalling(&namespace, &workspace).args(["--initial-bump", "never"]).start();
        sidecar.in_sync().await;
        namespace.replace(&config_map("routes", [("a", "2")])).await;
        target.noted(["2"]).await;
        sidecar.terminate().await;

        let sidecar = signalling(&namespace, &workspace).args(["--initial-bump", "always"]).start();
        target.noted(["2", "2"]).await;
        sidecar.says_times("sent SIGHUP", 1).await;
    });
}

#[test]
fn one_killed_between_write_and_bump_bumps_after_its_restart() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let target = Target::start(&workspace).await;
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let sidecar = signalling(&namespace, &workspace).args(["--settle", "1h"]).start();
        sidecar.in_sync().await;
        namespace.replace(&config_map("routes", [("a", "2")])).await;
        sidecar.holds([("a", "2")]).await;
        sidecar.kill();
        target.noted([]).await;

        let launch = signalling(&namespace, &workspace);
        let sidecar = launch.start();
        target.noted(["2"]).await;
        sidecar.terminate().await;
        // That was the end of it.
        let sidecar = launch.start();
        sidecar.in_sync().await;
        namespace.replace(&config_map("routes", [("a", "3")])).await;
        target.noted(["2", "3"]).await;
    });
}

#[test]
fn a_target_that_restarts_is_a_new_one() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let first = Target::start(&workspace).await;
        let sidecar = signalling(&namespace, &workspace).start();
        first.noted(["1"]).await;
        drop(first);

        namespace.replace(&config_map("routes", [("a", "2")])).await;
        sidecar.says("the bump waits for it").await;
        let second = Target::start(&workspace).await;
        namespace.replace(&config_map("routes", [("a", "3")])).await;
        second.noted(["3"]).await;
        sidecar.says_times("sent SIGHUP", 2).await;
        sidecar.says_times(&format!("sent SIGHUP to PID {} ", second.pid()), 1).await;
    });
}

#[test]
fn two_bumps_have_their_least_time_between_them() {
    const INTERVAL: Duration = Duration::from_secs(2);
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let target = Target::noting(&workspace, "date +%s%N").await;
        let sidecar = signalling(&namespace, &workspace).args(["--settle", "0", "--min-interval", "2s"]).start();
        sidecar.in_sync().await;
        namespace.create(&config_map("routes", [("a", "0")])).await;
        let mut number = 0;
        while target.bumps().len() < 3 {
            number += 1;
            namespace.replace(&config_map("routes", [("a", &number.to_string())])).await;
            assert!(number < 100_000, "bumps: {:?}", target.bumps());
        }
        let times: Vec<u64> = target.bumps().iter().map(|time| time.parse().expect("nanoseconds")).collect();
        for pair in times.windows(2) {
            let between = Duration::from_nanos(pair[1] - pair[0]);
            // The target noted the first a little later than it was sent.
            assert!(between > INTERVAL * 3 / 4, "{between:?}");
        }
    });
}
