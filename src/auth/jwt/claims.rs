//! The claims of a token: read strictly, then held against the rules of the settings.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};
use serde_json::Value;

use crate::{
    auth::authenticator::Principal,
    domain::{Agent, AgentKind, Grantee, NamedSecrets, Networks, Owner, Scope, Timestamp},
};

/// The most bytes of a subject that is no owner's name itself.
const SUBJECT: usize = 512;

/// The members of an object.
pub(super) type Members = BTreeMap<String, Value>;

/// An object without a repeated member.
struct Distinct(Members);

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DistinctVisitor)
    }
}

struct DistinctVisitor;

impl<'de> Visitor<'de> for DistinctVisitor {
    type Value = Distinct;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Distinct, A::Error> {
        let mut members = Members::new();
        while let Some((name, value)) = map.next_entry()? {
            if members.insert(name, value).is_some() {
                return Err(de::Error::custom("a member is repeated"));
            }
        }
        Ok(Distinct(members))
    }
}

/// Reads an object; none when it is anything else, or repeats a member.
pub(super) fn members(json: &[u8]) -> Option<Members> {
    let distinct: Distinct = serde_json::from_slice(json).ok()?;
    Some(distinct.0)
}

/// The claims of RFC 7519 that are needed, each of the type that it says.
#[derive(Debug)]
pub(super) struct ReadClaims<'a> {
    issuer: &'a str,
    subject: &'a str,
    audience: Vec<&'a str>,
    expires_at: Timestamp,
    not_before: Option<Timestamp>,
    scope: &'a str,
    all: &'a Members,
}

impl<'a> ReadClaims<'a> {
    /// None when one is absent, or of another type.
    pub(super) fn read(all: &'a Members) -> Option<Self> {
        let text = |name| all.get(name).map(Value::as_str);
        let time = |name| all.get(name).map(moment);
        // They are not needed, and still must be what they are said to be.
        if text("jti") == Some(None) || time("iat") == Some(None) {
            return None;
        }
        let audience = match all.get("aud")? {
            Value::String(one) => vec![one.as_str()],
            Value::Array(list) => list.iter().map(Value::as_str).collect::<Option<_>>()?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
        };
        Some(Self {
            issuer: text("iss")??,
            subject: text("sub")??,
            audience,
            expires_at: time("exp")??,
            not_before: match time("nbf") {
                None => None,
                Some(time) => Some(time?),
            },
            scope: text("scope").unwrap_or(Some(""))?,
            all,
        })
    }
}

/// A `NumericDate`: seconds since 1970, also with a fraction.
fn moment(value: &Value) -> Option<Timestamp> {
    const MICROS: f64 = 1e6;
    // Beyond 2^53 microseconds (the year 2255) seconds are what counts.
    let seconds = value.as_f64().filter(|s| (0.0..1e12).contains(s))?;
    #[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
    let micros = (seconds * MICROS) as i64;
    Some(Timestamp::from_micros(micros))
}

/// One entry of `auth.claims`: who a token with this claim is, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClaimRule {
    /// The claim.
    pub(crate) claim: String,
    /// What it must be, or, with a `*` at the end, begin with.
    pub(crate) value: String,
    /// The owner.
    pub(crate) owner: Owner,
    /// The scopes.
    pub(crate) scopes: Vec<Scope>,
}

impl ClaimRule {
    fn holds(&self, claims: &ReadClaims<'_>) -> bool {
        let Some(given) = claims.all.get(&self.claim).and_then(Value::as_str) else {
            return false;
        };
        match self.value.strip_suffix('*') {
            Some(beginning) => given.starts_with(beginning),
            None => given == self.value,
        }
    }
}

/// What a token must say.
#[derive(Debug, Clone)]
pub(crate) struct JwtRules {
    /// Its `iss`.
    pub(crate) issuer: String,
    /// One of its `aud`.
    pub(crate) audience: String,
    /// Who it is, by the first that holds. Where there is none, `sub` is the owner and `scope` has the scopes.
    pub(crate) claims: Vec<ClaimRule>,
}

impl JwtRules {
    /// The principal of a token of these claims, at a time.
    pub(super) fn admit(
        &self,
        claims: &ReadClaims<'_>,
        now: Timestamp,
        leeway: Duration,
    ) -> Option<Principal> {
        let ours =
            claims.issuer == self.issuer && claims.audience.contains(&self.audience.as_str());
        let leeway = i64::try_from(leeway.as_micros()).ok()?;
        let ends = claims.expires_at.micros().saturating_add(leeway);
        let begins = claims.not_before.map_or(i64::MIN, Timestamp::micros);
        let in_time = now.micros() < ends && begins <= now.micros().saturating_add(leeway);
        let subject = claims.subject;
        let plain = !subject.is_empty()
            && subject.len() <= SUBJECT
            && !subject.chars().any(char::is_control);
        if !(ours && in_time && plain) {
            return None;
        }
        let (owner, scopes) = if self.claims.is_empty() {
            // Scopes of other services are none of ours.
            let scopes = claims.scope.split(' ').filter_map(|name| name.parse().ok());
            (Owner::parse(subject).ok()?, scopes.collect())
        } else {
            let rule = self.claims.iter().find(|rule| rule.holds(claims))?;
            (rule.owner.clone(), rule.scopes.clone())
        };
        Some(Principal {
            agent: Agent {
                id: Some(subject.to_owned()),
                kind: AgentKind::Jwt,
            },
            grantee: Grantee::Owner(owner),
            scopes,
            networks: Networks::default(),
            secrets: NamedSecrets::ALL,
            expires_at: Some(claims.expires_at),
        })
    }
}
