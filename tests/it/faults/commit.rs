//! The link to the database, or the committer itself, breaks around COMMIT.

use crate::support::fixture::{self, SCOPES};
use crate::support::ledger::{self, Attempt, Told};
use crate::support::postgres::{Postgres, psql};
use crate::support::proxy::{Fault, Moment, Proxy, Reach, Trigger};
use crate::support::service::{Client, Deployment, Replica};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(9);

/// A service whose database is behind a proxy, with one secret.
struct Linked {
    proxy: Proxy,
    direct: String,
    client: Client,
    secret: String,
    _replica: Replica,
    _deployment: Deployment,
}

impl Linked {
    async fn start() -> Self {
        Self::with(&[]).await
    }

    async fn with(variables: &[(&str, &str)]) -> Self {
        let server = Postgres::shared();
        let proxy = Proxy::start(server.address());
        let deployment = fixture::postgres();
        let direct = deployment.database().to_owned();
        let deployment = deployment.set("DATABASE__URL", &proxy.url(&direct));
        let token = deployment.token("alice", SCOPES);
        let replica = deployment.serve_with(variables);
        let client = replica.client(&token);
        let secret = ledger::create(&client, 1).await.remove(0);
        Self {
            proxy,
            direct,
            client,
            secret,
            _replica: replica,
            _deployment: deployment,
        }
    }

    fn stands(&self, attempt: &Attempt) -> bool {
        let id = &attempt.request_id;
        let sql = format!(
            "SELECT count(*) FROM events WHERE position(convert_to('{id}', 'UTF8') IN body) > 0"
        );
        match &*psql(&self.direct, &sql) {
            "0" => false,
            "1" => true,
            other => panic!("{other} events of one attempt"),
        }
    }

    /// Panics unless the log, seen past the proxy, agrees with the answer.
    fn assert_true(&self, attempt: &Attempt, case: &str) {
        let stands = self.stands(attempt);
        match attempt.told {
            Told::Applied(_) => assert!(stands, "{case}: {attempt:?}"),
            Told::NotApplied(_) => assert!(!stands, "{case}: {attempt:?}"),
            Told::Unknown => assert!(attempt.answered, "{case}: {attempt:?}"),
        }
    }

    /// Ends the sessions that hold a transaction open.
    fn terminate_backend(&self) {
        let sql = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE application_name = 'rekey' AND datname = current_database()";
        assert_ne!(psql(&self.direct, sql), "0");
    }

    /// One PUT into a broken link; then the link works again, and so does the next PUT.
    async fn put_into(&self, trigger: Trigger, terminate: bool) -> Attempt {
        let case = format!("{trigger:?}, terminated: {terminate}");
        let mut fired = self.proxy.arm(trigger);
        let began = Instant::now();
        let put = ledger::put(&self.client, &self.secret);
        let ending = async {
            assert!(fired.wait(DEADLINE).await, "{case}: not fired");
            if terminate {
                self.terminate_backend();
                self.proxy.pass();
            }
        };
        let (attempt, ()) = tokio::join!(put, ending);
        let took = began.elapsed();
        assert!(took <= DEADLINE, "{case}: {took:?}");
        self.assert_true(&attempt, &case);
        // What was held back comes too late.
        self.proxy.pass();
        let next = ledger::put(&self.client, &self.secret).await;
        self.assert_true(&attempt, &case);
        assert!(matches!(next.told, Told::Applied(_)), "{case}: {next:?}");
        self.assert_true(&next, &case);
        eprintln!("{case}: {:?} after {took:?}", attempt.told);
        attempt
    }
}

fn trigger(text: &'static str, moment: Moment, fault: Fault, reach: Reach) -> Trigger {
    Trigger {
        text,
        moment,
        fault,
        reach,
    }
}

const BEFORE: (&str, Moment) = ("BEGIN", Moment::Before);
const SWALLOWED: (&str, Moment) = ("COMMIT", Moment::Before);
const FORWARDED: (&str, Moment) = ("COMMIT", Moment::After);
const ANSWER_LOST: (&str, Moment) = ("COMMIT", Moment::Answered);

async fn each_place(fault: Fault, terminate: bool) {
    let linked = Linked::start().await;
    // A connection that breaks at BEGIN is replaced: nothing had been sent on it. One that is silent is waited for.
    let replaced = fault != Fault::Stall || terminate;
    // Each place with what must come out, if only one thing may.
    for ((text, moment), applied) in [
        (BEFORE, Some(replaced)),
        (SWALLOWED, Some(false)),
        (FORWARDED, None),
        (ANSWER_LOST, Some(true)),
    ] {
        let trigger = trigger(text, moment, fault, Reach::Link);
        let attempt = linked.put_into(trigger, terminate).await;
        // One broken link does not keep the service from finding out.
        match (applied, &attempt.told) {
            (Some(true) | None, Told::Applied(_)) | (Some(false) | None, Told::NotApplied(_)) => {}
            other => panic!("{text} {moment:?} {fault:?}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_cut_around_commit_gets_a_true_answer() {
    each_place(Fault::Cut, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_reset_around_commit_gets_a_true_answer() {
    each_place(Fault::Reset, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_is_black_holed_around_commit_gets_a_true_answer_in_time() {
    each_place(Fault::Stall, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_that_is_terminated_around_commit_gets_a_true_answer() {
    each_place(Fault::Stall, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_no_link_works_an_answer_that_nobody_can_know_is_unknown_in_time() {
    let linked = Linked::start().await;
    for (text, moment) in [SWALLOWED, ANSWER_LOST] {
        let trigger = trigger(text, moment, Fault::Stall, Reach::All);
        let attempt = linked.put_into(trigger, false).await;
        assert_eq!(attempt.told, Told::Unknown, "{moment:?}");
    }
    let trigger = trigger("BEGIN", Moment::Before, Fault::Stall, Reach::All);
    let attempt = linked.put_into(trigger, false).await;
    assert!(matches!(attempt.told, Told::NotApplied(_)), "{attempt:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_for_the_queue_is_refused_at_once_and_not_applied() {
    let linked = Linked::with(&[("REKEY__COMMIT__QUEUE", "1")]).await;
    let mut fired = linked
        .proxy
        .arm(trigger("BEGIN", Moment::Before, Fault::Stall, Reach::All));
    let one_too_many = async {
        assert!(fired.wait(DEADLINE).await);
        let began = Instant::now();
        let attempt = ledger::put(&linked.client, &linked.secret).await;
        assert!(began.elapsed() < Duration::from_secs(1));
        linked.proxy.pass();
        attempt
    };
    let (first, refused) = tokio::join!(ledger::put(&linked.client, &linked.secret), one_too_many);
    assert!(matches!(first.told, Told::Applied(2)), "{first:?}");
    assert_eq!(refused.told, Told::NotApplied(429));
    linked.assert_true(&refused, "a full queue");
}

/// The first PUT after a start with that fault, and a second one; both as the log has them.
async fn panicking(deployment: &Deployment, point: &str) -> Attempt {
    let token = deployment.token("alice", SCOPES);
    let mut first = deployment.serve();
    let secrets = ledger::create(&first.client(&token), 1).await;
    assert_eq!(first.terminate(), Some(0));
    let replica = deployment.serve_with(&[("REKEY_FAULT", point)]);
    let client = replica.client(&token);
    let attempts = [
        ledger::put(&client, &secrets[0]).await,
        ledger::put(&client, &secrets[0]).await,
    ];
    assert!(matches!(attempts[1].told, Told::Applied(_)), "{attempts:?}");
    ledger::settle(&client, &secrets, &attempts).await;
    attempts[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_before_commit_is_answered_as_not_applied() {
    for (point, status) in [
        ("before-rows:panic", 500),
        ("after-rows:panic", 500),
        // COMMIT may have been sent: the committer looks it up.
        ("before-commit:panic", 502),
    ] {
        for deployment in fixture::both() {
            let attempt = panicking(&deployment, point).await;
            assert_eq!(attempt.told, Told::NotApplied(status), "{point}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_after_commit_is_answered_as_it_stands() {
    for deployment in fixture::both() {
        let attempt = panicking(&deployment, "after-commit:panic").await;
        assert!(attempt.answered, "{attempt:?}");
        assert!(!matches!(attempt.told, Told::NotApplied(_)), "{attempt:?}");
        eprintln!("after-commit:panic: {:?}", attempt.told);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_while_a_change_that_stands_is_rendered_is_answered_as_unknown() {
    for deployment in fixture::both() {
        let attempt = panicking(&deployment, "render:panic").await;
        assert!(attempt.answered, "{attempt:?}");
        assert_eq!(attempt.told, Told::Unknown, "{attempt:?}");
    }
}
