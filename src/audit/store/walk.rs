//! Reading logs in order, page by page.

use std::collections::VecDeque;

use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait, EntityTrait, FromQueryResult, QueryFilter, QueryOrder,
    QuerySelect, Select, Statement,
};

use super::{
    AuditStore, PAGE,
    rows::{StoredEvent, signed, unsigned},
};
use crate::{
    audit::entity::events,
    domain::{Cursor, Log},
    store::StoreError,
};

/// Reads a log in position order, page by page. Where two epochs hold one position, the
/// higher epoch counts: the service was restored to an earlier position.
#[derive(Debug)]
pub(in crate::audit) struct Walk<'a> {
    store: &'a AuditStore,
    log: Log,
    until: u64,
    segments: VecDeque<Segment>,
}

impl<'a> Walk<'a> {
    /// From the first stored event, after the base, through a position.
    pub(in crate::audit) async fn begin(
        store: &'a AuditStore,
        log: Log,
        base: u64,
        until: u64,
    ) -> Result<Self, StoreError> {
        let branches = store.run(async move |db| branches(&db, log).await).await?;
        let mut segments = branches.main;
        for segment in &mut segments {
            segment.from = segment.from.max(base + 1);
        }
        Ok(Self {
            store,
            log,
            until,
            segments,
        })
    }

    /// Reads the stretches that the log has abandoned: they follow each other in epochs, not in position.
    pub(in crate::audit) async fn of_abandoned(
        store: &'a AuditStore,
        log: Log,
    ) -> Result<Self, StoreError> {
        let branches = store.run(async move |db| branches(&db, log).await).await?;
        Ok(Self {
            store,
            log,
            until: u64::MAX,
            segments: branches.abandoned,
        })
    }

    /// The next events; none at the end.
    pub(in crate::audit) async fn page(&mut self) -> Result<Vec<StoredEvent>, StoreError> {
        while let Some(segment) = self.segments.front_mut() {
            let wanted = Segment {
                to: segment.to.min(self.until),
                ..*segment
            };
            if wanted.from > wanted.to {
                self.segments.pop_front();
                continue;
            }
            let rows = self.store.page(self.log, wanted).await?;
            let Some(last) = rows.last() else {
                self.segments.pop_front();
                continue;
            };
            segment.from = last.cursor()?.position + 1;
            return Ok(rows);
        }
        Ok(Vec::new())
    }
}

/// The newest events of a log, and those that follow.
#[derive(Debug)]
pub(crate) struct NewestEvents {
    log: Log,
    cursor: Cursor,
    bodies: Vec<Vec<u8>>,
}

impl NewestEvents {
    /// Takes the exact bytes of the events that were read.
    pub(crate) fn take(&mut self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.bodies)
    }

    /// Reads the events after the last one; false if there are none yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn more(&mut self, store: &AuditStore) -> Result<bool, StoreError> {
        let rows = store.after(self.log, self.cursor).await?;
        let any = !rows.is_empty();
        self.add(rows)?;
        Ok(any)
    }

    fn add(&mut self, rows: Vec<StoredEvent>) -> Result<(), StoreError> {
        if let Some(last) = rows.last() {
            self.cursor = last.cursor()?;
        }
        self.bodies.extend(rows.into_iter().map(|row| row.0.body));
        Ok(())
    }
}

impl AuditStore {
    async fn rows(&self, query: Select<events::Entity>) -> Result<Vec<StoredEvent>, StoreError> {
        self.run(async move |db| Ok(query.all(&db).await?.into_iter().map(StoredEvent).collect()))
            .await
    }

    /// The next events of a segment, at most [`PAGE`].
    async fn page(
        &self,
        log: Log,
        Segment { epoch, from, to }: Segment,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let next = events_of(log)
            .filter(events::Column::Epoch.eq(signed(epoch)))
            .filter(events::Column::Position.between(signed(from), signed(to)))
            .order_by_asc(events::Column::Position)
            .limit(PAGE as u64);
        self.rows(next).await
    }

    /// The newest stored events of a log, at most `limit`, in the order of epoch and position.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn tail(&self, log: Log, limit: u64) -> Result<NewestEvents, StoreError> {
        let newest = events_of(log)
            .order_by_desc(events::Column::Epoch)
            .order_by_desc(events::Column::Position)
            .limit(limit);
        let mut rows = self.rows(newest).await?;
        rows.reverse();
        let mut tail = NewestEvents {
            log,
            cursor: Cursor::START,
            bodies: Vec::new(),
        };
        tail.add(rows)?;
        Ok(tail)
    }

    async fn after(&self, log: Log, after: Cursor) -> Result<Vec<StoredEvent>, StoreError> {
        let later = Condition::any()
            .add(events::Column::Epoch.gt(signed(after.epoch)))
            .add(
                Condition::all()
                    .add(events::Column::Epoch.eq(signed(after.epoch)))
                    .add(events::Column::Position.gt(signed(after.position))),
            );
        let next = events_of(log)
            .filter(later)
            .order_by_asc(events::Column::Epoch)
            .order_by_asc(events::Column::Position)
            .limit(PAGE as u64);
        self.rows(next).await
    }
}

fn events_of(log: Log) -> Select<events::Entity> {
    events::Entity::find().filter(events::Column::Log.eq(log.as_str()))
}

/// A stretch of a log in one epoch, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    epoch: u64,
    from: u64,
    to: u64,
}

/// The log's stretches in position order, and those of lower epochs that it has abandoned.
#[derive(Debug, Default)]
struct Branches {
    main: VecDeque<Segment>,
    abandoned: VecDeque<Segment>,
}

async fn branches(db: &impl ConnectionTrait, log: Log) -> Result<Branches, StoreError> {
    #[derive(FromQueryResult)]
    struct EpochRow {
        epoch: i64,
        first: i64,
        last: i64,
    }
    let sql = "SELECT epoch, min(position) AS first, max(position) AS last FROM audit_events \
               WHERE log = $1 GROUP BY epoch ORDER BY epoch DESC";
    let values = [log.as_str().into()];
    let statement = Statement::from_sql_and_values(db.get_database_backend(), sql, values);
    let mut branches = Branches::default();
    let mut before = u64::MAX;
    for row in EpochRow::find_by_statement(statement).all(db).await? {
        let (epoch, from, last) = (
            unsigned(row.epoch)?,
            unsigned(row.first)?,
            unsigned(row.last)?,
        );
        let to = last.min(before.saturating_sub(1));
        if to < last {
            branches.abandoned.push_front(Segment {
                epoch,
                from: from.max(to + 1),
                to: last,
            });
        }
        if from <= to {
            branches.main.push_front(Segment { epoch, from, to });
            before = from;
        }
    }
    Ok(branches)
}
