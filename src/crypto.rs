//! Algorithms of TLS: those of ring, and the ECDSA algorithms that Go's TLS client accepts but ring lacks.
//!
//! ring knows P-256 and P-384 with SHA-256 and SHA-384, and no P-521. Certificates in clusters use the others too: an
//! authority may sign with SHA-512, and the key of a server, an authority or a user may be on P-521.

use std::sync::{Arc, LazyLock};

use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::signature::hazmat::PrehashVerifier as _;
use p521::ecdsa::DerSignature;
use rustls::crypto::{CryptoProvider, KeyProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, PrivateKeyDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer,
    alg_id,
};
use rustls::sign::{Signer, SigningKey, public_key_to_spki};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// Returns the algorithms. They become those of the process as well, because kube takes them from there.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        let mut provider = ring::default_provider();
        provider.signature_verification_algorithms = with_ecdsa(&provider.signature_verification_algorithms);
        provider.key_provider = &Keys;
        // A program that uses this library may have installed its own before.
        let _ = provider.clone().install_default();
        Arc::new(provider)
    });
    Arc::clone(&PROVIDER)
}

/// Adds what is in [`MISSING`]. The lists must be static; this is called once.
fn with_ecdsa(known: &WebPkiSupportedAlgorithms) -> WebPkiSupportedAlgorithms {
    type Algorithms = Vec<&'static dyn SignatureVerificationAlgorithm>;
    let missing = |scheme: SignatureScheme| -> Algorithms {
        let of_scheme = MISSING.iter().filter(|algorithm| algorithm.hash.scheme() == scheme);
        of_scheme.map(|algorithm| algorithm as &dyn SignatureVerificationAlgorithm).collect()
    };
    let mut all = known.all.to_vec();
    all.extend(MISSING.iter().map(|algorithm| algorithm as &dyn SignatureVerificationAlgorithm));
    let mut mapping: Vec<_> = known
        .mapping
        .iter()
        .map(|&(scheme, algorithms)| (scheme, &*[algorithms, &missing(scheme)].concat().leak()))
        .collect();
    let last = SignatureScheme::ECDSA_NISTP521_SHA512;
    mapping.push((last, missing(last).leak()));
    WebPkiSupportedAlgorithms { all: all.leak(), mapping: mapping.leak() }
}

/// The verification of ECDSA signatures with one curve and one hash.
struct Ecdsa {
    key: AlgorithmIdentifier,
    hash: Hash,
    verify: Verify,
}

/// Takes a public key (SEC 1), a digest and a signature (DER). `None`: the signature is not by that key.
type Verify = fn(&[u8], &[u8], &[u8]) -> Option<()>;

#[derive(Clone, Copy, Debug)]
enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

macro_rules! verify {
    ($curve:ident) => {
        |key, digest, signature| {
            let signature = $curve::ecdsa::DerSignature::from_bytes(signature).ok()?;
            $curve::ecdsa::VerifyingKey::from_sec1_bytes(key).ok()?.verify_prehash(digest, &signature).ok()
        }
    };
}

/// The algorithms that ring lacks. TLS 1.3 takes the first with the scheme of its hash, so P-521 comes first.
static MISSING: [Ecdsa; 5] = [
    Ecdsa { key: alg_id::ECDSA_P521, hash: Hash::Sha512, verify: verify!(p521) },
    Ecdsa { key: alg_id::ECDSA_P521, hash: Hash::Sha384, verify: verify!(p521) },
    Ecdsa { key: alg_id::ECDSA_P521, hash: Hash::Sha256, verify: verify!(p521) },
    Ecdsa { key: alg_id::ECDSA_P384, hash: Hash::Sha512, verify: verify!(p384) },
    Ecdsa { key: alg_id::ECDSA_P256, hash: Hash::Sha512, verify: verify!(p256) },
];

impl Hash {
    /// Returns the scheme with this hash. TLS 1.3 ties a curve to it as well, TLS 1.2 does not.
    fn scheme(self) -> SignatureScheme {
        match self {
            Self::Sha256 => SignatureScheme::ECDSA_NISTP256_SHA256,
            Self::Sha384 => SignatureScheme::ECDSA_NISTP384_SHA384,
            Self::Sha512 => SignatureScheme::ECDSA_NISTP521_SHA512,
        }
    }

    fn digest(self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(message).to_vec(),
            Self::Sha384 => Sha384::digest(message).to_vec(),
            Self::Sha512 => Sha512::digest(message).to_vec(),
        }
    }
}

impl std::fmt::Debug for Ecdsa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ecdsa").field("key", &self.key).field("hash", &self.hash).finish_non_exhaustive()
    }
}

impl SignatureVerificationAlgorithm for Ecdsa {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        (self.verify)(public_key, &self.hash.digest(message), signature).ok_or(InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.key
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        match self.hash {
            Hash::Sha256 => alg_id::ECDSA_SHA256,
            Hash::Sha384 => alg_id::ECDSA_SHA384,
            Hash::Sha512 => alg_id::ECDSA_SHA512,
        }
    }
}

/// The keys of client certificates: those that ring can use, and those on P-521.
#[derive(Debug)]
struct Keys;

impl KeyProvider for Keys {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        match p521::SecretKey::from_der(key.secret_der()) {
            Ok(key) => Ok(Arc::new(P521Key(Arc::new(key.into())))),
            Err(_) => ring::default_provider().key_provider.load_private_key(key),
        }
    }
}

/// A private key on P-521. Its `Debug` shows nothing of it.
#[derive(Clone, Debug)]
struct P521Key(Arc<p521::ecdsa::SigningKey>);

impl SigningKey for P521Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        offered.contains(&self.scheme()).then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        let point = self.0.verifying_key().to_sec1_point(false);
        Some(public_key_to_spki(&alg_id::ECDSA_P521, point))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for P521Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature: DerSignature = self.0.try_sign(message).map_err(|error| Error::General(error.to_string()))?;
        Ok(signature.as_bytes().to_vec())
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP521_SHA512
    }
}

#[cfg(test)]
mod tests {
    use p256::ecdsa::signature::hazmat::PrehashSigner as _;

    use super::*;

    /// Signs a digest by a key of that curve: the public key, and the signature.
    fn signed(curve: AlgorithmIdentifier, digest: &[u8]) -> (Vec<u8>, Vec<u8>) {
        macro_rules! signed {
            ($curve:ident, $bytes:literal) => {{
                let key = $curve::ecdsa::SigningKey::from_slice(&[1; $bytes]).expect("a key");
                let signature: $curve::ecdsa::DerSignature = key.sign_prehash(digest).expect("a signature");
                (key.verifying_key().to_sec1_point(false).as_bytes().to_vec(), signature.as_bytes().to_vec())
            }};
        }
        match curve {
            alg_id::ECDSA_P256 => signed!(p256, 32),
            alg_id::ECDSA_P384 => signed!(p384, 48),
            _ => signed!(p521, 65),
        }
    }

    #[test]
    fn a_signature_is_accepted_for_its_key_and_message_only() {
        for algorithm in &MISSING {
            let (key, signature) = signed(algorithm.key, &algorithm.hash.digest(b"message"));
            let verify = |key: &[u8], message: &[u8], signature: &[u8]| {
                algorithm.verify_signature(key, message, signature).is_ok()
            };
            assert!(verify(&key, b"message", &signature), "{algorithm:?}");
            assert!(!verify(&key, b"another", &signature), "{algorithm:?}");
            assert!(!verify(&key, b"message", &signature[1..]) && !verify(&key, b"message", b""), "{algorithm:?}");
            assert!(!verify(&key[1..], b"message", &signature) && !verify(b"", b"message", &signature));
            let (_, by_another) = signed(algorithm.key, &algorithm.hash.digest(b"another"));
            assert!(!verify(&key, b"message", &by_another), "{algorithm:?}");
        }
    }

    #[test]
    fn every_curve_has_every_hash() {
        let all = provider().signature_verification_algorithms;
        for key in [alg_id::ECDSA_P256, alg_id::ECDSA_P384, alg_id::ECDSA_P521] {
            for hash in [alg_id::ECDSA_SHA256, alg_id::ECDSA_SHA384, alg_id::ECDSA_SHA512] {
                let is_it = |algorithm: &&dyn SignatureVerificationAlgorithm| {
                    algorithm.public_key_alg_id() == key && algorithm.signature_alg_id() == hash
                };
                assert_eq!(all.all.iter().filter(|algorithm| is_it(algorithm)).count(), 1, "{key:?} {hash:?}");
                let of_schemes = all.mapping.iter().flat_map(|(_, algorithms)| *algorithms);
                assert_eq!(of_schemes.filter(|algorithm| is_it(algorithm)).count(), 1, "{key:?} {hash:?}");
            }
        }
    }

    /// TLS 1.3 takes the first algorithm of a scheme, which must have the scheme's curve.
    #[test]
    fn the_first_algorithm_of_a_scheme_has_its_curve() {
        let mapping = provider().signature_verification_algorithms.mapping;
        for (scheme, key) in [
            (SignatureScheme::ECDSA_NISTP256_SHA256, alg_id::ECDSA_P256),
            (SignatureScheme::ECDSA_NISTP384_SHA384, alg_id::ECDSA_P384),
            (SignatureScheme::ECDSA_NISTP521_SHA512, alg_id::ECDSA_P521),
        ] {
            let found = mapping.iter().find(|(known, _)| *known == scheme).expect("the scheme");
            assert_eq!(found.1[0].public_key_alg_id(), key, "{scheme:?}");
        }
    }
}
