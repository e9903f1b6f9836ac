//! The published documents: files of the source tree that are part of the binary.

use actix_web::{HttpResponse, web::Bytes};

use super::json_bytes;

/// The OpenAPI document.
pub(super) const OPENAPI: &str = include_str!("../../docs/openapi.json");
const SECRET_EVENT: &str = include_str!("../../docs/schemas/secret-event.v1.json");
const ACTIVITY_EVENT: &str = include_str!("../../docs/schemas/activity-event.v1.json");

/// `GET /openapi.json`
pub(super) fn openapi() -> HttpResponse {
    serve(OPENAPI)
}

/// `GET /schemas/secret-event.v1.json`: JSON Schema, draft 2020-12. Fields are only ever added, so it allows
/// more than it names.
pub(super) fn secret_event_schema() -> HttpResponse {
    serve(SECRET_EVENT)
}

/// `GET /schemas/activity-event.v1.json`, likewise.
pub(super) fn activity_event_schema() -> HttpResponse {
    serve(ACTIVITY_EVENT)
}

fn serve(document: &'static str) -> HttpResponse {
    json_bytes(
        &mut HttpResponse::Ok(),
        Bytes::from_static(document.as_bytes()),
    )
}
