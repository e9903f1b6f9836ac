//! `rekey token create|list|revoke`: API tokens.

use std::time::Duration;

use chrono::Utc;
use clap::{ArgGroup, Args, Subcommand};
use serde_json::json;

use super::{
    CommandError, database, print, print_either, say,
    span::{self, DAYS, HOURS, MINUTES, SECONDS},
};
use crate::{
    auth::{Token, issue},
    domain::{ActsFor, Agent, Grant, Grantee, Owner, Scope, Timestamp},
    settings::Settings,
    store::{Missing, Revocation, StoredToken, TokenRows},
};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Create a token and print it; it is shown only once.
    #[command(
        after_help = "An owner's token acts for that owner, a service's token for the owners named with --act-for.\n\n\
                      Example:\n  rekey token create --owner alice --scope secrets:read --expires-in 90d\n  \
                      rekey token create --service audit --act-for '*' --scope events:read"
    )]
    Create(CreateOptions),
    /// List all tokens, without their secrets.
    #[command(after_help = "Example:\n  rekey token list --json")]
    List,
    /// Revoke a token; within 5 seconds every replica refuses it.
    #[command(after_help = "Example:\n  rekey token revoke cT7GYNiWH7HaIAQO")]
    Revoke {
        /// The token's ID: the part after `rekey_`, up to the next underscore.
        id: String,
    },
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
    /// A scope: secrets:read, secrets:write, secrets:resolve or events:read; repeat it for more.
    #[arg(long, required = true, value_name = "SCOPE")]
    scope: Vec<Scope>,
    /// How long the token is valid: a number with s, m, h or d; for ever unless given.
    #[arg(long, value_name = "TIME", value_parser = time)]
    expires_in: Option<Duration>,
    /// A label, to recognise the token later.
    #[arg(long, default_value = "")]
    label: String,
}

/// `90d`, `12h`, `30m`, `45s`.
fn time(text: &str) -> Result<Duration, &'static str> {
    const LONGEST: Duration = Duration::from_hours(100 * 366 * 24);
    span::parse(text, &[SECONDS, MINUTES, HOURS, DAYS])
        .filter(|span| !span.is_zero() && *span <= LONGEST)
        .ok_or("must be a number from 1 with s, m, h or d, such as 90d, and at most 100 years")
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
        TokenCommand::Revoke { id } => {
            let now = Timestamp::from(Utc::now());
            match admin.revoke_token(&id, &key, now, Agent::OPERATOR).await? {
                Revocation::Done => {}
                Revocation::NotActive => return Err("no active token has this ID".into()),
                Revocation::Forged => {
                    return Err("the row with this ID was not written by rekey, or was changed: it is no token".into());
                }
            }
        }
    }
    admin.close().await;
    Ok(())
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
        let expires_at = self.expires_in.map(|span| Timestamp::from(now + span));
        let grant = Grant {
            grantee,
            scopes: self.scope,
            label: self.label,
            created_at: Timestamp::from(now),
            expires_at,
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
        print(format!(
            "{}  {whose}  [{scopes}]  {end}  {}",
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
    } = token;
    let acts_for = grant.grantee.acts_for().map(ActsFor::to_list);
    json!({
        "id": id, "kind": grant.grantee.kind(), "name": grant.grantee.name(),
        // An owner's token has an empty list.
        "acts_for": acts_for.unwrap_or_default(),
        "scopes": grant.scopes, "label": grant.label, "created_at": grant.created_at,
        "expires_at": grant.expires_at, "revoked_at": revoked_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        assert_eq!(time("90d"), Ok(Duration::from_hours(90 * 24)));
        assert_eq!(time("1s"), Ok(Duration::from_secs(1)));
        for bad in ["", "d", "0d", "-1d", "1w", "1.5h", "36601d", "1é"] {
            assert!(time(bad).is_err(), "{bad}");
        }
        assert!(time("99999999999999999999d").is_err());
    }
}
