//! Keys and certificates: those of an API server, made anew for every run, and those of servers that stand before it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;

/// The subjects of every serving certificate.
const NAMES: [&str; 2] = ["127.0.0.1", "localhost"];

/// The end of a certificate that does not end: it is far from the present.
pub const LAST_YEAR: i32 = 4000;

/// One that vouches for servers.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // Not that of the certificates that it signs: OpenSSL would take those for self-signed.
        parameters.distinguished_name.push(DnType::CommonName, "authority");
        Self(CertifiedIssuer::self_signed(parameters, key()).expect("a self-signed certificate"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate and its key, in PEM.
    fn serving(&self) -> (String, String) {
        let (certificate, key) = self.certify(LAST_YEAR);
        (certificate.pem(), key.serialize_pem())
    }

    /// The set-up of a server that this authority vouches for until the end of a year.
    pub fn server(&self, last_year: i32) -> Arc<ServerConfig> {
        let (certificate, key) = self.certify(last_year);
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions of TLS")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key.into());
        Arc::new(config.expect("a key and its certificate"))
    }

    fn certify(&self, last_year: i32) -> (rcgen::Certificate, KeyPair) {
        let key = key();
        let mut parameters = CertificateParams::new(NAMES.map(str::to_owned)).expect("names of servers");
        parameters.not_after = rcgen::date_time_ymd(last_year, 12, 31);
        (parameters.signed_by(&key, &self.0).expect("a serving certificate"), key)
    }
}

/// Writes `serving.pem` and `serving.key` for 127.0.0.1 and localhost, `accounts.key` and `accounts.pub` for
/// service-account tokens, and gives the certificate of the authority that vouches for the first.
pub fn write(folder: &Path) -> String {
    let authority = Authority::new();
    let (serving, serving_key) = authority.serving();
    let accounts_key = key();
    for (name, pem) in [
        ("serving.pem", serving),
        ("serving.key", serving_key),
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
