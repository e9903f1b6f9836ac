//! The body of a request: read with a cap and a deadline, parsed strictly, wiped.
//!
//! In come the connection's chunks; out goes a [`Fields`], whose values are wiped on drop. actix-web has
//! no deadline for a body and its `Json` extractor takes too much, so neither is used. serde_json's
//! messages quote their input: none of them leaves this file.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    dev::Payload,
    http::header::CONTENT_LENGTH,
    web::Bytes,
};
use futures_util::StreamExt as _;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use super::error::{ApiError, ErrorItem, ItemKind, Malformed, Place};

/// A body on its way in.
pub(super) struct Incoming {
    payload: Payload,
    declared: Option<u64>,
    finished: bool,
}

impl Incoming {
    /// The body of a request that has just begun.
    pub(super) fn new(request: &HttpRequest, payload: Payload) -> Self {
        let declared = request
            .headers()
            .get(CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok()?.parse().ok());
        Self {
            finished: matches!(payload, Payload::None),
            payload,
            declared,
        }
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// [`ApiError::PayloadTooLarge`] as soon as it is known to have more than `most` bytes,
    /// [`Malformed::Incomplete`] when it breaks off or is not complete `within` that time.
    pub(super) async fn read(
        &mut self,
        most: usize,
        within: Duration,
    ) -> Result<Zeroizing<Vec<u8>>, ApiError> {
        let too_large = |length: u64| usize::try_from(length).map_or(true, |length| length > most);
        if self.declared.is_some_and(too_large) {
            return Err(ApiError::PayloadTooLarge);
        }
        let deadline = Instant::now() + within;
        let mut body = Zeroizing::new(Vec::new());
        while !self.finished {
            match timeout_at(deadline, self.payload.next()).await {
                Ok(Some(Ok(chunk))) if chunk.len() > most - body.len() => {
                    return Err(ApiError::PayloadTooLarge);
                }
                Ok(Some(Ok(chunk))) => append(&mut body, &chunk),
                Ok(None) => self.finished = true,
                Ok(Some(Err(_))) | Err(_) => return Err(Malformed::Incomplete.into()),
            }
        }
        Ok(body)
    }

    /// Gives an answer the rest of the body to hold.
    ///
    /// actix-http closes a connection whose body was not read to its end, after a short while of
    /// discarding, as long as the payload is alive when the answer ends. A chunked payload that was
    /// *dropped* it reads on for ever, without a deadline (`should_close_for_unread_payload`).
    pub(super) fn answer(self, answer: HttpResponse) -> HttpResponse {
        if self.finished {
            return answer;
        }
        answer.map_body(|_, body| {
            BoxBody::new(Holding {
                body,
                _unread: self.payload,
            })
        })
    }
}

/// Appends without leaving a copy behind: a `Vec` that grows by itself frees its old bytes unwiped.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    let needed = body.len() + chunk.len();
    if needed > body.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.next_power_of_two()));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(chunk);
}

/// An answer's body together with the request's unread one.
struct Holding {
    body: BoxBody,
    _unread: Payload,
}

impl MessageBody for Holding {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        match self.body.size() {
            // `BoxBody::new` would drop a body of no size at once, and the payload with it.
            BodySize::None => BodySize::Sized(0),
            size @ (BodySize::Sized(_) | BodySize::Stream) => size,
        }
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        self.body.as_pin_mut().poll_next(cx)
    }
}

/// A value of the body's top-level object, as far as anybody asks for it.
pub(super) enum Field {
    /// `null`
    Null,
    /// A string.
    Text(Zeroizing<String>),
    /// A list: of strings and objects, and not more of them than [`KEPT`].
    List(Vec<Field>),
    /// An object in a list: with its strings; nothing when it holds a key more than once.
    Object(Option<Fields>),
    /// Anything else.
    Other,
}

/// So many entries of a list are kept: one more than any call takes.
const KEPT: usize = 101;

/// The top-level object of a body. Its `Debug` shows no value.
#[derive(Default)]
pub(super) struct Fields(HashMap<String, Field>);

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fields([REDACTED])")
    }
}

impl Fields {
    /// Takes a string that must be there, and reads it.
    pub(super) fn required<T, E: Into<ItemKind>>(
        &mut self,
        name: &'static str,
        faults: &mut Faults,
        read: impl FnOnce(Zeroizing<String>) -> Result<T, E>,
    ) -> Option<T> {
        let value = match self.0.remove(name) {
            None => Err(ItemKind::Missing),
            Some(Field::Text(text)) => read(text).map_err(Into::into),
            Some(_) => Err(ItemKind::StringType),
        };
        faults.note(name, value)
    }

    /// Takes a list of 1 to `most` entries that may be absent or `null`, and reads each; `None` only when
    /// it is at fault.
    #[expect(
        clippy::option_option,
        reason = "at fault, absent, and there are three things to tell apart"
    )]
    pub(super) fn list<T>(
        &mut self,
        name: &'static str,
        most: usize,
        faults: &mut Faults,
        mut read: impl FnMut(Field, &mut Entry<'_>) -> Option<T>,
    ) -> Option<Option<Vec<T>>> {
        let entries = match self.0.remove(name) {
            None | Some(Field::Null) => return Some(None),
            Some(Field::List(entries)) if (1..=most).contains(&entries.len()) => entries,
            Some(_) => return faults.note(name, Err(ItemKind::ValueError)),
        };
        let mut values = Vec::with_capacity(entries.len());
        for (index, field) in entries.into_iter().enumerate() {
            let mut entry = Entry {
                list: name,
                index,
                faults: &mut *faults,
            };
            values.extend(read(field, &mut entry));
        }
        // A fault of one entry leaves a hole, and stands in `faults`.
        Some(Some(values))
    }

    /// Takes a string that may be absent or `null`, and reads it; `None` only when it is at fault.
    #[expect(
        clippy::option_option,
        reason = "at fault, absent, and there are three things to tell apart"
    )]
    pub(super) fn optional<T, E: Into<ItemKind>>(
        &mut self,
        name: &'static str,
        faults: &mut Faults,
        read: impl FnOnce(Zeroizing<String>) -> Result<T, E>,
    ) -> Option<Option<T>> {
        match self.0.get(name) {
            None | Some(Field::Null) => Some(None),
            Some(_) => self.required(name, faults, read).map(Some),
        }
    }
}

/// The faults of one body, to be answered together.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<ErrorItem>);

/// An entry of a list that is being read.
pub(super) struct Entry<'a> {
    list: &'static str,
    index: usize,
    faults: &'a mut Faults,
}

impl Entry<'_> {
    /// Notes what is wrong with the entry itself.
    pub(super) fn note<T>(&mut self, value: Result<T, ItemKind>) -> Option<T> {
        let place = [
            Place::BODY,
            Place::Name(self.list),
            Place::Index(self.index),
        ];
        value
            .map_err(|kind| self.faults.0.push(ErrorItem::new(place, kind)))
            .ok()
    }

    /// Takes a string of the entry's object, and reads it.
    pub(super) fn required<T, E: Into<ItemKind>>(
        &mut self,
        fields: &mut Fields,
        name: &'static str,
        read: impl FnOnce(Zeroizing<String>) -> Result<T, E>,
    ) -> Option<T> {
        let value = match fields.0.remove(name) {
            None => Err(ItemKind::Missing),
            Some(Field::Text(text)) => read(text).map_err(Into::into),
            Some(_) => Err(ItemKind::StringType),
        };
        let place = [
            Place::BODY,
            Place::Name(self.list),
            Place::Index(self.index),
            Place::Name(name),
        ];
        value
            .map_err(|kind| self.faults.0.push(ErrorItem::new(place, kind)))
            .ok()
    }
}

impl Faults {
    /// Whether nothing is wrong.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes what is wrong with a field of the body.
    pub(super) fn note<T>(&mut self, name: &'static str, value: Result<T, ItemKind>) -> Option<T> {
        value
            .map_err(|kind| {
                let item = ErrorItem::new([Place::BODY, Place::Name(name)], kind);
                self.0.push(item);
            })
            .ok()
    }
}

impl From<Faults> for ApiError {
    fn from(faults: Faults) -> Self {
        Self::Validation(faults.0)
    }
}

/// Reads a body that must be one JSON object.
///
/// # Errors
/// [`Malformed::RepeatedKey`] for a key twice in the top-level object, whatever its spelling and whether
/// it is known or not. [`Malformed::Body`] for all that is not one JSON object in UTF-8: a byte order
/// mark, trailing bytes, a lone surrogate, more than 127 levels of nesting, a number beyond `f64`.
pub(super) fn parse_object(bytes: &[u8]) -> Result<Fields, Malformed> {
    let text = std::str::from_utf8(bytes).or(Err(Malformed::Body))?;
    let mut parser = serde_json::Deserializer::from_str(text);
    let top = Top::deserialize(&mut parser).or(Err(Malformed::Body))?;
    parser.end().or(Err(Malformed::Body))?;
    match top {
        Top::Object(fields) => Ok(fields),
        Top::Repeats => Err(Malformed::RepeatedKey),
        Top::Other => Err(Malformed::Body),
    }
}

enum Top {
    Object(Fields),
    Repeats,
    Other,
}

impl<'de> Deserialize<'de> for Top {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TopVisitor)
    }
}

struct TopVisitor;

impl<'de> Visitor<'de> for TopVisitor {
    type Value = Top;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Top, A::Error> {
        Ok(fields(map, Depth::Field)?.map_or(Top::Repeats, Top::Object))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Top, A::Error> {
        FieldVisitor(Depth::Dropped)
            .visit_seq(seq)
            .map(|_| Top::Other)
    }
}

/// Reads an object whose values stand at that depth; nothing when it holds a key more than once.
fn fields<'de, A: MapAccess<'de>>(mut map: A, depth: Depth) -> Result<Option<Fields>, A::Error> {
    let mut fields = HashMap::new();
    let mut seen = HashSet::new();
    let mut repeats = false;
    while let Some(key) = map.next_key::<String>()? {
        let field = map.next_value_seed(depth)?;
        repeats |= !seen.insert(key.clone());
        fields.insert(key, field);
    }
    Ok((!repeats).then_some(Fields(fields)))
}

/// How deep a value stands: what of it is kept. Of all else it is enough to know that it was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// In the top-level object: strings and lists.
    Field,
    /// In such a list: strings and objects.
    Entry,
    /// In such an object: strings.
    EntryField,
    /// Anywhere else: nothing.
    Dropped,
}

impl<'de> DeserializeSeed<'de> for Depth {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_any(FieldVisitor(self))
    }
}

/// Reads any value. Unlike serde's `IgnoredAny`, for which serde_json neither counts the nesting nor
/// checks surrogates, it is as strict with what it drops as with what it keeps.
struct FieldVisitor(Depth);

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Field, E> {
        Ok(Field::Null)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Field, E> {
        Ok(match self.0 {
            Depth::Dropped => Field::Other,
            Depth::Field | Depth::Entry | Depth::EntryField => {
                Field::Text(Zeroizing::new(text.to_owned()))
            }
        })
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field, A::Error> {
        if self.0 == Depth::Field {
            let mut kept = Vec::new();
            while kept.len() < KEPT
                && let Some(entry) = seq.next_element_seed(Depth::Entry)?
            {
                kept.push(entry);
            }
            while seq.next_element_seed(Depth::Dropped)?.is_some() {}
            return Ok(Field::List(kept));
        }
        while seq.next_element_seed(Depth::Dropped)?.is_some() {}
        Ok(Field::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        if self.0 == Depth::Entry {
            return Ok(Field::Object(fields(map, Depth::EntryField)?));
        }
        while map.next_key::<String>()?.is_some() {
            map.next_value_seed(Depth::Dropped)?;
        }
        Ok(Field::Other)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{Provider, SecretName};

    fn malformed(body: impl AsRef<[u8]>) -> Option<Malformed> {
        parse_object(body.as_ref()).err()
    }

    fn text(body: &str, name: &str) -> Option<String> {
        match parse_object(body.as_bytes()).unwrap().0.remove(name) {
            Some(Field::Text(text)) => Some(text.to_string()),
            _ => None,
        }
    }

    #[test]
    fn strings_are_kept_byte_for_byte() {
        assert_eq!(
            text(r#" {"value":" a\u0000\ud83d\ude00\/\n "} "#, "value").unwrap(),
            " a\0😀/\n "
        );
        assert_eq!(text("{\"v\\u0061lue\":\"x\"}", "value").unwrap(), "x");
    }

    #[test]
    fn what_is_not_one_json_object_is_refused() {
        for bad in [
            "",
            " ",
            "null",
            "1",
            "\"x\"",
            "[]",
            "[{}]",
            "{",
            "{}}",
            "{} {}",
            "{}x",
            "{\"a\":1,}",
            "{'a':1}",
            "{a:1}",
            "{\"a\":01}",
            "{\"a\":NaN}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":1}//",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\\udc00\\ud800\"}",
            "{\"a\":{\"b\":[\"\\ud800\"]}}",
            "{\"\\ud800\":1}",
            "\u{feff}{}",
        ] {
            assert_eq!(malformed(bad), Some(Malformed::Body), "{bad}");
        }
        assert_eq!(malformed(b"{\"a\":\"\xff\"}"), Some(Malformed::Body));
        assert_eq!(
            malformed(b"{\"a\":\"\xed\xa0\x80\"}"),
            Some(Malformed::Body)
        );
    }

    #[test]
    fn nesting_has_a_limit_also_in_what_is_ignored() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(malformed(nested(100)), None);
        assert_eq!(malformed(nested(200)), Some(Malformed::Body));
        assert_eq!(malformed("[".repeat(400_000)), Some(Malformed::Body));
    }

    #[test]
    fn a_repeated_key_is_refused_in_every_spelling_and_known_or_not() {
        for bad in [
            r#"{"value":"a","value":"a"}"#,
            r#"{"value":"a","v\u0061lue":"b"}"#,
            r#"{"x":1,"value":"a","x":2}"#,
            r#"{"":1,"":2}"#,
        ] {
            assert_eq!(malformed(bad), Some(Malformed::RepeatedKey), "{bad}");
        }
        assert_eq!(malformed(r#"{"value":"a","VALUE":"b"}"#), None);
        assert_eq!(malformed(r#"{"x":{"a":1,"a":2}}"#), None);
        // Not JSON goes before a repeated key.
        assert_eq!(malformed(r#"{"x":1,"x":2"#), Some(Malformed::Body));
    }

    #[test]
    fn all_faults_of_a_body_are_reported_together() {
        let mut fields = parse_object(br#"{"name":7,"provider":"No","other":[]}"#).unwrap();
        let mut faults = Faults::default();
        let read = |text: Zeroizing<String>| SecretName::parse(&text);
        assert_eq!(fields.required("name", &mut faults, read), None);
        assert_eq!(fields.required("value", &mut faults, read), None);
        let read = |text: Zeroizing<String>| Provider::parse(&text);
        assert_eq!(fields.optional("provider", &mut faults, read), None);
        assert_eq!(fields.optional("absent", &mut faults, read), Some(None));
        let item = |name, kind| ErrorItem::new([Place::BODY, Place::Name(name)], kind);
        assert_eq!(
            faults.0,
            [
                item("name", ItemKind::StringType),
                item("value", ItemKind::Missing),
                item("provider", ItemKind::StringPatternMismatch),
            ]
        );
    }

    #[test]
    fn null_is_absent_only_where_a_field_is_optional() {
        let mut fields = parse_object(br#"{"name":null,"provider":null}"#).unwrap();
        let mut faults = Faults::default();
        let read = |text: Zeroizing<String>| Provider::parse(&text);
        assert_eq!(fields.optional("provider", &mut faults, read), Some(None));
        assert!(faults.0.is_empty());
        assert_eq!(fields.required("name", &mut faults, read), None);
        assert_eq!(faults.0.len(), 1);
    }

    #[test]
    fn a_growing_body_is_whole() {
        let mut body = Zeroizing::new(Vec::new());
        let mut expected = Vec::new();
        for n in 0..200_u8 {
            let chunk = vec![n; usize::from(n)];
            append(&mut body, &chunk);
            expected.extend_from_slice(&chunk);
        }
        assert_eq!(*body, expected);
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(bytes: Vec<u8>) {
            let _ = parse_object(&bytes);
        }

        #[test]
        fn any_string_comes_back(value: String) {
            let body = serde_json::json!({ "value": value }).to_string();
            prop_assert_eq!(text(&body, "value").unwrap(), value);
        }

        #[test]
        fn what_serde_json_takes_as_an_object_is_taken(body in "\\{(\"[a-c]{1,2}\":(1|null|\"x\"|\\[\\]|\\{\\}),?){0,3}\\}") {
            let valid = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&body).is_ok();
            prop_assert_eq!(valid, malformed(&body) != Some(Malformed::Body));
        }
    }
}
