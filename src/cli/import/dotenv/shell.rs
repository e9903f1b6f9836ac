//! Lines that a shell would read as another value.

use super::{BLANKS, LineFault};

/// Commands before which an assignment stays in force (POSIX, section 2.14).
const SPECIAL_COMMANDS: [&str; 15] = [
    ":", ".", "break", "continue", "eval", "exec", "exit", "export", "readonly", "return", "set",
    "shift", "times", "trap", "unset",
];

/// Refuses a value without quotes that a shell would read as another one. What a shell cannot read is not refused:
/// in `A=two words` it takes `words` for a command, and sets nothing.
pub(super) fn refuse_other_value(
    value: &str,
    exported: bool,
    at_once: bool,
) -> Result<(), LineFault> {
    // It ends the word, or is replaced, also inside the word.
    let special = value.contains(['\'', '"', '`', '\\', '$', '&', ';', '<', '>']);
    let or = value.contains("||");
    let home = value.starts_with('~') || value.contains(":~");
    let array = value.starts_with('(');
    // `export` takes each word for a name, and bash takes a word with braces for several.
    let exported = exported && value.contains([' ', '\t', '{']);
    if special || or || home || array || exported || sets_the_first_word(value, at_once) {
        return Err(LineFault::Unquoted);
    }
    Ok(())
}

/// Whether a shell would set the variable to the first word: if nothing but assignments follows, or a special command.
fn sets_the_first_word(value: &str, at_once: bool) -> bool {
    // After `= ` the first word is the empty one.
    let words = value.split(BLANKS).filter(|word| !word.is_empty());
    let mut words = words.skip(usize::from(at_once)).peekable();
    if words.peek().is_none() {
        return false;
    }
    let command = words.find(|word| !is_assignment(word));
    command.is_none_or(|command| SPECIAL_COMMANDS.contains(&command))
}

fn is_assignment(word: &str) -> bool {
    let name = word.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    let named = name.len() < word.len() && !word.starts_with(|c: char| c.is_ascii_digit());
    named && (name.starts_with('=') || name.starts_with("+=") || name.starts_with('['))
}
