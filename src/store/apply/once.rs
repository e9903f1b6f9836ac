//! Requests that are made once: the record comes before all else, and is kept with what it answers.

use super::{NewRecord, State, refused};
use crate::{
    domain::{ANSWER_KEPT, Answer, Once, Outcome, Refused},
    store::idempotency::{Record, StoredRecord, answered},
};

impl<'a> State<'a> {
    /// Does what was not done before under its name, and notes its answer; else answers again.
    pub(super) fn once(
        &mut self,
        once: Option<&'a Once>,
        make: impl FnOnce(&mut Self) -> Result<Outcome, Refused>,
    ) -> Result<Outcome, Refused> {
        let Some(once) = once else {
            return make(self);
        };
        let before = answered(once, self.records.get(&once.name), self.now);
        if let Some(answer) = before.map_err(refused)? {
            return Ok(Outcome::Replayed(answer));
        }
        let outcome = make(self)?;
        let answer = match &outcome {
            Outcome::Changed(applied) => Answer {
                change_set: None,
                applied: vec![applied.clone()],
            },
            Outcome::Set(id, applied) => Answer {
                change_set: Some(*id),
                applied: applied.clone(),
            },
            Outcome::Recorded | Outcome::Replayed(_) => return Ok(outcome),
        };
        let expires_at = self.now.plus(ANSWER_KEPT);
        let record = Record {
            request: once.request,
            answer: answer.clone(),
            expires_at,
        };
        self.records
            .insert(once.name.clone(), StoredRecord::Good(record));
        self.new_records.push(NewRecord {
            once,
            answer,
            created_at: self.now,
            expires_at,
        });
        Ok(outcome)
    }
}
