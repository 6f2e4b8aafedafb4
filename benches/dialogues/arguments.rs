//! What is asked for on the command line.

use std::fs;
use std::path::Path;

/// How it is called.
pub(crate) const USAGE: &str = "cargo bench --profile dev --bench dialogues -- [--servers NAME,..] \
    [--tables NAME,..] [--failures NAME]";

/// Which servers and tables.
pub(crate) struct Arguments {
    pub(crate) servers: Vec<String>,
    /// The file's name, and its text.
    pub(crate) tables: Vec<(String, String)>,
    /// Whose failures are told.
    pub(crate) failures: Option<String>,
}

impl Arguments {
    /// # Errors
    /// What is not understood.
    pub(crate) fn read(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let listed = |text: String| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        let mut servers = listed("tidegate,nginx,varnish,trafficserver".to_owned());
        let (mut only, mut failures) = (None, None);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} of what?"));
            match &*word {
                // Cargo says it to every bench.
                "--bench" => {}
                "--servers" => servers = listed(value()?),
                "--tables" => only = Some(listed(value()?)),
                "--failures" => failures = Some(value()?),
                _ => return Err(format!("{word} is not understood")),
            }
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/dialogues");
        let mut tables = Vec::new();
        for file in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let name = file.file_name().to_string_lossy().into_owned();
            let Some(table) = name.strip_suffix(".http") else { continue };
            if only.as_ref().is_none_or(|only| only.iter().any(|one| one == table)) {
                tables.push((name.clone(), fs::read_to_string(file.path()).unwrap()));
            }
        }
        tables.sort();
        Ok(Arguments { servers, tables, failures })
    }
}
