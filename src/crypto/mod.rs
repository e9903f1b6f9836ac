//! Keys, ciphertexts and signatures: the only room that names orion and ring.
//!
//! In: values, masks and keys. Out: sealed bytes that open only for their own owner, secret and version (envelope
//! encryption: a key-encryption key wraps one data key per version), digests of the log's chain and of
//! tokens, MACs of the rows of tokens, signatures of checkpoints, and random bytes. Key bytes never leave this room, and none of its
//! types prints them.

mod checkpoint;
mod digest;
mod envelope;
mod jws;
mod keyring;
mod mac;
mod random;
mod sealed_keyring;
mod sealer;

pub(crate) use checkpoint::{CheckpointKey, CheckpointSigner};
pub use digest::blake2b_256;
pub(crate) use digest::same_bytes;
pub(crate) use envelope::{OpenError, SealError};
pub(crate) use jws::JwsKey;
pub(crate) use keyring::{Keyring, KeyringError};
pub(crate) use mac::MacKey;
pub(crate) use random::{RandomError, base62_digit, random_base62};
pub(crate) use sealer::{Sealer, SecretPlace};
