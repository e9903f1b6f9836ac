//! Records of who got a value, and of who was refused.

use super::State;
use crate::domain::{Access, AccessEvent, Denial, DeniedEvent, Event};

impl State<'_> {
    pub(super) fn access(&mut self, access: &Access) {
        let event = Event::Access(AccessEvent {
            actor: access.context.agent.clone(),
            id: access.event_id,
            name: access.name.clone(),
            occurred_at: self.now,
            origin: access.context.origin,
            owner: access.owner.clone(),
            provider: access.provider.clone(),
            request_id: access.context.request_id.clone(),
            secret_id: access.secret_id,
            version: access.version,
            version_id: access.version_id,
        });
        self.append_activity(event, access.context.traceparent.clone());
    }

    pub(super) fn deny(&mut self, denial: &Denial) {
        let event = DeniedEvent {
            denial: denial.clone(),
            occurred_at: self.now,
        };
        self.append_activity(Event::Denied(event), None);
    }
}
