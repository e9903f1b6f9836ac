//! `rekey events head`: a log's last event. `rekey events bump-epoch`: both logs go on in a higher epoch. `rekey events tail`: see [`super::tail`].

use std::path::Path;

use chrono::Utc;
use clap::Subcommand;
use serde_json::json;

use super::{CommandError, database, log_name, print_either, tail};
use crate::{
    domain::{Agent, Log, Timestamp},
    settings::{LogFormat, Settings},
    store::Missing,
};

#[derive(Debug, Subcommand)]
pub(super) enum EventsCommand {
    /// Show epoch, position and hash of a log's last event.
    #[command(after_help = "Example:\n  rekey events head --log activity")]
    Head {
        /// The log: `changes` or `activity`.
        #[arg(long, default_value = "changes", value_parser = log_name)]
        log: Log,
    },
    /// Say that the database was restored to an earlier point: both logs go on in a higher epoch.
    #[command(
        after_help = "Run it once, after the restore and before the service starts again. Events that the service had\n\
                      published since are abandoned; consumers see a new start, and the audit consumer an alarm until\n\
                      somebody runs `rekey audit accept-epoch` for each log. It prints the new epoch.\n\n\
                      Example:\n  rekey events bump-epoch"
    )]
    BumpEpoch,
    /// Show a log's events.
    #[command(
        after_help = "The log is read over HTTP. Set REKEY_URL to the service's address, and REKEY_TOKEN to the token\n\
                      or REKEY_TOKEN_FILE to a file that holds it. No settings are read. The token needs the scope\n\
                      events:read.\n\n\
                      Example:\n  rekey events tail --after 1-10234 --follow --json"
    )]
    Tail(tail::TailOptions),
}

pub(super) async fn run(
    config: Option<&Path>,
    command: EventsCommand,
    as_json: bool,
) -> Result<(), CommandError> {
    match command {
        EventsCommand::Head { log } => head(&super::prepare(config)?, log, as_json).await,
        EventsCommand::BumpEpoch => bump_epoch(&super::prepare(config)?, as_json).await,
        EventsCommand::Tail(options) => {
            crate::telemetry::init(LogFormat::Pretty);
            tail::run(options, as_json).await
        }
    }
}

async fn bump_epoch(settings: &Settings, as_json: bool) -> Result<(), CommandError> {
    let admin = database::open(settings, Missing::Refuse).await?;
    let now = Timestamp::from(Utc::now());
    let epoch = admin.bump_epoch(now, Agent::OPERATOR).await?;
    admin.close().await;
    print_either(as_json, json!({"epoch": epoch}), epoch)
}

async fn head(settings: &Settings, log: Log, as_json: bool) -> Result<(), CommandError> {
    let admin = database::open(settings, Missing::Refuse).await?;
    let head = admin.log_head(log).await?;
    admin.close().await;
    let (epoch, position) = (head.last_epoch, head.position);
    let hash = hex::encode(head.hash);
    let data = json!({
        "log": log, "epoch": epoch, "position": position,
        "hash": hash, "cursor": head.cursor().to_string(),
    });
    let name = log.as_str();
    let text = format!("{name}  epoch {epoch}  position {position}  {hash}");
    print_either(as_json, data, text)
}
