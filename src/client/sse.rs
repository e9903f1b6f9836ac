//! The grammar of server-sent events (WHATWG HTML, section 9.2.6): bytes in, blocks out.
//!
//! Stricter in two things: bytes that are not UTF-8 are an error, because an event's hash is over its bytes,
//! and so is a block over [`BLOCK_BYTES`]. Wider in one: a block with an `id` and no data comes out too, because
//! with it the service says how far it has read. `retry` is ignored. Why it is our own: `docs/adr/0018`.

use std::collections::VecDeque;

/// The longest block that is read; an event has some 1,500 bytes.
const BLOCK_BYTES: usize = 1 << 20;

/// The fields between two empty lines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SseBlock {
    /// The last ID that the stream has had so far; empty before the first.
    pub(super) id: String,
    /// The event's type; empty when none is given.
    pub(super) kind: String,
    /// The lines of data, joined by line feeds; `None` without any.
    pub(super) data: Option<String>,
}

/// The bytes are not UTF-8, or a block is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SseError;

/// Reads a stream in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct SseParser {
    line: Vec<u8>,
    /// The last byte was CR: an LF right after it ends no line of its own.
    after_cr: bool,
    /// The first line is over: no byte order mark may follow.
    begun: bool,
    block: SseBlock,
    has_id: bool,
    size: usize,
}

impl SseParser {
    /// Takes the next bytes; whole blocks are appended to `blocks`.
    pub(super) fn feed(
        &mut self,
        bytes: &[u8],
        blocks: &mut VecDeque<SseBlock>,
    ) -> Result<(), SseError> {
        for byte in bytes {
            let after_cr = std::mem::replace(&mut self.after_cr, *byte == b'\r');
            match byte {
                b'\n' if after_cr => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    self.line(&line, blocks)?;
                    self.line = line;
                    self.line.clear();
                }
                _ => {
                    self.size += 1;
                    if self.size > BLOCK_BYTES {
                        return Err(SseError);
                    }
                    self.line.push(*byte);
                }
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], blocks: &mut VecDeque<SseBlock>) -> Result<(), SseError> {
        let line = std::str::from_utf8(line).map_err(|_at| SseError)?;
        let bare = line.strip_prefix('\u{feff}').filter(|_| !self.begun);
        let line = bare.unwrap_or(line);
        self.begun = true;
        if line.is_empty() {
            self.end(blocks);
            return Ok(());
        }
        // A line without a colon is a field with an empty value; one space after the colon does not count.
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.block.kind),
            "data" => match &mut self.block.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.block.data = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => {
                value.clone_into(&mut self.block.id);
                self.has_id = true;
            }
            // A comment has an empty field name; unknown fields are ignored.
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, blocks: &mut VecDeque<SseBlock>) {
        self.size = 0;
        let has_id = std::mem::take(&mut self.has_id);
        let next = SseBlock {
            id: self.block.id.clone(),
            ..SseBlock::default()
        };
        let block = std::mem::replace(&mut self.block, next);
        if has_id || block.data.is_some() {
            blocks.push_back(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(pieces: &[&[u8]]) -> Result<Vec<SseBlock>, SseError> {
        let (mut parser, mut blocks) = (SseParser::default(), VecDeque::new());
        for piece in pieces {
            parser.feed(piece, &mut blocks)?;
        }
        Ok(blocks.into())
    }

    fn block(id: &str, kind: &str, data: Option<&str>) -> SseBlock {
        SseBlock {
            id: id.to_owned(),
            kind: kind.to_owned(),
            data: data.map(str::to_owned),
        }
    }

    #[test]
    fn a_block_ends_at_an_empty_line_and_keeps_the_last_id() {
        let text = "id: 1-1\nevent: a\ndata: {}\n\ndata:x\ndata\ndata: y\n\nid\nevent: cut";
        assert_eq!(
            parse(&[text.as_bytes()]).unwrap(),
            [
                block("1-1", "a", Some("{}")),
                block("1-1", "", Some("x\n\ny")),
            ]
        );
    }

    #[test]
    fn an_id_alone_is_a_block_and_a_comment_is_not() {
        let text = ": hello\n\nid: 1-7\n\nevent: nothing\n\nretry: 5\n\n";
        assert_eq!(parse(&[text.as_bytes()]).unwrap(), [block("1-7", "", None)]);
    }

    #[test]
    fn one_space_goes_and_only_one() {
        let blocks = parse(&[b"data:  a: b \n\n"]).unwrap();
        assert_eq!(blocks, [block("", "", Some(" a: b "))]);
    }

    #[test]
    fn a_byte_order_mark_goes_at_the_start_only_and_an_id_with_nul_is_ignored() {
        let text = "\u{feff}id: 1\n\n\u{feff}id: 2\n\nid: 3\0\ndata: x\n\n";
        assert_eq!(
            parse(&[text.as_bytes()]).unwrap(),
            [block("1", "", None), block("1", "", Some("x"))]
        );
    }

    #[test]
    fn other_bytes_than_utf_8_and_endless_blocks_are_refused() {
        assert_eq!(parse(&[b"data: \xff\n"]), Err(SseError));
        let long = vec![b'a'; BLOCK_BYTES];
        assert_eq!(parse(&[b"data: ", &long]), Err(SseError));
    }

    proptest! {
        #[test]
        fn pieces_and_line_endings_make_no_difference(
            cuts in proptest::collection::vec(0_usize..60, 0..8),
            ending in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
        ) {
            let text = "id: 1-1|event: é|data: {\"a\":1}||id: 1-2||data: z||".replace('|', ending);
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().filter(|cut| *cut < bytes.len()).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(
                parse(&pieces).unwrap(),
                [
                    block("1-1", "é", Some("{\"a\":1}")),
                    block("1-2", "", None),
                    block("1-2", "", Some("z")),
                ]
            );
        }
    }
}
