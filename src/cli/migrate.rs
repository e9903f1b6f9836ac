//! `rekey migrate up|status|down`: the schema.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::{CommandError, database, print};
use crate::{settings::Settings, store::Missing};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Apply what is missing.
    Up,
    /// Show what is applied.
    Status,
    /// Take the last migrations back.
    Down {
        /// How many.
        #[arg(default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        steps: u32,
    },
}

pub(super) async fn run(
    settings: &Settings,
    action: Action,
    as_json: bool,
) -> Result<ExitCode, CommandError> {
    let missing = match action {
        Action::Up if !settings.embedded => Missing::Create,
        Action::Up | Action::Status | Action::Down { .. } => Missing::Refuse,
    };
    let operator = database::open(settings, missing).await?;
    match action {
        Action::Up => operator.migrate_up().await?,
        Action::Down { steps } => operator.migrate_down(steps).await?,
        Action::Status => {
            let states = operator.migrations().await?;
            if as_json {
                let list: Vec<_> = states
                    .iter()
                    .map(|state| json!({"name": state.name, "applied": state.applied}))
                    .collect();
                print(&json!({"migrations": list}).to_string())?;
            } else {
                for state in states {
                    let word = if state.applied { "applied" } else { "missing" };
                    print(&format!("{word}  {}", state.name))?;
                }
            }
        }
    }
    operator.close().await;
    Ok(ExitCode::SUCCESS)
}
