//! Whom a call trusts.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, client, server,
};
use rustls_native_certs::CertificateResult;

use super::options::{UrlConfig, read, shown};
use crate::crypto;

/// What a file of authorities may have, in bytes; those of the systems have a quarter of it.
const CA_BYTES_MAX: u64 = 1024 * 1024;

/// The set-up of TLS for one call. Authorities are read only for https, and not kept.
pub(super) fn config(config: &UrlConfig) -> Result<ClientConfig, String> {
    let provider = crypto::provider();
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    if !config.is_https() {
        return Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth());
    }
    if !config.tls_verify {
        let verifier = Arc::new(Anybody(provider));
        return Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth());
    }
    let Some(file) = &config.ca_file else {
        return Ok(builder
            .with_root_certificates(usable(rustls_native_certs::load_native_certs())?)
            .with_no_client_auth());
    };
    let verifier = Arc::new(Known::new(file, provider).map_err(|why| format!("--url-ca-file: {} {why}", shown(file)))?);
    Ok(builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// The authorities that the system trusts: those of `SSL_CERT_FILE` and `SSL_CERT_DIR`, else those of the distribution.
/// An image from scratch has none.
fn usable(found: CertificateResult) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if !roots.is_empty() {
        return Ok(roots);
    }
    let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
    Err(format!(
        "there are no certificates of authorities here to verify it with{why}; give a file of them with --url-ca-file"
    ))
}

/// Those whom an authority in a file vouches for, and those whose own certificate is in it. The latter is what a server
/// with a self-signed certificate takes: webpki accepts none as its own authority.
#[derive(Debug)]
struct Known {
    authorities: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
}

impl Known {
    fn new(file: &Path, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let pem = read(file, CA_BYTES_MAX).map_err(|error| format!("cannot be read: {error}; name a readable file"))?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        let certificates = certificates.map_err(|error| format!("is no PEM file: {error}"))?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots
                .add(certificate.clone())
                .map_err(|error| format!("has a certificate that cannot be used: {error}"))?;
        }
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|_| "has no certificate in it; name a PEM file that has one".to_owned())?;
        Ok(Self { authorities, certificates })
    }
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let outcome = self.authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match outcome {
            // This is how it says that an authority is no server, which it does once the dates are found to be right and
            // before it looks at the name.
            Err(Error::InvalidCertificate(CertificateError::Other(_))) if self.certificates.contains(end_entity) => {
                let certificate = server::ParsedCertificate::try_from(end_entity)?;
                client::verify_server_name(&certificate, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            outcome => outcome,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// Everybody, because the user asked for that.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_any_authority_the_option_that_names_some_is_told() {
        let error = usable(CertificateResult::default()).map(|_| ()).unwrap_err();
        assert!(error.ends_with("give a file of them with --url-ca-file"), "{error}");
    }
}
