//! The service's address and token for the commands that work over HTTP: `REKEY_URL`, and `REKEY_TOKEN` or
//! `REKEY_TOKEN_FILE`. No settings file is read, so that these commands work inside any project.

use std::{env, ffi::OsString, fs};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::CommandError;
use crate::client::ApiClient;

pub(super) const TOKEN: &str = "REKEY_TOKEN";
pub(super) const TOKEN_FILE: &str = "REKEY_TOKEN_FILE";
const URL: &str = "REKEY_URL";

/// Reads the environment. Nothing is sent yet.
pub(super) fn from_environment() -> Result<ApiClient, CommandError> {
    let url = variable(URL)
        .ok_or("REKEY_URL is not set; it must be the service's address, such as https://HOST")?;
    let url = url.into_string();
    let url = url.map_err(|_bytes| "REKEY_URL is not UTF-8")?;
    Ok(ApiClient::new(&url, token()?)?)
}

fn token() -> Result<SecretString, CommandError> {
    match (variable(TOKEN), variable(TOKEN_FILE)) {
        (Some(token), None) => {
            let token = token.into_string();
            Ok(token.map_err(|_bytes| "REKEY_TOKEN is not UTF-8")?.into())
        }
        (None, Some(path)) => {
            let shown = path.to_string_lossy().escape_debug().to_string();
            let text = fs::read_to_string(path)
                .map_err(|error| format!("cannot read REKEY_TOKEN_FILE {shown}: {error}"))?;
            let text = Zeroizing::new(text);
            Ok(SecretString::from(text.trim_end().to_owned()))
        }
        (Some(_), Some(_)) => {
            Err("REKEY_TOKEN and REKEY_TOKEN_FILE are both set; set only one".into())
        }
        (None, None) => Err("neither REKEY_TOKEN nor REKEY_TOKEN_FILE is set".into()),
    }
}

/// An environment variable; an empty one counts as absent.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
