//! The service's address and token for the commands that work over HTTP: `REKEY_URL`, and `REKEY_TOKEN` or
//! `REKEY_TOKEN_FILE`. `--plaintext` or `REKEY_PLAINTEXT=1` allows `http://` to another machine. No settings file is
//! read, so that these commands work inside any project.

use std::{env, ffi::OsString, path::PathBuf};

use clap::Args;

use super::CommandError;
use crate::client::{ApiClient, ClientError, Plaintext};

pub(super) const TOKEN: &str = "REKEY_TOKEN";
pub(super) const TOKEN_FILE: &str = "REKEY_TOKEN_FILE";
const URL: &str = "REKEY_URL";
const PLAINTEXT: &str = "REKEY_PLAINTEXT";

/// What a command that works over HTTP can be told of its connection.
#[derive(Debug, Args)]
pub(super) struct ConnectionOptions {
    /// Send the token over http:// to another machine: a private network or a tunnel protects it.
    ///
    /// The environment variable `REKEY_PLAINTEXT=1` does the same.
    #[arg(long)]
    plaintext: bool,
}

/// Reads the environment. Nothing is sent yet.
pub(super) fn from_environment(options: &ConnectionOptions) -> Result<ApiClient, CommandError> {
    let url = variable(URL)
        .ok_or("REKEY_URL is not set; it must be the service's address, such as https://HOST")?;
    let url = url.into_string();
    let url = url.map_err(|_bytes| "REKEY_URL is not UTF-8")?;
    let plaintext = plaintext(options)?;
    match (variable(TOKEN), variable(TOKEN_FILE)) {
        (Some(token), None) => {
            let token = token.into_string();
            let token = token.map_err(|_bytes| "REKEY_TOKEN is not UTF-8")?;
            Ok(ApiClient::new(&url, token.into(), plaintext)?)
        }
        (None, Some(path)) => {
            let path = PathBuf::from(path);
            let client = ApiClient::with_token_file(&url, &path, plaintext);
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

fn plaintext(options: &ConnectionOptions) -> Result<Plaintext, CommandError> {
    let variable = variable(PLAINTEXT);
    match variable.as_ref().map(|value| value.to_str()) {
        None | Some(Some("0")) if !options.plaintext => Ok(Plaintext::Refused),
        None | Some(Some("0" | "1")) => Ok(Plaintext::Allowed),
        Some(_) => Err("REKEY_PLAINTEXT must be 1 or 0".into()),
    }
}

/// An environment variable; an empty one counts as absent.
fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
