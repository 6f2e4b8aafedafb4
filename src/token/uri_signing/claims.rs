//! The claims of a token (RFC 9246 section 2.1), as they are written.

use serde_json::{Map, Value};

use super::denied::Denied;

/// All claims of one token.
#[derive(Clone, Debug)]
pub(super) struct Claims(pub(super) Map<String, Value>);

impl Claims {
    /// A claim that is a string.
    ///
    /// # Errors
    /// `wrong`: it is there and is none.
    pub(super) fn text(&self, name: &str, wrong: Denied) -> Result<Option<&str>, Denied> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong),
        }
    }

    /// A claim that is a number of seconds, perhaps with a fraction (RFC 7519 section 2).
    ///
    /// # Errors
    /// Likewise.
    pub(super) fn seconds(&self, name: &str, wrong: Denied) -> Result<Option<f64>, Denied> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => {
                value.as_f64().filter(|seconds| seconds.is_finite()).ok_or(wrong).map(Some)
            }
        }
    }

    /// A claim that is a whole number and not negative.
    ///
    /// # Errors
    /// Likewise.
    pub(super) fn whole(&self, name: &str, wrong: Denied) -> Result<Option<u64>, Denied> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => value.as_u64().ok_or(wrong).map(Some),
        }
    }

    /// Whether `aud` names `us`: a string, or one of several (RFC 7519 section 4.1.3).
    pub(super) fn is_for(&self, us: &str) -> bool {
        match self.0.get("aud") {
            None => true,
            Some(Value::String(audience)) => audience == us,
            Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(us)),
            Some(_) => false,
        }
    }

    /// `cdnicrit`: extensions that are to be understood. None are here; what names a claim of the
    /// RFC itself, or one that is not there, or nothing, is refused as it lets.
    ///
    /// # Errors
    /// [`Denied::Critical`].
    pub(super) fn check_critical(&self) -> Result<(), Denied> {
        match self.0.get("cdnicrit") {
            None => Ok(()),
            Some(_) => Err(Denied::Critical),
        }
    }

    /// What they take in memory, in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| ENTRY_BYTES + name.len() + bytes(value)).sum()
    }
}

fn bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(all) => all.iter().map(|one| ENTRY_BYTES + bytes(one)).sum(),
        Value::Object(all) => {
            all.iter().map(|(name, value)| ENTRY_BYTES + name.len() + bytes(value)).sum()
        }
        _ => 0,
    }
}

/// A value in its map or list.
const ENTRY_BYTES: usize = 96;
