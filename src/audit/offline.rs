//! An export, verified with nothing but the file and the public key.
//!
//! The file: the events of one log in position order from its first, one canonical JSON a line, then
//! exactly one checkpoint that covers the last. An event of an abandoned branch is marked, and stands before the event
//! that took its place; the checkpoint does not cover how such a branch ends. Every line ends with a line feed. A damaged or missing
//! checkpoint is named by the position after the last event.

use std::io::{self, BufRead};

use super::{
    chain::{ABANDONED, Bad, Chain},
    event::Link,
    verify::VerifyError,
};
use crate::{
    crypto::CheckpointKey,
    domain::{Checkpoint, Cursor, Log},
};

/// The longest line that is read: far longer than any event, and short enough that no file fills the memory.
const LONGEST_LINE: u64 = 1 << 20;

/// A log that was proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proof {
    /// The log.
    pub log: Log,
    /// It begins after this cursor: `0-0` is before the log's first event.
    pub after: Cursor,
    /// Its last event.
    pub last: Link,
    /// How many checkpoints were checked.
    pub checkpoints: u64,
}

/// Verifies an export.
///
/// # Errors
/// [`VerifyError::Bad`] names the first bad position.
pub(crate) fn verify_export(
    mut export: impl BufRead,
    key: &CheckpointKey,
) -> Result<Proof, VerifyError> {
    let mut chain = Chain::after(None, Link::START);
    loop {
        let Some(line) = next_line(&mut export)? else {
            return Err(Bad::new(chain.next(), "the export has no checkpoint").into());
        };
        let Some((b'\n', line)) = line.split_last() else {
            let reason = "a line is incomplete, or far too long";
            return Err(Bad::new(chain.next(), reason).into());
        };
        if let Some(event) = abandoned(line) {
            chain.push_abandoned(event)?;
            continue;
        }
        let Err(bad) = chain.push(line) else {
            continue;
        };
        let Some(checkpoint) = checkpoint(line) else {
            return Err(bad.into());
        };
        if next_line(&mut export)?.is_some() {
            let reason = "there is a checkpoint before the last line";
            return Err(Bad::new(chain.next(), reason).into());
        }
        return Ok(closed_by(&chain, &checkpoint, key)?);
    }
}

fn closed_by(chain: &Chain, checkpoint: &Checkpoint, key: &CheckpointKey) -> Result<Proof, Bad> {
    if !key.verifies(checkpoint) {
        let reason = "the checkpoint was not signed with this key";
        return Err(Bad::new(chain.next(), reason));
    }
    chain.ends_at(checkpoint)?;
    Ok(Proof {
        log: checkpoint.log,
        after: Cursor::START,
        last: chain.last(),
        checkpoints: 1,
    })
}

/// The event in a line that marks it as abandoned.
fn abandoned(line: &[u8]) -> Option<&[u8]> {
    line.strip_prefix(ABANDONED)?.strip_suffix(b"}")
}

/// The checkpoint, when the line is the canonical form of one.
fn checkpoint(line: &[u8]) -> Option<Checkpoint> {
    // A line that is not a checkpoint is reported as the event that it is not.
    let checkpoint: Checkpoint = serde_json::from_slice(line).ok()?;
    (checkpoint.to_json() == line).then_some(checkpoint)
}

/// The next line with its line feed; without one at a cut end, and nothing at the end.
fn next_line(export: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    io::Read::take(&mut *export, LONGEST_LINE).read_until(b'\n', &mut line)?;
    Ok((!line.is_empty()).then_some(line))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::event::tests::event, *};
    use crate::crypto::CheckpointSigner;

    const SECRETS: [&str; 2] = [
        "0198f3c2-7a10-7cc0-8000-00000000000a",
        "0198f3c2-7a10-7cc0-8000-00000000000b",
    ];

    fn signer() -> CheckpointSigner {
        CheckpointSigner::for_tests([1; 32])
    }

    /// The lines of an export, line feeds included: `count` events and their checkpoint.
    fn lines(count: u64) -> Vec<Vec<u8>> {
        export(count, &signer(), |position| {
            json!({
                "secret_id": SECRETS[usize::try_from(position % 2).unwrap()],
                "sequence": position.div_ceil(2), "actor": {"id": null, "kind": "system"},
            })
        })
    }

    fn export(
        count: u64,
        signer: &CheckpointSigner,
        more: impl Fn(u64) -> serde_json::Value,
    ) -> Vec<Vec<u8>> {
        let mut lines = Vec::new();
        let mut hash = [0; 32];
        for position in 1..=count {
            let event = event("changes", 1, position, hash, &more(position));
            hash = event.link.hash;
            lines.push(event.body);
        }
        let epoch = u64::from(count > 0);
        let checkpoint = signer.sign(Log::Changes, epoch, count, hash);
        lines.push(checkpoint.to_json());
        for line in &mut lines {
            line.push(b'\n');
        }
        lines
    }

    /// The place of each byte, and the line that it is in, from 1.
    fn places(lines: &[Vec<u8>]) -> impl Iterator<Item = (usize, u64)> {
        let numbers = lines.iter().zip(1..);
        let numbers = numbers.flat_map(|(line, number)| line.iter().map(move |_| number));
        numbers.enumerate()
    }

    fn verified(export: &[u8]) -> Result<Proof, Bad> {
        let key = CheckpointKey::parse(&signer().public_key()).unwrap();
        match verify_export(export, &key) {
            Ok(proof) => Ok(proof),
            Err(VerifyError::Bad(bad)) => Err(bad),
            Err(error) => panic!("{error}"),
        }
    }

    fn first_bad(export: &[u8]) -> u64 {
        verified(export).unwrap_err().position
    }

    #[test]
    fn a_whole_export_is_proved_an_empty_one_too() {
        let proof = verified(&lines(5).concat()).unwrap();
        assert_eq!(proof.last.cursor.to_string(), "1-5");
        assert_eq!(proof.log, Log::Changes);
        assert_eq!(verified(&lines(0).concat()).unwrap().last, Link::START);
    }

    #[test]
    fn a_change_of_any_byte_is_found_and_its_line_named() {
        let lines = lines(2);
        let whole = lines.concat();
        let mut checked = 0;
        for (place, line) in places(&lines) {
            // The lowest bit, the letter's case, and what ends a line.
            let byte = whole[place];
            let others = [byte ^ 1, byte ^ 0x20, b'\n'].into_iter();
            for other in others.filter(|other| *other != byte) {
                let mut export = whole.clone();
                export[place] = other;
                assert_eq!(first_bad(&export), line, "byte {place} as {other}");
            }
            checked += 1;
        }
        assert_eq!(checked, whole.len());
    }

    #[test]
    fn every_lost_and_every_doubled_byte_is_found_and_its_line_named() {
        let lines = lines(2);
        let whole = lines.concat();
        for (place, line) in places(&lines) {
            let mut lost = whole.clone();
            lost.remove(place);
            assert_eq!(first_bad(&lost), line, "byte {place} lost");
            let mut doubled = whole.clone();
            doubled.insert(place, whole[place]);
            // A second line feed is an empty line: the next one (after the checkpoint: that one).
            let at = (line + u64::from(whole[place] == b'\n')).min(3);
            assert_eq!(first_bad(&doubled), at, "byte {place} doubled");
        }
    }

    #[test]
    fn every_truncation_is_found_and_names_the_first_position_that_is_not_whole() {
        let lines = lines(2);
        let whole = lines.concat();
        for length in 0..whole.len() {
            let cut = &whole[..length];
            let complete = cut.split(|byte| *byte == b'\n').count() as u64;
            assert_eq!(first_bad(cut), complete, "{length} bytes");
        }
    }

    #[test]
    fn every_line_that_is_deleted_swapped_or_repeated_is_found() {
        let good = lines(6);
        for one in 0..good.len() {
            let mut deleted = good.clone();
            deleted.remove(one);
            assert_eq!(first_bad(&deleted.concat()), one as u64 + 1);
            let mut repeated = good.clone();
            repeated.insert(one, good[one].clone());
            let at = one as u64 + if one == 6 { 1 } else { 2 };
            assert_eq!(first_bad(&repeated.concat()), at);
            for other in one + 1..good.len() {
                let mut swapped = good.clone();
                swapped.swap(one, other);
                assert_eq!(first_bad(&swapped.concat()), one as u64 + 1);
            }
        }
    }

    #[test]
    fn a_rewritten_chain_needs_the_services_signature() {
        // An event changed, and every hash after it computed anew, up to the checkpoint's.
        let stranger = CheckpointSigner::for_tests([2; 32]);
        let mut forged = export(3, &stranger, |_| json!({"owner": "mallory"}));
        assert_eq!(first_bad(&forged.concat()), 4);
        forged.pop();
        forged.extend(lines(3).pop());
        assert_eq!(first_bad(&forged.concat()), 3);
    }

    #[test]
    fn an_endless_line_is_refused_without_being_read() {
        let endless = io::BufReader::new(io::repeat(b'x'));
        let key = CheckpointKey::parse(&signer().public_key()).unwrap();
        let bad = verify_export(endless, &key).unwrap_err();
        assert!(matches!(bad, VerifyError::Bad(bad) if bad.position == 1));
    }
}
