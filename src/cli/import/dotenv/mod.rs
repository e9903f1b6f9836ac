//! The lines of a `.env` file that all common readers read alike.
//!
//! docker compose, node's dotenv and Python's dotenv do not read the same file alike, and shells read such
//! files, too. A line that those three read alike is taken. What they read differently is refused, since
//! nobody knows which of their values was meant; so is what a shell would read as another value. What a shell
//! cannot read at all does not count: `A=two words`. Nothing is ever substituted. A line ends in LF or CR LF,
//! in quotes too. A fault names a line and the way to write it, never what is in it.

mod material;
mod shell;
#[cfg(test)]
mod tests;
mod value;

use zeroize::Zeroizing;

use value::WrittenValue;

/// What separates the words of a line.
const BLANKS: [char; 2] = [' ', '\t'];

/// An assignment.
pub(super) struct Assignment {
    /// Its line, from 1.
    pub(super) line: usize,
    /// The text before the `=`.
    pub(super) name: String,
    /// Its value.
    pub(super) value: Zeroizing<String>,
}

/// What is wrong with a line, and how to write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineFault {
    /// Neither blank, nor a comment, nor an assignment.
    #[error("must be NAME=VALUE, a comment or a blank line")]
    Form,
    /// A character that only some readers take for the end of a line.
    #[error("a line must end in LF or CR LF, and hold no other line break")]
    LineBreak,
    /// A `#` of which only some readers think that it begins a comment.
    #[error(
        "write the value in single quotes if the # belongs to it, else put the comment on a line of its own"
    )]
    Hash,
    /// Something that needs quotes.
    #[error(
        "write the value in single quotes (in double quotes, if it holds a single quote): readers or shells treat a \
         part of it in their own ways"
    )]
    Unquoted,
    /// A blank that some readers take for a part of the value.
    #[error(
        "write the value in quotes: it begins or ends with a blank that is neither a space nor a tab"
    )]
    OddBlank,
    /// A shell would export an empty value.
    #[error("after export, the value must follow the = at once")]
    BlankAfterEquals,
    /// A quote that never ends.
    #[error("the quote is not closed")]
    Open,
    /// Text after the closing quote.
    #[error("only a blank and a comment may follow the closing quote")]
    AfterQuote,
    /// A backslash that only some readers take for an escape, in double quotes.
    #[error(
        "write a line break as one, and a value with a backslash before \" \\ $ ` ' 0 or one of abcfnrtv in single quotes"
    )]
    Escape,
    /// A backslash that only some readers take for an escape, in single quotes.
    #[error(
        "readers differ about a backslash before a backslash or a single quote: create this secret over the API"
    )]
    Backslash,
    /// What docker compose or a shell would replace.
    #[error("write a value with $ or ` in single quotes")]
    Substitution,
    /// What Python's dotenv would replace, in single quotes too.
    #[error("Python's dotenv replaces ${{…}} in any quotes: create this secret over the API")]
    Braces,
    /// What is left of a key that was wrapped.
    #[error(
        "this looks like the end of a key of several lines: write the key in one line (or, if it is not, this value in \
         quotes)"
    )]
    KeyMaterial,
}

/// What a file holds.
#[derive(Default)]
pub(super) struct DotenvFile {
    /// Its assignments, without those at fault.
    pub(super) assignments: Vec<Assignment>,
    /// The numbers of its lines at fault, in order, and what is wrong with them.
    pub(super) faults: Vec<(usize, LineFault)>,
}

/// Reads a whole file.
pub(super) fn parse(text: &str) -> DotenvFile {
    // No part of the text: a byte order mark, and the CR of a CR LF.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let text = Zeroizing::new(text.replace("\r\n", "\n"));
    let mut file = DotenvFile::default();
    let mut rest = text.as_str();
    let mut line = 1;
    let mut previous = None;
    while !rest.is_empty() {
        let (statement, next) = read_statement(rest);
        let statement = match statement {
            Ok(Some(new)) if previous.is_some_and(|old| material::continues(old, &new)) => {
                Err(LineFault::KeyMaterial)
            }
            other => other,
        };
        previous = rest.lines().next();
        match statement {
            Ok(Some(Statement { name, value })) => file.assignments.push(Assignment {
                line,
                name: name.to_owned(),
                value: value.text,
            }),
            Ok(None) => {}
            Err(fault) => file.faults.push((line, fault)),
        }
        let read = rest.len() - next.len();
        line += rest.bytes().take(read).filter(|b| *b == b'\n').count();
        rest = next;
    }
    file
}

/// An assignment as it is written.
struct Statement<'text> {
    name: &'text str,
    value: WrittenValue,
}

/// What a line holds; nothing, if it is blank or a comment.
type LineContent<'text> = Result<Option<Statement<'text>>, LineFault>;

/// Reads a line, or as many as a quoted value has. What follows them is returned, too.
fn read_statement(text: &str) -> (LineContent<'_>, &str) {
    let (first, next) = split_line(text);
    let content = first.trim_matches(BLANKS);
    if content.is_empty() || content.starts_with('#') {
        return (refuse_line_breaks(first).map(|()| None), next);
    }
    let Some((name, value)) = text
        .split_once('=')
        .filter(|(name, _)| !name.contains('\n'))
    else {
        return (Err(LineFault::Form), next);
    };
    let (exported, name) = match read_name(name) {
        Ok(read) => read,
        Err(fault) => return (Err(fault), next),
    };
    let (value, next) = value::read(value, exported);
    (value.map(|value| Some(Statement { name, value })), next)
}

/// A name, and whether `export` is before it.
fn read_name(text: &str) -> Result<(bool, &str), LineFault> {
    refuse_line_breaks(text)?;
    let name = text.trim_matches(BLANKS);
    match name.strip_prefix("export") {
        Some(rest) if rest.starts_with(BLANKS) => Ok((true, rest.trim_start_matches(BLANKS))),
        // `export =x`: some take `export` for the name, others for the keyword.
        Some("") if text.ends_with(BLANKS) => Err(LineFault::Form),
        _ => Ok((false, name)),
    }
}

/// A line without its end, and what follows it.
fn split_line(text: &str) -> (&str, &str) {
    // The last line may have no end.
    text.split_once('\n').unwrap_or((text, ""))
}

/// Refuses what only some readers take for the end of a line.
fn refuse_line_breaks(line: &str) -> Result<(), LineFault> {
    if line.contains(['\r', '\u{2028}', '\u{2029}']) {
        return Err(LineFault::LineBreak);
    }
    Ok(())
}
