//! An event on the wire.

use chrono::DateTime;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

/// Owner bytes outside `[A-Za-z0-9_-]` are percent-encoded in routing keys.
const OWNER: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-');

/// The body of an event is not what rekey writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log holds an event that can't be read")]
pub struct MessageError;

/// A message ready to be published. It has exactly the fields of the event that routing and CloudEvents
/// need; the body is the log's own bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Vec<u8>,
}

#[derive(Deserialize)]
struct Wire {
    id: String,
    r#type: String,
    owner: String,
    secret_id: String,
    name: String,
    sequence: u64,
    occurred_at: String,
}

impl Message {
    /// The message of an event of the log `changes`, from its canonical bytes.
    ///
    /// # Errors
    /// [`MessageError`] when the bytes are not such an event.
    pub fn of_change(body: Vec<u8>) -> Result<Self, MessageError> {
        let event: Wire = serde_json::from_slice(&body).or(Err(MessageError))?;
        let owner = utf8_percent_encode(&event.owner, OWNER);
        // At most 15 + 3 × 64 + 1 + 36 bytes: a short string holds 255.
        let routing_key =
            ShortString::from(format!("{}.{owner}.{}", event.r#type, event.secret_id));
        let seconds = DateTime::parse_from_rfc3339(&event.occurred_at)
            .ok()
            .and_then(|time| u64::try_from(time.timestamp()).ok())
            .ok_or(MessageError)?;
        let headers = [
            ("cloudEvents:specversion", "1.0".to_owned()),
            ("cloudEvents:id", event.id.clone()),
            ("cloudEvents:type", event.r#type.clone()),
            (
                "cloudEvents:source",
                format!("/secrets/{}", event.secret_id),
            ),
            ("cloudEvents:subject", event.name),
            ("cloudEvents:time", event.occurred_at),
            ("cloudEvents:sequence", format!("{:020}", event.sequence)),
            ("cloudEvents:partitionkey", event.secret_id),
            (
                "cloudEvents:dataschema",
                "urn:rekey:secret-event:1".to_owned(),
            ),
        ];
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
        }
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_message_id(event.id.into())
            .with_type(event.r#type.into())
            .with_timestamp(seconds)
            .with_app_id("rekey".into())
            .with_headers(table);
        Ok(Self {
            routing_key,
            properties,
            body,
        })
    }

    /// The routing key: `secret.<verb>.<owner>.<secret_id>`.
    #[must_use]
    pub fn routing_key(&self) -> &str {
        self.routing_key.as_str()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(owner: &str) -> Vec<u8> {
        serde_json::to_vec(&serde_json::json!({
            "id": "0198f3c2-7a10-7cc0-8000-00000000abcd", "type": "secret.updated", "owner": owner,
            "secret_id": "0198f3c2-7a10-7cc0-8000-000000000001", "name": "OPENAI_API_KEY",
            "sequence": 9, "occurred_at": "2026-04-15T12:00:00.000000Z",
        }))
        .unwrap()
    }

    #[test]
    fn the_routing_key_names_verb_owner_and_secret() {
        let key = |owner| {
            Message::of_change(body(owner))
                .unwrap()
                .routing_key()
                .to_owned()
        };
        let id = "0198f3c2-7a10-7cc0-8000-000000000001";
        assert_eq!(key("alice"), format!("secret.updated.alice.{id}"));
        assert_eq!(
            key("a.b *#é"),
            format!("secret.updated.a%2Eb%20%2A%23%C3%A9.{id}")
        );
        assert_eq!(key(&"é".repeat(32)).len(), 15 + 3 * 64 + 1 + 36);
    }

    #[test]
    fn properties_are_those_of_cloud_events_in_binary_mode() {
        let message = Message::of_change(body("alice")).unwrap();
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
    fn a_body_that_is_no_event_is_refused() {
        assert_eq!(
            Message::of_change(b"{}".to_vec()).unwrap_err(),
            MessageError
        );
    }
}
