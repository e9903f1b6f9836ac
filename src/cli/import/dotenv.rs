//! The form of a `.env` file, as `docker compose` and shells share it.
//!
//! A line is blank, a comment (`#`), or `[export ]NAME=VALUE`. In single quotes a value stands as it is, also
//! over several lines; in double quotes `\n`, `\r`, `\t`, `\"`, `\\` and `\$` are escapes; without quotes it
//! ends before ` #` and its outer blanks go. Nothing is ever substituted: a `$` is a dollar. Faults name a
//! line, never what stands there.

use zeroize::Zeroizing;

/// An assignment.
pub(super) struct Assignment {
    /// Its line, from 1.
    pub(super) line: usize,
    /// What stands before the `=`.
    pub(super) name: String,
    /// Its value.
    pub(super) value: Zeroizing<String>,
}

/// A line that can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// Neither blank, nor a comment, nor an assignment.
    #[error("line {0}: NAME=VALUE is allowed, a comment or a blank line")]
    Form(usize),
    /// A quote that never ends.
    #[error("line {0}: the quote is not closed")]
    Open(usize),
    /// An escape that there is not.
    #[error("line {0}: allowed escapes in double quotes are \\n \\r \\t \\\" \\\\ \\$")]
    Escape(usize),
    /// Something behind the closing quote.
    #[error("line {0}: only a comment may stand behind the closing quote")]
    Behind(usize),
}

/// Reads a whole file.
pub(super) fn parse(text: &str) -> Result<Vec<Assignment>, Fault> {
    let mut rest = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut assignments = Vec::new();
    let mut line = 1;
    while !rest.is_empty() {
        let (first, behind) = split_line(rest);
        let trimmed = first.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            rest = behind;
            line += 1;
            continue;
        }
        let (name, value) = rest.split_once('=').ok_or(Fault::Form(line))?;
        if name.contains('\n') {
            return Err(Fault::Form(line));
        }
        let name = name.trim();
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
    text.split_once('\n').unwrap_or((text, ""))
}

/// Reads a value; what follows is the next line.
fn read_value(text: &str, line: usize) -> Result<(Zeroizing<String>, &str), Fault> {
    let text = text.trim_start_matches([' ', '\t']);
    if let Some(quoted) = text.strip_prefix('\'') {
        let (value, behind) = quoted.split_once('\'').ok_or(Fault::Open(line))?;
        return Ok((Zeroizing::new(value.to_owned()), end(behind, line)?));
    }
    if let Some(quoted) = text.strip_prefix('"') {
        let (value, behind) = unescape(quoted, line)?;
        return Ok((value, end(behind, line)?));
    }
    let (value, behind) = split_line(text);
    let value = value.split_once(" #").map_or(value, |(value, _)| value);
    Ok((Zeroizing::new(value.trim().to_owned()), behind))
}

/// What follows the line that a quote was closed on.
fn end(behind: &str, line: usize) -> Result<&str, Fault> {
    let (left, next) = split_line(behind);
    let left = left.trim();
    if left.is_empty() || left.starts_with('#') {
        Ok(next)
    } else {
        Err(Fault::Behind(line))
    }
}

fn unescape(quoted: &str, line: usize) -> Result<(Zeroizing<String>, &str), Fault> {
    // As long as it can get, so that it never moves and leaves a copy behind.
    let mut value = Zeroizing::new(String::with_capacity(quoted.len()));
    let mut chars = quoted.chars();
    loop {
        match chars.next().ok_or(Fault::Open(line))? {
            '"' => return Ok((value, chars.as_str())),
            '\\' => value.push(match chars.next().ok_or(Fault::Open(line))? {
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                same @ ('"' | '\\' | '$') => same,
                _ => return Err(Fault::Escape(line)),
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
        let wanted = [
            (3, "A", "1"),
            (4, "B", "two words"),
            (5, "C", ""),
            (7, "D", "x\ny"),
            (9, "E", "5"),
        ];
        let wanted = wanted.map(|(line, name, value)| (line, name.to_owned(), value.to_owned()));
        assert_eq!(read(text), wanted);
    }

    #[test]
    fn values_are_kept_as_they_are() {
        assert_eq!(one("A=p#ss$HOME=x"), "p#ss$HOME=x");
        assert_eq!(one(r#"A='a\n"$b" #c' # d"#), r#"a\n"$b" #c"#);
        assert_eq!(one("A=\"a\\n\\t\\\"\\\\\\$'$b\""), "a\n\t\"\\$'$b");
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_line() {
        for (text, fault) in [
            ("A=1\nB", Fault::Form(2)),
            ("x y\nA=1", Fault::Form(1)),
            ("\nA='x", Fault::Open(2)),
            ("A=\"x", Fault::Open(1)),
            ("A=\"x\\", Fault::Open(1)),
            ("A=\"\\x\"", Fault::Escape(1)),
            ("A='x'y", Fault::Behind(1)),
        ] {
            assert_eq!(parse(text).err(), Some(fault), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_ends_in_an_answer(text: String) {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_quoted_comes_back(value in "[^']*") {
            prop_assert_eq!(one(&format!("A='{value}'")), value);
        }
    }
}
