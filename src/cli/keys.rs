//! `tidegate keys`: the keys that viewers' tokens are signed with, in a key file.
//!
//! Works on the file alone, and replaces it whole: who reads it meanwhile sees the keys of before
//! or those of after. Asks nobody.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Value, json};

use super::Failure;
use crate::access_log::RequestId;
use crate::token::jwk::Jwk;
use crate::token::key::Algorithm;
use crate::token::key_file::{IssuerFile, KeyFile};
use crate::token::uri_signing::Matching;

const EXAMPLES: &str = "\
Examples:
  tidegate keys new keys.json --issuer 'Film Co'
  tidegate keys rotate keys.json --issuer 'Film Co'
  tidegate keys list keys.json
  tidegate keys list keys.json --public > jwks.json
  tidegate keys retire keys.json --issuer 'Film Co' --id 2026-10
  tidegate keys import keys.json --issuer 'Film Co' jwks.json

A key file has the keys of each issuer, as Traffic Server's uri_signing has them: it may be written
by hand too. Tokens are signed with one of them, `renewal_kid`, and believed by all. To rotate,
make a new key, let whoever signs have it, and retire the old one when the last token that it has
signed has expired.

Exit codes: 0 done, 1 not done, 64 misused, or a fault in the key file";

/// Make, rotate, list, import and retire the keys of viewers' tokens
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    New(NewArgs),
    Rotate(NewArgs),
    List(ListArgs),
    Retire(RetireArgs),
    Import(ImportArgs),
}

const NEW_EXAMPLES: &str = "\
Examples:
  tidegate keys new keys.json --issuer 'Film Co'
  tidegate keys rotate keys.json --issuer 'Film Co' --id 2026-11 --algorithm EdDSA

`new` makes the first key of an issuer, and the file where there is none; `rotate` makes another,
which tokens are signed with from then on; those signed before are believed until their key is
retired.

Exit codes: 0 made, 1 not made, 64 misused, or a fault in the key file";

/// Make a key that tokens are signed with from now on
#[derive(Debug, clap::Args)]
#[command(after_help = NEW_EXAMPLES)]
struct NewArgs {
    /// The key file
    file: PathBuf,
    /// Whose key it is, as `iss` names it
    #[arg(long, value_name = "NAME")]
    issuer: String,
    /// Its id; left out: one that nobody else has
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// ES256, ES384, EdDSA; or HS256, HS384, HS512, by which whoever verifies can sign too
    #[arg(long, value_name = "NAME", default_value = "ES256", value_parser = algorithm)]
    algorithm: Algorithm,
    /// Print its public half as JSON
    #[arg(long)]
    json: bool,
}

const LIST_EXAMPLES: &str = "\
Examples:
  tidegate keys list keys.json
  tidegate keys list keys.json --json
  tidegate keys list keys.json --public > jwks.json

Nothing secret is printed.

Exit codes: 0 shown, 1 it cannot be read, 64 misused, or a fault in the key file";

/// Show the keys of a key file, and nothing secret
#[derive(Debug, clap::Args)]
#[command(after_help = LIST_EXAMPLES)]
struct ListArgs {
    /// The key file
    file: PathBuf,
    /// Print them as JSON
    #[arg(long)]
    json: bool,
    /// Print their public halves as a JWK set (RFC 7517), for whoever verifies
    #[arg(long, conflicts_with = "json")]
    public: bool,
}

const RETIRE_EXAMPLES: &str = "\
Examples:
  tidegate keys retire keys.json --issuer 'Film Co' --id 2026-10

Tokens that it has signed let nobody in any more. The key that tokens are signed with stays: make
another first, with `rotate`.

Exit codes: 0 retired, 1 not retired, 64 misused, or a fault in the key file";

/// Believe no more what a key has signed
#[derive(Debug, clap::Args)]
#[command(after_help = RETIRE_EXAMPLES)]
struct RetireArgs {
    /// The key file
    file: PathBuf,
    /// Whose key it is
    #[arg(long, value_name = "NAME")]
    issuer: String,
    /// Its id
    #[arg(long, value_name = "ID")]
    id: String,
    /// Print what is left as JSON
    #[arg(long)]
    json: bool,
}

const IMPORT_EXAMPLES: &str = "\
Examples:
  tidegate keys import keys.json --issuer 'Film Co' jwks.json

Keys with an id that is there already take the place of those; nothing else is taken away.

Exit codes: 0 imported, 1 not imported, 64 misused, or a fault in one of the files";

/// Believe the keys of a JWK set
#[derive(Debug, clap::Args)]
#[command(after_help = IMPORT_EXAMPLES)]
struct ImportArgs {
    /// The key file; made where there is none
    file: PathBuf,
    /// Whose keys they are
    #[arg(long, value_name = "NAME")]
    issuer: String,
    /// A JWK set (RFC 7517)
    jwks: PathBuf,
    /// Print what is there then as JSON
    #[arg(long)]
    json: bool,
}

/// Does what is asked for; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    match &args.command {
        Command::New(args) => make(args, Nth::First),
        Command::Rotate(args) => make(args, Nth::Another),
        Command::List(args) => list(args),
        Command::Retire(args) => retire(args),
        Command::Import(args) => import(args),
    }
}

/// Which key of its issuer one is.
#[derive(Clone, Copy)]
enum Nth {
    First,
    Another,
}

fn make(args: &NewArgs, nth: Nth) -> Result<String, Failure> {
    let NewArgs { file, issuer: name, .. } = args;
    let mut keys = read_or_new(file)?;
    match (nth, keys.issuers.contains_key(name)) {
        (Nth::First, true) => {
            let text = format!("{} has keys of {name:?} already", file.display());
            return Err(Failure::Misused(format!("{text}; `tidegate keys rotate` makes another")));
        }
        (Nth::Another, false) => return Err(no_issuer(file, &keys, name)),
        _ => {}
    }
    let id = args.id.clone().unwrap_or_else(unique_id);
    let issuer = keys.issuers.entry(name.clone()).or_default();
    if position(issuer, &id).is_some() {
        return Err(Failure::Misused(format!(
            "{name:?} has a key {id:?} already; choose another --id"
        )));
    }
    let jwk = Jwk::generate(args.algorithm, &id)
        .map_err(|error| Failure::Failed(format!("no key could be made: {error}")))?;
    issuer.keys.push(jwk.clone());
    issuer.renewal_kid = Some(id.clone());
    write(file, &keys)?;
    let public = jwk.public().map(|jwk| json!(jwk));
    Ok(match args.json {
        true => format!("{}\n", json!({ "issuer": name, "id": id, "public": public })),
        false => {
            let algorithm = args.algorithm.name();
            format!("{name:?} signs with {id:?} ({algorithm}) from now on\n")
        }
    })
}

fn list(args: &ListArgs) -> Result<String, Failure> {
    let keys = read(&args.file)?;
    if args.public {
        let all = keys.issuers.values().flat_map(|issuer| &issuer.keys);
        let public: Vec<Value> = all.filter_map(Jwk::public).map(|jwk| json!(jwk)).collect();
        return Ok(format!("{:#}\n", json!({ "keys": public })));
    }
    if args.json {
        return Ok(format!("{:#}\n", told(&keys)));
    }
    let mut text = String::new();
    for (name, issuer) in &keys.issuers {
        text.push_str(&format!("{name}\n"));
        for jwk in &issuer.keys {
            let id = jwk.kid.as_deref().unwrap_or("-");
            text.push_str(&format!("  {id:<44} {:<8} {}\n", kind(jwk), role(issuer, jwk)));
        }
    }
    if text.is_empty() {
        text.push_str("there are no keys: `tidegate keys new` makes one\n");
    }
    Ok(text)
}

fn retire(args: &RetireArgs) -> Result<String, Failure> {
    let RetireArgs { file, issuer: name, id, .. } = args;
    let mut keys = read(file)?;
    let none = no_issuer(file, &keys, name);
    let issuer = keys.issuers.get_mut(name).ok_or(none)?;
    if issuer.renewal_kid.as_ref() == Some(id) {
        return Err(Failure::Misused(format!(
            "{name:?} signs with {id:?}: make another first, with `tidegate keys rotate`"
        )));
    }
    let at = position(issuer, id).ok_or_else(|| {
        let there: Vec<_> = issuer.keys.iter().filter_map(|jwk| jwk.kid.as_deref()).collect();
        Failure::Misused(format!("{name:?} has no key {id:?}; it has {}", there.join(", ")))
    })?;
    issuer.keys.remove(at);
    // What directives deny without keys is denied still.
    if issuer.keys.is_empty() && issuer.auth_directives.is_empty() {
        keys.issuers.remove(name);
    }
    write(file, &keys)?;
    Ok(match args.json {
        true => format!("{:#}\n", told(&keys)),
        false => format!("what {id:?} of {name:?} has signed is believed no more\n"),
    })
}

fn import(args: &ImportArgs) -> Result<String, Failure> {
    let ImportArgs { file, issuer: name, jwks, .. } = args;
    let mut keys = read_or_new(file)?;
    let fault = |what: String| Failure::Misused(format!("{}: {what}", jwks.display()));
    let text = fs::read(jwks).map_err(|error| fault(error.to_string()))?;
    let set: Value = serde_json::from_slice(&text).map_err(|error| fault(error.to_string()))?;
    let none = || fault("it is no JWK set: {\"keys\": [..]}".to_owned());
    let set: Vec<Jwk> = serde_json::from_value(set["keys"].clone()).map_err(|_| none())?;
    let count = set.len();
    let issuer = keys.issuers.entry(name.clone()).or_default();
    for jwk in set {
        let id = jwk.kid.clone().ok_or_else(|| fault("a key has no `kid`".to_owned()))?;
        match position(issuer, &id) {
            // What is known of it beside its public half stays known.
            Some(at) if jwk.d.is_none() && is_public_half(&jwk, &issuer.keys[at]) => {}
            Some(at) => issuer.keys[at] = jwk,
            None => issuer.keys.push(jwk),
        }
    }
    keys.keys(Matching::Full).map_err(|error| fault(error.to_string()))?;
    write(file, &keys)?;
    Ok(match args.json {
        true => format!("{:#}\n", told(&keys)),
        false => format!("{count} keys of {name:?} are believed\n"),
    })
}

/// What a program is told of them.
fn told(keys: &KeyFile) -> Value {
    let of = |(name, issuer): (&String, &IssuerFile)| {
        let key =
            |jwk: &Jwk| json!({ "id": jwk.kid, "algorithm": kind(jwk), "role": role(issuer, jwk) });
        json!({ "issuer": name, "keys": issuer.keys.iter().map(key).collect::<Vec<_>>() })
    };
    json!({ "issuers": keys.issuers.iter().map(of).collect::<Vec<_>>() })
}

fn is_public_half(public: &Jwk, of: &Jwk) -> bool {
    of.public().is_some_and(|half| json!(half) == json!(public))
}

fn kind(jwk: &Jwk) -> &str {
    jwk.alg.as_deref().or(jwk.crv.as_deref()).unwrap_or("-")
}

fn role(issuer: &IssuerFile, jwk: &Jwk) -> &'static str {
    match jwk.is_sealing() {
        true => "opens sealed claims",
        false if issuer.renewal_kid == jwk.kid => "signs, and is believed",
        false => "is believed",
    }
}

fn position(issuer: &IssuerFile, id: &str) -> Option<usize> {
    issuer.keys.iter().position(|jwk| jwk.kid.as_deref() == Some(id))
}

fn no_issuer(file: &Path, keys: &KeyFile, name: &str) -> Failure {
    let there: Vec<_> = keys.issuers.keys().map(|name| format!("{name:?}")).collect();
    let file = file.display();
    Failure::Misused(match there.is_empty() {
        true => format!("{file} has no issuer: `tidegate keys new` makes its first key"),
        false => format!("{file} has no issuer {name:?}; it has {}", there.join(", ")),
    })
}

fn unique_id() -> String {
    RequestId::assign().to_string()
}

/// A key file, each of whose keys is one.
pub(super) fn read(file: &Path) -> Result<KeyFile, Failure> {
    let text = fs::read(file).map_err(|error| {
        let to_do = match error.kind() {
            io::ErrorKind::NotFound => "; `tidegate keys new` makes one",
            _ => "",
        };
        Failure::Failed(format!("{}: {error}{to_do}", file.display()))
    })?;
    let fault = |error| Failure::Misused(format!("{}: {error}", file.display()));
    let keys = KeyFile::parse(&text).map_err(fault)?;
    keys.keys(Matching::Full).map_err(fault)?;
    Ok(keys)
}

fn read_or_new(file: &Path) -> Result<KeyFile, Failure> {
    match fs::exists(file) {
        Ok(false) => Ok(KeyFile::default()),
        _ => read(file),
    }
}

/// Replaces it whole, and leaves it to its owner; who else could read it may no longer write it.
fn write(file: &Path, keys: &KeyFile) -> Result<(), Failure> {
    // It would never be read again.
    let text = serde_json::to_string_pretty(keys).unwrap_or_default();
    KeyFile::parse(text.as_bytes())
        .and_then(|file| file.keys(Matching::Full))
        .map_err(|error| Failure::Failed(format!("{} is as it was: {error}", file.display())))?;
    let mut beside = file.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // Who else writes it now has made it, and is not to be mixed with.
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside);
    let replaced = made.and_then(|mut new| {
        let there = fs::metadata(file);
        if let Ok(there) = &there {
            fchown(&new, Some(there.uid()), Some(there.gid()))?;
            new.set_permissions(Permissions::from_mode(there.mode() & 0o640))?;
        }
        let written = writeln!(new, "{text}")
            .and_then(|()| new.sync_all())
            .and_then(|()| fs::rename(&beside, file));
        written.inspect_err(|_| drop(fs::remove_file(&beside)))
    });
    replaced.map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            return Failure::Failed(format!(
                "{} is as it was: another writes it, or was stopped while it did: if nobody does, \
                 remove {}",
                file.display(),
                beside.display()
            ));
        }
        Failure::Failed(format!("{} is as it was: it cannot be written: {error}", file.display()))
    })
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    let known = [
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::EdDsa,
        Algorithm::Hs256,
        Algorithm::Hs384,
        Algorithm::Hs512,
    ];
    let named = Algorithm::named(text).filter(|algorithm| known.contains(algorithm));
    named.ok_or_else(|| "write ES256, ES384, EdDSA, HS256, HS384 or HS512".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn typed(words: &[&str]) -> Result<String, Failure> {
        run(&Line::parse_from(["keys"].iter().chain(words)).args)
    }

    #[test]
    fn keys_are_made_rotated_listed_and_retired_and_nothing_secret_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.json");
        let file = path.to_str().unwrap();
        typed(&["new", file, "--issuer", "Film Co", "--id", "one"]).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        typed(&["rotate", file, "--issuer", "Film Co", "--id", "two", "--algorithm", "HS256"])
            .unwrap();
        let listed = typed(&["list", file]).unwrap();
        let words: Vec<Vec<&str>> =
            listed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["Film", "Co"]);
        assert_eq!(words[1], ["one", "ES256", "is", "believed"]);
        assert_eq!(words[2], ["two", "HS256", "signs,", "and", "is", "believed"]);

        let public = typed(&["list", file, "--public"]).unwrap();
        let public: Value = serde_json::from_str(&public).unwrap();
        assert_eq!(public["keys"].as_array().unwrap().len(), 1, "of two, one has no public half");
        let secret = KeyFile::parse(&fs::read(&path).unwrap()).unwrap();
        let [one, two] = &secret.issuers["Film Co"].keys[..] else { panic!("{listed}") };
        let told = [&listed, &public.to_string(), &typed(&["list", file, "--json"]).unwrap()].map(
            |text| text.contains(one.d.as_ref().unwrap()) || text.contains(two.k.as_ref().unwrap()),
        );
        assert_eq!(told, [false; 3]);

        let refused = typed(&["retire", file, "--issuer", "Film Co", "--id", "two"]);
        let refused = refused.unwrap_err().to_string();
        assert!(refused.contains("make another first"), "{refused}");
        typed(&["retire", file, "--issuer", "Film Co", "--id", "one"]).unwrap();
        let left = read(&path).unwrap().keys(Matching::Full).unwrap();
        assert_eq!(left.all(None).map(|key| key.id()).collect::<Vec<_>>(), ["two"]);
    }

    #[test]
    fn what_cannot_be_done_leaves_the_file_as_it_was_and_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (file, set) = (at("keys.json"), at("jwks.json"));
        typed(&["new", &file, "--issuer", "a", "--id", "k"]).unwrap();
        let before = fs::read(&file).unwrap();
        fs::write(&set, r#"{"keys":[{"kty":"EC","kid":"x","crv":"P-256","x":"AA","y":"AA"}]}"#)
            .unwrap();
        for (words, says) in [
            (&["new", &file, "--issuer", "a"][..], "`tidegate keys rotate` makes another"),
            (&["rotate", &file, "--issuer", "b"], "has no issuer \"b\"; it has \"a\""),
            (&["rotate", &file, "--issuer", "a", "--id", "k"], "choose another --id"),
            (&["retire", &file, "--issuer", "a", "--id", "x"], "has no key \"x\"; it has k"),
            (&["import", &file, "--issuer", "a", &set], "its numbers make no key"),
            (&["list", &set], "it is no key file, {\"ISSUER\": {\"renewal_kid\": .., "),
        ] {
            let refused = typed(words).unwrap_err().to_string();
            assert!(refused.contains(says) && refused.lines().count() == 1, "{refused}");
        }
        assert_eq!(fs::read(&file).unwrap(), before);

        let other = at("other.json");
        typed(&["new", &other, "--issuer", "a", "--id", "k"]).unwrap();
        fs::write(&set, typed(&["list", &other, "--public"]).unwrap()).unwrap();
        typed(&["import", &at("new.json"), "--issuer", "a", &set]).unwrap();
        let imported = read(Path::new(&at("new.json"))).unwrap().keys(Matching::Full).unwrap();
        assert_eq!(
            imported.all(Some("k")).map(|key| key.has_private()).collect::<Vec<_>>(),
            [false]
        );
    }
}
