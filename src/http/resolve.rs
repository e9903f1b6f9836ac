//! Values for workloads: the one call that hands values out.
//!
//! The log's head is read first, then all secrets in one statement: whoever follows the log from the
//! answered cursor skips no rotation, and no change set is seen in half. Each secret is one
//! `secret.accessed` in the log `activity`, committed before the answer leaves (unless the operator chose
//! otherwise).

use actix_web::{HttpResponse, web::Bytes};
use serde::Serialize;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    envelope::{ItemKind, Location},
    error::{ApiError, Bug},
    fields::{Faults, Field, Fields, ListEntry},
    large::Room,
    request::{Call, HandlerResult},
};
use crate::{
    domain::{
        Access, Cursor, EventId, Grantee, Log, Outcome, Owner, SecretId, SecretName, SecretValue,
        Work,
    },
    settings::ActivityRecord,
    store::{SealedSecret, Selection},
};

/// How many secrets one call hands out.
const MOST: usize = 100;

/// `POST /api/v1/secrets/resolve`
pub(super) async fn resolve(mut call: Call<'_, ()>) -> HandlerResult {
    call.json_only()?;
    let fields = call.object(&["owner", "names", "ids", "min_cursor"]);
    let request = ResolveRequest::read(fields.await?)?;
    call.charge(request.selection.count())?;
    let owner = acting_for(&call, request.owner)?;
    let state = call.state;
    if let Some(cursor) = request.min_cursor {
        state.reader.check_reached(Log::Changes, cursor).await?;
    }
    let resolved = state.reader.resolve(&owner, &request.selection).await?;
    // Here, too, because not every record of an access waits for the commit.
    if resolved.locked_down {
        return Err(ApiError::LockedDown);
    }
    let secrets = resolved.secrets.ok_or(ApiError::NotFound)?;
    if !secrets.iter().all(|one| call.covers(&one.secret.name)) {
        return Err(ApiError::NotFound);
    }
    // Opened first: what can't be handed out is not recorded as handed out.
    let values = open(&call, &secrets)?;
    let length = values.iter().map(room_for).sum();
    let room = Room::reserve(&call, length)?;
    record(&call, &secrets).await?;
    let body = render(&secrets, &values, (resolved.head, length))?;
    // Wiped once it is sent.
    Ok(room.json(&mut HttpResponse::Ok(), Bytes::from_owner(body)))
}

fn open(call: &Call<'_, ()>, secrets: &[SealedSecret]) -> Result<Vec<SecretValue>, ApiError> {
    let sealer = &call.state.sealer;
    secrets
        .iter()
        .map(|SealedSecret { secret, sealed }| {
            let opened = sealer.open_value(&secret.owner, secret.id, sealed);
            opened.map_err(|error| ApiError::Internal(error.into()))
        })
        .collect()
}

/// The owner whose secrets are asked for.
fn acting_for(call: &Call<'_, ()>, named: Option<Owner>) -> Result<Owner, ApiError> {
    match (&call.principal.grantee, named) {
        (Grantee::Owner(own), None) => Ok(own.clone()),
        (Grantee::Owner(own), Some(named)) if *own == named => Ok(named),
        (Grantee::Owner(_), Some(_)) => Err(ApiError::NotFound),
        (Grantee::Service { .. }, None) => {
            let place = [Location::BODY, Location::Name("owner")];
            Err(ApiError::fault(place, ItemKind::Missing))
        }
        (Grantee::Service { acts_for, .. }, Some(named)) => {
            let granted = acts_for.covers(&named);
            granted.then_some(named).ok_or(ApiError::NotFound)
        }
    }
}

/// Records who gets which version.
async fn record(call: &Call<'_, ()>, secrets: &[SealedSecret]) -> Result<(), ApiError> {
    let how = call.state.settings.activity.record;
    if how == ActivityRecord::Off {
        return Ok(());
    }
    let context = call.context();
    let accesses = secrets
        .iter()
        .map(|SealedSecret { secret, sealed: _ }| Access {
            event_id: EventId::new(Uuid::now_v7()),
            context: context.clone(),
            owner: secret.owner.clone(),
            secret_id: secret.id,
            name: secret.name.clone(),
            provider: secret.provider.clone(),
            version: secret.version,
            version_id: secret.version_id,
        });
    let work = Work::Accesses(accesses.collect());
    let reserved = call
        .state
        .committer
        .reserve(Some(&call.caller), work.bytes());
    if how == ActivityRecord::Async {
        // The settings say so: under load, and at a crash, records may be lost.
        if let Ok((ticket, pending)) = reserved {
            ticket.commit(work);
            pending.forget();
        } else {
            tracing::warn!("an access goes unrecorded: the queue is full");
        }
        return Ok(());
    }
    let (ticket, pending) = reserved?;
    ticket.commit(work);
    match call.settle(pending).await? {
        Outcome::Recorded => Ok(()),
        Outcome::Changed(_) | Outcome::Set(..) | Outcome::Replayed(_) => {
            Err(Bug::WrongOutcome.into())
        }
    }
}

/// A secret with its value, as it is written into the answer.
#[derive(Serialize)]
struct ResolvedSecret<'a> {
    id: SecretId,
    name: &'a SecretName,
    value: &'a str,
    version: u64,
    sequence: u64,
}

/// How many bytes a secret takes in the answer, at most.
fn room_for(value: &SecretValue) -> usize {
    // As serde_json escapes.
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | 0x08..=0x0a | 0x0c..=0x0d => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    value.expose().bytes().map(escaped).sum::<usize>() + 512
}

/// Writes the answer into memory that is wiped.
fn render(
    secrets: &[SealedSecret],
    values: &[SecretValue],
    (cursor, length): (Cursor, usize),
) -> Result<Zeroizing<Vec<u8>>, ApiError> {
    let mut body = Zeroizing::new(Vec::with_capacity(length + 64));
    body.extend_from_slice(b"{\"secrets\":[");
    for (index, (SealedSecret { secret, .. }, value)) in secrets.iter().zip(values).enumerate() {
        if index > 0 {
            body.push(b',');
        }
        let resolved = ResolvedSecret {
            id: secret.id,
            name: &secret.name,
            value: value.expose(),
            version: secret.version,
            sequence: secret.sequence,
        };
        serde_json::to_writer(&mut *body, &resolved)?;
    }
    body.extend_from_slice(format!("],\"cursor\":\"{cursor}\"}}").as_bytes());
    Ok(body)
}

/// The body of `resolve_secrets`.
struct ResolveRequest {
    owner: Option<Owner>,
    selection: Selection,
    min_cursor: Option<Cursor>,
}

impl ResolveRequest {
    fn read(mut fields: Fields) -> Result<Self, ApiError> {
        let mut faults = Faults::default();
        let owner = fields.optional("owner", &mut faults, |text| Owner::parse(&text));
        let (mut seen_names, mut seen_ids) = (Vec::new(), Vec::new());
        let names = fields.list("names", MOST, &mut faults, |field, entry| {
            distinct(field, entry, &mut seen_names, SecretName::parse)
        });
        let ids = fields.list("ids", MOST, &mut faults, |field, entry| {
            distinct(field, entry, &mut seen_ids, |text| {
                SecretId::parse(text).or(Err(ItemKind::UuidParsing))
            })
        });
        let min_cursor = fields.optional("min_cursor", &mut faults, |text| {
            Cursor::parse(&text).or(Err(ItemKind::ValueError))
        });
        let selection = match (names, ids) {
            (Some(Some(names)), Some(None)) => Some(Selection::Names(names)),
            (Some(None), Some(Some(ids))) => Some(Selection::Ids(ids)),
            (Some(None), Some(None)) => faults.note("names", Err(ItemKind::Missing)),
            (Some(Some(_)), Some(Some(_))) => faults.note("ids", Err(ItemKind::ValueError)),
            _ => None,
        };
        match (owner, selection, min_cursor) {
            (Some(owner), Some(selection), Some(min_cursor)) if faults.is_empty() => Ok(Self {
                owner,
                selection,
                min_cursor,
            }),
            _ => Err(faults.into()),
        }
    }
}

/// Reads an entry that no other one repeats.
fn distinct<T: Clone + PartialEq, E: Into<ItemKind>>(
    field: Field,
    entry: &mut ListEntry<'_>,
    seen: &mut Vec<T>,
    read: impl FnOnce(&str) -> Result<T, E>,
) -> Option<T> {
    let Field::Text(text) = field else {
        return entry.note(Err(ItemKind::StringType));
    };
    let value = entry.note(read(&text).map_err(Into::into))?;
    if seen.contains(&value) {
        return entry.note(Err(ItemKind::ValueError));
    }
    seen.push(value.clone());
    Some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_room_for_a_value_is_what_it_takes(text in "[\\x01-\\x7f\\u{e9}]{1,60}") {
            let value = SecretValue::parse(text.clone().into()).unwrap();
            let json = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(room_for(&value), json.len() - 2 + 512);
        }
    }
}
