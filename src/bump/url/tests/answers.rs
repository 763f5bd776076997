//! What is sent, and what each kind of answer comes to.

use std::fs;
use std::net::TcpListener;
use std::time::Instant;

use tempfile::TempDir;

use super::*;

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_url_alone_is_got_and_the_connection_closed() -> Outcome {
    let server = Server::start(DONE, None)?;
    let port = server.port;
    assert_eq!(call(UrlOptions::new(&server.url("/-/reload?a=b"))).await?, "success");
    let told = server.told().await?;
    assert!(told.head.starts_with("GET /-/reload?a=b HTTP/1.1\n"), "{told:?}");
    assert_eq!(told.header("host"), Some(format!("127.0.0.1:{port}").as_str()));
    assert_eq!(told.header("user-agent"), Some(AGENT));
    assert_eq!(told.header("connection"), Some("close"));
    assert_eq!(told.header("authorization"), None);
    assert!(told.closed, "{told:?}");
    Ok(())
}

#[tokio::test]
async fn method_body_headers_and_credentials_arrive() -> Outcome {
    let dir = TempDir::new()?;
    let (user, password) = (dir.path().join("user"), dir.path().join("password"));
    fs::write(&user, "  jane\n")?;
    fs::write(&password, "pa:ß word\r\n")?;
    let server = Server::start(DONE, None)?;
    let mut options = UrlOptions::new(&format!("http://localhost:{}", server.port));
    options.method = Some("put".to_owned());
    options.body = Some("{\"force\": true}\n".to_owned());
    options.headers =
        ["X-One:  1 ", "x-one: 2", "Content-Type: application/json", "User-Agent: me", "Host: example.com"]
            .map(str::to_owned)
            .to_vec();
    options.user_file = Some(user);
    options.password_file = Some(password.clone());
    assert_eq!(call(options.clone()).await?, "success");
    let told = server.told().await?;
    assert!(told.head.starts_with("PUT / HTTP/1.1\n"), "{told:?}");
    assert_eq!(told.body, "{\"force\": true}\n");
    for line in ["x-one: 1", "x-one: 2", "content-type: application/json", "user-agent: me", "host: example.com"] {
        assert!(told.head.lines().any(|known| known.eq_ignore_ascii_case(line)), "{line}: {told:?}");
    }
    assert_eq!(told.head.to_ascii_lowercase().matches("user-agent").count(), 1);
    let basic = |both: &str| format!("Basic {}", BASE64_STANDARD.encode(both));
    assert_eq!(told.header("authorization"), Some(basic("jane:pa:ß word").as_str()));

    // The files are read at each call.
    fs::write(&password, "rotated")?;
    let server = Server::start(DONE, None)?;
    options.url = server.url("/");
    assert_eq!(call(options).await?, "success");
    assert_eq!(server.told().await?.header("authorization"), Some(basic("jane:rotated").as_str()));
    Ok(())
}

#[tokio::test]
async fn a_body_is_posted_unless_something_else_is_asked_for() -> Outcome {
    let server = Server::start(DONE, None)?;
    let mut options = UrlOptions::new(&server.url("/"));
    options.body = Some("text".to_owned());
    assert_eq!(call(options).await?, "success");
    let told = server.told().await?;
    assert!(told.head.starts_with("POST / ") && told.body == "text", "{told:?}");
    Ok(())
}

#[tokio::test]
async fn only_a_status_of_two_hundred_and_some_is_success() -> Outcome {
    let remedy = "check --url, --url-method, --url-header and --url-body";
    let credentials = "check --url-user-file, --url-password-file and --url-header";
    for (status, body, expected) in [
        ("200 OK", "done", "success".to_owned()),
        ("202 Accepted", "", "success".to_owned()),
        ("302 Found", "", "302 Found; redirects are not followed: write the URL that it leads to".to_owned()),
        ("401 Unauthorized", "who?", format!("401 Unauthorized (who?); {credentials}")),
        ("404 Not Found", "no\x1b such\npage\n", format!("404 Not Found (no  such page); {remedy}")),
        ("429 Too Many Requests", "", "429 Too Many Requests".to_owned()),
        ("500 Internal Server Error", "\r\n", "500 Internal Server Error".to_owned()),
        ("503 Service Unavailable", &"ä".repeat(9000), format!("503 Service Unavailable ({}…)", "ä".repeat(200))),
    ] {
        let server = Server::start(&answer(status, body), None)?;
        let shown = server.url("/x");
        let outcome = call(UrlOptions::new(&shown)).await?;
        let expected = if expected == "success" { expected } else { format!("--url: {shown} answered {expected}") };
        assert_eq!(outcome, expected);
    }
    let server = Server::start("HTTP/1.1 204 No Content\r\n\r\n", None)?;
    assert_eq!(call(UrlOptions::new(&server.url("/x"))).await?, "success");
    Ok(())
}

#[tokio::test]
async fn a_refusal_that_does_not_end_is_told_nevertheless() -> Outcome {
    let server = Server::start("HTTP/1.1 400 Bad Request\r\nContent-Length: 1000\r\n\r\nbroken", None)?;
    let outcome = call(UrlOptions::new(&server.url("/"))).await?;
    assert!(outcome.contains(" answered 400 Bad Request (broken); "), "{outcome}");
    assert!(server.told().await?.closed);
    Ok(())
}

#[tokio::test]
async fn nobody_there_is_a_failure() -> Outcome {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let outcome = call(UrlOptions::new(&format!("http://127.0.0.1:{port}/x?secret"))).await?;
    assert!(outcome.starts_with(&format!("--url: http://127.0.0.1:{port}/x could not be called: ")), "{outcome}");
    assert!(outcome.contains("onnection refused") && !outcome.contains("secret"), "{outcome}");
    Ok(())
}

#[tokio::test]
async fn no_answer_and_nonsense_are_failures() -> Outcome {
    let short = Duration::from_millis(500);
    for (timeout, answer, expected) in [
        (short, "", "did not answer within 500ms; see what keeps it, or raise --url-timeout"),
        (
            short,
            "HTTP/1.1 200 OK\r\nX-Unended: ",
            "did not answer within 500ms; see what keeps it, or raise --url-timeout",
        ),
        (PATIENCE, "220 mail.example.com ESMTP\r\n\r\n", "could not be called: "),
    ] {
        let server = Server::start(answer, None)?;
        let mut options = UrlOptions::new(&server.url("/x"));
        options.timeout = timeout;
        let start = Instant::now();
        let outcome = call(options).await?;
        assert!(outcome.starts_with(&format!("--url: {} {expected}", server.url("/x"))), "{outcome}");
        assert!(start.elapsed() < PATIENCE);
        // The connection does not outlive the call.
        assert!(server.told().await?.closed, "{answer:?}");
    }
    Ok(())
}

#[tokio::test]
async fn unreadable_credentials_are_a_failure_without_a_call() -> Outcome {
    let dir = TempDir::new()?;
    let user = dir.path().join("user");
    let mut options = UrlOptions::new("http://127.0.0.1:1/");
    options.user_file = Some(user.clone());
    let missing = call(options.clone()).await?;
    assert!(missing.contains("was not called: --url-user-file: `") && missing.contains("No such file"), "{missing}");
    fs::write(&user, "a:b")?;
    let colon = call(options.clone()).await?;
    assert!(colon.contains("has a colon") && !colon.contains("a:b"), "{colon}");
    options.user_file = Some(dir.path().to_owned());
    let folder = call(options).await?;
    assert!(folder.contains("it is no regular file"), "{folder}");
    Ok(())
}

#[tokio::test]
async fn an_error_never_shows_what_was_sent() -> Outcome {
    let dir = TempDir::new()?;
    let (user, password) = (dir.path().join("user"), dir.path().join("password"));
    fs::write(&user, "jane")?;
    fs::write(&password, "hunter2")?;
    let encoded = BASE64_STANDARD.encode("jane:hunter2");
    let secrets = [
        "hunter2",
        "token=topsecret",
        "topsecret",
        "{\"key\": \"bodysecret\"}",
        "bodysecret",
        "headersecret",
        "a-sh-ort-one",
        "4z1q",
        &encoded,
    ];
    for secret in secrets {
        for status in ["400 Bad Request", "401 Unauthorized", "500 Internal Server Error"] {
            let server = Server::start(&answer(status, &format!("no: {secret} is wrong")), None)?;
            let mut options = UrlOptions::new(&server.url("/x?token=topsecret"));
            options.body = Some("{\"key\": \"bodysecret\"}".to_owned());
            options.headers = ["X-Key: Bearer headersecret", "X-Token: Token a-sh-ort-one", "X-Pin: pin=4z1q"]
                .map(str::to_owned)
                .to_vec();
            options.user_file = Some(user.clone());
            options.password_file = Some(password.clone());
            let debug = format!("{:?}", UrlConfig::new(options.clone())?);
            let outcome = call(options).await?;
            assert!(outcome.contains(&format!("/x answered {status} (no:)")), "{outcome}");
            for text in [outcome, debug] {
                assert!(!secrets.iter().any(|secret| text.contains(secret)), "{text}");
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn where_secrets_are_followed_an_error_shows_nothing_of_an_answer() -> Outcome {
    for shows in [true, false] {
        let server = Server::start(&answer("400 Bad Request", "bad line: key=hunter2"), None)?;
        let mut config = UrlConfig::new(UrlOptions::new(&server.url("/")))?;
        if !shows {
            config.keep_answers();
        }
        let error = Url::new(config).call().await.err().map(|trouble| match trouble {
            Trouble::Nobody(why) | Trouble::Call(why) | Trouble::Files(why) => why,
        });
        let error = error.ok_or("it was refused")?;
        assert!(error.contains("400") && error.contains("hunter2") == shows, "{error}");
    }
    Ok(())
}
