//! The published documents: files of the source tree that are part of the binary.

use actix_web::{HttpResponse, web::Bytes};

use super::json_bytes;

/// The OpenAPI document.
pub(super) const OPENAPI: &str = include_str!("../../docs/openapi.json");
/// The JSON Schema (draft 2020-12) of the log `changes`. Fields are only ever added, so it allows more than it
/// names.
pub(super) const SECRET_EVENT: &str = include_str!("../../docs/schemas/secret-event.v1.json");
/// That of the log `activity`, likewise.
pub(super) const ACTIVITY_EVENT: &str = include_str!("../../docs/schemas/activity-event.v1.json");

/// `GET /openapi.json` and `GET /schemas/…`
pub(super) fn serve(document: &'static str) -> HttpResponse {
    json_bytes(
        &mut HttpResponse::Ok(),
        Bytes::from_static(document.as_bytes()),
    )
}
