//! `rekey token create|list|revoke`: API tokens.

use std::{sync::Arc, time::Duration};

use chrono::Utc;
use clap::{ArgGroup, Args, Subcommand};
use ipnet::IpNet;
use serde_json::json;

use super::{
    CommandError, database, print, print_either, say,
    span::{self, DAYS, HOURS, MINUTES, SECONDS},
};
use crate::{
    auth::{Token, issue},
    crypto::MacKey,
    domain::{
        ActsFor, Agent, Grant, Grantee, NamedSecrets, Networks, Owner, ParseError, Scope, Timestamp,
    },
    settings::Settings,
    store::{Admin, Missing, Revocation, RevokedTokens, StoredToken, TokenRows, Whose},
};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Create a token and print it; it is shown only once.
    #[command(
        after_help = "An owner's token acts for that owner, a service's token for the owners named with --act-for.\n\n\
                      Example:\n  rekey token create --owner alice --scope secrets:read --expires-in 30d --cidr 10.0.0.0/8\n  \
                      rekey token create --service audit --act-for '*' --scope events:read --expires-in never"
    )]
    Create(CreateOptions),
    /// List all tokens, without their secrets.
    #[command(after_help = "Example:\n  rekey token list --json")]
    List,
    /// Revoke a token, or all of an owner's or a service's; within 5 seconds every replica refuses them.
    #[command(
        after_help = "Example:\n  rekey token revoke cT7GYNiWH7HaIAQO\n  rekey token revoke --owner alice"
    )]
    Revoke(RevokeOptions),
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["id", "owner", "service"]))]
pub(super) struct RevokeOptions {
    /// The token's ID: the part after `rekey_`, up to the next underscore.
    id: Option<String>,
    /// All tokens of this owner. (Those of services that act for the owner are the services'.)
    #[arg(long, value_parser = Owner::parse)]
    owner: Option<Owner>,
    /// All tokens of the service of this name.
    #[arg(long)]
    service: Option<String>,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose").required(true).args(["owner", "service"]))]
pub(super) struct CreateOptions {
    /// The owner that the token acts for.
    #[arg(long, value_parser = Owner::parse)]
    owner: Option<Owner>,
    /// The service that uses the token.
    #[arg(long, requires = "act_for")]
    service: Option<String>,
    /// An owner that the service may act for, or `*` for all; repeat it for more.
    #[arg(long, value_name = "OWNER", conflicts_with = "owner")]
    act_for: Vec<String>,
    /// A scope: secrets:read, secrets:write, secrets:resolve, tokens:write or events:read; repeat it for more.
    #[arg(long, required = true, value_name = "SCOPE")]
    scope: Vec<Scope>,
    /// How long the token is valid: a number with s, m, h or d, or `never` for one that does not expire.
    #[arg(long, value_name = "TIME", value_parser = lifetime, default_value = "90d")]
    expires_in: Lifetime,
    /// A network, such as 10.0.0.0/8, or an address from which the token may be used; repeat it for more. From
    /// anywhere unless given.
    #[arg(long, value_name = "NETWORK", value_parser = network)]
    cidr: Vec<IpNet>,
    /// The name of a secret, or a prefix of names with `*` at its end, that the token may read, resolve and change;
    /// repeat it for more. All of the owner's unless given.
    #[arg(long, value_name = "NAME", value_parser = secret_name)]
    secret: Vec<String>,
    /// A label, to recognise the token later.
    #[arg(long, default_value = "")]
    label: String,
}

/// How long a token is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lifetime {
    Span(Duration),
    Endless,
}

/// `90d`, `12h`, `30m`, `45s`, `never`.
fn lifetime(text: &str) -> Result<Lifetime, &'static str> {
    const LONGEST: Duration = Duration::from_hours(100 * 366 * 24);
    if text == "never" {
        return Ok(Lifetime::Endless);
    }
    span::parse(text, &[SECONDS, MINUTES, HOURS, DAYS])
        .filter(|span| !span.is_zero() && *span <= LONGEST)
        .map(Lifetime::Span)
        .ok_or(
            "must be a number from 1 with s, m, h or d, such as 90d, and at most 100 years, or `never`",
        )
}

fn network(text: &str) -> Result<IpNet, &'static str> {
    // The parser's error says less.
    Networks::parse_one(text).map_err(|_less: ParseError| {
        "must be a network, such as 10.0.0.0/8 or 2001:db8::/32, without bits beyond its prefix, or an address"
    })
}

fn secret_name(text: &str) -> Result<String, &'static str> {
    // As for a network.
    let one = NamedSecrets::parse(&[text]).map_err(|_less: ParseError| {
        "must be the name of a secret, such as OPENAI_API_KEY, or a prefix of names, such as 'OPENAI_*'"
    })?;
    Ok(one.to_list().concat())
}

pub(super) async fn run(
    settings: &Settings,
    command: TokenCommand,
    as_json: bool,
) -> Result<(), CommandError> {
    let admin = database::open(settings, Missing::Refuse).await?;
    let key = database::token_mac(settings, &admin).await?;
    match command {
        TokenCommand::Create(options) => {
            let token = Token::generate()?;
            let row = options.row(&token)?;
            admin.add_token(row, &key, Agent::OPERATOR).await?;
            let data = json!({"id": token.id(), "token": token.expose()});
            print_either(as_json, data, token.expose())?;
        }
        TokenCommand::List => {
            let TokenRows { good, forged } = admin.tokens(&key).await?;
            list(&good, as_json)?;
            if forged > 0 {
                say(&format!(
                    "{forged} more rows of api_tokens were not written by rekey, or were changed: they are no tokens"
                ));
            }
        }
        TokenCommand::Revoke(options) => revoke(&admin, &key, options, as_json).await?,
    }
    admin.close().await;
    Ok(())
}

async fn revoke(
    admin: &Admin,
    key: &Arc<MacKey>,
    options: RevokeOptions,
    as_json: bool,
) -> Result<(), CommandError> {
    let now = Timestamp::from(Utc::now());
    let whose = match (options.id, options.owner, options.service) {
        (Some(id), ..) => {
            return match admin.revoke_token(&id, key, now, Agent::OPERATOR).await? {
                Revocation::Done => Ok(()),
                Revocation::NotActive => Err("no active token has this ID".into()),
                Revocation::Forged => Err(
                    "the row with this ID was not written by rekey, or was changed: it is no token"
                        .into(),
                ),
            };
        }
        (None, Some(owner), _) => Whose::Owner(owner),
        (None, None, Some(service)) => Whose::Service(service),
        (None, None, None) => return Err("an ID, --owner or --service must be given".into()),
    };
    let RevokedTokens { tokens, forged } = admin
        .revoke_tokens(whose, key, now, Agent::OPERATOR)
        .await?;
    if forged > 0 {
        say(&format!(
            "{forged} rows of this name were not written by rekey, or were changed: they are no tokens"
        ));
    }
    if tokens.is_empty() {
        return Err("there is no active token of this name".into());
    }
    let ids: Vec<_> = tokens.into_iter().map(|token| token.id).collect();
    let lines = ids.join("\n");
    print_either(as_json, json!({"revoked": ids}), &lines)
}

impl CreateOptions {
    /// The token as the database has it.
    fn row(self, token: &Token) -> Result<StoredToken, CommandError> {
        let grantee = match (self.owner, self.service) {
            (Some(owner), _) => Grantee::Owner(owner),
            (None, Some(name)) => Grantee::Service {
                name,
                acts_for: ActsFor::parse(&self.act_for)
                    .map_err(|error| format!("--act-for: an owner {error}"))?,
            },
            (None, None) => return Err("either --owner or --service must be given".into()),
        };
        let now = Utc::now();
        let expires_at = match self.expires_in {
            Lifetime::Span(span) => Some(Timestamp::from(now + span)),
            Lifetime::Endless => None,
        };
        let grant = Grant {
            grantee,
            scopes: self.scope,
            label: self.label,
            created_at: Timestamp::from(now),
            expires_at,
            networks: Networks::new(self.cidr),
            secrets: NamedSecrets::parse(&self.secret)
                .map_err(|error| format!("--secret: {error}"))?,
        };
        Ok(issue(token, grant))
    }
}

fn list(tokens: &[StoredToken], as_json: bool) -> Result<(), CommandError> {
    if as_json {
        let list: Vec<_> = tokens.iter().map(to_json).collect();
        return print(json!({"tokens": list}));
    }
    for token in tokens {
        let grant = &token.grant;
        let whose = match &grant.grantee {
            Grantee::Owner(owner) => format!("owner {}", owner.as_str()),
            Grantee::Service { name, acts_for } => {
                format!("service {name} for {}", acts_for.to_list().join(", "))
            }
        };
        let end = match (token.revoked_at, grant.expires_at) {
            (Some(time), _) => format!("revoked {time}"),
            (None, Some(time)) => format!("expires {time}"),
            (None, None) => "does not expire".to_owned(),
        };
        let scopes: Vec<_> = grant.scopes.iter().map(|scope| scope.as_str()).collect();
        let scopes = scopes.join(" ");
        let networks = grant.networks.to_list();
        let from = if networks.is_empty() {
            String::new()
        } else {
            format!("  from {}", networks.join(", "))
        };
        let secrets = grant.secrets.to_list();
        let only = if secrets.is_empty() {
            String::new()
        } else {
            format!("  only {}", secrets.join(", "))
        };
        print(format!(
            "{}  {whose}  [{scopes}]  {end}{from}{only}  {}",
            token.id, grant.label
        ))?;
    }
    Ok(())
}

fn to_json(token: &StoredToken) -> serde_json::Value {
    let StoredToken {
        id,
        digest: _,
        grant,
        revoked_at,
        last_used_at,
    } = token;
    let acts_for = grant.grantee.acts_for().map(ActsFor::to_list);
    json!({
        "id": id, "kind": grant.grantee.kind(), "name": grant.grantee.name(),
        // An owner's token has an empty list.
        "acts_for": acts_for.unwrap_or_default(),
        "scopes": grant.scopes, "label": grant.label, "created_at": grant.created_at,
        "expires_at": grant.expires_at, "revoked_at": revoked_at, "cidr": grant.networks.to_list(),
        "secrets": grant.secrets.to_list(),
        "last_used_at": last_used_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        let span = |span| Ok(Lifetime::Span(span));
        assert_eq!(lifetime("90d"), span(Duration::from_hours(90 * 24)));
        assert_eq!(lifetime("1s"), span(Duration::from_secs(1)));
        assert_eq!(lifetime("never"), Ok(Lifetime::Endless));
        for bad in ["", "d", "0d", "-1d", "1w", "1.5h", "36601d", "1é", "Never"] {
            assert!(lifetime(bad).is_err(), "{bad}");
        }
        assert!(lifetime("99999999999999999999d").is_err());
    }
}
