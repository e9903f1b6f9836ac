//! The events of both logs: what happened to which secret, who read a value, who was given a token. Never
//! a value, nor anything computed from one.
//!
//! An [`Event`] has no place in its log yet. The commit gives it one, and serialises it once, as a
//! [`PlacedEvent`].

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

use super::{
    Agent, ChangeSetId, EventId, Owner, ParseError, Provider, RequestId, SecretId, SecretName,
    Timestamp, VersionId,
};

/// The length of a hash of the chain (BLAKE2b-256), in bytes.
pub const HASH_BYTES: usize = 32;

/// One of the two logs. Each has its own positions and its own chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// What happened to secrets.
    Changes,
    /// Who read values, and who was given access.
    Activity,
}

impl Log {
    /// Both, in the order in which they are locked.
    pub const ALL: [Self; 2] = [Self::Changes, Self::Activity];

    /// The name in tables, queries and events.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changes => "changes",
            Self::Activity => "activity",
        }
    }

    /// Reads a log's name.
    ///
    /// # Errors
    /// [`ParseError::NotAllowed`] when there is no such log.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Self::ALL
            .into_iter()
            .find(|log| log.as_str() == text)
            .ok_or(ParseError::NotAllowed)
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum EventKind {
    /// A secret was created, with version 1.
    #[serde(rename = "secret.created")]
    Created,
    /// A secret has a new value.
    #[serde(rename = "secret.updated")]
    Updated,
    /// A secret was deleted.
    #[serde(rename = "secret.deleted")]
    Deleted,
    /// A value was handed out.
    #[serde(rename = "secret.accessed")]
    Accessed,
    /// An API token was created.
    #[serde(rename = "token.created")]
    TokenCreated,
    /// An API token was revoked.
    #[serde(rename = "token.revoked")]
    TokenRevoked,
}

impl EventKind {
    /// All kinds of both logs.
    pub const ALL: [Self; 6] = [
        Self::Created,
        Self::Updated,
        Self::Deleted,
        Self::Accessed,
        Self::TokenCreated,
        Self::TokenRevoked,
    ];

    /// The type as it stands in the event and in the log's column.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "secret.created",
            Self::Updated => "secret.updated",
            Self::Deleted => "secret.deleted",
            Self::Accessed => "secret.accessed",
            Self::TokenCreated => "token.created",
            Self::TokenRevoked => "token.revoked",
        }
    }
}

/// A change's place in the change set that it is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct ChangeSetMember {
    /// The set.
    pub id: ChangeSetId,
    /// The change's index in it, from 0.
    pub index: usize,
    /// How many changes the set has.
    pub size: usize,
}

/// An event of the log `changes`: `secret.created`, `secret.updated` or `secret.deleted`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeEvent {
    /// Who made the change.
    pub actor: Agent,
    /// The change set that it is part of.
    pub change_set: Option<ChangeSetMember>,
    /// The event's ID.
    pub id: EventId,
    /// What happened.
    pub kind: EventKind,
    /// The secret's name.
    pub name: SecretName,
    /// When it happened: the secret's new `updated_at`.
    pub occurred_at: Timestamp,
    /// The secret's owner.
    pub owner: Owner,
    /// The version before it; none for a new secret.
    pub previous_version: Option<u64>,
    /// The secret's provider.
    pub provider: Option<Provider>,
    /// The request that caused it; none for the command line.
    pub request_id: Option<RequestId>,
    /// The secret.
    pub secret_id: SecretId,
    /// Its place among the secret's changes, from 1.
    pub sequence: u64,
    /// The secret's version after it.
    pub version: u64,
    /// The ID of that version.
    pub version_id: VersionId,
}

/// `secret.accessed`: a value was handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessEvent {
    /// Who got it.
    pub actor: Agent,
    /// The event's ID.
    pub id: EventId,
    /// The secret's name.
    pub name: SecretName,
    /// When the record was committed.
    pub occurred_at: Timestamp,
    /// The secret's owner.
    pub owner: Owner,
    /// The secret's provider.
    pub provider: Option<Provider>,
    /// The request that got it.
    pub request_id: Option<RequestId>,
    /// The secret.
    pub secret_id: SecretId,
    /// The version handed out.
    pub version: u64,
    /// The ID of that version.
    pub version_id: VersionId,
}

/// `token.created` and `token.revoked`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenEvent {
    /// Who did it.
    pub actor: Agent,
    /// The owners that a service's token acts for; none for an owner's token.
    pub acts_for: Option<Vec<String>>,
    /// When the token expires.
    pub expires_at: Option<Timestamp>,
    /// The event's ID.
    pub id: EventId,
    /// What happened.
    pub kind: EventKind,
    /// When it happened.
    pub occurred_at: Timestamp,
    /// The token's owner; none for a service's token.
    pub owner: Option<Owner>,
    /// What the token may do.
    pub scopes: Vec<String>,
    /// The token's public ID.
    pub token_id: String,
    /// `owner` or `service`.
    pub token_kind: &'static str,
}

/// An event of either log, without a place in it yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A change of a secret.
    Change(ChangeEvent),
    /// A value was handed out.
    Access(AccessEvent),
    /// A token was created or revoked.
    Token(TokenEvent),
}

impl Event {
    /// The log that it belongs to.
    #[must_use]
    pub fn log(&self) -> Log {
        match self {
            Self::Change(_) => Log::Changes,
            Self::Access(_) | Self::Token(_) => Log::Activity,
        }
    }

    /// Its ID.
    #[must_use]
    pub fn id(&self) -> EventId {
        match self {
            Self::Change(event) => event.id,
            Self::Access(event) => event.id,
            Self::Token(event) => event.id,
        }
    }

    /// What happened.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        match self {
            Self::Change(event) => event.kind,
            Self::Access(_) => EventKind::Accessed,
            Self::Token(event) => event.kind,
        }
    }

    /// When it happened.
    #[must_use]
    pub fn occurred_at(&self) -> Timestamp {
        match self {
            Self::Change(event) => event.occurred_at,
            Self::Access(event) => event.occurred_at,
            Self::Token(event) => event.occurred_at,
        }
    }
}

/// The members that hold hashes, with 64 zeros where the lower-case hex goes. No string of a body can hold
/// these bytes: a quote inside a string is escaped.
const HASH_MEMBER: &str =
    r#""hash":"0000000000000000000000000000000000000000000000000000000000000000","#;
const PREV_HASH_MEMBER: &str =
    r#""prev_hash":"0000000000000000000000000000000000000000000000000000000000000000","#;
const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// An event in its place, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedEvent {
    /// What happened.
    pub event: Event,
    /// The log's epoch.
    pub epoch: u64,
    /// Its place in the log, from 1.
    pub position: u64,
    /// The exact RFC 8785 bytes, both hashes included.
    pub body: Vec<u8>,
    /// Its link of the chain.
    pub hash: [u8; HASH_BYTES],
}

impl Event {
    /// Puts the event in its place, after an event with the hash `previous`. The body is serialised once:
    /// `digest` hashes the parts around both hashes, which are then written into it.
    #[must_use]
    pub fn place(
        self,
        epoch: u64,
        position: u64,
        previous: &[u8; HASH_BYTES],
        digest: impl FnOnce(&[&[u8]]) -> [u8; HASH_BYTES],
    ) -> PlacedEvent {
        let mut body = Body {
            event: &self,
            epoch,
            position,
        }
        .to_bytes();
        let own = find(&body, HASH_MEMBER);
        let before = find(&body, PREV_HASH_MEMBER);
        let (start, rest) = body.split_at(own);
        let (middle, end) = rest.split_at(before - own);
        let hash = digest(&[
            previous,
            start,
            middle.split_at(HASH_MEMBER.len()).1,
            end.split_at(PREV_HASH_MEMBER.len()).1,
        ]);
        write_hex(&mut body, own + "\"hash\":\"".len(), &hash);
        write_hex(&mut body, before + "\"prev_hash\":\"".len(), previous);
        PlacedEvent {
            event: self,
            epoch,
            position,
            body,
            hash,
        }
    }
}

/// Where a member begins that every body has.
fn find(body: &[u8], member: &str) -> usize {
    #[expect(
        clippy::expect_used,
        reason = "`Body` writes both members, and neither is the last one"
    )]
    body.windows(member.len())
        .position(|window| window == member.as_bytes())
        .expect("every body has both hashes")
}

/// Writes a hash over its placeholder.
fn write_hex(body: &mut [u8], at: usize, hash: &[u8; HASH_BYTES]) {
    #[expect(
        clippy::expect_used,
        reason = "`find` has found the whole placeholder there"
    )]
    let place = body
        .get_mut(at..at + 2 * HASH_BYTES)
        .expect("a placeholder is 64 bytes");
    #[expect(clippy::expect_used, reason = "32 bytes are 64 hex digits")]
    hex::encode_to_slice(hash, place).expect("the placeholder fits the hash");
}

/// What a body is serialised from, with placeholders for both hashes.
///
/// The fields stand in the order of RFC 8785 (sorted by UTF-16 code units), every name is ASCII, and every
/// number is a whole one below 2^53: so `serde_json` writes the canonical form. (A map would not do: a crate
/// in the tree may switch `serde_json/preserve_order` on.)
struct Body<'a> {
    event: &'a Event,
    epoch: u64,
    position: u64,
}

impl Body<'_> {
    #[expect(
        clippy::expect_used,
        reason = "strings, numbers and null, written to memory, can't fail to serialise"
    )]
    fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an event is always serialisable")
    }

    fn change<S: SerializeStruct>(&self, event: &ChangeEvent, to: &mut S) -> Result<(), S::Error> {
        to.serialize_field("actor", &event.actor)?;
        to.serialize_field("change_set", &event.change_set)?;
        to.serialize_field("epoch", &self.epoch)?;
        to.serialize_field("expires_at", &())?;
        to.serialize_field("hash", NO_HASH)?;
        to.serialize_field("id", &event.id)?;
        to.serialize_field("log", &Log::Changes)?;
        to.serialize_field("name", &event.name)?;
        to.serialize_field("occurred_at", &event.occurred_at)?;
        to.serialize_field("owner", &event.owner)?;
        to.serialize_field("position", &self.position)?;
        to.serialize_field("prev_hash", NO_HASH)?;
        to.serialize_field("previous_version", &event.previous_version)?;
        to.serialize_field("provider", &event.provider)?;
        to.serialize_field("request_id", &event.request_id)?;
        to.serialize_field("restored_from", &())?;
        to.serialize_field("secret_id", &event.secret_id)?;
        to.serialize_field("sequence", &event.sequence)?;
        to.serialize_field("type", &event.kind)?;
        to.serialize_field("version", &event.version)?;
        to.serialize_field("version_id", &event.version_id)
    }

    fn access<S: SerializeStruct>(&self, event: &AccessEvent, to: &mut S) -> Result<(), S::Error> {
        to.serialize_field("actor", &event.actor)?;
        to.serialize_field("epoch", &self.epoch)?;
        to.serialize_field("hash", NO_HASH)?;
        to.serialize_field("id", &event.id)?;
        to.serialize_field("log", &Log::Activity)?;
        to.serialize_field("name", &event.name)?;
        to.serialize_field("occurred_at", &event.occurred_at)?;
        to.serialize_field("owner", &event.owner)?;
        to.serialize_field("position", &self.position)?;
        to.serialize_field("prev_hash", NO_HASH)?;
        to.serialize_field("provider", &event.provider)?;
        to.serialize_field("request_id", &event.request_id)?;
        to.serialize_field("secret_id", &event.secret_id)?;
        to.serialize_field("type", &EventKind::Accessed)?;
        to.serialize_field("version", &event.version)?;
        to.serialize_field("version_id", &event.version_id)
    }

    fn token<S: SerializeStruct>(&self, event: &TokenEvent, to: &mut S) -> Result<(), S::Error> {
        to.serialize_field("actor", &event.actor)?;
        to.serialize_field("acts_for", &event.acts_for)?;
        to.serialize_field("epoch", &self.epoch)?;
        to.serialize_field("expires_at", &event.expires_at)?;
        to.serialize_field("hash", NO_HASH)?;
        to.serialize_field("id", &event.id)?;
        to.serialize_field("log", &Log::Activity)?;
        to.serialize_field("occurred_at", &event.occurred_at)?;
        to.serialize_field("owner", &event.owner)?;
        to.serialize_field("position", &self.position)?;
        to.serialize_field("prev_hash", NO_HASH)?;
        // Tokens are created and revoked on the command line.
        to.serialize_field("request_id", &())?;
        to.serialize_field("scopes", &event.scopes)?;
        to.serialize_field("token_id", &event.token_id)?;
        to.serialize_field("token_kind", event.token_kind)?;
        to.serialize_field("type", &event.kind)
    }
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = match self.event {
            Event::Change(_) => 21,
            Event::Access(_) | Event::Token(_) => 16,
        };
        let mut to = serializer.serialize_struct("Event", fields)?;
        match self.event {
            Event::Change(event) => self.change(event, &mut to)?,
            Event::Access(event) => self.access(event, &mut to)?,
            Event::Token(event) => self.token(event, &mut to)?,
        }
        to.end()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn change() -> Event {
        Event::Change(ChangeEvent {
            actor: Agent::OPERATOR,
            change_set: Some(ChangeSetMember {
                id: ChangeSetId::new(Uuid::from_u128(3)),
                index: 0,
                size: 2,
            }),
            id: EventId::new(Uuid::from_u128(1)),
            kind: EventKind::Updated,
            name: SecretName::parse("A").unwrap(),
            occurred_at: Timestamp::from_micros(1),
            // A name that looks like a member of the body is only a string in it.
            owner: Owner::parse(r#""hash":"000","prev_hash":"0"#).unwrap(),
            previous_version: Some(1),
            provider: None,
            request_id: None,
            secret_id: SecretId::new(Uuid::from_u128(2)),
            sequence: 2,
            version: 2,
            version_id: VersionId::new(Uuid::from_u128(4)),
        })
    }

    fn access() -> Event {
        Event::Access(AccessEvent {
            actor: Agent::SYSTEM,
            id: EventId::new(Uuid::from_u128(1)),
            name: SecretName::parse("A").unwrap(),
            occurred_at: Timestamp::from_micros(1),
            owner: Owner::parse("ä€").unwrap(),
            provider: Some(Provider::parse("p").unwrap()),
            request_id: Some(RequestId::parse("r").unwrap()),
            secret_id: SecretId::new(Uuid::from_u128(2)),
            version: 2,
            version_id: VersionId::new(Uuid::from_u128(4)),
        })
    }

    fn token() -> Event {
        Event::Token(TokenEvent {
            actor: Agent::OPERATOR,
            acts_for: Some(vec!["*".to_owned()]),
            expires_at: None,
            id: EventId::new(Uuid::from_u128(1)),
            kind: EventKind::TokenCreated,
            occurred_at: Timestamp::from_micros(1),
            owner: None,
            scopes: vec!["events:read".to_owned()],
            token_id: "t".to_owned(),
            token_kind: "service",
        })
    }

    #[test]
    fn a_placed_body_is_canonical_and_its_hash_covers_all_but_the_hashes() {
        for event in [change(), access(), token()] {
            let mut hashed = Vec::new();
            let placed = event.place(7, 8, &[0xab; HASH_BYTES], |parts| {
                hashed = parts.concat();
                [0xcd; HASH_BYTES]
            });
            let mut body: serde_json::Value = serde_json::from_slice(&placed.body).unwrap();
            let canonical = serde_json_canonicalizer::to_vec(&body).unwrap();
            assert_eq!(canonical, placed.body);
            let fields = body.as_object_mut().unwrap();
            assert_eq!(fields["epoch"], 7);
            assert_eq!(fields["position"], 8);
            assert_eq!(fields.remove("prev_hash").unwrap(), "ab".repeat(32));
            assert_eq!(fields.remove("hash").unwrap(), "cd".repeat(32));
            let without = serde_json_canonicalizer::to_vec(&body).unwrap();
            assert_eq!(hashed, [vec![0xab; HASH_BYTES], without].concat());
        }
    }
}
