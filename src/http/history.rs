//! A secret's history: the events of the log that are about it, newest first.

use actix_web::HttpResponse;

use super::{
    error::{ApiError, ErrorItem, ItemKind, Place},
    json_bytes,
    request::{Answer, Call},
};
use crate::{domain::Cursor, store::History};

/// How many events a page has at most, and unless the caller says.
pub(super) const MOST: u32 = 1000;
pub(super) const USUAL: u32 = 100;

/// `GET /api/v1/user/secrets/{secret_id}/events?before=&limit=`
pub(super) async fn list(call: Call<'_>) -> Answer {
    let id = call.secret_id()?;
    let Page { before, limit } = Page::read(call.request.query_string())?;
    let history = call.state.store.history(&call.owner, id, before, limit);
    let history = history.await?.ok_or(ApiError::NotFound)?;
    Ok(json_bytes(&mut HttpResponse::Ok(), render(&history)))
}

/// The events are JSON already: the log's own bytes, so that their hashes can be verified.
fn render(history: &History) -> Vec<u8> {
    let mut body = b"{\"events\":[".to_vec();
    for (index, event) in history.events.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(event);
    }
    let next = history
        .next
        .map_or_else(|| "null".to_owned(), |next| format!("\"{next}\""));
    body.extend_from_slice(b"],\"next\":");
    body.extend_from_slice(next.as_bytes());
    body.push(b'}');
    body
}

/// Which page.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    before: Option<Cursor>,
    limit: u32,
}

impl Page {
    /// Reads the query. Other parameters are ignored; one of ours twice is a fault.
    fn read(query: &str) -> Result<Self, ApiError> {
        let mut before = Parameter::Absent;
        let mut limit = Parameter::Absent;
        for pair in query.split('&') {
            let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
            let parameter = match &*decode(name) {
                "before" => &mut before,
                "limit" => &mut limit,
                _ => continue,
            };
            *parameter = match parameter {
                Parameter::Absent => Parameter::Once(decode(text)),
                Parameter::Once(_) | Parameter::Repeated => Parameter::Repeated,
            };
        }
        let before = before.read(|text| Cursor::parse(text).or(Err(ItemKind::ValueError)));
        let limit = limit.read(read_limit);
        match (before, limit) {
            (Ok(before), Ok(limit)) => Ok(Self {
                before,
                limit: limit.unwrap_or(USUAL),
            }),
            (before, limit) => {
                let item = |name, kind| ErrorItem::new([Place::QUERY, Place(name)], kind);
                let before = before.err().map(|kind| item("before", kind));
                let limit = limit.err().map(|kind| item("limit", kind));
                let items = before.into_iter().chain(limit).collect();
                Err(ApiError::Validation(items))
            }
        }
    }
}

fn read_limit(text: &str) -> Result<u32, ItemKind> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(ItemKind::IntType);
    }
    match text.parse() {
        Ok(limit) if (1..=MOST).contains(&limit) => Ok(limit),
        Ok(_) | Err(_) => Err(ItemKind::ValueError),
    }
}

/// A parameter of a query.
enum Parameter {
    Absent,
    Once(String),
    Repeated,
}

impl Parameter {
    fn read<T>(
        self,
        read: impl FnOnce(&str) -> Result<T, ItemKind>,
    ) -> Result<Option<T>, ItemKind> {
        match self {
            Self::Absent => Ok(None),
            Self::Once(text) => read(&text).map(Some),
            Self::Repeated => Err(ItemKind::ValueError),
        }
    }
}

/// Percent-decodes a part of a query; what is no UTF-8 then is no good value either.
fn decode(text: &str) -> String {
    let spaced = text.replace('+', " ");
    percent_encoding::percent_decode_str(&spaced)
        .decode_utf8_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(query: &str) -> Result<(Option<String>, u32), Vec<ErrorItem>> {
        match Page::read(query) {
            Ok(Page { before, limit }) => Ok((before.map(|cursor| cursor.to_string()), limit)),
            Err(ApiError::Validation(items)) => Err(items),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_page_has_a_start_and_a_limit() {
        assert_eq!(page(""), Ok((None, 100)));
        assert_eq!(page("limit=1000&x=1&&="), Ok((None, 1000)));
        assert_eq!(page("before=1-7&limit=1"), Ok((Some("1-7".to_owned()), 1)));
        assert_eq!(page("b%65fore=1%2D7"), Ok((Some("1-7".to_owned()), 100)));
    }

    #[test]
    fn faults_of_the_query_are_reported_together() {
        let item = |name, kind| ErrorItem::new([Place::QUERY, Place(name)], kind);
        assert_eq!(
            page("limit=x&before=7"),
            Err(vec![
                item("before", ItemKind::ValueError),
                item("limit", ItemKind::IntType)
            ])
        );
        for (query, kind) in [
            ("limit", ItemKind::IntType),
            ("limit=", ItemKind::IntType),
            ("limit=-1", ItemKind::IntType),
            ("limit=1.0", ItemKind::IntType),
            ("limit=0", ItemKind::ValueError),
            ("limit=1001", ItemKind::ValueError),
            ("limit=99999999999999999999", ItemKind::ValueError),
            ("limit=1&limit=1", ItemKind::ValueError),
        ] {
            assert_eq!(page(query), Err(vec![item("limit", kind)]), "{query}");
        }
    }

    #[test]
    fn events_are_served_byte_for_byte() {
        let history = |events: &[&str], next| History {
            events: events
                .iter()
                .map(|event| event.as_bytes().to_vec())
                .collect(),
            next,
        };
        assert_eq!(
            render(&history(&[], None)),
            b"{\"events\":[],\"next\":null}"
        );
        let next = Cursor {
            epoch: 1,
            position: 7,
        };
        assert_eq!(
            render(&history(&["{\"b\":1}", "{}"], Some(next))),
            b"{\"events\":[{\"b\":1},{}],\"next\":\"1-7\"}"
        );
    }

    proptest! {
        #[test]
        fn any_query_ends_in_an_answer(query: String) {
            let _ = Page::read(&query);
        }
    }
}
