//! What a token grants: to whom, for which owners, and what they may do.

use std::{net::IpAddr, str::FromStr};

use ipnet::IpNet;
use serde::{Serialize, Serializer};

use super::{NamedSecrets, Owner, ParseError, Timestamp};

/// What stands for all owners.
const ALL: &str = "*";

/// The owners that a service's token acts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ActsFor {
    /// Every owner; rows and events hold `*`.
    All,
    /// These owners, in the order in which they were given.
    Owners(Vec<Owner>),
}

impl ActsFor {
    /// Reads a list of owners. A `*` in it stands for all of them.
    ///
    /// # Errors
    /// What [`Owner::parse`] says.
    pub(crate) fn parse<T: AsRef<str>>(list: &[T]) -> Result<Self, ParseError> {
        if list.iter().any(|one| one.as_ref() == ALL) {
            return Ok(Self::All);
        }
        let owners = list.iter().map(|one| Owner::parse(one.as_ref()));
        Ok(Self::Owners(owners.collect::<Result<_, _>>()?))
    }

    /// Whether it includes an owner.
    #[must_use]
    pub(crate) fn covers(&self, owner: &Owner) -> bool {
        match self {
            Self::All => true,
            Self::Owners(owners) => owners.contains(owner),
        }
    }

    /// The list that [`ActsFor::parse`] reads.
    #[must_use]
    pub(crate) fn to_list(&self) -> Vec<&str> {
        match self {
            Self::All => vec![ALL],
            Self::Owners(owners) => owners.iter().map(Owner::as_str).collect(),
        }
    }
}

impl Serialize for ActsFor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.to_list())
    }
}

/// Whose token it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Grantee {
    /// An owner's: it acts for that owner.
    Owner(Owner),
    /// A service's: it acts for owners.
    Service {
        /// The service's name.
        name: String,
        /// The owners that it acts for.
        acts_for: ActsFor,
    },
}

impl Grantee {
    /// `owner` or `service`, as rows and events hold it.
    #[must_use]
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Owner(_) => "owner",
            Self::Service { .. } => "service",
        }
    }

    /// The owner's or the service's name.
    #[must_use]
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Owner(owner) => owner.as_str(),
            Self::Service { name, .. } => name,
        }
    }

    /// The owner, if it is one.
    #[must_use]
    pub(crate) const fn owner(&self) -> Option<&Owner> {
        match self {
            Self::Owner(owner) => Some(owner),
            Self::Service { .. } => None,
        }
    }

    /// The owners that a service acts for; nothing for an owner.
    #[must_use]
    pub(crate) const fn acts_for(&self) -> Option<&ActsFor> {
        match self {
            Self::Owner(_) => None,
            Self::Service { acts_for, .. } => Some(acts_for),
        }
    }
}

/// Where a token may be used from: these networks, or anywhere where there are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Networks(Vec<IpNet>);

impl Networks {
    /// Limits a token to these networks.
    #[must_use]
    pub(crate) const fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Reads one network, or an address as the network of itself.
    ///
    /// # Errors
    /// [`ParseError::Pattern`] for anything else, also for a network whose address has bits beyond its prefix: it
    /// says two things.
    pub(crate) fn parse_one(text: &str) -> Result<IpNet, ParseError> {
        let network = text.parse::<IpNet>().ok();
        network
            .or_else(|| Some(text.parse::<IpAddr>().ok()?.into()))
            .filter(|network| network.trunc() == *network)
            .ok_or(ParseError::Pattern)
    }

    /// Whether a token may be used from an address. One of unknown address may use those tokens alone that have no
    /// limit.
    #[must_use]
    pub(crate) fn include(&self, address: Option<IpAddr>) -> bool {
        let among = |address: IpAddr| self.0.iter().any(|one| one.contains(&address));
        self.0.is_empty() || address.is_some_and(|address| among(address.to_canonical()))
    }

    /// The networks as text, in the order in which they were given.
    #[must_use]
    pub(crate) fn to_list(&self) -> Vec<String> {
        self.0.iter().map(IpNet::to_string).collect()
    }
}

/// A scope of an API token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    /// See secrets, without values.
    SecretsRead,
    /// Create, update and delete secrets.
    SecretsWrite,
    /// Read values.
    SecretsResolve,
    /// Create, list and revoke the owner's tokens.
    TokensWrite,
    /// Read events.
    EventsRead,
}

/// No scope has that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be secrets:read, secrets:write, secrets:resolve, tokens:write or events:read")]
pub(crate) struct UnknownScope;

impl Scope {
    /// All scopes.
    pub(crate) const ALL: [Self; 5] = [
        Self::SecretsRead,
        Self::SecretsWrite,
        Self::SecretsResolve,
        Self::TokensWrite,
        Self::EventsRead,
    ];

    /// The name in rows, events and options.
    #[must_use]
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::SecretsRead => "secrets:read",
            Self::SecretsWrite => "secrets:write",
            Self::SecretsResolve => "secrets:resolve",
            Self::TokensWrite => "tokens:write",
            Self::EventsRead => "events:read",
        }
    }
}

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or(UnknownScope)
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What a token grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Whose the token is.
    pub grantee: Grantee,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// A label, to recognise the token later; may be empty.
    pub label: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it expires; never, if there is no such time.
    pub expires_at: Option<Timestamp>,
    /// Where it may be used from.
    pub networks: Networks,
    /// The secrets that it is narrowed to.
    pub secrets: NamedSecrets,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_alone_is_all_owners() {
        let all = ActsFor::parse(&["*"]).unwrap();
        assert_eq!(all, ActsFor::All);
        assert!(all.covers(&Owner::parse("anyone").unwrap()));
        assert_eq!(all.to_list(), ["*"]);
    }

    #[test]
    fn a_list_covers_its_owners_and_keeps_their_order() {
        let list = ActsFor::parse(&["bob", "alice"]).unwrap();
        assert_eq!(list.to_list(), ["bob", "alice"]);
        assert!(list.covers(&Owner::parse("alice").unwrap()));
        assert!(!list.covers(&Owner::parse("*").unwrap()));
        assert_eq!(serde_json::to_string(&list).unwrap(), r#"["bob","alice"]"#);
    }

    #[test]
    fn networks_include_their_addresses_and_no_networks_include_all() {
        let read = |list: &[&str]| {
            let list = list.iter().map(|one| Networks::parse_one(one).unwrap());
            Networks::new(list.collect())
        };
        let networks = read(&["10.0.0.0/8", "192.0.2.1", "2001:db8::/32"]);
        assert_eq!(
            networks.to_list(),
            ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"]
        );
        let from = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        for good in ["10.1.2.3", "::ffff:10.1.2.3", "192.0.2.1", "2001:db8::7"] {
            assert!(networks.include(from(good)), "{good}");
        }
        for bad in ["11.0.0.1", "192.0.2.2", "2001:db9::1", "::1"] {
            assert!(!networks.include(from(bad)), "{bad}");
        }
        assert!(!networks.include(None));
        assert!(read(&[]).include(None) && read(&[]).include(from("11.0.0.1")));
        for bad in [
            "",
            "10.0.0.1/8",
            "10.0.0.0/33",
            "10.0.0",
            "localhost",
            "::/0 ",
        ] {
            assert_eq!(Networks::parse_one(bad), Err(ParseError::Pattern), "{bad}");
        }
    }

    #[test]
    fn a_star_beside_owners_is_all_owners_too() {
        for list in [&["*", "alice"][..], &["alice", "*"], &["*", "*"]] {
            assert_eq!(ActsFor::parse(list), Ok(ActsFor::All), "{list:?}");
        }
        assert_eq!(ActsFor::parse(&["_"]), Err(ParseError::NotAllowed));
        // A list of no owners covers none.
        let none = ActsFor::parse::<&str>(&[]).unwrap();
        assert!(!none.covers(&Owner::parse("alice").unwrap()));
    }
}
