//! How much memory the process may use and how much of it is the ram tier.
//!
//! total >= ram + margin + the ssd index, where margin = max(128 MiB, ram / 4): heads, connections
//! to viewers and origins, and the program itself live there. The ram tier is a whole number of
//! slots.

use crate::limits::{
    MEMORY_MARGIN_BYTES_MIN, MEMORY_RAM_BYTES_MIN, MEMORY_TOTAL_BYTES_MIN, SLOT_SIZE_BYTES,
};

use super::machine::Machine;
use super::raw::Section;
use super::setting::Setting;
use super::ssd::Index;
use super::units::{bytes_about, bytes_alike};

/// The ram tier's share of the machine's memory when nothing is set.
const RAM_PERCENT_DEFAULT: u64 = 60;
/// The most that can be written; keeps the arithmetic far from its borders.
const MEMORY_BYTES_MAX: u64 = 1 << 50;

/// What the process may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Everything together.
    pub total_bytes: u64,
    /// The ram tier; a whole number of slots, and at least the margin less than the total.
    pub ram_bytes: u64,
}

/// What must be left beside a ram tier of `ram_bytes`.
pub fn margin_bytes(ram_bytes: u64) -> u64 {
    MEMORY_MARGIN_BYTES_MIN.max(ram_bytes.div_ceil(4))
}

/// The largest ram tier that leaves its margin of `total_bytes`.
fn ram_in(total_bytes: u64) -> u64 {
    whole_slots((total_bytes / 5 * 4).min(total_bytes.saturating_sub(MEMORY_MARGIN_BYTES_MIN)))
}

fn whole_slots(bytes: u64) -> u64 {
    bytes - bytes % SLOT_SIZE_BYTES
}

/// Reads the section `memory`; the ssd index has its place in it.
pub(super) fn read(section: &Section<'_>, machine: &Machine, index: &Index) -> Memory {
    let total_setting = section.setting("total");
    let ram_setting = section.setting("ram");
    let total = total_setting
        .as_ref()
        .and_then(|setting| setting.bytes(MEMORY_TOTAL_BYTES_MIN..=MEMORY_BYTES_MAX));
    if total.is_none() && total_setting.is_some() {
        // Reported. Whatever is said about ram now would be about a total nobody wrote.
        return Memory { total_bytes: MEMORY_TOTAL_BYTES_MIN, ram_bytes: MEMORY_RAM_BYTES_MIN };
    }
    let without_index = total.map(|total| match total.checked_sub(index.bytes) {
        Some(rest) if rest >= MEMORY_TOTAL_BYTES_MIN && ram_setting.is_none() => rest,
        _ => total,
    });
    let ram = ram(section, ram_setting.as_ref(), without_index, machine);
    let beside = margin_bytes(ram) + index.bytes;
    let memory = Memory { total_bytes: total.unwrap_or(ram + beside), ram_bytes: ram };
    if total.is_some_and(|total| ram + margin_bytes(ram) <= total && ram + beside > total) {
        refuse_index(section, index, memory);
    }
    let machine_bytes = machine.memory_bytes.unwrap_or(u64::MAX);
    if memory.total_bytes > machine_bytes {
        let at = total_setting.or(ram_setting).map_or(section.at, |setting| setting.at);
        let text = format!(
            "`memory` may grow to {}, and this machine has {}",
            bytes_about(memory.total_bytes),
            bytes_about(machine_bytes),
        );
        section.source.warn(section.source.place(at), text);
    }
    memory
}

fn refuse_index(section: &Section<'_>, index: &Index, memory: Memory) {
    let Memory { total_bytes, ram_bytes } = memory;
    let [total, ram, rest] = bytes_alike([total_bytes, ram_bytes, margin_bytes(ram_bytes)]);
    let text = format!(
        "{}, which `memory.total` of {total} has no room for beside ram of {ram} and {rest} for \
         the rest; raise `memory.total`, or write a smaller `memory.ram` or `ssd.index`",
        index.in_words(),
    );
    section.source.fail(index.at, text);
}

/// The ram tier's size: as written, else what `total` leaves, else a share of the machine.
fn ram(
    section: &Section<'_>,
    setting: Option<&Setting<'_>>,
    total: Option<u64>,
    machine: &Machine,
) -> u64 {
    let Some(setting) = setting else {
        return match (total, machine.memory_bytes) {
            (Some(total), _) => ram_in(total),
            (None, Some(memory)) => {
                whole_slots(memory / 100 * RAM_PERCENT_DEFAULT).max(MEMORY_RAM_BYTES_MIN)
            }
            (None, None) => {
                section.fail(
                    "`memory.ram` is missing and this machine's memory is unknown; write \"4 GiB\"",
                );
                MEMORY_RAM_BYTES_MIN
            }
        };
    };
    let Some(bytes) = written_bytes(setting, total, machine) else { return MEMORY_RAM_BYTES_MIN };
    let bytes = whole_slots(bytes);
    let Some(total) = total else { return bytes };
    if bytes > ram_in(total) {
        let [bytes, total, most] = bytes_alike([bytes, total, ram_in(total)]);
        setting.fail(format!(
            "is {bytes} of a total of {total}, which leaves no room beside it; at most {most:?}, \
             or leave `memory.total` out"
        ));
    }
    bytes
}

/// Bytes as they are, a share of the total or else of the machine.
fn written_bytes(setting: &Setting<'_>, total: Option<u64>, machine: &Machine) -> Option<u64> {
    let Some(percent) = setting.percent() else {
        return setting.bytes_or_share(MEMORY_RAM_BYTES_MIN..=MEMORY_BYTES_MAX);
    };
    let Some(whole) = total.or(machine.memory_bytes) else {
        setting.fail("is a share, and this machine's memory is unknown; write \"4 GiB\"");
        return None;
    };
    let bytes = whole / 100 * percent;
    if bytes < MEMORY_RAM_BYTES_MIN {
        let [whole, least] = bytes_alike([whole, MEMORY_RAM_BYTES_MIN]);
        setting.fail(format!("is {percent}% of {whole}; at least {least:?}"));
        return None;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_and_margin_never_exceed_the_total() {
        for mib in (192..1_000).chain([4_096, 5_000, 65_537]) {
            let total = mib << 20;
            let ram = ram_in(total);
            assert!(ram + margin_bytes(ram) <= total, "{mib}");
            assert!(ram >= MEMORY_RAM_BYTES_MIN, "{mib}");
            let more = ram + SLOT_SIZE_BYTES;
            assert!(more + margin_bytes(more) + SLOT_SIZE_BYTES > total, "{mib}: not the largest");
        }
    }
}
