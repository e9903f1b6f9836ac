//! Takes settings by name from the layers, each with its rule, and collects the faults.

use std::{
    collections::BTreeSet, num::NonZeroU32, ops::RangeInclusive, path::PathBuf, time::Duration,
};

use config::{Value, ValueKind};
use secrecy::SecretString;

use super::{
    error::{Source, fault},
    layers::{Layers, PRESETS},
    parse,
};

pub(super) struct SettingReader(Layers);

/// A value as its source gave it.
enum Given<'a> {
    /// From a file, with TOML's type.
    Typed(&'a ValueKind),
    /// From the environment.
    Text(&'a str),
}

impl SettingReader {
    pub(super) fn new(layers: Layers) -> Self {
        Self(layers)
    }

    /// All faults; what is no setting comes last.
    pub(super) fn into_faults(self) -> Vec<String> {
        self.0.faults.into_iter().chain(self.0.unknown).collect()
    }

    fn value(&self, key: &str) -> Option<&Value> {
        let (section, name) = key.split_once('.')?;
        table(table(&self.0.values.cache)?.get(section)?)?.get(name)
    }

    /// Where the value that wins came from.
    pub(super) fn source(&self, key: &str) -> Source {
        let origin = self.value(key).and_then(Value::origin);
        let source = origin.and_then(|index| self.0.sources.get(index.parse::<usize>().ok()?));
        // A setting without a value is one that the default lacks.
        source.cloned().unwrap_or(Source::Default)
    }

    fn given(&self, key: &str) -> Option<Given<'_>> {
        Some(match (self.source(key), &self.value(key)?.kind) {
            (Source::Variable(_), ValueKind::String(text)) => Given::Text(text),
            (_, kind) => Given::Typed(kind),
        })
    }

    /// A file or a variable gives this setting.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.source(key) != Source::Default || self.is_refused(key)
    }

    /// The setting has a fault already.
    fn is_refused(&self, key: &str) -> bool {
        self.0.refused.iter().any(|other| other == key)
    }

    /// Notes that the value given for `key` breaks its rule.
    pub(super) fn refuse(&mut self, key: &str, rule: &str) {
        let what = format!("must be {rule}");
        self.0.faults.push(fault(key, &self.source(key), what));
        self.0.refused.push(key.to_owned());
    }

    /// The value that wins, parsed; else a fault and none.
    fn take<T>(
        &mut self,
        key: &str,
        rule: &str,
        parse: impl FnOnce(Given<'_>) -> Option<T>,
    ) -> Option<T> {
        if self.is_refused(key) {
            return None;
        }
        let parsed = self.given(key).and_then(parse);
        if parsed.is_none() {
            self.refuse(key, rule);
        }
        parsed
    }

    pub(super) fn text<T>(
        &mut self,
        key: &str,
        rule: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        self.take(key, rule, |given| parse(text_of(&given)?))
    }

    /// A text that may be empty.
    #[expect(
        clippy::option_option,
        reason = "a fault, empty, and a value are three things"
    )]
    pub(super) fn optional<T>(
        &mut self,
        key: &str,
        rule: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<Option<T>> {
        self.text(key, rule, |text| match text {
            "" => Some(None),
            text => parse(text).map(Some),
        })
    }

    pub(super) fn list<T>(
        &mut self,
        key: &str,
        rule: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<Vec<T>> {
        self.take(key, &format!("a list of {rule}"), |given| {
            items_of(&given)?.into_iter().map(parse).collect()
        })
    }

    /// A list in which `name_of` is another one for each item.
    pub(super) fn distinct<T>(
        &mut self,
        key: &str,
        rule: &str,
        parse: impl Fn(&str) -> Option<T>,
        name_of: impl Fn(&T) -> String,
    ) -> Option<Vec<T>> {
        self.take(key, &format!("a list of {rule}"), |given| {
            let items: Option<Vec<T>> = items_of(&given)?.into_iter().map(parse).collect();
            let mut names = BTreeSet::new();
            items.filter(|items| items.iter().all(|item| names.insert(name_of(item))))
        })
    }

    pub(super) fn number<N: TryFrom<u64>>(
        &mut self,
        key: &str,
        range: RangeInclusive<u64>,
    ) -> Option<N> {
        let rule = format!("a whole number from {} to {}", range.start(), range.end());
        self.take(key, &rule, |given| {
            let number = whole_of(&given).filter(|number| range.contains(number))?;
            N::try_from(number).ok()
        })
    }

    pub(super) fn positive(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<NonZeroU32> {
        self.number::<u32>(key, range).and_then(NonZeroU32::new)
    }

    pub(super) fn millis(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<Duration> {
        self.number(key, range).map(Duration::from_millis)
    }

    pub(super) fn seconds(&mut self, key: &str, range: RangeInclusive<u64>) -> Option<Duration> {
        self.number(key, range).map(Duration::from_secs)
    }

    /// Days that something is kept; 0 means for ever.
    #[expect(
        clippy::option_option,
        reason = "a fault, for ever, and so long are three things"
    )]
    pub(super) fn days(&mut self, key: &str) -> Option<Option<Duration>> {
        let days: u64 = self.number(key, 0..=36_500)?;
        Some((days > 0).then(|| Duration::from_secs(days * 86_400)))
    }

    pub(super) fn switch(&mut self, key: &str) -> Option<bool> {
        self.take(key, "true or false", |given| match given {
            Given::Text(text) => text.parse().ok(),
            Given::Typed(ValueKind::Boolean(switch)) => Some(*switch),
            Given::Typed(_) => None,
        })
    }

    pub(super) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let plain = |text: &str| !text.is_empty() && !text.contains('\0');
        self.text(key, "a path", |text| plain(text).then(|| text.into()))
    }

    pub(super) fn database_url(&mut self, key: &str) -> Option<SecretString> {
        let rule =
            "sqlite://PATH (a plain path, without parameters), postgres://… or postgresql://…";
        self.text(key, rule, parse::database_url)
    }

    /// The presets' keys, in the order of their declaration.
    pub(super) fn presets(&self) -> Vec<String> {
        let presets = table(&self.0.values.cache).and_then(|root| table(root.get(PRESETS)?));
        // The default declares some; they can't be removed, only emptied.
        presets.map_or_else(Vec::new, |presets| presets.keys().cloned().collect())
    }

    /// A fault if both numbers obey their own rules but not this order. It is reported of the one that was
    /// set.
    pub(super) fn compare(&mut self, smaller: &str, larger: &str, or_equal: bool) {
        let number = |key| self.given(key).and_then(|given| whole_of(&given));
        let good = [smaller, larger].iter().all(|key| !self.is_refused(key));
        let (Some(small), Some(large), true) = (number(smaller), number(larger), good) else {
            return;
        };
        if small < large || (or_equal && small == large) {
            return;
        }
        let (relation, inverse) = if or_equal {
            ("at most", "at least")
        } else {
            ("less than", "more than")
        };
        let (key, relation, other) = if self.is_set(smaller) {
            (smaller, relation, larger)
        } else {
            (larger, inverse, smaller)
        };
        let source = self.source(other);
        self.refuse(key, &format!("{relation} {other} ({source})"));
    }
}

fn table(value: &Value) -> Option<&config::Map<String, Value>> {
    let ValueKind::Table(table) = &value.kind else {
        return None;
    };
    Some(table)
}

fn text_of<'a>(given: &Given<'a>) -> Option<&'a str> {
    match given {
        Given::Text(text) => Some(text),
        Given::Typed(ValueKind::String(text)) => Some(text),
        Given::Typed(_) => None,
    }
}

fn whole_of(given: &Given<'_>) -> Option<u64> {
    match given {
        // `parse` takes a plus sign, which no file does.
        Given::Text(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok(),
        Given::Typed(ValueKind::I64(number)) => u64::try_from(*number).ok(),
        Given::Text(_) | Given::Typed(_) => None,
    }
}

fn items_of<'a>(given: &Given<'a>) -> Option<Vec<&'a str>> {
    match given {
        Given::Text("") => Some(Vec::new()),
        Given::Text(text) => Some(text.split(',').map(str::trim).collect()),
        Given::Typed(ValueKind::Array(items)) => {
            let text = |item: &'a Value| text_of(&Given::Typed(&item.kind));
            items.iter().map(text).collect()
        }
        Given::Typed(_) => None,
    }
}
