//! The keys and certificates of an API server, made anew for every run.

use std::fs;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

/// Writes `serving.pem` and `serving.key` for 127.0.0.1 and localhost, `accounts.key` and `accounts.pub` for
/// service-account tokens, and gives the certificate of the authority that vouches for the first.
pub fn write(folder: &Path) -> String {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, key()).expect("a self-signed certificate");

    let serving_key = key();
    let serving = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()])
        .and_then(|parameters| parameters.signed_by(&serving_key, &authority))
        .expect("a serving certificate");
    let accounts_key = key();

    for (name, pem) in [
        ("serving.pem", serving.pem()),
        ("serving.key", serving_key.serialize_pem()),
        ("accounts.key", accounts_key.serialize_pem()),
        ("accounts.pub", accounts_key.public_key_pem()),
    ] {
        fs::write(folder.join(name), pem).expect("a temporary folder takes a file");
    }
    authority.pem()
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key pair")
}
