//! `rekey keys generate|list`: key-encryption keys.

use std::process::ExitCode;

use chrono::Utc;
use clap::Subcommand;
use serde_json::json;

use super::{Failed, database, print};
use crate::{crypto::Keyring, domain::Timestamp, settings::Settings, store::Missing};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Add a key to the keyring file and print its ID; no database is touched.
    Generate,
    /// Show the database's keys, and how many versions each still seals.
    List,
}

pub(super) async fn run(
    settings: &Settings,
    action: Action,
    as_json: bool,
) -> Result<ExitCode, Failed> {
    match action {
        Action::Generate => {
            if settings.keyring.keys.is_some() {
                return Err("keyring.keys is set: there is no keyring file to add to".into());
            }
            let id = Keyring::generate(&settings.keyring.path, Timestamp::from(Utc::now()))?;
            if as_json {
                print(&json!({"id": id}).to_string())?;
            } else {
                print(id.as_str())?;
            }
        }
        Action::List => {
            let operator = database::open(settings, Missing::Refuse).await?;
            let keys = operator.keys().await?;
            operator.close().await;
            if as_json {
                let list: Vec<_> = keys
                    .iter()
                    .map(|(key, versions)| {
                        json!({
                            "id": key.id, "state": key.state, "primary": key.primary,
                            "versions": versions,
                        })
                    })
                    .collect();
                print(&json!({"keys": list}).to_string())?;
            } else {
                for (key, versions) in keys {
                    let primary = if key.primary { "  primary" } else { "" };
                    print(&format!(
                        "{}  {}  seals {versions} versions{primary}",
                        key.id, key.state
                    ))?;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
