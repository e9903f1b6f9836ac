//! Takes settings by name from the layers, each with its parser. A fault is noted, and the default stands in for
//! the value: so reading goes on, and no fault hides another.

use std::{collections::BTreeSet, num::NonZeroU32, ops::RangeInclusive, time::Duration};

use serde_json::Value;

use super::{
    layers::{BUILT_IN, DEFAULT, PRESETS, SettingReader, fault},
    server_url::UrlFault,
};

/// The parser of a text.
type Parse<T> = fn(&str) -> Option<T>;
/// The parser of a text that says what is wrong with it.
type ParseAddress<T> = fn(&str) -> Result<T, UrlFault>;

impl SettingReader {
    /// Where the value that wins came from.
    pub(super) fn source(&self, key: &str) -> &str {
        let setting = self.settings.get(key);
        setting.map_or(BUILT_IN, |setting| &setting.source)
    }

    /// A file or a variable gives this setting.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.source(key) != BUILT_IN
    }

    /// The value that wins, unless there is a fault of it.
    fn value(&self, key: &str) -> Option<&Value> {
        self.settings.get(key)?.value.as_ref()
    }

    /// Notes that the value given for `key` breaks its rule.
    pub(super) fn refuse(&mut self, key: &str, rule: &str) {
        self.refuse_unless(key, &format!("be {rule}"));
    }

    /// Notes what the value given for `key` must do.
    fn refuse_unless(&mut self, key: &str, rule: &str) {
        if let Some(setting) = self.settings.get_mut(key) {
            setting.value = None;
            let what = format!("must {rule}");
            self.faults.push(fault(key, &setting.source, what));
        }
    }

    /// The value that wins, parsed. None if there is a fault of it, which is noted now unless it was before.
    pub(super) fn given<T>(
        &mut self,
        key: &str,
        rule: &str,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let parsed = parse(self.value(key)?);
        if parsed.is_none() {
            self.refuse(key, rule);
        }
        parsed
    }

    /// The value that wins, parsed, or the default in place of one with a fault.
    fn take<T>(&mut self, key: &str, rule: &str, parse: impl Fn(&Value) -> Option<T>) -> T {
        let given = self.given(key, rule, &parse);
        let value = given.or_else(|| self.defaults.get(key).and_then(parse));
        #[expect(clippy::expect_used, reason = "each start reads all defaults")]
        value.expect("the default has this setting and obeys its rule")
    }

    pub(super) fn text<T>(&mut self, key: &str, parse: Parse<T>) -> T {
        self.take(key, rule_of(key), |value| parse(value.as_str()?))
    }

    /// A text that may be empty.
    pub(super) fn optional<T>(&mut self, key: &str, parse: Parse<T>) -> Option<T> {
        self.take(key, rule_of(key), |value| match value.as_str()? {
            "" => Some(None),
            text => parse(text).map(Some),
        })
    }

    /// A text whose parser says what is wrong with it.
    pub(super) fn address<T>(&mut self, key: &str, parse: ParseAddress<T>) -> T {
        let refused = match self.value(key).and_then(Value::as_str).map(parse) {
            Some(Err(UrlFault::Must(what))) => Some(what),
            Some(Ok(_) | Err(UrlFault::Rule)) | None => None,
        };
        if let Some(what) = refused {
            self.refuse_unless(key, &what);
        }
        self.take(key, rule_of(key), |value| parse(value.as_str()?).ok())
    }

    pub(super) fn list<T>(&mut self, key: &str, parse: Parse<T>) -> Vec<T> {
        self.take(key, rule_of(key), |value| {
            items_of(value)?.into_iter().map(parse).collect()
        })
    }

    /// A list in which what stands before `divider` is another name in each item.
    pub(super) fn distinct<T>(&mut self, key: &str, divider: char, parse: Parse<T>) -> Vec<T> {
        self.take(key, rule_of(key), |value| {
            let items = items_of(value)?;
            let names = items.iter().map(|item| item.split(divider).next());
            if names.collect::<BTreeSet<_>>().len() < items.len() {
                return None;
            }
            items.into_iter().map(parse).collect()
        })
    }

    /// The items of a list without a fault; else none.
    pub(super) fn items(&self, key: &str) -> Vec<&str> {
        self.value(key).and_then(items_of).unwrap_or_default()
    }

    pub(super) fn number<N: TryFrom<u64>>(&mut self, key: &str, range: RangeInclusive<u64>) -> N {
        let rule = format!("a whole number from {} to {}", range.start(), range.end());
        self.take(key, &rule, |value| {
            let number = value.as_u64().filter(|number| range.contains(number))?;
            N::try_from(number).ok()
        })
    }

    /// A number whose range begins at 1 or later.
    pub(super) fn positive(&mut self, key: &str, range: RangeInclusive<u64>) -> NonZeroU32 {
        NonZeroU32::new(self.number(key, range)).unwrap_or(NonZeroU32::MIN)
    }

    pub(super) fn millis(&mut self, key: &str, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.number(key, range))
    }

    pub(super) fn seconds(&mut self, key: &str, range: RangeInclusive<u64>) -> Duration {
        Duration::from_secs(self.number(key, range))
    }

    /// Days that something is kept; 0 means for ever.
    pub(super) fn days(&mut self, key: &str) -> Option<Duration> {
        let days: u64 = self.number(key, 0..=36_500);
        (days > 0).then(|| Duration::from_secs(days * 86_400))
    }

    pub(super) fn switch(&mut self, key: &str) -> bool {
        self.take(key, rule_of(key), Value::as_bool)
    }

    /// The names of the presets, in the order of their declaration. The default declares some; they can't be
    /// removed, only emptied.
    pub(super) fn presets(&self) -> Vec<String> {
        let keys = self.settings.keys();
        let names = keys.filter_map(|key| key.strip_prefix(PRESETS));
        names.map(str::to_owned).collect()
    }

    /// A fault if both numbers obey their own rules but not this order. It is reported of the one that was
    /// set.
    pub(super) fn compare(&mut self, smaller: &str, larger: &str, or_equal: bool) {
        let number = |key| self.value(key).and_then(Value::as_u64);
        let (Some(small), Some(large)) = (number(smaller), number(larger)) else {
            return;
        };
        let (holds, relation, inverse) = if or_equal {
            (small <= large, "at most", "at least")
        } else {
            (small < large, "less than", "more than")
        };
        let (key, rule) = if self.is_set(smaller) {
            let source = self.source(larger);
            (smaller, format!("{relation} {larger} ({source})"))
        } else {
            let source = self.source(smaller);
            (larger, format!("{inverse} {smaller} ({source})"))
        };
        if !holds {
            self.refuse(key, &rule);
        }
    }
}

/// The rule of a setting, as the comment above it in `config/default.toml` ends.
fn rule_of(key: &str) -> &'static str {
    let rule = key.split_once('.').and_then(|(section, name)| {
        let (_, section) = DEFAULT.split_once(&format!("\n[{section}]\n"))?;
        let (comment, _) = section.split_once(&format!("\n{name} = "))?;
        let last = comment.lines().last()?;
        last.strip_prefix("# Must be ")?.strip_suffix('.')
    });
    rule.unwrap_or_default()
}

fn items_of(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}
