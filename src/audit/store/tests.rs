//! What is stored once, what is kept beside it, and where the mark stands.

use std::time::Duration;

use sea_orm::ConnectionTrait;
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::{
    super::{chain::EPOCH_RAISED, event::tests::event, verify::Verifier},
    rows::StoredEvent,
    *,
};
use crate::audit::{Bad, VerifyError};
use crate::store::{Missing, StoreError};

struct Db {
    store: AuditStore,
    _folder: TempDir,
}

impl Db {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("audit.db");
        let target = Target {
            url: format!("sqlite://{}", path.display()).into(),
            sqlite_path: Some(path),
            missing: Missing::Create,
            max_connections: 1,
            timeout: Duration::from_secs(3),
            idle_in_transaction: Duration::from_secs(3),
        };
        let store = AuditStore::open(target, &Handle::current()).await.unwrap();
        assert!(store.refuse_old_schema().await.is_err());
        store.prepare().await.unwrap();
        store.refuse_old_schema().await.unwrap();
        Self {
            store,
            _folder: folder,
        }
    }

    async fn add(&self, events: &[AuditEvent]) -> Stored {
        let now = Timestamp::from_micros(1);
        self.store.add(events.to_vec(), now).await.unwrap()
    }

    fn verifier(&self) -> Verifier {
        Verifier {
            store: self.store.clone(),
            client: None,
            key: None,
            patience: Duration::ZERO,
        }
    }

    async fn execute(&self, sql: &'static str) {
        let done = self
            .store
            .run(async move |db| Ok::<_, StoreError>(db.execute_unprepared(sql).await?));
        done.await.unwrap();
    }

    /// A checkpoint through which the service has signed, asked for at one time and received at another.
    async fn sign(&self, link: Link, asked: i64) {
        let checkpoint = Checkpoint {
            log: Log::Changes,
            epoch: link.cursor.epoch,
            position: link.cursor.position,
            hash: link.hash,
            signature: "AA==".to_owned(),
        };
        let times = (
            Timestamp::from_micros(asked),
            Timestamp::from_micros(asked + 1),
        );
        self.store.add_checkpoint(checkpoint, times).await.unwrap();
    }

    async fn accept(&self, epoch: u64) -> Acceptance {
        let now = Timestamp::from_micros(1);
        let label = "tested".to_owned();
        let accepted = self.store.accept_epoch(Log::Changes, epoch, label, now);
        accepted.await.unwrap()
    }

    /// The first bad position of the log, and why; nothing when it verifies.
    async fn bad(&self) -> Option<Bad> {
        match self.verifier().verify(Log::Changes, |_, _| {}).await {
            Ok(_) => None,
            Err(VerifyError::Bad(bad)) => Some(bad),
            Err(error) => panic!("{error}"),
        }
    }

    async fn mark(&self) -> String {
        let state = self.store.state(Log::Changes).await.unwrap();
        state.mark.cursor.to_string()
    }

    /// The positions and epochs of the log, as a walk reads them.
    async fn walked(&self) -> Vec<String> {
        let mut walk = Walk::begin(&self.store, Log::Changes, 0, u64::MAX)
            .await
            .unwrap();
        let mut cursors = Vec::new();
        while let Some(page) = walk.page().await.unwrap() {
            cursors.extend(page.iter().map(|row| row.cursor().unwrap().to_string()));
        }
        cursors
    }
}

/// Events of one epoch that follow each other; the first of a higher one than 1 raises it.
fn stretch(epoch: u64, from: u64, to: u64, mut hash: [u8; 32]) -> Vec<AuditEvent> {
    (from..=to)
        .map(|position| {
            let raised = epoch > 1 && position == from;
            let kind = if raised {
                EPOCH_RAISED
            } else {
                "secret.updated"
            };
            let more = json!({"type": kind});
            let event = event("changes", epoch, position, hash, &more);
            hash = event.link.hash;
            event
        })
        .collect()
}

#[tokio::test]
async fn an_older_audit_consumer_runs_on_the_schema_of_a_newer_one() {
    let db = Db::new().await;
    db.execute(
        "INSERT INTO audit_migrations (version, applied_at) VALUES ('m20990101_000001_newer', 0)",
    )
    .await;
    db.store.refuse_old_schema().await.unwrap();
    db.store.prepare().await.unwrap();
}

#[tokio::test]
async fn an_event_is_stored_once_however_often_it_comes() {
    let db = Db::new().await;
    let events = stretch(1, 1, 600, [0; 32]);
    let stored = db.add(&events).await;
    assert_eq!((stored.new, stored.repeats, stored.alarms), (600, 0, 0));
    assert_eq!(db.mark().await, "1-600");
    let twice = [&events[..], &events[..3]].concat();
    let stored = db.add(&twice).await;
    assert_eq!((stored.new, stored.repeats, stored.alarms), (0, 603, 0));
    assert_eq!(db.walked().await.len(), 600);
    assert_eq!(db.store.alarms(Log::Changes).await.unwrap(), None);
}

#[tokio::test]
async fn a_repeat_with_another_hash_is_kept_next_to_the_first() {
    let db = Db::new().await;
    let events = stretch(1, 1, 2, [0; 32]);
    db.add(&events).await;
    let mallory = json!({"owner": "mallory"});
    let other = event("changes", 1, 2, events[0].link.hash, &mallory);
    for _ in 0..2 {
        assert_eq!(db.add(std::slice::from_ref(&other)).await.alarms, 1);
    }
    let alarms = db.store.alarms(Log::Changes).await.unwrap();
    assert_eq!(alarms, Some((1, 2)));
    assert_eq!(db.store.alarms(Log::Activity).await.unwrap(), None);
    let newest = db.store.newest(Log::Changes, 1).await.unwrap();
    let bodies: Vec<_> = newest.iter().map(StoredEvent::body).collect();
    assert_eq!(bodies, [&events[1].body]);
    let later = db.store.after(Log::Changes, events[1].link.cursor).await;
    assert_eq!(later.unwrap(), []);
}

#[tokio::test]
async fn the_mark_stops_before_a_gap_and_moves_on_when_it_is_filled() {
    let db = Db::new().await;
    assert_eq!(db.mark().await, "0-0");
    let events = stretch(1, 1, 5, [0; 32]);
    db.add(&events[1..2]).await;
    assert_eq!(db.mark().await, "0-0");
    db.add(&events[..1]).await;
    assert_eq!(db.mark().await, "1-2");
    db.add(&events[3..]).await;
    assert_eq!(db.mark().await, "1-2");
    let state = db.store.state(Log::Changes).await.unwrap();
    assert_eq!(state.highest.to_string(), "1-5");
    db.add(&events[2..3]).await;
    assert_eq!(db.mark().await, "1-5");
    // One that does not follow takes the mark nowhere.
    db.add(&stretch(1, 6, 6, [9; 32])).await;
    assert_eq!(db.mark().await, "1-5");
}

#[tokio::test]
async fn a_restored_service_takes_the_mark_back_to_where_it_branched_off() {
    let db = Db::new().await;
    let old = stretch(1, 1, 10, [0; 32]);
    db.add(&old).await;
    let new = stretch(1_764_000_000, 8, 9, old[6].link.hash);
    db.sign(new[1].link, 0).await;
    // The second of them alone does not say where the branch begins.
    db.add(&new[1..]).await;
    assert_eq!(db.mark().await, "1-10");
    db.add(&new[..1]).await;
    assert_eq!(db.mark().await, "1764000000-9");
    let expected = "1-1 1-2 1-3 1-4 1-5 1-6 1-7 1764000000-8 1764000000-9";
    assert_eq!(db.walked().await.join(" "), expected);
}

#[tokio::test]
async fn a_checkpoint_that_contradicts_an_event_is_an_alarm() {
    let db = Db::new().await;
    let events = stretch(1, 1, 2, [0; 32]);
    db.add(&events).await;
    let checkpoint = |position, hash| Checkpoint {
        log: Log::Changes,
        epoch: 1,
        position,
        hash,
        signature: "AA==".to_owned(),
    };
    let now = Timestamp::from_micros(1);
    for (one, agrees) in [
        (checkpoint(1, events[0].link.hash), true),
        (checkpoint(1, events[0].link.hash), true),
        (checkpoint(3, [1; 32]), true),
        (checkpoint(2, [2; 32]), false),
    ] {
        let answered = db.store.add_checkpoint(one, (now, now)).await.unwrap();
        assert_eq!(answered, agrees);
    }
    let alarms = db.store.alarms(Log::Changes).await.unwrap();
    assert_eq!(alarms, Some((1, 2)));
    let all = db.store.checkpoints(Log::Changes, None).await.unwrap();
    let events: Vec<_> = all.iter().map(|one| one.event.is_some()).collect();
    assert_eq!(events, [true, true, false]);
    let rest = db.store.checkpoints(Log::Changes, Some(&all[1].checkpoint));
    assert_eq!(rest.await.unwrap().len(), 1);
    let newest = db.store.newest_checkpoint(Log::Changes).await.unwrap();
    assert_eq!(newest.unwrap().to_string(), "1-3");
}

#[tokio::test]
async fn what_a_restored_service_has_left_behind_is_proved_too() {
    let db = Db::new().await;
    let old = stretch(1, 1, 10, [0; 32]);
    db.add(&old).await;
    let (two, three) = (
        stretch(2, 8, 9, old[6].link.hash),
        stretch(3, 8, 8, old[6].link.hash),
    );
    db.sign(three[0].link, 0).await;
    db.add(&two).await;
    db.add(&three).await;
    assert_eq!(db.accept(3).await, Acceptance::Accepted);
    let verifier = db.verifier();
    let proof = verifier.verify(Log::Changes, |_, _| {}).await.unwrap();
    assert_eq!(proof.last.cursor.to_string(), "3-8");
    for (position, change) in [
        (
            9,
            "DELETE FROM audit_events WHERE epoch = 1 AND position = 9",
        ),
        (
            9,
            "DELETE FROM audit_events WHERE epoch = 2 AND position = 8",
        ),
        (
            10,
            "UPDATE audit_events SET owner = 'x' WHERE epoch = 1 AND position = 10",
        ),
    ] {
        db.execute(change).await;
        let proved = verifier.verify(Log::Changes, |_, _| {}).await;
        let Err(VerifyError::Bad(bad)) = proved else {
            panic!("{proved:?}");
        };
        assert_eq!(bad.position, position, "{bad}");
        let missing = [&old[8..], &stretch(2, 8, 9, old[6].link.hash)].concat();
        db.add(&missing).await;
    }
}

#[tokio::test]
async fn a_log_that_was_cut_before_the_first_start_begins_after_the_cut() {
    let db = Db::new().await;
    let events = stretch(1, 1, 8, [0; 32]);
    db.add(&events[6..]).await;
    db.store
        .begin_after(Log::Changes, events[4].link)
        .await
        .unwrap();
    assert_eq!(db.mark().await, "1-5");
    db.add(&events[5..6]).await;
    assert_eq!(db.mark().await, "1-8");
    let proof = db.verifier().verify(Log::Changes, |_, _| {}).await.unwrap();
    assert_eq!(proof.after.to_string(), "1-5");
    assert_eq!(proof.last.cursor.to_string(), "1-8");
    // Once it has begun it begins nowhere else: what is missing then was lost.
    let later = Link {
        cursor: Cursor::parse("1-9").unwrap(),
        hash: [9; 32],
    };
    db.store.begin_after(Log::Changes, later).await.unwrap();
    assert_eq!(db.mark().await, "1-8");
}

#[tokio::test]
async fn a_raised_epoch_is_an_alarm_until_it_is_accepted() {
    let db = Db::new().await;
    let old = stretch(1, 1, 10, [0; 32]);
    db.add(&old).await;
    let new = stretch(1_764_000_000, 8, 9, old[6].link.hash);
    db.sign(new[1].link, 0).await;
    db.add(&new).await;
    let bad = db.bad().await.unwrap();
    assert_eq!(bad.position, 8);
    let said = "epoch 1764000000 follows epoch 1 after position 7 and abandons 3 events";
    assert!(bad.reason.contains(said), "{bad}");
    assert_eq!(db.accept(5).await, Acceptance::Unknown);
    assert_eq!(db.accept(1).await, Acceptance::Unannounced);
    for _ in 0..2 {
        assert_eq!(db.accept(1_764_000_000).await, Acceptance::Accepted);
    }
    assert_eq!(db.bad().await, None);
    // The next one is an alarm of its own.
    let next = stretch(1_764_000_001, 10, 10, new[1].link.hash);
    db.sign(next[0].link, 0).await;
    db.add(&next).await;
    let bad = db.bad().await.unwrap();
    let said = "epoch 1764000001 follows epoch 1764000000 after position 9 and abandons 0 events";
    assert!(bad.reason.contains(said), "{bad}");
}

#[tokio::test]
async fn an_epoch_that_nobody_raised_is_never_accepted() {
    let db = Db::new().await;
    let old = stretch(1, 1, 10, [0; 32]);
    db.add(&old).await;
    let more = json!({"type": "secret.updated"});
    let new = event("changes", 2, 8, old[6].link.hash, &more);
    db.sign(new.link, 0).await;
    db.add(std::slice::from_ref(&new)).await;
    assert_eq!(db.accept(2).await, Acceptance::Unannounced);
    db.execute("INSERT INTO audit_epochs VALUES ('changes', 2, '', 0)")
        .await;
    let bad = db.bad().await.unwrap();
    assert_eq!(bad.position, 8);
    assert!(bad.reason.contains("nobody raised it"), "{bad}");
}

#[tokio::test]
async fn what_runs_ahead_of_the_service_moves_nothing_and_becomes_an_alarm() {
    let db = Db::new().await;
    let events = stretch(1, 1, 3, [0; 32]);
    db.add(&events).await;
    let last = events[2].link;
    let raised = json!({"type": EPOCH_RAISED});
    let forged = [
        event("changes", 1 << 62, 4, last.hash, &raised),
        event("changes", 1, 1 << 62, last.hash, &raised),
    ];
    let stored = db.add(&forged).await;
    assert_eq!((stored.new, stored.waiting), (0, 2));
    let state = db.store.state(Log::Changes).await.unwrap();
    assert_eq!((state.mark, state.highest), (last, last.cursor));
    // A checkpoint that was asked for before they came says nothing of them.
    db.sign(last, 0).await;
    assert_eq!(db.store.alarms(Log::Changes).await.unwrap(), None);
    db.sign(last, 2).await;
    let alarms = db.store.alarms(Log::Changes).await.unwrap();
    assert_eq!(alarms, Some((2, 4)));
    // The log goes on as if nothing had been.
    let next = stretch(1, 4, 5, last.hash);
    db.add(&next).await;
    assert_eq!(db.mark().await, "1-5");
    assert!(db.bad().await.unwrap().reason.contains("2 alarms"));
}

#[tokio::test]
async fn what_waits_is_stored_when_a_checkpoint_reaches_it() {
    let db = Db::new().await;
    let old = stretch(1, 1, 3, [0; 32]);
    db.add(&old).await;
    let new = stretch(7, 4, 5, old[2].link.hash);
    assert_eq!(db.add(&new).await.waiting, 2);
    assert_eq!(db.mark().await, "1-3");
    db.sign(new[1].link, 9).await;
    assert_eq!(db.mark().await, "7-5");
    assert_eq!(db.store.alarms(Log::Changes).await.unwrap(), None);
    // Once more: a repeat of what is stored.
    assert_eq!(db.add(&new).await.repeats, 2);
}

#[tokio::test]
async fn only_so_many_events_may_wait() {
    let db = Db::new().await;
    let forged = stretch(9, 1, 1200, [0; 32]);
    let stored = db.add(&forged).await;
    assert_eq!((stored.waiting, stored.dropped), (1000, 200));
    assert_eq!(db.add(&forged[..5]).await.dropped, 5);
}
