//! An event in its place: its body in canonical form (RFC 8785), and its link of the hash chain.

use serde::{Serialize, Serializer, ser::SerializeStruct};

use super::{
    AccessEvent, ChangeEvent, DeniedEvent, EpochEvent, Event, EventKind, HASH_BYTES, KeyEvent,
    LockdownEvent, Log, TokenEvent,
};

/// The members that hold hashes, with 64 zeros where the lower-case hex goes. No string of a body can hold
/// these bytes: a quote inside a string is escaped.
const HASH_MEMBER: &str =
    r#""hash":"0000000000000000000000000000000000000000000000000000000000000000","#;
const PREV_HASH_MEMBER: &str =
    r#""prev_hash":"0000000000000000000000000000000000000000000000000000000000000000","#;
const NO_HASH: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// An event in its place, as the log keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlacedEvent {
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
    pub(crate) fn place(
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
        to.serialize_field("client", &event.origin.client)?;
        to.serialize_field("epoch", &self.epoch)?;
        to.serialize_field("expires_at", &event.expires_at)?;
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
        to.serialize_field("restored_from", &event.restored_from)?;
        to.serialize_field("secret_id", &event.secret_id)?;
        to.serialize_field("sequence", &event.sequence)?;
        to.serialize_field("server_request_id", &event.origin.server_request_id)?;
        to.serialize_field("type", &event.kind)?;
        to.serialize_field("version", &event.version)?;
        to.serialize_field("version_id", &event.version_id)
    }

    fn access<S: SerializeStruct>(&self, event: &AccessEvent, to: &mut S) -> Result<(), S::Error> {
        to.serialize_field("actor", &event.actor)?;
        to.serialize_field("client", &event.origin.client)?;
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
        to.serialize_field("server_request_id", &event.origin.server_request_id)?;
        to.serialize_field("type", &EventKind::Accessed)?;
        to.serialize_field("version", &event.version)?;
        to.serialize_field("version_id", &event.version_id)
    }

    fn token<S: SerializeStruct>(&self, event: &TokenEvent, to: &mut S) -> Result<(), S::Error> {
        to.serialize_field("actor", &event.actor)?;
        to.serialize_field("acts_for", &event.grantee.acts_for())?;
        to.serialize_field("client", &event.origin.client)?;
        to.serialize_field("epoch", &self.epoch)?;
        to.serialize_field("expires_at", &event.expires_at)?;
        to.serialize_field("hash", NO_HASH)?;
        to.serialize_field("id", &event.id)?;
        to.serialize_field("log", &Log::Activity)?;
        to.serialize_field("occurred_at", &event.occurred_at)?;
        to.serialize_field("owner", &event.grantee.owner())?;
        to.serialize_field("position", &self.position)?;
        to.serialize_field("prev_hash", NO_HASH)?;
        to.serialize_field("request_id", &event.request_id)?;
        to.serialize_field("scopes", &event.scopes)?;
        to.serialize_field("server_request_id", &event.origin.server_request_id)?;
        to.serialize_field("token_id", &event.token_id)?;
        to.serialize_field("token_kind", event.grantee.kind())?;
        to.serialize_field("type", &event.kind)
    }

    fn key<S: SerializeStruct>(&self, event: &KeyEvent, to: &mut S) -> Result<(), S::Error> {
        to.serialize_field("actor", &event.actor)?;
        to.serialize_field("client", &())?;
        to.serialize_field("epoch", &self.epoch)?;
        to.serialize_field("hash", NO_HASH)?;
        to.serialize_field("id", &event.id)?;
        to.serialize_field("key_id", &event.key_id)?;
        to.serialize_field("log", &Log::Activity)?;
        to.serialize_field("occurred_at", &event.occurred_at)?;
        to.serialize_field("owner", &())?;
        to.serialize_field("position", &self.position)?;
        to.serialize_field("prev_hash", NO_HASH)?;
        // Keys are made on the command line.
        to.serialize_field("request_id", &())?;
        to.serialize_field("server_request_id", &())?;
        to.serialize_field("type", &EventKind::KeyAdded)
    }

    /// In the log `changes` with every field of a change, all null.
    fn epoch<S: SerializeStruct>(&self, event: &EpochEvent, to: &mut S) -> Result<(), S::Error> {
        let change = event.log == Log::Changes;
        let nulls = |names: &[&'static str], to: &mut S| {
            let names = names.iter().filter(|_| change);
            names
                .copied()
                .try_for_each(|name| to.serialize_field(name, &()))
        };
        to.serialize_field("actor", &event.actor)?;
        nulls(&["change_set"], to)?;
        to.serialize_field("client", &())?;
        to.serialize_field("epoch", &self.epoch)?;
        nulls(&["expires_at"], to)?;
        to.serialize_field("hash", NO_HASH)?;
        to.serialize_field("id", &event.id)?;
        to.serialize_field("log", &event.log)?;
        nulls(&["name"], to)?;
        to.serialize_field("occurred_at", &event.occurred_at)?;
        to.serialize_field("owner", &())?;
        to.serialize_field("position", &self.position)?;
        to.serialize_field("prev_hash", NO_HASH)?;
        to.serialize_field("previous_epoch", &event.previous_epoch)?;
        nulls(&["previous_version", "provider"], to)?;
        // The epoch is raised on the command line.
        to.serialize_field("request_id", &())?;
        nulls(&["restored_from", "secret_id", "sequence"], to)?;
        to.serialize_field("server_request_id", &())?;
        to.serialize_field("type", &EventKind::EpochRaised)?;
        nulls(&["version", "version_id"], to)
    }

    fn denied<S: SerializeStruct>(&self, event: &DeniedEvent, to: &mut S) -> Result<(), S::Error> {
        let denial = &event.denial;
        to.serialize_field("actor", &denial.agent)?;
        to.serialize_field("client", &denial.origin.client)?;
        to.serialize_field("epoch", &self.epoch)?;
        to.serialize_field("hash", NO_HASH)?;
        to.serialize_field("id", &denial.event_id)?;
        to.serialize_field("left_out", &denial.left_out)?;
        to.serialize_field("log", &Log::Activity)?;
        to.serialize_field("method", &denial.method)?;
        to.serialize_field("occurred_at", &event.occurred_at)?;
        to.serialize_field("owner", &denial.owner)?;
        to.serialize_field("position", &self.position)?;
        to.serialize_field("prev_hash", NO_HASH)?;
        to.serialize_field("request_id", &denial.request_id)?;
        to.serialize_field("route", &denial.route)?;
        to.serialize_field("server_request_id", &denial.origin.server_request_id)?;
        to.serialize_field("status", &denial.status)?;
        to.serialize_field("token_id", &denial.token_id)?;
        to.serialize_field("type", &EventKind::AccessDenied)
    }

    fn lockdown<S: SerializeStruct>(
        &self,
        event: &LockdownEvent,
        to: &mut S,
    ) -> Result<(), S::Error> {
        to.serialize_field("actor", &event.actor)?;
        to.serialize_field("client", &())?;
        to.serialize_field("epoch", &self.epoch)?;
        to.serialize_field("hash", NO_HASH)?;
        to.serialize_field("id", &event.id)?;
        to.serialize_field("log", &Log::Activity)?;
        to.serialize_field("occurred_at", &event.occurred_at)?;
        to.serialize_field("owner", &())?;
        to.serialize_field("position", &self.position)?;
        to.serialize_field("prev_hash", NO_HASH)?;
        // It is done on the command line.
        to.serialize_field("request_id", &())?;
        to.serialize_field("server_request_id", &())?;
        to.serialize_field("type", &event.kind)
    }
}

impl Serialize for Body<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = match self.event {
            Event::Change(_) => 23,
            Event::Access(_) | Event::Token(_) | Event::Denied(_) => 18,
            Event::Key(_) => 14,
            Event::Epoch(event) if event.log == Log::Activity => 14,
            Event::Epoch(_) => 24,
            Event::Lockdown(_) => 13,
        };
        let mut to = serializer.serialize_struct("Event", fields)?;
        match self.event {
            Event::Change(event) => self.change(event, &mut to)?,
            Event::Access(event) => self.access(event, &mut to)?,
            Event::Token(event) => self.token(event, &mut to)?,
            Event::Key(event) => self.key(event, &mut to)?,
            Event::Epoch(event) => self.epoch(event, &mut to)?,
            Event::Denied(event) => self.denied(event, &mut to)?,
            Event::Lockdown(event) => self.lockdown(event, &mut to)?,
        }
        to.end()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use uuid::Uuid;

    use super::*;
    use crate::domain::{
        ActsFor, Agent, ChangeSetId, ChangeSetMember, Denial, EventId, Grantee, Origin, Owner,
        Provider, RequestId, Scope, SecretId, SecretName, Timestamp, VersionId,
    };

    fn change() -> Event {
        Event::Change(ChangeEvent {
            expires_at: None,
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
            origin: Origin::default(),
            // A name that looks like a member of the body is only a string in it.
            owner: Owner::parse(r#""hash":"000","prev_hash":"0"#).unwrap(),
            previous_version: Some(1),
            provider: None,
            request_id: None,
            restored_from: None,
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
            origin: Origin {
                client: Some(Ipv6Addr::LOCALHOST.into()),
                server_request_id: Some(Uuid::from_u128(5)),
            },
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
            expires_at: None,
            grantee: Grantee::Service {
                name: "s".to_owned(),
                acts_for: ActsFor::All,
            },
            id: EventId::new(Uuid::from_u128(1)),
            kind: EventKind::TokenCreated,
            occurred_at: Timestamp::from_micros(1),
            origin: Origin::default(),
            request_id: None,
            scopes: vec![Scope::EventsRead],
            token_id: "t".to_owned(),
        })
    }

    fn denied() -> Event {
        Event::Denied(DeniedEvent {
            denial: Denial {
                event_id: EventId::new(Uuid::from_u128(1)),
                agent: None,
                owner: Some(Owner::parse("alice").unwrap()),
                token_id: Some("t".to_owned()),
                origin: Origin::default(),
                request_id: None,
                method: Some("GET"),
                route: None,
                status: 401,
                left_out: 7,
            },
            occurred_at: Timestamp::from_micros(1),
        })
    }

    fn lockdown() -> Event {
        Event::Lockdown(LockdownEvent {
            actor: Agent::OPERATOR,
            id: EventId::new(Uuid::from_u128(1)),
            kind: EventKind::LockdownOn,
            occurred_at: Timestamp::from_micros(1),
        })
    }

    #[test]
    fn a_placed_body_is_canonical_and_its_hash_covers_all_but_the_hashes() {
        for event in [change(), access(), token(), denied(), lockdown()] {
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
