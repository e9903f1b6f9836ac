//! The table of routes, against paths and against the document.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

/// The API's paths in the document are relative to it.
const API: &str = "/api/v1";

/// A path, a method, the operation's ID, and whether it needs a credential.
type Row = (String, String, String, bool);

fn in_table() -> BTreeSet<Row> {
    let rows = ROUTES.iter().map(|one| {
        let verb = one.verb.name().to_lowercase();
        let guarded = !one.is_public();
        (one.path.to_owned(), verb, one.id.to_owned(), guarded)
    });
    rows.collect()
}

fn in_document(document: &Value) -> BTreeSet<Row> {
    let mut rows = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let elsewhere = item.get("servers").is_some();
        let path = format!("{}{path}", if elsewhere { "" } else { API });
        for (verb, operation) in item.as_object().unwrap() {
            if let Some(id) = operation["operationId"].as_str() {
                let guarded = operation.get("security").is_none();
                rows.insert((path.clone(), verb.clone(), id.to_owned(), guarded));
            }
        }
    }
    rows
}

#[test]
fn the_document_describes_exactly_the_routes() {
    let document: Value = serde_json::from_str(documents::OPENAPI).unwrap();
    assert_eq!(document["servers"][0]["url"], API);
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(in_document(&document), in_table());
}

fn path_of(path: &str) -> Option<(&'static str, Option<&str>)> {
    find(path).map(|(operations, id)| (operations[0].path, id))
}

#[test]
fn fixed_segments_go_before_an_id() {
    for fixed in [
        "/api/v1/user/secrets/presets",
        "/api/v1/user/secrets/preset",
        "/ready",
    ] {
        assert_eq!(path_of(fixed), Some((fixed, None)));
    }
    let one = "/api/v1/user/secrets/{secret_id}";
    assert_eq!(path_of("/api/v1/user/secrets/x"), Some((one, Some("x"))));
    assert_eq!(
        path_of("/api/v1/user/secrets/presets/events"),
        Some(("/api/v1/user/secrets/{secret_id}/events", Some("presets")))
    );
}

#[test]
fn other_paths_have_no_route() {
    for unknown in [
        "",
        "/",
        "/api/v1/user/secrets/",
        "/api/v1/user/secrets//events",
        "/api/v1/user",
        "/API/v1/user/secrets",
        "//api/v1/user/secrets",
        "/health/",
        "/api/v1/user/secrets/x/y",
        "/api/v1/user/secrets/x/events/",
    ] {
        assert_eq!(path_of(unknown), None, "{unknown}");
    }
}

#[test]
fn a_method_that_is_not_there_names_those_that_are() {
    let (operations, _) = find("/api/v1/user/secrets/x").unwrap();
    assert!(operation(operations, &Method::HEAD).is_ok());
    for method in [Method::POST, Method::OPTIONS, Method::PATCH, Method::TRACE] {
        match operation(operations, &method).err() {
            Some(ApiError::MethodNotAllowed { allow }) => {
                assert_eq!(allow, "GET, HEAD, PUT, DELETE");
            }
            other => panic!("{other:?}"),
        }
    }
}
