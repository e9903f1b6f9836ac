//! The committed log: page by page, as a stream, and its head; and a secret's own events.

use actix_web::{
    HttpResponse,
    http::{
        Method,
        header::{self, HeaderMap},
    },
};

use super::{
    connection::Requests,
    envelope::{ItemKind, Location},
    error::{ApiError, Bug},
    json,
    large::Room,
    query::Query,
    request::{Call, HandlerResult},
    single_line,
    stream::{self, Follower},
};
use crate::{
    domain::{ActsFor, Cursor, EventKind, Grantee, Log, Owner},
    shares::Amount,
    store::{Check, Filter, StoreError},
};

const LAST_EVENT_ID: &str = "last-event-id";

/// `GET /api/v1/events?after=&limit=&type=&log=`, as a page or as a stream.
pub(super) async fn list(call: Call<'_, ()>) -> HandlerResult {
    let mut query = Query::parse(call.request.query_string());
    let log = log(&mut query);
    let (after, limit) = (query.cursor("after"), query.limit());
    let kinds = query.all("type", |text| {
        let known = EventKind::ALL.iter().map(|kind| kind.as_str());
        let mut known = known.filter(|kind| *kind == text);
        known.next().ok_or(ItemKind::Enum)
    });
    let resumed = last_event_id(call.request.headers());
    query.finish()?;
    let filter = Filter {
        owners: owners(&call),
        // A type that is named again adds nothing.
        kinds: kinds.into_iter().collect(),
        secrets: call.principal.secrets.clone(),
    };
    if wants_stream(call.request.headers()) {
        return follow(&call, log, filter, resumed?.or(after)).await;
    }
    let page = call.state.reader.log_page(log, after, &filter, limit);
    let page = page.await?;
    let events = page.events.iter().map(|event| event.body.as_slice());
    serve(&call, page_body(events, Some(page.next)))
}

/// `GET /api/v1/user/secrets/{secret_id}/events?before=&limit=`
pub(super) async fn history(call: Call<'_>) -> HandlerResult {
    let id = call.secret_id()?;
    let mut query = Query::parse(call.request.query_string());
    let (before, limit) = (query.cursor("before"), query.limit());
    query.finish()?;
    let reader = &call.state.reader;
    // Only for a token that is narrowed it matters what the secret is called.
    if !call.principal.secrets.is_all() {
        let row = reader.get(&call.owner, id).await?;
        row.filter(|(secret, _)| call.covers(&secret.name))
            .ok_or(ApiError::NotFound)?;
    }
    let history = reader.history(&call.owner, id, before, limit);
    let history = history.await?.ok_or(ApiError::NotFound)?;
    let events = history.events.iter().map(Vec::as_slice);
    serve(&call, page_body(events, history.next))
}

/// Answers with a page.
fn serve<W>(call: &Call<'_, W>, page: Vec<u8>) -> HandlerResult {
    let room = Room::reserve(call, page.len())?;
    Ok(room.json(&mut HttpResponse::Ok(), page.into()))
}

/// `GET /api/v1/events/head?log=`: a checkpoint of the whole log.
pub(super) async fn head(call: Call<'_, ()>) -> HandlerResult {
    let mut query = Query::parse(call.request.query_string());
    let log = log(&mut query);
    query.finish()?;
    if call.state.committer.log_check() != Check::Ok {
        return Err(StoreError::LogBroken(log).into());
    }
    let head = call.state.reader.log_head(log).await?;
    let signer = &call.state.signer;
    let checkpoint = signer.sign(log, head.last_epoch, head.position, head.hash);
    json(&mut HttpResponse::Ok(), &checkpoint)
}

/// A page of events. They are JSON already: the log's own bytes, so that their hashes can be verified.
fn page_body<'a>(events: impl Iterator<Item = &'a [u8]>, next: Option<Cursor>) -> Vec<u8> {
    let mut body = b"{\"events\":[".to_vec();
    body.extend_from_slice(&events.collect::<Vec<_>>().join(&b','));
    let next = next.map_or_else(|| "null".to_owned(), |next| format!("\"{next}\""));
    body.extend_from_slice(b"],\"next\":");
    body.extend_from_slice(next.as_bytes());
    body.push(b'}');
    body
}

fn log(query: &mut Query) -> Log {
    query
        .once("log", |text| Log::parse(text).or(Err(ItemKind::Enum)))
        .unwrap_or(Log::Changes)
}

/// The owners whose events the caller may see; nothing stands for the whole log.
fn owners(call: &Call<'_, ()>) -> Option<Vec<String>> {
    let owners = match &call.principal.grantee {
        Grantee::Owner(owner) => std::slice::from_ref(owner),
        Grantee::Service { acts_for, .. } => match acts_for {
            ActsFor::All => return None,
            ActsFor::Owners(owners) => owners,
        },
    };
    let names = owners.iter().map(Owner::as_str);
    Some(names.map(str::to_owned).collect())
}

/// Whether the caller asks for server-sent events.
fn wants_stream(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            // RFC 9110 section 12.4.2: a weight of 0 says "not acceptable".
            let refused = parts
                .filter_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")))
                .any(|weight| weight.parse() == Ok(0.0));
            media.eq_ignore_ascii_case("text/event-stream") && !refused
        })
}

fn last_event_id(headers: &HeaderMap) -> Result<Option<Cursor>, ApiError> {
    let line = single_line(headers, LAST_EVENT_ID);
    // An empty one says that there was no event yet (WHATWG HTML, section 9.2).
    if !headers.contains_key(LAST_EVENT_ID) || line == Some("") {
        return Ok(None);
    }
    let cursor = line.and_then(|text| Cursor::parse(text).ok());
    cursor.map(Some).ok_or_else(|| {
        let place = [Location::HEADER, Location::Name("Last-Event-ID")];
        ApiError::fault(place, ItemKind::ValueError)
    })
}

/// Opens a stream after a cursor that the log knows, or at the head.
async fn follow(
    call: &Call<'_, ()>,
    log: Log,
    filter: Filter,
    from: Option<Cursor>,
) -> HandlerResult {
    let reader = &call.state.reader;
    let start = match from {
        Some(cursor) => {
            reader.check_cursor(log, cursor).await?;
            cursor
        }
        None => reader.log_head(log).await?.cursor(),
    };
    let mut answer = HttpResponse::Ok();
    answer.insert_header((header::CONTENT_TYPE, "text/event-stream"));
    // A proxy (nginx) must not hold events back.
    answer.insert_header(("X-Accel-Buffering", "no"));
    // What ends a stream ends its connection.
    answer.force_close();
    // actix-http would poll the body of an answer to HEAD, too.
    if call.request.method() == Method::HEAD {
        return Ok(answer.finish());
    }
    let one = Amount { count: 1, bytes: 0 };
    let requests = call.request.conn_data::<Requests>();
    let requests = requests.ok_or(Bug::NoConnection)?.clone();
    let follower = Follower {
        _under_way: requests.begin(),
        requests,
        _place: call.edge.streams.take(Some(&call.caller), one)?,
        state: call.state.clone(),
        credential: call.credential.clone(),
        log,
        filter,
        cursor: start,
    };
    Ok(answer.streaming(stream::events(follower)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_served_byte_for_byte() {
        let render = |events: &[&'static str], next| {
            page_body(events.iter().map(|event| event.as_bytes()), next)
        };
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
