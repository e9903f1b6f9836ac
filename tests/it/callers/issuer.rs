//! An issuer of JSON Web Tokens: its keys, its key set, and tokens as they should be or as a forger would have them.

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA512, RsaKeyPair,
};
use serde_json::{Value, json};

/// A key of tests alone: it signs nothing else.
const RSA_KEY: &str = include_str!("rsa_key_of_tests.b64");

pub(super) const ISSUER: &str = "https://issuer.example";
pub(super) const AUDIENCE: &str = "rekey";

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Unix seconds.
pub(super) fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

pub(super) struct Issuer {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
    random: SystemRandom,
}

impl Issuer {
    /// With fresh keys, but for RSA's.
    pub(super) fn new() -> Self {
        let random = SystemRandom::new();
        let p256 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let rsa = STANDARD.decode(RSA_KEY.trim_end()).unwrap();
        Self {
            rsa: RsaKeyPair::from_pkcs8(&rsa).unwrap(),
            p256: EcdsaKeyPair::from_pkcs8(
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                p256.as_ref(),
                &random,
            )
            .unwrap(),
            ed25519: Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).unwrap(),
            random,
        }
    }

    /// The keys `rsa`, `p256` and `ed`, beside some that are none of ours.
    pub(super) fn key_set(&self) -> Value {
        let rsa: PublicKeyComponents<Vec<u8>> = self.rsa.public().into();
        let point = self.p256.public_key().as_ref();
        json!({"keys": [
            {"kty": "RSA", "kid": "rsa", "alg": "RS256", "use": "sig", "n": encode(rsa.n), "e": encode(rsa.e)},
            {"kty": "EC", "kid": "p256", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..])},
            {"kty": "OKP", "kid": "ed", "crv": "Ed25519", "alg": "EdDSA", "x": encode(self.ed25519.public_key())},
            {"kty": "oct", "kid": "oct", "k": encode("a secret of 32 bytes, or so it is")},
            {"kty": "EC", "kid": "enc", "use": "enc", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..])},
            {"kty": "RSA", "kid": "rsa512", "alg": "RS512", "n": "AQAB", "e": "AQAB"},
        ]})
    }

    /// What an attacker could take for a secret: the public key of RSA.
    pub(super) fn public_rsa(&self) -> Vec<u8> {
        self.rsa.public_key().as_ref().to_vec()
    }

    /// Signs these texts as this algorithm does, whatever the header says.
    pub(super) fn sign(&self, algorithm: &str, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encode(header), encode(claims));
        let bytes = message.as_bytes();
        let signature = match algorithm {
            "RS256" | "RS512" => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                let padding = if algorithm == "RS256" {
                    &RSA_PKCS1_SHA256
                } else {
                    &RSA_PKCS1_SHA512
                };
                self.rsa
                    .sign(padding, &self.random, bytes, &mut signature)
                    .unwrap();
                signature
            }
            "ES256" => self
                .p256
                .sign(&self.random, bytes)
                .unwrap()
                .as_ref()
                .to_vec(),
            "EdDSA" => self.ed25519.sign(bytes).as_ref().to_vec(),
            "none" => Vec::new(),
            other => panic!("no such algorithm: {other}"),
        };
        format!("{message}.{}", encode(signature))
    }

    /// A good token of these claims.
    pub(super) fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": "EdDSA", "kid": "ed", "typ": "JWT"});
        self.sign("EdDSA", &header.to_string(), &claims.to_string())
    }
}

/// A token whose "signature" is a code under a secret.
pub(super) fn hmac_token(secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = format!(
        "{}.{}",
        encode(header.to_string()),
        encode(claims.to_string())
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let code = hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", encode(code))
}

/// Claims that make a good token of Alice's.
pub(super) fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now(), "nbf": now(), "exp": now() + 300, "jti": "1",
        "scope": "openid secrets:read secrets:write secrets:resolve events:read",
    })
}

/// The same with some of them changed; null takes one away.
pub(super) fn with(changes: Value) -> Value {
    let mut claims = claims();
    let all = claims.as_object_mut().unwrap();
    let Value::Object(changes) = changes else {
        panic!("an object");
    };
    for (name, value) in changes {
        if value.is_null() {
            all.remove(&name);
        } else {
            all.insert(name, value);
        }
    }
    claims
}
