//! Who is signalled among real processes, in PID namespaces and under users of their own, which takes root: the process
//! that is meant, if it may be, and no other.

use std::fs;

use crate::bump::signalling;
use crate::harness::namespace::Namespace;
use crate::harness::object::config_map;
use crate::harness::processes::Processes;
use crate::harness::program::Program;
use crate::harness::sidecar::Launch;
use crate::harness::target::Target;
use crate::harness::wait::run;
use crate::harness::workspace::Workspace;

/// A user that nobody else is.
pub const NOBODY: u32 = 65_534;

/// What becomes configbump as nobody, with these options of setpriv, and a DIR of its own.
pub fn as_nobody(workspace: &Workspace, options: &str) -> String {
    format!(
        "cd '{}'; chmod 755 .; mkdir -p out; chown {NOBODY} out; cp \"$1\" configbump; shift
         exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups {options} --pdeathsig KILL ./configbump \"$@\"",
        workspace.beside("").display()
    )
}

#[test]
fn in_a_pod_a_parent_of_pid_0_means_the_first_processes_of_the_containers() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let pod = Processes::of_pod(&workspace).await;
        let first = Target::entering(&pod, &workspace).await;
        let second = Target::entering(&pod, &workspace).await;
        let below = Target::below(&pod, &workspace).await;
        namespace.create(&config_map("routes", [("a", "1")])).await;

        let launch = signalling(&namespace, &workspace).inside(&pod);
        let sidecar = launch.clone().args(["--process-parent-pid", "0"]).start();
        first.noted(["1"]).await;
        second.noted(["1"]).await;
        sidecar.says_times("sent SIGHUP to", 2).await;
        below.noted([]).await;
        sidecar.kill();

        let sidecar = launch.args(["--initial-bump", "always"]).start();
        below.noted(["1"]).await;
        sidecar.says_times("sent SIGHUP to", 3).await;
    });
}

#[test]
fn in_a_container_a_parent_of_pid_0_means_its_first_process() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let (entrypoint, middle) = (workspace.beside("entrypoint"), workspace.beside("middle"));
        // Both targets have parents that do not match.
        let target = |log: &str| {
            let args = Target::args(&workspace, &workspace.beside(log), r#"cat "$dir"/*"#);
            format!("sh {}", args.map(|arg| format!("'{}'", arg.display())).join(" "))
        };
        fs::write(&middle, format!("{} & wait", target("below"))).expect("a file");
        fs::write(&entrypoint, format!("sh '{}' & exec {}", middle.display(), target("first"))).expect("a file");
        let container = Processes::start(&workspace, "sh", [entrypoint]).await;
        let noted = async |log: &str, wanted: &str| {
            container
                .until(&format!("{log} to have noted {wanted:?}"), async || {
                    match fs::read_to_string(workspace.beside(log)) {
                        Ok(noted) if noted == wanted => Ok(()),
                        other => Err(format!("{other:?}")),
                    }
                })
                .await;
        };
        noted("first", "").await;
        noted("below", "").await;
        namespace.create(&config_map("routes", [("a", "1")])).await;

        let launch = signalling(&namespace, &workspace).inside(&container);
        let sidecar = launch.clone().args(["--process-parent-pid", "0"]).start();
        noted("first", "1\n").await;
        sidecar.says_times("sent SIGHUP to PID 1 ", 1).await;
        sidecar.says_times("sent SIGHUP to", 1).await;
        noted("below", "").await;
        sidecar.kill();

        let sidecar = launch.args(["--initial-bump", "always"]).start();
        noted("below", "1\n").await;
        sidecar.says_times("sent SIGHUP to", 2).await;
    });
}

#[test]
fn what_starts_configbump_with_its_options_is_no_target() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let target = Target::start(&workspace).await;
        namespace.create(&config_map("routes", [("a", "1")])).await;
        // The shell stays, and every option is in its command line. HUP would end it.
        let launch = signalling(&namespace, &workspace).prelude("setpriv --pdeathsig KILL \"$@\"; exit");
        let sidecar = launch.start();
        target.noted(["1"]).await;
        namespace.replace(&config_map("routes", [("a", "2")])).await;
        target.noted(["1", "2"]).await;
        sidecar.says_times("sent SIGHUP to", 2).await;
        assert_eq!(sidecar.lines_with(&["handler"]), [""; 0]);
    });
}

#[test]
fn one_that_sees_no_process_but_its_own_says_that_the_pod_must_share_them() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let target = Target::start(&workspace).await;
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let sidecar = signalling(&namespace, &workspace).among("true").start();
        let line = sidecar.says("the bump waits for it").await;
        assert!(line.contains("shareProcessNamespace: true"), "{line}");
        target.noted([]).await;
    });
}

#[test]
fn one_from_which_hidepid_hides_the_target_says_so() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let pod = Processes::of_pod(&workspace).await;
        let target = Target::entering(&pod, &workspace).await;
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let script = format!("mount -t proc -o hidepid=2 proc /proc\n{}", as_nobody(&workspace, ""));
        let sidecar = signalling(&namespace, &workspace).inside(&pod).prelude(script).start();
        let line = sidecar.says("the bump waits for it").await;
        for part in ["hidepid", "mount it without", "as the user of the program", &Target::name(&workspace)] {
            assert!(line.contains(part), "no {part:?} in {line}");
        }
        sidecar.holds([("a", "1")]).await;
        target.noted([]).await;
    });
}

#[test]
fn a_target_of_another_user_is_told_of_in_one_line_with_the_remedies() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let target = Target::start(&workspace).await;
        let sidecar = signalling(&namespace, &workspace).prelude(as_nobody(&workspace, "")).start();
        let line = sidecar.says("may not send SIGHUP").await;
        let of = format!("PID {} ", target.pid());
        for part in [of.as_str(), "runs as user 0", "configbump as user 65534", "runAsUser", "CAP_KILL"] {
            assert!(line.contains(part), "no {part:?} in {line}");
        }
        assert!(!line.contains("PTRACE"), "{line}");
        assert_eq!(sidecar.lines_with(&["may not send"]).len(), 1);
        target.noted([]).await;
        sidecar.holds([("a", "1")]).await;
    });
}

#[test]
fn the_capability_kill_is_all_that_a_target_of_another_user_takes() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let target = Target::start(&workspace).await;
        let only = "--bounding-set=-all,+kill --inh-caps=-all,+kill --ambient-caps=-all,+kill";
        let sidecar = signalling(&namespace, &workspace).prelude(as_nobody(&workspace, only)).start();
        target.noted(["1"]).await;
        let status = fs::read_to_string(format!("/proc/{}/status", sidecar.pid())).expect("a status");
        for line in ["Uid:\t65534\t65534\t65534\t65534", "CapEff:\t0000000000000020"] {
            assert!(status.lines().any(|found| found == line), "no {line:?} in {status}");
        }
    });
}

/// A program in a pod that has no handler for HUP, with the name of the workspace's targets in its command line, and its
/// PID there. It ends when there is a file of the name `end`.
async fn without_handler(pod: &Processes, workspace: &Workspace) -> (Program, u32) {
    let (script, end) = ("until [ -e \"$1\" ]; do sleep 0.02; done", workspace.beside("end"));
    let program = pod.enter(workspace, "sh", ["-c", script, &Target::name(workspace), &end.display().to_string()]);
    let pid = pod.pid_of(&program, "sh").await;
    (program, pid)
}

/// Ends that one, and starts another that HUP would end, with the very same PID.
async fn bystander(pod: &Processes, workspace: &Workspace, pid: u32) -> Program {
    fs::write(workspace.beside("end"), "").expect("a file");
    // Threads have PIDs, too, and another one may be faster.
    let script = r#"while :; do
        echo $(($1 - 1)) >/proc/sys/kernel/ns_last_pid
        sleep 1234 &
        [ $! = "$1" ] && break
        kill $!
    done; wait"#;
    let program = pod.enter(workspace, "sh", ["-c", script, "sh", &pid.to_string()]);
    program
        .until("a bystander with the PID", async || match pod.command_line(pid) {
            Some(words) if words == "sleep 1234" => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    program
}

#[test]
fn who_gets_the_pid_of_a_target_that_was_waited_for_is_not_signalled_in_its_place() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let pod = Processes::of_pod(&workspace).await;
        let (_program, pid) = without_handler(&pod, &workspace).await;
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let sidecar = signalling(&namespace, &workspace).inside(&pod).start();
        sidecar.says(&format!("PID {pid} (sh) has not installed a handler for SIGHUP")).await;
        let _bystander = bystander(&pod, &workspace, pid).await;
        sidecar.says("no process whose command line matches").await;

        // It goes on with the next instance, whose PID is another one.
        let target = Target::entering(&pod, &workspace).await;
        namespace.replace(&config_map("routes", [("a", "2")])).await;
        target.noted(["2"]).await;
        sidecar.says_times("sent SIGHUP to", 1).await;
        assert_eq!(pod.command_line(pid).as_deref(), Some("sleep 1234"));
    });
}

#[test]
fn who_gets_the_pid_that_the_option_names_is_the_target_from_then_on_and_guarded_like_any() {
    run(async {
        let (namespace, workspace) = (Namespace::new().await, Workspace::new());
        let pod = Processes::of_pod(&workspace).await;
        let (_program, pid) = without_handler(&pod, &workspace).await;
        namespace.create(&config_map("routes", [("a", "1")])).await;
        let by_pid =
            Launch::within(&namespace, &workspace).args(["--signal", "HUP", "--process-pid", &pid.to_string()]);
        let sidecar = by_pid.inside(&pod).start();
        sidecar.says(&format!("PID {pid} (sh) has not installed a handler for SIGHUP")).await;
        let _bystander = bystander(&pod, &workspace, pid).await;

        namespace.replace(&config_map("routes", [("a", "2")])).await;
        sidecar.says(&format!("PID {pid} (sleep) has not installed a handler for SIGHUP")).await;
        assert_eq!(pod.command_line(pid).as_deref(), Some("sleep 1234"));
        sidecar.says_times("sent SIGHUP to", 0).await;
    });
}
