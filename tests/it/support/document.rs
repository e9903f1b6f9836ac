//! Every response that the tests' client receives is what the published OpenAPI document says of it: status,
//! headers and body. Responses of raw sockets are not looked at: what actix-http refuses below HTTP's semantics
//! has no envelope.

use jsonschema::Validator;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| parse(include_str!("../../../docs/openapi.json")));
/// The schemas of events, by the log that they are in.
static EVENTS: LazyLock<[(&str, Validator); 2]> = LazyLock::new(|| {
    let secret = parse(include_str!("../../../docs/schemas/secret-event.v1.json"));
    let activity = parse(include_str!("../../../docs/schemas/activity-event.v1.json"));
    [
        ("changes", compile(&secret)),
        ("activity", compile(&activity)),
    ]
});
/// Holds a byte for each response that was validated: scripts/test prints how many there were.
static COUNT: LazyLock<Mutex<File>> = LazyLock::new(|| {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("validated-responses");
    let mut new = OpenOptions::new();
    let file = new.create(true).write(true).truncate(true).open(path);
    Mutex::new(file.expect("a file that counts responses"))
});

/// A response, and the request that it answers.
pub(crate) struct Exchange<'a> {
    pub(crate) method: &'a Method,
    pub(crate) path: &'a str,
    pub(crate) status: u16,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// Panics unless the document describes this response.
pub(crate) fn validate(exchange: &Exchange<'_>) {
    let faults = faults(exchange);
    let Exchange {
        method,
        path,
        status,
        body,
        ..
    } = exchange;
    assert!(
        faults.is_empty(),
        "{method} {path} answered {status} otherwise than docs/openapi.json says:\n{}\n{}",
        faults.join("\n"),
        String::from_utf8_lossy(body)
    );
    let mut count = COUNT.lock().expect("no test panics while it counts");
    count.write_all(b".").expect("a response is counted");
}

fn faults(exchange: &Exchange<'_>) -> Vec<String> {
    // A preflight is answered before the API (Fetch section 3.2.2), with no body.
    if exchange.method == Method::OPTIONS && exchange.status == 204 {
        return Vec::new();
    }
    let Some(response) = response(exchange) else {
        return vec!["the document has no such status for this operation".to_owned()];
    };
    let mut faults = header_faults(response, exchange.headers);
    faults.extend(body_faults(response, exchange));
    faults
}

/// What the document says of a status of an operation. Where there is no such operation, only the errors that
/// every path may answer are described.
fn response(exchange: &Exchange<'_>) -> Option<&'static Value> {
    let status = exchange.status.to_string();
    let response = if let Some(operation) = operation(exchange) {
        &operation["responses"][&status]
    } else {
        let name = match exchange.status {
            401 => "AuthenticationFailed",
            404 => "NotFound",
            405 => "MethodNotAllowed",
            426 => "UpgradeRequired",
            429 => "RateLimited",
            _ => return None,
        };
        &DOCUMENT["components"]["responses"][name]
    };
    resolved(response)
}

fn operation(exchange: &Exchange<'_>) -> Option<&'static Value> {
    let verb = match *exchange.method {
        Method::HEAD => "get".to_owned(),
        ref method => method.as_str().to_lowercase(),
    };
    let path = exchange.path.split('?').next()?;
    let paths = DOCUMENT["paths"].as_object()?;
    // Paths of fixed segments come before those with a parameter.
    let mut found: Vec<_> = paths
        .iter()
        .filter(|(template, item)| {
            let base = if item.get("servers").is_some() {
                ""
            } else {
                "/api/v1"
            };
            matches(&format!("{base}{template}"), path)
        })
        .collect();
    found.sort_by_key(|(template, _)| template.contains('{'));
    found.first().and_then(|(_, item)| item.get(&verb))
}

fn matches(template: &str, path: &str) -> bool {
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(wanted), Some(given)) if wanted == given => {}
            (Some(wanted), Some(given)) if wanted.starts_with('{') && !given.is_empty() => {}
            _ => return false,
        }
    }
}

fn header_faults(response: &'static Value, headers: &HeaderMap) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, header) in response["headers"].as_object().into_iter().flatten() {
        let header = resolved(header).expect("a header of the document");
        if header["required"] == false && !headers.contains_key(name) {
            continue;
        }
        let schema = &header["schema"];
        let Some(text) = headers
            .get(name)
            .map(|value| value.to_str().expect("ASCII"))
        else {
            faults.push(format!("the header {name} is missing"));
            continue;
        };
        let value = match schema["type"].as_str() {
            Some("integer") => text.parse().map_or(json!(text), |n: u64| json!(n)),
            _ => json!(text),
        };
        faults.extend(schema_faults(schema, &value, name));
    }
    faults
}

fn body_faults(response: &'static Value, exchange: &Exchange<'_>) -> Vec<String> {
    let content = response.get("content").and_then(Value::as_object);
    if exchange.method == Method::HEAD || content.is_none() {
        let empty = exchange.body.is_empty();
        return (!empty)
            .then(|| "it has a body".to_owned())
            .into_iter()
            .collect();
    }
    let media = exchange.headers.get("content-type");
    let media = media.map_or("", |media| media.to_str().expect("ASCII"));
    let media = media.split(';').next().unwrap_or_default();
    let Some(described) = content.and_then(|content| content.get(media)) else {
        return vec![format!("the content type {media:?} is not described")];
    };
    if media != "application/json" {
        return Vec::new();
    }
    let Ok(body) = serde_json::from_slice::<Value>(exchange.body) else {
        return vec!["the body is not JSON".to_owned()];
    };
    let mut faults = schema_faults(&described["schema"], &body, "body");
    if exchange.status == 200
        && let Some(events) = body.get("events").and_then(Value::as_array)
    {
        faults.extend(events.iter().flat_map(event_faults));
    }
    faults
}

/// What is wrong with an event, by the published schema of its log.
pub(crate) fn event_faults(event: &Value) -> Vec<String> {
    let Some((_, schema)) = EVENTS.iter().find(|(log, _)| event["log"] == *log) else {
        return vec![format!("an event of no log: {event}")];
    };
    schema
        .iter_errors(event)
        .map(|error| format!("event{}: {error}", error.instance_path()))
        .collect()
}

fn schema_faults(schema: &'static Value, value: &Value, place: &str) -> Vec<String> {
    /// By the schema's place in the document, which stays where it is.
    static COMPILED: LazyLock<Mutex<HashMap<usize, Arc<Validator>>>> =
        LazyLock::new(Mutex::default);
    let mut compiled = COMPILED.lock().expect("no test panics while it compiles");
    let validator = compiled
        .entry(std::ptr::from_ref(schema).addr())
        .or_insert_with(|| {
            // References of the schema point into the document.
            let whole = json!({"allOf": [schema], "components": DOCUMENT["components"]});
            Arc::new(compile(&whole))
        });
    let validator = Arc::clone(validator);
    drop(compiled);
    validator
        .iter_errors(value)
        .map(|error| format!("{place}{}: {error}", error.instance_path()))
        .collect()
}

/// A response or header, in place or by reference.
fn resolved(value: &'static Value) -> Option<&'static Value> {
    match value.get("$ref").and_then(Value::as_str) {
        Some(reference) => DOCUMENT.pointer(reference.trim_start_matches('#')),
        None => (!value.is_null()).then_some(value),
    }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("a document of the tree is JSON")
}

fn compile(schema: &Value) -> Validator {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .should_validate_formats(true)
        .build(schema)
        .expect("a schema of the tree is one")
}
