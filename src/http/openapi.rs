//! The OpenAPI document: paths from the table of routes, schemas beside it.

use std::sync::OnceLock;

use actix_web::{HttpResponse, web::Bytes};
use serde_json::{Map, Value, json};

use super::{
    error::ERROR_TYPES,
    json_bytes, query,
    request::Answer,
    routes::{Operation, Operations, ROUTES, SECRET_ID, Verb},
};
use crate::domain::{EventKind, Log, VALUE_BYTES};

/// The paths of the API are described relative to it.
const API: &str = "/api/v1";

/// What OpenAPI says of an operation beyond its path and method.
pub(super) struct Described {
    /// Its `operationId`.
    pub(super) id: &'static str,
    /// One line.
    pub(super) summary: &'static str,
    /// More, where there is more to say.
    pub(super) description: Option<&'static str>,
    /// The parameters beside the path's.
    pub(super) parameters: &'static [Parameter],
    /// The schema of its body.
    pub(super) body: Option<&'static str>,
    /// What it answers when all is well.
    pub(super) success: Success,
    /// The statuses of its own errors; those that every owner's operation has are added.
    pub(super) refusals: &'static [u16],
}

impl Described {
    /// Nothing yet: what an operation leaves out.
    pub(super) const NOTHING: Self = Self {
        id: "",
        summary: "",
        description: None,
        parameters: &[],
        body: None,
        success: Success::Nothing(""),
        refusals: &[],
    };
}

/// What an operation answers when all is well.
#[derive(Clone, Copy)]
pub(super) enum Success {
    /// 200 with a description and plain text.
    Text(&'static str),
    /// 200 with a description and a schema.
    Body(&'static str, &'static str),
    /// 200 with one secret.
    Secret,
    /// 201 with a new secret.
    Created,
    /// 204 with a description.
    Nothing(&'static str),
}

/// A parameter beside the path's.
#[derive(Clone, Copy)]
pub(super) enum Parameter {
    /// `If-Match`
    IfMatch,
    /// `before`
    Before,
    /// `limit`
    Limit,
    /// `after`
    After,
    /// `type`
    Type,
    /// `log`
    Log,
    /// `Last-Event-ID`
    LastEventId,
}

/// `GET /openapi.json`
#[expect(clippy::unnecessary_wraps, reason = "the type of a handler")]
pub(super) fn serve() -> Answer {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    let document = DOCUMENT.get_or_init(|| Bytes::from(document().to_string()));
    Ok(json_bytes(&mut HttpResponse::Ok(), document.clone()))
}

/// The document.
#[must_use]
pub fn document() -> Value {
    json!({
        "openapi": "3.1.0",
        "info": {"title": "User secrets API", "version": env!("CARGO_PKG_VERSION")},
        "servers": [{"url": API}],
        "security": [{"bearerAuth": []}, {"apiKeyAuth": []}],
        "paths": paths(),
        "components": {
            "securitySchemes": {
                "bearerAuth": {"type": "http", "scheme": "bearer"},
                "apiKeyAuth": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "headers": headers(),
            "schemas": schemas(),
            "responses": responses(),
        },
    })
}

fn paths() -> Value {
    let mut paths = Map::new();
    for route in &ROUTES {
        let mut item = Map::new();
        let path = route.path.strip_prefix(API).unwrap_or_else(|| {
            item.insert("servers".to_owned(), json!([{"url": "/"}]));
            route.path
        });
        if path.contains(SECRET_ID) {
            let parameter = json!({
                "name": "secret_id", "in": "path", "required": true,
                "schema": {"type": "string", "format": "uuid"},
                "description": "Any UUID version, letter case ignored",
            });
            item.insert("parameters".to_owned(), json!([parameter]));
        }
        match route.operations {
            Operations::Guarded(operations) => {
                for operation in operations {
                    put(&mut item, operation, &GUARDED_REFUSALS);
                }
            }
            Operations::Public(operations) => {
                for operation in operations {
                    put(&mut item, operation, &[]);
                }
            }
        }
        paths.insert(path.to_owned(), item.into());
    }
    paths.into()
}

/// The errors that every operation for callers has.
const GUARDED_REFUSALS: [u16; 7] = [401, 403, 426, 429, 500, 502, 504];

fn put<H>(item: &mut Map<String, Value>, operation: &Operation<H>, common: &[u16]) {
    let described = &operation.described;
    let mut responses: Map<String, Value> = described
        .refusals
        .iter()
        .chain(common)
        .map(|status| (status.to_string(), refusal(*status)))
        .collect();
    let (status, success) = success(described.success);
    responses.insert(status.to_owned(), success);
    let mut built = json!({
        "operationId": described.id,
        "summary": described.summary,
        "responses": responses,
    });
    let mut set = |key: &str, value: Value| {
        if let Some(object) = built.as_object_mut() {
            object.insert(key.to_owned(), value);
        }
    };
    if common.is_empty() {
        set("security", json!([]));
    }
    if let Some(description) = described.description {
        set("description", description.into());
    }
    if !described.parameters.is_empty() {
        set(
            "parameters",
            described.parameters.iter().map(|p| parameter(*p)).collect(),
        );
    }
    if let Some(schema) = described.body {
        set(
            "requestBody",
            json!({"required": true, "content": content(schema)}),
        );
    }
    let verb = match operation.verb {
        Verb::Get => "get",
        Verb::Post => "post",
        Verb::Put => "put",
        Verb::Delete => "delete",
    };
    item.insert(verb.to_owned(), built);
}

fn content(schema: &str) -> Value {
    json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{schema}")}}})
}

fn refusal(status: u16) -> Value {
    let name = match status {
        400 => "InvalidRequest",
        401 => "AuthenticationFailed",
        403 => "AccessForbidden",
        404 => "NotFound",
        409 => "AlreadyExists",
        410 => "PositionGone",
        412 => "PreconditionFailed",
        413 => "PayloadTooLarge",
        422 => "ValidationFailed",
        426 => "UpgradeRequired",
        429 => "RateLimited",
        502 => "BadGateway",
        503 => return json!({"description": "Not ready", "content": content("Readiness")}),
        504 => "GatewayTimeout",
        _ => "InternalServerError",
    };
    json!({"$ref": format!("#/components/responses/{name}")})
}

fn success(success: Success) -> (&'static str, Value) {
    let no_store = json!({"Cache-Control": {"$ref": "#/components/headers/NoStore"}});
    match success {
        Success::Body(description, schema) => {
            let body = json!({
                "description": description, "headers": no_store, "content": content(schema),
            });
            ("200", body)
        }
        Success::Text(description) => {
            let text = json!({"text/plain": {"schema": {"type": "string"}}});
            let body = json!({
                "description": description, "headers": no_store, "content": text,
            });
            ("200", body)
        }
        Success::Secret => ("200", json!({"$ref": "#/components/responses/Secret"})),
        Success::Created => (
            "201",
            json!({"$ref": "#/components/responses/SecretCreated"}),
        ),
        Success::Nothing(description) => ("204", json!({"description": description})),
    }
}

fn parameter(parameter: Parameter) -> Value {
    match parameter {
        Parameter::IfMatch => json!({
            "name": "If-Match", "in": "header", "schema": {"type": "string"},
            "description": "The versions that the caller expects (RFC 9110 section 13.1.1)",
        }),
        Parameter::Before => json!({
            "name": "before", "in": "query", "schema": cursor(),
            "description": "The `next` of the page before",
        }),
        Parameter::Limit => json!({
            "name": "limit", "in": "query",
            "schema": {
                "type": "integer", "minimum": 1, "maximum": query::MOST, "default": query::USUAL,
            },
        }),
        Parameter::After => json!({
            "name": "after", "in": "query", "schema": cursor(),
            "description": "The cursor of the last event seen; without it, from the first one kept",
        }),
        Parameter::Type => json!({
            "name": "type", "in": "query", "description": "Only events of these types",
            "schema": {
                "type": "array",
                "items": {"enum": EventKind::ALL.map(EventKind::as_str)},
            },
        }),
        Parameter::Log => json!({
            "name": "log", "in": "query",
            "schema": {"enum": Log::ALL.map(Log::as_str), "default": Log::Changes.as_str()},
        }),
        Parameter::LastEventId => json!({
            "name": "Last-Event-ID", "in": "header", "schema": cursor(),
            "description": "Where a stream goes on; it wins over `after`",
        }),
    }
}

/// `<epoch>-<position>`
fn cursor() -> Value {
    json!({"type": "string", "pattern": "^(0|[1-9][0-9]*)-(0|[1-9][0-9]*)$"})
}

fn headers() -> Value {
    json!({
        "NoStore": {"schema": {"type": "string", "const": "no-store"}},
        "RequestId": {"schema": {"type": "string"}},
        "RetryAfter": {
            "description": "Whole seconds", "schema": {"type": "integer", "minimum": 1},
        },
        "Upgrade": {
            "description": "Required on 426 by RFC 9110 section 15.5.22",
            "schema": {"type": "string"},
        },
        "WwwAuthenticate": {"schema": {"type": "string", "const": "Bearer"}},
    })
}

fn responses() -> Value {
    let error = |description: &str| json!({"description": description, "content": content("ErrorEnvelope")});
    let with = |description: &str, header: &str, value: Value| {
        json!({
            "description": description, "headers": {header: value},
            "content": content("ErrorEnvelope"),
        })
    };
    let header = |name: &str| json!({"$ref": format!("#/components/headers/{name}")});
    let text = json!({"schema": {"type": "string"}});
    json!({
        "Secret": {
            "description": "Successful Response",
            "headers": {"Cache-Control": header("NoStore"), "ETag": text},
            "content": content("UserSecret"),
        },
        "SecretCreated": {
            "description": "Successful Response",
            "headers": {"Cache-Control": header("NoStore"), "Location": text, "ETag": text},
            "content": content("UserSecret"),
        },
        "InvalidRequest": error("Invalid request"),
        "AuthenticationFailed":
            with("Authentication failed", "WWW-Authenticate", header("WwwAuthenticate")),
        "AccessForbidden": error("Access forbidden"),
        "NotFound": error("Not found (also for another user's secret)"),
        "AlreadyExists": error("Already exists (on update kept for compatibility, never sent)"),
        "PositionGone": {
            "description": "The log does not have this position (any more)",
            "headers": {"Rekey-Log-First": {"schema": cursor()}, "Rekey-Log-Head": {"schema": cursor()}},
            "content": content("ErrorEnvelope"),
        },
        "PreconditionFailed": with(
            "If-Match does not hold (only sent to requests that carry it)", "ETag", text.clone(),
        ),
        "PayloadTooLarge": error("Body over the limit"),
        "ValidationFailed": error("Validation error"),
        "UpgradeRequired": with("Upgrade required", "Upgrade", header("Upgrade")),
        "RateLimited": with("Rate limited", "Retry-After", header("RetryAfter")),
        "InternalServerError": error("Internal server error"),
        "BadGateway": with("Bad gateway", "Retry-After", header("RetryAfter")),
        "GatewayTimeout": with("Gateway timeout", "Retry-After", header("RetryAfter")),
    })
}

fn schemas() -> Value {
    let mut schemas = request_schemas();
    let more = [
        secret_schemas(),
        event_schemas(),
        error_schemas(),
        service_schemas(),
    ];
    if let Some(all) = schemas.as_object_mut() {
        for part in more {
            all.extend(part.as_object().cloned().unwrap_or_default());
        }
    }
    schemas
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn request_schemas() -> Value {
    json!({
        "SecretValue": {
            "type": "string", "minLength": 1, "maxLength": 65536, "pattern": "^[^\\u0000]*$",
            "writeOnly": true,
            "description":
                "Stored byte for byte (no trimming). Limit counted in UTF-8 bytes.",
        },
        "EnvName": {
            "type": "string", "minLength": 1, "maxLength": 255,
            "pattern": "^[A-Za-z_][A-Za-z0-9_]*$",
            "description": "Upper-cased on save; unique per user after upper-casing.",
        },
        "Provider": {
            "type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[a-z0-9][a-z0-9_-]*$",
        },
        "CreateSecretRequest": {
            "type": "object", "required": ["name", "value"],
            "properties": {
                "name": reference("EnvName"), "value": reference("SecretValue"),
                "provider": {"anyOf": [reference("Provider"), {"type": "null"}]},
            },
        },
        "CreateSecretFromPresetRequest": {
            "type": "object", "required": ["provider", "value"],
            "properties": {"provider": reference("Provider"), "value": reference("SecretValue")},
        },
        "UpdateSecretRequest": {
            "type": "object", "required": ["value"],
            "properties": {"value": reference("SecretValue")},
        },
    })
}

fn secret_schemas() -> Value {
    json!({
        "UserSecret": {
            "type": "object", "additionalProperties": false,
            "required": ["created_at", "id", "masked_value", "name", "provider", "updated_at"],
            "properties": {
                "created_at": {"type": "string", "format": "date-time"},
                "id": {"type": "string", "format": "uuid"},
                "masked_value": {"type": "string"},
                "name": {
                    "type": "string",
                    "description": "Environment variable name, stored upper-cased",
                },
                "provider": {"type": ["string", "null"]},
                "updated_at": {"type": "string", "format": "date-time"},
            },
        },
        "UserSecretList": {
            "type": "object", "additionalProperties": false, "required": ["secrets", "total"],
            "properties": {
                "secrets": {"type": "array", "items": reference("UserSecret")},
                "total": {"type": "integer", "minimum": 0},
            },
        },
        "ProviderPreset": {
            "type": "object", "additionalProperties": false,
            "required": ["provider", "env_var_name", "configured"],
            "properties": {
                "provider": {"type": "string"}, "env_var_name": {"type": "string"},
                "configured": {"type": "boolean"},
            },
        },
        "ProviderPresetList": {
            "type": "object", "additionalProperties": false, "required": ["presets"],
            "properties": {"presets": {"type": "array", "items": reference("ProviderPreset")}},
        },
        "SecretEventPage": {
            "type": "object", "required": ["events", "next"],
            "properties": {
                "events": {"type": "array", "items": {"type": "object"}},
                "next": {"type": ["string", "null"]},
            },
        },
    })
}

#[expect(clippy::too_many_lines, reason = "data")]
fn event_schemas() -> Value {
    let uuid = json!({"type": "string", "format": "uuid"});
    let name = json!({"type": "string", "minLength": 1, "maxLength": 255});
    json!({
        "BatchUpdateRequest": {
            "type": "object",
            "required": ["updates"],
            "properties": {"updates": {
                "type": "array", "minItems": 1, "maxItems": 50,
                "items": {
                    "type": "object",
                    "required": ["id", "value"],
                    "properties": {
                        "id": uuid,
                        "value": {"type": "string", "minLength": 1, "maxLength": VALUE_BYTES},
                    },
                },
            }},
        },
        "BatchUpdate": {
            "type": "object",
            "required": ["secrets", "total", "change_set"],
            "properties": {
                "secrets": {"type": "array", "items": reference("UserSecret")},
                "total": {"type": "integer"},
                "change_set": uuid,
            },
        },
        "ResolveRequest": {
            "type": "object",
            "description": "Exactly one of `names` and `ids`; a service names the `owner`",
            "properties": {
                "owner": {"type": ["string", "null"]},
                "names": {"type": ["array", "null"], "minItems": 1, "maxItems": 100, "items": name},
                "ids": {"type": ["array", "null"], "minItems": 1, "maxItems": 100, "items": uuid},
                "min_cursor": {"anyOf": [cursor(), {"type": "null"}]},
            },
        },
        "Resolved": {
            "type": "object",
            "required": ["secrets", "cursor"],
            "properties": {
                "secrets": {"type": "array", "items": {
                    "type": "object",
                    "required": ["id", "name", "value", "version", "sequence"],
                    "properties": {
                        "id": uuid, "name": name, "value": {"type": "string"},
                        "version": {"type": "integer"}, "sequence": {"type": "integer"},
                    },
                }},
                "cursor": cursor(),
            },
        },
        "EventPage": {
            "type": "object",
            "required": ["events", "next"],
            "properties": {
                "events": {"type": "array", "items": {"type": "object"}},
                "next": cursor(),
            },
        },
        "Checkpoint": {
            "type": "object",
            "required": ["log", "epoch", "position", "hash", "cursor", "signature"],
            "properties": {
                "log": {"enum": Log::ALL.map(Log::as_str)},
                "epoch": {"type": "integer"},
                "position": {"type": "integer"},
                "hash": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                "cursor": cursor(),
                "signature": {"type": "string", "contentEncoding": "base64"},
            },
        },
        "JsonSchema": {"type": "object"},
    })
}

fn error_schemas() -> Value {
    json!({
        "ErrorItem": {
            "type": "object", "additionalProperties": false, "required": ["loc", "msg", "type"],
            "properties": {
                "loc": {"type": "array", "items": {"type": ["string", "integer"]}},
                "msg": {"type": "string"}, "type": {"type": "string"},
            },
        },
        "ErrorEnvelope": {
            "type": "object", "additionalProperties": false,
            "required": ["code", "detail", "type"],
            "properties": {
                "code": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": {"type": "string"},
                "errors": {"type": "array", "minItems": 1, "items": reference("ErrorItem")},
                "type": {"type": "string", "enum": ERROR_TYPES},
            },
        },
    })
}

fn service_schemas() -> Value {
    let check = json!({"type": "string", "enum": ["ok", "failed", "off"]});
    let names = ["database", "schema", "keys", "broker", "relay"];
    let checks: Map<String, Value> = names
        .iter()
        .map(|name| ((*name).to_owned(), check.clone()))
        .collect();
    json!({
        "Health": {
            "type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}},
        },
        "Readiness": {
            "type": "object", "required": ["status", "checks"],
            "properties": {
                "status": {"type": "string", "enum": ["ready", "unready"]},
                "checks": {"type": "object", "required": names, "properties": checks},
            },
        },
        "OpenApi": {"type": "object"},
    })
}
