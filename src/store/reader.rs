//! Pools of reading connections, and all that the service reads.

use std::{sync::Arc, time::Duration};

use chrono::Utc;

use super::{
    StoreError, Target, UnsafeDatabase,
    chain::Head,
    connection,
    error::ReadError,
    expiry::{self, DueSecret},
    idempotency::{self, AnsweredError},
    keys::{self, StoredKey},
    log::{self, CursorError, Filter, Gone, History, LoggedEvent, Page},
    pool::{Home, Patience, ReplaceablePool},
    read_connection::ReadConnection,
    schema::{self, SchemaError},
    secrets::{self, Resolution, Selection},
    service_keys::{self, StoredServiceKey},
    tokens::{self, StoredToken, TokenRow},
    versions::{self, KeptVersion, Source},
};
use crate::{
    crypto::MacKey,
    domain::{
        Answer, Cursor, Log, Once, Owner, SealedMask, Secret, SecretId, SecretName, Timestamp,
        VersionId,
    },
};
use migration::Migrator;

/// So many reads that are overdue together replace the pool.
const OVERDUE: u32 = 3;

/// How much longer than the database's own timeouts a read may take.
const GRACE: Duration = Duration::from_secs(1);

/// The database as readers see it. Clones share one pool.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pool: Arc<ReplaceablePool>,
}

/// The state of one thing that readiness depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// It works.
    Ok,
    /// It does not work.
    Failed,
    /// Not used by this configuration.
    Off,
}

/// Whether the database can serve requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Readiness {
    /// It answers.
    pub database: Check,
    /// Every migration that this binary needs is there.
    pub schema: Check,
    /// It names a primary key. (That this process holds it was checked at the start.)
    pub keys: Check,
}

impl Reader {
    /// A reader whose pool connects when it must, and whose work runs there.
    ///
    /// # Errors
    /// [`StoreError`] when the URL can't be used.
    pub(crate) async fn open(target: Target, home: Home) -> Result<Self, StoreError> {
        let patience = Patience {
            deadline: target.timeout + GRACE,
            overdue: OVERDUE,
        };
        let pool = ReplaceablePool::open(target, home, patience).await?;
        Ok(Self {
            pool: Arc::new(pool),
        })
    }

    /// A reader for the process itself, and one for each of so many threads, which runs its reads on that thread's
    /// own runtime. The first has a quarter of the target's connections, the others share the rest; each has at
    /// least one.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub(crate) async fn open_all(
        target: &Target,
        home: Home,
        threads: usize,
    ) -> Result<(Self, Vec<Self>), StoreError> {
        let with = |connections: u32| Target {
            max_connections: connections.max(1),
            ..target.clone()
        };
        let own = (target.max_connections / 4).max(1);
        let rest = target.max_connections.saturating_sub(own);
        let each = rest / u32::try_from(threads).unwrap_or(u32::MAX).max(1);
        let mut readers = Vec::new();
        for _ in 0..threads {
            readers.push(Self::open(with(each), Home::Caller).await?);
        }
        Ok((Self::open(with(own), home).await?, readers))
    }

    /// Refuses a database whose settings could lose acknowledged writes.
    ///
    /// # Errors
    /// [`UnsafeDatabase`] names the setting.
    pub(crate) async fn refuse_unsafe(&self) -> Result<(), UnsafeDatabase> {
        self.read(connection::refuse_unsafe).await
    }

    /// Refuses a schema that lacks a migration which this binary needs.
    ///
    /// # Errors
    /// [`SchemaError`] names the first that is missing.
    pub(crate) async fn refuse_old_schema(&self) -> Result<(), SchemaError> {
        let missing = self
            .read(async |db| schema::missing::<Migrator>(&db).await)
            .await?;
        missing.map_or(Ok(()), |name| Err(SchemaError::Missing(name)))
    }

    /// The owner's secrets with their masks, by `created_at`, then ID.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn list(
        &self,
        owner: &Owner,
    ) -> Result<Vec<(Secret, SealedMask)>, StoreError> {
        let owner = owner.clone();
        self.read(async move |db| secrets::list(&db, &owner).await)
            .await
    }

    /// One of the owner's secrets with its mask; none when it is absent or another owner's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn get(
        &self,
        owner: &Owner,
        id: SecretId,
    ) -> Result<Option<(Secret, SealedMask)>, StoreError> {
        let owner = owner.clone();
        self.read(async move |db| secrets::get(&db, &owner, id).await)
            .await
    }

    /// The names of the owner's secrets.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn names(&self, owner: &Owner) -> Result<Vec<SecretName>, StoreError> {
        let owner = owner.clone();
        self.read(async move |db| secrets::names(&db, &owner).await)
            .await
    }

    /// A page of a living secret's events, newest first; none when the secret is absent or another
    /// owner's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn history(
        &self,
        owner: &Owner,
        id: SecretId,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Option<History>, StoreError> {
        let owner = owner.clone();
        self.read(async move |db| {
            if !secrets::exists(&db, &owner, id).await? {
                return Ok(None);
            }
            log::history(&db, &owner, id, before, limit).await.map(Some)
        })
        .await
    }

    /// A log's events after a position, in position order, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn log_after(
        &self,
        log: Log,
        position: u64,
        limit: u64,
    ) -> Result<Vec<LoggedEvent>, StoreError> {
        // To the end: positions are BIGINT.
        let range = position + 1..=u64::MAX >> 1;
        self.read(async move |db| log::between(&db, log, range, &Filter::default(), limit).await)
            .await
    }

    /// The page of a log after a cursor, at most `limit` events; without a cursor it begins at the first
    /// event kept.
    ///
    /// # Errors
    /// [`CursorError`].
    pub(crate) async fn log_page(
        &self,
        log: Log,
        after: Option<Cursor>,
        filter: &Filter,
        limit: u32,
    ) -> Result<Page, CursorError> {
        let filter = filter.clone();
        self.read(async move |db| log::page(&db, log, after, &filter, limit).await)
            .await
    }

    /// The head of a log.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn log_head(&self, log: Log) -> Result<Head, StoreError> {
        self.read(async move |db| log::head(&db, log).await).await
    }

    /// Checks that the log holds a cursor's event, or was cut there.
    ///
    /// # Errors
    /// [`CursorError`].
    pub(crate) async fn check_cursor(&self, log: Log, cursor: Cursor) -> Result<(), CursorError> {
        self.read(async move |db| log::check_cursor(&db, log, cursor).await)
            .await
    }

    /// Checks that a log has reached a cursor. It also has where the cursor is at or below the retention cut.
    ///
    /// # Errors
    /// [`CursorError`].
    pub(crate) async fn check_reached(&self, log: Log, cursor: Cursor) -> Result<(), CursorError> {
        match self.check_cursor(log, cursor).await {
            Err(CursorError::Gone(Gone { first: cut, .. }))
                if cursor.position <= cut.position && cursor.epoch <= cut.epoch =>
            {
                Ok(())
            }
            checked => checked,
        }
    }

    /// The selected secrets of an owner, with their sealed values.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn resolve(
        &self,
        owner: &Owner,
        selection: &Selection,
    ) -> Result<Resolution, StoreError> {
        let (owner, selection) = (owner.clone(), selection.clone());
        self.read(async move |db| secrets::resolve(&db, &owner, &selection).await)
            .await
    }

    /// The secrets of which it is to be told that they expire, or will in so much time.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn due(&self, lead: Duration) -> Result<Vec<DueSecret>, StoreError> {
        let lead = i64::try_from(lead.as_micros()).unwrap_or(i64::MAX >> 1);
        self.read(async move |db| expiry::due(&db, lead).await)
            .await
    }

    /// The versions of one of the owner's secrets, newest first; none when the secret is absent or another owner's.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Disagrees`] when one is not as its event says.
    pub(crate) async fn versions(
        &self,
        owner: &Owner,
        id: SecretId,
    ) -> Result<Option<Vec<KeptVersion>>, StoreError> {
        let owner = owner.clone();
        self.read(async move |db| versions::kept(&db, &owner, id).await)
            .await
    }

    /// A version of one of the owner's secrets, with its sealed value.
    ///
    /// # Errors
    /// As [`Reader::versions`].
    pub(crate) async fn version(
        &self,
        owner: &Owner,
        id: SecretId,
        version: u64,
    ) -> Result<Source, StoreError> {
        let owner = owner.clone();
        self.read(async move |db| versions::source(&db, (&owner, id), version).await)
            .await
    }

    /// The mask of a version of one of the owner's secrets; none when either is gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn mask(
        &self,
        owner: &Owner,
        version: (SecretId, VersionId),
    ) -> Result<Option<SealedMask>, StoreError> {
        let owner = owner.clone();
        self.read(async move |db| versions::mask(&db, &owner, version).await)
            .await
    }

    /// What a request that was made before has answered; nothing when it is to be made now.
    ///
    /// # Errors
    /// [`AnsweredError`]; what is refused is refused as by the commit.
    pub(crate) async fn answered(
        &self,
        once: &Once,
        key: &Arc<MacKey>,
    ) -> Result<Option<Answer>, AnsweredError> {
        let (name, key) = (once.name.clone(), Arc::clone(key));
        let record = self
            .read(async move |db| idempotency::find(&db, &name, &key).await)
            .await
            .map_err(AnsweredError::Store)?;
        let now = Timestamp::from(Utc::now());
        Ok(idempotency::answered(once, record.as_ref(), now)?)
    }

    /// The API token of that ID.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn token(
        &self,
        id: &str,
        key: &Arc<MacKey>,
    ) -> Result<Option<TokenRow>, StoreError> {
        let (id, key) = (id.to_owned(), Arc::clone(key));
        self.read(async move |db| tokens::find(&db, &id, &key).await)
            .await
    }

    /// An owner's tokens that are not revoked, oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tokens_of(
        &self,
        owner: &Owner,
        key: &Arc<MacKey>,
    ) -> Result<Vec<StoredToken>, StoreError> {
        let (owner, key) = (owner.clone(), Arc::clone(key));
        self.read(async move |db| tokens::of_owner(&db, &owner, &key).await)
            .await
    }

    /// All keys that the database knows, and which of them is the primary one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn keys(&self) -> Result<Vec<StoredKey>, StoreError> {
        self.read(async |db| keys::all(&db).await).await
    }

    /// The service's own keys, sealed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn service_keys(&self) -> Result<Vec<StoredServiceKey>, StoreError> {
        self.read(async |db| service_keys::all(&db).await).await
    }

    /// Whether the database answers, has the schema that this binary needs, and names a key.
    pub(crate) async fn ready(&self) -> Readiness {
        let checked: Result<_, StoreError> = self
            .read(async |db| match schema::missing::<Migrator>(&db).await? {
                None => Ok(Some(keys::all(&db).await?.iter().any(|key| key.primary))),
                Some(_) => Ok(None),
            })
            .await;
        let is = |good| if good { Check::Ok } else { Check::Failed };
        Readiness {
            database: is(checked.is_ok()),
            schema: is(matches!(checked, Ok(Some(_)))),
            keys: is(matches!(checked, Ok(Some(true)))),
        }
    }

    /// Closes the pool, as far as that is possible within `deadline`.
    pub(crate) async fn close(&self, deadline: Duration) {
        self.pool.close(deadline).await;
    }

    async fn read<F, W, T, E>(&self, query: F) -> Result<T, E>
    where
        F: FnOnce(ReadConnection) -> W + Clone + Send + 'static,
        W: Future<Output = Result<T, E>> + Send + 'static,
        T: Send + 'static,
        E: ReadError,
    {
        self.pool.read(query).await
    }
}
