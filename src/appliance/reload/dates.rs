//! Whether the certificates of a changed configuration may be shown in the place of those of
//! before, by this process or by the one that follows.

use std::collections::HashSet;
use std::time::SystemTime;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::config::units::counted;
use crate::config::{Certificate, Certificates, Config, ConfigError};
use crate::limits::OUTDATED_BYTES_MAX;

/// A certificate that viewers refuse, as it is told to the process that may show a better one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::appliance) struct Outdated {
    /// The digest of its chain.
    chain: String,
    names: Vec<String>,
    /// Another is ordered of an authority.
    is_ordered: bool,
    /// Where it is configured, and why.
    why: String,
}

impl Outdated {
    /// All that a configuration names.
    pub(in crate::appliance) fn all_of(config: &Config, now: SystemTime) -> Vec<Outdated> {
        let outdated = |one: &Certificate| {
            let is_ordered = config.certificates.is_ordered(one);
            let to_do = match is_ordered {
                true => {
                    "another is ordered where its file is gone, and viewers have none until then"
                }
                false => "have it renewed",
            };
            let text = format!("certificate {}; {to_do}", one.judged(now)?);
            let fault = ConfigError { file: config.file.clone(), place: one.place, text };
            let (chain, names) = (chain_of(one), one.names.clone());
            Some(Outdated { chain, names, is_ordered, why: fault.to_string() })
        };
        config.certificates.iter().filter_map(outdated).collect()
    }

    /// As many of them as a message holds.
    pub(in crate::appliance) fn told_of(config: &Config, now: SystemTime) -> Vec<Value> {
        Outdated::to_message(Outdated::all_of(config, now))
    }

    fn to_message(all: Vec<Outdated>) -> Vec<Value> {
        let mut left_bytes = OUTDATED_BYTES_MAX;
        let fits = |one: &Outdated| {
            let bytes = one.names.iter().map(String::len).sum::<usize>() + one.why.len();
            let left = left_bytes.checked_sub(bytes + BESIDE_BYTES);
            left.is_some_and(|left| {
                left_bytes = left;
                true
            })
        };
        let count = all.len();
        let told: Vec<_> = all.into_iter().filter(fits).map(|one| json!(one)).collect();
        not_judged(count - told.len());
        told
    }

    /// Those that another process tells, as far as this version knows what is said of them.
    pub(in crate::appliance) fn heard(told: Vec<Value>) -> Vec<Outdated> {
        let count = told.len();
        let heard: Vec<_> =
            told.into_iter().filter_map(|one| serde_json::from_value(one).ok()).collect();
        not_judged(count - heard.len());
        heard
    }
}

/// Whether certificates may come where `shown` are: viewers would accept them, or they were there
/// before; one that lies there from an authority is ordered anew, where it takes the place of none
/// that is good.
///
/// # Errors
/// A line for each that may not.
pub(in crate::appliance) fn look_at_dates(
    shown: &Certificates,
    next: &[Outdated],
    now: SystemTime,
) -> Result<(), String> {
    if next.is_empty() {
        return Ok(());
    }
    let chains: HashSet<String> = shown.iter().map(chain_of).collect();
    let was_there = |one: &Outdated| chains.contains(&one.chain);
    let has_good = |one: &Outdated| {
        let mut good = shown.iter().filter(|shown| shown.judged(now).is_none());
        good.any(|shown| shown.names.iter().any(|name| one.names.contains(name)))
    };
    let may_not = |one: &&Outdated| !was_there(one) && (!one.is_ordered || has_good(one));
    let refused: Vec<&str> = next.iter().filter(may_not).map(|one| one.why.as_str()).collect();
    if refused.is_empty() { Ok(()) } else { Err(refused.join("\n")) }
}

fn not_judged(count: usize) {
    if count > 0 {
        let certificates = counted(count as u64, "certificate");
        tracing::warn!("of the process that follows, {certificates} cannot be judged");
    }
}

fn chain_of(one: &Certificate) -> String {
    let mut chain = Context::new(&SHA256);
    one.key.cert.iter().for_each(|der| chain.update(der));
    chain.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What one takes in a message besides.
const BESIDE_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    #[cfg(feature = "acme")]
    use std::fs;

    use super::*;
    #[cfg(feature = "acme")]
    use crate::config;

    #[test]
    fn a_message_holds_as_many_as_fit_and_what_a_later_version_says_harms_none_of_them() {
        let one = |bytes: usize| Outdated {
            chain: "00".to_owned(),
            names: vec!["a.test".to_owned()],
            is_ordered: false,
            why: "x".repeat(bytes),
        };
        let mut told = Outdated::to_message(vec![one(8), one(OUTDATED_BYTES_MAX), one(9), one(10)]);
        assert_eq!(told.len(), 3, "the one that is too long is left out, and no other");
        let half = OUTDATED_BYTES_MAX / 2;
        assert_eq!(Outdated::to_message(vec![one(half), one(half)]).len(), 1);
        told[0]["since"] = 7.into();
        told[1] = json!({ "digest": "00" });
        let heard = Outdated::heard(told);
        let lengths: Vec<_> = heard.iter().map(|one| one.why.len()).collect();
        assert_eq!(lengths, [8, 10]);
    }

    #[cfg(feature = "acme")]
    #[test]
    fn an_expired_certificate_is_no_reason_to_refuse_where_it_is_ordered_anew() {
        let folder = tempfile::tempdir().unwrap();
        let names = vec!["a.test".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = |params: &rcgen::CertificateParams| {
            params.self_signed(&key).unwrap().pem() + &key.serialize_pem()
        };
        let good = pem(&params);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        let pem = pem(&params);
        let kept = folder.path().join("authority.test");
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("a.test.pem"), &pem).unwrap();
        let config = |certificate: &str| {
            let path = folder.path().join("t.toml");
            let state = folder.path().display();
            let text = format!(
                "acme = {{ terms = \"agreed\", directory = \"https://authority.test\", state = \
                 \"{state}\" }}\nlisteners = {{ http = \"[::1]:0\", https = \"[::1]:0\" }}\n\
                 [[certificates]]\n{certificate}\n[[sites]]\nname = \"s\"\nhosts = \
                 \"a.test\"\norigins = \"http://o\"\n"
            );
            fs::write(&path, text).unwrap();
            config::load(&path).unwrap()
        };
        let ordered = config("acme = \"a.test\"");
        let file = kept.join("a.test.pem").display().to_string();
        let named = config(&format!("cert = \"{file}\"\nkey = \"{file}\""));
        let look = |before: &Certificates, next: &Config| {
            let now = SystemTime::now();
            look_at_dates(before, &Outdated::all_of(next, now), now)
        };
        let none = Certificates::default();
        assert_eq!(ordered.certificates.iter().count(), 1);
        assert!(look(&none, &ordered).is_ok());
        let refused = look(&none, &named).unwrap_err();
        assert!(
            refused.contains("t.toml:4:8: certificate ") && refused.ends_with("have it renewed"),
            "{refused}"
        );
        assert!(look(&ordered.certificates, &named).is_ok(), "it is shown already");

        let file = folder.path().join("good.pem").display().to_string();
        fs::write(&file, good).unwrap();
        let good = config(&format!("cert = \"{file}\"\nkey = \"{file}\""));
        let refused = look(&good.certificates, &ordered).unwrap_err();
        assert!(refused.contains("another is ordered where its file is gone"), "{refused}");
    }
}
