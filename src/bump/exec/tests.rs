use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex, PoisonError};

use tempfile::TempDir;

use super::*;
use crate::bump::BootTime;
use crate::default_signals::use_default_signals;
use crate::object::{Kind, ObjectKey};
use crate::path::RelPath;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// How long a test waits for what takes milliseconds on an idle machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn batch<'a>(changes: impl IntoIterator<Item = (&'a str, Effect)>) -> Result<Batch, crate::path::PathError> {
    let object =
        Arc::new(ObjectKey { kind: Kind::ConfigMap, namespace: "web".to_owned(), name: "routes \"1\"".to_owned() });
    let changes = changes
        .into_iter()
        .map(|(path, effect)| Ok((RelPath::parse(path)?, (effect, Arc::clone(&object)))))
        .collect::<Result<_, _>>()?;
    Ok(Batch { changes, complete_at: BootTime::now(), to_everybody: false, is_cut: false })
}

fn large_batch() -> Result<Batch, crate::path::PathError> {
    let paths: Vec<String> = (0..20_000).map(|number| format!("folder/file-{number:05}.yaml")).collect();
    batch(paths.iter().map(|path| (path.as_str(), Effect::Written)))
}

/// Runs the script with sh in the directory.
fn shell(dir: &TempDir, script: &str, timeout: Duration) -> Exec {
    use_default_signals();
    let script = format!("cd {{}} && {{ {script}\n}}");
    let command = ["sh", "-c", &script].map(str::to_owned).to_vec();
    Exec::new(ExecConfig { command, dir: dir.path().to_owned(), timeout })
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

#[tokio::test]
async fn output_without_end_keeps_nobody_waiting_and_is_cut_off_in_time() -> Outcome {
    let dir = TempDir::new()?;
    let log = Log::default();
    let _guard = log.catch();
    // The one writes lines, the other a line without an end.
    let exec = shell(&dir, "yes & exec tr '\\0' x </dev/zero >&2", Duration::from_secs(2));
    let batch = batch([])?;
    let mut turns = 0_u32;
    let others = async {
        loop {
            turns += 1;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let error = tokio::select! {
        ended = exec.bump(&batch) => text_of(ended),
        () = others => unreachable!("it has no end"),
    };
    assert!(error.contains("--exec-timeout"), "{error}");
    assert!(turns > 100, "others had {turns} turns");
    assert!(log.text().lines().count() <= 2 * (LINES_MAX + 1), "{}", log.text());
    assert!(log.text().len() < 200_000);
    Ok(())
}
