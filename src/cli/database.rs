//! The service's database, as an operator's command uses it.

use std::process::ExitCode;

use tokio::runtime::{Builder, Handle};

use super::CommandError;
use crate::{
    app,
    settings::Settings,
    store::{Missing, Operator},
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

/// Opens the database. On the embedded default a file that is not there is never made.
pub(super) async fn open(settings: &Settings, missing: Missing) -> Result<Operator, CommandError> {
    if let Some(path) = settings.database.sqlite_path()
        && missing == Missing::Refuse
        && !path.exists()
    {
        return Err(format!("no database at {}", std::path::absolute(path)?.display()).into());
    }
    Ok(Operator::open(&app::target(settings, missing), &Handle::current()).await?)
}
