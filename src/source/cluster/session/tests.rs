use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;

const SERVER: &str = "https://127.0.0.1:1";

/// A kubeconfig's contexts, by name, server and namespace.
fn kubeconfig(current: &str, contexts: &[(&str, &str, &str)], user: &str) -> String {
    let mut text = format!("current-context: {current}\nusers: [{{name: u, user: {user}}}]\n");
    let each = |entry: &dyn Fn(&(&str, &str, &str)) -> String| contexts.iter().map(entry).collect::<String>();
    text += "clusters:\n";
    text += &each(&|(name, server, _)| format!("- {{name: {name}, cluster: {{server: '{server}'}}}}\n"));
    text += "contexts:\n";
    text += &each(&|(name, _, namespace)| {
        format!("- {{name: {name}, context: {{cluster: {name}, user: u, namespace: {namespace}}}}}\n")
    });
    text
}

fn main_at(server: &str, user: &str) -> String {
    kubeconfig("main", &[("main", server, "here")], user)
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("a temporary folder takes a file");
}

async fn opened(path: &Path) -> Result<(Session, String), SessionError> {
    Session::open(&ClusterConfig { kubeconfig: Some(path.to_owned()), context: None, tls_verify: false, events: false })
        .await
}

async fn number(session: &Session) -> Result<u64, SessionError> {
    session.client().await.map(|lent| lent.number)
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_again_replaces_no_client_that_works() {
    let folder = folder();
    let path = folder.path().join("kubeconfig");
    write(&path, &main_at(SERVER, "{token: t}"));
    let (session, _) = opened(&path).await.expect("a session");
    write(&path, "clusters: [");
    assert_eq!(number(&session).await.ok(), Some(0));
    tokio::time::advance(CREDENTIALS_AGE_MAX * 2).await;
    assert_eq!(number(&session).await.ok(), Some(0), "it is old, and works");

    session.doubt(0).await;
    assert!(number(&session).await.is_err(), "it failed");
    write(&path, &main_at(SERVER, "{token: t}"));
    tokio::time::advance(RENEWAL_PAUSE).await;
    assert_eq!(number(&session).await.ok(), Some(1));
    tokio::time::advance(CREDENTIALS_AGE_MAX / 2).await;
    assert_eq!(number(&session).await.ok(), Some(1), "it is young");
    tokio::time::advance(CREDENTIALS_AGE_MAX).await;
    assert_eq!(number(&session).await.ok(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn followers_that_fail_together_renew_the_client_once() {
    let folder = folder();
    let path = folder.path().join("kubeconfig");
    write(&path, &main_at(SERVER, "{token: t}"));
    let (session, _) = opened(&path).await.expect("a session");
    session.doubt(0).await;
    assert_eq!(number(&session).await.ok(), Some(1));
    session.doubt(0).await;
    assert_eq!(number(&session).await.ok(), Some(1), "another one failed before");

    session.doubt(1).await;
    fs::remove_file(&path).expect("the kubeconfig");
    assert!(number(&session).await.is_err());
    write(&path, &main_at(SERVER, "{token: t}"));
    assert!(number(&session).await.is_err(), "that was tried just now");
    tokio::time::advance(RENEWAL_PAUSE).await;
    assert_eq!(number(&session).await.ok(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn the_context_stays_the_one_of_the_start_and_its_server_may_move() {
    let folder = folder();
    let path = folder.path().join("kubeconfig");
    write(&path, &main_at(SERVER, "{token: t}"));
    let (session, namespace) = opened(&path).await.expect("a session");
    assert_eq!(namespace, "here");
    let moved = "https://127.0.0.1:2";
    let both = [("other", "https://127.0.0.1:3", "there"), ("main", moved, "here")];
    write(&path, &kubeconfig("other", &both, "{token: t}"));
    session.doubt(0).await;
    assert_eq!(session.client().await.map(|lent| lent.server).ok(), Some(Uri::from_static("https://127.0.0.1:2/")));

    write(&path, &kubeconfig("other", &both[..1], "{token: t}"));
    session.doubt(1).await;
    let error = number(&session).await.expect_err("main is gone");
    assert!(matches!(&error, SessionError::Context { context, .. } if context == "main"), "{error}");
}

#[tokio::test]
async fn an_error_repeats_nothing_of_the_kubeconfig() {
    let folder = folder();
    let path = folder.path().join("kubeconfig");
    for text in [
        main_at(SERVER, "{token: secret-token"),
        main_at(SERVER, "{token: [secret-token]}"),
        main_at(SERVER, "secret-token"),
        main_at(SERVER, "{token: t, client-key-data: secret-key, client-certificate-data: secret}"),
        format!("{}\n  token: secret-token: x", main_at(SERVER, "{}")),
    ] {
        write(&path, &text);
        let error = opened(&path).await.err().expect(&text).to_string();
        assert!(!error.contains("secret") && !error.contains('\n'), "{error}");
    }
}

#[tokio::test]
async fn a_namespace_that_can_be_none_is_refused() {
    let folder = folder();
    let path = folder.path().join("kubeconfig");
    for namespace in ["a/b", "'a?b'", "Upper", "'../x'"] {
        write(&path, &kubeconfig("main", &[("main", SERVER, namespace)], "{token: t}"));
        let error = opened(&path).await.err().expect(namespace);
        assert!(error.is_usage() && error.to_string().contains(namespace.trim_matches('\'')), "{error}");
    }
    write(&path, &kubeconfig("main", &[("main", SERVER, "''")], "{token: t}"));
    assert_eq!(opened(&path).await.expect("a session").1, "default");
}

#[tokio::test]
async fn a_token_file_counts_and_the_token_beside_it_only_if_it_cannot_be_read() {
    let folder = folder();
    let (path, token) = (folder.path().join("kubeconfig"), folder.path().join("token"));
    let config = ClusterConfig { kubeconfig: Some(path.clone()), context: None, tls_verify: true, events: false };
    let read = async || {
        let (config, _) = Origin::find(&config)?.read().await?;
        let headers = kube::client::ConfigExt::auth_layer(&config);
        assert!(headers.is_ok_and(|layer| layer.is_some()));
        assert!(config.auth_info.token_file.is_none());
        // A secret shows itself only when written out again.
        let text = serde_json::to_value(&config.auth_info).expect("it can be written");
        Ok::<_, SessionError>(text["token"].as_str().unwrap_or_default().to_owned())
    };
    write(&path, &main_at(SERVER, "{token: beside, tokenFile: token}"));
    assert_eq!(read().await.expect("a token"), "beside");
    write(&token, " \n");
    assert_eq!(read().await.expect("a token"), "beside");
    write(&token, "in-file\n");
    assert_eq!(read().await.expect("a token"), "in-file");
    write(&path, &main_at(SERVER, "{tokenFile: token}"));
    assert_eq!(read().await.expect("a token"), "in-file");
    fs::remove_file(&token).expect("the token");
    assert!(read().await.is_err_and(|error| error.to_string().contains("token")));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_answers_is_told_from_one_that_is_refused() {
    let folder = folder();
    let path = folder.path().join("kubeconfig");
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
    let address = socket.local_addr().expect("a bound socket");
    write(&path, &main_at(&format!("http://{address}"), "{token: t}"));
    let (session, _) = opened(&path).await.expect("a session");
    let refused = session.get("/").await;
    assert!(matches!(refused, Err(SendError::Transport(_))), "{refused:?}");

    let listener = socket.listen(1).expect("a listener");
    // The kernel takes no more than fit, and then answers nobody.
    let mut waiting = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        waiting.push(stream);
        assert!(waiting.len() < 10, "the kernel takes them all");
    }
    let swallowed = session.get("/").await;
    assert!(matches!(swallowed, Err(SendError::Unreachable(_))), "{swallowed:?}");
    drop(listener);
}
