//! The published JSON Schemas of events (draft 2020-12). Fields are only ever added, so they allow more.

use actix_web::{HttpResponse, web::Bytes};
use serde_json::{Value, json};

use super::{json_bytes, request::Answer};

/// `GET /schemas/secret-event.v1.json`
#[expect(clippy::unnecessary_wraps, reason = "the type of a handler")]
pub(super) fn changes() -> Answer {
    Ok(serve(&changes_schema()))
}

/// `GET /schemas/activity-event.v1.json`
#[expect(clippy::unnecessary_wraps, reason = "the type of a handler")]
pub(super) fn activity() -> Answer {
    Ok(serve(&activity_schema()))
}

fn serve(schema: &Value) -> HttpResponse {
    json_bytes(&mut HttpResponse::Ok(), Bytes::from(schema.to_string()))
}

/// What the events of both logs have.
fn common(log: &str, types: &Value) -> Value {
    let hash = json!({"type": "string", "pattern": "^[0-9a-f]{64}$"});
    json!({
        "actor": {
            "type": "object",
            "required": ["id", "kind"],
            "properties": {
                "id": {"type": ["string", "null"]},
                "kind": {"enum": ["token", "service", "jwt", "operator", "system"]},
            },
        },
        "epoch": {"type": "integer", "minimum": 1},
        "hash": hash,
        "id": {"type": "string", "format": "uuid"},
        "log": {"const": log},
        "occurred_at": {"type": "string", "format": "date-time"},
        "position": {"type": "integer", "minimum": 1},
        "prev_hash": hash,
        "request_id": {"type": ["string", "null"]},
        "type": {"enum": types},
    })
}

/// A schema whose fields are those that both logs have and these, all of them required.
fn event(id: &str, log: &str, types: &Value, own: &Value) -> Value {
    let mut properties = common(log, types);
    if let (Some(all), Some(own)) = (properties.as_object_mut(), own.as_object()) {
        all.extend(own.clone());
    }
    let required: Vec<&String> = properties
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, _)| name)
        .collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": id,
        "type": "object",
        "required": required,
        "properties": properties,
    })
}

fn version() -> Value {
    json!({"type": "integer", "minimum": 1})
}

fn text_or_null() -> Value {
    json!({"type": ["string", "null"]})
}

fn changes_schema() -> Value {
    let uuid = json!({"type": "string", "format": "uuid"});
    let types = json!([
        "secret.created",
        "secret.updated",
        "secret.deleted",
        "secret.expiry_changed",
        "secret.expiring",
        "secret.expired",
    ]);
    let own = json!({
        "change_set": {
            "type": ["object", "null"],
            "required": ["id", "index", "size"],
            "properties": {
                "id": uuid,
                "index": {"type": "integer", "minimum": 0},
                "size": {"type": "integer", "minimum": 1},
            },
        },
        "expires_at": text_or_null(),
        "name": {"type": "string"},
        "owner": {"type": "string"},
        "previous_version": {"type": ["integer", "null"], "minimum": 1},
        "provider": text_or_null(),
        "restored_from": {"type": ["integer", "null"]},
        "secret_id": uuid,
        "sequence": version(),
        "version": version(),
        "version_id": uuid,
    });
    event("urn:rekey:secret-event:1", "changes", &types, &own)
}

fn activity_schema() -> Value {
    let types = json!([
        "secret.accessed",
        "token.created",
        "token.revoked",
        "key.added",
        "key.promoted",
        "key.retired",
        "epoch.raised",
    ]);
    let mut schema = event(
        "urn:rekey:activity-event:1",
        "activity",
        &types,
        &json!({"owner": text_or_null()}),
    );
    let of = |types: &[&str], own: Value| {
        let required: Vec<&String> = own
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
            .collect();
        json!({
            "if": {"properties": {"type": {"enum": types}}},
            "then": {"required": required, "properties": own},
        })
    };
    let accessed = json!({
        "name": {"type": "string"},
        "provider": text_or_null(),
        "secret_id": {"type": "string", "format": "uuid"},
        "version": version(),
        "version_id": {"type": "string", "format": "uuid"},
    });
    let token = json!({
        "acts_for": {"type": ["array", "null"], "items": {"type": "string"}},
        "expires_at": text_or_null(),
        "scopes": {"type": "array", "items": {"type": "string"}},
        "token_id": {"type": "string"},
        "token_kind": {"enum": ["owner", "service"]},
    });
    let all = json!([
        of(&["secret.accessed"], accessed),
        of(&["token.created", "token.revoked"], token),
    ]);
    if let Some(object) = schema.as_object_mut() {
        object.insert("allOf".to_owned(), all);
    }
    schema
}
