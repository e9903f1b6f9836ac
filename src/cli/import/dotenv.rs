//! The form of a `.env` file, as `docker compose` and shells have it in common.
//!
//! A line is blank, a comment (`#`), or `[export ]NAME=VALUE`. A value in single quotes is taken as it is, also
//! over several lines; in double quotes `\n`, `\r`, `\t`, `\"`, `\\` and `\$` are escapes; without quotes the
//! value ends before ` #`, and its outer blanks do not count. Nothing is ever substituted: a `$` is a dollar.
//! An error names a line, never what is in it.

use zeroize::Zeroizing;

/// An assignment.
pub(super) struct Assignment {
    /// Its line, from 1.
    pub(super) line: usize,
    /// The text before the `=`.
    pub(super) name: String,
    /// Its value.
    pub(super) value: Zeroizing<String>,
}

/// A line that cannot be read, by its number from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum DotenvError {
    /// Neither blank, nor a comment, nor an assignment.
    #[error("line {0}: must be NAME=VALUE, a comment or a blank line")]
    Form(usize),
    /// A quote that never ends.
    #[error("line {0}: the quote is not closed")]
    Open(usize),
    /// An unknown escape.
    #[error("line {0}: a backslash in double quotes must be followed by n, r, t, \", \\ or $")]
    Escape(usize),
    /// Text after the closing quote.
    #[error("line {0}: only a comment may follow the closing quote")]
    AfterQuote(usize),
}

/// Reads a whole file.
pub(super) fn parse(text: &str) -> Result<Vec<Assignment>, DotenvError> {
    // A byte order mark is not part of the text.
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut assignments = Vec::new();
    let mut line = 1;
    while !rest.is_empty() {
        let (first, next) = split_line(rest);
        let trimmed = first.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            rest = next;
            line += 1;
            continue;
        }
        let (name, value) = rest.split_once('=').ok_or(DotenvError::Form(line))?;
        if name.contains('\n') {
            return Err(DotenvError::Form(line));
        }
        let name = name.trim();
        // `export` may stand there or not.
        let name = name.strip_prefix("export ").unwrap_or(name).trim();
        let (value, after) = read_value(value, line)?;
        let read = rest.len() - after.len();
        let lines = rest.bytes().take(read).filter(|b| *b == b'\n').count();
        assignments.push(Assignment {
            line,
            name: name.to_owned(),
            value,
        });
        line += lines;
        rest = after;
    }
    Ok(assignments)
}

/// A line without its end, and what follows it.
fn split_line(text: &str) -> (&str, &str) {
    // The last line may have no end.
    text.split_once('\n').unwrap_or((text, ""))
}

/// Reads a value; what follows is the next line.
fn read_value(text: &str, line: usize) -> Result<(Zeroizing<String>, &str), DotenvError> {
    let text = text.trim_start_matches([' ', '\t']);
    if let Some(quoted) = text.strip_prefix('\'') {
        let (value, after) = quoted.split_once('\'').ok_or(DotenvError::Open(line))?;
        return Ok((Zeroizing::new(value.to_owned()), end(after, line)?));
    }
    if let Some(quoted) = text.strip_prefix('"') {
        let (value, after) = unescape(quoted, line)?;
        return Ok((value, end(after, line)?));
    }
    let (value, next) = split_line(text);
    let value = value.split_once(" #").map_or(value, |(value, _)| value);
    Ok((Zeroizing::new(value.trim().to_owned()), next))
}

/// What follows the line on which a quote was closed.
fn end(after: &str, line: usize) -> Result<&str, DotenvError> {
    let (left, next) = split_line(after);
    let left = left.trim();
    if left.is_empty() || left.starts_with('#') {
        Ok(next)
    } else {
        Err(DotenvError::AfterQuote(line))
    }
}

fn unescape(quoted: &str, line: usize) -> Result<(Zeroizing<String>, &str), DotenvError> {
    // As long as it can get, so that it never moves and leaves a copy.
    let mut value = Zeroizing::new(String::with_capacity(quoted.len()));
    let mut chars = quoted.chars();
    loop {
        match chars.next().ok_or(DotenvError::Open(line))? {
            '"' => return Ok((value, chars.as_str())),
            '\\' => value.push(match chars.next().ok_or(DotenvError::Open(line))? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                same @ ('"' | '\\' | '$') => same,
                _ => return Err(DotenvError::Escape(line)),
            }),
            other => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<(usize, String, String)> {
        parse(text)
            .unwrap()
            .into_iter()
            .map(|one| (one.line, one.name, one.value.to_string()))
            .collect()
    }

    fn one(text: &str) -> String {
        let mut all = read(text);
        assert_eq!(all.len(), 1, "{text}");
        all.remove(0).2
    }

    #[test]
    fn lines_are_assignments_comments_or_blank() {
        let text = "# keys\n\nA=1\n  export B = two words # not this\r\nC=\n\nD='x\ny'\nE=5";
        let expected = [
            (3, "A", "1"),
            (4, "B", "two words"),
            (5, "C", ""),
            (7, "D", "x\ny"),
            (9, "E", "5"),
        ];
        let expected =
            expected.map(|(line, name, value)| (line, name.to_owned(), value.to_owned()));
        assert_eq!(read(text), expected);
    }

    #[test]
    fn values_are_kept_as_they_are() {
        assert_eq!(one("A=p#ss$HOME=x"), "p#ss$HOME=x");
        assert_eq!(one(r#"A='a\n"$b" #c' # d"#), r#"a\n"$b" #c"#);
        assert_eq!(one("A=\"a\\n\\t\\\"\\\\\\$'$b\""), "a\n\t\"\\$'$b");
    }

    #[test]
    fn an_error_names_the_line() {
        for (text, fault) in [
            ("A=1\nB", DotenvError::Form(2)),
            ("x y\nA=1", DotenvError::Form(1)),
            ("\nA='x", DotenvError::Open(2)),
            ("A=\"x", DotenvError::Open(1)),
            ("A=\"x\\", DotenvError::Open(1)),
            ("A=\"\\x\"", DotenvError::Escape(1)),
            ("A='x'y", DotenvError::AfterQuote(1)),
        ] {
            assert_eq!(parse(text).err(), Some(fault), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = parse(&text);
        }

        #[test]
        fn a_quoted_value_comes_back(value in "[^']*") {
            prop_assert_eq!(one(&format!("A='{value}'")), value);
        }
    }
}
