//! Reads an event from its exact bytes and checks its hash, whatever fields it has.

use chrono::DateTime;
use serde_json::Value;
use uuid::Uuid;

use crate::{
    crypto::blake2b_256,
    domain::{Cursor, HASH_BYTES, Log, Timestamp},
};

/// The bytes are not an event that rekey wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum EventError {
    /// Not a JSON object.
    #[error("not a JSON object")]
    Json,
    /// Not the RFC 8785 form of what they say.
    #[error("not in canonical form")]
    Form,
    /// A field is missing or of another type.
    #[error("the field {0} is missing or has another type")]
    Field(&'static str),
    /// The hash is not that of the other fields.
    #[error("the hash does not match the event")]
    Hash,
}

/// An event of a chain, by its cursor and its hash: what the next event must follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    /// The cursor after it.
    pub cursor: Cursor,
    /// Its hash.
    pub hash: [u8; HASH_BYTES],
}

impl Link {
    /// Before a log's first event.
    pub(super) const START: Self = Self {
        cursor: Cursor::START,
        hash: [0; HASH_BYTES],
    };
}

/// An event whose hash is right. The chain checks whether it follows the one before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AuditEvent {
    /// The log.
    pub log: Log,
    /// Its place in the log's chain.
    pub link: Link,
    /// What happened.
    pub kind: String,
    /// Whose it is.
    pub owner: Option<String>,
    /// The secret that it is about.
    pub secret_id: Option<Uuid>,
    /// The number among the secret's changes, from 1.
    pub sequence: Option<u64>,
    /// The secret's version.
    pub version: Option<u64>,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// The hash of the event before it.
    pub prev_hash: [u8; HASH_BYTES],
    /// The exact bytes.
    pub body: Vec<u8>,
    /// The trace that it came with; not a part of the event.
    pub traceparent: Option<String>,
}

impl AuditEvent {
    /// Reads an event and checks its form and its hash.
    ///
    /// # Errors
    /// [`EventError`].
    pub(crate) fn parse(body: Vec<u8>) -> Result<Self, EventError> {
        // The message of serde_json would quote the body.
        let mut whole: Value = serde_json::from_slice(&body).or(Err(EventError::Json))?;
        // Of two equal names the parser keeps one: the canonical form then differs, as it does for every
        // other spelling.
        if canonical(&whole)? != body {
            return Err(EventError::Form);
        }
        let fields = whole.as_object_mut().ok_or(EventError::Json)?;
        let hash = take_hash(fields, "hash")?;
        let prev_hash = take_hash(fields, "prev_hash")?;
        if blake2b_256(&[&prev_hash, &canonical(&whole)?]) != hash {
            return Err(EventError::Hash);
        }
        // PostgreSQL's texts can't hold a NUL, and rekey writes none.
        let text = |name| {
            let text = whole.get(name).and_then(Value::as_str);
            text.filter(|text| !text.contains('\0'))
        };
        // The databases hold no larger numbers.
        let number = |name| {
            let number = whole.get(name).and_then(Value::as_u64);
            number.filter(|number| i64::try_from(*number).is_ok())
        };
        let log = text("log").and_then(|name| Log::parse(name).ok());
        let occurred_at = text("occurred_at").and_then(|t| DateTime::parse_from_rfc3339(t).ok());
        Ok(Self {
            log: log.ok_or(EventError::Field("log"))?,
            link: Link {
                cursor: Cursor {
                    epoch: number("epoch").ok_or(EventError::Field("epoch"))?,
                    position: number("position")
                        .filter(|n| *n > 0)
                        .ok_or(EventError::Field("position"))?,
                },
                hash,
            },
            kind: text("type").ok_or(EventError::Field("type"))?.to_owned(),
            owner: if_present(&whole, "owner", |name| text(name).map(str::to_owned))?,
            secret_id: if_present(&whole, "secret_id", |name| {
                Uuid::try_parse(text(name)?).ok()
            })?,
            sequence: if_present(&whole, "sequence", number)?,
            version: if_present(&whole, "version", number)?,
            occurred_at: occurred_at
                .map(|time| Timestamp::from_micros(time.timestamp_micros()))
                .ok_or(EventError::Field("occurred_at"))?,
            prev_hash,
            body,
            traceparent: None,
        })
    }
}

/// Reads a field that an event may lack; there, it must be what it should be.
fn if_present<T>(
    whole: &Value,
    name: &'static str,
    read: impl FnOnce(&'static str) -> Option<T>,
) -> Result<Option<T>, EventError> {
    match whole.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(_) => read(name).map(Some).ok_or(EventError::Field(name)),
    }
}

fn canonical(value: &Value) -> Result<Vec<u8>, EventError> {
    // The message of serde_json would quote the body.
    serde_json_canonicalizer::to_vec(value).or(Err(EventError::Form))
}

/// Takes a hash out: 64 lower-case hex digits (the form was compared, so no other spelling hides).
fn take_hash(
    fields: &mut serde_json::Map<String, Value>,
    name: &'static str,
) -> Result<[u8; HASH_BYTES], EventError> {
    let taken = fields.remove(name);
    let text = taken.as_ref().and_then(Value::as_str);
    let mut hash = [0; HASH_BYTES];
    text.filter(|text| !text.bytes().any(|byte| byte.is_ascii_uppercase()))
        .and_then(|text| hex::decode_to_slice(text, &mut hash).ok())
        .ok_or(EventError::Field(name))?;
    Ok(hash)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// An event with its hash, in canonical form; `more` adds or replaces fields.
    pub(in crate::audit) fn event(
        log: &str,
        epoch: u64,
        position: u64,
        prev_hash: [u8; HASH_BYTES],
        more: &Value,
    ) -> AuditEvent {
        let mut fields = json!({
            "id": format!("0198f3c2-0000-7000-8000-{position:012}"), "type": "secret.updated",
            "log": log, "epoch": epoch, "position": position,
            "occurred_at": "2026-04-15T12:00:00.000000Z", "owner": "alice",
        });
        let object = fields.as_object_mut().unwrap();
        for (name, value) in more.as_object().unwrap() {
            object.insert(name.clone(), value.clone());
        }
        AuditEvent::parse(sealed(fields, prev_hash)).unwrap()
    }

    /// The canonical form of these fields with their hash.
    fn sealed(mut fields: Value, prev_hash: [u8; HASH_BYTES]) -> Vec<u8> {
        let hash = blake2b_256(&[&prev_hash, &canonical(&fields).unwrap()]);
        fields["hash"] = hex::encode(hash).into();
        fields["prev_hash"] = hex::encode(prev_hash).into();
        canonical(&fields).unwrap()
    }

    #[test]
    fn an_event_of_the_service_is_read_field_by_field() {
        let id = "0198f3c2-7a10-7cc0-8000-000000000001";
        let more = json!({"secret_id": id, "sequence": 9, "version": 7, "new": {"b": [1, "é\n"], "a": null}});
        let read = event("changes", 1, 3, [7; 32], &more);
        assert_eq!(read.link.cursor.to_string(), "1-3");
        assert_eq!(read.secret_id.unwrap().to_string(), id);
        assert_eq!((read.sequence, read.version), (Some(9), Some(7)));
        assert_eq!(read.occurred_at.to_string(), "2026-04-15T12:00:00.000000Z");
        assert_eq!(read.prev_hash, [7; 32]);
        assert_eq!(read.owner.as_deref(), Some("alice"));
        assert_eq!(AuditEvent::parse(read.body.clone()).unwrap(), read);
    }

    #[test]
    fn only_the_canonical_spelling_is_an_event() {
        let good = event("changes", 1, 1, [0; 32], &json!({}));
        let text = String::from_utf8(good.body).unwrap();
        for (other, error) in [
            (text.replacen('{', "{ ", 1), EventError::Form),
            (text.replacen('{', r#"{"epoch":1,"#, 1), EventError::Form),
            (text.replacen("alice", r"\u0061lice", 1), EventError::Form),
            (
                text.replacen(r#""epoch":1"#, r#""epoch":1.0"#, 1),
                EventError::Form,
            ),
            (text.replacen("alice", "malice", 1), EventError::Hash),
            (format!("{text}\n"), EventError::Form),
            (format!("{text}x"), EventError::Json),
            ("[]".to_owned(), EventError::Json),
            ("{}".to_owned(), EventError::Field("hash")),
        ] {
            assert_eq!(
                AuditEvent::parse(other.clone().into()),
                Err(error),
                "{other}"
            );
        }
    }

    #[test]
    fn what_no_database_could_hold_is_refused() {
        for (name, value) in [
            ("owner", json!("a\0")),
            ("owner", json!(1)),
            ("type", json!("secret.\0")),
            ("position", json!(0)),
            ("epoch", json!(-1)),
            ("secret_id", json!("S")),
            ("sequence", json!(u64::MAX)),
            ("version", json!("1")),
            ("log", json!("other")),
            ("occurred_at", json!("today")),
        ] {
            let good = event("changes", 1, 1, [0; 32], &json!({}));
            let mut fields: Value = serde_json::from_slice(&good.body).unwrap();
            fields.as_object_mut().unwrap().remove("hash");
            fields.as_object_mut().unwrap().remove("prev_hash");
            fields[name] = value;
            let refused = AuditEvent::parse(sealed(fields, [0; 32]));
            assert_eq!(refused, Err(EventError::Field(name)));
        }
    }

    #[test]
    fn the_canonical_form_is_that_of_rfc_8785() {
        // Appendix and section 3.2.3 of the RFC: names sorted by UTF-16 code units, few escapes.
        let value: Value = serde_json::from_str(
            r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":"</script>\u000f\n"}"#,
        )
        .unwrap();
        assert_eq!(
            String::from_utf8(canonical(&value).unwrap()).unwrap(),
            "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"ö\":\"</script>\\u000f\\n\",\"€\":1,\"😀\":5,\"\u{fb33}\":3}"
        );
    }
}
