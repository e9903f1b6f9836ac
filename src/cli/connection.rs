//! The service's address and token for the commands that work over HTTP: `REKEY_URL`, and `REKEY_TOKEN` or
//! `REKEY_TOKEN_FILE`. No settings file is read, so that these commands work inside any project.

use std::{env, ffi::OsString, path::PathBuf};

use super::CommandError;
use crate::client::{ApiClient, ClientError};

pub(super) const TOKEN: &str = "REKEY_TOKEN";
pub(super) const TOKEN_FILE: &str = "REKEY_TOKEN_FILE";
const URL: &str = "REKEY_URL";

/// Reads the environment. Nothing is sent yet.
pub(super) fn from_environment() -> Result<ApiClient, CommandError> {
    let url = variable(URL)
        .ok_or("REKEY_URL is not set; it must be the service's address, such as https://HOST")?;
    let url = url.into_string();
    let url = url.map_err(|_bytes| "REKEY_URL is not UTF-8")?;
    match (variable(TOKEN), variable(TOKEN_FILE)) {
        (Some(token), None) => {
            let token = token.into_string();
            let token = token.map_err(|_bytes| "REKEY_TOKEN is not UTF-8")?;
            Ok(ApiClient::new(&url, token.into())?)
        }
        (None, Some(path)) => {
            let path = PathBuf::from(path);
            let client = ApiClient::with_token_file(&url, &path);
            if let Err(ClientError::TokenFile(cause)) = client {
                let shown = path.to_string_lossy().escape_debug().to_string();
                return Err(format!("cannot read REKEY_TOKEN_FILE {shown}: {cause}").into());
            }
            Ok(client?)
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
