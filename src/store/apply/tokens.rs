//! Tokens that the service makes and revokes.

use super::State;
use crate::domain::{
    Event, EventKind, Outcome, Refusal, Refused, TokenAction, TokenChange, TokenEvent,
};

impl<'a> State<'a> {
    /// Adds or revokes a token. Of two revocations of the same token the second finds none.
    pub(super) fn token(&mut self, change: &'a TokenChange) -> Result<Outcome, Refused> {
        let kind = match &change.action {
            TokenAction::Add { .. } => EventKind::TokenCreated,
            TokenAction::Revoke { before, .. } => {
                let stored = self.tokens.remove(&change.token_id);
                if stored.as_ref() != Some(before) {
                    return Err(Refused {
                        index: 0,
                        refusal: Refusal::NotFound,
                    });
                }
                EventKind::TokenRevoked
            }
        };
        let event = Event::Token(TokenEvent {
            actor: change.context.agent.clone(),
            expires_at: change.grant.expires_at,
            grantee: change.grant.grantee.clone(),
            id: change.event_id,
            kind,
            occurred_at: self.now,
            origin: change.context.origin,
            request_id: change.context.request_id.clone(),
            scopes: change.grant.scopes.clone(),
            token_id: change.token_id.clone(),
        });
        self.append_activity(event, change.context.traceparent.clone());
        self.token_changes.push(change);
        Ok(Outcome::Recorded)
    }
}
