//! The bodies of requests and answers.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use super::ClientError;
use crate::domain::{Checkpoint, Cursor, Log, Owner, SecretId, SecretName, SecretValue};

/// Reads a checkpoint of the log asked for.
pub(super) fn checkpoint(body: &[u8], log: Log) -> Result<Checkpoint, ClientError> {
    let checkpoint: Checkpoint = json(body, "it is not a checkpoint")?;
    if checkpoint.log == log {
        Ok(checkpoint)
    } else {
        Err(ClientError::NotUnderstood("it is about another log"))
    }
}

/// A page of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventPage {
    /// Each event's exact bytes (they are UTF-8). Its hash is over them.
    pub events: Vec<String>,
    /// Where the next page begins.
    pub next: Cursor,
}

impl EventPage {
    pub(super) fn read(body: &[u8]) -> Result<Self, ClientError> {
        #[derive(Deserialize)]
        struct PageBody<'body> {
            #[serde(borrow)]
            events: Vec<&'body RawValue>,
            next: String,
        }
        let page: PageBody<'_> = json(body, "it is not a page of events")?;
        Ok(Self {
            events: page.events.iter().map(|e| e.get().to_owned()).collect(),
            next: cursor(&page.next)?,
        })
    }
}

/// Values for a workload.
#[derive(Debug)]
pub(crate) struct ResolvedValues {
    /// In the order asked.
    pub secrets: Vec<ResolvedValue>,
    /// The log's head before they were read: they hold every change through it.
    pub cursor: Cursor,
}

/// A secret's value, and which one it is.
#[derive(Debug)]
pub(crate) struct ResolvedValue {
    /// The secret's ID.
    pub id: SecretId,
    /// Its name.
    pub name: SecretName,
    /// Its value; wiped when dropped.
    pub value: SecretValue,
    /// The value's number.
    pub version: u64,
}

#[derive(Deserialize)]
struct SecretBody {
    id: String,
    name: String,
    #[serde(deserialize_with = "wiped")]
    value: Zeroizing<String>,
    version: u64,
}

impl ResolvedValues {
    /// Refuses values that were not asked for.
    pub(super) fn read(body: &[u8], names: &[SecretName]) -> Result<Self, ClientError> {
        #[derive(Deserialize)]
        struct ValuesBody {
            secrets: Vec<SecretBody>,
            cursor: String,
        }
        let values: ValuesBody = json(body, "it holds no secrets")?;
        let secrets: Vec<ResolvedValue> = values
            .secrets
            .into_iter()
            .map(SecretBody::into_value)
            .collect::<Result<_, _>>()?;
        if !secrets.iter().map(|secret| &secret.name).eq(names) {
            return Err(ClientError::NotUnderstood(
                "it holds other secrets than those asked for",
            ));
        }
        Ok(Self {
            secrets,
            cursor: cursor(&values.cursor)?,
        })
    }
}

impl SecretBody {
    fn into_value(self) -> Result<ResolvedValue, ClientError> {
        let not_understood = ClientError::not_understood;
        Ok(ResolvedValue {
            id: SecretId::parse(&self.id).map_err(not_understood("an ID is wrong"))?,
            name: SecretName::parse(&self.name).map_err(not_understood("a name is wrong"))?,
            value: SecretValue::parse(self.value).map_err(not_understood("a value is wrong"))?,
            version: self.version,
        })
    }
}

fn wiped<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<String>, D::Error> {
    String::deserialize(from).map(Zeroizing::new)
}

fn json<'body, T: Deserialize<'body>>(
    body: &'body [u8],
    otherwise: &'static str,
) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(ClientError::not_understood(otherwise))
}

pub(super) fn cursor(text: &str) -> Result<Cursor, ClientError> {
    Cursor::parse(text).map_err(ClientError::not_understood("a cursor is wrong"))
}

/// The body of a `resolve`.
#[expect(clippy::expect_used, reason = "strings always become JSON")]
pub(super) fn resolve_request(
    owner: Option<&Owner>,
    names: &[SecretName],
    min_cursor: Option<Cursor>,
) -> String {
    #[derive(Serialize)]
    struct RequestBody<'asked> {
        #[serde(skip_serializing_if = "Option::is_none")]
        owner: Option<&'asked Owner>,
        names: &'asked [SecretName],
        #[serde(skip_serializing_if = "Option::is_none")]
        min_cursor: Option<String>,
    }
    let request = RequestBody {
        owner,
        names,
        min_cursor: min_cursor.map(|cursor| cursor.to_string()),
    };
    serde_json::to_string(&request).expect("a struct of strings becomes JSON")
}

/// The `type` of an error's envelope; `None` for anything else, such as a proxy's page of HTML.
pub(super) fn error_type(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct EnvelopeBody {
        r#type: String,
    }
    let EnvelopeBody { r#type } = serde_json::from_slice(body).ok()?;
    let plain = (1..=64).contains(&r#type.len())
        && r#type.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    plain.then_some(r#type)
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
        let bad = EventPage::read(br#"{"events":[],"next":null}"#);
        assert!(matches!(bad, Err(ClientError::NotUnderstood(_))));
    }

    #[test]
    fn a_checkpoint_is_of_the_log_asked_for() {
        let hash = "ab".repeat(HASH_BYTES);
        let body = format!(
            r#"{{"log":"changes","epoch":1,"position":7,"hash":"{hash}","cursor":"1-7","signature":"s"}}"#
        );
        let head = checkpoint(body.as_bytes(), Log::Changes).unwrap();
        assert_eq!((head.position, head.hash), (7, [0xab; HASH_BYTES]));
        assert!(checkpoint(body.as_bytes(), Log::Activity).is_err());
        let short = body.replace(&hash, "abcd");
        assert!(checkpoint(short.as_bytes(), Log::Changes).is_err());
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
        assert!(read(&["B", "A"]).is_err());
        assert!(read(&["A"]).is_err());
    }

    #[test]
    fn a_request_holds_what_was_given() {
        let names = [SecretName::parse("A").unwrap()];
        let owner = Owner::parse("alice").unwrap();
        let whole = resolve_request(Some(&owner), &names, Cursor::parse("1-2").ok());
        let expected = r#"{"owner":"alice","names":["A"],"min_cursor":"1-2"}"#;
        assert_eq!(whole, expected);
        assert_eq!(resolve_request(None, &names, None), r#"{"names":["A"]}"#);
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
