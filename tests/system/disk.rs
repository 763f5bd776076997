//! Disks that are full or read-only.

use std::fs;

use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::sidecar::Launch;
use crate::harness::wait::run;
use crate::harness::workspace::Workspace;

#[test]
fn on_a_full_disk_the_last_good_file_stays_and_the_change_is_made_when_there_is_room() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let (old, new) = ("1".repeat(400_000), "2".repeat(500_000));
        namespace.create(&config_map("large", [("large", old.as_str())])).await;
        fs::create_dir(workspace.dir()).expect("a folder");
        let dir = workspace.dir().display().to_string();
        let filler = "head -c 300000 /dev/zero >";
        let mounts = format!("mount -t tmpfs -o size=1m none '{dir}'; {filler} '{dir}/foreign'");
        let sidecar = Launch::within(&namespace, &workspace).mounting(mounts).start();
        sidecar.in_sync().await;
        let read = |name: &str| fs::read_to_string(sidecar.sees(&workspace.path(name))).unwrap_or_default();
        assert!(read("large") == old);

        namespace.replace(&config_map("large", [("large", new.as_str())])).await;
        sidecar.says("large").await;
        namespace.create(&config_map("small", [("small", "1")])).await;
        let arrived = || if read("small") == "1" { Ok(()) } else { Err("no file".to_owned()) };
        sidecar.until("a change that there is room for", arrived).await;
        assert!(read("large") == old, "the last good file stays");

        fs::remove_file(sidecar.sees(&workspace.path("foreign"))).expect("the file that takes the room");
        let changed = || if read("large") == new { Ok(()) } else { Err("the old file".to_owned()) };
        sidecar.until("the change that there is room for now", changed).await;
        let complaints = sidecar.lines_with(&["large", "No space"]);
        assert_eq!(complaints.len(), 1, "{complaints:?}");
    });
}

#[test]
fn nothing_is_written_outside_dir() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let large = "x".repeat(500_000);
        namespace.create(&config_map("routes", [("large", large.as_str()), ("small", "1")])).await;
        fs::create_dir(workspace.dir()).expect("a folder");
        let dir = workspace.dir().display().to_string();
        let beside = workspace.beside("probe").display().to_string();
        // Only DIR stays writable: its mount is another one.
        let mounts = format!(
            "outer=$(stat -c %m '{dir}'); mount --bind '{dir}' '{dir}'; cd '{dir}'
            mount -o remount,bind,ro /; mount -o remount,bind,ro \"$outer\"
            if touch '{beside}' 2>/dev/null; then exit 1; fi"
        );
        let sidecar = Launch::within(&namespace, &workspace).mounting(mounts).start();
        sidecar.in_sync().await;
        sidecar.holds([("large", large.as_str()), ("small", "1")]).await;
        namespace.replace(&config_map("routes", [("large", "1"), ("small", large.as_str())])).await;
        sidecar.holds([("large", "1"), ("small", large.as_str())]).await;
        sidecar.terminate().await;
    });
}
