//! `rekey events head`: where the log stands.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::{Failed, database, print};
use crate::{domain::Cursor, settings::Settings, store::Missing};

#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Show position, hash and epoch of the log's last event.
    Head,
}

pub(super) async fn run(
    settings: &Settings,
    Action::Head: Action,
    as_json: bool,
) -> Result<ExitCode, Failed> {
    let operator = database::open(settings, Missing::Refuse).await?;
    let head = operator.log_head().await?;
    operator.close().await;
    let cursor = Cursor {
        epoch: head.last_epoch,
        position: head.position,
    };
    let hash = hex::encode(head.hash);
    if as_json {
        let data = json!({
            "log": "changes", "epoch": head.last_epoch, "position": head.position,
            "hash": hash, "cursor": cursor.to_string(),
        });
        print(&data.to_string())?;
    } else {
        print(&format!(
            "changes  epoch {}  position {}  {hash}",
            head.last_epoch, head.position
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}
