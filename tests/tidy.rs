//! Style kept by a test: who may use whom, sizes, banned words, metric names, documents.
//!
//! Reads the tree as text, with the standard library only, and reports every finding as
//! `file:line: message` before it fails. It does not parse Rust: rustfmt's indentation and a pass
//! that blanks comments and strings are enough. The last module shows that each check can fail.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// Nouns and bounds, open to every layer above. Which of them are pure, PURE says.
const BASE: &[&str] =
    &["geo", "limits", "moment", "network", "object", "memory", "overload", "rendezvous", "site"];
/// The data path from the bottom up. Each may use BASE and all that stand before it, except where
/// ALLOWED says less.
const LAYERS: &[&str] = &["message", "purge", "store", "metrics", "cache", "fill", "delivery"];
/// What a module may use where that is not "BASE and the layers below". `"*"`: anything.
const ALLOWED: &[(&str, &[&str])] = &[
    ("geo", &[]),
    ("limits", &[]),
    ("object", &["limits"]),
    ("memory", &["limits", "object", "overload"]),
    ("moment", &[]),
    ("network", &[]),
    ("overload", &["limits", "network", "object"]),
    ("rendezvous", &[]),
    // Who comes in is said by where he is.
    ("site", &["geo", "limits", "network", "object"]),
    ("message", &["limits", "moment", "network", "object", "site"]),
    // A token is for URIs, which have one spelling.
    ("token", &["limits", "message", "network"]),
    // Whom it lets in is said by site, of requests as they are read.
    ("door", &["geo", "limits", "message", "object", "site", "token"]),
    // What is to be purged is named as requests name it.
    ("purge", &["limits", "message", "moment", "object", "site"]),
    ("store", &["limits", "moment", "object"]),
    ("metrics", BASE),
    // How large a volume is, and whether there was one, only the store can tell; how lines can be
    // written, only the log; what a route, an appliance and a place are, only the control plane;
    // what a file of keys is, only who reads tokens.
    (
        "config",
        &[
            "access_log",
            "control",
            "door",
            "geo",
            "limits",
            "network",
            "object",
            "purge",
            "site",
            "store",
            "token",
        ],
    ),
    // Where certificates are from and where they lie is said there; an authority is trusted, and
    // what fails on the way to it told, as with origins.
    ("acme", &["config", "fill", "limits", "moment", "site"]),
    ("access_log", &["limits", "memory", "metrics", "moment", "object"]),
    // Which load balancers are believed is told by their networks.
    ("server", &["limits", "message", "network", "overload"]),
    // Who receives lines is asked as origins are.
    ("shipping", &["access_log", "config", "fill", "limits", "site"]),
    ("usage", &["limits", "moment"]),
    // The status page shows the latest requests and the pieces held; who follows the log pays for
    // it, and writes his filter as targets are written.
    (
        "control",
        &[
            "access_log",
            "geo",
            "limits",
            "memory",
            "message",
            "metrics",
            "moment",
            "object",
            "purge",
            "rendezvous",
            "server",
            "site",
            // Keys are looked at before boxes are told of them.
            "token",
            "usage",
        ],
    ),
    ("page", &[]),
    ("appliance", &["*"]),
    ("cli", &["*"]),
    ("lib", &[]),
    ("main", &["cli"]),
];
/// Beside the layers below it: delivery implements the server's handler, writes the log, answers
/// authorities that ask whether a name is ours, and stands at the door.
const DELIVERY_ALSO: &[&str] = &["server", "access_log", "acme", "door", "token"];
/// Where `unsafe` may stand, each use with its reason.
const UNSAFE_IN: &[&str] = &[
    "src/cache/slots.rs",
    "src/server/transport.rs",
    "src/server/systemd.rs",
    "src/store/device/",
];
/// Modules without I/O and without a clock, and words that would show either.
const PURE: &[&str] =
    &["geo", "limits", "network", "object", "rendezvous", "site", "message", "token"];
const IMPURE_WORDS: &[&str] = &["tokio", "hyper", "TcpStream", "std::fs", "::now()"];

const LINE_COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 400;
const README_LINES_MAX: usize = 200;
const ARCHITECTURE_LINES_MAX: usize = 250;

#[test]
fn the_tree_is_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = rust_files(root);
    let mut findings = Vec::new();
    for source in &sources {
        check_lines(source, &mut findings);
        check_functions(source, &mut findings);
        check_words(source, &mut findings);
        if source.path.starts_with("src/") {
            check_edges(source, &mut findings);
            check_product(source, &mut findings);
        }
    }
    let metrics = check_metric_names(&sources, &mut findings);
    let readme = fs::read_to_string(root.join("README.md")).unwrap_or_default();
    check_metrics_named(&readme, &metrics, &mut findings);
    check_documents(root, &mut findings);
    let architecture = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap_or_default();
    check_promises(&architecture, &sources, &mut findings);
    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// One Rust file: as written, and with comments and the insides of strings blanked.
struct Source {
    path: String,
    text: String,
    code: String,
    /// Lines before the test module at the foot of the file.
    lines_before_tests: usize,
}

/// Whether all of a file is tests: `tests.rs`, and what lies in a folder of that name.
fn is_test(path: &str) -> bool {
    path.starts_with("src/") && (path.ends_with("/tests.rs") || path.contains("/tests/"))
}

impl Source {
    fn new(path: &str, text: &str) -> Source {
        let code = blanked(text);
        let lines: Vec<&str> = code.lines().collect();
        let all = lines.len();
        let foot = (1..all).find(|&n| lines[n - 1] == "#[cfg(test)]" && lines[n].contains("mod "));
        let lines_before_tests = if is_test(path) { 0 } else { foot.map_or(all, |n| n - 1) };
        Source { path: path.to_owned(), text: text.to_owned(), code, lines_before_tests }
    }

    /// The top-level module: `src/cache/ram.rs` is in `cache`.
    fn module(&self) -> &str {
        let inside = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        inside.split('/').next().unwrap_or(inside)
    }

    /// Whether the test `module::name` stands here.
    fn has_test(&self, test: &str) -> bool {
        let (module, name) = test.rsplit_once("::").expect("a test is named with its module");
        let mut places = self.path.trim_end_matches(".rs").split('/');
        let lines: Vec<&str> = self.code.lines().map(str::trim_start).collect();
        let head = format!("fn {name}(");
        places.any(|place| place == module)
            && lines.iter().enumerate().any(|(n, line)| {
                let attributes = lines[..n].iter().rev().take_while(|line| line.starts_with("#["));
                line.contains(&head) && attributes.into_iter().any(|line| line.contains("test"))
            })
    }

    fn product_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().take(self.lines_before_tests).enumerate().map(|(n, line)| (n + 1, line))
    }
}

fn check_edges(source: &Source, findings: &mut Vec<String>) {
    let module = source.module();
    let row = ALLOWED.iter().find(|(name, _)| *name == module).map(|(_, uses)| *uses);
    let layer = LAYERS.iter().position(|name| *name == module);
    if row.is_none() && layer.is_none() {
        findings
            .push(format!("{}:1: `{module}` is not in the table of tests/tidy.rs", source.path));
        return;
    }
    for (line, used) in edges(source) {
        let allowed = match (row, layer) {
            (Some(uses), _) => uses.contains(&used.as_str()) || uses == ["*"],
            (None, at) => {
                BASE.iter().chain(&LAYERS[..at.unwrap_or(0)]).any(|name| *name == used)
                    || module == "delivery" && DELIVERY_ALSO.contains(&used.as_str())
            }
        };
        let nobody_may = used == "main" || used == "cli" && module != "main";
        if used != module && (!allowed || nobody_may) {
            findings.push(format!("{}:{line}: `{module}` may not use `{used}`", source.path));
        }
    }
}

/// The modules named after `crate::`, `tidegate::` or enough `super::`, with their lines.
fn edges(source: &Source) -> Vec<(usize, String)> {
    let depth = source.path.trim_end_matches("/mod.rs").matches('/').count();
    let code: String = source.product_lines().map(|(_, line)| format!("{line}\n")).collect();
    let up = "super::".repeat(depth);
    let mut found = Vec::new();
    for prefix in ["crate::", "tidegate::", up.as_str()] {
        for (at, _) in code.match_indices(prefix) {
            let joined = code[..at].ends_with(|c: char| is_word(c) || c == ':' || c == '$');
            let visibility = code[..at].ends_with("pub(in ");
            if joined || visibility {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            found.extend(first_names(&code[at + prefix.len()..]).map(|name| (line, name)));
        }
    }
    found.retain(|(_, name)| name != "super" && name != "self");
    found
}

/// `a::b` names `a`; `{a::{b, c}, d}` names `a` and `d`. Items of the crate's root are skipped.
fn first_names(path: &str) -> impl Iterator<Item = String> {
    let mut depth = 0;
    let mut starts = vec![0];
    for (at, c) in path.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        if depth == 1 && (c == '{' || c == ',') {
            starts.push(at + 1);
        }
    }
    starts.into_iter().filter_map(|start| {
        let name = words(path[start..].trim_start()).next().unwrap_or_default();
        name.starts_with(|c: char| c.is_ascii_lowercase()).then(|| name.to_owned())
    })
}

fn check_lines(source: &Source, findings: &mut Vec<String>) {
    if !source.text.starts_with("//!") {
        findings.push(format!("{}:1: the first line says what the file is (`//!`)", source.path));
    }
    for (n, line) in source.text.lines().enumerate() {
        let columns = line.chars().count();
        let link = line.contains("http://") || line.contains("https://");
        if columns > LINE_COLUMNS_MAX && !link {
            findings.push(format!("{}:{}: {columns} columns", source.path, n + 1));
        }
    }
}

/// A function ends at the first `}` that is indented as its `fn` is: rustfmt makes this exact.
fn check_functions(source: &Source, findings: &mut Vec<String>) {
    let lines: Vec<&str> = source.code.lines().collect();
    for (start, line) in lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let before = line.trim_start().split("fn ").next().unwrap_or_default();
        let is_item =
            line.contains("fn ") && before.chars().all(|c| is_word(c) || " ():".contains(c));
        if !is_item || line.ends_with(['}', ';']) {
            continue;
        }
        let end = lines[start + 1..].iter().position(|next| {
            let same = next.len() - next.trim_start().len() == indent;
            same && next.trim_start().starts_with(['}', ')']) && next.ends_with(['}', ';'])
        });
        let length = end.map_or(lines.len() - start, |n| n + 2);
        if length > FUNCTION_LINES_MAX {
            findings.push(format!("{}:{}: function of {length} lines", source.path, start + 1));
        }
    }
}

/// Words that no file may hold, its tests included.
fn check_words(source: &Source, findings: &mut Vec<String>) {
    for (n, line) in source.code.lines().enumerate() {
        for word in ["todo!", "unimplemented!", "dbg!", "#[ignore"] {
            if line.contains(word) {
                findings.push(format!("{}:{}: `{word}`", source.path, n + 1));
            }
        }
        if line.contains("unbounded") {
            findings.push(format!("{}:{}: every queue has a named bound", source.path, n + 1));
        }
        let may = UNSAFE_IN.iter().any(|place| source.path.starts_with(place));
        if !may && words(line).any(|word| word == "unsafe") {
            findings.push(format!("{}:{}: no `unsafe` here", source.path, n + 1));
        }
    }
    for line in queues_without_bound(&source.code) {
        findings.push(format!("{}:{line}: every queue has a named bound", source.path));
    }
}

/// The lines where std's `channel` is called, or taken out of its module: there what is called by
/// its name alone, or by another one, could not be told from others. That of `oneshot` holds one.
fn queues_without_bound(code: &str) -> Vec<usize> {
    let is_found = |(at, name): &(usize, &str)| {
        let (before, after) = (&code[..*at], &code[at + name.len()..]);
        if before.ends_with(|c| is_word(c) || c == '.') || after.starts_with(is_word) {
            return false;
        }
        let called = after.strip_prefix("::<").map_or(after, behind_types).trim_start();
        let listed = before.rsplit_once("mpsc::{").map(|(_, names)| names);
        let is_listed = listed.is_some_and(|names| !names.contains(['}', ';', '(']));
        let is_taken = is_listed || before.ends_with("mpsc::") && !called.starts_with('(');
        let is_declared = before.trim_end().ends_with("fn");
        let has_no_bound =
            called.strip_prefix('(').is_some_and(|a| a.trim_start().starts_with(')'));
        is_taken || has_no_bound && !is_declared && !before.ends_with("oneshot::")
    };
    let found = code.match_indices("channel").filter(is_found);
    found.map(|(at, _)| code[..at].matches('\n').count() + 1).collect()
}

/// What follows the types that `text` begins with, behind their `<`.
fn behind_types(text: &str) -> &str {
    let mut depth = 1;
    let end = text.find(|c| {
        depth += i32::from(c == '<') - i32::from(c == '>');
        depth == 0
    });
    end.map_or("", |end| &text[end + 1..])
}

/// What holds for the product and not for its tests.
fn check_product(source: &Source, findings: &mut Vec<String>) {
    let path = &source.path;
    if source.lines_before_tests > FILE_LINES_MAX {
        findings.push(format!("{path}:1: {} lines before tests", source.lines_before_tests));
    }
    for (n, line) in source.text.lines().enumerate() {
        if line.split_once("TODO").is_some_and(|(_, tail)| !tail.starts_with("(#")) {
            findings.push(format!("{path}:{}: a TODO names its issue: TODO(#n)", n + 1));
        }
    }
    for (line, code) in source.product_lines() {
        if code.contains(".unwrap()") {
            findings
                .push(format!("{path}:{line}: `expect` names the invariant, `unwrap` does not"));
        }
        let word = IMPURE_WORDS.iter().find(|word| code.contains(**word));
        if let Some(word) = word.filter(|_| PURE.contains(&source.module())) {
            findings.push(format!("{path}:{line}: `{}` is pure: no `{word}`", source.module()));
        }
    }
}

/// Names in `metrics` are `tidegate_...`, in lower case, and each is declared once.
fn check_metric_names(sources: &[Source], findings: &mut Vec<String>) -> HashMap<String, String> {
    let mut seen: HashMap<String, String> = HashMap::new();
    for source in sources.iter().filter(|s| s.path.starts_with("src/") && s.module() == "metrics") {
        for (n, line) in source.text.lines().take(source.lines_before_tests).enumerate() {
            let here = format!("{}:{}", source.path, n + 1);
            for name in line.split('"').skip(1).step_by(2).filter(|s| s.starts_with("tidegate")) {
                let tail = name.strip_prefix("tidegate_").unwrap_or_default();
                let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                if tail.is_empty() || !tail.chars().all(plain) {
                    findings.push(format!("{here}: metric name `{name}`"));
                }
                if let Some(first) = seen.insert(name.to_owned(), here.clone()) {
                    findings.push(format!("{here}: metric `{name}` stands at {first} already"));
                }
            }
        }
    }
    seen
}

/// The README names only metrics that there are.
fn check_metrics_named(
    readme: &str,
    metrics: &HashMap<String, String>,
    findings: &mut Vec<String>,
) {
    for (n, line) in readme.lines().enumerate().filter(|_| !metrics.is_empty()) {
        let named = words(line).filter(|word| word.starts_with("tidegate_"));
        for name in named.filter(|name| !metrics.contains_key(*name)) {
            findings.push(format!("README.md:{}: there is no metric `{name}`", n + 1));
        }
    }
}

/// The documents are short, name only files that exist, and leave no part of `src/` out.
fn check_documents(root: &Path, findings: &mut Vec<String>) {
    for (name, lines_max) in
        [("README.md", README_LINES_MAX), ("ARCHITECTURE.md", ARCHITECTURE_LINES_MAX)]
    {
        let Ok(text) = fs::read_to_string(root.join(name)) else {
            findings.push(format!("{name}:1: missing"));
            continue;
        };
        let exists = |path: &str| root.join(path).exists();
        check_document(name, &text, lines_max, &exists, findings);
        if name == "ARCHITECTURE.md" {
            let parts = fs::read_dir(root.join("src")).expect("src/ is a folder");
            let parts = parts.map(|entry| entry.expect("src/ can be listed").path());
            check_map(&text, parts.collect(), findings);
        }
    }
}

fn check_document(
    name: &str,
    text: &str,
    lines_max: usize,
    exists: &dyn Fn(&str) -> bool,
    findings: &mut Vec<String>,
) {
    let lines = text.lines().count();
    if lines > lines_max {
        findings.push(format!("{name}:1: {lines} lines, at most {lines_max}"));
    }
    for (n, line) in text.lines().enumerate() {
        for path in paths_named(line).into_iter().filter(|path| !exists(path)) {
            findings.push(format!("{name}:{}: `{path}` does not exist", n + 1));
        }
    }
}

/// Words of the document that are paths of the tree, `{a,b}` written out.
fn paths_named(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let inside = |c: char| is_word(c) || "/.{,}-".contains(c);
    for word in line.split(|c: char| !inside(c)) {
        let word = word.trim_end_matches(['.', ',']);
        let places = ["src/", "tests/", "systemd/", "benches/", "config/", "fuzz/", ".ci/"];
        if !places.iter().any(|place| word.starts_with(place)) {
            continue;
        }
        match word.split_once('{').zip(word.split_once('}')) {
            Some(((head, rest), (_, tail))) => {
                let names = rest.split('}').next().unwrap_or_default().split(',');
                found.extend(names.map(|name| format!("{head}{name}{tail}")));
            }
            None => found.push(word.to_owned()),
        }
    }
    found
}

fn check_map(text: &str, parts: Vec<PathBuf>, findings: &mut Vec<String>) {
    let named: BTreeSet<String> = text.lines().flat_map(paths_named).collect();
    for part in parts {
        let name = part.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = if part.is_dir() { format!("src/{name}/") } else { format!("src/{name}") };
        if !named.iter().any(|known| known.starts_with(&path)) {
            findings.push(format!("ARCHITECTURE.md:1: `{path}` is not in the code map"));
        }
    }
}

/// Each row of the invariants names what shows it, and a test that is named `module::test` exists:
/// in a file of that name, or anywhere in the folder of that name.
fn check_promises(text: &str, sources: &[Source], findings: &mut Vec<String>) {
    let rows = text.lines().enumerate().skip_while(|(_, line)| !line.ends_with("| shown by |"));
    let rows: Vec<_> = rows.skip(2).take_while(|(_, line)| line.starts_with('|')).collect();
    if rows.is_empty() {
        findings.push("ARCHITECTURE.md:1: no table says what shows the invariants".to_owned());
    }
    for (n, row) in rows {
        let shown_by = row.rsplit('|').nth(1).unwrap_or_default();
        if !shown_by.contains('`') && !shown_by.contains("review") {
            findings.push(format!("ARCHITECTURE.md:{}: nothing shows this", n + 1));
        }
    }
    for (n, line) in text.lines().enumerate() {
        for name in line.split('`').skip(1).step_by(2).filter(|name| is_test_name(name)) {
            if !sources.iter().any(|source| source.has_test(name)) {
                findings.push(format!("ARCHITECTURE.md:{}: there is no test `{name}`", n + 1));
            }
        }
    }
}

fn is_test_name(name: &str) -> bool {
    name.contains("::")
        && name.chars().all(|c| c.is_ascii_lowercase() || "0123456789_:".contains(c))
}

fn rust_files(root: &Path) -> Vec<Source> {
    let mut folders: Vec<PathBuf> =
        ["src", "tests", "benches", "fuzz"].iter().map(|name| root.join(name)).collect();
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.expect("a folder of the tree can be listed").path();
            if path.is_dir() && !path.ends_with("node_modules") && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).expect("a source file is readable text");
                let inside = path.strip_prefix(root).expect("it was found under the root");
                found.push(Source::new(&inside.to_string_lossy(), &text));
            }
        }
    }
    assert!(!found.is_empty(), "there is something to check");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !is_word(c))
}

/// `text` with comments and the insides of strings replaced by blanks, line by line the same.
fn blanked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let joined = out.ends_with(is_word);
        let (length, blank) = token(rest, joined);
        let (head, tail) = rest.split_at(length);
        match blank {
            true => out.extend(head.chars().map(|c| if c == '\n' { c } else { ' ' })),
            false => out.push_str(head),
        }
        rest = tail;
    }
    out
}

/// The length of what `rest` starts with, and whether it is a comment or a literal.
fn token(rest: &str, joined: bool) -> (usize, bool) {
    let hashes = rest.strip_prefix('r').map(|r| r.len() - r.trim_start_matches('#').len());
    let raw = hashes.filter(|n| !joined && rest[1 + n..].starts_with('"'));
    if rest.starts_with("//") {
        (rest.find('\n').unwrap_or(rest.len()), true)
    } else if rest.starts_with("/*") {
        (rest.find("*/").map_or(rest.len(), |at| at + 2), true)
    } else if let Some(hashes) = raw {
        let end = format!("\"{}", "#".repeat(hashes));
        let body = hashes + 2;
        (rest[body..].find(&end).map_or(rest.len(), |at| body + at + end.len()), true)
    } else if rest.starts_with('"') {
        (closing(rest, '"'), true)
    } else if rest.starts_with("'\\") || rest.chars().nth(2) == Some('\'') && rest.starts_with('\'')
    {
        (closing(rest, '\''), true)
    } else {
        (rest.chars().next().map_or(0, char::len_utf8), false)
    }
}

/// Where the literal that `rest` starts with ends, escapes skipped.
fn closing(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

mod each_check_can_fail {
    use super::*;

    type Check = fn(&Source, &mut Vec<String>);

    fn found(check: Check, path: &str, text: &str) -> Vec<String> {
        let mut findings = Vec::new();
        check(&Source::new(path, text), &mut findings);
        findings
    }

    #[test]
    fn an_edge_against_the_table_is_found_however_it_is_written() {
        for (path, text) in [
            ("src/message/range.rs", "use crate::cache::Ram;"),
            ("src/message/range.rs", "use crate::{\n    limits::A,\n    fill::B,\n};"),
            ("src/message/range.rs", "fn f() { crate::server::serve() }"),
            ("src/message/range.rs", "use super::super::fill::Run;"),
            ("src/object.rs", "use super::site::Site;"),
            ("src/cache/mod.rs", "use crate::fill::Run;"),
            ("src/cache/mod.rs", "use crate::control;"),
            ("src/fill/client.rs", "use crate::cli::demo;"),
            ("src/appliance.rs", "use crate::cli::demo;"),
            ("src/main.rs", "use tidegate::cache;"),
            ("src/newcomer.rs", "fn f() {}"),
        ] {
            assert_eq!(found(check_edges, path, text).len(), 1, "{path}: {text}");
        }
        for (path, text) in [
            ("src/delivery/mod.rs", "use crate::server::Handler;\nuse crate::{fill, cache::ram};"),
            (
                "src/cache/ram.rs",
                "use super::slots::Slots;\nuse crate::cache::heads::{A, rounded};",
            ),
            ("src/cache/ram.rs", "pub(crate) fn f() {}\n// crate::cli\nlet s = \"crate::cli\";"),
            ("src/cache/ram.rs", "#[cfg(test)]\nmod tests {\n    use crate::fill::Run;\n}"),
            ("src/main.rs", "tidegate::cli::run();"),
        ] {
            assert_eq!(found(check_edges, path, text), [""; 0], "{path}: {text}");
        }
    }

    #[test]
    fn sizes_have_bounds() {
        let long = format!("//! x\n{}", "x".repeat(101));
        assert_eq!(found(check_lines, "src/a.rs", &long), ["src/a.rs:2: 101 columns"]);
        assert_eq!(found(check_lines, "src/a.rs", "fn f() {}").len(), 1, "no header");
        let link = format!("//! https://{}", "x".repeat(101));
        assert!(found(check_lines, "src/a.rs", &link).is_empty());

        let function =
            |lines: usize| format!("    pub async fn f(\n{}    }}\n", "\n".repeat(lines - 2));
        assert!(found(check_functions, "src/a.rs", &function(70)).is_empty());
        assert_eq!(found(check_functions, "src/a.rs", &function(71)).len(), 1);
        let declared = format!("fn f(\n);\n{}", function(70));
        assert!(found(check_functions, "src/a.rs", &declared).is_empty());

        let file = |lines: usize| format!("{}#[cfg(test)]\nmod tests {{}}\n", "\n".repeat(lines));
        assert!(found(check_product, "src/a.rs", &file(400)).is_empty());
        assert_eq!(found(check_product, "src/a.rs", &file(401)).len(), 1);
    }

    #[test]
    fn banned_words_are_found_in_code_and_only_there() {
        for text in [
            "todo!()",
            "dbg!(x)",
            "#[ignore]\nfn f() {}",
            "let (a, b) = unbounded_channel();",
            "let (a, b) = std::sync::mpsc::channel();",
            "let (a, b) = mpsc::channel::<Vec<u8>>();",
            "let (a, b) = channel();",
            "let (a, b) = channel::<(u8, Option<()>)>(\n);",
            "use std::sync::mpsc::channel;",
            "use std::sync::mpsc::channel as queue;",
            "use tokio::sync::mpsc::channel;",
            "use std::sync::mpsc::{\n    Receiver,\n    channel,\n};",
            "unsafe { x() }",
        ] {
            assert_eq!(found(check_words, "src/a.rs", text).len(), 1, "{text}");
        }
        for text in [
            "// unsafe, unbounded, todo!",
            "let a = \"unsafe \\\" todo!\"; let b = r#\"dbg!( \"#; let c = b'\"'; let d = '\\'';",
            "let (a, b) = mpsc::channel(LINES_MAX); let (c, d) = oneshot::channel::<()>();",
            "use std::sync::mpsc::{SyncSender, sync_channel}; let (a, b) = sync_channel::<()>(0);",
            "use tokio::sync::{mpsc, oneshot}; fn channel() {} use a::channel::A; a.channel();",
            "use std::sync::mpsc::{self, Receiver}; let a = mpsc::channel::<u8>(1);",
            "#![deny(unsafe_code)]",
            "/* unbounded\nunsafe */",
        ] {
            assert_eq!(found(check_words, "src/a.rs", text), [""; 0], "{text}");
        }
        assert!(found(check_words, "src/server/transport.rs", "unsafe { x() }").is_empty());
        assert_eq!(found(check_product, "src/a.rs", "x.unwrap()").len(), 1);
        for tests in ["src/a/tests.rs", "src/a/tests/b.rs"] {
            assert!(found(check_product, tests, "x.unwrap()").is_empty());
        }
        assert_eq!(found(check_product, "src/a.rs", "// TODO later").len(), 1);
        assert!(found(check_product, "src/a.rs", "// TODO(#7): later").is_empty());
        assert_eq!(found(check_product, "src/site.rs", "let t = Instant::now();").len(), 1);
    }

    #[test]
    fn a_metric_is_named_once_and_in_one_form() {
        let twice =
            "a(\"tidegate_hits_total\");\nb(\"tidegate_hits_total\");\nc(\"tidegate_Hits\")";
        let mut findings = Vec::new();
        let names = check_metric_names(&[Source::new("src/metrics.rs", twice)], &mut findings);
        assert_eq!(findings.len(), 2, "{findings:?}");
        check_metrics_named("`tidegate_hits_total`, tidegate_gone", &names, &mut findings);
        assert_eq!(findings[2..], ["README.md:1: there is no metric `tidegate_gone`"]);
    }

    #[test]
    fn documents_are_short_and_name_what_exists() {
        let mut findings = Vec::new();
        let text = "see `src/cache/{ram,gone}.rs`, and\nsrc/cache/.\n";
        let exists = |path: &str| path != "src/cache/gone.rs";
        check_document("A.md", text, 1, &exists, &mut findings);
        assert_eq!(
            findings,
            ["A.md:1: 2 lines, at most 1", "A.md:1: `src/cache/gone.rs` does not exist"]
        );

        let mut findings = Vec::new();
        check_map(text, vec!["src".into(), "src/limits.rs".into()], &mut findings);
        assert_eq!(findings.len(), 2, "{findings:?}");
    }

    #[test]
    fn a_promise_names_a_test_that_there_is() {
        let text = "#[tokio::test]\nasync fn it_holds() {}\nfn it_helps() {}\n// fn it_was() {}\n";
        let sources = [Source::new("tests/it/lies.rs", text)];
        let found = |rows: &str| {
            let mut findings = Vec::new();
            let table = format!("| | always holds | shown by |\n|---|---|---|\n{rows}");
            check_promises(&table, &sources, &mut findings);
            findings
        };
        assert_eq!(found("| 1 | a | `lies::it_holds` |\n| 2 | b | review |"), [""; 0]);
        for row in [
            "| 1 | a | |",
            "| 1 | a | `lies::it_was` |",
            "| 1 | a | `lies::it_helps` |",
            "| 1 | a | `drain::it_holds` |",
            "",
        ] {
            assert_eq!(found(row).len(), 1, "{row}");
        }
    }
}
