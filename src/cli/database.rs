//! The service's database, as an operator's command uses it.

use std::{
    path::Path,
    process::{ExitCode, Termination},
};

use tokio::runtime::{Builder, Handle};

use super::CommandError;
use crate::{
    app,
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
