//! An error and its causes as one line of text.

use std::{error::Error, fmt, iter::successors};

/// Prints an error and its causes, each after `: `. A cause that the text already holds is left out, because
/// some libraries repeat it in their own message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorChain<'a>(pub &'a (dyn Error + 'a));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        for error in successors(self.0.source(), |error| (*error).source()) {
            let cause = error.to_string();
            if !text.contains(&cause) {
                text.push_str(": ");
                text.push_str(&cause);
            }
        }
        f.write_str(&text)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        #[source]
        cause: Box<dyn Error>,
    }

    #[test]
    fn an_error_is_printed_with_its_causes_and_none_twice() {
        let cause = io::Error::other("the disk is full");
        let quoting = Layer {
            text: "cannot write: the disk is full",
            cause: cause.into(),
        };
        let outer = Layer {
            text: "cannot save",
            cause: quoting.into(),
        };
        assert_eq!(
            ErrorChain(&outer).to_string(),
            "cannot save: cannot write: the disk is full"
        );
    }
}
