//! Raised epochs. The service raises one when its database was restored to an earlier point; only the operator
//! accepts it here.

use std::collections::HashSet;

use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};

use super::{AuditStore, rows::signed, rows::unsigned, walk::Segment};
use crate::{
    audit::{
        chain::EPOCH_RAISED,
        entity::{epochs, events},
    },
    domain::{Log, Timestamp},
    store::StoreError,
};

/// Where a log goes on in a higher epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::audit) struct Raise {
    /// The epoch before.
    pub(in crate::audit) previous: u64,
    /// The higher epoch.
    pub(in crate::audit) epoch: u64,
    /// The last position that both have.
    pub(in crate::audit) parted: u64,
    /// How many stored events of lower epochs it abandons.
    pub(in crate::audit) abandoned: u64,
    /// Whether the operator has accepted it.
    pub(in crate::audit) accepted: bool,
}

/// What became of an epoch that was to be accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acceptance {
    /// It is accepted.
    Accepted,
    /// No event of that epoch is stored.
    Unknown,
    /// Its first event is not `epoch.raised`: nobody raised it, so nobody can accept it.
    Unannounced,
}

impl AuditStore {
    /// Accepts a raised epoch of a log. The first label and time stay.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(crate) async fn accept_epoch(
        &self,
        log: Log,
        epoch: u64,
        label: String,
        now: Timestamp,
    ) -> Result<Acceptance, StoreError> {
        self.run(async move |db| {
            let first = events::Entity::find()
                .select_only()
                .column(events::Column::Type)
                .filter(events::Column::Log.eq(log.as_str()))
                .filter(events::Column::Epoch.eq(signed(epoch)))
                .order_by_asc(events::Column::Position)
                .into_tuple::<String>()
                .one(&db)
                .await?;
            match first.as_deref() {
                None => return Ok(Acceptance::Unknown),
                Some(EPOCH_RAISED) => {}
                Some(_) => return Ok(Acceptance::Unannounced),
            }
            let row = epochs::ActiveModel {
                log: Set(log.as_str().to_owned()),
                epoch: Set(signed(epoch)),
                label: Set(label),
                accepted_at: Set(now.micros()),
            };
            epochs::Entity::insert(row)
                .on_conflict_do_nothing()
                .exec_without_returning(&db)
                .await?;
            Ok(Acceptance::Accepted)
        })
        .await
    }

    /// Where the log, as it stands, goes on in a higher epoch.
    pub(in crate::audit) async fn raises(&self, log: Log) -> Result<Vec<Raise>, StoreError> {
        let base = self.state(log).await?.base.cursor;
        let branches = self.branches(log).await?;
        let accepted = self.accepted(log).await?;
        let abandoned = |from: u64, to: u64| -> u64 {
            let within = |one: &&Segment| (from..to).contains(&one.epoch);
            let lost = branches.abandoned.iter().filter(within);
            lost.map(|one| one.to - one.from + 1).sum()
        };
        // A log's first epoch is 1.
        let mut previous = base.epoch.max(1);
        let mut raises = Vec::new();
        for segment in &branches.main {
            let epoch = segment.epoch;
            if epoch > previous {
                raises.push(Raise {
                    previous,
                    epoch,
                    parted: segment.from - 1,
                    abandoned: abandoned(previous, epoch),
                    accepted: accepted.contains(&epoch),
                });
            }
            previous = previous.max(epoch);
        }
        Ok(raises)
    }

    async fn accepted(&self, log: Log) -> Result<HashSet<u64>, StoreError> {
        self.run(async move |db| {
            let rows = epochs::Entity::find()
                .filter(epochs::Column::Log.eq(log.as_str()))
                .all(&db)
                .await?;
            rows.into_iter().map(|row| unsigned(row.epoch)).collect()
        })
        .await
    }
}
