//! Reading logs in order, page by page.

use std::collections::{HashSet, VecDeque};

use sea_orm::{ColumnTrait, Condition, EntityTrait, QueryFilter, QueryOrder, QuerySelect, Select};
use uuid::Uuid;

use super::{
    AuditStore, PAGE,
    rows::{StoredEvent, signed, unsigned},
};
use crate::{
    audit::entity::events,
    domain::{Cursor, Log, Timestamp},
    store::StoreError,
};

/// Reads stored events of a log in order, page by page.
#[derive(Debug)]
pub(in crate::audit) struct Walk<'a> {
    store: &'a AuditStore,
    log: Log,
    segments: VecDeque<Segment>,
}

impl<'a> Walk<'a> {
    /// Reads the log in position order, after `base` and through `until`. Where two epochs hold one position,
    /// the higher epoch counts: the service was restored to an earlier position.
    pub(in crate::audit) async fn begin(
        store: &'a AuditStore,
        log: Log,
        base: u64,
        until: u64,
    ) -> Result<Self, StoreError> {
        let mut segments = store.branches(log).await?.main;
        for segment in &mut segments {
            segment.from = segment.from.max(base + 1);
            segment.to = segment.to.min(until);
        }
        Ok(Self {
            store,
            log,
            segments,
        })
    }

    /// Reads the stretches that the log has abandoned: they follow each other in epochs, not in position.
    pub(in crate::audit) async fn of_abandoned(
        store: &'a AuditStore,
        log: Log,
    ) -> Result<Self, StoreError> {
        let segments = store.branches(log).await?.abandoned;
        Ok(Self {
            store,
            log,
            segments,
        })
    }

    /// The stretches that the log has abandoned, each with its first position, in the order of position and epoch:
    /// the event that a stretch follows is in the log, or in a stretch before it.
    pub(in crate::audit) async fn of_each_abandoned(
        store: &'a AuditStore,
        log: Log,
    ) -> Result<VecDeque<(u64, Self)>, StoreError> {
        let mut segments = Vec::from(store.branches(log).await?.abandoned);
        segments.sort_by_key(|segment| (segment.from, segment.epoch));
        let walk = |segment: Segment| {
            let segments = VecDeque::from([segment]);
            let walk = Self {
                store,
                log,
                segments,
            };
            (segment.from, walk)
        };
        Ok(segments.into_iter().map(walk).collect())
    }

    /// The next events, at most [`PAGE`]; `None` at the end.
    pub(in crate::audit) async fn page(&mut self) -> Result<Option<Vec<StoredEvent>>, StoreError> {
        while let Some(segment) = self.segments.front_mut() {
            if segment.from <= segment.to {
                let next = events_of(self.log)
                    .filter(events::Column::Epoch.eq(signed(segment.epoch)))
                    .filter(
                        events::Column::Position.between(signed(segment.from), signed(segment.to)),
                    )
                    .order_by_asc(events::Column::Position)
                    .limit(PAGE as u64);
                let rows = self.store.rows(next).await?;
                if let Some(last) = rows.last() {
                    segment.from = last.cursor()?.position + 1;
                    return Ok(Some(rows));
                }
            }
            self.segments.pop_front();
        }
        Ok(None)
    }
}

/// An event of the log `changes` that is about a version.
#[derive(Debug)]
pub(in crate::audit) struct Written {
    /// The secret.
    pub(in crate::audit) secret_id: Uuid,
    /// The version after it.
    pub(in crate::audit) version: u64,
    /// Whether the secret ended with it.
    pub(in crate::audit) deleted: bool,
    /// Whether the log has it still: it is not on an abandoned branch.
    pub(in crate::audit) current: bool,
    /// When it happened.
    pub(in crate::audit) occurred_at: Timestamp,
    /// Its exact bytes.
    pub(in crate::audit) body: Vec<u8>,
}

impl AuditStore {
    /// The events of `changes` about these versions, and about the versions after them.
    pub(in crate::audit) async fn written(
        &self,
        versions: &[(Uuid, u64)],
        branches: &Branches,
    ) -> Result<Vec<Written>, StoreError> {
        let ids: HashSet<Uuid> = versions.iter().map(|(id, _)| *id).collect();
        let numbers: HashSet<i64> = versions
            .iter()
            .flat_map(|(_, version)| [signed(*version), signed(*version) + 1])
            .collect();
        let query = events_of(Log::Changes)
            .filter(events::Column::Sequence.is_not_null())
            .filter(events::Column::SecretId.is_in(ids))
            .filter(events::Column::Version.is_in(numbers));
        let rows = self.rows(query).await?;
        rows.into_iter()
            .filter_map(|row| {
                let cursor = row.cursor();
                let (secret_id, version) = row.0.secret_id.zip(row.0.version)?;
                Some(cursor.and_then(|cursor| {
                    Ok(Written {
                        secret_id,
                        version: unsigned(version)?,
                        deleted: row.0.r#type == "secret.deleted",
                        current: branches.have(cursor),
                        occurred_at: row.occurred_at(),
                        body: row.0.body,
                    })
                }))
            })
            .collect()
    }

    /// The newest stored events of a log, at most `limit`, in the order of epoch and position.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn newest(
        &self,
        log: Log,
        limit: u64,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let newest = events_of(log)
            .order_by_desc(events::Column::Epoch)
            .order_by_desc(events::Column::Position)
            .limit(limit);
        let mut rows = self.rows(newest).await?;
        rows.reverse();
        Ok(rows)
    }

    /// The stored events after a cursor, at most [`PAGE`], in the order of epoch and position.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn after(
        &self,
        log: Log,
        cursor: Cursor,
    ) -> Result<Vec<StoredEvent>, StoreError> {
        let same_epoch = Condition::all()
            .add(events::Column::Epoch.eq(signed(cursor.epoch)))
            .add(events::Column::Position.gt(signed(cursor.position)));
        let higher_epoch = events::Column::Epoch.gt(signed(cursor.epoch));
        let next = events_of(log)
            .filter(Condition::any().add(higher_epoch).add(same_epoch))
            .order_by_asc(events::Column::Epoch)
            .order_by_asc(events::Column::Position)
            .limit(PAGE as u64);
        self.rows(next).await
    }

    async fn rows(&self, query: Select<events::Entity>) -> Result<Vec<StoredEvent>, StoreError> {
        self.run(async move |db| Ok(query.all(&db).await?.into_iter().map(StoredEvent).collect()))
            .await
    }

    pub(in crate::audit) async fn branches(&self, log: Log) -> Result<Branches, StoreError> {
        self.run(async move |db| {
            let epochs = events_of(log)
                .select_only()
                .column(events::Column::Epoch)
                .column_as(events::Column::Position.min(), "first")
                .column_as(events::Column::Position.max(), "last")
                .group_by(events::Column::Epoch)
                .order_by_desc(events::Column::Epoch)
                .into_tuple::<(i64, i64, i64)>()
                .all(&db)
                .await?;
            let mut branches = Branches::default();
            let mut before = u64::MAX;
            for (epoch, from, last) in epochs {
                let (epoch, from, last) = (unsigned(epoch)?, unsigned(from)?, unsigned(last)?);
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
        })
        .await
    }
}

fn events_of(log: Log) -> Select<events::Entity> {
    events::Entity::find().filter(events::Column::Log.eq(log.as_str()))
}

/// A stretch of a log in one epoch, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) epoch: u64,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// The log's stretches in position order, and those of lower epochs that it has abandoned.
#[derive(Debug, Default)]
pub(in crate::audit) struct Branches {
    pub(super) main: VecDeque<Segment>,
    pub(super) abandoned: VecDeque<Segment>,
}

impl Branches {
    /// Whether the event of that cursor is in the log, and not on a branch that it has abandoned.
    fn have(&self, cursor: Cursor) -> bool {
        self.main.iter().any(|segment| {
            segment.epoch == cursor.epoch && (segment.from..=segment.to).contains(&cursor.position)
        })
    }
}
