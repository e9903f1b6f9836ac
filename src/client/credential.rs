//! The token of a client, from a text or from a file that is read again when it changes.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::ClientError;
use crate::domain::ErrorChain;

/// A token as requests carry it. `Debug` does not show it.
#[derive(Debug)]
pub(super) struct Credential {
    header: Mutex<HeaderValue>,
    file: Option<TokenFile>,
}

#[derive(Debug)]
struct TokenFile {
    path: PathBuf,
    /// What the file was when it was read last.
    read: Mutex<FileState>,
}

/// Device, file, length and time of the last change: another one says that the content may be another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileState([i128; 4]);

impl Credential {
    /// A token that stays the same.
    ///
    /// # Errors
    /// [`ClientError::Token`].
    pub(super) fn fixed(token: &SecretString) -> Result<Self, ClientError> {
        Ok(Self {
            header: Mutex::new(header(token.expose_secret())?),
            file: None,
        })
    }

    /// The token in a file; line breaks and blanks at its end don't count.
    ///
    /// # Errors
    /// [`ClientError::TokenFile`], [`ClientError::Token`].
    pub(super) fn in_file(path: &Path) -> Result<Self, ClientError> {
        let (state, header) = read(path)?;
        Ok(Self {
            header: Mutex::new(header),
            file: Some(TokenFile {
                path: path.to_owned(),
                read: Mutex::new(state),
            }),
        })
    }

    /// Whether another token may come.
    pub(super) const fn may_change(&self) -> bool {
        self.file.is_some()
    }

    /// The token for a request. The file is read if it is another one than before; if that fails, the last token
    /// stays, and the service decides.
    pub(super) fn header(&self) -> HeaderValue {
        if let Some(file) = &self.file {
            let read = *file.read.lock().unwrap_or_else(PoisonError::into_inner);
            if state(&file.path).is_ok_and(|state| state != read) {
                self.read_again(file);
            }
        }
        self.held()
    }

    /// The token after the service has rejected one: another one, if the file has one.
    pub(super) fn instead_of(&self, rejected: &HeaderValue) -> Option<HeaderValue> {
        self.read_again(self.file.as_ref()?);
        Some(self.held()).filter(|header| header != rejected)
    }

    fn held(&self) -> HeaderValue {
        let held = self.header.lock().unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }

    fn read_again(&self, file: &TokenFile) {
        match read(&file.path) {
            Ok((state, header)) => {
                *file.read.lock().unwrap_or_else(PoisonError::into_inner) = state;
                *self.header.lock().unwrap_or_else(PoisonError::into_inner) = header;
            }
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "the last token is used on");
            }
        }
    }
}

/// The state is taken first: a change in the meantime is found the next time.
fn read(path: &Path) -> Result<(FileState, HeaderValue), ClientError> {
    let state = state(path).map_err(ClientError::TokenFile)?;
    let text = fs::read_to_string(path).map_err(ClientError::TokenFile)?;
    let text = Zeroizing::new(text);
    Ok((state, header(text.trim_end())?))
}

fn state(path: &Path) -> io::Result<FileState> {
    let file = fs::metadata(path)?;
    let changed = i128::from(file.ctime()) * 1_000_000_000 + i128::from(file.ctime_nsec());
    let (device, number, length) = (file.dev().into(), file.ino().into(), file.len().into());
    Ok(FileState([device, number, length, changed]))
}

fn header(token: &str) -> Result<HeaderValue, ClientError> {
    let text = Zeroizing::new(format!("Bearer {token}"));
    let mut header = HeaderValue::from_str(&text).map_err(|_holds_nothing| ClientError::Token)?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(header: &HeaderValue) -> &str {
        header.to_str().unwrap()
    }

    #[test]
    fn a_token_file_is_read_again_when_it_has_changed_or_its_token_was_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "one\n").unwrap();
        let credential = Credential::in_file(&path).unwrap();
        let one = credential.header();
        assert_eq!(shown(&one), "Bearer one");
        assert_eq!(credential.instead_of(&one), None);
        fs::write(&path, "other").unwrap();
        assert_eq!(shown(&credential.header()), "Bearer other");
        assert_eq!(credential.instead_of(&one).unwrap(), "Bearer other");
        // A file that takes its place, and one that is away for a moment.
        let next = folder.path().join("next");
        fs::write(&next, "third").unwrap();
        fs::rename(&next, &path).unwrap();
        assert_eq!(shown(&credential.header()), "Bearer third");
        fs::remove_file(&path).unwrap();
        assert_eq!(shown(&credential.header()), "Bearer third");
        assert_eq!(credential.instead_of(&credential.header()), None);
        fs::write(&path, "not\na token").unwrap();
        assert_eq!(shown(&credential.header()), "Bearer third");
        assert!(!format!("{credential:?}").contains("third"));
    }

    #[test]
    fn a_fixed_token_has_no_other() {
        let credential = Credential::fixed(&"one".to_owned().into()).unwrap();
        assert_eq!(credential.instead_of(&credential.header()), None);
    }
}
