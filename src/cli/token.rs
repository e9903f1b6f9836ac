//! `rekey token create|list|revoke`: API tokens.

use std::{process::ExitCode, time::Duration};

use chrono::Utc;
use clap::{ArgGroup, Args, Subcommand};
use serde_json::json;

use super::{CommandError, database, print};
use crate::{
    auth::{Scope, Token, UnknownScope, issue},
    domain::{Agent, Owner, Timestamp},
    settings::Settings,
    store::{Missing, StoredToken, TokenKind},
};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Make a token and print it, this once.
    Create(Create),
    /// Show all tokens, without their secrets.
    List,
    /// Revoke a token: every replica refuses it within 5 seconds.
    Revoke {
        /// The token's ID: the part after `rekey_`.
        id: String,
    },
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("whose").required(true).args(["owner", "service"]))]
pub(super) struct Create {
    /// The owner that the token acts for.
    #[arg(long, value_parser = Owner::parse)]
    owner: Option<Owner>,
    /// The service that the token is for.
    #[arg(long, requires = "act_for")]
    service: Option<String>,
    /// An owner that the service acts for, `*` for all; repeat it for several.
    #[arg(long, value_name = "OWNER", conflicts_with = "owner")]
    act_for: Vec<String>,
    /// What the token may do; repeat it for several.
    #[arg(long, required = true, value_name = "SCOPE", value_parser = scope)]
    scope: Vec<Scope>,
    /// When it ends: a number with s, m, h or d.
    #[arg(long, value_name = "TIME", value_parser = span)]
    expires_in: Option<Duration>,
    /// Words to know it again.
    #[arg(long, default_value = "")]
    label: String,
}

fn scope(text: &str) -> Result<Scope, UnknownScope> {
    text.parse()
}

/// `90d`, `12h`, `30m`, `45s`.
fn span(text: &str) -> Result<Duration, &'static str> {
    const ALLOWED: &str = "allowed is a number from 1 with s, m, h or d, at most 100 years";
    const LONGEST: u64 = 100 * 366 * 86_400;
    let mut digits = text.chars();
    let unit = match digits.next_back() {
        Some('s') => 1,
        Some('m') => 60,
        Some('h') => 3600,
        Some('d') => 86_400,
        _ => return Err(ALLOWED),
    };
    let number: u64 = digits.as_str().parse().or(Err(ALLOWED))?;
    let seconds = number.checked_mul(unit).ok_or(ALLOWED)?;
    if (1..=LONGEST).contains(&seconds) {
        Ok(Duration::from_secs(seconds))
    } else {
        Err(ALLOWED)
    }
}

pub(super) async fn run(
    settings: &Settings,
    action: Action,
    as_json: bool,
) -> Result<ExitCode, CommandError> {
    let operator = database::open(settings, Missing::Refuse).await?;
    match action {
        Action::Create(create) => {
            let token = Token::generate()?;
            operator
                .add_token(create.row(&token)?, Agent::OPERATOR)
                .await?;
            if as_json {
                print(&json!({"id": token.id(), "token": token.expose()}).to_string())?;
            } else {
                print(token.expose())?;
            }
        }
        Action::List => list(&operator.tokens().await?, as_json)?,
        Action::Revoke { id } => {
            if !operator
                .revoke_token(&id, Timestamp::from(Utc::now()), Agent::OPERATOR)
                .await?
            {
                return Err("no token of that ID that is not revoked".into());
            }
        }
    }
    operator.close().await;
    Ok(ExitCode::SUCCESS)
}

impl Create {
    fn row(self, token: &Token) -> Result<StoredToken, CommandError> {
        let kind = match (self.owner, self.service) {
            (Some(owner), _) => TokenKind::Owner(owner),
            (None, Some(name)) => {
                for owner in self.act_for.iter().filter(|owner| *owner != "*") {
                    Owner::parse(owner)?;
                }
                TokenKind::Service {
                    name,
                    acts_for: self.act_for,
                }
            }
            (None, None) => return Err("--owner or --service is needed".into()),
        };
        let now = Utc::now();
        let expires_at = self.expires_in.map(|span| Timestamp::from(now + span));
        let times = (Timestamp::from(now), expires_at);
        Ok(issue(token, kind, &self.scope, self.label, times))
    }
}

fn list(tokens: &[StoredToken], as_json: bool) -> Result<(), CommandError> {
    if as_json {
        let list: Vec<_> = tokens.iter().map(described).collect();
        return print(&json!({"tokens": list}).to_string());
    }
    for token in tokens {
        let whose = match &token.kind {
            TokenKind::Owner(owner) => format!("owner {}", owner.as_str()),
            TokenKind::Service { name, acts_for } => {
                format!("service {name} for {}", acts_for.join(", "))
            }
        };
        let end = match (token.revoked_at, token.expires_at) {
            (Some(time), _) => format!("revoked {time}"),
            (None, Some(time)) => format!("expires {time}"),
            (None, None) => "does not expire".to_owned(),
        };
        let scopes = token.scopes.join(" ");
        print(&format!(
            "{}  {whose}  [{scopes}]  {end}  {}",
            token.id, token.label
        ))?;
    }
    Ok(())
}

fn described(token: &StoredToken) -> serde_json::Value {
    let (kind, name, acts_for) = match &token.kind {
        TokenKind::Owner(owner) => ("owner", owner.as_str(), &[][..]),
        TokenKind::Service { name, acts_for } => ("service", name.as_str(), acts_for.as_slice()),
    };
    json!({
        "id": token.id, "kind": kind, "name": name, "acts_for": acts_for,
        "scopes": token.scopes, "label": token.label, "created_at": token.created_at,
        "expires_at": token.expires_at, "revoked_at": token.revoked_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read() {
        assert_eq!(span("90d"), Ok(Duration::from_hours(90 * 24)));
        assert_eq!(span("1s"), Ok(Duration::from_secs(1)));
        for bad in [
            "",
            "d",
            "0d",
            "-1d",
            "1w",
            "1.5h",
            "99999999999999999999d",
            "36601d",
            "1é",
        ] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}
