//! Entity tags: a secret's version as `ETag`, and the versions that an `If-Match` names.

use actix_web::http::header::{HeaderMap, HeaderName, IF_MATCH};

use super::error::MalformedRequest;
use crate::domain::IfMatch;

/// The strong entity tag of a version.
pub(super) fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

/// Reads `If-Match` (RFC 9110 section 13.1.1); several field lines are one list.
///
/// # Errors
/// [`MalformedRequest::IfMatch`] when the header is there and is neither `*` nor a list of at least one entity
/// tag.
pub(super) fn if_match(headers: &HeaderMap) -> Result<Option<IfMatch>, MalformedRequest> {
    if !headers.contains_key(IF_MATCH) {
        return Ok(None);
    }
    let list = joined(headers, &IF_MATCH);
    parse(&list).map(Some).ok_or(MalformedRequest::IfMatch)
}

/// All field lines of a name as one list; empty when there is none.
pub(super) fn joined(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let mut list = Vec::new();
    for line in headers.get_all(name) {
        if !list.is_empty() {
            list.push(b',');
        }
        list.extend_from_slice(line.as_bytes());
    }
    list
}

fn parse(list: &[u8]) -> Option<IfMatch> {
    let list = list.trim_ascii();
    if list == b"*" {
        return Some(IfMatch::Any);
    }
    let mut versions = Vec::new();
    let mut tags = 0_usize;
    let mut rest = list;
    loop {
        // Empty members are allowed (RFC 9110 section 5.6.1.2).
        rest = rest.trim_ascii_start();
        if let Some(after) = rest.strip_prefix(b",") {
            rest = after;
            continue;
        }
        if rest.is_empty() {
            return (tags > 0).then_some(IfMatch::Versions(versions));
        }
        let (version, after) = entity_tag(rest)?;
        tags += 1;
        versions.extend(version);
        rest = after.trim_ascii_start();
        if !rest.is_empty() {
            rest = rest.strip_prefix(b",")?;
        }
    }
}

/// `[ "W/" ] DQUOTE *etagc DQUOTE`: the version that the tag stands for, and what comes after it. A weak tag
/// never matches, and a version has one spelling.
fn entity_tag(text: &[u8]) -> Option<(Option<u64>, &[u8])> {
    let (weak, quoted) = match text.strip_prefix(b"W/") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let inside = quoted.strip_prefix(b"\"")?;
    let end = inside.iter().position(|b| *b == b'"')?;
    let (opaque, after) = inside.split_at_checked(end)?;
    let good = |b: &u8| matches!(b, 0x21 | 0x23..=0x7e | 0x80..);
    let after = after.strip_prefix(b"\"")?;
    let spelled = std::str::from_utf8(opaque).unwrap_or_default();
    let version = spelled.parse::<u64>().ok();
    let version = version.filter(|version| !weak && version.to_string() == spelled);
    opaque.iter().all(good).then_some((version, after))
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "what `parse` answers")]
    fn versions(list: &[u64]) -> Option<IfMatch> {
        Some(IfMatch::Versions(list.to_vec()))
    }

    #[test]
    fn reads_lists_of_entity_tags() {
        assert_eq!(parse(b"*"), Some(IfMatch::Any));
        assert_eq!(parse(b" * "), Some(IfMatch::Any));
        assert_eq!(parse(b"\"7\""), versions(&[7]));
        assert_eq!(parse(b"\"7\",\"8\" ,\t\"9\""), versions(&[7, 8, 9]));
        assert_eq!(parse(b", \"7\",,\"8\","), versions(&[7, 8]));
        assert_eq!(parse(b"\"a,b\", \"\", \"\xe9\""), versions(&[]));
    }

    #[test]
    fn weak_tags_and_other_spellings_parse_and_match_nothing() {
        assert_eq!(parse(b"W/\"7\""), versions(&[]));
        assert_eq!(
            parse(b"\"07\", \"+7\", \"7.0\", \"99999999999999999999\""),
            versions(&[])
        );
    }

    #[test]
    fn what_is_no_list_of_tags_is_malformed() {
        for bad in [
            "",
            " ",
            ",",
            "7",
            "\"7",
            "7\"",
            "'7'",
            "*, \"7\"",
            "\"7\", *",
            "**",
            "\"7\" \"8\"",
            "\"7\"\"8\"",
            "w/\"7\"",
            "W/ \"7\"",
            "W/7",
            "\"a b\"",
            "\"7\";",
            "\"\x7f\"",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        let mut headers = HeaderMap::new();
        assert_eq!(if_match(&headers), Ok(None));
        headers.append(IF_MATCH, HeaderValue::from_static("\"1\""));
        headers.append(IF_MATCH, HeaderValue::from_static("W/\"2\", \"3\""));
        assert_eq!(if_match(&headers), Ok(versions(&[1, 3])));
        headers.append(IF_MATCH, HeaderValue::from_static("*"));
        assert_eq!(if_match(&headers), Err(MalformedRequest::IfMatch));
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn a_version_finds_its_own_tag(version: u64, other: u64) {
            let tag = etag(version);
            let read = parse(tag.as_bytes()).unwrap();
            prop_assert!(read.holds(version));
            prop_assert_eq!(read.holds(other), version == other);
        }
    }
}
