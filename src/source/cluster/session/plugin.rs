//! The credential plugins of kubeconfigs: programs that print a token or a client certificate (`exec`, in the
//! `client.authentication.k8s.io` API).
//!
//! kube can run them, but it runs them twice for each client, without a time limit, on the thread of the caller. Its
//! errors repeat the program's output and environment, which are secret.

use std::process::{Output, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};

use crate::child::start_awaited;

use super::super::report::printable;

/// Limits the time of a plugin, which may have to ask a distant server. configbump kills it then.
const TIME_LIMIT: Duration = Duration::from_secs(30);

/// Limits the output of a plugin on each stream, in bytes. A certificate with its chain and its key has a few thousand.
const OUTPUT_BYTES_MAX: u64 = 256 * 1024;

/// The part of a plugin's output that configbump uses.
#[derive(Deserialize)]
struct Credential {
    #[serde(default)]
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

/// Runs the plugin, if there is one, and replaces it by its output. As with kubectl, a token or a password in the
/// kubeconfig comes first. The error is one line without secrets.
pub(super) async fn log_in(auth: &mut AuthInfo) -> Result<(), String> {
    if auth.auth_provider.as_ref().is_some_and(|provider| provider.config.contains_key("cmd-path")) {
        return Err("a command of an auth-provider is not supported, as in kubectl since 1.26; use exec".to_owned());
    }
    let written = auth.token.is_some() || (auth.username.is_some() && auth.password.is_some());
    let Some(exec) = auth.exec.take().filter(|_| !written) else { return Ok(()) };
    let name = exec.command.as_deref().unwrap_or_default();
    let status = run(&exec, TIME_LIMIT).await.map_err(|why| format!("the credential plugin {name:?} {why}"))?;
    auth.token = status.token.map(Into::into);
    if let (Some(certificate), Some(key)) = (status.client_certificate_data, status.client_key_data) {
        auth.client_certificate_data = Some(STANDARD.encode(certificate));
        auth.client_key_data = Some(STANDARD.encode(key).into());
    }
    Ok(())
}

/// Runs the plugin until it ends or its time is over. The error describes the end.
async fn run(exec: &ExecConfig, limit: Duration) -> Result<Status, String> {
    if exec.interactive_mode == Some(ExecInteractiveMode::Always) {
        return Err("wants to ask at a terminal, and there is none here".to_owned());
    }
    let mut command = command(exec);
    let cannot_start = |error| format!("cannot be started: {error}");
    let (mut plugin, _awaited) = start_awaited(move || command.spawn(), Child::id).map_err(cannot_start)?;
    match tokio::time::timeout(limit, output(&mut plugin)).await {
        Ok(output) => read(&output?),
        Err(_) => Err(format!("did not end within {} s", limit.as_secs())),
    }
}

/// Reads both streams until the plugin ends. Dropping a plugin that prints too much kills it.
async fn output(plugin: &mut Child) -> Result<Output, String> {
    let (stdout, stderr) = (plugin.stdout.take(), plugin.stderr.take());
    let (stdout, stderr) = tokio::try_join!(all(stdout), all(stderr))?;
    let status = plugin.wait().await.map_err(|error| format!("cannot be waited for: {error}"))?;
    Ok(Output { status, stdout, stderr })
}

async fn all(stream: Option<impl AsyncRead + Unpin>) -> Result<Vec<u8>, String> {
    let mut printed = Vec::new();
    if let Some(stream) = stream {
        let read = stream.take(OUTPUT_BYTES_MAX + 1).read_to_end(&mut printed).await;
        read.map_err(|error| format!("cannot be read: {error}"))?;
    }
    if printed.len() as u64 > OUTPUT_BYTES_MAX {
        return Err(format!("printed more than {OUTPUT_BYTES_MAX} bytes"));
    }
    Ok(printed)
}

fn command(exec: &ExecConfig) -> Command {
    let mut command = Command::new(exec.command.as_deref().unwrap_or_default());
    command.args(exec.args.iter().flatten());
    for variable in exec.env.iter().flatten() {
        if let (Some(name), Some(value)) = (variable.get("name"), variable.get("value")) {
            command.env(name, value);
        }
    }
    let cluster = exec.cluster.as_ref().filter(|_| exec.provide_cluster_info);
    let mut info = json!({
        "apiVersion": exec.api_version, "kind": "ExecCredential", "spec": { "interactive": false },
    });
    if let Some(cluster) = cluster {
        info["spec"]["cluster"] = json!(cluster);
    }
    command.env("KUBERNETES_EXEC_INFO", info.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

fn read(output: &Output) -> Result<Status, String> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = printable(&said.split_whitespace().collect::<Vec<_>>().join(" "));
        return Err(format!("ended with {}: {said}", output.status));
    }
    // client-go accepts YAML too. The parser's error could repeat the text, which is secret.
    let credential: Credential =
        serde_saphyr::from_slice(&output.stdout).map_err(|_| "printed no ExecCredential".to_owned())?;
    let status = credential.status.ok_or("printed an ExecCredential without a status")?;
    match (&status.token, &status.client_certificate_data, &status.client_key_data) {
        (Some(_), None, None) | (_, Some(_), Some(_)) => Ok(status),
        _ => Err("printed neither a token nor a certificate with its key".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn shell(script: &str) -> ExecConfig {
        ExecConfig {
            api_version: Some("client.authentication.k8s.io/v1".to_owned()),
            command: Some("sh".to_owned()),
            args: Some(vec!["-c".to_owned(), script.to_owned()]),
            env: Some(vec![
                [("name".to_owned(), "GIVEN".to_owned()), ("value".to_owned(), "secret-given".to_owned())].into(),
            ]),
            ..ExecConfig::default()
        }
    }

    async fn outcome(exec: &ExecConfig) -> Result<Status, String> {
        run(exec, Duration::from_secs(20)).await
    }

    #[tokio::test]
    async fn a_plugin_gets_its_variables_and_gives_a_token_or_a_certificate() {
        let token = r#"printf '{"kind":"ExecCredential","status":{"token":"%s","expirationTimestamp":null}}' "$GIVEN""#;
        assert_eq!(outcome(&shell(token)).await.ok().and_then(|status| status.token).as_deref(), Some("secret-given"));
        let yaml = r"printf 'status: {clientCertificateData: c, clientKeyData: k}'";
        let status = outcome(&shell(yaml)).await.ok();
        assert_eq!(status.and_then(|status| status.client_key_data).as_deref(), Some("k"));
        let told = r#"case "$KUBERNETES_EXEC_INFO" in
            *'"interactive":false'*) echo 'status: {token: told}';; *) exit 1;; esac"#;
        assert!(outcome(&shell(told)).await.is_ok());
    }

    #[tokio::test]
    async fn an_error_is_one_line_without_what_was_printed_or_given() {
        let cases = [
            ("echo secret-out; echo 'no login:\n\u{1b}[31mnot you' >&2; exit 3", "exit status: 3: no login:"),
            ("echo 'secret-out: [\"'", "no ExecCredential"),
            ("echo 'status: [secret-out]'", "no ExecCredential"),
            ("echo 'token: secret-out'", "without a status"),
            ("echo 'status: {clientKeyData: secret-out}'", "neither"),
            ("kill -9 $$", "signal: 9"),
        ];
        for (script, expected) in cases {
            let mut auth = AuthInfo { exec: Some(shell(script)), ..AuthInfo::default() };
            let error = log_in(&mut auth).await.expect_err(script);
            assert!(error.contains("\"sh\"") && error.contains(expected), "{script}: {error}");
            assert!(!error.contains("secret") && !error.contains(char::is_control), "{script}: {error}");
        }
        let missing = ExecConfig { command: Some("/nowhere/plugin".to_owned()), ..shell("") };
        assert!(outcome(&missing).await.is_err_and(|error| error.contains("cannot be started")));
        let asking = ExecConfig { interactive_mode: Some(ExecInteractiveMode::Always), ..shell("") };
        assert!(outcome(&asking).await.is_err_and(|error| error.contains("terminal")));
    }

    #[tokio::test]
    async fn a_plugin_that_prints_without_end_is_given_up_at_once() {
        for stream in ["1", "2"] {
            let error = outcome(&shell(&format!("exec cat /dev/zero >&{stream}"))).await.err();
            assert_eq!(error.as_deref(), Some("printed more than 262144 bytes"));
        }
    }

    #[tokio::test]
    async fn a_plugin_that_hangs_is_given_up() {
        let began = Instant::now();
        let error = run(&shell("exec sleep 1000"), Duration::from_secs(1)).await.err();
        assert_eq!(error.as_deref(), Some("did not end within 1 s"));
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test]
    async fn a_token_that_is_written_down_makes_the_plugin_superfluous() {
        let mut auth =
            AuthInfo { token: Some("t".to_owned().into()), exec: Some(shell("exit 1")), ..AuthInfo::default() };
        assert_eq!(log_in(&mut auth).await, Ok(()));
    }
}
