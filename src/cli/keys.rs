//! `rekey keys generate|list`: key-encryption keys.

use chrono::Utc;
use clap::Subcommand;
use serde_json::json;

use super::{CommandError, database, print, print_either};
use crate::{
    app,
    crypto::{Keyring, Sealer},
    domain::Timestamp,
    keys::open_signer,
    settings::Settings,
    store::{Missing, StoredServiceKey},
};

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Add a key to the keyring file and print its ID. The database is not touched.
    #[command(after_help = "Example:\n  rekey keys generate")]
    Generate,
    /// List the database's keys, and how many versions each of them seals.
    #[command(after_help = "Example:\n  rekey keys list --json")]
    List,
}

pub(super) async fn run(
    settings: &Settings,
    command: KeysCommand,
    as_json: bool,
) -> Result<(), CommandError> {
    match command {
        KeysCommand::Generate => generate(settings, as_json),
        KeysCommand::List => list(settings, as_json).await,
    }
}

fn generate(settings: &Settings, as_json: bool) -> Result<(), CommandError> {
    if !settings.keyring.keys.is_empty() {
        return Err("keyring.keys is set: there is no keyring file to add a key to".into());
    }
    let id = Keyring::generate(&settings.keyring.path, Timestamp::from(Utc::now()))?;
    print_either(as_json, json!({"id": id}), id.as_str())
}

async fn list(settings: &Settings, as_json: bool) -> Result<(), CommandError> {
    let admin = database::open(settings, Missing::Refuse).await?;
    let keys = admin.keys().await?;
    let service_keys = admin.service_keys().await?;
    admin.close().await;
    let public_key = public_key(settings, &service_keys)?;
    if as_json {
        let list: Vec<_> = keys
            .iter()
            .map(|(key, versions)| {
                json!({
                    "id": key.id, "state": key.state.as_str(), "primary": key.primary,
                    "versions": versions,
                })
            })
            .collect();
        return print(json!({"keys": list, "checkpoint_public_key": public_key}));
    }
    for (key, versions) in keys {
        let primary = if key.primary { "  primary" } else { "" };
        let state = key.state.as_str();
        print(format!(
            "{}  {state}  seals {versions} versions{primary}",
            key.id
        ))?;
    }
    let shown = public_key.as_deref().unwrap_or("none yet");
    print(format!("checkpoint public key: {shown}"))
}

/// The public key that checkpoints are verified with. There is none before the first `serve`.
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
