//! The query of a request: parameters by name, each read strictly, all faults reported together.

use url::form_urlencoded;

use super::{
    envelope::{ItemKind, Location},
    error::ApiError,
    fields::Faults,
};
use crate::domain::Cursor;

/// The most events of a page, and how many it has unless the caller says.
pub(super) const MOST: u32 = 1000;
pub(super) const USUAL: u32 = 100;

/// The parameters of a query. Parameters that no handler reads are ignored.
pub(super) struct Query {
    parameters: Vec<(String, String)>,
    faults: Faults,
}

impl Query {
    /// Splits and decodes (WHATWG URL, `application/x-www-form-urlencoded`). Bytes that are not UTF-8 become
    /// replacement characters, which no value may hold.
    pub(super) fn parse(query: &str) -> Self {
        let parameters = form_urlencoded::parse(query.as_bytes()).into_owned();
        Self {
            parameters: parameters.collect(),
            faults: Faults::default(),
        }
    }

    /// Reads every value of a parameter that may repeat.
    pub(super) fn all<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, ItemKind>,
    ) -> Vec<T> {
        let texts = self.parameters.iter().filter(|(key, _)| key == name);
        let values = texts.map(|(_, text)| read(text)).collect();
        let place = [Location::QUERY, Location::Name(name)];
        self.faults.at(place, values).unwrap_or_default()
    }

    /// Reads a parameter that may be given once.
    pub(super) fn once<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, ItemKind>,
    ) -> Option<T> {
        let mut given = self.parameters.iter().filter(|(key, _)| key == name);
        let repeats = given.nth(1).is_some();
        let read_once = |text: &str| {
            if repeats {
                Err(ItemKind::ValueError)
            } else {
                read(text)
            }
        };
        self.all(name, read_once).pop()
    }

    /// Reads a cursor.
    pub(super) fn cursor(&mut self, name: &'static str) -> Option<Cursor> {
        self.once(name, |text| {
            Cursor::parse(text).or(Err(ItemKind::ValueError))
        })
    }

    /// Reads `limit`: 1 to 1000, 100 unless said.
    pub(super) fn limit(&mut self) -> u32 {
        self.once("limit", read_limit).unwrap_or(USUAL)
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`ApiError::Validation`] with all faults.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(self.faults.into())
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::envelope::ErrorItem, *};

    fn page(query: &str) -> Result<(Option<String>, u32), Vec<ErrorItem>> {
        let mut query = Query::parse(query);
        let (before, limit) = (query.cursor("before"), query.limit());
        match query.finish() {
            Ok(()) => Ok((before.map(|cursor| cursor.to_string()), limit)),
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
        let item = |name, kind| ErrorItem::new([Location::QUERY, Location::Name(name)], kind);
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

    proptest! {
        #[test]
        fn any_query_ends_in_an_answer(query: String) {
            let _ = page(&query);
        }
    }
}
