//! Reading a filter: words, signs and parentheses, each at its column. Pure.

use std::fmt;
use std::net::IpAddr;

use super::{Field, Filter, Operator, Test, Value};
use crate::access_log::personal::ClientBits;
use crate::limits::{LOG_FILTER_BYTES_MAX, LOG_FILTER_DEPTH_MAX};
use crate::metrics::labels::{Lookup, Tier};

/// What is wrong with a filter, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    /// The first character is 1.
    pub column: usize,
    /// What it is.
    pub fault: Fault,
}

/// What is wrong with a filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Longer than `LOG_FILTER_BYTES_MAX`.
    TooLong,
    /// More than `LOG_FILTER_DEPTH_MAX` parentheses or `not` within each other.
    TooDeep,
    /// A comparison is expected here.
    NoTest,
    /// There is no field of this name.
    NoField(String),
    /// A field is not compared with anything.
    NoOperator(&'static str),
    /// A field is not compared in this way.
    WrongOperator(&'static str, &'static str),
    /// A field is compared with nothing.
    NoValue(&'static str),
    /// A field is compared with what it cannot be: what it can be.
    WrongValue(&'static str, String),
    /// What was opened here is not closed.
    Open(char),
    /// Neither `and` nor `or` joins this to what stands before.
    NotJoined,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "column {}: ", self.column)?;
        match &self.fault {
            Fault::TooLong => write!(f, "a filter has {LOG_FILTER_BYTES_MAX} bytes at most"),
            Fault::TooDeep => {
                write!(f, "no more than {LOG_FILTER_DEPTH_MAX} `(` and `not` within each other")
            }
            Fault::NoTest => write!(f, "a comparison is missing here, such as `status >= 500`"),
            Fault::NoField(name) => {
                let fields: Vec<&str> = Field::ALL.iter().map(|(_, word)| *word).collect();
                write!(f, "there is no field {name:?}; there are {}", fields.join(", "))
            }
            Fault::NoOperator(field) => {
                write!(f, "`{field}` is compared by = != < <= > >= or ~; here is none of these")
            }
            Fault::WrongOperator(field, those) => write!(f, "`{field}` is compared by {those}"),
            Fault::NoValue(field) => write!(f, "what `{field}` is compared with is missing here"),
            Fault::WrongValue(field, wanted) => write!(f, "`{field}` is {wanted}"),
            Fault::Open(sign) => write!(f, "this {sign} is not closed"),
            Fault::NotJoined => write!(f, "`and` or `or` is missing before this"),
        }
    }
}

impl std::error::Error for FilterError {}

/// A word, or a sign.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    Operator(Operator),
    Open,
    Close,
}

impl Filter {
    /// Reads a filter; nothing means every request.
    ///
    /// # Errors
    /// The first fault.
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        if text.len() > LOG_FILTER_BYTES_MAX {
            let column = text[..text.floor_char_boundary(LOG_FILTER_BYTES_MAX)].chars().count();
            return Err(FilterError { column: column + 1, fault: Fault::TooLong });
        }
        Filter::read(text)
    }

    /// The same, whatever its length.
    pub(super) fn read(text: &str) -> Result<Filter, FilterError> {
        let end = text.chars().count() + 1;
        let mut parser = Parser { tokens: tokens(text)?, at: 0, end, depth: 0 };
        if parser.tokens.is_empty() {
            return Ok(Filter::EVERYTHING);
        }
        let filter = parser.any()?;
        match parser.peek() {
            None => Ok(filter),
            Some(_) => Err(parser.fault(Fault::NotJoined)),
        }
    }
}

/// The tokens, each with its column.
fn tokens(text: &str) -> Result<Vec<(usize, Token)>, FilterError> {
    let mut tokens = Vec::new();
    let (mut rest, mut column) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let (bytes, token) = match first {
            _ if first.is_whitespace() => (first.len_utf8(), None),
            '(' => (1, Some(Token::Open)),
            ')' => (1, Some(Token::Close)),
            '"' | '\'' => {
                let open = FilterError { column, fault: Fault::Open(first) };
                let length = rest[1..].find(first).ok_or(open)?;
                (length + 2, Some(Token::Quoted(rest[1..=length].to_owned())))
            }
            _ => operator_or_word(rest),
        };
        tokens.extend(token.map(|token| (column, token)));
        column += rest[..bytes].chars().count();
        rest = &rest[bytes..];
    }
    Ok(tokens)
}

fn operator_or_word(rest: &str) -> (usize, Option<Token>) {
    for (operator, sign) in Operator::ALL {
        if rest.starts_with(sign) {
            return (sign.len(), Some(Token::Operator(operator)));
        }
    }
    let ends = |char: char| char.is_whitespace() || "()\"'=<>~".contains(char);
    // A `!` alone is a word too, and no field.
    let ends_at = |(at, char): (usize, char)| {
        (at > 0 && (ends(char) || rest[at..].starts_with("!="))).then_some(at)
    };
    let length = rest.char_indices().find_map(ends_at).unwrap_or(rest.len());
    (length, Some(Token::Word(rest[..length].to_owned())))
}

struct Parser {
    tokens: Vec<(usize, Token)>,
    at: usize,
    /// The column behind the last.
    end: usize,
    depth: usize,
}

impl Parser {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(_, token)| token)
    }

    fn column(&self) -> usize {
        self.tokens.get(self.at).map_or(self.end, |(column, _)| *column)
    }

    fn fault(&self, fault: Fault) -> FilterError {
        FilterError { column: self.column(), fault }
    }

    /// Takes a word of ours, if it is the next.
    fn takes(&mut self, word: &str) -> bool {
        let is_next = matches!(self.peek(), Some(Token::Word(next)) if next == word);
        self.at += usize::from(is_next);
        is_next
    }

    fn any(&mut self) -> Result<Filter, FilterError> {
        let mut any = vec![self.all()?];
        while self.takes("or") {
            any.push(self.all()?);
        }
        let inner = |one| match one {
            Filter::Any(inner) => inner,
            one => vec![one],
        };
        Ok(only(any.into_iter().flat_map(inner).collect(), Filter::Any))
    }

    fn all(&mut self) -> Result<Filter, FilterError> {
        let mut all = vec![self.one()?];
        while self.takes("and") {
            all.push(self.one()?);
        }
        let inner = |one| match one {
            Filter::All(inner) => inner,
            one => vec![one],
        };
        Ok(only(all.into_iter().flat_map(inner).collect(), Filter::All))
    }

    fn one(&mut self) -> Result<Filter, FilterError> {
        let (column, is_open) = (self.column(), self.peek() == Some(&Token::Open));
        if !is_open && !self.takes("not") {
            return self.test();
        }
        self.depth += 1;
        if self.depth > LOG_FILTER_DEPTH_MAX {
            return Err(FilterError { column, fault: Fault::TooDeep });
        }
        let one = if is_open { self.within(column)? } else { Filter::Not(Box::new(self.one()?)) };
        self.depth -= 1;
        Ok(one)
    }

    /// What stands between parentheses.
    fn within(&mut self, column: usize) -> Result<Filter, FilterError> {
        self.at += 1;
        let within = self.any()?;
        match self.peek() {
            Some(Token::Close) => self.at += 1,
            Some(_) => return Err(self.fault(Fault::NotJoined)),
            None => return Err(FilterError { column, fault: Fault::Open('(') }),
        }
        Ok(within)
    }

    fn test(&mut self) -> Result<Filter, FilterError> {
        let Some(Token::Word(name)) = self.peek().cloned() else {
            return Err(self.fault(Fault::NoTest));
        };
        if name == "and" || name == "or" {
            return Err(self.fault(Fault::NoTest));
        }
        let named = Field::ALL.iter().find(|(_, word)| *word == name);
        let Some((field, word)) = named else { return Err(self.fault(Fault::NoField(name))) };
        self.at += 1;
        let Some(Token::Operator(operator)) = self.peek() else {
            return Err(self.fault(Fault::NoOperator(word)));
        };
        let operator = *operator;
        let (those, allowed) = field.operators();
        if !allowed.contains(&operator) {
            return Err(self.fault(Fault::WrongOperator(word, those)));
        }
        self.at += 1;
        let (Some(Token::Word(value)) | Some(Token::Quoted(value))) = self.peek() else {
            return Err(self.fault(Fault::NoValue(word)));
        };
        let wrong = |wanted| self.fault(Fault::WrongValue(word, wanted));
        let value = field.value(value, operator).map_err(wrong)?;
        self.at += 1;
        Ok(Filter::Is(Test { field: *field, operator, value }))
    }
}

/// One alone needs nothing around it.
fn only(mut parts: Vec<Filter>, joined: fn(Vec<Filter>) -> Filter) -> Filter {
    match parts.len() {
        1 => parts.remove(0),
        _ => joined(parts),
    }
}

impl Field {
    fn operators(self) -> (&'static str, &'static [Operator]) {
        use Operator::{Above, AtLeast, AtMost, Below, Differs, Equals, Holds};
        match self {
            Field::Status | Field::Bytes | Field::Duration | Field::FirstByte => {
                ("= != < <= > >=", &[Equals, Differs, Below, AtMost, Above, AtLeast])
            }
            Field::Client | Field::Tier => ("= !=", &[Equals, Differs]),
            _ => ("= != ~", &[Equals, Differs, Holds]),
        }
    }

    /// What is written as a value of this field.
    ///
    /// # Errors
    /// What it can be.
    fn value(self, written: &str, operator: Operator) -> Result<Value, String> {
        let one_of = |words: &[&str]| match words.contains(&written) || operator == Operator::Holds
        {
            true => Ok(Value::Text(written.to_owned())),
            false => Err(format!("one of {}", words.join(", "))),
        };
        match self {
            Field::Status | Field::Bytes => {
                let number = written.parse().map(Value::Number);
                number.map_err(|_| "a whole number, such as 500".to_owned())
            }
            Field::Duration | Field::FirstByte => micros(written)
                .map(Value::Micros)
                .ok_or("a time, such as 200us, 1.5ms or 2s".into()),
            Field::Client => network(written)
                .ok_or("an address or a network, such as 192.0.2.0/24 or 2001:db8::/48".into()),
            Field::Tier => one_of(&words(Tier::ALL, Tier::label)),
            Field::Cache => one_of(&words(Lookup::ALL, Lookup::label)),
            Field::Protocol => one_of(&["http1", "http2"]),
            Field::Outcome => one_of(&["complete", "client_left", "cut_short"]),
            Field::Method | Field::Host | Field::Path | Field::Site | Field::Session => {
                Ok(Value::Text(written.to_owned()))
            }
        }
    }
}

fn words<L: Copy>(all: &[L], word: fn(L) -> &'static str) -> Vec<&'static str> {
    all.iter().copied().map(word).collect()
}

/// `200us`, `1.5ms`, `2s`.
fn micros(written: &str) -> Option<u64> {
    let units = [("us", 1_u64), ("ms", 1_000), ("s", 1_000_000)];
    let of = |(unit, micros)| Some((written.strip_suffix(unit)?, micros));
    let (number, unit_micros) = units.into_iter().find_map(of)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_number = |digits: &str| {
        (1..=12).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !is_number(whole) || !is_number(fraction) || fraction.len() > 6 {
        return None;
    }
    let parts = 10_u64.pow(fraction.len() as u32);
    let whole = whole.parse::<u64>().ok()?.checked_mul(unit_micros)?;
    whole.checked_add(fraction.parse::<u64>().ok()? * unit_micros / parts)
}

/// `192.0.2.0/24`, or an address alone.
fn network(written: &str) -> Option<Value> {
    let (address, bits) = match written.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (written, None),
    };
    let address = address.parse::<IpAddr>().ok()?.to_canonical();
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(most);
    let address = ClientBits { v4: bits, v6: bits }.of(address);
    (bits <= most).then_some(Value::Network { address, bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_shown_as_it_can_be_read_again() {
        for (written, shown) in [
            ("", ""),
            ("status>=500 or path~seg", "status >= 500 or path ~ \"seg\""),
            (
                "not (status=200 and(tier=ram or tier=ssd))",
                "not (status = 200 and (tier = \"ram\" or tier = \"ssd\"))",
            ),
            ("((ttfb>1.5ms))", "ttfb > 1500us"),
            ("client=2001:db8::7/32", "client = 2001:db8::/32"),
            ("client!=192.0.2.77", "client != 192.0.2.77/32"),
            ("path='a\"b' and sid=\"c'd\"", "path = 'a\"b' and sid = \"c'd\""),
            ("status=1 and status=2 or status=3", "status = 1 and status = 2 or status = 3"),
            ("status=1 or (status=2 or status=3)", "status = 1 or status = 2 or status = 3"),
            ("path~a!b and path!=c", "path ~ \"a!b\" and path != \"c\""),
        ] {
            let filter = Filter::parse(written).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(filter.to_string(), shown);
            assert_eq!(Filter::parse(shown), Ok(filter));
        }
    }

    #[test]
    fn a_fault_has_its_column_and_says_what_would_be_right() {
        let deep = "(".repeat(LOG_FILTER_DEPTH_MAX + 1);
        let long = "é".repeat(LOG_FILTER_BYTES_MAX);
        for (written, expected) in [
            (
                "status",
                "column 7: `status` is compared by = != < <= > >= or ~; here is none of \
                        these",
            ),
            ("status ~ 5", "column 8: `status` is compared by = != < <= > >="),
            ("status = ok", "column 10: `status` is a whole number, such as 500"),
            ("status =", "column 9: what `status` is compared with is missing here"),
            ("ttfb > 5", "column 8: `ttfb` is a time, such as 200us, 1.5ms or 2s"),
            ("tier = disk", "column 8: `tier` is one of ram, ssd, fill, pass"),
            (
                "client = 1.2.3.4/33",
                "column 10: `client` is an address or a network, such as \
                                     192.0.2.0/24 or 2001:db8::/48",
            ),
            (
                "é = 1",
                "column 1: there is no field \"é\"; there are status, method, host, path, \
                       site, tier, cache, bytes, duration, ttfb, client, sid, protocol, outcome",
            ),
            ("path = a b", "column 10: `and` or `or` is missing before this"),
            ("path = a and", "column 13: a comparison is missing here, such as `status >= 500`"),
            ("or path = a", "column 1: a comparison is missing here, such as `status >= 500`"),
            ("()", "column 2: a comparison is missing here, such as `status >= 500`"),
            ("path = a and (path = b", "column 14: this ( is not closed"),
            ("path = a)", "column 9: `and` or `or` is missing before this"),
            ("path = 'a", "column 8: this ' is not closed"),
            (&deep, "column 17: no more than 16 `(` and `not` within each other"),
            (&long, "column 513: a filter has 1024 bytes at most"),
        ] {
            let error = Filter::parse(written).expect_err(written);
            assert_eq!(error.to_string(), expected, "{written}");
        }
    }
}
