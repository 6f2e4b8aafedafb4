//! An explanation in words, aligned, with its pieces drawn. Pure.

use std::time::Duration;

use serde::Deserialize;

use crate::config::units::{bytes_about, counted, duration_about};
use crate::limits::PIECE_SIZE_BYTES;

/// What is shown of an explanation; what an appliance does not say is nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Shown {
    site: String,
    rule: String,
    rule_number: u64,
    key: String,
    answer: Answer,
    variants: Vec<Variant>,
    runs: Vec<Run>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Answer {
    how: String,
    because: String,
    status: Option<u16>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Variant {
    is_selected: bool,
    chosen_by: Vec<String>,
    status: u16,
    fields: Vec<(String, String)>,
    version: String,
    is_joinable: bool,
    length_bytes: Option<u64>,
    freshness: Arithmetic,
    origin_rests: bool,
    block_size_bytes: u64,
    first_block: u64,
    ram: Vec<Block>,
    ssd: Vec<Block>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Arithmetic {
    initial_age_seconds: u64,
    resident_seconds: u64,
    age_seconds: u64,
    lifetime_seconds: u64,
    found_lifetime_seconds: u64,
    lifetime_by: String,
    ttl_seconds: i64,
    stale_while_revalidate_seconds: u64,
    stale_if_error_seconds: u64,
    no_cache: bool,
    must_revalidate: bool,
    immutable: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Block {
    index: u32,
    pieces: u16,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Run {
    first: u64,
    end: Option<u64>,
    written_bytes: u64,
    viewers: u64,
}

/// The width of the names.
const NAME_WIDTH: usize = 14;
/// The most columns a drawing takes.
const DRAWN_COLUMNS_MAX: u64 = 64;

/// All of it.
pub(super) fn of(told: &Shown, url: &str) -> String {
    let mut text = format!("{url}\n");
    let mut line = |name: &str, value: &str| {
        text.push_str(&format!("  {name:<NAME_WIDTH$}{value}\n"));
    };
    line("site", &told.site);
    line("rule", &format!("{} ({})", told.rule, told.rule_number));
    line("key", &told.key);
    line("answer", &answer(&told.answer));
    line("because", &told.answer.because);
    for run in &told.runs {
        line("filling", &filling(run));
    }
    for (number, one) in told.variants.iter().enumerate() {
        text.push_str(&format!(
            "\n  variant {}{}\n",
            number + 1,
            match one.is_selected {
                true => ", the one for this request",
                false => "",
            }
        ));
        for (name, value) in variant(one) {
            text.push_str(&format!("    {name:<width$}{value}\n", width = NAME_WIDTH - 2));
        }
    }
    text
}

fn answer(answer: &Answer) -> String {
    let how = match &*answer.how {
        "stored" => "from what is stored",
        "stored-and-refreshed" => "from what is stored; the origin is asked about it meanwhile",
        "stored-in-part" => "from what is stored; the origin is asked for what is missing",
        "confirm" => "once the origin has confirmed what is stored",
        "fetch" => "from the origin",
        "pass" => "from the origin, for this viewer alone",
        "refuse" => "refused",
        other => other,
    };
    match answer.status {
        Some(status) => format!("{status}, {how}"),
        None => how.to_owned(),
    }
}

fn filling(run: &Run) -> String {
    let end = run.end.map_or_else(|| "its end".to_owned(), |end| end.to_string());
    let written = bytes_about(run.written_bytes);
    let viewers = counted(run.viewers, "viewer");
    format!("from {} to {end}: {written} so far, for {viewers}", run.first)
}

fn variant(one: &Variant) -> Vec<(&str, String)> {
    let field = |name: &str| {
        let found = one.fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| format!("{name}: {value}"))
    };
    let length = one.length_bytes.map_or_else(|| "length not known".to_owned(), bytes_about);
    let joinable = if one.is_joinable { "" } else { "; parts cannot be joined to it" };
    let mut lines = vec![("stored", format!("{}, {length}{joinable}", one.status))];
    lines.extend(one.chosen_by.iter().map(|by| ("chosen by", by.clone())));
    let told = ["cache-control", "cdn-cache-control", "tidegate-cache-control", "expires", "date"];
    let told = told.iter().chain(&["last-modified", "etag", "vary"]);
    lines.extend(told.filter_map(|name| Some(("says", field(name)?))));
    lines.extend(freshness(&one.freshness));
    if one.origin_rests {
        lines.push(("origin", "it failed a moment ago, and is left alone for now".to_owned()));
    }
    lines.push(("version", one.version.clone()));
    lines.push(("ram", pieces(&one.ram, one)));
    lines.push(("ssd", pieces(&one.ssd, one)));
    lines
}

fn freshness(one: &Arithmetic) -> Vec<(&'static str, String)> {
    let time = |seconds| duration_about(Duration::from_secs(seconds));
    let age = time(one.age_seconds);
    let (came, here) = (time(one.initial_age_seconds), time(one.resident_seconds));
    let lifetime = time(one.lifetime_seconds);
    let bounded = match one.lifetime_seconds == one.found_lifetime_seconds {
        true => String::new(),
        false => format!(" says {}, the rule {lifetime}", time(one.found_lifetime_seconds)),
    };
    let left = match one.ttl_seconds {
        left @ 1.. => format!("fresh for {} more", time(left as u64)),
        over => format!("stale for {}", time(over.unsigned_abs())),
    };
    let mut lines = vec![
        ("age", format!("{age}: {came} when it came, {here} here (RFC 9111 section 4.2.3)")),
        ("lifetime", format!("{lifetime}: {}{bounded}", one.lifetime_by)),
        ("so it is", left),
    ];
    let stale = [
        (one.stale_while_revalidate_seconds, "while its origin is asked"),
        (one.stale_if_error_seconds, "where its origin fails"),
    ];
    let stale = stale.iter().filter(|(seconds, _)| *seconds > 0);
    lines.extend(stale.map(|(seconds, when)| ("stale use", format!("{} {when}", time(*seconds)))));
    let words = [
        (one.no_cache, "its origin is asked each time"),
        (one.must_revalidate, "never used stale but as said above"),
        (one.immutable, "does not change while it is fresh"),
    ];
    lines.extend(words.iter().filter(|(is, _)| *is).map(|(_, words)| ("and", (*words).to_owned())));
    lines
}

/// How many pieces are held, and where: `#` all, `+` some, `.` none of what a column stands for.
fn pieces(held: &[Block], one: &Variant) -> String {
    let in_block = one.block_size_bytes / PIECE_SIZE_BYTES;
    let last = held.iter().map(|block| u64::from(block.index) + 1).max().unwrap_or_default();
    let all = one.length_bytes.map_or(last * in_block, |length| length.div_ceil(PIECE_SIZE_BYTES));
    let holds = |piece: u64| {
        let of = |block: &&Block| u64::from(block.index) == piece / in_block;
        held.iter().find(of).is_some_and(|block| block.pieces >> (piece % in_block) & 1 == 1)
    };
    // Of a long object only some blocks are told.
    let first = one.first_block.saturating_mul(in_block).min(all);
    let told = (all - first).min(TOLD_BLOCKS * in_block);
    let count = (first..first + told).filter(|piece| holds(*piece)).count();
    let of = match (told < all, first) {
        (false, _) => format!("{all} pieces"),
        (true, 0) => format!("the first {told} of {all} pieces"),
        (true, _) => format!("{told} from byte {} on, of {all} pieces", first * PIECE_SIZE_BYTES),
    };
    if told == 0 || (held.is_empty() && told == all) {
        return "nothing".to_owned();
    }
    if held.is_empty() {
        return format!("nothing of {of}");
    }
    let each = told.div_ceil(DRAWN_COLUMNS_MAX);
    let column = |column: u64| {
        let pieces = first + column * each..first + ((column + 1) * each).min(told);
        let (held, all) = (pieces.clone().filter(|piece| holds(*piece)).count(), pieces.count());
        match held {
            0 => '.',
            held if held == all => '#',
            _ => '+',
        }
    };
    let drawn: String = (0..told.div_ceil(each)).map(column).collect();
    format!("{drawn} {count} of {of}")
}

const TOLD_BLOCKS: u64 = crate::limits::STATUS_BLOCKS_MAX;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_explanation_is_a_few_aligned_lines() {
        let told = json!({
            "site": "film", "rule": "*.m4s", "rule_number": 2, "key": "/a/1.m4s?t=1",
            "something": "new",
            "answer": { "how": "stored", "because": "it is fresh", "status": 206 },
            "runs": [{ "first": 65_536, "end": null, "written_bytes": 131_072, "viewers": 1 }],
            "variants": [{
                "is_selected": true, "chosen_by": ["accept-encoding:br"], "status": 200,
                "fields": [["etag", "\"a\""], ["x", "y"], ["cache-control", "max-age=60"]],
                "version": "00ff", "is_joinable": true, "length_bytes": 3_000_000,
                "freshness": {
                    "initial_age_seconds": 10, "resident_seconds": 5, "age_seconds": 15,
                    "lifetime_seconds": 30, "found_lifetime_seconds": 60,
                    "lifetime_by": "its max-age", "ttl_seconds": 15,
                    "stale_while_revalidate_seconds": 0, "stale_if_error_seconds": 60,
                    "no_cache": false, "must_revalidate": false, "immutable": true,
                },
                "block_size_bytes": 1 << 20,
                "ram": [{ "index": 0, "pieces": 0b1011 }, { "index": 2, "pieces": 0xffff }],
                "ssd": [],
            }, {
                "length_bytes": null, "version": "01",
                "freshness": { "ttl_seconds": -90, "lifetime_by": "its max-age" },
            }],
        });
        let text = of(&serde_json::from_value(told).unwrap(), "https://a/a/1.m4s?t=1");
        assert_eq!(text, include_str!("expected.txt"), "{text}");
    }

    #[test]
    fn pieces_are_drawn_in_as_many_columns_as_there_is_room_for() {
        let of = |length_bytes: u64, held: &[(u32, u16)]| {
            let held: Vec<_> = held
                .iter()
                .map(|(index, pieces)| Block { index: *index, pieces: *pieces })
                .collect();
            let (length_bytes, block_size_bytes) = (Some(length_bytes), 1 << 20);
            pieces(&held, &Variant { length_bytes, block_size_bytes, ..Variant::default() })
        };
        assert_eq!(of(200_000, &[(0, 0b1001)]), "#..# 2 of 4 pieces");
        assert_eq!(of(200_000, &[]), "nothing");
        let long = of(8 << 20, &[(0, 1), (7, 0xffff)]);
        assert_eq!(long, format!("+{}{} 17 of 128 pieces", ".".repeat(55), "#".repeat(8)));
        let longer = of(1 << 30, &[(0, 1)]);
        assert!(longer.ends_with(" 1 of the first 1024 of 16384 pieces"), "{longer}");
        let (ram, first_block) = (vec![Block { index: 101, pieces: 0xffff }], 100);
        let length_bytes = Some(1 << 30);
        let seek =
            Variant { length_bytes, block_size_bytes: 1 << 20, first_block, ..Variant::default() };
        let sought = pieces(&ram, &seek);
        let expected =
            format!(".#{} 16 of 1024 from byte 104857600 on, of 16384 pieces", ".".repeat(62));
        assert_eq!(sought, expected);
    }
}
