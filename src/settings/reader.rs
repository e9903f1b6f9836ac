//! Takes settings by name from the leaves, each with its rule, and collects the faults. What
//! nobody has taken at the end is an unknown setting.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use config::{Value, ValueKind};

use super::error::{Fault, Origin};
use super::sources::{Collected, Given, Leaf};

pub(super) struct Reader {
    leaves: Vec<Leaf>,
    faults: Vec<Fault>,
    /// Every name asked for so far.
    known: BTreeSet<&'static str>,
    /// Every section whose names are free.
    tables: BTreeSet<&'static str>,
    /// Every good number so far, for the comparisons.
    numbers: BTreeMap<&'static str, u64>,
}

/// How one number stands to another.
#[derive(Clone, Copy)]
pub(super) enum Order {
    Below,
    AtMost,
}

impl Reader {
    pub(super) fn new(collected: Collected) -> Self {
        Self {
            leaves: collected.leaves,
            faults: collected.faults,
            known: BTreeSet::new(),
            tables: BTreeSet::new(),
            numbers: BTreeMap::new(),
        }
    }

    /// The value that wins, parsed; else a fault and `None`.
    pub(super) fn take<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl FnOnce(&Given) -> Option<T>,
    ) -> Option<T> {
        self.known.insert(key);
        let parsed = match self.winner(key).map(|leaf| &leaf.given) {
            Some(Given::Unreadable) => return None,
            Some(given) => parse(given),
            None => None,
        };
        if parsed.is_none() {
            self.refuse(key, allowed);
        }
        parsed
    }

    pub(super) fn text<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.take(key, allowed, |given| parse(text_of(given)?))
    }

    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.take(key, &format!("a list of {allowed}"), |given| {
            items_of(given)?.into_iter().map(parse).collect()
        })
    }

    /// A list in which `name_of` is another one for each item.
    pub(super) fn distinct<T>(
        &mut self,
        key: &'static str,
        allowed: &str,
        parse: impl Fn(&str) -> Option<T>,
        name_of: impl Fn(&T) -> String,
    ) -> Option<Vec<T>> {
        let allowed = format!("a list of {allowed}");
        self.take(key, &allowed, |given| {
            let items: Option<Vec<T>> = items_of(given)?.into_iter().map(parse).collect();
            let mut names = BTreeSet::new();
            items.filter(|items| items.iter().all(|item| names.insert(name_of(item))))
        })
    }

    pub(super) fn number<N: TryFrom<u64>>(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<N> {
        let allowed = format!("a whole number from {} to {}", range.start(), range.end());
        let number = self.take(key, &allowed, |given| {
            let number = whole_of(given).filter(|number| range.contains(number))?;
            Some((number, N::try_from(number).ok()?))
        });
        let (number, converted) = number?;
        self.numbers.insert(key, number);
        Some(converted)
    }

    pub(super) fn millis(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<Duration> {
        self.number(key, range).map(Duration::from_millis)
    }

    pub(super) fn switch(&mut self, key: &'static str) -> Option<bool> {
        self.take(key, "true or false", switch_of)
    }

    /// A table with free keys: each key once, where it was first declared, with its last value.
    pub(super) fn table(&mut self, section: &'static str) -> Vec<(String, Option<String>)> {
        self.tables.insert(section);
        let mut entries: Vec<(String, Option<String>)> = Vec::new();
        for leaf in &self.leaves {
            let key = leaf.key.strip_prefix(section);
            let Some(key) = key.and_then(|key| key.strip_prefix('.')) else {
                continue;
            };
            let value = text_of(&leaf.given).map(str::to_owned);
            match entries.iter_mut().find(|(known, _)| known == key) {
                Some((_, last)) => *last = value,
                None => entries.push((key.to_owned(), value)),
            }
        }
        entries
    }

    /// A fault if both numbers are good by themselves but not in this order. It is reported of
    /// the one that somebody set.
    pub(super) fn compare(&mut self, smaller: &'static str, order: Order, larger: &'static str) {
        let Some((small, large)) = self.numbers.get(smaller).zip(self.numbers.get(larger)) else {
            return;
        };
        let (holds, relation, inverse) = match order {
            Order::Below => (small < large, "less than", "more than"),
            Order::AtMost => (small <= large, "at most", "at least"),
        };
        if holds {
            return;
        }
        let (key, relation, other) = if self.is_set(smaller) {
            (smaller, relation, larger)
        } else {
            (larger, inverse, smaller)
        };
        let origin = self.origin_of(other);
        self.refuse(key, &format!("{relation} {other} ({origin})"));
    }

    /// Some file or variable gives this setting.
    pub(super) fn is_set(&self, key: &str) -> bool {
        let mut leaves = self.leaves.iter();
        leaves.any(|leaf| leaf.key == key && leaf.origin != Origin::Default)
    }

    /// Notes that the value given for `key` is not allowed.
    pub(super) fn refuse(&mut self, key: &str, allowed: &str) {
        self.faults.push(Fault::Refused {
            key: key.to_owned(),
            origin: self.origin_of(key),
            allowed: allowed.to_owned(),
        });
    }

    pub(super) fn origin_of(&self, key: &str) -> Origin {
        let origin = self.winner(key).map(|leaf| leaf.origin.clone());
        origin.unwrap_or(Origin::Default)
    }

    fn winner(&self, key: &str) -> Option<&Leaf> {
        self.leaves.iter().rfind(|leaf| leaf.key == key)
    }

    /// All faults, unknown settings last.
    pub(super) fn finish(mut self) -> Vec<Fault> {
        for leaf in &self.leaves {
            let key = leaf.key.clone();
            let origin = leaf.origin.clone();
            if self.knows(&key) {
                continue;
            }
            if !self.knows_section(&key) {
                let nearest = self.nearest(&key);
                self.faults.push(Fault::Unknown {
                    key,
                    origin,
                    nearest,
                });
            } else if !matches!(leaf.given, Given::Typed(ValueKind::Table(_))) {
                let allowed = "a table of settings".to_owned();
                self.faults.push(Fault::Refused {
                    key,
                    origin,
                    allowed,
                });
            }
        }
        self.faults
    }

    fn knows(&self, key: &str) -> bool {
        let section = key.split_once('.').map(|(section, _)| section);
        self.known.contains(key) || section.is_some_and(|section| self.tables.contains(section))
    }

    fn knows_section(&self, key: &str) -> bool {
        let mut sections = self.known.iter().filter_map(|key| key.split_once('.'));
        self.tables.contains(key) || sections.any(|(section, _)| section == key)
    }

    fn nearest(&self, key: &str) -> Option<&'static str> {
        let known = self.known.iter().copied();
        let (distance, name) = known.map(|name| (distance(key, name), name)).min()?;
        (distance <= 3).then_some(name)
    }
}

fn text_of(given: &Given) -> Option<&str> {
    match given {
        Given::Text(text) | Given::Typed(ValueKind::String(text)) => Some(text),
        Given::Typed(_) | Given::Unreadable => None,
    }
}

fn whole_of(given: &Given) -> Option<u64> {
    match given {
        // `parse` takes a plus sign, which no file does.
        Given::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Given::Typed(ValueKind::I64(number)) => u64::try_from(*number).ok(),
        Given::Text(_) | Given::Typed(_) | Given::Unreadable => None,
    }
}

fn switch_of(given: &Given) -> Option<bool> {
    match given {
        Given::Text(text) => text.parse().ok(),
        Given::Typed(ValueKind::Boolean(switch)) => Some(*switch),
        Given::Typed(_) | Given::Unreadable => None,
    }
}

fn items_of(given: &Given) -> Option<Vec<&str>> {
    match given {
        Given::Text(text) if text.is_empty() => Some(Vec::new()),
        Given::Text(text) => Some(text.split(',').map(str::trim).collect()),
        Given::Typed(ValueKind::Array(items)) => items.iter().map(text_item).collect(),
        Given::Typed(_) | Given::Unreadable => None,
    }
}

fn text_item(item: &Value) -> Option<&str> {
    let ValueKind::String(text) = &item.kind else {
        return None;
    };
    Some(text)
}

/// Levenshtein's: how many letters to add, drop or change.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (index, letter) in left.chars().enumerate() {
        let mut diagonal = index;
        let mut before = index + 1;
        let mut next = vec![before];
        for (other, above) in right.chars().zip(row.into_iter().skip(1)) {
            let changed = diagonal + usize::from(letter != other);
            before = changed.min(above + 1).min(before + 1);
            diagonal = above;
            next.push(before);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_letters() {
        assert_eq!(distance("server.port", "server.port"), 0);
        assert_eq!(distance("server.prot", "server.port"), 2);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
