//! What was written: the parsed file with the place of every value, and the faults found in it.
//!
//! A reader asks a [`Section`] for the settings it knows; what is there and was never asked for is
//! unknown. A value that is wrong is reported and replaced by its default, so that one reading
//! finds every fault. Nothing here knows a setting's name.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeTable;

use super::error::{ConfigError, ConfigErrors, Place, nearest};
use super::setting::Setting;

/// The text of a configuration and what is wrong with it.
pub(super) struct Source<'a> {
    pub(super) name: &'a str,
    /// What relative paths are relative to.
    pub(super) folder: PathBuf,
    text: &'a str,
    /// Whether the service manager has brought the credentials that the file names.
    credentials: Credentials,
    faults: RefCell<Vec<ConfigError>>,
    warnings: RefCell<Vec<ConfigError>>,
    /// Full names of all settings asked for: the tests compare them with the reference file.
    asked: RefCell<BTreeSet<String>>,
}

/// Where systemd puts credentials (systemd.exec(5)).
const CREDENTIALS_FOLDER: &str = "/run/credentials";

/// Whether files are there that the service manager brings with a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Credentials {
    /// They are, or should be.
    Here,
    /// They may not be yet.
    WithAStart,
}

impl<'a> Source<'a> {
    pub(super) fn new(name: &'a str, text: &'a str, credentials: Credentials) -> Source<'a> {
        Source {
            name,
            credentials,
            folder: Path::new(name).parent().map(Path::to_owned).unwrap_or_default(),
            text,
            faults: RefCell::default(),
            warnings: RefCell::default(),
            asked: RefCell::default(),
        }
    }

    /// The document; syntax faults are all there is to say about a document that has any.
    pub(super) fn parse(&self) -> Result<DeTable<'a>, ConfigErrors> {
        let (document, errors) = DeTable::parse_recoverable(self.text);
        let (mut lines_told, mut is_list_told) = (BTreeSet::new(), false);
        for error in errors {
            let place = self.place(error.span().map_or(0, |span| span.start));
            let key = self.duplicate_key(error.message(), error.span());
            // What follows on the same line mostly follows from the first; so do settings that are
            // twice in one table where there were to be two.
            let follows = key.is_some() && is_list_told || !lines_told.insert(place.line);
            is_list_told |= key.and_then(list_called).is_some();
            if !follows {
                self.fail_at(place, syntax_text(error.message(), key));
            }
        }
        self.errors()?;
        Ok(document.into_inner())
    }

    /// Of a duplicate the parser does not say of what.
    fn duplicate_key(&self, message: &str, span: Option<Range<usize>>) -> Option<&'a str> {
        span.and_then(|span| self.text.get(span)).filter(|_| message == "duplicate key")
    }

    /// Reports a fault at the byte `at`.
    pub(super) fn fail(&self, at: usize, text: impl Into<String>) {
        self.fail_at(self.place(at), text);
    }

    /// Reports a fault at a place.
    pub(super) fn fail_at(&self, place: Place, text: impl Into<String>) {
        self.faults.borrow_mut().push(self.located(place, text.into()));
    }

    /// Reports what is allowed but hardly meant.
    pub(super) fn warn(&self, place: Place, text: impl Into<String>) {
        self.warnings.borrow_mut().push(self.located(place, text.into()));
    }

    /// Whether a start brings the file, which is not here now.
    pub(super) fn is_brought_later(&self, file: &Path) -> bool {
        let is_credential = file.starts_with(CREDENTIALS_FOLDER);
        is_credential && self.credentials == Credentials::WithAStart && !file.exists()
    }

    pub(super) fn place(&self, at: usize) -> Place {
        Place::of(self.text, at)
    }

    fn located(&self, place: Place, text: String) -> ConfigError {
        ConfigError { file: self.name.to_owned(), place: Some(place), text }
    }

    /// The faults so far, in the order of the file.
    pub(super) fn errors(&self) -> Result<(), ConfigErrors> {
        let mut faults = self.faults.borrow().clone();
        faults.sort_by_key(|fault| fault.place);
        if faults.is_empty() { Ok(()) } else { Err(ConfigErrors(faults)) }
    }

    pub(super) fn warnings(&self) -> Vec<ConfigError> {
        let mut warnings = self.warnings.borrow().clone();
        warnings.sort_by_key(|warning| warning.place);
        warnings
    }

    #[cfg(test)]
    pub(super) fn asked(&self) -> BTreeSet<String> {
        self.asked.borrow().clone()
    }
}

/// One table, which may not have been written at all.
pub(super) struct Section<'a> {
    pub(super) source: &'a Source<'a>,
    /// Its full name with a dot after it; empty for the document.
    prefix: String,
    /// Where it begins.
    pub(super) at: usize,
    table: Option<&'a DeTable<'a>>,
    known: RefCell<Vec<&'static str>>,
    unlisted: RefCell<Vec<&'static str>>,
    /// What other readers know.
    others: RefCell<BTreeSet<String>>,
}

impl<'a> Section<'a> {
    /// Reads the whole document with `read`.
    pub(super) fn document<T>(
        source: &'a Source<'a>,
        table: &'a DeTable<'a>,
        read: impl FnOnce(&Section<'a>) -> T,
    ) -> T {
        Section::read(source, String::new(), 0, Some(table), read)
    }

    /// Reads a value that is a table; of another it says what the table would hold.
    pub(super) fn of<T>(setting: &Setting<'a>, read: impl FnOnce(&Section<'a>) -> T) -> T {
        let prefix = format!("{}.", setting.name);
        let table = setting.value.as_table();
        Section::read(setting.source, prefix, setting.at, table, |section| {
            let value = read(section);
            if table.is_none() {
                setting.mismatch(&format!("a table of {}", section.known.borrow().join(", ")));
            }
            value
        })
    }

    fn read<T>(
        source: &'a Source<'a>,
        prefix: String,
        at: usize,
        table: Option<&'a DeTable<'a>>,
        read: impl FnOnce(&Section<'a>) -> T,
    ) -> T {
        let (known, unlisted, others) = Default::default();
        let section = Section { source, prefix, at, table, known, unlisted, others };
        let value = read(&section);
        section.refuse_unknown();
        value
    }

    fn refuse_unknown(&self) {
        let known = self.known.borrow();
        for (key, _) in self.table.into_iter().flatten() {
            let name = key.get_ref().as_ref();
            let is_of_others = self.others.borrow().contains(name);
            if known.contains(&name) || self.unlisted.borrow().contains(&name) || is_of_others {
                continue;
            }
            let meant = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{}{near}`?", self.prefix),
                None => format!("known here: {}", known.join(", ")),
            };
            let text = format!("unknown setting `{}{name}`; {meant}", self.prefix);
            self.source.fail(key.span().start, text);
        }
    }

    /// Whether a setting was written, asked for elsewhere.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Whether the table was written.
    pub(super) fn is_written(&self) -> bool {
        self.table.is_some()
    }

    /// Reports a fault of the section as a whole.
    pub(super) fn fail(&self, text: impl Into<String>) {
        self.source.fail(self.at, text);
    }

    /// The value of a setting, if it was written.
    pub(super) fn setting(&self, key: &'static str) -> Option<Setting<'a>> {
        let name = format!("{}{key}", self.prefix);
        let mut known = self.known.borrow_mut();
        if !known.contains(&key) {
            known.push(key);
        }
        self.source.asked.borrow_mut().insert(name.clone());
        let value = self.table?.get(key)?;
        Some(Setting { source: self.source, name, at: value.span().start, value: value.get_ref() })
    }

    /// A setting for tests and drills: read like any other, named by no document or message.
    pub(super) fn unlisted(&self, key: &'static str) -> Option<Setting<'a>> {
        self.unlisted.borrow_mut().push(key);
        let (name, value) = (format!("{}{key}", self.prefix), self.table?.get(key)?);
        Some(Setting { source: self.source, name, at: value.span().start, value: value.get_ref() })
    }

    /// A setting that has no default.
    pub(super) fn required(&self, key: &'static str, example: &str) -> Option<Setting<'a>> {
        let setting = self.setting(key);
        if setting.is_none() {
            self.fail(format!("`{}{key}` is missing; write {example}", self.prefix));
        }
        setting
    }

    /// Reads the table `key`, also if it was not written.
    pub(super) fn section<T>(&self, key: &'static str, read: impl FnOnce(&Section<'a>) -> T) -> T {
        match self.setting(key) {
            Some(setting) => Section::of(&setting, read),
            None => {
                let prefix = format!("{}{key}.", self.prefix);
                Section::read(self.source, prefix, self.at, None, read)
            }
        }
    }

    /// Reads of the table `key` what one reader needs; others know the rest of it.
    pub(super) fn section_of_others<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Section<'a>) -> T,
    ) -> T {
        self.section(key, |section| {
            let value = read(section);
            let written = section.table.into_iter().flatten();
            let known = written.map(|(key, _)| key.get_ref().as_ref().to_owned());
            section.others.borrow_mut().extend(known);
            value
        })
    }

    /// Reads each table of the array `key`.
    pub(super) fn each<T>(
        &self,
        key: &'static str,
        mut read: impl FnMut(&Section<'a>) -> T,
    ) -> Vec<T> {
        let Some(setting) = self.setting(key) else { return Vec::new() };
        let items = setting.array(&format!("tables, each under `[[{}]]`", setting.name));
        items.iter().map(|item| Section::of(item, &mut read)).collect()
    }

    /// A size within `range`.
    pub(super) fn bytes(&self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.setting(key).and_then(|setting| setting.bytes(range)).unwrap_or(default)
    }

    /// A duration within `range`.
    pub(super) fn duration(
        &self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        self.setting(key).and_then(|setting| setting.duration(range)).unwrap_or(default)
    }

    /// A whole number within `range`.
    pub(super) fn count(&self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.setting(key).and_then(|setting| setting.count(range)).unwrap_or(default)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &'static str,
        default: T,
        choices: &[(&str, T)],
    ) -> T {
        let Some((setting, text)) = self.setting(key).and_then(Setting::with_text) else {
            return default;
        };
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
            return *choice;
        }
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        setting.fail(format!("is {text:?}; it can be {}", words.join(" or ")));
        default
    }
}

/// The parser's words on one line.
fn syntax_text(message: &str, duplicate_key: Option<&str>) -> String {
    match duplicate_key.map(|key| (key, list_called(key))) {
        Some((key, Some(list))) => {
            format!("duplicate key `{key}`; begin each with `[[{list}]]`")
        }
        Some((key, None)) => format!("duplicate key `{key}`; write it once"),
        None => message.replace('\n', "; "),
    }
}

/// The list of tables that ends with this name.
fn list_called(name: &str) -> Option<&'static str> {
    let lists = [
        "sites",
        "sites.origins",
        "sites.rules",
        "certificates",
        "ssd.volumes",
        "routes.files",
        "routes.clusters",
        "steering.appliances",
    ];
    lists.into_iter().find(|list| list.rsplit('.').next() == Some(name))
}
