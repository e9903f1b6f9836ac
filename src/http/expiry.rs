//! When a secret expires: from then on its value is handed out no more.

use actix_web::HttpResponse;
use serde::Serialize;

use super::{
    envelope::ItemKind,
    error::{ApiError, Bug},
    fields::{Faults, Fields},
    json,
    request::{Call, HandlerResult},
};
use crate::{
    actor::RequestedChange,
    domain::{Applied, IfMatch, Secret, SecretId, Timestamp},
};

/// `GET /api/v1/user/secrets/{secret_id}/expiry`
pub(super) async fn get(call: Call<'_>) -> HandlerResult {
    let id = call.secret_id()?;
    let row = call.state.reader.get(&call.owner, id).await?;
    let row = row.filter(|(secret, _)| call.covers(&secret.name));
    let (secret, _) = row.ok_or(ApiError::NotFound)?;
    show(&secret)
}

/// `PUT /api/v1/user/secrets/{secret_id}/expiry`
pub(super) async fn set(mut call: Call<'_>) -> HandlerResult {
    let id = call.secret_id()?;
    call.json_only()?;
    let if_match = call.if_match()?;
    call.idempotency_key()?;
    let expires_at = time(call.object(&["expires_at"]).await?)?;
    show(&submit(&call, id, (Some(expires_at), if_match)).await?)
}

/// `DELETE /api/v1/user/secrets/{secret_id}/expiry`; a body is not looked at.
pub(super) async fn delete(call: Call<'_>) -> HandlerResult {
    let id = call.secret_id()?;
    let if_match = call.if_match()?;
    call.idempotency_key()?;
    call.note_request(&[]);
    submit(&call, id, (None, if_match)).await?;
    Ok(HttpResponse::NoContent().finish())
}

async fn submit(
    call: &Call<'_>,
    id: SecretId,
    (expires_at, if_match): (Option<Timestamp>, Option<IfMatch>),
) -> Result<Secret, ApiError> {
    let change = RequestedChange::SetExpiry {
        expires_at,
        if_match,
    };
    match call.submit(id, change).await? {
        Applied::ExpirySet(secret) => Ok(secret),
        Applied::Created(_) | Applied::Updated(_) | Applied::Announced | Applied::Deleted => {
            Err(Bug::WrongOutcome.into())
        }
    }
}

/// Reads the body of `set_secret_expiry`.
fn time(mut fields: Fields) -> Result<Timestamp, ApiError> {
    let mut faults = Faults::default();
    let time = fields.required("expires_at", &mut faults, |text| {
        Timestamp::parse(&text).map_err(ItemKind::from)
    });
    time.ok_or_else(|| faults.into())
}

/// When a secret expires.
#[derive(Debug, Serialize)]
struct ExpiryAnswer {
    expires_at: Option<String>,
}

fn show(secret: &Secret) -> HandlerResult {
    let expires_at = secret.expires_at().map(|at| at.to_string());
    json(&mut HttpResponse::Ok(), &ExpiryAnswer { expires_at })
}
