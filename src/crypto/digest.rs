//! BLAKE2b-256 (RFC 7693) and comparison in constant time.

use orion::hazardous::hash::blake2::blake2b::Blake2b;

use crate::domain::HASH_BYTES;

/// BLAKE2b with a 32-byte digest over the parts, one after the other.
///
/// # Panics
/// Never: orion has no error for this use.
#[must_use]
pub fn blake2b_256(parts: &[&[u8]]) -> [u8; HASH_BYTES] {
    let digest = || {
        let mut state = Blake2b::new(HASH_BYTES)?;
        for part in parts {
            state.update(part)?;
        }
        state.finalize()
    };
    #[expect(
        clippy::expect_used,
        reason = "orion refuses a digest size outside 1–64 and an update after `finalize`, nothing else"
    )]
    let digest = digest().expect("BLAKE2b of 32 bytes can't fail");
    let mut bytes = [0; HASH_BYTES];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

/// Whether two byte strings are equal, in a time that depends only on their lengths.
#[must_use]
pub(crate) fn same_bytes(one: &[u8], other: &[u8]) -> bool {
    orion::util::secure_cmp(one, other).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_other_implementations() {
        // Python: hashlib.blake2b(b"rekey", digest_size=32).hexdigest()
        assert_eq!(
            hex::encode(blake2b_256(&[b"re", b"key"])),
            "b91edaf1c5e573d3660d630b9d0e072a99ecf06f51a798a926e5eff08fed2add"
        );
    }

    #[test]
    fn equality_is_equality() {
        assert!(same_bytes(b"abc", b"abc"));
        assert!(!same_bytes(b"abc", b"abd"));
        assert!(!same_bytes(b"abc", b"ab"));
    }
}
