//! What is told of a volume, in words and as JSON. Pure.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::regions_out_of_use;
use crate::config::units::{bytes_about, bytes_text};
use crate::limits::GRANULE_SIZE_BYTES;
use crate::moment::{http_date, since_1970, unix_seconds};
use crate::store::format::{Access, FormatError, RegionState};
use crate::store::remembered::Illness;
use crate::store::survey::{Contents, Fault, Part, Slot, Survey, SurveyError};

/// Faults that are told one by one; the rest is counted.
const FAULTS_TOLD_MAX: usize = 100;

/// A few words about what would be lost.
pub(super) fn what_is_there(found: &Result<Survey, SurveyError>) -> String {
    match found {
        Ok(survey) => {
            let used = survey.regions.len() - survey.regions_in(RegionState::Free).count();
            let all = survey.regions.len();
            format!("volume {}, {used} of {all} regions used", survey.superblock.id())
        }
        Err(SurveyError::Format(FormatError::NotAVolume)) => {
            "no volume (only zeros where one begins and ends)".to_owned()
        }
        Err(SurveyError::Format(FormatError::Foreign)) => {
            "something that is no volume of Tidegate".to_owned()
        }
        Err(error) => format!("something that is no good volume (it {error})"),
    }
}

/// Regions by state.
pub(super) fn regions(survey: &Survey) -> BTreeMap<&'static str, usize> {
    let states = [
        ("free", RegionState::Free),
        ("open", RegionState::Open),
        ("sealed", RegionState::Sealed),
        ("quarantined", RegionState::Quarantined),
    ];
    states.into_iter().map(|(name, state)| (name, survey.regions_in(state).count())).collect()
}

/// How full it is, 0 to 1: records of what regions can hold.
pub(super) fn full(survey: &Survey, contents: &Contents) -> f64 {
    let geometry = survey.superblock.geometry();
    let room = u64::from(geometry.regions()) * u64::from(geometry.region_granules());
    contents.granules as f64 / room as f64
}

/// What `inspect` found, in words.
pub(super) fn inspected(path: &Path, survey: &Survey, contents: &Contents, health: &str) -> String {
    let (superblock, geometry) = (&survey.superblock, survey.superblock.geometry());
    let by_state: Vec<String> =
        regions(survey).iter().map(|(state, count)| format!("{count} {state}")).collect();
    let mut text = format!("{}: volume {}\n", path.display(), superblock.id());
    let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<13}{value}\n"));
    line("made", http_date(Duration::from_secs(superblock.created_at_seconds())).to_string());
    line(
        "size",
        format!(
            "{} in regions of {}, blocks of {}",
            bytes_text(geometry.volume_bytes()),
            bytes_text(geometry.region_bytes()),
            bytes_text(geometry.block().bytes()),
        ),
    );
    line("index", format!("{} entries at most", geometry.index_entries_max()));
    if let Access::ReadOnly { bits } = superblock.access() {
        line("access", format!("reading only: features {bits:#x} of a later version"));
    }
    line("regions", by_state.join(", "));
    line("full", format!("{:.1}%: {}", full(survey, contents) * 100.0, counts(contents)));
    line("checkpoints", checkpoints(survey));
    line("health", health.to_owned());
    text.push_str(&faults(&survey.faults, &contents.faults));
    if let Some(advice) = advice(&survey.faults, &contents.faults) {
        text.push_str(&format!("  {advice}\n"));
    }
    text
}

/// What `verify` found, in words.
pub(super) fn verified(
    path: &Path,
    survey: &Survey,
    contents: &Contents,
    health: &str,
    took: Duration,
) -> String {
    let faults = faults(&survey.faults, &contents.faults);
    let verdict = if faults.is_empty() { "  all is as it was written\n" } else { &faults };
    let quarantined = survey.regions_in(RegionState::Quarantined).count();
    let out_of_use = regions_out_of_use(quarantined as u64, survey.regions.len() as u64);
    let out_of_use = out_of_use.map_or_else(String::new, |told| format!("  regions      {told}\n"));
    format!(
        "{}: volume {}
  read         {}
  records      {} in {}
  checkpoints  {}
  \
         health       {health}
{out_of_use}{verdict}",
        path.display(),
        survey.superblock.id(),
        rate(contents.read_bytes, took),
        counts(contents),
        granules(contents.granules),
        checkpoints(survey),
    )
}

/// What becomes of what is wrong, and what to do about it; `None` if nothing is.
pub(super) fn advice(survey: &[Fault], contents: &[Fault]) -> Option<String> {
    let (mut healed, mut superblock, mut records) = (false, false, false);
    let mut is_damage = false;
    for fault in survey.iter().chain(contents) {
        is_damage |= !fault.may_be_torn;
        match fault.part {
            Part::TablePage | Part::Checkpoint => healed = true,
            Part::Superblock => superblock = true,
            Part::RegionHeader(_) | Part::Footer(_) | Part::Record(_) => records = true,
        }
    }
    let said = [
        (records, "no viewer gets a byte of a wrong record: it is filled again from the origin"),
        (
            healed,
            "from its next start on the appliance writes the table and the checkpoints anew, by \
             their other copies and what the regions say",
        ),
        (
            superblock,
            "a superblock stays as it is, and the good copies count; `tidegate volume format` \
             makes the volume anew",
        ),
        (is_damage, "if there is more of it the next time, replace the drive"),
        (!is_damage, "a crash leaves that, too"),
    ];
    let said: Vec<_> = said.iter().filter(|(is_so, _)| *is_so).map(|(_, text)| *text).collect();
    (healed || superblock || records).then(|| said.join("; "))
}

/// What records there are.
fn counts(contents: &Contents) -> String {
    let mut told = vec![
        format!("{} block records", contents.blocks),
        format!("{} heads", contents.heads),
        format!("{} notes that a head is no more", contents.tombstones),
    ];
    if contents.unknown > 0 {
        told.push(format!("{} of a later version", contents.unknown));
    }
    if contents.torn > 0 {
        told.push(format!("{} that a crash or a failed write cut short", contents.torn));
    }
    told.join(", ")
}

/// Faults, one a line.
fn faults(survey: &[Fault], contents: &[Fault]) -> String {
    let all = survey.iter().chain(contents);
    let mut text: String =
        all.take(FAULTS_TOLD_MAX).map(|fault| format!("  wrong: {fault}\n")).collect();
    let count = survey.len() + contents.len();
    if count > FAULTS_TOLD_MAX {
        text.push_str(&format!("  and {} more\n", count - FAULTS_TOLD_MAX));
    }
    text
}

/// The same as JSON.
pub(super) fn as_json(path: &Path, survey: &Survey, contents: &Contents) -> Value {
    let (superblock, geometry) = (&survey.superblock, survey.superblock.geometry());
    let all = survey.faults.iter().chain(&contents.faults);
    json!({
        "path": path.display().to_string(),
        "id": superblock.id().to_string(),
        "made_unix_seconds": superblock.created_at_seconds(),
        "size": geometry.volume_bytes(),
        "device_size": survey.device_bytes,
        "region_size": geometry.region_bytes(),
        "block_size": geometry.block().bytes(),
        "index_entries_max": geometry.index_entries_max(),
        "read_only": superblock.access() != Access::Full,
        "regions": regions(survey),
        "full": full(survey, contents),
        "blocks": contents.blocks,
        "heads": contents.heads,
        "tombstones": contents.tombstones,
        "unknown": contents.unknown,
        "torn": contents.torn,
        "checkpoints": survey.checkpoints.each_ref().map(slot_json),
        "faults": all.take(FAULTS_TOLD_MAX).map(|fault| json!({
            "at": fault.at, "part": fault.part.to_string(), "why": fault.why,
        })).collect::<Vec<_>>(),
        "faults_total": survey.faults.len() + contents.faults.len(),
    })
}

/// What stands in both slots.
fn checkpoints(survey: &Survey) -> String {
    let [first, second] = &survey.checkpoints;
    format!("{}, {}", slot(first), slot(second))
}

fn slot(slot: &Slot) -> String {
    match slot {
        Slot::Empty => "none".to_owned(),
        Slot::Holds(header) => {
            let next = header.next_write();
            format!("number {} before write {next}", header.sequence())
        }
        Slot::Overwritten(header) => {
            format!("number {} half overwritten when writing ended", header.sequence())
        }
        Slot::Damaged(why) => format!("damaged ({why})"),
    }
}

fn slot_json(slot: &Slot) -> Value {
    match slot {
        Slot::Empty => Value::Null,
        Slot::Holds(header) => {
            json!({ "number": header.sequence(), "next_write": header.next_write() })
        }
        Slot::Overwritten(header) => {
            json!({ "number": header.sequence(), "overwritten": true })
        }
        Slot::Damaged(why) => json!({ "damaged": why }),
    }
}

/// What is remembered of one that has failed.
pub(super) fn ill(illness: &Illness) -> String {
    let since = http_date(since_1970(illness.since));
    format!("{} since {since}: {}", illness.state.word(), illness.reason)
}

/// The same as JSON.
pub(super) fn ill_json(illness: &Illness) -> Value {
    json!({
        "state": illness.state.word(),
        "reason": illness.reason,
        "since_unix_seconds": unix_seconds(illness.since),
    })
}

/// How fast something was read.
fn rate(bytes: u64, took: Duration) -> String {
    let per_second = bytes as f64 / took.as_secs_f64().max(1e-3);
    format!("{} at {} a second", bytes_about(bytes), bytes_about(per_second as u64))
}

/// Granules in words.
fn granules(granules: u64) -> String {
    bytes_about(granules * GRANULE_SIZE_BYTES)
}
