//! `rekey lockdown on|off`: no value leaves and no change is made until it is off.

use chrono::Utc;
use clap::Subcommand;

use super::{CommandError, database, say};
use crate::{
    domain::{Agent, Timestamp},
    settings::Settings,
    store::{Lockdown, Missing},
};

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum LockdownCommand {
    /// From now on no value leaves and no change is made, on every replica.
    #[command(after_help = "Example:\n  rekey lockdown on")]
    On,
    /// The service works again.
    #[command(after_help = "Example:\n  rekey lockdown off")]
    Off,
}

pub(super) async fn run(settings: &Settings, command: LockdownCommand) -> Result<(), CommandError> {
    let (lockdown, already) = match command {
        LockdownCommand::On => (Lockdown::On, "the service is locked down already"),
        LockdownCommand::Off => (Lockdown::Off, "the service is not locked down"),
    };
    let admin = database::open(settings, Missing::Refuse).await?;
    let now = Timestamp::from(Utc::now());
    // Asked for twice, it is as it should be.
    if !admin.lock_down(lockdown, now, Agent::OPERATOR).await? {
        say(already);
    }
    admin.close().await;
    Ok(())
}
