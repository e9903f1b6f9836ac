//! The service's database, as an operator's command uses it.

use std::{
    path::Path,
    process::{ExitCode, Termination},
    sync::Arc,
};

use tokio::runtime::{Builder, Handle};

use super::CommandError;
use crate::{
    app,
    crypto::{MacKey, Sealer},
    keys::{self, Provenance},
    settings::Settings,
    store::{Admin, Missing},
};

/// Runs a command to its end on a runtime of its own. Without a code of its own it has succeeded.
pub(super) fn block_on<T: Termination>(
    command: impl Future<Output = Result<T, CommandError>>,
) -> Result<ExitCode, CommandError> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(command).map(Termination::report)
}

/// Opens the database. An absent file is never made with [`Missing::Refuse`].
pub(super) async fn open(settings: &Settings, missing: Missing) -> Result<Admin, CommandError> {
    if missing == Missing::Refuse {
        refuse_absent(settings.database.sqlite_path())?;
    }
    Ok(Admin::open(&app::target(settings, missing), &Handle::current()).await?)
}

/// Fails when the database is a file, and the file is not there.
pub(super) fn refuse_absent(sqlite_path: Option<&Path>) -> Result<(), CommandError> {
    // A server says for itself that it has no such database.
    if let Some(path) = sqlite_path.filter(|path| !path.exists()) {
        let path = std::path::absolute(path)?;
        return Err(format!("no database at {}", path.display()).into());
    }
    Ok(())
}

/// Updates the schema, and makes the keys that the database lacks. A keyring that does not fit the database
/// changes nothing.
pub(super) async fn migrate(settings: &Settings, admin: &Admin) -> Result<(), CommandError> {
    let keyring = app::keyring(settings)?;
    let before = admin.holds().await?;
    let known = if before.keys {
        admin.keys().await?
    } else {
        Vec::new()
    };
    if !known.is_empty() {
        keys::verify(&known, &keyring)?;
    }
    admin.migrate_up().await?;
    let provenance = if before.token_codes {
        Provenance::Present
    } else {
        Provenance::Older
    };
    let taken_over = keys::make(admin, keyring, provenance).await?;
    if taken_over > 0 {
        tracing::warn!(
            tokens = taken_over,
            "the tokens of an older version are taken over as they are: `rekey token list` shows them"
        );
    }
    Ok(())
}

/// The key of the tokens' codes.
pub(super) async fn token_mac(
    settings: &Settings,
    admin: &Admin,
) -> Result<Arc<MacKey>, CommandError> {
    let sealer = Sealer::new(app::keyring(settings)?);
    Ok(keys::open_token_mac(&sealer, &admin.service_keys().await?)?)
}
