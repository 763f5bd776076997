//! Time that stands still or jumps: for the sidecar, for the machine, on the calendar.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::harness::cluster::ApiServer;
use crate::harness::faulty::Faulty;
use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::sidecar::Launch;
use crate::harness::target::Target;
use crate::harness::updates::Updates;
use crate::harness::wait::{LONG_PATIENCE, lasting, run};
use crate::harness::witness::Witness;
use crate::harness::workspace::Workspace;

/// More comes meanwhile than the connection and the server have room for.
#[test]
fn a_sidecar_that_is_stopped_for_a_minute_catches_up_when_it_goes_on() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let large = |number: usize| config_map("large", [("large", &number.to_string().repeat(200_000))]);
        let gone = namespace.create(&config_map("gone", [("gone", "1")])).await;
        namespace.create(&large(0)).await;
        let updates = Updates::of(&namespace).await;
        let sidecar = Launch::within(&namespace, &workspace).start();
        sidecar.in_sync().await;
        let mut witness = Witness::of(&workspace);
        sidecar.signal(Signal::STOP);
        for number in 1..=100 {
            namespace.replace(&large(number)).await;
        }
        namespace.delete(&gone).await;
        lasting(Duration::from_secs(60)).await;
        sidecar.signal(Signal::CONT);
        assert!(updates.end().await > 100);
        sidecar.holds_within(LONG_PATIENCE, &namespace.files().await).await;
        assert_eq!(witness.removed(), ["gone"]);
        sidecar.terminate().await;
    });
}

/// By what libfaketime has the sidecar believe.
#[test]
fn a_calendar_that_jumps_stops_neither_files_nor_bumps() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let (calendar, bumped) = (workspace.beside("calendar"), workspace.beside("bumped"));
        let jump = |to: &str| fs::write(&calendar, to).expect("a temporary folder takes a file");
        let faulty = Faulty::before(&ApiServer::shared().admin_access()).await;
        namespace.create(&config_map("routes", [("a.yaml", "0")])).await;
        jump("+0");
        let launch = Launch::new(&workspace).access(&faulty.access).args(["--namespace", &namespace.name]);
        let sidecar = launch
            .args(["--exec", &format!("touch {}", bumped.display())])
            .environment("FAKETIME_TIMESTAMP_FILE", &calendar)
            .environment("FAKETIME_NO_CACHE", "1")
            .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .prelude("export LD_PRELOAD=$(ls /usr/lib/*/faketime/libfaketimeMT.so.1)")
            .start();
        sidecar.in_sync().await;
        let mut witness = Witness::of(&workspace);
        let follows = async |content: &str| {
            namespace.replace(&config_map("routes", [("a.yaml", content)])).await;
            sidecar.soon_holds([("a.yaml", content)]).await;
            let told = || fs::remove_file(&bumped).map_err(|error| error.to_string());
            sidecar.until("a bump", told).await;
        };
        follows("1").await;
        jump("-10y");
        follows("2").await;
        faulty.cut();
        follows("3").await;
        jump("+10y");
        follows("4").await;
        // In the year in which it then believes to be, the server's certificate has expired.
        jump("+2100y");
        faulty.cut();
        let line = sidecar.says("expired").await;
        assert!(line.starts_with("41"), "{line}");
        jump("+0");
        follows("5").await;
        witness.saw_nothing_go();
    });
}

/// What its clocks count, the start of other processes is compared with.
#[test]
fn on_a_machine_that_has_been_up_for_thirty_years_all_is_as_on_any_other() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a.yaml", "1")])).await;
        let target = Target::start(&workspace).await;
        let launch = Launch::within(&namespace, &workspace).args(["--process-command", &Target::name(&workspace)]);
        let sidecar = launch.args(["--signal", "HUP"]).uptime(30 * 365 * 24 * 3600).start();
        sidecar.in_sync().await;
        target.noted(["1"]).await;
        namespace.replace(&config_map("routes", [("a.yaml", "2")])).await;
        target.noted(["1", "2"]).await;
        drop(target);
        // It has read the files when it starts, so it is told of later ones only.
        let target = Target::start(&workspace).await;
        namespace.replace(&config_map("routes", [("a.yaml", "3")])).await;
        target.noted(["3"]).await;
    });
}
