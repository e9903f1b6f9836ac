//! Signatures of JSON Web Tokens (RFC 7515, 7518, 8037): RS256, ES256 and `EdDSA` with Ed25519.
//!
//! A key has one algorithm, which is its own and never what a token says. So a public key is no HMAC secret, and no
//! algorithm `none` exists.

use std::fmt;

use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};

/// The least length of an RSA modulus, in bytes: 2048 bits.
const RSA_LEAST: usize = 256;
/// The length of a coordinate of P-256, and of a key of Ed25519.
const COORDINATE: usize = 32;

/// A public key that verifies signatures of one algorithm.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum JwsKey {
    /// RS256: modulus and exponent, big-endian, without leading zeros.
    Rsa(Vec<u8>, Vec<u8>),
    /// ES256: an uncompressed point.
    P256(Vec<u8>),
    /// `EdDSA`: a key of Ed25519.
    Ed25519(Vec<u8>),
}

impl fmt::Debug for JwsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwsKey({})", self.algorithm())
    }
}

impl JwsKey {
    /// A key of RSA; none when its modulus is shorter than 2048 bits.
    #[must_use]
    pub(crate) fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Self> {
        let bare = |number: &[u8]| -> Vec<u8> {
            let zeros = number.iter().take_while(|byte| **byte == 0).count();
            number.iter().skip(zeros).copied().collect()
        };
        let (modulus, exponent) = (bare(modulus), bare(exponent));
        (modulus.len() >= RSA_LEAST && !exponent.is_empty()).then_some(Self::Rsa(modulus, exponent))
    }

    /// A key on the curve P-256; none when a coordinate is not of 32 bytes.
    #[must_use]
    pub(crate) fn p256(x: &[u8], y: &[u8]) -> Option<Self> {
        let good = x.len() == COORDINATE && y.len() == COORDINATE;
        good.then(|| Self::P256([&[4], x, y].concat()))
    }

    /// A key of Ed25519; none when it is not of 32 bytes.
    #[must_use]
    pub(crate) fn ed25519(x: &[u8]) -> Option<Self> {
        (x.len() == COORDINATE).then(|| Self::Ed25519(x.to_vec()))
    }

    /// The algorithm, as a token's header names it.
    #[must_use]
    pub(crate) const fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa(..) => "RS256",
            Self::P256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    /// Whether the signature is this key's.
    #[must_use]
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let verified = match self {
            Self::Rsa(n, e) => RsaPublicKeyComponents { n, e }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            ),
            Self::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature),
        };
        verified.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    #[test]
    fn the_example_of_rfc_8037_verifies() {
        // RFC 8037, appendix A.4.
        let key = JwsKey::ed25519(&bytes("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")).unwrap();
        let message = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
        let signature = bytes(
            "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        );
        assert!(key.verifies(message, &signature));
        assert!(!key.verifies(b"another", &signature));
        assert_eq!(format!("{key:?}"), "JwsKey(EdDSA)");
    }

    #[test]
    fn the_example_of_rfc_7515_verifies_with_p_256() {
        // RFC 7515, appendix A.3.
        let x = bytes("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU");
        let y = bytes("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
        let key = JwsKey::p256(&x, &y).unwrap();
        let message = b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let signature = bytes(
            "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        );
        assert!(key.verifies(message, &signature));
    }

    #[test]
    fn short_and_wrong_keys_are_none() {
        assert!(JwsKey::rsa(&[0xff; 255], &[1, 0, 1]).is_none());
        assert!(JwsKey::rsa(&[[0; 1].as_slice(), &[0xff; 255]].concat(), &[1, 0, 1]).is_none());
        assert!(JwsKey::rsa(&[0xff; 256], &[0]).is_none());
        assert!(JwsKey::p256(&[1; 31], &[1; 32]).is_none());
        assert!(JwsKey::ed25519(&[1; 33]).is_none());
    }
}
