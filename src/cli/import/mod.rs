//! `rekey import FILE.env --owner …`: creates and updates as one change set, through the commit itself.

mod dotenv;

use std::{collections::HashMap, fs, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::Args;
use serde_json::json;
use tokio::{
    runtime::Handle,
    time::{Instant, sleep},
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{CommandError, database, print, progress::Progress};
use crate::{
    app,
    crypto::Sealer,
    domain::{
        Action, Agent, Applied, Change, ChangeSetId, Command, EventId, Failure, KeyId, Mask,
        Origin, Outcome, Owner, Refusal, SecretId, SecretName, SecretValue, VersionId, Work,
    },
    keys,
    settings::Settings,
    store::{Committer, Missing, Store},
};

/// How long a busy database is asked again.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The file: NAME=VALUE lines, with or without quotes.
    file: PathBuf,
    /// The owner whose secrets they become.
    #[arg(long, value_parser = Owner::parse)]
    owner: Owner,
}

/// A secret of the file.
struct Wanted {
    name: SecretName,
    value: SecretValue,
}

/// What the file's secrets are written with.
struct Writer {
    store: Store,
    committer: Committer,
    sealer: Arc<Sealer>,
    settings: Settings,
}

pub(super) async fn run(
    settings: Settings,
    Import { file, owner }: Import,
    as_json: bool,
) -> Result<ExitCode, CommandError> {
    let text = Zeroizing::new(
        fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?,
    );
    let wanted = read(&text, &settings).map_err(|error| format!("{}: {error}", file.display()))?;
    if wanted.is_empty() {
        return Err(format!("{}: nothing to import", file.display()).into());
    }
    database::open(&settings, Missing::Refuse)
        .await?
        .close()
        .await;
    let (writer, committing) = Writer::open(settings).await?;
    let outcome = writer.import(&owner, &wanted).await;
    writer.committer.stop();
    let _ = committing.await;
    let applied = outcome?;
    let created = |one: &&Applied| matches!(one, Applied::Created(_));
    let created = applied.iter().filter(created).count();
    let updated = applied.len() - created;
    if as_json {
        print(&json!({"created": created, "updated": updated}).to_string())?;
    } else {
        print(&format!("{created} created, {updated} updated"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reads the file by the rules of the API; every fault names its line, and no value.
fn read(text: &str, settings: &Settings) -> Result<Vec<Wanted>, String> {
    let mut lines = HashMap::new();
    let mut wanted = Vec::new();
    let reserved = &settings.limits.reserved_names;
    for one in dotenv::parse(text).map_err(|fault| fault.to_string())? {
        let line = one.line;
        let name = SecretName::parse(&one.name)
            .map_err(|error| format!("line {line}: the name {error}"))?;
        if reserved.iter().any(|entry| entry.covers(name.as_str())) {
            return Err(format!("line {line}: the name is reserved"));
        }
        if let Some(before) = lines.insert(name.clone(), line) {
            return Err(format!(
                "line {line}: the name stands in line {before} already"
            ));
        }
        let value = SecretValue::parse(one.value)
            .map_err(|error| format!("line {line}: the value {error}"))?;
        wanted.push(Wanted { name, value });
    }
    Ok(wanted)
}

impl Writer {
    async fn open(settings: Settings) -> Result<(Self, tokio::task::JoinHandle<()>), CommandError> {
        let runtime = Handle::current();
        let target = app::target(&settings, Missing::Refuse);
        let keyring = app::keyring(&settings)?;
        let store = Store::open(target.clone(), &runtime).await?;
        store.refuse_old_schema().await?;
        let primary = keys::verify(&store, &target, &keyring).await?;
        let limits = app::committer_settings(&settings);
        let (committer, committing) = Committer::start(target, &runtime, limits, primary);
        let writer = Self {
            store,
            committer,
            sealer: Arc::new(Sealer::new(keyring)),
            settings,
        };
        Ok((writer, committing))
    }

    /// Tries until it is known what came of it: each attempt is a change set of its own.
    async fn import(&self, owner: &Owner, wanted: &[Wanted]) -> Result<Vec<Applied>, CommandError> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.attempt(owner, wanted).await? {
                Ok(Ok(applied)) => return Ok(applied),
                // Somebody made or removed one of them meanwhile.
                Ok(Err(refused))
                    if matches!(refused.refusal, Refusal::NotFound | Refusal::NameTaken)
                        && Instant::now() < until => {}
                Ok(Err(refused)) => {
                    let name = wanted
                        .get(refused.index)
                        .map_or("", |one| one.name.as_str());
                    return Err(format!("{name}: {}; nothing was imported", refused.refusal).into());
                }
                Err(Failure::Unknown) => {
                    return Err(
                        "it is not known whether the import was made: look at the log".into(),
                    );
                }
                Err(failure) if Instant::now() >= until => {
                    return Err(format!("{failure}; nothing was imported").into());
                }
                Err(_busy) => {}
            }
            sleep(PAUSE).await;
        }
    }

    async fn attempt(
        &self,
        owner: &Owner,
        wanted: &[Wanted],
    ) -> Result<Result<Outcome, Failure>, CommandError> {
        let present = self.store.list(owner).await?;
        let ids: HashMap<_, _> = present
            .into_iter()
            .map(|(secret, _)| (secret.name, secret.id))
            .collect();
        let primary = self.committer.primary_key();
        let progress = Progress::new("sealed", "secrets");
        let mut changes = Vec::new();
        for one in wanted {
            let present = ids.get(&one.name).copied();
            changes.push(self.change(owner, one, present, &primary)?);
            progress.tell(changes.len() as u64, wanted.len() as u64);
        }
        drop(progress);
        let work = Work::Command(Command {
            changes,
            change_set: Some(ChangeSetId::new(Uuid::now_v7())),
        });
        let Ok(permit) = self.committer.admit(work.bytes()) else {
            return Err("the file is larger than commit.queue_bytes".into());
        };
        let deadlines = app::deadlines(&self.settings);
        let pending = self.committer.submit(work, permit, deadlines);
        Ok(pending.outcome().await)
    }

    fn change(
        &self,
        owner: &Owner,
        wanted: &Wanted,
        present: Option<SecretId>,
        primary: &KeyId,
    ) -> Result<Change, CommandError> {
        let secret_id = present.unwrap_or_else(|| SecretId::new(Uuid::now_v7()));
        let place = (owner, secret_id, VersionId::new(Uuid::now_v7()));
        let mask = Mask::of(&wanted.value);
        // Kept for another attempt.
        let value = SecretValue::parse(wanted.value.expose().to_owned().into())?;
        let sealed = self.sealer.seal(primary, place, value, &mask)?;
        let action = match present {
            Some(_) => Action::Update {
                sealed,
                if_match: None,
            },
            None => Action::Create {
                name: wanted.name.clone(),
                provider: None,
                sealed,
            },
        };
        Ok(Change {
            owner: owner.clone(),
            secret_id,
            action,
            event_id: EventId::new(Uuid::now_v7()),
            origin: Origin {
                agent: Agent::OPERATOR,
                request_id: None,
                traceparent: None,
            },
        })
    }
}
