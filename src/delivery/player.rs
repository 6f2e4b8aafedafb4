//! What a player told of itself, as the access log has it.

use crate::access_log::PlayerTold;
use crate::message::cmcd::{Cmcd, Told};

/// What a player told, as the log has it.
pub(super) fn logged(cmcd: &Cmcd) -> Vec<(&'static str, PlayerTold<'_>)> {
    let mut logged: Vec<_> = cmcd.told().map(|(key, told)| (key, value(told))).collect();
    if let Some(next) = cmcd.next.first() {
        // Its parameters may be secrets.
        let path = next.path.as_deref().and_then(|path| path.split(['?', ';']).next());
        logged.extend(path.map(|path| ("nor", PlayerTold::Text(path))));
        logged.extend(next.range.as_deref().map(|range| ("nrr", PlayerTold::Text(range))));
    }
    logged
}

/// One value of it.
fn value(told: &Told) -> PlayerTold<'_> {
    match told {
        Told::Text(text) => PlayerTold::Text(text),
        Told::Word(word) => PlayerTold::Word(word),
        Told::Number(number) => PlayerTold::Number(*number),
        Told::Thousandths(ratio) => PlayerTold::Ratio(*ratio as f64 / 1000.0),
        Told::Flag(flag) => PlayerTold::Flag(*flag),
    }
}
