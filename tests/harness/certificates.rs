//! Keys and certificates: those of an API server, made anew for every run, and those of servers that stand before it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::workspace::Workspace;

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

/// Makes certificates in the directory, from a curve of the authority, the hash of its signatures and a curve of the others.
const MAKE: &str = r#"
    cd "$1"
    request() {
        openssl ecparam -genkey -name "$2" -out "$1.key"
        openssl req -new -key "$1.key" -subj "$3" -out "$1.csr"
        echo "$4" >"$1.ext"
    }
    sign() { name=$1; shift; openssl x509 -req "-$hash" -days 36500 -in $name.csr -extfile $name.ext -out $name.pem "$@"; }
    hash=$3
    request ca "$2" /CN=authority basicConstraints=critical,CA:TRUE
    sign ca -signkey ca.key
    request server "$4" /CN=server subjectAltName=DNS:localhost,IP:127.0.0.1
    sign server -CA ca.pem -CAkey ca.key -CAcreateserial
    request client "$4" /O=system:masters/CN=jane extendedKeyUsage=clientAuth
    sign client -CA ca.pem -CAkey ca.key -CAcreateserial
    openssl pkcs8 -topk8 -nocrypt -in client.key -out client.pkcs8.key
"#;

/// Makes certificates that rcgen cannot make, and returns their directory. `ca.pem` vouches for `server.pem`, which is for
/// localhost and 127.0.0.1, and for `client.pem`, whose user may do everything. The client's key is there as SEC 1
/// (`client.key`) and as PKCS #8 (`client.pkcs8.key`).
pub fn write_ecdsa(workspace: &Workspace, authority: &str, hash: &str, curve: &str) -> PathBuf {
    let folder = workspace.fresh("certificates");
    fs::create_dir(&folder).expect("a folder");
    let mut make = Command::new("sh");
    make.args(["-ec", MAKE, "sh"]).arg(&folder).args([authority, hash, curve]).stdin(Stdio::null());
    let made = make.output().expect("sh starts");
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    folder
}

/// Returns the set-up of a server with `server.pem` of the directory, whose key is on P-256.
pub fn ecdsa_server(folder: &Path) -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_file(folder.join("server.pem")).expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key);
    Arc::new(config.expect("a key and its certificate"))
}

fn key() -> KeyPair {
    KeyPair::generate().expect("a key pair")
}
