use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::process::kill_process;
use tempfile::TempDir;

use super::*;
use crate::bump::BootTime;
use crate::object::{Kind, ObjectKey};
use crate::path::RelPath;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// How long a test waits for what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a command that shall be ended may take to get ready for that.
const ENOUGH: Duration = Duration::from_secs(2);

fn batch<'a>(changes: impl IntoIterator<Item = (&'a str, Effect)>) -> Result<Batch, crate::path::PathError> {
    let object =
        Arc::new(ObjectKey { kind: Kind::ConfigMap, namespace: "web".to_owned(), name: "routes \"1\"".to_owned() });
    let changes = changes
        .into_iter()
        .map(|(path, effect)| Ok((RelPath::parse(path)?, (effect, Arc::clone(&object)))))
        .collect::<Result<_, _>>()?;
    Ok(Batch { changes, complete_at: BootTime::now() })
}

fn large_batch() -> Result<Batch, crate::path::PathError> {
    let paths: Vec<String> = (0..20_000).map(|number| format!("folder/file-{number:05}.yaml")).collect();
    batch(paths.iter().map(|path| (path.as_str(), Effect::Written)))
}

/// Runs the script with sh in the directory.
fn shell(dir: &TempDir, script: &str, timeout: Duration) -> Exec {
    let script = format!("cd {{}} && {{ {script}\n}}");
    let command = ["sh", "-c", &script].map(str::to_owned).to_vec();
    Exec::new(ExecConfig { command, dir: dir.path().to_owned(), timeout })
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

fn text_of(error: Result<(), BumpError>) -> String {
    match error {
        Ok(()) => "success".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// The log of this thread, until the guard goes.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn catch(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let writer = move || log.clone();
        let layer = tracing_subscriber::fmt().with_writer(writer).with_ansi(false).without_time().with_target(false);
        tracing::subscriber::set_default(layer.finish())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Write::write(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
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
fn braces_in_a_word_stand_for_the_directory() {
    let dir = Path::new("/etc/a b");
    for (word, expected) in [("{}", "/etc/a b"), ("-c={}/x:{}", "-c=/etc/a b/x:/etc/a b"), ("{ }{", "{ }{"), ("", "")] {
        assert_eq!(filled(word, dir), expected);
    }
}

#[tokio::test]
async fn the_command_gets_the_batch_in_its_environment_and_on_its_input() -> Outcome {
    let dir = TempDir::new()?;
    let exec = shell(
        &dir,
        "env | grep ^CONFIG_BUMP_ | sort >env; printf %s \"$CONFIG_BUMP_CHANGED\" >changed; cat >input",
        PATIENCE,
    );
    let batch = batch([("a.yaml", Effect::Written), ("sub/ü b", Effect::Removed)])?;
    assert_eq!(exec.bump(&batch).await, Ok(()));

    let path = dir.path().display();
    let changed = format!("{path}/a.yaml\n{path}/sub/ü b");
    assert_eq!(fs::read_to_string(dir.path().join("changed"))?, changed);
    let env = format!("CONFIG_BUMP_CHANGED={path}/a.yaml\nCONFIG_BUMP_DIR={path}\nCONFIG_BUMP_EVENT=change\n");
    assert_eq!(fs::read_to_string(dir.path().join("env"))?, env);
    let input = fs::read_to_string(dir.path().join("input"))?;
    let lines: Vec<serde_json::Value> = input.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let line = |path: String, event: &str| json!({"path": path, "event": event, "kind": "ConfigMap", "namespace": "web", "name": "routes \"1\""});
    assert_eq!(lines, [line(format!("{path}/a.yaml"), "written"), line(format!("{path}/sub/ü b"), "removed")]);
    Ok(())
}

#[tokio::test]
async fn a_relative_directory_is_handed_over_as_an_absolute_one() -> Outcome {
    let out = TempDir::new()?;
    let file = out.path().join("out");
    let script = format!("printf %s \"$CONFIG_BUMP_DIR $CONFIG_BUMP_CHANGED\" >{}", file.display());
    let command = ["sh", "-c", &script].map(str::to_owned).to_vec();
    let exec = Exec::new(ExecConfig { command, dir: PathBuf::from("some/where"), timeout: PATIENCE });
    assert_eq!(exec.bump(&batch([("a", Effect::Written)])?).await, Ok(()));
    let here = std::env::current_dir()?;
    let here = here.display();
    assert_eq!(fs::read_to_string(file)?, format!("{here}/some/where {here}/some/where/a"));
    Ok(())
}

#[tokio::test]
async fn a_large_batch_is_whole_on_the_input_and_cut_in_the_environment() -> Outcome {
    let dir = TempDir::new()?;
    let exec = shell(&dir, "cat >input; env >env", PATIENCE);
    assert_eq!(exec.bump(&large_batch()?).await, Ok(()));
    assert_eq!(fs::read_to_string(dir.path().join("input"))?.lines().count(), 20_000);
    let env = fs::read_to_string(dir.path().join("env"))?;
    assert!(env.contains("CONFIG_BUMP_CHANGED_TRUNCATED=true\n"));
    let path = dir.path().display().to_string();
    let changed: Vec<&str> = env.lines().filter(|line| line.contains("/folder/file-")).collect();
    let bytes: usize = changed.iter().map(|line| line.len() + 1).sum();
    assert!(bytes > CHANGED_BYTES_MAX / 2 && bytes < CHANGED_BYTES_MAX + "CONFIG_BUMP_CHANGED=".len() + 1, "{bytes}");
    // Whole paths only.
    assert!(changed.iter().skip(1).all(|line| line.len() == path.len() + "/folder/file-00000.yaml".len()));
    Ok(())
}

#[tokio::test]
async fn a_command_need_not_read_its_input() -> Outcome {
    let dir = TempDir::new()?;
    for script in ["true", "exec <&-; true", "head -n 1 >/dev/null"] {
        let exec = shell(&dir, script, PATIENCE);
        assert_eq!(exec.bump(&large_batch()?).await, Ok(()), "{script}");
    }
    Ok(())
}

#[tokio::test]
async fn what_it_leaves_in_the_background_is_neither_waited_for_nor_killed() -> Outcome {
    let dir = TempDir::new()?;
    let exec = shell(&dir, "sleep 600 & echo $! >pid.new; mv pid.new pid; echo done", PATIENCE);
    let start = Instant::now();
    assert_eq!(exec.bump(&large_batch()?).await, Ok(()));
    assert!(start.elapsed() < PATIENCE);
    let background = number_in(&dir, "pid").ok_or("no pid")?;
    assert!(runs(background));
    kill_process(background, Signal::KILL)?;
    Ok(())
}

#[tokio::test]
async fn a_failure_says_which_command_and_how() -> Outcome {
    let dir = TempDir::new()?;
    let batch = batch([("a", Effect::Written)])?;
    for (script, expected) in [
        ("exit 3", "--exec: `sh` ended with exit code 3; the log has what it wrote"),
        ("kill -KILL $$", "--exec: `sh` was ended by signal 9"),
    ] {
        assert_eq!(text_of(shell(&dir, script, PATIENCE).bump(&batch).await), expected);
    }
    let no_program = dir.path().join("plain");
    fs::write(&no_program, "#!/bin/sh\n")?;
    fs::set_permissions(&no_program, fs::Permissions::from_mode(0o644))?;
    let no_interpreter = dir.path().join("script");
    fs::write(&no_interpreter, "#!/no/such/interpreter\n")?;
    fs::set_permissions(&no_interpreter, fs::Permissions::from_mode(0o755))?;
    for (program, expected) in [
        ("no-such-program", "`no-such-program` was not found"),
        ("{}/script", "/script` was not found, or what its first line names"),
        ("{}/plain", "/plain` may not be executed"),
    ] {
        let command = vec![program.to_owned(), "argument".to_owned()];
        let exec = Exec::new(ExecConfig { command, dir: dir.path().to_owned(), timeout: PATIENCE });
        let error = text_of(exec.bump(&batch).await);
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_command_that_ignores_term_is_killed_with_all_that_it_started() -> Outcome {
    let dir = TempDir::new()?;
    let script = "trap '' TERM; sleep 600 & echo $! >pid.new; mv pid.new pid; wait";
    let exec = shell(&dir, script, ENOUGH);
    let error = text_of(exec.bump(&large_batch()?).await);
    let expected = "--exec: `sh` did not end within 2s and was killed; see what it waits for, or raise --exec-timeout";
    assert_eq!(error, expected);
    let grandchild = number_in(&dir, "pid").ok_or("no pid")?;
    until("the end of the grandchild", || !runs(grandchild)).await;
    Ok(())
}

#[tokio::test]
async fn a_command_whose_time_is_up_is_asked_to_end_first() -> Outcome {
    let dir = TempDir::new()?;
    let log = Log::default();
    let _guard = log.catch();
    let script = "trap 'echo good bye; exit 0' TERM; while :; do sleep 0.01; done";
    let error = text_of(shell(&dir, script, ENOUGH).bump(&batch([])?).await);
    assert!(error.contains("did not end within 2s"), "{error}");
    assert!(log.text().contains("`sh` stdout: good bye\n"), "{}", log.text());
    Ok(())
}

#[tokio::test]
async fn dropping_the_bump_kills_the_command_and_all_that_it_started() -> Outcome {
    let dir = TempDir::new()?;
    let script = "trap '' TERM; sleep 600 & echo $! >pid.new; mv pid.new pid; echo $$ >own.new; mv own.new own; wait";
    let exec = shell(&dir, script, PATIENCE);
    let batch = batch([("a", Effect::Written)])?;
    tokio::select! {
        outcome = exec.bump(&batch) => panic!("it ended: {outcome:?}"),
        () = until("the command's numbers", || number_in(&dir, "own").is_some()) => {}
    }
    for name in ["pid", "own"] {
        let pid = number_in(&dir, name).ok_or("no pid")?;
        until("its end", || !runs(pid)).await;
    }
    Ok(())
}

#[tokio::test]
async fn its_output_goes_to_the_log_within_bounds() -> Outcome {
    let dir = TempDir::new()?;
    let log = Log::default();
    let _guard = log.catch();
    let script = "printf 'a\\033[1mb\\n' >&2; seq 1 5000; printf 'no end of line' >&2";
    assert_eq!(shell(&dir, script, PATIENCE).bump(&batch([])?).await, Ok(()));
    let text = log.text();
    for line in [
        "`sh` stderr: a [1mb",
        "`sh` stderr: no end of line",
        "`sh` stdout: 100",
        "`sh` stdout: (4900 more lines are left out)",
    ] {
        assert!(text.lines().any(|logged| logged.trim() == format!("INFO {line}")), "{line} in {text}");
    }
    assert_eq!(text.lines().count(), 103);
    Ok(())
}
