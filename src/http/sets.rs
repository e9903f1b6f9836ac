//! Change sets: several secrets updated in one commit, all or none.

use actix_web::HttpResponse;
use serde::Serialize;
use uuid::Uuid;

use super::{
    envelope::ItemKind,
    error::{ApiError, Bug},
    fields::{Faults, Field, Fields},
    json,
    request::{Call, HandlerResult},
    secrets::UserSecret,
};
use crate::{
    actor::RequestedChange,
    domain::{Applied, ChangeSetId, Mask, SecretId, SecretValue},
};

/// How many secrets a set updates.
const MOST: usize = 50;
/// How many bytes its body may have (4 MiB).
const BODY_BYTES: usize = 4 << 20;

/// `POST /api/v1/user/secrets/batch`
pub(super) async fn update(mut call: Call<'_>) -> HandlerResult {
    call.json_only()?;
    call.idempotency_key()?;
    let fields = call.object_within(BODY_BYTES, &["updates", "id", "value"]);
    let updates = new_values(fields.await?)?;
    call.charge(updates.len())?;
    let id = ChangeSetId::new(Uuid::now_v7());
    let masks: Vec<Mask> = updates.iter().map(|(_, value)| Mask::of(value)).collect();
    let changes = updates.into_iter().zip(&masks).map(|((id, value), mask)| {
        let change = RequestedChange::Update {
            value,
            mask: mask.clone(),
            restored_from: None,
            if_match: None,
        };
        (id, change)
    });
    let (id, applied) = call.submit_set(changes.collect(), id).await?;
    let mut secrets = Vec::with_capacity(applied.len());
    for (applied, own) in applied.into_iter().zip(&masks) {
        let Applied::Updated(secret) = applied else {
            return Err(Bug::WrongOutcome.into());
        };
        let mask = call.shown_mask(&secret, own).await?;
        secrets.push(UserSecret::new(secret, &mask));
    }
    let answer = BatchAnswer {
        total: secrets.len(),
        secrets,
        change_set: id,
    };
    json(&mut HttpResponse::Ok(), &answer)
}

/// A set that was applied.
#[derive(Debug, Serialize)]
struct BatchAnswer {
    secrets: Vec<UserSecret>,
    total: usize,
    change_set: ChangeSetId,
}

/// Reads the body of `update_secrets`.
fn new_values(mut fields: Fields) -> Result<Vec<(SecretId, SecretValue)>, ApiError> {
    let mut faults = Faults::default();
    let mut seen = Vec::new();
    let updates = fields.list("updates", MOST, &mut faults, |field, entry| {
        let Field::Object(Some(mut fields)) = field else {
            return entry.note(Err(ItemKind::ValueError));
        };
        let id = entry.required(&mut fields, "id", |text| {
            let id = SecretId::parse(&text).or(Err(ItemKind::UuidParsing))?;
            if seen.contains(&id) {
                return Err(ItemKind::ValueError);
            }
            seen.push(id);
            Ok(id)
        });
        let value = entry.required(&mut fields, "value", SecretValue::parse);
        Some((id?, value?))
    });
    if matches!(updates, Some(None)) {
        faults.note::<()>("updates", Err(ItemKind::Missing));
    }
    match updates {
        Some(Some(updates)) if faults.is_empty() => Ok(updates),
        _ => Err(faults.into()),
    }
}
