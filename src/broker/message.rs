//! An event as a message.

use chrono::DateTime;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

/// Owner bytes outside `[A-Za-z0-9_-]` are percent-encoded in routing keys.
const OWNER: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-');

/// The one event of the log `changes` that is about no secret.
const EPOCH_RAISED: &str = "epoch.raised";

/// The body of an event is not in the form that rekey writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log holds an event that can't be read")]
pub(crate) struct MessageError;

/// A message ready to be published. Its properties and headers come from the event; its body is the exact
/// bytes of the log.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Message {
    /// `secret.<verb>.<owner>.<secret_id>`, `log.epoch_raised`, or
    /// `activity.<type with _ for .>.<owner or _>.<secret, token or key ID, or _>`.
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Vec<u8>,
}

/// The fields of an event of either log that the routing key and the headers need.
#[derive(Deserialize)]
struct EventFields {
    id: String,
    log: String,
    r#type: String,
    owner: Option<String>,
    secret_id: Option<String>,
    token_id: Option<String>,
    key_id: Option<String>,
    name: Option<String>,
    sequence: Option<u64>,
    occurred_at: String,
}

impl EventFields {
    /// The kind of thing that the event is about, as `source` names it, and its ID; nothing for what has none.
    fn subject(&self) -> Option<(&'static str, &str)> {
        let subjects = [
            ("secrets", &self.secret_id),
            ("tokens", &self.token_id),
            ("keys", &self.key_id),
        ];
        let mut named = subjects
            .into_iter()
            .filter_map(|(kind, id)| Some((kind, id.as_deref()?)));
        named.next()
    }

    /// At most 24 + 3 × 64 + 1 + 36 bytes: a short string holds 255.
    fn routing_key(&self) -> Result<String, MessageError> {
        let activity = self.log == "activity";
        let id = match self.subject() {
            Some((_, id)) => id,
            // Activity may be about nothing that has an ID.
            None if activity => "_",
            None if self.r#type == EPOCH_RAISED => return Ok("log.epoch_raised".to_owned()),
            None => return Err(MessageError),
        };
        // `_` means that there is no owner: no owner can have this name.
        let owner = self.owner.as_deref().unwrap_or("_");
        let owner = utf8_percent_encode(owner, OWNER);
        Ok(if activity {
            format!("activity.{}.{owner}.{id}", self.r#type.replace('.', "_"))
        } else {
            format!("{}.{owner}.{id}", self.r#type)
        })
    }

    fn headers(&self, traceparent: Option<String>) -> FieldTable {
        let source = self
            .subject()
            .map_or_else(|| "/log".to_owned(), |(kind, id)| format!("/{kind}/{id}"));
        let schema = if self.log == "activity" {
            "urn:rekey:activity-event:1"
        } else {
            "urn:rekey:secret-event:1"
        };
        let sequence = self.sequence.map(|sequence| format!("{sequence:020}"));
        let headers = [
            ("cloudEvents:specversion", Some("1.0".to_owned())),
            ("cloudEvents:id", Some(self.id.clone())),
            ("cloudEvents:type", Some(self.r#type.clone())),
            ("cloudEvents:source", Some(source)),
            ("cloudEvents:subject", self.name.clone()),
            ("cloudEvents:time", Some(self.occurred_at.clone())),
            ("cloudEvents:sequence", sequence),
            ("cloudEvents:partitionkey", self.secret_id.clone()),
            ("cloudEvents:dataschema", Some(schema.to_owned())),
            ("traceparent", traceparent),
        ];
        let mut table = FieldTable::default();
        for (name, value) in headers {
            if let Some(value) = value {
                table.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
            }
        }
        table
    }
}

impl Message {
    /// Makes a message from an event's canonical bytes and the trace that it is part of.
    ///
    /// # Errors
    /// [`MessageError`] when the bytes are not an event that rekey wrote.
    pub(crate) fn of(body: Vec<u8>, traceparent: Option<String>) -> Result<Self, MessageError> {
        // The message of serde_json would quote the body.
        let event: EventFields = serde_json::from_slice(&body).or(Err(MessageError))?;
        let seconds = DateTime::parse_from_rfc3339(&event.occurred_at)
            .ok()
            .and_then(|time| u64::try_from(time.timestamp()).ok())
            .ok_or(MessageError)?;
        let routing_key = ShortString::from(event.routing_key()?);
        let properties = BasicProperties::default()
            .with_headers(event.headers(traceparent))
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_message_id(event.id.into())
            .with_type(event.r#type.into())
            .with_timestamp(seconds)
            .with_app_id("rekey".into());
        Ok(Self {
            routing_key,
            properties,
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(owner: &str) -> Vec<u8> {
        serde_json::to_vec(&serde_json::json!({
            "id": "0198f3c2-7a10-7cc0-8000-00000000abcd", "log": "changes", "type": "secret.updated", "owner": owner,
            "secret_id": "0198f3c2-7a10-7cc0-8000-000000000001", "name": "OPENAI_API_KEY",
            "sequence": 9, "occurred_at": "2026-04-15T12:00:00.000000Z",
        }))
        .unwrap()
    }

    #[test]
    fn the_routing_key_names_verb_owner_and_secret() {
        let key = |owner| Message::of(body(owner), None).unwrap().routing_key;
        let id = "0198f3c2-7a10-7cc0-8000-000000000001";
        assert_eq!(key("alice").as_str(), format!("secret.updated.alice.{id}"));
        assert_eq!(
            key("a.b *#é").as_str(),
            format!("secret.updated.a%2Eb%20%2A%23%C3%A9.{id}")
        );
        assert_eq!(key(&"é".repeat(32)).as_str().len(), 15 + 3 * 64 + 1 + 36);
    }

    #[test]
    fn properties_are_those_of_cloud_events_in_binary_mode() {
        let message = Message::of(body("alice"), None).unwrap();
        let properties = &message.properties;
        assert_eq!(
            properties.kind().as_ref().unwrap().as_str(),
            "secret.updated"
        );
        assert_eq!(properties.timestamp(), &Some(1_776_254_400));
        assert_eq!(properties.delivery_mode(), &Some(2));
        let headers = properties.headers().as_ref().unwrap().inner();
        assert_eq!(headers.len(), 9);
        let sequence = headers.get("cloudEvents:sequence").unwrap();
        assert_eq!(
            sequence,
            &AMQPValue::LongString("00000000000000000009".into())
        );
    }

    #[test]
    fn activity_is_routed_by_type_owner_and_what_it_is_about() {
        let of = |event: serde_json::Value| {
            Message::of(serde_json::to_vec(&event).unwrap(), Some("00-t".to_owned())).unwrap()
        };
        let token = of(serde_json::json!({
            "id": "i", "log": "activity", "type": "token.created", "owner": null, "token_id": "T1",
            "occurred_at": "2026-04-15T12:00:00.000000Z",
        }));
        assert_eq!(token.routing_key.as_str(), "activity.token_created._.T1");
        let headers = token.properties.headers().as_ref().unwrap().inner();
        let header = |name: &str| {
            headers
                .get(name)
                .map(|v| v.as_long_string().unwrap().to_string())
        };
        assert_eq!(header("cloudEvents:source").unwrap(), "/tokens/T1");
        assert_eq!(
            header("cloudEvents:dataschema").unwrap(),
            "urn:rekey:activity-event:1"
        );
        assert_eq!(header("traceparent").unwrap(), "00-t");
        for absent in ["sequence", "subject", "partitionkey"] {
            assert_eq!(header(&format!("cloudEvents:{absent}")), None);
        }
        let key = of(serde_json::json!({
            "id": "i", "log": "activity", "type": "key.added", "owner": null, "key_id": "token-mac",
            "occurred_at": "2026-04-15T12:00:00.000000Z",
        }));
        assert_eq!(key.routing_key.as_str(), "activity.key_added._.token-mac");
        let refused = |token: Option<&str>| {
            of(serde_json::json!({
                "id": "i", "log": "activity", "type": "access.denied", "owner": null, "token_id": token,
                "occurred_at": "2026-04-15T12:00:00.000000Z",
            }))
        };
        for (message, key, source) in [
            (refused(Some("T1")), "_.T1", "/tokens/T1"),
            (refused(None), "_._", "/log"),
        ] {
            let routing_key = message.routing_key.as_str();
            assert_eq!(routing_key, format!("activity.access_denied.{key}"));
            let headers = message.properties.headers().as_ref().unwrap().inner();
            let found = headers.get("cloudEvents:source").unwrap();
            assert_eq!(found, &AMQPValue::LongString(source.into()));
        }
        let access = of(serde_json::json!({
            "id": "i", "log": "activity", "type": "secret.accessed", "owner": "a b", "secret_id": "S",
            "name": "N", "occurred_at": "2026-04-15T12:00:00.000000Z",
        }));
        assert_eq!(
            access.routing_key.as_str(),
            "activity.secret_accessed.a%20b.S"
        );
    }

    #[test]
    fn what_is_about_the_log_itself_is_routed_as_the_log() {
        for (log, key) in [
            ("changes", "log.epoch_raised"),
            ("activity", "activity.epoch_raised._._"),
        ] {
            let event = serde_json::json!({
                "id": "i", "log": log, "type": "epoch.raised", "owner": null, "secret_id": null,
                "occurred_at": "2026-04-15T12:00:00.000000Z",
            });
            let message = Message::of(serde_json::to_vec(&event).unwrap(), None).unwrap();
            assert_eq!(message.routing_key.as_str(), key);
            let headers = message.properties.headers().as_ref().unwrap().inner();
            let source = headers.get("cloudEvents:source").unwrap();
            assert_eq!(source, &AMQPValue::LongString("/log".into()));
        }
    }

    #[test]
    fn a_body_that_is_no_event_is_refused() {
        assert_eq!(Message::of(b"{}".to_vec(), None).unwrap_err(), MessageError);
    }
}
