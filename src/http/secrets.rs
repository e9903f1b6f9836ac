//! The caller's secrets: list, create, get, update, delete.

use actix_web::{
    HttpResponse,
    http::{StatusCode, header},
};
use serde::Serialize;
use uuid::Uuid;

use super::{
    conditional::etag,
    envelope::ItemKind,
    error::{ApiError, Bug},
    fields::{Faults, Fields},
    json,
    request::{Call, HandlerResult},
};
use crate::{
    actor::RequestedChange,
    domain::{Applied, Mask, Provider, SealedMask, Secret, SecretId, SecretName, SecretValue},
    settings::ReservedName,
};

/// `GET /api/v1/user/secrets`
pub(super) async fn list(call: Call<'_>) -> HandlerResult {
    let rows = call.state.reader.list(&call.owner).await?;
    let secrets = rows
        .into_iter()
        .filter(|(secret, _)| call.covers(&secret.name))
        .map(|(secret, sealed)| {
            let mask = open(&call, &secret, &sealed)?;
            Ok(UserSecret::new(secret, &mask))
        })
        .collect::<Result<Vec<_>, ApiError>>()?;
    let total = secrets.len();
    let list = UserSecretList { secrets, total };
    json(&mut HttpResponse::Ok(), &list)
}

/// `GET /api/v1/user/secrets/{secret_id}`
pub(super) async fn get(call: Call<'_>) -> HandlerResult {
    let id = call.secret_id()?;
    let row = call.state.reader.get(&call.owner, id).await?;
    let row = row.filter(|(secret, _)| call.covers(&secret.name));
    let (secret, sealed) = row.ok_or(ApiError::NotFound)?;
    let mask = open(&call, &secret, &sealed)?;
    show(StatusCode::OK, secret, &mask)
}

/// `POST /api/v1/user/secrets`
pub(super) async fn create(mut call: Call<'_>) -> HandlerResult {
    call.json_only()?;
    call.idempotency_key()?;
    let fields = call.object(&["name", "value", "provider"]).await?;
    let reserved = &call.state.settings.limits.reserved_names;
    let (name, provider, value) = new_secret(fields, reserved)?;
    create_as(&call, name, provider, value).await
}

/// Creates a secret whose parts are known to be good.
pub(super) async fn create_as(
    call: &Call<'_>,
    name: SecretName,
    provider: Option<Provider>,
    value: SecretValue,
) -> HandlerResult {
    let mask = Mask::of(&value);
    let id = SecretId::new(Uuid::now_v7());
    let change = RequestedChange::Create {
        name,
        provider,
        value,
        mask: mask.clone(),
    };
    match call.submit(id, change).await? {
        Applied::Created(secret) => {
            let mask = call.shown_mask(&secret, &mask).await?;
            show(StatusCode::CREATED, secret, &mask)
        }
        Applied::Updated(_) | Applied::ExpirySet(_) | Applied::Announced | Applied::Deleted => {
            Err(Bug::WrongOutcome.into())
        }
    }
}

/// `PUT /api/v1/user/secrets/{secret_id}`
pub(super) async fn update(mut call: Call<'_>) -> HandlerResult {
    let id = call.secret_id()?;
    call.json_only()?;
    let if_match = call.if_match()?;
    call.idempotency_key()?;
    let value = new_value(call.object(&["value"]).await?)?;
    let mask = Mask::of(&value);
    let change = RequestedChange::Update {
        value,
        mask: mask.clone(),
        restored_from: None,
        if_match,
    };
    match call.submit(id, change).await? {
        Applied::Updated(secret) => {
            let mask = call.shown_mask(&secret, &mask).await?;
            show(StatusCode::OK, secret, &mask)
        }
        Applied::Created(_) | Applied::ExpirySet(_) | Applied::Announced | Applied::Deleted => {
            Err(Bug::WrongOutcome.into())
        }
    }
}

/// `DELETE /api/v1/user/secrets/{secret_id}`; a body is not looked at.
pub(super) async fn delete(call: Call<'_>) -> HandlerResult {
    let id = call.secret_id()?;
    let if_match = call.if_match()?;
    call.idempotency_key()?;
    call.note_request(&[]);
    match call
        .submit(id, RequestedChange::Delete { if_match })
        .await?
    {
        Applied::Deleted => Ok(HttpResponse::NoContent().finish()),
        Applied::Created(_) | Applied::Updated(_) | Applied::ExpirySet(_) | Applied::Announced => {
            Err(Bug::WrongOutcome.into())
        }
    }
}

fn open(call: &Call<'_>, secret: &Secret, sealed: &SealedMask) -> Result<Mask, ApiError> {
    let mask = call.state.sealer.open_mask(&call.owner, secret.id, sealed);
    mask.map_err(|error| ApiError::Internal(error.into()))
}

/// The answer that shows one secret.
pub(super) fn show(status: StatusCode, secret: Secret, mask: &Mask) -> HandlerResult {
    let mut answer = HttpResponse::build(status);
    answer.insert_header((header::ETAG, etag(secret.version)));
    if status == StatusCode::CREATED {
        let location = format!("/api/v1/user/secrets/{}", secret.id);
        answer.insert_header((header::LOCATION, location));
    }
    json(&mut answer, &UserSecret::new(secret, mask))
}

/// A secret as it is shown: never its value.
#[derive(Debug, Serialize)]
pub(super) struct UserSecret {
    /// When it was made.
    created_at: String,
    /// Its ID.
    id: SecretId,
    /// What may be shown of its value.
    masked_value: String,
    /// Environment variable name, stored upper-cased
    name: SecretName,
    /// The service that it is for.
    provider: Option<Provider>,
    /// When it last changed.
    updated_at: String,
}

impl UserSecret {
    /// A secret as its mask shows it.
    pub(super) fn new(secret: Secret, mask: &Mask) -> Self {
        // Exhaustive: a new field of a secret does not compile until someone decides about it.
        let Secret {
            id,
            owner: _,
            name,
            provider,
            version: _,
            version_id: _,
            sequence: _,
            created_at,
            updated_at,
            expiry: _,
        } = secret;
        Self {
            created_at: created_at.to_string(),
            id,
            masked_value: mask.as_str().to_owned(),
            name,
            provider,
            updated_at: updated_at.to_string(),
        }
    }
}

/// All secrets of the caller.
#[derive(Debug, Serialize)]
pub(super) struct UserSecretList {
    /// By `created_at`, then `id`.
    secrets: Vec<UserSecret>,
    /// How many there are.
    total: usize,
}

/// Reads the body of `create_secret`.
fn new_secret(
    mut fields: Fields,
    reserved: &[ReservedName],
) -> Result<(SecretName, Option<Provider>, SecretValue), ApiError> {
    let mut faults = Faults::default();
    let name = fields.required("name", &mut faults, |text| free_name(&text, reserved));
    let value = fields.required("value", &mut faults, SecretValue::parse);
    let provider = fields.optional("provider", &mut faults, |text| Provider::parse(&text));
    match (name, provider, value) {
        (Some(name), Some(provider), Some(value)) => Ok((name, provider, value)),
        _ => Err(faults.into()),
    }
}

/// A name that a secret may have.
fn free_name(text: &str, reserved: &[ReservedName]) -> Result<SecretName, ItemKind> {
    let name = SecretName::parse(text)?;
    if reserved.iter().any(|entry| entry.covers(name.as_str())) {
        return Err(ItemKind::ValueError);
    }
    Ok(name)
}

/// Reads the body of `update_secret`.
fn new_value(mut fields: Fields) -> Result<SecretValue, ApiError> {
    let mut faults = Faults::default();
    let value = fields.required("value", &mut faults, SecretValue::parse);
    value.ok_or_else(|| faults.into())
}
