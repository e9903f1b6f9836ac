//! A secret's history: the events of the log that are about it, newest first.

use actix_web::HttpResponse;

use super::{
    error::ApiError,
    json_bytes,
    query::Query,
    request::{Call, HandlerResult},
};
use crate::domain::Cursor;

/// `GET /api/v1/user/secrets/{secret_id}/events?before=&limit=`
pub(super) async fn list(call: Call<'_>) -> HandlerResult {
    let id = call.secret_id()?;
    let mut query = Query::parse(call.request.query_string());
    let (before, limit) = (query.cursor("before"), query.limit());
    query.finish()?;
    let history = call.state.reader.history(&call.owner, id, before, limit);
    let history = history.await?.ok_or(ApiError::NotFound)?;
    let events = history.events.iter().map(Vec::as_slice);
    Ok(json_bytes(
        &mut HttpResponse::Ok(),
        page(events, history.next),
    ))
}

/// A page of events. They are JSON already: the log's own bytes, so that their hashes can be verified.
pub(super) fn page<'a>(events: impl Iterator<Item = &'a [u8]>, next: Option<Cursor>) -> Vec<u8> {
    let mut body = b"{\"events\":[".to_vec();
    for (index, event) in events.enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(event);
    }
    let next = next.map_or_else(|| "null".to_owned(), |next| format!("\"{next}\""));
    body.extend_from_slice(b"],\"next\":");
    body.extend_from_slice(next.as_bytes());
    body.push(b'}');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_served_byte_for_byte() {
        let render =
            |events: &[&'static str], next| page(events.iter().map(|event| event.as_bytes()), next);
        assert_eq!(render(&[], None), b"{\"events\":[],\"next\":null}");
        let next = Cursor {
            epoch: 1,
            position: 7,
        };
        assert_eq!(
            render(&["{\"b\":1}", "{}"], Some(next)),
            b"{\"events\":[{\"b\":1},{}],\"next\":\"1-7\"}"
        );
    }
}
