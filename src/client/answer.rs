//! The bodies of the service's answers, read into types. A parser's message may quote a value: none is
//! kept, an answer is understood or it is not.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::domain::{Checkpoint, Cursor, Log, Owner, SecretId, SecretName, SecretValue};

/// A checkpoint of the log asked for.
pub(super) fn checkpoint(body: &[u8], log: Log) -> Option<Checkpoint> {
    let read: Checkpoint = serde_json::from_slice(body).ok()?;
    (read.log == log).then_some(read)
}

/// A page of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPage {
    /// Each event's exact bytes (they are UTF-8): what its hash is over.
    pub events: Vec<String>,
    /// Where the next page begins.
    pub next: Cursor,
}

impl EventPage {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Sent<'body> {
            #[serde(borrow)]
            events: Vec<&'body RawValue>,
            next: String,
        }
        let sent: Sent<'_> = serde_json::from_slice(body).ok()?;
        Some(Self {
            events: sent.events.iter().map(|e| e.get().to_owned()).collect(),
            next: Cursor::parse(&sent.next).ok()?,
        })
    }
}

/// Values for a workload.
#[derive(Debug)]
pub struct ResolvedValues {
    /// In the order asked.
    pub secrets: Vec<ResolvedValue>,
    /// The log's head before they were read: every change up to it is in them.
    pub cursor: Cursor,
}

/// One value and which it is.
#[derive(Debug)]
pub struct ResolvedValue {
    /// The secret's ID.
    pub id: SecretId,
    /// Its name.
    pub name: SecretName,
    /// Its value; wiped when dropped.
    pub value: SecretValue,
    /// The version that it is.
    pub version: u64,
    /// How many changes the secret has had.
    pub sequence: u64,
}

impl ResolvedValues {
    /// `None` also when it is not what was asked for.
    pub(super) fn read(body: &[u8], names: &[SecretName]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Sent {
            secrets: Vec<SentSecret>,
            cursor: String,
        }
        #[derive(Deserialize)]
        struct SentSecret {
            id: String,
            name: String,
            #[serde(deserialize_with = "wiped")]
            value: Zeroizing<String>,
            version: u64,
            sequence: u64,
        }
        let sent: Sent = serde_json::from_slice(body).ok()?;
        let secrets: Vec<_> = sent
            .secrets
            .into_iter()
            .map(|secret| {
                Some(ResolvedValue {
                    id: SecretId::parse(&secret.id).ok()?,
                    name: SecretName::parse(&secret.name).ok()?,
                    value: SecretValue::parse(secret.value).ok()?,
                    version: secret.version,
                    sequence: secret.sequence,
                })
            })
            .collect::<Option<_>>()?;
        let asked = secrets.iter().map(|secret| &secret.name).eq(names);
        asked.then_some(())?;
        Some(Self {
            secrets,
            cursor: Cursor::parse(&sent.cursor).ok()?,
        })
    }
}

fn wiped<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(from).map(Zeroizing::new)
}

/// The body of a `resolve`.
pub(super) fn question(
    owner: Option<&Owner>,
    names: &[SecretName],
    min_cursor: Option<Cursor>,
) -> String {
    #[derive(Serialize)]
    struct Question<'asked> {
        #[serde(skip_serializing_if = "Option::is_none")]
        owner: Option<&'asked Owner>,
        names: &'asked [SecretName],
        #[serde(skip_serializing_if = "Option::is_none")]
        min_cursor: Option<String>,
    }
    let question = Question {
        owner,
        names,
        min_cursor: min_cursor.map(|cursor| cursor.to_string()),
    };
    // A struct of strings always becomes JSON.
    serde_json::to_string(&question).unwrap_or_default()
}

/// The `type` of an error's envelope, if it looks like one.
pub(super) fn error_type(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Envelope {
        r#type: String,
    }
    let Envelope { r#type } = serde_json::from_slice(body).ok()?;
    let sane = (1..=64).contains(&r#type.len())
        && r#type.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    sane.then_some(r#type)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::HASH_BYTES;

    #[test]
    fn an_event_keeps_its_bytes() {
        let body = br#"{"events":[{"b":1.0,"a":"\u00e9"},{ "x" : [ ] }],"next":"1-2"}"#;
        let page = EventPage::read(body).unwrap();
        assert_eq!(
            page.events,
            [r#"{"b":1.0,"a":"\u00e9"}"#, r#"{ "x" : [ ] }"#]
        );
        assert_eq!(page.next.to_string(), "1-2");
        assert_eq!(EventPage::read(br#"{"events":[],"next":null}"#), None);
    }

    #[test]
    fn a_checkpoint_is_of_the_log_asked_for() {
        let hash = "ab".repeat(HASH_BYTES);
        let body = format!(
            r#"{{"log":"changes","epoch":1,"position":7,"hash":"{hash}","cursor":"1-7","signature":"s"}}"#
        );
        let head = checkpoint(body.as_bytes(), Log::Changes).unwrap();
        assert_eq!((head.position, head.hash), (7, [0xab; HASH_BYTES]));
        assert_eq!(checkpoint(body.as_bytes(), Log::Activity), None);
        let short = body.replace(&hash, "abcd");
        assert_eq!(checkpoint(short.as_bytes(), Log::Changes), None);
    }

    #[test]
    fn values_come_in_the_order_asked_or_not_at_all() {
        let secret = |name| {
            format!(
                r#"{{"id":"0198f3c2-7a10-7cc0-8000-00000000abcd","name":"{name}","value":"canary","version":2,"sequence":3}}"#
            )
        };
        let body = format!(
            r#"{{"secrets":[{},{}],"cursor":"1-9"}}"#,
            secret("A"),
            secret("B")
        );
        let names = |names: &[&str]| -> Vec<_> {
            names
                .iter()
                .map(|n| SecretName::parse(n).unwrap())
                .collect()
        };
        let read = |asked: &[&str]| ResolvedValues::read(body.as_bytes(), &names(asked));
        let resolved = read(&["A", "B"]).unwrap();
        assert_eq!(resolved.secrets[0].value.expose(), "canary");
        assert!(!format!("{resolved:?}").contains("canary"));
        assert!(read(&["B", "A"]).is_none());
        assert!(read(&["A"]).is_none());
    }

    #[test]
    fn a_question_holds_what_was_given() {
        let names = [SecretName::parse("A").unwrap()];
        let owner = Owner::parse("alice").unwrap();
        let whole = question(Some(&owner), &names, Cursor::parse("1-2").ok());
        let wanted = r#"{"owner":"alice","names":["A"],"min_cursor":"1-2"}"#;
        assert_eq!(whole, wanted);
        assert_eq!(question(None, &names, None), r#"{"names":["A"]}"#);
    }

    #[test]
    fn only_a_plain_type_is_taken_from_an_error() {
        assert_eq!(
            error_type(br#"{"type":"not_found_error","detail":"x"}"#).unwrap(),
            "not_found_error"
        );
        for bad in [
            &b"<html>"[..],
            br#"{"type":"Bearer rekey_1"}"#,
            br#"{"type":""}"#,
        ] {
            assert_eq!(error_type(bad), None);
        }
    }
}
