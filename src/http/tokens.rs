//! An owner's own tokens: list, create, revoke. No token gives more than its maker has.

use std::time::Duration;

use actix_web::{HttpResponse, web::Bytes};
use chrono::Utc;
use serde::Serialize;
use zeroize::Zeroizing;

use super::{
    envelope::ItemKind,
    error::{ApiError, Bug},
    fields::{Faults, Field, Fields, GivenNumber},
    json, json_bytes,
    request::{Call, HandlerResult},
};
use crate::{
    auth::Token,
    domain::{
        Grant, Grantee, MOST_NAMED, NamedSecrets, Outcome, Scope, Timestamp, TokenChange, Work,
    },
    store::StoredToken,
};

/// How long a token lasts unless its maker says otherwise: 90 days.
const USUAL: Duration = Duration::from_hours(90 * 24);
/// How long a token may last: 100 years.
const LONGEST: Duration = Duration::from_hours(100 * 366 * 24);
/// The most characters of a label.
const LABEL: usize = 200;

/// `GET /api/v1/tokens`
pub(super) async fn list(call: Call<'_>) -> HandlerResult {
    let tokens = call.state.authenticator.tokens_of(&call.owner).await?;
    let tokens: Vec<_> = tokens
        .iter()
        .filter(|token| shows(&call, token))
        .map(|token| ListedToken {
            shown: TokenAnswer::new(&token.id, &token.grant),
            last_used_at: token.last_used_at,
        })
        .collect();
    let total = tokens.len();
    json(&mut HttpResponse::Ok(), &TokenList { tokens, total })
}

/// `POST /api/v1/tokens`
pub(super) async fn create(mut call: Call<'_>) -> HandlerResult {
    call.json_only()?;
    let known = ["label", "scopes", "secrets", "expires_in"];
    let request = TokenRequest::read(call.object(&known).await?)?;
    let grant = request.granted(&call)?;
    let token = Token::generate().map_err(|error| ApiError::Internal(error.into()))?;
    let answer = NewToken {
        token: token.expose(),
        shown: TokenAnswer::new(token.id(), &grant),
    };
    let mut body = Zeroizing::new(Vec::with_capacity(4096));
    serde_json::to_writer(&mut *body, &answer)?;
    let authenticator = &call.state.authenticator;
    let change = authenticator.adding(&token, grant, call.context());
    commit(&call, change).await?;
    // Wiped once it is sent.
    let body = Bytes::from_owner(body);
    Ok(json_bytes(&mut HttpResponse::Created(), body))
}

/// `DELETE /api/v1/tokens/{token_id}`; a body is not looked at.
pub(super) async fn revoke(call: Call<'_>) -> HandlerResult {
    let authenticator = &call.state.authenticator;
    let id = call.secret_id.unwrap_or_default();
    let found = authenticator.token_of(&call.owner, id).await?;
    let token = found
        .filter(|token| shows(&call, token))
        .ok_or(ApiError::NotFound)?;
    let now = Timestamp::from(Utc::now());
    let change = authenticator.revoking(token.clone(), now, call.context());
    commit(&call, change).await?;
    authenticator.forget_token(&token);
    Ok(HttpResponse::NoContent().finish())
}

/// A narrowed token does not learn what the others are narrowed to.
fn shows(call: &Call<'_>, token: &StoredToken) -> bool {
    call.principal.secrets.include(&token.grant.secrets)
}

async fn commit(call: &Call<'_>, change: TokenChange) -> Result<(), ApiError> {
    let work = Work::Token(Box::new(change));
    let committer = &call.state.committer;
    let (ticket, pending) = committer.reserve(Some(&call.caller), work.bytes())?;
    ticket.commit(work);
    match call.settle(pending).await? {
        Outcome::Recorded => Ok(()),
        Outcome::Changed(_) | Outcome::Set(..) | Outcome::Replayed(_) => {
            Err(Bug::WrongOutcome.into())
        }
    }
}

/// The body of `create_token`.
struct TokenRequest {
    label: String,
    scopes: Vec<Scope>,
    /// None: what the caller has.
    secrets: Option<NamedSecrets>,
    expires_in: GivenNumber,
}

impl TokenRequest {
    fn read(mut fields: Fields) -> Result<Self, ApiError> {
        let mut faults = Faults::default();
        let label = fields.optional("label", &mut faults, |text| {
            if text.chars().count() > LABEL {
                return Err(ItemKind::StringTooLong);
            }
            if text.chars().any(char::is_control) {
                return Err(ItemKind::StringPatternMismatch);
            }
            Ok(text.as_str().to_owned())
        });
        let scopes = scopes(&mut fields, &mut faults);
        let secrets = fields.list("secrets", MOST_NAMED, &mut faults, |field, entry| {
            let Field::Text(text) = field else {
                return entry.note(Err(ItemKind::StringType));
            };
            entry.note(NamedSecrets::parse(&[text.as_str()]).map_err(Into::into))
        });
        let expires_in = fields.given_number("expires_in", &mut faults);
        if let Some(GivenNumber::Number(seconds)) = expires_in
            && !(1..=LONGEST.as_secs()).contains(&seconds)
        {
            faults.note::<()>("expires_in", Err(ItemKind::ValueError));
        }
        match (label, scopes, secrets, expires_in) {
            (Some(label), Some(scopes), Some(secrets), Some(expires_in)) if faults.is_empty() => {
                Ok(Self {
                    label: label.unwrap_or_default(),
                    scopes,
                    secrets: secrets.as_deref().map(NamedSecrets::union),
                    expires_in,
                })
            }
            _ => Err(faults.into()),
        }
    }

    /// What the new token grants.
    ///
    /// # Errors
    /// [`ApiError::Forbidden`] when that would be more than the caller has.
    fn granted(self, call: &Call<'_>) -> Result<Grant, ApiError> {
        let caller = &call.principal;
        let now = Utc::now();
        let after = |span| Timestamp::from(now + span);
        let end = match (self.expires_in, caller.expires_at) {
            // Nothing was asked for, so the caller's own end is no refusal.
            (GivenNumber::Absent, end) => {
                end.map_or(Some(after(USUAL)), |end| Some(after(USUAL).min(end)))
            }
            (GivenNumber::Null, _) => None,
            (GivenNumber::Number(seconds), _) => Some(after(Duration::from_secs(seconds))),
        };
        let in_time = match (end, caller.expires_at) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(end), Some(latest)) => end <= latest,
        };
        let secrets = self.secrets.unwrap_or_else(|| caller.secrets.clone());
        let has_all = self
            .scopes
            .iter()
            .all(|scope| caller.scopes.contains(scope));
        if !in_time || !has_all || !caller.secrets.include(&secrets) {
            return Err(ApiError::Forbidden);
        }
        Ok(Grant {
            grantee: Grantee::Owner(call.owner.clone()),
            scopes: self.scopes,
            label: self.label,
            created_at: Timestamp::from(now),
            expires_at: end,
            networks: caller.networks.clone(),
            secrets,
        })
    }
}

fn scopes(fields: &mut Fields, faults: &mut Faults) -> Option<Vec<Scope>> {
    let mut seen = Vec::new();
    let scopes = fields.list("scopes", Scope::ALL.len(), faults, |field, entry| {
        let Field::Text(text) = field else {
            return entry.note(Err(ItemKind::StringType));
        };
        // The error lists the names for a person at a shell.
        let scope = entry.note(text.parse::<Scope>().or(Err(ItemKind::Enum)))?;
        if seen.contains(&scope) {
            return entry.note(Err(ItemKind::ValueError));
        }
        seen.push(scope);
        Some(scope)
    })?;
    scopes.or_else(|| faults.note("scopes", Err(ItemKind::Missing)))
}

/// A token as it is shown: never its secret.
#[derive(Debug, Serialize)]
struct TokenAnswer<'a> {
    id: &'a str,
    label: &'a str,
    scopes: &'a [Scope],
    /// None: all.
    secrets: Option<Vec<String>>,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
}

impl<'a> TokenAnswer<'a> {
    fn new(id: &'a str, grant: &'a Grant) -> Self {
        // Exhaustive: a new field of a grant does not compile until someone decides about it.
        let Grant {
            grantee: _,
            scopes,
            label,
            created_at,
            expires_at,
            networks: _,
            secrets,
        } = grant;
        Self {
            id,
            label,
            scopes,
            secrets: (!secrets.is_all()).then(|| secrets.to_list()),
            created_at: *created_at,
            expires_at: *expires_at,
        }
    }
}

/// A token that was made, shown this once.
#[derive(Serialize)]
struct NewToken<'a> {
    token: &'a str,
    #[serde(flatten)]
    shown: TokenAnswer<'a>,
}

/// A token in the list.
#[derive(Debug, Serialize)]
struct ListedToken<'a> {
    #[serde(flatten)]
    shown: TokenAnswer<'a>,
    /// To a minute; none if it was never used.
    last_used_at: Option<Timestamp>,
}

/// An owner's tokens.
#[derive(Debug, Serialize)]
struct TokenList<'a> {
    tokens: Vec<ListedToken<'a>>,
    total: usize,
}
