//! Signatures of checkpoints: Ed25519 over `rekey-checkpoint`, log, epoch, position and hash.
//!
//! What is signed: for each field its length as u32 big-endian, then its bytes; epoch and position are
//! u64 big-endian, the hash is its 32 bytes. A signature is the padded standard base64 of 64 bytes; a
//! public key is `ed25519:` and the base64 of 32 bytes. Others store both for ever: a change is a new format.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::envelope::length_prefixed;
use crate::domain::{Checkpoint, HASH_BYTES, Log, ParseError};

const DOMAIN: &[u8] = b"rekey-checkpoint";
const SCHEME: &str = "ed25519:";
const PUBLIC_KEY_BYTES: usize = 32;

/// Signs checkpoints. It holds the private key, and shows only the public one.
pub(crate) struct CheckpointSigner {
    pair: Ed25519KeyPair,
}

impl CheckpointSigner {
    /// Makes a signer from the 32 bytes of the private key; nothing for any other length.
    pub(super) fn from_seed(seed: &[u8]) -> Option<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).ok()?;
        Some(Self { pair })
    }

    /// A signer with a known key.
    #[cfg(test)]
    pub(crate) fn for_tests(seed: [u8; 32]) -> Self {
        Self::from_seed(&seed).unwrap()
    }

    /// A log's state, signed: its last event's epoch, position and hash (0, 0 and zeros when the log is
    /// empty).
    #[must_use]
    pub(crate) fn sign(
        &self,
        log: Log,
        epoch: u64,
        position: u64,
        hash: [u8; HASH_BYTES],
    ) -> Checkpoint {
        let mut checkpoint = Checkpoint {
            log,
            epoch,
            position,
            hash,
            signature: String::new(),
        };
        let signature = self.pair.sign(&signed_bytes(&checkpoint));
        checkpoint.signature = STANDARD.encode(signature.as_ref());
        checkpoint
    }

    /// The public key as others get it: `ed25519:<base64>`.
    #[must_use]
    pub(crate) fn public_key(&self) -> String {
        format!(
            "{SCHEME}{}",
            STANDARD.encode(self.pair.public_key().as_ref())
        )
    }
}

impl fmt::Debug for CheckpointSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CheckpointSigner")
            .field(&self.public_key())
            .finish()
    }
}

/// The key that checkpoints are verified with: there is nothing secret about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckpointKey([u8; PUBLIC_KEY_BYTES]);

impl CheckpointKey {
    /// Reads `ed25519:` and the padded standard base64 of 32 bytes.
    ///
    /// # Errors
    /// [`ParseError::Pattern`] for any other form.
    pub(crate) fn parse(text: &str) -> Result<Self, ParseError> {
        let encoded = text.strip_prefix(SCHEME).ok_or(ParseError::Pattern)?;
        // Where the form is wrong does not matter: it is one short line, to be copied again.
        let bytes = STANDARD.decode(encoded).or(Err(ParseError::Pattern))?;
        // As above: its length is a part of the form.
        bytes.try_into().map(Self).or(Err(ParseError::Pattern))
    }

    /// Whether the checkpoint was signed by the holder of the private key.
    #[must_use]
    pub(crate) fn verifies(&self, checkpoint: &Checkpoint) -> bool {
        let Ok(signature) = STANDARD.decode(&checkpoint.signature) else {
            return false;
        };
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(&signed_bytes(checkpoint), &signature)
            .is_ok()
    }
}

impl fmt::Display for CheckpointKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", STANDARD.encode(self.0))
    }
}

fn signed_bytes(checkpoint: &Checkpoint) -> Vec<u8> {
    length_prefixed(&[
        DOMAIN,
        checkpoint.log.as_str().as_bytes(),
        &checkpoint.epoch.to_be_bytes(),
        &checkpoint.position.to_be_bytes(),
        &checkpoint.hash,
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(signer: &CheckpointSigner) -> Checkpoint {
        signer.sign(Log::Changes, 1, 10_234, [7; HASH_BYTES])
    }

    #[test]
    fn the_signature_is_that_of_other_implementations() {
        // Python, cryptography 48: Ed25519PrivateKey.from_private_bytes(bytes(range(32))), over
        // b"".join(struct.pack(">I", len(f)) + f for f in (b"rekey-checkpoint", b"changes",
        // (1).to_bytes(8, "big"), (10234).to_bytes(8, "big"), bytes([7] * 32))).
        let seed: Vec<u8> = (0..32).collect();
        let signer = CheckpointSigner::from_seed(&seed).unwrap();
        assert_eq!(
            signer.public_key(),
            "ed25519:A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
        );
        assert_eq!(
            checkpoint(&signer).signature,
            "A9vin8Fn0WUe+CghrdN7xY/gWsUDrO17y6sxCGp8OO+c0woxzM4CVCsi+MhZpLtmeaSTe+BCQyRaOwWQBP4uDw=="
        );
    }

    #[test]
    fn a_checkpoint_with_any_field_changed_is_refused() {
        let signer = CheckpointSigner::from_seed(&[1; 32]).unwrap();
        let key = CheckpointKey::parse(&signer.public_key()).unwrap();
        assert_eq!(key.to_string(), signer.public_key());
        let good = checkpoint(&signer);
        assert!(key.verifies(&good));
        let changes: [fn(&mut Checkpoint); 5] = [
            |c| c.log = Log::Activity,
            |c| c.epoch = 2,
            |c| c.position = 10_233,
            |c| c.hash = [8; HASH_BYTES],
            |c| c.signature = c.signature.replace('=', ""),
        ];
        for change in changes {
            let mut other = good.clone();
            change(&mut other);
            assert!(!key.verifies(&other), "{other:?}");
        }
        let stranger = CheckpointSigner::from_seed(&[2; 32]).unwrap();
        let key = CheckpointKey::parse(&stranger.public_key()).unwrap();
        assert!(!key.verifies(&good));
    }

    #[test]
    fn only_one_spelling_of_a_public_key_is_read() {
        let key = CheckpointSigner::from_seed(&[1; 32]).unwrap().public_key();
        assert!(CheckpointKey::parse(&key).is_ok());
        let bare = key.strip_prefix(SCHEME).unwrap();
        for bad in [
            "",
            bare,
            key.trim_end_matches('='),
            &format!(" {key}"),
            "ed25519:AAAA",
        ] {
            assert_eq!(CheckpointKey::parse(bad), Err(ParseError::Pattern), "{bad}");
        }
    }

    #[test]
    fn debug_shows_only_the_public_key() {
        let signer = CheckpointSigner::from_seed(&[1; 32]).unwrap();
        assert_eq!(
            format!("{signer:?}"),
            format!("CheckpointSigner({:?})", signer.public_key())
        );
    }
}
