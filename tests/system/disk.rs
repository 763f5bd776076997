//! Disks that are full or read-only, and a directory that is taken away.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::chown;
use std::os::unix::fs::symlink;
use std::process::Command;

use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::sidecar::{Launch, Sidecar};
use crate::harness::wait::{PATIENCE, run};
use crate::harness::workspace::Workspace;
use crate::processes::{NOBODY, as_nobody};

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
fn unwritable_path_delays_no_other_removal() {
    for guard in [vec![], vec!["--max-delete", "90%"]] {
        run(async {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let old = config_map("old", [("old", "1")]);
            namespace.create_all(&[config_map("routes", [("a", "1"), ("b", "1")]), old.clone()]).await;
            let launch = Launch::within(&namespace, &workspace).args(guard);
            let sidecar = launch.start();
            sidecar.holds([("a", "1"), ("b", "1"), ("old", "1")]).await;
            sidecar.terminate().await;

            workspace.write("taken/foreign", "theirs");
            namespace.delete(&old).await;
            namespace.replace(&config_map("routes", [("a", "1"), ("b", "1"), ("taken", "1")])).await;
            let sidecar = launch.start();
            sidecar.holds([("a", "1"), ("b", "1"), ("taken/foreign", "theirs")]).await;
            namespace.replace(&config_map("routes", [("a", "2"), ("taken", "2")])).await;
            sidecar.holds([("a", "2"), ("taken/foreign", "theirs")]).await;
            assert_eq!(sidecar.lines_with(&["cannot write", "taken"]).len(), 1);
            fs::rename(workspace.path("taken"), workspace.beside("moved")).expect("the directory can be moved away");
            sidecar.holds([("a", "2"), ("taken", "2")]).await;
            sidecar.says("what had failed is done").await;
        });
    }
}

#[test]
fn unwritable_path_causes_no_further_list() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        workspace.write("taken/foreign", "theirs");
        namespace.create(&config_map("routes", [("a", "1"), ("taken", "1")])).await;
        let sidecar = Launch::within(&namespace, &workspace).args(["--log-level", "debug"]).start();
        sidecar.holds([("a", "1"), ("taken/foreign", "theirs")]).await;
        let tries = || match sidecar.lines_with(&["cannot write", "taken"]).len() {
            4.. => Ok(()),
            count => Err(format!("{count} tries")),
        };
        sidecar.until("a third repetition", tries).await;
        let lists = sidecar.lines_with(&["GET /api/v1/", "sendInitialEvents"]);
        assert_eq!(lists.len(), 1, "{lists:?}");
        // Deletion takes the content that waits along.
        namespace.delete(&config_map("routes", [])).await;
        sidecar.holds([("taken/foreign", "theirs")]).await;
        sidecar.says("what had failed is done").await;
        sidecar.terminate().await;
    });
}

#[test]
fn old_file_that_cannot_be_read_is_replaced() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let content = "y".repeat(100_000);
        fs::create_dir(workspace.dir()).expect("a directory");
        namespace.create(&config_map("routes", [("large", content.as_str())])).await;
        let (dir, image) = (workspace.dir().display().to_string(), workspace.beside("image").display().to_string());
        // A block whose checksum does not match answers EIO.
        let damage = format!(
            r#"head -c 100000 /dev/zero | tr '\0' x >'{dir}/large'; umount '{dir}'
               perl -0777 -pi -e 's/x{{4096}}/"z" x 4096/e' '{image}'; mount -o loop '{image}' '{dir}'
               if cat '{dir}/large' >/dev/null 2>&1; then exit 1; fi"#
        );
        let sidecar = Launch::within(&namespace, &workspace).prelude(on_btrfs(&workspace, &damage)).start();
        sidecar.in_sync().await;
        let read = fs::read_to_string(sidecar.sees(&workspace.path("large"))).expect("the new file");
        assert!(read == content);
        sidecar.terminate().await;
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

/// Both ways in which files go live.
const WAYS: [&str; 2] = ["file", "set"];

/// Runs a piece of shell among the mounts of a sidecar.
fn among_its_mounts(sidecar: &Sidecar<'_>, script: &str) {
    let target = sidecar.process().to_string();
    let nsenter = ["--target", &target, "--mount", "--user", "--preserve-credentials", "sh", "-ec", script];
    let status = Command::new("nsenter").args(nsenter).status().expect("nsenter, which is part of util-linux");
    assert!(status.success(), "{script}");
}

#[test]
fn without_room_or_inodes_the_old_files_stay_whole_and_it_goes_on_by_itself_when_there_are_some() {
    let full = ("size=2m", "cat /dev/zero 2>/dev/null >filler || true");
    let many = ("nr_inodes=60", "i=0; while (: >filler-$i) 2>/dev/null; do i=$((i + 1)); done");
    run(async {
        for (way, (limit, fill)) in WAYS.iter().flat_map(|way| [full, many].map(|fault| (way, fault))) {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let version = |number: &str| (number.repeat(200_000), number.repeat(10));
            let object = |large: &str, small: &str| config_map("routes", [("large", large), ("small", small)]);
            let (large, small) = version("1");
            namespace.create(&object(&large, &small)).await;
            fs::create_dir(workspace.dir()).expect("a folder");
            let dir = workspace.dir().display().to_string();
            let launch = Launch::within(&namespace, &workspace).args(["--publish", way]);
            let sidecar = launch.mounting(format!("mount -t tmpfs -o {limit} none '{dir}'")).start();
            sidecar.in_sync().await;
            let read = |name: &str| fs::read_to_string(sidecar.sees(&workspace.path(name))).unwrap_or_default();

            among_its_mounts(&sidecar, &format!("cd '{dir}'; {fill}"));
            let (new_large, new_small) = version("2");
            namespace.replace(&object(&new_large, &new_small)).await;
            let line = sidecar.says("No space left on device").await;
            assert!(line.contains("make room"), "{line}");
            assert!(
                read("large") == large && [&small, &new_small].contains(&&read("small")),
                "the old files are whole"
            );

            among_its_mounts(&sidecar, &format!("cd '{dir}'; rm -f filler*"));
            let is_new = || read("large") == new_large && read("small") == new_small;
            sidecar.soon("the new files", || if is_new() { Ok(()) } else { Err("not yet".to_owned()) }).await;
            sidecar.terminate().await;
        }
    });
}

#[test]
fn without_permission_the_old_files_stay_and_it_goes_on_by_itself_when_it_has_it_again() {
    run(async {
        for way in WAYS {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            namespace.create(&config_map("routes", [("a", "1")])).await;
            let launch = Launch::within(&namespace, &workspace).args(["--publish", way]);
            let sidecar = launch.prelude(as_nobody(&workspace, "")).start();
            sidecar.in_sync().await;
            let (dir, state) = (workspace.dir(), workspace.path(".configbump"));
            let give_to = |user| [&dir, &state].map(|path| chown(path, Some(user), None).expect("root may do that"));
            let read = || fs::read_to_string(workspace.path("a")).unwrap_or_default();

            give_to(0);
            namespace.replace(&config_map("routes", [("a", "2")])).await;
            sidecar.says("Permission denied").await;
            assert_eq!(read(), "1");
            give_to(NOBODY);
            sidecar.soon("the new file", || if read() == "2" { Ok(()) } else { Err(read()) }).await;
            sidecar.terminate().await;
        }
    });
}

#[test]
fn when_dir_is_renamed_or_a_link_to_it_is_turned_it_says_so_and_ends() {
    run(async {
        for linked in [false, true] {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            if linked {
                fs::create_dir(workspace.beside("real")).expect("a folder");
                symlink("real", workspace.dir()).expect("a link");
            }
            let sidecar = Launch::within(&namespace, &workspace).start();
            sidecar.in_sync().await;
            if linked {
                fs::create_dir(workspace.beside("other")).expect("a folder");
                symlink("other", workspace.beside("link")).expect("a link");
                fs::rename(workspace.beside("link"), workspace.dir()).expect("a link");
            } else {
                fs::rename(workspace.dir(), workspace.beside("other")).expect("a folder");
            }
            let ended = sidecar.ended(PATIENCE).await;
            assert!(ended.code == Some(1) && ended.stderr.contains("was removed or replaced"), "{ended:?}");
        }
    });
}

#[test]
fn when_dir_or_the_folder_of_the_state_is_taken_away_it_says_so_and_ends_and_the_next_start_makes_it_anew() {
    run(async {
        for (way, lost) in WAYS.iter().flat_map(|way| ["", ".configbump"].map(|lost| (way, lost))) {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            namespace.create(&config_map("routes", [("a", "1")])).await;
            let launch = Launch::within(&namespace, &workspace).args(["--publish", way]);
            let sidecar = launch.start();
            sidecar.in_sync().await;
            // Nothing else happens that could make it look.
            fs::remove_dir_all(workspace.path(lost)).expect("a folder");
            fs::create_dir(workspace.path(lost)).expect("a folder");
            let ended = sidecar.ended(PATIENCE).await;
            assert_eq!(ended.code, Some(1), "{ended:?}");
            let last = ended.stderr.lines().last().unwrap_or_default();
            assert!(last.contains("was removed or replaced"), "{ended:?}");

            namespace.replace(&config_map("routes", [("a", "2")])).await;
            let sidecar = launch.start();
            let read = || fs::read_to_string(workspace.path("a")).unwrap_or_default();
            sidecar.until("the new file", || if read() == "2" { Ok(()) } else { Err(read()) }).await;
            sidecar.terminate().await;
        }
    });
}

/// What makes a process go on in mounts of its own, on a btrfs on which DIR is, once this is done to it. It takes the rights
/// of the machine, as a container's runtime has them: those of a user namespace may mount no block device.
fn on_btrfs(workspace: &Workspace, then: &str) -> String {
    let (dir, image) = (workspace.dir().display().to_string(), workspace.beside("image").display().to_string());
    let mount = format!(
        "mkfs.btrfs -q '{image}' >/dev/null; mount -o loop '{image}' '{dir}'
         {then}; exec setpriv --pdeathsig KILL \"$@\""
    );
    format!("truncate -s 128M '{image}'; exec unshare --mount sh -ec {} sh \"$@\"", shell_words::quote(&mount))
}

/// The kernel remounts no file system on which a file is open for writing, as configbump's record is, but by force; this is
/// the same for whoever writes.
#[test]
fn while_the_file_system_is_read_only_the_old_files_stay_and_it_goes_on_by_itself_when_it_is_not() {
    run(async {
        for way in WAYS {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            namespace.create(&config_map("routes", [("a", "1")])).await;
            fs::create_dir(workspace.dir()).expect("a folder");
            let launch = Launch::within(&namespace, &workspace).args(["--publish", way]);
            let sidecar = launch.prelude(on_btrfs(&workspace, "true")).start();
            sidecar.in_sync().await;
            let read = || fs::read_to_string(sidecar.sees(&workspace.path("a"))).unwrap_or_default();
            let set_read_only = |value: &str| {
                let dir = sidecar.sees(&workspace.dir());
                let status = Command::new("btrfs").args(["property", "set"]).arg(dir).args(["ro", value]).status();
                assert!(status.expect("btrfs, which is part of btrfs-progs").success());
            };

            set_read_only("true");
            namespace.replace(&config_map("routes", [("a", "2")])).await;
            sidecar.says("Read-only file system").await;
            assert_eq!(read(), "1");
            set_read_only("false");
            sidecar.soon("the new file", || if read() == "2" { Ok(()) } else { Err(read()) }).await;
            sidecar.terminate().await;
        }
    });
}

#[test]
fn at_its_quota_the_old_files_stay_whole_and_it_goes_on_by_itself_when_there_is_room() {
    run(async {
        for way in WAYS {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let (old, new) = ("1".repeat(400_000), "2".repeat(400_000));
            namespace.create(&config_map("routes", [("large", old.as_str())])).await;
            fs::create_dir(workspace.dir()).expect("a folder");
            let dir = workspace.dir().display().to_string();
            let quota = format!("btrfs quota enable '{dir}'; btrfs qgroup limit 4M 0/5 '{dir}'");
            let launch = Launch::within(&namespace, &workspace).args(["--publish", way]);
            let sidecar = launch.prelude(on_btrfs(&workspace, &quota)).start();
            sidecar.in_sync().await;
            let read = || fs::read_to_string(sidecar.sees(&workspace.path("large"))).unwrap_or_default();
            assert!(read() == old);

            let filler = sidecar.sees(&workspace.path("filler"));
            let mut full = fs::File::create(&filler).expect("a file");
            let error = (0..4000).find_map(|_| full.write_all(&[0; 4096]).err()).expect("a quota that ends it");
            assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{error}");
            namespace.replace(&config_map("routes", [("large", new.as_str())])).await;
            let line = sidecar.says("quota exceeded").await;
            assert!(line.contains("make room"), "{line}");
            assert!(read() == old, "the old file is whole");

            fs::remove_file(&filler).expect("the file that takes the room");
            drop(full);
            sidecar.soon("the new file", || if read() == new { Ok(()) } else { Err("not yet".to_owned()) }).await;
            sidecar.terminate().await;
        }
    });
}

#[test]
fn a_start_on_a_full_disk_leaves_the_old_files_whole_and_it_goes_on_by_itself_when_there_is_room() {
    run(async {
        for way in WAYS {
            let (namespace, workspace) = (Namespace::new().await, Workspace::new());
            let (old, new) = ("1".repeat(400_000), "2".repeat(400_000));
            namespace.create(&config_map("routes", [("large", old.as_str())])).await;
            let launch = Launch::within(&namespace, &workspace).args(["--publish", way]);
            let sidecar = launch.start();
            sidecar.in_sync().await;
            sidecar.terminate().await;
            namespace.replace(&config_map("routes", [("large", new.as_str())])).await;
            let (dir, saved) = (workspace.dir().display().to_string(), workspace.beside("saved").display().to_string());
            let mounts = format!(
                "mv '{dir}' '{saved}'; mkdir '{dir}'; mount -t tmpfs -o size=2m none '{dir}'; cp -a '{saved}/.' '{dir}'
                 cat /dev/zero 2>/dev/null >'{dir}/filler' || true"
            );
            let sidecar = launch.mounting(mounts).start();
            let line = sidecar.says("No space left on device").await;
            assert!(line.contains("make room"), "{line}");
            let read = || fs::read_to_string(sidecar.sees(&workspace.path("large"))).unwrap_or_default();
            assert!(read() == old, "the old file is whole");
            fs::remove_file(sidecar.sees(&workspace.path("filler"))).expect("the file that takes the room");
            sidecar.soon("the new file", || if read() == new { Ok(()) } else { Err("not yet".to_owned()) }).await;
            sidecar.terminate().await;
        }
    });
}
