//! `rekey events head`: where a log stands. `rekey events tail`: see [`super::tail`].

use std::{path::Path, process::ExitCode};

use clap::Subcommand;
use serde_json::json;

use super::{CommandError, database, log_name, print, tail};
use crate::{domain::Log, settings::Settings, store::Missing};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Show position, hash and epoch of a log's last event.
    Head {
        /// The log: `changes` or `activity`.
        #[arg(long, default_value = "changes", value_parser = log_name)]
        log: Log,
    },
    /// Show a log's events, over HTTP.
    #[command(
        after_help = "Reads REKEY_URL, and REKEY_TOKEN or REKEY_TOKEN_FILE; no settings.\n\nExample: rekey events tail --after 1-10234 --follow --json"
    )]
    Tail(tail::Tail),
}

pub(super) async fn run(
    config: Option<&Path>,
    action: Action,
    as_json: bool,
) -> Result<ExitCode, CommandError> {
    match action {
        Action::Head { log } => head(&super::operate(config)?, log, as_json).await,
        Action::Tail(tail) => {
            super::listen()?;
            tail::run(tail, as_json).await
        }
    }
}

async fn head(settings: &Settings, log: Log, as_json: bool) -> Result<ExitCode, CommandError> {
    let operator = database::open(settings, Missing::Refuse).await?;
    let head = operator.log_head(log).await?;
    operator.close().await;
    let cursor = head.cursor();
    let hash = hex::encode(head.hash);
    if as_json {
        let data = json!({
            "log": log, "epoch": head.last_epoch, "position": head.position,
            "hash": hash, "cursor": cursor.to_string(),
        });
        print(&data.to_string())?;
    } else {
        print(&format!(
            "{}  epoch {}  position {}  {hash}",
            log.as_str(),
            head.last_epoch,
            head.position
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
