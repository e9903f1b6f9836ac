//! The values of assignments: without quotes, in single and in double quotes.

use zeroize::Zeroizing;

use super::{BLANKS, LineFault, refuse_line_breaks, shell, split_line};

/// A value, and how it is written.
pub(super) struct WrittenValue {
    /// The value.
    pub(super) text: Zeroizing<String>,
    /// Whether it is in quotes.
    pub(super) quoted: bool,
}

/// Reads what follows the `=`, to the end of the line on which the value ends. The next line is returned, too.
pub(super) fn read(text: &str, exported: bool) -> (Result<WrittenValue, LineFault>, &str) {
    let value = text.trim_start_matches(BLANKS);
    let at_once = value.len() == text.len();
    let (read, next) = if let Some(inside) = value.strip_prefix('\'') {
        quoted(inside, '\'', single)
    } else if let Some(inside) = value.strip_prefix('"') {
        quoted(inside, '"', double)
    } else {
        let (line, next) = split_line(value);
        let read = unquoted(line).and_then(|value| {
            shell::refuse_other_value(&value, exported, at_once)?;
            Ok(WrittenValue {
                text: value,
                quoted: false,
            })
        });
        (read, next)
    };
    let read = read.and_then(|value| {
        // A shell would export it as empty, and run or export the rest.
        let empty = value.text.is_empty() && !value.quoted;
        if exported && !at_once && !empty {
            return Err(LineFault::BlankAfterEquals);
        }
        Ok(value)
    });
    (read, next)
}

/// A value without quotes.
fn unquoted(line: &str) -> Result<Zeroizing<String>, LineFault> {
    refuse_line_breaks(line)?;
    // Node's reader ends a value at any `#`, the others after a blank.
    let value = match line.split_once('#') {
        Some((before, _)) if before.ends_with(' ') => before,
        Some(_) => return Err(LineFault::Hash),
        None => line,
    };
    let value = value.trim_matches(BLANKS);
    if value.starts_with(is_odd_blank) || value.ends_with(is_odd_blank) {
        return Err(LineFault::OddBlank);
    }
    if !value.is_empty() && value.bytes().all(|b| b == b'=') {
        return Err(LineFault::KeyMaterial);
    }
    Ok(Zeroizing::new(value.to_owned()))
}

/// Whether some reader takes it for a blank, beside space and tab.
fn is_odd_blank(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{feff}' | '\u{1c}'..='\u{1f}')
}

/// Refuses a character, by the one that follows it, which does not stand for itself within quotes.
type InQuotes = fn(char, Option<char>) -> Result<(), LineFault>;

/// Reads on to the closing quote.
fn quoted(text: &str, quote: char, check: InQuotes) -> (Result<WrittenValue, LineFault>, &str) {
    let mut fault = None;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            let (value, rest) = text.split_at(at);
            let rest = rest.strip_prefix(quote).unwrap_or(rest);
            let (left, next) = split_line(rest);
            let value = match fault {
                Some(fault) => Err(fault),
                None => end(left).and_then(|()| whole(value, quote)),
            };
            return (value, next);
        }
        let following = chars.peek().map(|(_, following)| *following);
        if let Err(new) = check(c, following) {
            fault.get_or_insert(new);
        }
        // Only to find the end: both are at fault.
        if c == '\\' && following.is_some_and(|following| following == quote || following == '\\') {
            chars.next();
        }
    }
    // Where it should have ended is unknown: the next line is taken for a new one.
    (Err(LineFault::Open), split_line(text).1)
}

/// What may follow a closing quote.
fn end(left: &str) -> Result<(), LineFault> {
    refuse_line_breaks(left)?;
    let comment = left.trim_start_matches(BLANKS);
    let good = comment.is_empty() || comment.starts_with('#') && comment.len() < left.len();
    if good {
        Ok(())
    } else {
        Err(LineFault::AfterQuote)
    }
}

fn whole(value: &str, quote: char) -> Result<WrittenValue, LineFault> {
    if quote == '\'' && holds_braces(value) {
        return Err(LineFault::Braces);
    }
    Ok(WrittenValue {
        text: Zeroizing::new(value.to_owned()),
        quoted: true,
    })
}

fn single(c: char, following: Option<char>) -> Result<(), LineFault> {
    match (c, following) {
        ('\r', _) => Err(LineFault::LineBreak),
        ('\\', Some('\\' | '\'')) => Err(LineFault::Backslash),
        _ => Ok(()),
    }
}

fn double(c: char, following: Option<char>) -> Result<(), LineFault> {
    match (c, following) {
        ('\r', _) => Err(LineFault::LineBreak),
        ('$' | '`', _) => Err(LineFault::Substitution),
        ('\\', Some(c)) if "abcfnrtv0\"\\$`'\n".contains(c) => Err(LineFault::Escape),
        _ => Ok(()),
    }
}

/// Whether Python's dotenv would replace something: `${NAME}` or `${NAME:-default}`.
fn holds_braces(value: &str) -> bool {
    value.match_indices("${").any(|(at, braces)| {
        let inside = value.get(at + braces.len()..).unwrap_or_default();
        let Some(end) = inside.find(['}', ':']) else {
            return false;
        };
        let rest = inside.get(end..).unwrap_or_default();
        rest.starts_with('}')
            || rest
                .strip_prefix(":-")
                .is_some_and(|rest| rest.contains('}'))
    })
}
