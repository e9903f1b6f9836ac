//! Tokens that are made and revoked beside other work.

use super::*;
use crate::domain::{Grant, Grantee, Networks, TokenAction, TokenChange};

fn token(id: &str, action: TokenAction) -> Work {
    Work::Token(Box::new(TokenChange {
        event_id: EventId::new(Uuid::from_u128(9)),
        context: context(),
        token_id: id.to_owned(),
        grant: Grant {
            grantee: Grantee::Owner(owner("alice")),
            scopes: Vec::new(),
            label: String::new(),
            created_at: NOW,
            expires_at: None,
            networks: Networks::default(),
            secrets: NamedSecrets::ALL,
        },
        action,
    }))
}

fn revoke(id: &str, before: u8) -> Work {
    let action = TokenAction::Revoke {
        at: NOW,
        before: vec![before],
        mac: vec![0],
    };
    token(id, action)
}

fn present(locked_down: bool) -> Present {
    let head = Some(Head {
        locked_down,
        ..HEAD
    });
    Present {
        heads: Heads {
            changes: head,
            activity: head,
        },
        tokens: [("t".to_owned(), vec![1]), ("u".to_owned(), vec![2])].into(),
        ..given(vec![])
    }
}

#[test]
fn a_token_is_revoked_once_and_only_as_it_was_read() {
    let works = [
        revoke("t", 1),
        revoke("t", 1),
        revoke("u", 7),
        revoke("absent", 1),
    ];
    let plan = apply(present(false), &works, LIMITS, NOW);
    let absent = Err(Refused {
        index: 0,
        refusal: Refusal::NotFound,
    });
    let (first, others) = plan.outcomes.split_first().unwrap();
    assert_eq!(*first, Ok(Outcome::Recorded));
    assert!(others.iter().all(|outcome| *outcome == absent));
    assert_eq!((plan.writes.tokens.len(), plan.writes.events.len()), (1, 1));
}

#[test]
fn a_lockdown_makes_no_token_but_revokes_one() {
    let add = TokenAction::Add {
        digest: vec![1],
        mac: vec![2],
    };
    let works = [token("new", add), revoke("t", 1)];
    let plan = apply(present(true), &works, LIMITS, NOW);
    assert!(matches!(plan.outcomes[..], [Err(_), Ok(Outcome::Recorded)]));
    let plan = apply(present(false), &works, LIMITS, NOW);
    assert_eq!((plan.writes.tokens.len(), plan.writes.events.len()), (2, 2));
}
