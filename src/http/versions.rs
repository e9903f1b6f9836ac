//! A secret's versions: those that are kept, and one of them restored.

use actix_web::{HttpResponse, http::StatusCode};
use serde::Serialize;

use super::{
    envelope::{ItemKind, Location},
    error::{ApiError, Bug},
    fields::{Faults, Fields},
    idempotency::only,
    json,
    request::{Call, HandlerResult},
    secrets::show,
};
use crate::{
    actor::RequestedChange,
    domain::{Applied, IfMatch, Mask, Secret, SecretId, VersionName},
    store::{KeptVersion, Source},
};

/// `GET /api/v1/user/secrets/{secret_id}/versions`
pub(super) async fn list(call: Call<'_>) -> HandlerResult {
    let id = call.secret_id()?;
    let secret = see(&call, id).await?;
    let kept = call.state.reader.versions(&call.owner, id).await?;
    let versions = kept
        .ok_or(ApiError::NotFound)?
        .into_iter()
        .map(|kept| {
            let mask = call.state.sealer.open_mask(&call.owner, id, &kept.mask);
            let mask = mask.map_err(|error| ApiError::Internal(error.into()))?;
            Ok(ShownVersion::new(kept, &mask))
        })
        .collect::<Result<Vec<_>, ApiError>>()?;
    let list = VersionList {
        total: versions.len(),
        versions,
        expires_at: secret.expires_at().map(|at| at.to_string()),
    };
    json(&mut HttpResponse::Ok(), &list)
}

/// `POST /api/v1/user/secrets/{secret_id}/restore`
pub(super) async fn restore(mut call: Call<'_>) -> HandlerResult {
    let id = call.secret_id()?;
    call.json_only()?;
    let if_match = call.if_match()?;
    call.idempotency_key()?;
    let version = version(call.object(&["version"]).await?)?;
    let reader = &call.state.reader;
    let sealed = match reader.version(&call.owner, id, version).await? {
        Source::Kept(sealed) => sealed,
        missing @ (Source::NoSecret | Source::NotKept { .. }) => {
            // The restore itself may have pushed it out, or come before a deletion.
            if let Some(applied) = call.answered().await?.and_then(only) {
                return answer(&call, applied, &Mask::hidden()).await;
            }
            see(&call, id).await?;
            return Err(refusal(&missing, if_match.as_ref()));
        }
    };
    let opened = call.state.sealer.open_value(&call.owner, id, &sealed);
    let value = opened.map_err(|error| ApiError::Internal(error.into()))?;
    let mask = Mask::of(&value);
    let change = RequestedChange::Update {
        value,
        mask: mask.clone(),
        restored_from: Some(VersionName {
            version,
            version_id: sealed.version_id,
        }),
        if_match,
    };
    let applied = call.submit(id, change).await?;
    answer(&call, applied, &mask).await
}

async fn answer(call: &Call<'_>, applied: Applied, mask: &Mask) -> HandlerResult {
    let Applied::Updated(secret) = applied else {
        return Err(Bug::WrongOutcome.into());
    };
    let mask = call.shown_mask(&secret, mask).await?;
    show(StatusCode::OK, secret, &mask)
}

/// The secret, if it is not absent to the caller.
async fn see(call: &Call<'_>, id: SecretId) -> Result<Secret, ApiError> {
    let row = call.state.reader.get(&call.owner, id).await?;
    let seen = row.filter(|(secret, _)| call.covers(&secret.name));
    seen.map(|(secret, _)| secret).ok_or(ApiError::NotFound)
}

/// Reads the body of `restore_secret`.
fn version(mut fields: Fields) -> Result<u64, ApiError> {
    let mut faults = Faults::default();
    let version = fields.number("version", &mut faults);
    version.ok_or_else(|| faults.into())
}

/// Why a version that is not there can't be restored, in the order of the contract.
fn refusal(missing: &Source, if_match: Option<&IfMatch>) -> ApiError {
    match (missing, if_match) {
        (Source::NotKept { current }, Some(precondition)) if !precondition.holds(*current) => {
            ApiError::PreconditionFailed { version: *current }
        }
        (Source::NotKept { .. }, _) => {
            let place = [Location::BODY, Location::Name("version")];
            ApiError::fault(place, ItemKind::NotFound)
        }
        (Source::NoSecret | Source::Kept(_), _) => ApiError::NotFound,
    }
}

/// A version as it is shown: never its value.
#[derive(Debug, Serialize)]
struct ShownVersion {
    version: u64,
    masked_value: String,
    created_at: String,
    created_by: serde_json::Value,
    state: &'static str,
}

impl ShownVersion {
    fn new(kept: KeptVersion, mask: &Mask) -> Self {
        let KeptVersion {
            name,
            mask: _,
            created_by,
            created_at,
            is_current,
        } = kept;
        Self {
            version: name.version,
            masked_value: mask.as_str().to_owned(),
            created_at: created_at.to_string(),
            created_by,
            state: if is_current { "current" } else { "previous" },
        }
    }
}

/// The versions of one secret.
#[derive(Debug, Serialize)]
struct VersionList {
    /// Newest first.
    versions: Vec<ShownVersion>,
    /// How many there are.
    total: usize,
    /// When the secret expires.
    expires_at: Option<String>,
}
