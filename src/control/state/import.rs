//! A state as a whole: exported, and taken over by one that has nothing yet.
//!
//! What is too much for one change may be interrupted; then it goes on with the same export, and
//! until it is whole nobody else changes it, publishes by it or exports it.

use super::{AuditRecord, Change, Exported, IMPORTING, Known, NUMBER, State, StateError, json};
use crate::control::issuer::sha256_hex;

impl State {
    /// All that is kept, but who changed it.
    ///
    /// # Errors
    /// It is only a part of one that is being imported.
    pub fn export(&self) -> Result<Exported, StateError> {
        let known = self.known();
        known.is_imported().map(|()| Exported::of(&known))
    }

    /// Takes over what was exported, into a state that has nothing yet, or the rest of it into one
    /// where that was begun and not finished.
    ///
    /// # Errors
    /// There is something else in it, or it cannot be kept.
    pub async fn import(&self, from: &Exported, audit: AuditRecord) -> Result<(), StateError> {
        let digest = sha256_hex(&json(from));
        // First that it is imported: what is too much for one change may be interrupted.
        self.change_a_part(|known| match known.is_empty() {
            true => Ok(known.put(IMPORTING.to_owned(), json(&digest))),
            false if known.importing.as_ref() == Some(&digest) => Ok(Change::default()),
            false => Err(StateError::NotEmpty),
        })
        .await?;
        self.change_a_part(|known| {
            // The number comes last: where it is there, only the mark of an import may be left.
            let is_other = known.has(NUMBER) && known.number != from.number;
            if known.importing.as_ref() != Some(&digest) || is_other {
                return Err(StateError::NotEmpty);
            }
            let mut change = Change { audit: Some(audit.clone()), ..Change::default() };
            change.puts = from.entries().into_iter().filter(|(key, _)| !known.has(key)).collect();
            change.deletes.push(IMPORTING.to_owned());
            let keys = change.deletes.iter().chain(change.puts.iter().map(|(key, _)| key));
            change.expects = keys.map(|key| (key.clone(), known.expect(key))).collect();
            Ok(change)
        })
        .await
    }
}

impl Known {
    /// Refuses what is only a part of a state that is being imported.
    pub(super) fn is_imported(&self) -> Result<(), StateError> {
        match self.importing {
            None => Ok(()),
            Some(_) => Err(StateError::Importing),
        }
    }
}
