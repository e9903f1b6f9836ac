//! `rekey keys generate|list`: key-encryption keys.

use std::process::ExitCode;

use chrono::Utc;
use clap::Subcommand;
use serde_json::json;

use super::{CommandError, database, print};
use crate::{
    app,
    crypto::{Keyring, Sealer},
    domain::Timestamp,
    keys::open_signer,
    settings::Settings,
    store::{Missing, StoredServiceKey},
};

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
) -> Result<ExitCode, CommandError> {
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
            let service_keys = operator.service_keys().await?;
            operator.close().await;
            let public_key = public_key(settings, &service_keys)?;
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
                let data = json!({"keys": list, "checkpoint_public_key": public_key});
                print(&data.to_string())?;
            } else {
                for (key, versions) in keys {
                    let primary = if key.primary { "  primary" } else { "" };
                    print(&format!(
                        "{}  {}  seals {versions} versions{primary}",
                        key.id, key.state
                    ))?;
                }
                let shown = public_key.as_deref().unwrap_or("none yet");
                print(&format!("checkpoint public key: {shown}"))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The public key that checkpoints are verified with; nothing before the first `serve`.
fn public_key(
    settings: &Settings,
    service_keys: &[StoredServiceKey],
) -> Result<Option<String>, CommandError> {
    if service_keys.is_empty() {
        return Ok(None);
    }
    let sealer = Sealer::new(app::keyring(settings)?);
    let signer = open_signer(&sealer, service_keys)?;
    Ok(signer.map(|signer| signer.public_key()))
}
