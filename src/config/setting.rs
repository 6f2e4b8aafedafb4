//! One value as it was written, read as a text, a size, a duration, a number or a list.
//!
//! Each reading reports a value of the wrong kind or out of its range, and then gives nothing.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::raw::Source;
use super::units;

/// One value, where it is written, and the full name of its setting.
#[derive(Clone)]
pub(super) struct Setting<'a> {
    pub(super) source: &'a Source<'a>,
    pub(super) name: String,
    pub(super) at: usize,
    pub(super) value: &'a DeValue<'a>,
}

impl<'a> Setting<'a> {
    /// Reports what is wrong with the value; `text` goes on after the setting's name.
    pub(super) fn fail(&self, text: impl AsRef<str>) {
        self.source.fail(self.at, format!("`{}` {}", self.name, text.as_ref()));
    }

    /// Whether the file it names is one that a start brings, and not here now: that is told then.
    pub(super) fn is_brought_later(&self, file: &Path) -> bool {
        let is_brought = self.source.is_brought_later(file);
        if is_brought {
            let text = format!(
                "`{}` names {}, which a start brings (LoadCredential) and nobody can look at \
                 before; look at the file that the unit takes it from",
                self.name,
                file.display()
            );
            self.source.warn(self.source.place(self.at), text);
        }
        is_brought
    }

    /// Whether it is a table.
    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    pub(super) fn mismatch(&self, expected: &str) {
        self.fail(format!("is {}; write {expected}", kind(self.value)));
    }

    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&'a str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.mismatch("text in quotes");
        }
        text
    }

    /// Itself and its text, if it is one.
    pub(super) fn with_text(self) -> Option<(Setting<'a>, &'a str)> {
        let text = self.text()?;
        Some((self, text))
    }

    /// The texts of an array, or the one that stands for an array of one.
    pub(super) fn texts(&self) -> Vec<(Setting<'a>, &'a str)> {
        self.items("texts in quotes").into_iter().filter_map(Setting::with_text).collect()
    }

    /// The names and texts of a table.
    pub(super) fn pairs(&self) -> Vec<(Setting<'a>, &'a str, &'a str)> {
        let mut pairs = Vec::new();
        for (key, value) in self.table().into_iter().flatten() {
            let value = Setting {
                source: self.source,
                name: format!("{}.{}", self.name, key.get_ref()),
                at: value.span().start,
                value: value.get_ref(),
            };
            if let Some(text) = value.text() {
                pairs.push((
                    Setting { at: key.span().start, ..value },
                    key.get_ref().as_ref(),
                    text,
                ));
            }
        }
        pairs.sort_by_key(|(setting, ..)| setting.at);
        pairs
    }

    fn table(&self) -> Option<&'a DeTable<'a>> {
        let table = self.value.as_table();
        if table.is_none() {
            self.mismatch("a table");
        }
        table
    }

    /// Whether it is an array.
    pub(super) fn is_array(&self) -> bool {
        self.value.is_array()
    }

    /// The items of an array, or the one text that stands for an array of one.
    pub(super) fn items(&self, of: &str) -> Vec<Setting<'a>> {
        match self.value.is_str() {
            true => vec![self.clone()],
            false => self.array(of),
        }
    }

    /// The items of an array.
    pub(super) fn array(&self, of: &str) -> Vec<Setting<'a>> {
        let Some(items) = self.value.as_array() else {
            self.mismatch(&format!("an array of {of}"));
            return Vec::new();
        };
        let item = |value: &'a toml::Spanned<DeValue<'a>>| Setting {
            at: value.span().start,
            value: value.get_ref(),
            ..self.clone()
        };
        items.iter().map(item).collect()
    }

    /// A size within `range`.
    pub(super) fn bytes(&self, range: RangeInclusive<u64>) -> Option<u64> {
        self.bytes_or(range, "a number of bytes such as \"4 GiB\" or 65536")
    }

    /// A size within `range`, where a share could have been written too.
    pub(super) fn bytes_or_share(&self, range: RangeInclusive<u64>) -> Option<u64> {
        self.bytes_or(range, "a number of bytes such as \"4 GiB\" or a share such as \"60%\"")
    }

    /// A size within `range`, where something else could have been written too.
    pub(super) fn bytes_or(&self, range: RangeInclusive<u64>, expected: &str) -> Option<u64> {
        let bytes = match self.value.as_str() {
            Some(text) => units::parse_bytes(text),
            None => self.number(),
        };
        let Some(bytes) = bytes else {
            self.mismatch(expected);
            return None;
        };
        self.within(bytes, &range, |bytes| format!("{:?}", units::bytes_text(*bytes)))
    }

    /// A rate, in bytes a second: from a megabit to ten terabits.
    pub(super) fn bytes_per_second(&self, expected: &str) -> Option<u64> {
        let Some(bits) = self.value.as_str().and_then(units::parse_bits_per_second) else {
            self.mismatch(expected);
            return None;
        };
        let bits = self
            .within(bits, &BITS_PER_SECOND, |bits| format!("{:?}", units::rate_text(bits / 8)))?;
        Some(bits / 8)
    }

    /// A duration within `range`.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let Some(duration) = self.value.as_str().and_then(units::parse_duration) else {
            self.mismatch("a number with its unit such as \"200ms\", \"5s\", \"1h\" or \"7d\"");
            return None;
        };
        self.within(duration, &range, |duration| format!("{:?}", units::duration_text(*duration)))
    }

    /// A whole number within `range`.
    pub(super) fn count(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let Some(count) = self.number() else {
            self.mismatch("a whole number");
            return None;
        };
        self.within(count, &range, u64::to_string)
    }

    /// A whole percentage; silent when it is something else.
    pub(super) fn percent(&self) -> Option<u64> {
        self.value.as_str().and_then(units::parse_percent)
    }

    fn number(&self) -> Option<u64> {
        let integer = self.value.as_integer()?;
        u64::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    fn within<T: PartialOrd>(
        &self,
        value: T,
        range: &RangeInclusive<T>,
        show: impl Fn(&T) -> String,
    ) -> Option<T> {
        if value < *range.start() {
            self.fail(format!("is {}; at least {}", show(&value), show(range.start())));
            return None;
        }
        if value > *range.end() {
            self.fail(format!("is {}; at most {}", show(&value), show(range.end())));
            return None;
        }
        Some(value)
    }
}

/// A megabit to ten terabits.
const BITS_PER_SECOND: RangeInclusive<u64> = 1_000_000..=10_000_000_000_000;

/// What a value is, in words.
fn kind(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(date) => date.to_string(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
