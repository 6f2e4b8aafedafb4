//! The notation of dialogues.

/// What a file says.
pub(crate) struct Table {
    /// Rules: the pattern of a path, and settings for it in TOML.
    pub(crate) rules: Vec<(String, String)>,
    pub(crate) cases: Vec<Case>,
}

/// One dialogue.
pub(crate) struct Case {
    /// Of its title, in the file.
    pub(crate) line: usize,
    pub(crate) weight: Weight,
    /// Which sentence it is about, and what it shows.
    pub(crate) title: String,
    pub(crate) lines: Vec<Line>,
}

/// Whom a case binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    /// Every shared cache: the RFC says must.
    Must,
    /// `may`: what is better, or a freedom that the RFC gives.
    May,
    /// `own`: what Tidegate alone promises, or a setting of it.
    Own,
}

/// One line of a dialogue.
#[derive(Debug)]
pub(crate) struct Line {
    /// In the file.
    pub(crate) number: usize,
    pub(crate) speech: Speech,
}

/// Who says what.
#[derive(Debug)]
pub(crate) enum Speech {
    /// `>`: a viewer asks.
    Asks { method: String, target: String, fields: Vec<(String, String)>, body: Vec<u8> },
    /// `<`: he gets this.
    Gets(Expected),
    /// `>>`: the edge asks the origin.
    Forwarded(Expected),
    /// `<<`: the origin answers.
    Answers(Said),
    /// `<< raw ..`: with these very bytes, and closes.
    Raw(Vec<u8>),
    /// `<<* ..`: the same again as often as it is asked before the viewer has his answer.
    Always(Box<Speech>),
    /// `<< close`.
    Closes,
    /// `-- 2 s`: time passes.
    Passes(std::time::Duration),
}

/// What an origin says.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// `None`, `ranged`: 206 with the range that is asked for, or 200.
    pub(crate) status: Option<u16>,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// `close`: it closes when it has said that.
    pub(crate) closes: bool,
}

/// What a head must be like.
#[derive(Debug)]
pub(crate) struct Expected {
    /// A status (`200,502`: the first, or one of the others), or a method and what follows the
    /// case's own path.
    pub(crate) start: Vec<String>,
    pub(crate) fields: Vec<Field>,
    pub(crate) body: Option<Vec<u8>>,
    /// `cut`: the body ends before its time.
    pub(crate) is_cut: bool,
}

/// What a field must be like.
#[derive(Debug)]
pub(crate) enum Field {
    /// `Name: value`: all its lines together are this.
    Is(String, String),
    /// `Name ~ part`: they contain this.
    Contains(String, String),
    /// `Name !~ part`: they do not.
    Lacks(String, String),
    /// `Name in 1..3`: a number from the first to the last.
    Within(String, u64, u64),
    /// `!Name`: there is none.
    Absent(String),
    /// `parts 0-1,5-9/10`: the body has these parts of the pattern.
    Parts(String),
}

impl Table {
    pub(crate) fn read(name: &str, text: &str) -> Table {
        let mut table = Table { rules: Vec::new(), cases: Vec::new() };
        for Written { each, lines } in written(text) {
            for chosen in combinations(&each) {
                table.add(name, &lines, &chosen);
            }
        }
        table
    }

    /// Adds a case with these names replaced by their values, or a rule.
    fn add(&mut self, name: &str, lines: &[(usize, &str)], chosen: &[(&str, &str)]) {
        for (number, line) in lines {
            let wrong = || -> ! { panic!("tests/it/dialogues/{name}:{number}: {line:?}") };
            let replaced = |line: String, (name, value): &(&str, &str)| {
                line.replace(&format!("{{{name}}}"), value)
            };
            let line = chosen.iter().fold((*line).to_owned(), replaced);
            if let Some(rule) = line.strip_prefix("rule ") {
                self.add_rule(rule);
            } else if let Some(title) = line.strip_prefix("== ") {
                let (weight, title) = match title.split_once(' ') {
                    Some(("may", title)) => (Weight::May, title),
                    Some(("own", title)) => (Weight::Own, title),
                    _ => (Weight::Must, title),
                };
                let (title, lines) = (title.to_owned(), Vec::new());
                self.cases.push(Case { line: *number, weight, title, lines });
            } else {
                let Some(case) = self.cases.last_mut() else { wrong() };
                let Some(speech) = speech(&line) else { wrong() };
                case.lines.push(Line { number: *number, speech });
            }
        }
    }
}

impl Table {
    /// `PATTERN: setting`, or `setting` for every path.
    fn add_rule(&mut self, rule: &str) {
        let (pattern, setting) = match rule.split_once(": ") {
            Some((pattern, setting)) if pattern.starts_with(['*', '/']) => (pattern, setting),
            _ => ("**", rule),
        };
        match self.rules.iter_mut().find(|(of, _)| of == pattern) {
            Some((_, settings)) => *settings = [&*settings, "\n", setting].concat(),
            None => self.rules.push((pattern.to_owned(), setting.to_owned())),
        }
    }
}

/// A case as it is written, and the names in it that stand for several values each.
#[derive(Default)]
struct Written<'a> {
    each: Vec<(&'a str, Vec<&'a str>)>,
    lines: Vec<(usize, &'a str)>,
}

fn written(text: &str) -> Vec<Written<'_>> {
    let mut all = vec![Written::default()];
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let last = all.last_mut().expect("there is always one");
        let each = line.strip_prefix("each ").map(|each| {
            let (name, values) = each.split_once(": ").expect("each NAME: value | value");
            (name, values.split(" | ").map(str::trim).collect())
        });
        let begins = each.is_some() || line.starts_with("== ");
        let is_new = begins && !last.lines.is_empty();
        if is_new {
            all.push(Written::default());
        }
        let last = all.last_mut().expect("there is always one");
        match each {
            Some(each) => last.each.push(each),
            None => last.lines.push((index + 1, line)),
        }
    }
    all
}

/// One value for each name, in every combination.
fn combinations<'a>(each: &[(&'a str, Vec<&'a str>)]) -> Vec<Vec<(&'a str, &'a str)>> {
    let mut all = vec![Vec::new()];
    for (name, values) in each {
        let with = |chosen: &Vec<_>| {
            let with = |value| [&chosen[..], &[(*name, value)]].concat();
            values.iter().copied().map(with).collect::<Vec<_>>()
        };
        all = all.iter().flat_map(with).collect();
    }
    all
}

fn speech(line: &str) -> Option<Speech> {
    if let Some(rest) = line.strip_prefix(">>") {
        return Some(Speech::Forwarded(expected(rest)?));
    }
    if let Some(rest) = line.strip_prefix("<<*") {
        return Some(Speech::Always(Box::new(speech(&format!("<<{rest}"))?)));
    }
    if let Some(rest) = line.strip_prefix("<<") {
        if rest.trim() == "close" {
            return Some(Speech::Closes);
        }
        if let Some(bytes) = rest.trim_start().strip_prefix("raw ") {
            return Some(Speech::Raw(unescaped(bytes)));
        }
        let (status, mut fields, body) = parts(rest)?;
        let closes = taken(&mut fields, "close");
        let fields = fields.into_iter().map(|field| pair(&field)).collect::<Option<_>>()?;
        let status = (status != "ranged").then(|| status.parse()).transpose().ok()?;
        let body = body.unwrap_or_default();
        return Some(Speech::Answers(Said { status, fields, body, closes }));
    }
    if let Some(rest) = line.strip_prefix("--") {
        let seconds = rest.trim().strip_suffix('s')?.trim().parse().ok()?;
        return Some(Speech::Passes(std::time::Duration::from_secs_f64(seconds)));
    }
    if let Some(rest) = line.strip_prefix('<') {
        return Some(Speech::Gets(expected(rest)?));
    }
    let (start, fields, body) = parts(line.strip_prefix('>')?)?;
    let fields = fields.into_iter().map(|field| pair(&field)).collect::<Option<_>>()?;
    let (method, target) = start.split_once(' ').unwrap_or((&start, ""));
    let (method, target) = (method.to_owned(), target.to_owned());
    Some(Speech::Asks { method, target, fields, body: body.unwrap_or_default() })
}

fn expected(text: &str) -> Option<Expected> {
    let (start, mut fields, body) = parts(text)?;
    let is_cut = taken(&mut fields, "cut");
    let start = start.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let fields = fields.iter().map(|field| self::field(field)).collect::<Option<_>>()?;
    Some(Expected { start, fields, body, is_cut })
}

/// Whether the word stands alone between bars; then it is no field.
fn taken(fields: &mut Vec<String>, word: &str) -> bool {
    let before = fields.len();
    fields.retain(|field| field != word);
    fields.len() < before
}

/// With `\r`, `\n`, `\t`, `\0` and `\\` as the bytes they stand for.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next().expect("something is escaped") {
                b'r' => b'\r',
                b'n' => b'\n',
                b't' => b'\t',
                b'0' => 0,
                other => other,
            },
            byte => byte,
        });
    }
    bytes
}

/// What stands before the first bar, the fields between bars, and the body.
fn parts(text: &str) -> Option<(String, Vec<String>, Option<Vec<u8>>)> {
    let mut parts: Vec<String> = text.split(" | ").map(|part| part.trim().to_owned()).collect();
    let start = parts.remove(0);
    let body = parts.iter().find_map(|part| body(part));
    parts.retain(|part| self::body(part).is_none());
    Some((start, parts, body))
}

/// `body hello`, or `body 100000` bytes of a pattern, or `body 5..9` of them.
fn body(part: &str) -> Option<Vec<u8>> {
    let text = part.strip_prefix("body")?;
    let text = text.strip_prefix(' ').or(text.is_empty().then_some(""))?.trim();
    let number = |text: &str| text.parse::<usize>().ok();
    let span = text.split_once("..").and_then(|(from, to)| Some((number(from)?, number(to)?)));
    Some(match span.or(number(text).map(|length| (0, length))) {
        Some((from, to)) => pattern(from, to),
        None => text.replace("\\r", "\r").replace("\\n", "\n").into_bytes(),
    })
}

/// Bytes of the object whose bytes are numbers; no two neighbours of 251 are alike.
pub(crate) fn pattern(from: usize, to: usize) -> Vec<u8> {
    (from..to).map(|at| (at % 251) as u8).collect()
}

fn pair(field: &str) -> Option<(String, String)> {
    let (name, value) = field.split_once(':')?;
    Some((name.trim().to_owned(), dated(value.trim())))
}

fn field(text: &str) -> Option<Field> {
    if let Some(parts) = text.strip_prefix("parts ") {
        return Some(Field::Parts(parts.to_owned()));
    }
    if let Some(name) = text.strip_prefix('!') {
        return Some(Field::Absent(name.to_owned()));
    }
    if let Some((name, range)) = text.split_once(" in ") {
        let (least, most) = range.split_once("..")?;
        return Some(Field::Within(name.to_owned(), least.parse().ok()?, most.parse().ok()?));
    }
    if let Some((name, part)) = text.split_once(" !~ ") {
        return Some(Field::Lacks(name.to_owned(), dated(part)));
    }
    if let Some((name, part)) = text.split_once(" ~ ") {
        return Some(Field::Contains(name.to_owned(), dated(part)));
    }
    pair(text).map(|(name, value)| Field::Is(name, value))
}

/// With `{now-60}` and its like as HTTP dates.
fn dated(text: &str) -> String {
    let Some((before, rest)) = text.split_once("{now") else { return text.to_owned() };
    let (shift, after) = rest.split_once('}').expect("a brace is closed");
    let shift: i64 = if shift.is_empty() { 0 } else { shift.parse().expect("a number of seconds") };
    let now = std::time::SystemTime::now();
    let by = std::time::Duration::from_secs(shift.unsigned_abs());
    let date = httpdate::fmt_http_date(if shift < 0 { now - by } else { now + by });
    format!("{before}{date}{}", dated(after))
}
