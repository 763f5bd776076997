//! The choice among any processes, and the search among real ones.

mod reuse;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::folder::Folder;
use super::view::Seen;
use super::*;
use crate::fuzz::{Faults, faulty};

fn command(text: &str) -> Who {
    Who::Command(parse_expression(text).expect("an expression"))
}

fn spec(process: Who, parent: Option<Who>) -> TargetSpec {
    TargetSpec { process, parent }
}

/// A word that no other process of the machine has in its command line.
fn marker(test: &str) -> String {
    format!("configbump-test-{}-{test}", std::process::id())
}

/// A shell that has said that it is ready, and that ends with the test, as do its workers.
struct Shell {
    child: Child,
}

impl Shell {
    /// Runs a script with a command line that ends with the marker.
    fn run(script: &str, marker: &str) -> Self {
        let script = format!("exec 3<&0\n{script}\necho ready; read -r end");
        let mut command = Command::new("sh");
        command.args(["-c", &script, marker]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("a shell");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output")).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        Self { child }
    }

    /// What to put into a script to run a worker with a command line that ends with the marker.
    fn worker(marker: &str) -> String {
        format!("sh -c 'read -r end <&3' {marker} & ")
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().expect("its end");
    }
}

fn nobody_helps(_: u32) -> bool {
    false
}

fn found(spec: &TargetSpec) -> Vec<u32> {
    match find(spec, &nobody_helps) {
        Ok(targets) => targets.into_iter().map(|target| target.identity.pid).collect(),
        Err(BumpError::Waiting(_)) => Vec::new(),
        Err(error) => panic!("{error}"),
    }
}

/// Waits until so many processes are found: a worker has its own command line only from a moment after its start.
fn become_visible(spec: &TargetSpec, count: usize) -> Vec<u32> {
    let mut last = Vec::new();
    until(|| {
        last = found(spec);
        last.len() == count
    });
    last
}

fn until(mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain");
        std::thread::yield_now();
    }
}

#[test]
fn a_process_is_found_by_its_command_line_and_by_its_pid() {
    let marker = marker("plain");
    let shell = Shell::run("", &marker);
    assert_eq!(found(&spec(command(&format!("^sh -c (?s:.*) {marker}$")), None)), [shell.pid()]);
    assert_eq!(found(&spec(command(&marker[3..]), None)), [shell.pid()]);
    assert_eq!(found(&spec(Who::Pid(shell.pid()), None)), [shell.pid()]);
}

#[test]
fn a_process_that_has_ended_is_not_found() {
    let mut child = Command::new("true").spawn().expect("a process");
    let stat = format!("/proc/{}/stat", child.id());
    until(|| std::fs::read_to_string(&stat).expect("a stat").contains(") Z "));
    assert!(found(&spec(Who::Pid(child.id()), None)).is_empty());
    child.wait().expect("its end");
    assert!(found(&spec(Who::Pid(child.id()), None)).is_empty());
}

#[test]
fn the_parent_is_told_by_pid_or_by_command_line() {
    let (outer, inner) = (marker("outer"), marker("inner"));
    let shell = Shell::run(&Shell::worker(&inner), &outer);
    let inside = become_visible(&spec(command(&format!("^sh -c read.*{inner}$")), None), 1);
    for parent in [Who::Pid(shell.pid()), command(&format!("{outer}$"))] {
        assert_eq!(found(&spec(command(&format!("{inner}$")), Some(parent))), inside);
    }
    for stranger in [Who::Pid(std::process::id()), Who::Pid(0), command(&format!("^{inner}$"))] {
        assert!(found(&spec(command(&format!("{inner}$")), Some(stranger))).is_empty());
    }
}

#[test]
fn of_a_master_and_its_workers_the_master_is_found() {
    let marker = marker("master");
    let master = Shell::run(&Shell::worker(&marker).repeat(3), &marker);
    become_visible(&spec(command(&format!("^sh -c read.*{marker}")), Some(Who::Pid(master.pid()))), 3);
    assert_eq!(found(&spec(command(&marker), None)), [master.pid()]);
}

#[test]
fn several_that_are_alike_are_all_found() {
    let marker = marker("alike");
    let shells: Vec<Shell> = (0..40).map(|_| Shell::run("", &marker)).collect();
    let mut pids: Vec<u32> = shells.iter().map(Shell::pid).collect();
    pids.sort_unstable();
    assert_eq!(found(&spec(command(&marker), None)), pids);
}

#[test]
fn configbump_itself_is_never_found() {
    let own = std::process::id();
    assert!(found(&spec(Who::Pid(own), None)).is_empty());
    assert!(!found(&spec(command("."), None)).contains(&own));
}

#[test]
fn helpers_and_all_that_descend_from_them_are_never_found() {
    let marker = marker("helper");
    let helper = Shell::run(&Shell::worker(&marker), "helper");
    let spec = spec(command(&format!("^sh -c read.*{marker}$")), None);
    become_visible(&spec, 1);
    let pid = helper.pid();
    assert!(matches!(find(&spec, &move |helper| helper == pid), Err(BumpError::Waiting(_))));
}

#[test]
fn nobody_is_reported_with_what_was_looked_for() {
    let error = find(&spec(command("no such\nprogram"), Some(Who::Pid(0))), &nobody_helps).expect_err("nobody");
    let BumpError::Waiting(text) = error else { panic!("{error}") };
    assert!(
        text.starts_with(r"no process whose command line matches `no such\nprogram` and whose parent has PID 0"),
        "{text}"
    );
}

#[test]
fn where_nobody_else_is_to_be_seen_the_remedy_is_to_share_the_namespace() {
    let spec = spec(command("nginx"), None);
    let BumpError::Waiting(text) = nobody(&spec, true) else { panic!("this is no failure") };
    assert!(text.ends_with("share the process namespace of the pod (shareProcessNamespace: true)"), "{text}");
    let alone =
        view(&[(1, 0, "sh", false), (7, 1, "configbump", true), (8, 7, "sh", false), (9, 1, "configbump", true)]);
    assert!(alone.is_alone());
    let mut company = alone;
    company.processes.insert(12, seen(0, "pause", false));
    assert!(!company.is_alone());
}

#[test]
fn a_proc_that_hides_processes_is_recognised() {
    for (mounts, is) in [
        ("proc /proc proc rw,nosuid,hidepid=invisible 0 0", true),
        ("proc /proc proc rw,hidepid=2,gid=5 0 0", true),
        ("proc /proc proc rw,hidepid=off 0 0\n/dev/sda /data ext4 rw,hidepid=2 0 0", false),
        ("proc /proc proc rw,hidepid=2 0 0\nproc /proc proc rw 0 0", false),
        ("", false),
    ] {
        assert_eq!(has_hiding(mounts), is, "{mounts}");
    }
}

#[test]
fn a_folder_of_a_process_that_has_ended_says_so() {
    let shell = Shell::run("", &marker("folder"));
    let folder = Folder::open(shell.pid()).expect("a folder");
    assert!(folder.stat().is_ok() && folder.threads().is_ok_and(|threads| threads.len() == 1));
    drop(shell);
    assert!(matches!(folder.stat(), Err(folder::Obstacle::Gone)));
    assert!(matches!(folder.threads(), Err(folder::Obstacle::Gone)));
}

#[test]
fn a_start_is_told_in_the_time_of_the_batches() {
    let tick = Duration::from_millis(10);
    let before = BootTime::now();
    let shell = Shell::run("", &marker("start"));
    let after = BootTime::now();
    let [target] = &find(&spec(Who::Pid(shell.pid()), None), &nobody_helps).expect("a target")[..] else { panic!() };
    assert!(target.identity.started.0 + tick > before.0 && target.identity.started <= after);
}

#[test]
fn a_handle_is_refused_for_a_process_other_than_the_one_found() {
    let shell = Shell::run("", &marker("stale"));
    let [mut target] =
        <[_; 1]>::try_from(find(&spec(Who::Pid(shell.pid()), None), &nobody_helps).expect("one")).expect("one");
    let handle = Handle::open(&target).expect("a handle").expect("a process");
    let identity = target.identity;
    target.identity.started = BootTime(identity.started.0 + Duration::from_millis(10));
    assert!(Handle::open(&target).expect("an answer").is_none(), "a process that was started later is another");
    target.identity = identity;
    drop(shell);
    assert!(Handle::open(&target).expect("an answer").is_none());
    let signal = "HUP".parse().expect("a signal");
    assert_eq!(handle.send(signal, &target).expect("an answer"), Sent::Gone);
    assert_eq!(handle.handles(signal, &target).expect("an answer"), None);
    for pid in [0, u32::MAX] {
        target.identity.pid = pid;
        assert!(Handle::open(&target).expect("an answer").is_none());
    }
}

#[test]
fn a_bad_expression_is_refused_in_one_line_with_its_position() {
    for (text, column) in [
        ("nginx(", 6),
        ("(a)(b", 4),
        ("((a)(b", 1),
        ("nginx)", 6),
        ("*", 1),
        ("a|*", 3),
        ("x{2,1}", 6),
        (r"ä\p{L}", 3),
        ("(?=x)", 3),
        ("x[b-a]", 5),
        (" ", 1),
        ("", 1),
    ] {
        let error = parse_expression(text).expect_err(text);
        assert_eq!(error.column, column, "{text}: {error}");
        assert_eq!(error.to_string().lines().count(), 1);
    }
}

fn seen(parent: u32, name: &str, is_process: bool) -> Seen {
    let started = BootTime(Duration::ZERO);
    Seen { started, parent, name: name.to_owned(), is_process, is_parent: false, names_configbump: false }
}

/// Processes by PID, parent, name, and whether their command line matches; configbump has PID 7.
fn view(processes: &[(u32, u32, &str, bool)]) -> View {
    let processes = processes.iter().map(|&(pid, parent, name, is)| (pid, seen(parent, name, is)));
    View { own: 7, processes: processes.collect() }
}

fn chosen(view: &View, spec: &TargetSpec) -> Vec<u32> {
    view.choose(spec, &nobody_helps).into_iter().map(|target| target.identity.pid).collect()
}

#[test]
fn pids_have_no_bound_and_every_candidate_is_looked_at() {
    let view =
        view(&[(65_536, 1, "a", true), (70_000, 9, "a", true), (4_194_304, 0, "a", true), (7, 0, "configbump", true)]);
    let by_command = |parent| spec(command("x"), parent);
    assert_eq!(chosen(&view, &by_command(None)), [65_536, 70_000, 4_194_304]);
    assert_eq!(chosen(&view, &by_command(Some(Who::Pid(9)))), [70_000]);
    assert_eq!(chosen(&view, &by_command(Some(Who::Pid(0)))), [4_194_304]);
}

#[test]
fn another_configbump_is_found_by_pid_only() {
    let view = view(&[(7, 1, "configbump", true), (9, 0, "configbump", true), (12, 0, "nginx", true)]);
    assert_eq!(chosen(&view, &spec(command("x"), None)), [12]);
    assert_eq!(chosen(&view, &spec(Who::Pid(9), None)), [9, 12], "whatever the PID was matched with");
}

#[test]
fn what_has_started_configbump_with_its_options_is_found_by_pid_only() {
    // tini (3) runs a shell (5) that runs configbump; the target is a child of tini, and so not a mere worker of it.
    let mut view = view(&[(3, 0, "tini", true), (5, 3, "sh", true), (7, 5, "configbump", true), (9, 3, "nginx", true)]);
    assert_eq!(chosen(&view, &spec(command("x"), None)), [3], "an ancestor may be the target");
    for pid in [3, 5, 9] {
        view.processes.get_mut(&pid).expect("it is there").names_configbump = true;
    }
    assert_eq!(chosen(&view, &spec(command("x"), None)), [9], "whatever else names it");
    assert_eq!(chosen(&view, &spec(Who::Pid(3), None)), [3]);
}

#[test]
fn programs_below_wrappers_are_known() {
    let wrapped = |processes: &[(u32, u32, &str, bool)]| {
        let targets = view(processes).choose(&spec(command("x"), None), &nobody_helps);
        let pids = |targets: &[Target]| targets.iter().map(|target| target.identity.pid).collect::<Vec<_>>();
        (pids(&targets), targets.iter().flat_map(|target| pids(&target.wrapped)).collect::<Vec<_>>())
    };
    let nginx = [(3, 1, "sh", true), (5, 3, "timeout", true), (9, 5, "nginx", true), (10, 9, "nginx", true)];
    assert_eq!(wrapped(&nginx), (vec![3], vec![9]), "the nearest one, and not its worker");
    assert_eq!(wrapped(&nginx[2..]), (vec![9], vec![]), "a program is no wrapper");
    assert_eq!(wrapped(&[(3, 1, "sh", true), (5, 3, "sh", true)]), (vec![3], vec![]), "a fork looks like its parent");
}

fn any_view() -> impl Strategy<Value = View> {
    let seen =
        (0..20_u32, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(parent, process, is_parent, own)| {
            let name = if own { "configbump" } else { "a" };
            Seen { is_parent, ..seen(parent, name, process) }
        });
    prop::collection::btree_map(1..20_u32, seen, 0..20).prop_map(|processes| View { own: 7, processes })
}

proptest! {
    #[test]
    fn whatever_the_tree_only_what_may_be_told_is(view in any_view(), helper in 1..20_u32, parent in 0..20_u32) {
        let by_command = command("x");
        for (process, parent) in [
            (by_command.clone(), None),
            (by_command.clone(), Some(Who::Pid(parent))),
            (Who::Pid(3), Some(by_command)),
        ] {
            let spec = spec(process, parent);
            for target in view.choose(&spec, &|pid| pid == helper) {
                let pid = target.identity.pid;
                let seen = &view.processes[&pid];
                prop_assert!(seen.is_process && pid != view.own && pid != helper && seen.parent != helper);
                if let Some(Who::Pid(parent)) = spec.parent {
                    prop_assert_eq!(seen.parent, parent);
                }
            }
            view.is_alone();
        }
    }

    #[test]
    fn no_expression_is_too_strange(text in any::<String>()) {
        if let Err(error) = parse_expression(&text) {
            prop_assert!(error.column <= text.chars().count().max(1));
        }
    }
}

/// As the kernel writes them.
const PROC: [&str; 3] = [
    "42 (a (b) c) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 123456 1 2 3\n",
    "Name:\tx\nState:\tS\nPPid:\t1\nNSpid:\t42\t7\nUid:\t0\t0\t0\t0\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001000\nSigCgt:\t0000000180004002\n",
    "nginx: master process\0-g\0daemon off;\0",
];

#[test]
fn fuzz_what_proc_says_with_faults_is_read_or_passed_over() {
    bolero::check!().with_type::<Faults>().for_each(|faults| {
        let bytes = faulty(&PROC, faults);
        let _ = (parse::stat(&bytes, 100), parse::status(&bytes));
        assert_eq!(parse::command_line(&bytes).is_some(), !bytes.is_empty());
    });
}
