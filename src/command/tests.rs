use std::fs;
use std::future::Future;
use std::time::Instant;

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use super::*;
use crate::default_signals::use_default_signals;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// How long a test waits for what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a command that shall be ended may take to get ready for that.
const ENOUGH: Duration = Duration::from_secs(2);

/// More than fits into a pipe.
const LINES: usize = 100_000;

/// Runs the script with sh in the directory.
fn shell(dir: &TempDir, script: &str, limit: Duration) -> Command {
    use_default_signals();
    let script = format!("cd {{}} && {{ {script}\n}}");
    Command::new(&["sh", "-c", &script].map(str::to_owned), dir.path(), limit)
}

/// Runs it with this input: what it wrote, if it succeeded, a line each with its stream.
async fn heard(command: &Command, input: impl Iterator<Item = String>) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    let ended = command.run(input, |stream, line| lines.push(format!("{stream} {line}"))).await;
    ended.map(|()| lines).map_err(|failure| failure.to_string())
}

fn numbers() -> impl Iterator<Item = String> {
    (0..LINES).map(|number| format!("{number}\n"))
}

fn nothing() -> impl Iterator<Item = String> {
    std::iter::empty()
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Reads the number that a script leaves in a file by `mv`, hence whole.
fn number_in(dir: &TempDir, name: &str) -> Option<Pid> {
    let text = fs::read_to_string(dir.path().join(name)).ok()?;
    Pid::from_raw(text.trim().parse().ok()?)
}

/// Whether the process runs; one that only waits for being reaped does not.
fn runs(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}

#[test]
fn a_command_is_split_as_a_shell_does() {
    for (text, expected) in [
        ("nginx -s reload", vec!["nginx", "-s", "reload"]),
        ("  sh -c 'a \"b\" $c' ", vec!["sh", "-c", "a \"b\" $c"]),
        (r#"a "" b\ c "d'e" {}/x"#, vec!["a", "", "b c", "d'e", "{}/x"]),
    ] {
        assert_eq!(parse(text), Ok(expected.into_iter().map(str::to_owned).collect()), "{text}");
    }
    for (text, expected) in [
        ("", "`` names no command; write one such as 'nginx -s reload'"),
        ("\t\n", "`` names no command; write one such as 'nginx -s reload'"),
        ("'' a", "`'' a` names no command; write one such as 'nginx -s reload'"),
        ("echo 'a\nb", "`echo 'a b` has a quote that is never closed; close it, or write \\ before it"),
    ] {
        assert_eq!(parse(text), Err(expected.to_owned()));
    }
}

#[test]
fn braces_in_a_word_stand_for_the_path() {
    let dir = Path::new("/etc/a b");
    for (word, expected) in [("{}", "/etc/a b"), ("-c={}/x:{}", "-c=/etc/a b/x:/etc/a b"), ("{ }{", "{ }{"), ("", "")] {
        assert_eq!(filled(word, dir), expected);
    }
}

#[tokio::test]
async fn it_gets_the_input_and_both_of_its_streams_are_heard() -> Outcome {
    let dir = TempDir::new()?;
    let command = shell(&dir, "tail -n 1; echo \"$ADDED ${CARGO_MANIFEST_DIR-none}\" >&2; printf 'no end'", PATIENCE);
    let mut lines = heard(&command.with("ADDED", "yes").without("CARGO_MANIFEST_DIR"), numbers()).await?;
    lines.sort();
    assert_eq!(lines, ["stderr yes none", "stdout 99999", "stdout no end"]);
    Ok(())
}

#[tokio::test]
async fn it_need_not_read_its_input() -> Outcome {
    let dir = TempDir::new()?;
    for script in ["true", "exec <&-; true", "head -n 1 >/dev/null"] {
        assert_eq!(heard(&shell(&dir, script, PATIENCE), numbers()).await, Ok(vec![]), "{script}");
    }
    Ok(())
}

#[tokio::test]
async fn what_it_leaves_in_the_background_is_neither_waited_for_nor_killed() -> Outcome {
    let dir = TempDir::new()?;
    for (script, expected) in
        [("exit 0", Ok(vec!["stdout done".to_owned()])), ("exit 5", Err("ended with exit code 5".to_owned()))]
    {
        // It holds all three of the pipes.
        let script = format!("sleep 600 & echo $! >pid.new; mv pid.new pid; echo done; {script}");
        let start = Instant::now();
        assert_eq!(heard(&shell(&dir, &script, PATIENCE), numbers()).await, expected);
        assert!(start.elapsed() < PATIENCE);
        let background = number_in(&dir, "pid").ok_or("no pid")?;
        assert!(runs(background));
        kill_process(background, Signal::KILL)?;
    }
    Ok(())
}

#[tokio::test]
async fn one_that_ignores_term_is_killed_with_all_that_it_started() -> Outcome {
    let dir = TempDir::new()?;
    let script = "trap '' TERM; sleep 600 & echo $! >pid.new; mv pid.new pid; wait";
    let error = heard(&shell(&dir, script, ENOUGH), numbers()).await;
    assert_eq!(error, Err("did not end within 2s and was killed".to_owned()));
    let grandchild = number_in(&dir, "pid").ok_or("no pid")?;
    until("the end of the grandchild", || !runs(grandchild)).await;
    Ok(())
}

#[tokio::test]
async fn one_whose_time_is_up_is_asked_to_end_first_and_so_are_its_children() -> Outcome {
    let dir = TempDir::new()?;
    // The command itself ends at once.
    let child = "trap 'sleep 0.5; echo good bye; exit' TERM; : >ready; while :; do sleep 0.01; done";
    fs::write(dir.path().join("child"), child)?;
    let script = "sh child & until [ -e ready ]; do sleep 0.01; done; wait";
    let mut tail = Tail::new(1000);
    let ended = shell(&dir, script, ENOUGH).run(nothing(), |_, line| tail.push(line)).await;
    assert!(matches!(ended, Err(Failure::TimedOut(limit)) if limit == ENOUGH), "{ended:?}");
    // Before it, the shell may have told of the end of its `sleep`.
    assert_eq!(tail.lines().last(), Some("good bye"));
    Ok(())
}

#[tokio::test]
async fn one_that_nobody_waits_for_any_more_is_killed_with_all_that_it_started() -> Outcome {
    let dir = TempDir::new()?;
    let script = "trap '' TERM; sleep 600 & echo $! >pid.new; mv pid.new pid; echo $$ >own.new; mv own.new own; wait";
    let command = shell(&dir, script, PATIENCE);
    tokio::select! {
        outcome = heard(&command, nothing()) => panic!("it ended: {outcome:?}"),
        () = until("the command's numbers", || number_in(&dir, "own").is_some()) => {}
    }
    for name in ["pid", "own"] {
        let pid = number_in(&dir, name).ok_or("no pid")?;
        until("its end", || !runs(pid)).await;
    }
    Ok(())
}

#[test]
fn it_can_be_awaited_on_any_thread() {
    fn is_send(_: impl Future + Send) {}
    is_send(Command::new(&["true".to_owned()], Path::new("/"), PATIENCE).run(nothing(), |_, _| {}));
}
