//! Whether the certificates of a changed configuration may be shown.

use std::time::SystemTime;

use super::ReloadError;
use crate::config::{Certificate, Config};

/// Whether viewers would accept the certificates that were not there before; one that lies there
/// from an authority is ordered anew, where it takes the place of none that is good.
pub(super) fn look_at_dates(before: &Config, next: &Config) -> Result<(), ReloadError> {
    let (now, known) = (SystemTime::now(), &before.certificates);
    let was_there = |one: &Certificate| known.iter().any(|known| known.key.cert == one.key.cert);
    let has_good = |one: &Certificate| {
        let mut good = known.iter().filter(|known| known.judged(now).is_none());
        good.any(|known| known.names.iter().any(|name| one.names.contains(name)))
    };
    for one in next.certificates.iter().filter(|one| !was_there(one)) {
        let is_ordered = next.certificates.managed().any(|it| it.path == one.path);
        let Some(why) = one.judged(now).filter(|_| !is_ordered || has_good(one)) else { continue };
        let advice = match is_ordered {
            true => "another is ordered where its file is gone, and viewers have none until then",
            false => "have it renewed",
        };
        let file = &next.file;
        return Err(ReloadError::Refused(format!("{file}: certificate {why}; {advice}")));
    }
    Ok(())
}

#[cfg(feature = "acme")]
#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config;

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
        let mut other = named.clone();
        other.certificates = config::Certificates::default();
        assert_eq!(ordered.certificates.iter().count(), 1);
        assert!(look_at_dates(&other, &ordered).is_ok());
        let refused = look_at_dates(&other, &named).unwrap_err().to_string();
        assert!(
            refused.contains("expired on") && refused.ends_with("have it renewed"),
            "{refused}"
        );

        let file = folder.path().join("good.pem").display().to_string();
        fs::write(&file, good).unwrap();
        let good = config(&format!("cert = \"{file}\"\nkey = \"{file}\""));
        let refused = look_at_dates(&good, &ordered).unwrap_err().to_string();
        assert!(refused.contains("another is ordered where its file is gone"), "{refused}");
    }
}
