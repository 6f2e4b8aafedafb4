//! What is wrong with a configuration: one line each, with file, line and column.
//!
//! The text of a fault is written where the fault is found; this file places it and orders them.
//! It says what is wrong and what would be right, on one line, without a full stop.

use std::fmt;
use std::io;

/// Where something is written: line and column, both counted from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

impl Place {
    /// The place of the byte at `offset` of `text`.
    pub(super) fn of(text: &str, offset: usize) -> Place {
        let before = &text[..text.floor_char_boundary(offset)];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// One fault of a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file's name as it was given.
    pub file: String,
    /// Where in the file; `None` if the file as a whole is meant.
    pub place: Option<Place>,
    /// What is wrong and what would be right.
    pub text: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some(Place { line, column }) => {
                write!(f, "{}:{line}:{column}: {}", self.file, self.text)
            }
            None => write!(f, "{}: {}", self.file, self.text),
        }
    }
}

/// Every fault found, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// The file itself cannot be had.
    pub(super) fn unreadable(file: &str, error: &io::Error) -> ConfigErrors {
        let text = format!("cannot read it: {}", cause(error));
        ConfigErrors(vec![ConfigError { file: file.to_owned(), place: None, text }])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let newline = if index > 0 { "\n" } else { "" };
            write!(f, "{newline}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The system's words for an error, in our manner: lower case, no number.
pub fn cause(error: &io::Error) -> String {
    // Of bytes read as text nothing more is known; what else is invalid says why.
    if error.kind() == io::ErrorKind::InvalidData && error.get_ref().is_none() {
        return "it is not text (UTF-8)".to_owned();
    }
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// The name most like `written`, if one is like it.
pub(super) fn nearest<'a>(
    written: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let far = (written.chars().count() / 3).max(1);
    let near = names.into_iter().map(|name| (edits(written, name), name));
    near.filter(|(edits, _)| *edits <= far).min_by_key(|(edits, _)| *edits).map(|(_, name)| name)
}

/// Levenshtein distance in characters.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for j in 0..b.len() {
            let substituted = diagonal + usize::from(letter != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_lines_and_characters() {
        let text = "a = 1\nb = \"ü\" # x\n";
        let at = |offset| Place::of(text, offset);
        assert_eq!(at(0), Place { line: 1, column: 1 });
        assert_eq!(at(6), Place { line: 2, column: 1 });
        assert_eq!(at(text.find('#').unwrap()), Place { line: 2, column: 9 });
        assert_eq!(at(9_999), Place { line: 3, column: 1 });
    }

    #[test]
    fn a_slip_of_the_finger_finds_its_name_and_a_foreign_word_none() {
        let names = ["memory", "limits", "sites", "ram"];
        let table = [
            ("memroy", Some("memory")),
            ("limit", Some("limits")),
            ("rma", None),
            ("ran", Some("ram")),
            ("colour", None),
            ("", None),
        ];
        for (written, expected) in table {
            assert_eq!(nearest(written, names), expected, "{written}");
        }
    }
}
