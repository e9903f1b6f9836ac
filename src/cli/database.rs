//! The service's database, as an operator's command uses it.

use std::{path::Path, process::ExitCode};

use tokio::runtime::{Builder, Handle};

use super::CommandError;
use crate::{
    app,
    settings::Settings,
    store::{Admin, Missing},
};

/// Runs a command to its end on a runtime of its own.
pub(super) fn block_on(
    command: impl Future<Output = Result<ExitCode, CommandError>>,
) -> Result<ExitCode, CommandError> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?
        .block_on(command)
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
    match sqlite_path {
        Some(path) if !path.exists() => {
            let path = std::path::absolute(path)?;
            Err(format!("no database at {}", path.display()).into())
        }
        // A server says for itself that it has no such database.
        Some(_) | None => Ok(()),
    }
}
