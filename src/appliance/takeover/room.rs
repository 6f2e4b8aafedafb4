//! Whether memory bears two processes at once, before anything is handed over.
//!
//! The ram tier costs memory as it fills, and the one before gives its own back then: what counts
//! is by how much the new one is larger. What the ssd tier knows both have for a while.

use std::fmt;

use super::super::{ApplianceError, ssd};
use crate::config::Config;
use crate::config::units::bytes_about;
use crate::limits::PROCESS_BYTES;

/// Two processes at once need more than there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// What the new one takes beside what the one before has.
    pub needed_bytes: u64,
    /// What there is.
    pub available_bytes: u64,
}

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "two processes at once would need {} of memory more, and {} are available: stop what \
             else takes memory, lower `memory.ram`, or restart the service",
            bytes_about(self.needed_bytes),
            bytes_about(self.available_bytes)
        )
    }
}

/// What a process with this configuration takes beside one whose ram tier holds `held_bytes`.
pub fn beside_bytes(config: &Config, held_bytes: u64) -> u64 {
    let ram_bytes = config.memory.ram_bytes.saturating_sub(held_bytes);
    let known_bytes = config.ssd.index_bytes + ssd::beside_index_bytes(config);
    PROCESS_BYTES + known_bytes + ram_bytes
}

/// Where it is not known what there is, or what is held, nothing is refused for it.
///
/// # Errors
/// There is less than that.
pub(super) fn look(
    config: &Config,
    held_bytes: Option<u64>,
    available_bytes: Option<u64>,
) -> Result<(), ApplianceError> {
    let needed_bytes = beside_bytes(config, held_bytes.unwrap_or(u64::MAX));
    match available_bytes {
        Some(available_bytes) if available_bytes < needed_bytes => {
            Err(ApplianceError::Room(NoRoom { needed_bytes, available_bytes }))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn two_processes_have_room_for_what_both_need_at_once() {
        let of = |more: &str| {
            let text = format!(
                "memory = {{ total = '12 GiB', ram = '8 GiB' }}\nlisteners.http = '127.0.0.1:0'\n\
                 {more}[[sites]]\nname = 'a'\nhosts = 'a'\norigins = 'http://o'\n"
            );
            Config::from_toml(&text, "t.toml").unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        let volume = format!("{{ path = {:?}, size = '256 MiB' }}", folder.path().join("v"));
        let index = format!("ssd = {{ index = '1 GiB', volumes = [{volume}] }}\n");
        let (alone, with_volume) = (of(""), of(&index));
        for (config, held, available, fits) in [
            (&alone, Some(8 * GIB), GIB, true),
            (&alone, Some(6 * GIB), GIB, false),
            (&alone, Some(6 * GIB), 3 * GIB, true),
            // One of before does not say what it holds.
            (&alone, None, GIB, true),
            (&alone, Some(8 * GIB), PROCESS_BYTES - 1, false),
            (&with_volume, Some(8 * GIB), PROCESS_BYTES, false),
            (&with_volume, Some(8 * GIB), 3 * GIB, true),
        ] {
            let found = look(config, held, Some(available));
            assert_eq!(found.is_ok(), fits, "{held:?} of {available}");
        }
        assert!(look(&alone, Some(0), None).is_ok());
    }
}
