//! `rekey import FILE.env --owner …`: creates and updates as one change set, committed like any other.

mod dotenv;
mod file;

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use serde_json::json;
use tokio::{
    runtime::Handle,
    sync::oneshot,
    time::{Instant, sleep},
};
use uuid::Uuid;

use file::FileSecret;

use super::{CommandError, database, print_either, progress::Progress};
use crate::{
    app,
    crypto::{Sealer, SecretPlace},
    domain::{
        Action, Agent, Change, ChangeSet, ChangeSetId, EventId, Failure, KeyId, Mask, NamedSecrets,
        Origin, Outcome, Owner, Refusal, Refused, RequestContext, SecretId, SecretValue, VersionId,
        Work,
    },
    keys,
    settings::Settings,
    store::{Committer, CommitterKeys, Home, Missing, Reader, SealedSecret, Selection},
};

/// How long the import is tried again when the database is busy.
const PATIENCE: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(250);
/// How many values are read in one statement.
const READ_AT_ONCE: usize = 500;

#[derive(Debug, Args)]
pub(super) struct ImportOptions {
    /// The file: lines of NAME=VALUE, with or without quotes. `-` is the standard input.
    file: PathBuf,
    /// The owner of the secrets.
    #[arg(long, value_parser = Owner::parse)]
    owner: Owner,
    /// Leave out lines without a value, instead of refusing the file.
    #[arg(long)]
    skip_empty: bool,
    /// Say what would be created, updated and left, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Writes the file's secrets.
struct Importer {
    reader: Reader,
    committer: Committer,
    sealer: Arc<Sealer>,
}

/// What is to be done with a secret of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There is no secret of that name.
    Create,
    /// It gets another value.
    Update(SecretId),
    /// Its value is the current one already.
    Leave,
}

/// What is to be done with each secret of the file, in its order.
type Plan<'file> = Vec<(&'file FileSecret, Step)>;

/// Why an attempt did not import the file.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    /// A secret was refused, and with it all the others.
    #[error("{name}: {refusal}; nothing was imported")]
    Refused { name: String, refusal: Refusal },
    /// A secret went away while the present values were read.
    #[error("a secret was deleted in the meantime; nothing was imported")]
    Deleted,
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
            Self::Deleted | Self::Failed(_) => true,
            Self::Unknown | Self::NotTried(_) => false,
        }
    }
}

pub(super) async fn run(
    settings: Settings,
    options: ImportOptions,
    as_json: bool,
) -> Result<(), CommandError> {
    let content = file::read(&options.file, &settings, options.skip_empty)?;
    database::open(&settings, Missing::Refuse)
        .await?
        .close()
        .await;
    let (importer, committing) = Importer::open(settings).await?;
    let plan = importer.import(&options, &content.secrets).await;
    importer.committer.stop();
    let stopped = committing.await;
    let plan = plan?;
    stopped?;
    report(&plan, &options, content.skipped, as_json)
}

/// Says what was done, or would be.
fn report(
    plan: &Plan<'_>,
    options: &ImportOptions,
    skipped: usize,
    as_json: bool,
) -> Result<(), CommandError> {
    let names = |is: fn(Step) -> bool| -> Vec<_> {
        let steps = plan.iter().filter(|(_, step)| is(*step));
        steps.map(|(secret, _)| secret.name.as_str()).collect()
    };
    let created = names(|step| step == Step::Create);
    let updated = names(|step| matches!(step, Step::Update(_)));
    let left = names(|step| step == Step::Leave);
    let counts = (created.len(), updated.len(), left.len());
    if options.dry_run {
        let steps = [("create", &created), ("update", &updated), ("leave", &left)];
        let each = |(what, names): (_, &Vec<&str>)| {
            let lines = names.iter().map(move |name| format!("would {what} {name}"));
            lines.collect::<Vec<_>>()
        };
        let mut lines: Vec<_> = steps.into_iter().flat_map(each).collect();
        let (create, update, leave) = counts;
        lines.push(format!(
            "would create {create}, update {update} and leave {leave}"
        ));
        let data = json!({"create": created, "update": updated, "leave": left, "skipped": skipped});
        return print_either(as_json, data, lines.join("\n"));
    }
    let (created, updated, left) = counts;
    let mut lines = vec![format!("{created} created, {updated} updated")];
    if left > 0 {
        lines.push(format!("{left} left: the value is the current one already"));
    }
    if skipped > 0 {
        lines.push(format!("{skipped} skipped: there is no value"));
    }
    let data = json!({"created": created, "updated": updated, "left": left, "skipped": skipped});
    print_either(as_json, data, lines.join("\n"))
}

impl Importer {
    async fn open(settings: Settings) -> Result<(Self, oneshot::Receiver<()>), CommandError> {
        let target = app::target(&settings, Missing::Refuse);
        let keyring = app::keyring(&settings)?;
        let reader = Reader::open(target.clone(), Home::Runtime(Handle::current())).await?;
        reader.refuse_old_schema().await?;
        let primary = keys::verify_all(&reader, &keyring).await?;
        let sealer = Arc::new(Sealer::new(keyring));
        let records = keys::open(&reader, &sealer).await?.idempotency;
        let limits = app::committer_settings(&settings);
        let keys = CommitterKeys { primary, records };
        let (committer, committing) = Committer::start(target, limits, keys)?;
        let importer = Self {
            reader,
            committer,
            sealer,
        };
        Ok((importer, committing))
    }

    /// Tries until it is known what came of it. Each attempt is a change set of its own.
    async fn import<'file>(
        &self,
        options: &ImportOptions,
        secrets: &'file [FileSecret],
    ) -> Result<Plan<'file>, AttemptError> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.attempt(options, secrets).await {
                Err(error) if error.may_pass() && Instant::now() < until => sleep(PAUSE).await,
                outcome => return outcome,
            }
        }
    }

    async fn attempt<'file>(
        &self,
        options: &ImportOptions,
        secrets: &'file [FileSecret],
    ) -> Result<Plan<'file>, AttemptError> {
        let plan = self.plan(&options.owner, secrets).await?;
        if options.dry_run || plan.iter().all(|(_, step)| *step == Step::Leave) {
            return Ok(plan);
        }
        let changes = self.changes(&options.owner, &plan)?;
        let id = ChangeSetId::new(Uuid::now_v7());
        let set = ChangeSet {
            id,
            changes,
            once: None,
        };
        // There is no other work under way.
        let (ticket, pending) =
            self.committer
                .reserve(None, set.bytes())
                .map_err(|_overloaded| {
                    CommandError::from("the file is larger than commit.queue_bytes")
                })?;
        ticket.commit(Work::Set(set));
        match pending.outcome().await {
            Ok(Outcome::Set(..)) => Ok(plan),
            Ok(Outcome::Changed(_) | Outcome::Recorded | Outcome::Replayed(_)) => {
                Err(AttemptError::Failed(Failure::Internal))
            }
            Err(Failure::Refused(Refused {
                refusal: refusal @ Refusal::LockedDown,
                ..
            })) => {
                let text = format!("{refusal}; nothing was imported");
                Err(AttemptError::NotTried(text.into()))
            }
            Err(Failure::Refused(refused)) => Err(named(refused, &plan)),
            Err(Failure::Unknown) => Err(AttemptError::Unknown),
            Err(failure) => Err(AttemptError::Failed(failure)),
        }
    }

    /// Compares the file with what is there. Nobody is shown a value, so that no access is recorded.
    async fn plan<'file>(
        &self,
        owner: &Owner,
        secrets: &'file [FileSecret],
    ) -> Result<Plan<'file>, AttemptError> {
        let mut present = HashMap::new();
        let names = self.reader.names(owner).await.map_err(CommandError::from)?;
        let names: HashSet<_> = names.into_iter().collect();
        let names = secrets
            .iter()
            .map(|secret| &secret.name)
            .filter(|name| names.contains(*name));
        let names: Vec<_> = names.cloned().collect();
        for names in names.chunks(READ_AT_ONCE) {
            let selection = Selection::Names(names.to_vec());
            let read = self.reader.resolve(owner, &selection).await;
            let read = read.map_err(CommandError::from)?;
            for SealedSecret { secret, sealed } in read.secrets.ok_or(AttemptError::Deleted)? {
                let opened = self.sealer.open_value(owner, secret.id, &sealed);
                let value = opened.map_err(|error| {
                    CommandError::from(format!("{}: {error}", secret.name.as_str()))
                })?;
                present.insert(secret.name, (secret.id, value));
            }
        }
        let step = |secret: &FileSecret| match present.get(&secret.name) {
            None => Step::Create,
            Some((_, value)) if value.expose() == secret.value.expose() => Step::Leave,
            Some((id, _)) => Step::Update(*id),
        };
        Ok(secrets
            .iter()
            .map(|secret| (secret, step(secret)))
            .collect())
    }

    /// The changes that the plan needs, sealed.
    fn changes(&self, owner: &Owner, plan: &Plan<'_>) -> Result<Vec<Change>, CommandError> {
        let primary = self.committer.primary_key();
        let steps = || plan.iter().filter(|(_, step)| *step != Step::Leave);
        let all = steps().count() as u64;
        let progress = Progress::new("sealed", "secrets");
        let mut changes = Vec::new();
        for (secret, step) in steps() {
            let present = match step {
                Step::Update(id) => Some(*id),
                Step::Create | Step::Leave => None,
            };
            changes.push(self.change(owner, secret, present, &primary)?);
            progress.report(changes.len() as u64, all);
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
                restored_from: None,
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
                secrets: NamedSecrets::ALL,
                origin: Origin::default(),
                request_id: None,
                traceparent: None,
            },
            once: None,
        })
    }
}

/// The refusal, with the name of the secret that it is about.
#[expect(
    clippy::expect_used,
    reason = "each step but those that leave a secret is one change of the command"
)]
fn named(refused: Refused, plan: &Plan<'_>) -> AttemptError {
    let mut changed = plan.iter().filter(|(_, step)| *step != Step::Leave);
    let changed = changed.nth(refused.index);
    let (secret, _) = changed.expect("the refusal is about one of the changes");
    AttemptError::Refused {
        name: secret.name.as_str().to_owned(),
        refusal: refused.refusal,
    }
}
