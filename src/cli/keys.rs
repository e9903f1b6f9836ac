//! `rekey keys …`: key-encryption keys, and the service's own.

mod seal;

use chrono::Utc;
use clap::Subcommand;
use serde_json::json;

use super::{CommandError, database, print, print_either};
use crate::{
    app,
    crypto::{Keyring, Sealer},
    domain::{ServiceKeyName, Timestamp},
    keys::{self, open_signer},
    settings::Settings,
    store::{Missing, StoredServiceKey},
};

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Add a key to the keyring file and print its ID. The database is not touched.
    #[command(after_help = "Example:\n  rekey keys generate")]
    Generate,
    /// Seal the keyring file with the passphrase of keyring.passphrase.
    #[command(
        after_help = "Every process that reads the file needs the setting then. REKEY__KEYRING__PASSPHRASE__FILE in the\n\
                      environment reads it from a file. A forgotten passphrase is a lost keyring.\n\n\
                      Example:\n  rekey keys seal"
    )]
    Seal,
    /// Replace the sealed keyring file by an open one.
    #[command(after_help = "Example:\n  rekey keys unseal")]
    Unseal,
    /// List the database's keys, and how many versions each of them seals.
    #[command(after_help = "Example:\n  rekey keys list --json")]
    List,
    /// Make another key for the signatures of checkpoints, where its row is missing.
    #[command(
        after_help = "The key was lost or taken away: restore its row in the table service_keys from a backup if you can.\n\
                      Checkpoints that the lost key signed do not verify with the new public key. An event in the log\n\
                      activity records it.\n\n\
                      Example:\n  rekey keys new-signing-key"
    )]
    NewSigningKey,
    /// Make another key for the codes of tokens, where its row is missing.
    #[command(
        after_help = "The key was lost or taken away: restore its row in the table service_keys from a backup if you can.\n\
                      No token that is there works with the new key: create new ones. An event in the log activity\n\
                      records it.\n\n\
                      Example:\n  rekey keys new-token-key"
    )]
    NewTokenKey,
    /// Make another key for requests with an idempotency key, where its row is missing.
    #[command(
        after_help = "The key was lost or taken away: restore its row in the table service_keys from a backup if you can.\n\
                      The answers that were kept for idempotency keys are forgotten: a request that is sent again is made\n\
                      again. An event in the log activity records it.\n\n\
                      Example:\n  rekey keys new-idempotency-key"
    )]
    NewIdempotencyKey,
}

pub(super) async fn run(
    settings: &Settings,
    command: KeysCommand,
    as_json: bool,
) -> Result<(), CommandError> {
    match command {
        KeysCommand::Generate => generate(settings, as_json),
        KeysCommand::Seal => seal::run(settings, true),
        KeysCommand::Unseal => seal::run(settings, false),
        KeysCommand::List => list(settings, as_json).await,
        KeysCommand::NewSigningKey => make_anew(settings, ServiceKeyName::CheckpointSigning).await,
        KeysCommand::NewTokenKey => make_anew(settings, ServiceKeyName::TokenMac).await,
        KeysCommand::NewIdempotencyKey => make_anew(settings, ServiceKeyName::Idempotency).await,
    }
}

fn generate(settings: &Settings, as_json: bool) -> Result<(), CommandError> {
    if !settings.keyring.keys.is_empty() {
        return Err("keyring.keys is set: there is no keyring file to add a key to".into());
    }
    let id = Keyring::generate(
        &settings.keyring.path,
        settings.keyring.passphrase.as_ref(),
        Timestamp::from(Utc::now()),
    )?;
    print_either(as_json, json!({"id": id}), id.as_str())
}

async fn make_anew(settings: &Settings, name: ServiceKeyName) -> Result<(), CommandError> {
    let keyring = app::keyring(settings)?;
    let admin = database::open(settings, Missing::Refuse).await?;
    keys::make_anew(&admin, keyring, name).await?;
    admin.close().await;
    Ok(())
}

async fn list(settings: &Settings, as_json: bool) -> Result<(), CommandError> {
    let admin = database::open(settings, Missing::Refuse).await?;
    let mut keys = Vec::new();
    for key in admin.keys().await? {
        let versions = admin.versions_under(&key.id).await?;
        keys.push((key, versions));
    }
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

/// The public key that checkpoints are verified with. There is none before `migrate up`.
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
