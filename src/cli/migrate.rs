//! `rekey migrate up|status|down`: the database's schema.

use clap::Subcommand;
use serde_json::json;

use super::{CommandError, database, print};
use crate::{
    settings::Settings,
    store::{MigrationState, Missing},
};

#[derive(Debug, Subcommand)]
pub(super) enum MigrateCommand {
    /// Apply the migrations that are missing, and make the keys that the database lacks.
    #[command(
        after_help = "The keyring must be there, with every key that the database names.\n\nExample:\n  rekey migrate up"
    )]
    Up,
    /// Show which migrations are applied.
    #[command(after_help = "Example:\n  rekey migrate status --json")]
    Status,
    /// Undo the last migrations.
    #[command(after_help = "Example:\n  rekey migrate down 2")]
    Down {
        /// How many migrations to undo.
        #[arg(default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        steps: u32,
    },
}

pub(super) async fn run(
    settings: &Settings,
    command: MigrateCommand,
    as_json: bool,
) -> Result<(), CommandError> {
    let missing = match command {
        MigrateCommand::Up if !settings.embedded => Missing::Create,
        MigrateCommand::Up | MigrateCommand::Status | MigrateCommand::Down { .. } => {
            Missing::Refuse
        }
    };
    let admin = database::open(settings, missing).await?;
    match command {
        MigrateCommand::Up => database::migrate(settings, &admin).await?,
        MigrateCommand::Down { steps } => admin.migrate_down(steps).await?,
        MigrateCommand::Status => show(&admin.migrations().await?, as_json)?,
    }
    admin.close().await;
    Ok(())
}

fn show(states: &[MigrationState], as_json: bool) -> Result<(), CommandError> {
    if as_json {
        let list: Vec<_> = states
            .iter()
            .map(|state| json!({"name": state.name, "applied": state.applied}))
            .collect();
        return print(json!({"migrations": list}));
    }
    for state in states {
        let word = if state.applied { "applied" } else { "missing" };
        print(format!("{word}  {}", state.name))?;
    }
    Ok(())
}
