//! The body's object: its top level parsed strictly, its values wiped on drop.
//!
//! A repeated key is refused, known or not, and all faults are found together. What nobody asks for is read as
//! strictly as the rest, but not kept: neither value nor key. serde_json's messages quote their input: none of
//! them leaves this file.

use std::{
    borrow::Cow,
    cell::Cell,
    collections::{HashMap, HashSet},
    fmt,
};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroizing;

use super::{
    envelope::{ErrorItem, ItemKind, Location},
    error::{ApiError, MalformedRequest},
};

/// A value of the body, as far as anybody asks for it.
pub(super) enum Field {
    /// `null`
    Null,
    /// A string.
    Text(Zeroizing<String>),
    /// A whole number that is not negative.
    Number(u64),
    /// A list: of strings and objects, and not more of them than [`KEPT`].
    List(Vec<Field>),
    /// The top-level object, or one in a list with its strings; nothing when it holds a key more than once.
    Object(Option<Fields>),
    /// Anything else.
    Other,
}

/// A whole number that may be left out, or be `null` on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GivenNumber {
    /// It is not there.
    Absent,
    /// `null`
    Null,
    /// The number.
    Number(u64),
}

/// So many entries of a list are kept: one more than any call takes.
const KEPT: usize = 101;

/// So many members of objects and entries of lists a body may have in all.
const MEMBERS: usize = 10_000;

/// The known fields of a body's top-level object.
#[derive(Default)]
pub(super) struct Fields(HashMap<&'static str, Field>);

impl Fields {
    /// Takes a string that must be there, and reads it.
    pub(super) fn required<T, E: Into<ItemKind>>(
        &mut self,
        name: &'static str,
        faults: &mut Faults,
        read: impl FnOnce(Zeroizing<String>) -> Result<T, E>,
    ) -> Option<T> {
        let value = self.take(name, read);
        faults.note(name, value)
    }

    /// Takes a string that must be there, and reads it; else what is wrong.
    fn take<T, E: Into<ItemKind>>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(Zeroizing<String>) -> Result<T, E>,
    ) -> Result<T, ItemKind> {
        match self.0.remove(name) {
            None => Err(ItemKind::Missing),
            Some(Field::Text(text)) => read(text).map_err(Into::into),
            Some(_) => Err(ItemKind::StringType),
        }
    }

    /// Takes a whole number that must be there and is not negative.
    pub(super) fn number(&mut self, name: &'static str, faults: &mut Faults) -> Option<u64> {
        let number = match self.given_number(name, faults)? {
            GivenNumber::Absent => Err(ItemKind::Missing),
            GivenNumber::Null => Err(ItemKind::IntType),
            GivenNumber::Number(number) => Ok(number),
        };
        faults.note(name, number)
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
        mut read: impl FnMut(Field, &mut ListEntry<'_>) -> Option<T>,
    ) -> Option<Option<Vec<T>>> {
        let entries = match self.0.remove(name) {
            None | Some(Field::Null) => return Some(None),
            Some(Field::List(entries)) if (1..=most).contains(&entries.len()) => entries,
            Some(_) => return faults.note(name, Err(ItemKind::ValueError)),
        };
        let mut values = Vec::with_capacity(entries.len());
        for (index, field) in entries.into_iter().enumerate() {
            let mut entry = ListEntry {
                place: [Location::BODY, Location::Name(name), Location::Index(index)],
                faults: &mut *faults,
            };
            values.extend(read(field, &mut entry));
        }
        // A fault of one entry leaves a hole, and stands in `faults`.
        Some(Some(values))
    }

    /// Takes a whole number, in the three ways in which it may be given; `None` only when it is at fault.
    pub(super) fn given_number(
        &mut self,
        name: &'static str,
        faults: &mut Faults,
    ) -> Option<GivenNumber> {
        match self.0.remove(name) {
            None => Some(GivenNumber::Absent),
            Some(Field::Null) => Some(GivenNumber::Null),
            Some(Field::Number(number)) => Some(GivenNumber::Number(number)),
            Some(_) => faults.note(name, Err(ItemKind::IntType)),
        }
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

/// The faults of one request, to be answered together.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<ErrorItem>);

/// An entry of a list that is being read.
pub(super) struct ListEntry<'a> {
    place: [Location; 3],
    faults: &'a mut Faults,
}

impl ListEntry<'_> {
    /// Notes what is wrong with the entry itself.
    pub(super) fn note<T>(&mut self, value: Result<T, ItemKind>) -> Option<T> {
        self.faults.at(self.place, value)
    }

    /// Takes a string of the entry's object, and reads it.
    pub(super) fn required<T, E: Into<ItemKind>>(
        &mut self,
        fields: &mut Fields,
        name: &'static str,
        read: impl FnOnce(Zeroizing<String>) -> Result<T, E>,
    ) -> Option<T> {
        let [body, list, index] = self.place;
        let place = [body, list, index, Location::Name(name)];
        self.faults.at(place, fields.take(name, read))
    }
}

impl Faults {
    /// Whether nothing is wrong.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Notes what is wrong with a field of the body.
    pub(super) fn note<T>(&mut self, name: &'static str, value: Result<T, ItemKind>) -> Option<T> {
        self.at([Location::BODY, Location::Name(name)], value)
    }

    /// Notes what is wrong at a place of the request.
    pub(super) fn at<T, const N: usize>(
        &mut self,
        place: [Location; N],
        value: Result<T, ItemKind>,
    ) -> Option<T> {
        value
            .map_err(|kind| self.0.push(ErrorItem::new(place, kind)))
            .ok()
    }
}

impl From<Faults> for ApiError {
    fn from(faults: Faults) -> Self {
        Self::Validation(faults.0)
    }
}

/// Reads a body that must be one JSON object, and keeps the fields that are known by these names, in it and in the
/// objects of its lists.
///
/// # Errors
/// [`MalformedRequest::Members`] for more than [`MEMBERS`]. [`MalformedRequest::RepeatedKey`] for a key twice in the top-level object, whatever its spelling and whether
/// it is known or not. [`MalformedRequest::Body`] for all that is not one JSON object in UTF-8: a byte order
/// mark, trailing bytes, a lone surrogate, more than 127 levels of nesting, a number beyond `f64`.
pub(super) fn parse_object(
    bytes: &[u8],
    known: &[&'static str],
) -> Result<Fields, MalformedRequest> {
    let text = std::str::from_utf8(bytes).or(Err(MalformedRequest::Body))?;
    let mut parser = serde_json::Deserializer::from_str(text);
    // One is never taken.
    let room = Cell::new(MEMBERS + 1);
    let reading = Reading {
        depth: Depth::Top,
        known,
        room: &room,
    };
    let top = reading.deserialize(&mut parser).map_err(|_quoting| {
        if room.get() == 0 {
            MalformedRequest::Members
        } else {
            MalformedRequest::Body
        }
    })?;
    parser.end().or(Err(MalformedRequest::Body))?;
    match top {
        Field::Object(Some(fields)) => Ok(fields),
        Field::Object(None) => Err(MalformedRequest::RepeatedKey),
        Field::Null | Field::Text(_) | Field::Number(_) | Field::List(_) | Field::Other => {
            Err(MalformedRequest::Body)
        }
    }
}

/// How deep a value stands: what of it is kept. Of all else it is enough to know that it was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    /// The top level: an object.
    Top,
    /// In the top-level object: strings and lists.
    Field,
    /// In such a list: strings and objects.
    ListEntry,
    /// In such an object: strings.
    EntryField,
    /// Anywhere else: nothing.
    Dropped,
}

/// A value that is being read.
#[derive(Clone, Copy)]
struct Reading<'a> {
    depth: Depth,
    known: &'a [&'static str],
    /// How many more members the body may have.
    room: &'a Cell<usize>,
}

impl Reading<'_> {
    fn at(self, depth: Depth) -> Self {
        Self { depth, ..self }
    }

    /// Counts a member.
    fn count<E: de::Error>(self) -> Result<(), E> {
        let left = self.room.get().checked_sub(1);
        self.room.set(left.unwrap_or(0));
        left.filter(|left| *left > 0)
            .map(|_| ())
            .ok_or_else(|| E::custom("too many members"))
    }

    /// The next key of an object. Without escapes it is a part of the body, and no copy.
    fn key<'de, A: MapAccess<'de>>(self, map: &mut A) -> Result<Option<Cow<'de, str>>, A::Error> {
        let key = map.next_key_seed(Key)?;
        if key.is_some() {
            self.count()?;
        }
        Ok(key)
    }

    /// Reads an object whose known values stand at that depth; nothing when it holds a key more than once.
    fn fields<'de, A: MapAccess<'de>>(
        self,
        mut map: A,
        depth: Depth,
    ) -> Result<Option<Fields>, A::Error> {
        let mut fields = HashMap::new();
        let mut seen = HashSet::new();
        let mut repeats = false;
        while let Some(key) = self.key(&mut map)? {
            if let Some(name) = self.known.iter().find(|name| **name == key) {
                fields.insert(*name, map.next_value_seed(self.at(depth))?);
            } else {
                map.next_value_seed(self.at(Depth::Dropped))?;
            }
            repeats |= !seen.insert(key);
        }
        Ok((!repeats).then_some(Fields(fields)))
    }

    /// Reads entries of a list, at most so many.
    fn entries<'de, A: SeqAccess<'de>>(
        self,
        seq: &mut A,
        most: usize,
        mut take: impl FnMut(Field),
    ) -> Result<(), A::Error> {
        let mut taken = 0;
        while taken < most
            && let Some(entry) = seq.next_element_seed(self)?
        {
            self.count()?;
            take(entry);
            taken += 1;
        }
        Ok(())
    }
}

/// Reads the key of a member.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cow<'de, str>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Field;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Field, D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// It reads any value. Unlike serde's `IgnoredAny`, for which serde_json neither counts the nesting nor
/// checks surrogates, it is as strict with what it drops as with what it keeps.
impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Field, E> {
        Ok(Field::Null)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Field, E> {
        Ok(match self.depth {
            Depth::Top | Depth::Dropped => Field::Other,
            Depth::Field | Depth::ListEntry | Depth::EntryField => {
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

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Field, E> {
        Ok(match self.depth {
            Depth::Field => Field::Number(number),
            Depth::Top | Depth::ListEntry | Depth::EntryField | Depth::Dropped => Field::Other,
        })
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Field, E> {
        Ok(Field::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field, A::Error> {
        let mut kept = Vec::new();
        if self.depth == Depth::Field {
            let entries = self.at(Depth::ListEntry);
            entries.entries(&mut seq, KEPT, |entry| kept.push(entry))?;
        }
        self.at(Depth::Dropped)
            .entries(&mut seq, usize::MAX, drop)?;
        Ok(match self.depth {
            Depth::Field => Field::List(kept),
            Depth::Top | Depth::ListEntry | Depth::EntryField | Depth::Dropped => Field::Other,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Field, A::Error> {
        match self.depth {
            Depth::Top => self.fields(map, Depth::Field).map(Field::Object),
            Depth::ListEntry => self.fields(map, Depth::EntryField).map(Field::Object),
            Depth::Field | Depth::EntryField | Depth::Dropped => {
                while self.key(&mut map)?.is_some() {
                    map.next_value_seed(self.at(Depth::Dropped))?;
                }
                Ok(Field::Other)
            }
        }
    }
}

#[cfg(test)]
mod tests;
