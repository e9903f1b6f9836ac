//! What the service itself does to the rows of tokens: they are written by the commit, with everything else.

use std::collections::BTreeSet;

use sea_orm::prelude::Uuid;

use super::{
    dialect::{Bulk, Rows},
    tokens::{SEPARATOR, StoredToken, to_row},
};
use crate::{
    crypto::MacKey,
    domain::{ActsFor, EventId, Grant, RequestContext, Timestamp, TokenAction, TokenChange, Work},
};

/// The change that makes a token.
#[must_use]
pub(crate) fn adding(token: StoredToken, key: &MacKey, context: RequestContext) -> TokenChange {
    let row = to_row(token.clone(), key);
    TokenChange {
        event_id: EventId::new(Uuid::now_v7()),
        context,
        token_id: token.id,
        grant: token.grant,
        action: TokenAction::Add {
            digest: token.digest,
            mac: row.mac,
        },
    }
}

/// The change that revokes a token, which is as it was read.
#[must_use]
pub(crate) fn revoking(
    mut token: StoredToken,
    key: &MacKey,
    at: Timestamp,
    context: RequestContext,
) -> TokenChange {
    let before = to_row(token.clone(), key).mac;
    token.revoked_at = Some(at);
    let mac = to_row(token.clone(), key).mac;
    TokenChange {
        event_id: EventId::new(Uuid::now_v7()),
        context,
        token_id: token.id,
        grant: token.grant,
        action: TokenAction::Revoke { at, before, mac },
    }
}

/// The rows of tokens that are made.
pub(super) fn insert_rows<'a>(changes: &[&'a TokenChange]) -> Bulk<'a> {
    let added = || {
        changes.iter().filter_map(|change| match &change.action {
            TokenAction::Add { digest, mac } => Some((*change, digest.as_slice(), mac.as_slice())),
            TokenAction::Revoke { .. } => None,
        })
    };
    let grants = || added().map(|(change, _, _)| &change.grant);
    let acts_for = |grant: &Grant| {
        let list = grant.grantee.acts_for().map(ActsFor::to_list);
        // An owner's token has an empty list.
        list.unwrap_or_default().join(SEPARATOR)
    };
    let scopes = |grant: &Grant| {
        let list: Vec<_> = grant.scopes.iter().map(|scope| scope.as_str()).collect();
        list.join(" ")
    };
    let rows = Rows::default()
        .texts("id", added().map(|(change, _, _)| change.token_id.as_str()))
        .bytes("digest", added().map(|(_, digest, _)| digest))
        .texts("kind", grants().map(|grant| grant.grantee.kind()))
        .texts("name", grants().map(|grant| grant.grantee.name()))
        .texts("acts_for", grants().map(acts_for))
        .texts("scopes", grants().map(scopes))
        .texts("label", grants().map(|grant| grant.label.as_str()))
        .numbers("created_at", grants().map(|g| g.created_at.micros()))
        // No token that is made expires before 1970.
        .numbers(
            "expires_at",
            grants().map(|g| g.expires_at.map_or(0, Timestamp::micros)),
        )
        .bytes("mac", added().map(|(_, _, mac)| mac))
        .texts("networks", grants().map(|g| g.networks.to_list().join(" ")))
        .texts("secrets", grants().map(|g| g.secrets.to_list().join(" ")));
    let sql = "INSERT INTO api_tokens \
               (id, digest, kind, name, acts_for, scopes, label, created_at, expires_at, mac, networks, secrets) \
               SELECT r.id, r.digest, r.kind, r.name, r.acts_for, r.scopes, r.label, r.created_at, \
               NULLIF(r.expires_at, 0), r.mac, r.networks, r.secrets FROM {rows}";
    Bulk::of_all(rows, sql)
}

/// The rows of tokens that are revoked.
pub(super) fn revoke_rows<'a>(changes: &[&'a TokenChange]) -> Bulk<'a> {
    let revoked = || {
        changes.iter().filter_map(|change| match &change.action {
            TokenAction::Revoke { at, before, mac } => Some((*change, *at, before, mac)),
            TokenAction::Add { .. } => None,
        })
    };
    let rows = Rows::default()
        .texts("id", revoked().map(|(change, ..)| change.token_id.as_str()))
        .numbers("revoked_at", revoked().map(|(_, at, ..)| at.micros()))
        .bytes(
            "before",
            revoked().map(|(_, _, before, _)| before.as_slice()),
        )
        .bytes("mac", revoked().map(|(_, _, _, mac)| mac.as_slice()));
    let sql = "UPDATE api_tokens SET revoked_at = r.revoked_at, mac = r.mac FROM {rows} \
               WHERE api_tokens.id = r.id AND api_tokens.mac = r.before";
    Bulk::of_all(rows, sql)
}
/// The look of a commit: which of the tokens that are to be revoked are not revoked yet.
pub(super) fn look(works: &[Work]) -> Bulk<'_> {
    let wanted: BTreeSet<_> = works.iter().filter_map(revoked).collect();
    let rows = Rows::default().texts("id", wanted.into_iter());
    let sql = "SELECT 'token' AS kind, CAST(NULL AS UUID) AS id, CAST(NULL AS UUID) AS version_id, \
         t.id AS text1, CAST(NULL AS TEXT) AS text2, CAST(NULL AS TEXT) AS text3, \
         CAST(NULL AS TEXT) AS text4, CAST(NULL AS BIGINT) AS number1, CAST(NULL AS BIGINT) AS number2, \
         CAST(NULL AS BIGINT) AS number3, CAST(NULL AS BIGINT) AS number4, \
         CAST(NULL AS BIGINT) AS number5, t.mac AS bytes1, CAST(NULL AS BYTEA) AS bytes2 \
         FROM {rows} JOIN api_tokens t ON t.id = r.id WHERE t.revoked_at IS NULL";
    Bulk::of_some(rows, sql)
}

fn revoked(work: &Work) -> Option<&str> {
    match work {
        Work::Token(change) => match change.action {
            TokenAction::Revoke { .. } => Some(change.token_id.as_str()),
            TokenAction::Add { .. } => None,
        },
        Work::Change(_) | Work::Set(_) | Work::Accesses(_) | Work::Denials(_) => None,
    }
}
