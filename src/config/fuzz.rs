//! What the fuzz target `config` runs: any text is a configuration, or has faults with a place.
//!
//! Here so that the seeds can be replayed by an ordinary test too. Not part of the appliance.

use crate::config::{Config, Machine};

/// A text: what is taken is taken again, and what is not is told in lines that begin with the file.
///
/// Settings that name files are left out: what they say depends on the machine.
pub fn config(bytes: &[u8]) {
    const MACHINE: Machine = Machine { cores: 4, memory_bytes: Some(16 << 30) };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let names_files = |table: toml::Table| {
        let ssd = table.get("ssd").and_then(toml::Value::as_table);
        table.contains_key("certificates")
            || ssd.is_some_and(|ssd| ssd.contains_key("volumes") || ssd.contains_key("state"))
    };
    if text.parse().is_ok_and(names_files) {
        return;
    }
    let checked = || Config::on_machine(text, "t.toml", &MACHINE);
    match checked() {
        Ok(config) => {
            assert!(!config.listeners.is_empty());
            assert!(config.threads.workers > 0 && config.threads.fill > 0);
            assert!(config.fill.window_bytes > 0 && config.fill.runs_max > 0);
            let again = checked().expect("it was taken before");
            let numbers = |config: &Config| (config.threads, config.fill, config.block_size);
            assert_eq!(numbers(&again), numbers(&config));
        }
        Err(faults) => {
            let lines = faults.to_string();
            assert!(!lines.is_empty());
            assert!(lines.lines().all(|line| line.starts_with("t.toml:")), "{lines}");
            assert_eq!(checked().map_err(|again| again.to_string()).err(), Some(lines));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::message::fuzz::tests::seeds;

    #[test]
    fn the_seeds_keep_its_promises() {
        seeds("config", 5).iter().for_each(|seed| super::config(seed));
    }

    proptest! {
        #[test]
        fn no_text_breaks_a_promise(
            text in "(listeners\\.http = |\"\\[::1\\]:0\"\n|\\[\\[sites\\]\\]\n|name = |hosts = |\
                origins = |\"[a-z]{0,3}\"\n|\"http://o\"\n|\\[memory\\]\n|\
                total = |\"[0-9]{1,9}[GM]iB\"\n|\
                \\[ssd\\]\n|write_budget = |[-0-9.]{1,20}\n|\\[[a-z.]{1,9}\\]\n|\
                ['\\[\\]{}=#\\\\\u{0}é])*",
        ) {
            super::config(text.as_bytes());
        }
    }
}
