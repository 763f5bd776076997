//! Options that are taken, and those that are refused in one line.

use super::*;

fn refused(change: impl FnOnce(&mut UrlOptions)) -> String {
    let mut options = UrlOptions::new("http://127.0.0.1/");
    change(&mut options);
    match UrlConfig::new(options) {
        Ok(config) => format!("{config:?} was taken"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn ordinary_urls_are_taken_and_shown_without_their_query() -> Outcome {
    for (url, shown) in [
        ("http://127.0.0.1:9090/-/reload", "http://127.0.0.1:9090/-/reload"),
        (" https://[::1]:8443?a=b ", "https://[::1]:8443/"),
        ("HTTPS://example.com/a%20b?x#fragment", "https://example.com/a%20b"),
    ] {
        let config = UrlConfig::new(UrlOptions::new(url))?;
        assert_eq!(config.shown(), shown);
    }
    Ok(())
}

#[test]
fn urls_that_cannot_be_called_are_refused_without_their_secrets() {
    let example = "write one such as http://127.0.0.1:9090/-/reload";
    for (url, expected) in [
        ("", format!("`` is no URL: empty string; {example}")),
        ("/reload", format!("`/reload` is no URL of http or https; {example}")),
        ("example.com:80", format!("`example.com:80` is no URL of http or https; {example}")),
        ("ftp://example.com/", format!("`ftp://example.com/` is no URL of http or https; {example}")),
        ("http://:80/", format!("`http://:80/` has no usable host and port; {example}")),
        ("http://host:0/", format!("`http://host:0/` has no usable host and port; {example}")),
        ("http://a b/?secret", format!("`http://a b/` is no URL: invalid uri character; {example}")),
        (
            "http://jane:secret@host/?secret",
            "`http://…@host/` has credentials in it; put them into files, and name those with --url-user-file and \
             --url-password-file"
                .to_owned(),
        ),
    ] {
        assert_eq!(refused(|options| options.url = url.to_owned()), format!("--url: {expected}"));
    }
    for url in ["http://host:/", "http://host:99999/", "http:///path", "http://jane:sec ret@host/", "http://\u{1}/"] {
        let error = refused(|options| options.url = url.to_owned());
        assert!(error.starts_with("--url: `") && !error.contains("sec ret"), "{error}");
        assert!(!error.contains(char::is_control), "{error:?}");
    }
}

#[test]
fn other_wrong_options_are_refused_with_their_name_and_a_remedy() {
    let header = |text: &str| refused(|options| options.headers = vec![text.to_owned()]);
    for (error, expected) in [
        (
            refused(|options| options.method = Some("FETCH".to_owned())),
            "--url-method: `FETCH` is no method that it can use; write one of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
        ),
        (
            header("Authorization Bearer-secret"),
            "--url-header: `Authorization` has no colon after its name; write it as in 'Name: value'",
        ),
        (header("a b: secret"), "--url-header: `a b` cannot be the name of a header; write it as in 'Name: value'"),
        (header(": secret"), "--url-header: `` cannot be the name of a header; write it as in 'Name: value'"),
        (
            header("X-Key: sec\nret"),
            "--url-header: the value of `x-key` has a character that no header can carry; remove it",
        ),
        (header("Content-Length: 7"), "--url-header: `content-length` is set by configbump itself; leave it out"),
        (
            refused(|options| options.timeout = Duration::ZERO),
            "--url-timeout: 0 leaves no time for an answer; write one such as 10s",
        ),
        (
            refused(|options| options.password_file = Some("p".into())),
            "--url-password-file: it needs a user; give --url-user-file as well",
        ),
        (
            refused(|options| {
                options.user_file = Some("u".into());
                options.headers = vec!["authorization: Bearer secret".to_owned()];
            }),
            "--url-header: it sets Authorization, as --url-user-file does; leave one of them out",
        ),
        (
            refused(|options| {
                options.ca_file = Some("ca.pem".into());
                options.tls_verify = false;
            }),
            "--url-ca-file: it counts for nothing with --url-tls-verify=false; leave one of them out",
        ),
    ] {
        assert_eq!(error, expected);
    }
}
