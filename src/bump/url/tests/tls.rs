//! Whom a call over TLS trusts.

use std::fs;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;

use super::*;

/// The set-up of a server, and in PEM what a client needs to trust it.
struct Identity {
    server: Arc<ServerConfig>,
    trust: String,
}

fn server(certificate: &CertificateDer<'static>, key: &KeyPair) -> Result<Arc<ServerConfig>, Box<dyn Error>> {
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key.into())?;
    Ok(Arc::new(config))
}

/// A server that an authority vouches for, for these names.
fn vouched_for(names: &[&str]) -> Result<Identity, Box<dyn Error>> {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let certificate = CertificateParams::new(names)?.signed_by(&key, &authority)?;
    Ok(Identity { server: server(certificate.der(), &key)?, trust: authority.pem() })
}

/// A server that vouches for itself, for 127.0.0.1.
fn self_signed(is_ca: IsCa, year_of_end: i32) -> Result<Identity, Box<dyn Error>> {
    let key = KeyPair::generate()?;
    let mut parameters = CertificateParams::new(["127.0.0.1".to_owned()])?;
    parameters.is_ca = is_ca;
    parameters.not_after = rcgen::date_time_ymd(year_of_end, 1, 1);
    let certificate = parameters.self_signed(&key)?;
    Ok(Identity { server: server(certificate.der(), &key)?, trust: certificate.pem() })
}

/// Calls a server of this identity with this host in the URL, after a change of the options.
async fn call_tls(
    identity: &Identity,
    host: &str,
    change: impl FnOnce(&mut UrlOptions),
) -> Result<(String, Option<Told>), Box<dyn Error>> {
    let server = Server::start(DONE, Some(Arc::clone(&identity.server)))?;
    let mut options = UrlOptions::new(&format!("https://{host}:{}/x", server.port));
    options.body = Some("a body".to_owned());
    change(&mut options);
    let outcome = call(options).await?;
    let told = server.told().await?;
    Ok((outcome, Some(told).filter(|told| !told.head.is_empty())))
}

#[tokio::test]
async fn a_server_is_verified_by_the_authorities_in_the_file() -> Outcome {
    let dir = TempDir::new()?;
    let file = dir.path().join("ca.pem");
    let identity = vouched_for(&["127.0.0.1", "localhost"])?;
    let other = vouched_for(&["127.0.0.1"])?;
    // One of several.
    fs::write(&file, format!("# theirs\n{}\n# ours\n{}", other.trust, identity.trust))?;
    for host in ["127.0.0.1", "localhost"] {
        let (outcome, told) = call_tls(&identity, host, |options| options.ca_file = Some(file.clone())).await?;
        assert_eq!(outcome, "success");
        let told = told.ok_or("it was not called")?;
        assert!(told.body == "a body" && told.closed, "{told:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_not_verified_gets_nothing() -> Outcome {
    let dir = TempDir::new()?;
    let (own, other) = (dir.path().join("own.pem"), dir.path().join("other.pem"));
    let identity = vouched_for(&["127.0.0.1"])?;
    fs::write(&own, &identity.trust)?;
    fs::write(&other, vouched_for(&["127.0.0.1"])?.trust)?;
    let remedy = "; name a file of the authority that signed it with --url-ca-file";
    for (host, file, end) in [("127.0.0.1", other, remedy), ("localhost", own, "")] {
        let (outcome, told) = call_tls(&identity, host, |options| options.ca_file = Some(file)).await?;
        assert!(outcome.contains("could not be called: invalid peer certificate: "), "{outcome}");
        assert!(outcome.ends_with(end) && outcome.contains("--url-ca-file") != end.is_empty(), "{outcome}");
        assert!(told.is_none(), "{told:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_system_does_not_trust_a_server_of_ours() -> Outcome {
    let server = Server::start(DONE, Some(vouched_for(&["127.0.0.1"])?.server))?;
    let outcome = call(UrlOptions::new(&format!("https://127.0.0.1:{}/x", server.port))).await?;
    // Whether it trusts others or nobody.
    assert!(outcome.contains(" with --url-ca-file"), "{outcome}");
    Ok(())
}

#[tokio::test]
async fn anybody_is_taken_when_that_is_asked_for() -> Outcome {
    for identity in [vouched_for(&["example.com"])?, self_signed(IsCa::NoCa, 2001)?] {
        let (outcome, told) = call_tls(&identity, "localhost", |options| options.tls_verify = false).await?;
        assert_eq!(outcome, "success");
        assert!(told.is_some_and(|told| told.body == "a body"));
    }
    Ok(())
}

#[tokio::test]
async fn a_self_signed_server_is_known_by_its_own_certificate() -> Outcome {
    let dir = TempDir::new()?;
    let file = dir.path().join("server.pem");
    for is_ca in [IsCa::NoCa, IsCa::ExplicitNoCa, IsCa::Ca(BasicConstraints::Unconstrained)] {
        let identity = self_signed(is_ca, 4000)?;
        fs::write(&file, &identity.trust)?;
        for (host, is_known) in [("127.0.0.1", true), ("localhost", false)] {
            let (outcome, told) = call_tls(&identity, host, |options| options.ca_file = Some(file.clone())).await?;
            assert_eq!((outcome == "success", told.is_some()), (is_known, is_known), "{is_ca:?} {outcome}");
        }
        let late = self_signed(is_ca, 2001)?;
        fs::write(&file, &late.trust)?;
        let (outcome, told) = call_tls(&late, "127.0.0.1", |options| options.ca_file = Some(file.clone())).await?;
        assert!(outcome.contains("expired") && told.is_none(), "{is_ca:?} {outcome}");
    }
    Ok(())
}

#[tokio::test]
async fn a_file_without_authorities_is_told() -> Outcome {
    let dir = TempDir::new()?;
    let file = dir.path().join("ca.pem");
    for (pem, expected) in [
        (None, "cannot be read: No such file"),
        (Some(""), "has no certificate in it"),
        (Some("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"), "is no PEM file"),
        (
            Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
            "has a certificate that cannot be used",
        ),
    ] {
        if let Some(pem) = pem {
            fs::write(&file, pem)?;
        }
        let mut options = UrlOptions::new("https://127.0.0.1:1/");
        options.ca_file = Some(file.clone());
        let outcome = call(options).await?;
        assert!(outcome.contains("was not called: --url-ca-file: `") && outcome.contains(expected), "{outcome}");
    }
    Ok(())
}
