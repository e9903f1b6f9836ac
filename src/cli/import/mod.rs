//! `rekey import FILE.env --owner …`: creates and updates as one change set, committed like any other.

mod dotenv;

use std::{collections::HashMap, fs, path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use serde_json::json;
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, sleep},
};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{CommandError, database, print_either, progress::Progress};
use crate::{
    app,
    crypto::{Sealer, SecretPlace},
    domain::{
        Action, Agent, Applied, Change, ChangeSet, ChangeSetId, EventId, Failure, KeyId, Mask,
        Outcome, Owner, Refusal, Refused, RequestContext, SecretId, SecretName, SecretValue,
        VersionId, Work,
    },
    keys,
    settings::Settings,
    store::{Committer, Home, Missing, Reader},
};

/// How long the import is tried again when the database is busy.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
pub(super) struct ImportOptions {
    /// The file: lines of NAME=VALUE, with or without quotes.
    file: PathBuf,
    /// The owner of the secrets.
    #[arg(long, value_parser = Owner::parse)]
    owner: Owner,
}

/// A secret as the file has it.
struct FileSecret {
    name: SecretName,
    value: SecretValue,
}

/// Writes the file's secrets.
struct Importer {
    reader: Reader,
    committer: Committer,
    sealer: Arc<Sealer>,
}

/// Why an attempt did not import the file.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    /// A secret was refused, and with it all the others.
    #[error("{name}: {refusal}; nothing was imported")]
    Refused { name: String, refusal: Refusal },
    /// The commit failed.
    #[error("{0}; nothing was imported")]
    Failed(Failure),
    /// Nobody knows what came of it.
    #[error("it is unknown whether the file was imported; check the log of changes")]
    Unknown,
    /// The commit was not tried.
    #[error(transparent)]
    NotTried(#[from] CommandError),
}

impl AttemptError {
    /// Whether another attempt may succeed. A secret that another caller made or deleted in the meantime is
    /// updated or created next time.
    fn may_pass(&self) -> bool {
        match self {
            Self::Refused { refusal, .. } => {
                matches!(refusal, Refusal::NotFound | Refusal::NameTaken)
            }
            Self::Failed(_) => true,
            Self::Unknown | Self::NotTried(_) => false,
        }
    }
}

pub(super) async fn run(
    settings: Settings,
    ImportOptions { file, owner }: ImportOptions,
    as_json: bool,
) -> Result<(), CommandError> {
    let path = file.display();
    let text = fs::read_to_string(&file).map_err(|error| format!("cannot read {path}: {error}"))?;
    let text = Zeroizing::new(text);
    let secrets = read(&text, &settings).map_err(|error| format!("{path}: {error}"))?;
    if secrets.is_empty() {
        return Err(format!("{path}: nothing to import").into());
    }
    database::open(&settings, Missing::Refuse)
        .await?
        .close()
        .await;
    let (importer, committing) = Importer::open(settings).await?;
    let outcome = importer.import(&owner, &secrets).await;
    importer.committer.stop();
    let stopped = committing.await;
    let applied = outcome?;
    stopped?;
    let created = |one: &&Applied| matches!(one, Applied::Created(_));
    let created = applied.iter().filter(created).count();
    let updated = applied.len() - created;
    let data = json!({"created": created, "updated": updated});
    let text = format!("{created} created, {updated} updated");
    print_either(as_json, data, text)
}

/// Reads the file by the rules of the API. Every error names a line, and no value.
fn read(text: &str, settings: &Settings) -> Result<Vec<FileSecret>, String> {
    let mut lines = HashMap::new();
    let mut secrets = Vec::new();
    let reserved = &settings.limits.reserved_names;
    for assignment in dotenv::parse(text).map_err(|error| error.to_string())? {
        let line = assignment.line;
        let name = SecretName::parse(&assignment.name)
            .map_err(|error| format!("line {line}: the name {error}"))?;
        if reserved.iter().any(|entry| entry.covers(name.as_str())) {
            return Err(format!("line {line}: the name is reserved"));
        }
        if let Some(first) = lines.insert(name.clone(), line) {
            return Err(format!("line {line}: the name is already in line {first}"));
        }
        let value = SecretValue::parse(assignment.value)
            .map_err(|error| format!("line {line}: the value {error}"))?;
        secrets.push(FileSecret { name, value });
    }
    Ok(secrets)
}

impl Importer {
    async fn open(settings: Settings) -> Result<(Self, oneshot::Receiver<()>), CommandError> {
        let target = app::target(&settings, Missing::Refuse);
        let keyring = app::keyring(&settings)?;
        let reader = Reader::open(target.clone(), Home::Runtime(Handle::current())).await?;
        reader.refuse_old_schema().await?;
        let primary = keys::verify_all(&reader, &keyring).await?;
        let limits = app::committer_settings(&settings);
        let (committer, committing) = Committer::start(target, limits, primary)?;
        let importer = Self {
            reader,
            committer,
            sealer: Arc::new(Sealer::new(keyring)),
        };
        Ok((importer, committing))
    }

    /// Tries until it is known what came of it. Each attempt is a change set of its own.
    async fn import(
        &self,
        owner: &Owner,
        secrets: &[FileSecret],
    ) -> Result<Vec<Applied>, AttemptError> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.attempt(owner, secrets).await {
                Err(error) if error.may_pass() && Instant::now() < until => sleep(PAUSE).await,
                outcome => return outcome,
            }
        }
    }

    async fn attempt(
        &self,
        owner: &Owner,
        secrets: &[FileSecret],
    ) -> Result<Vec<Applied>, AttemptError> {
        let changes = self.changes(owner, secrets).await?;
        let id = ChangeSetId::new(Uuid::now_v7());
        let set = ChangeSet { id, changes };
        // There is no other work under way.
        let (ticket, pending) = self.committer.reserve(set.bytes()).map_err(|_overloaded| {
            CommandError::from("the file is larger than commit.queue_bytes")
        })?;
        ticket.commit(Work::Set(set));
        match pending.outcome().await {
            Ok(Outcome::Set(applied)) => Ok(applied),
            Ok(Outcome::Changed(_) | Outcome::Recorded) => {
                Err(AttemptError::Failed(Failure::Internal))
            }
            Err(Failure::Refused(refused)) => Err(named(refused, secrets)),
            Err(Failure::Unknown) => Err(AttemptError::Unknown),
            Err(failure) => Err(AttemptError::Failed(failure)),
        }
    }

    /// A change for each secret, sealed.
    async fn changes(
        &self,
        owner: &Owner,
        secrets: &[FileSecret],
    ) -> Result<Vec<Change>, CommandError> {
        let present: HashMap<_, _> = self
            .reader
            .list(owner)
            .await?
            .into_iter()
            .map(|(secret, _)| (secret.name, secret.id))
            .collect();
        let primary = self.committer.primary_key();
        let progress = Progress::new("sealed", "secrets");
        let mut changes = Vec::new();
        for secret in secrets {
            let id = present.get(&secret.name).copied();
            changes.push(self.change(owner, secret, id, &primary)?);
            progress.report(changes.len() as u64, secrets.len() as u64);
        }
        Ok(changes)
    }

    /// An update of the secret that has this ID, or the creation of one.
    fn change(
        &self,
        owner: &Owner,
        secret: &FileSecret,
        present: Option<SecretId>,
        primary: &KeyId,
    ) -> Result<Change, CommandError> {
        let secret_id = present.unwrap_or_else(|| SecretId::new(Uuid::now_v7()));
        let version_id = VersionId::new(Uuid::now_v7());
        let place = SecretPlace {
            owner,
            secret_id,
            version_id,
        };
        let mask = Mask::of(&secret.value);
        // The original is kept for another attempt.
        let value = SecretValue::parse(secret.value.expose().to_owned().into())?;
        let sealed = self.sealer.seal(primary, place, value, &mask)?;
        let action = match present {
            Some(_) => Action::Update {
                sealed,
                if_match: None,
            },
            None => Action::Create {
                name: secret.name.clone(),
                provider: None,
                sealed,
            },
        };
        Ok(Change {
            owner: owner.clone(),
            secret_id,
            action,
            event_id: EventId::new(Uuid::now_v7()),
            context: RequestContext {
                agent: Agent::OPERATOR,
                request_id: None,
                traceparent: None,
            },
        })
    }
}

/// The refusal, with the name of the secret that it is about.
#[expect(
    clippy::expect_used,
    reason = "each secret is one change of the command"
)]
fn named(refused: Refused, secrets: &[FileSecret]) -> AttemptError {
    let secret = secrets.get(refused.index);
    let secret = secret.expect("the refusal is about one of the secrets");
    AttemptError::Refused {
        name: secret.name.as_str().to_owned(),
        refusal: refused.refusal,
    }
}
