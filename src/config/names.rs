//! The names a certificate is for: its subjectAltName extension (RFC 5280 section 4.2.1.6); and by
//! what its issuer knows it. Pure.
//!
//! rustls checks names against a certificate but does not list them. The file is the operator's
//! own, so what is malformed just gives no names.

use std::net::IpAddr;

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
/// `[3] EXPLICIT Extensions` of a TBSCertificate.
const EXTENSIONS: u8 = 0xa3;
/// `dNSName [2] IA5String` of a GeneralName.
const DNS_NAME: u8 = 0x82;
/// `iPAddress [7] OCTET STRING` of a GeneralName.
const IP_ADDRESS: u8 = 0x87;
/// `[0] KeyIdentifier` of an AuthorityKeyIdentifier.
const KEY_IDENTIFIER: u8 = 0x80;
const INTEGER: u8 = 0x02;
/// The object identifiers 2.5.29.17 and 2.5.29.35, with tag and length.
const SUBJECT_ALT_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x11];
const AUTHORITY_KEY: [u8; 5] = [0x06, 0x03, 0x55, 0x1d, 0x23];

/// DNS names in lower case and IP addresses as text, in the certificate's order.
pub(super) fn names_of(certificate: &[u8]) -> Vec<String> {
    subject_alt_names(certificate).map(list).unwrap_or_default()
}

/// The key of who issued a certificate (RFC 5280 section 4.2.1.1), and the number he gave it: what
/// it is known to him by.
pub fn issued_as(certificate: &[u8]) -> Option<(&[u8], &[u8])> {
    let signed = Elements(Elements(certificate).content(SEQUENCE)?).content(SEQUENCE)?;
    let issuer = Elements(extension(signed, &AUTHORITY_KEY)?).content(KEY_IDENTIFIER)?;
    Some((issuer, Elements(signed).content(INTEGER)?))
}

/// The content of the extension's GeneralNames.
fn subject_alt_names(certificate: &[u8]) -> Option<&[u8]> {
    let signed = Elements(Elements(certificate).content(SEQUENCE)?).content(SEQUENCE)?;
    extension(signed, &SUBJECT_ALT_NAME)
}

/// What the sequence of one extension holds.
fn extension<'a>(signed: &'a [u8], id: &[u8; 5]) -> Option<&'a [u8]> {
    let extensions = Elements(Elements(signed).content(EXTENSIONS)?).content(SEQUENCE)?;
    let extension = Elements(extensions)
        .map(|(_, extension)| extension)
        .find(|extension| extension.starts_with(id))?;
    Elements(Elements(extension).content(OCTET_STRING)?).content(SEQUENCE)
}

fn list(names: &[u8]) -> Vec<String> {
    let name = |(tag, content): (u8, &[u8])| match tag {
        DNS_NAME => Some(str::from_utf8(content).ok()?.to_ascii_lowercase()),
        IP_ADDRESS => match content.len() {
            4 => Some(IpAddr::from(<[u8; 4]>::try_from(content).ok()?).to_string()),
            _ => Some(IpAddr::from(<[u8; 16]>::try_from(content).ok()?).to_string()),
        },
        _ => None,
    };
    Elements(names).filter_map(name).collect()
}

/// The DER elements of a content, each as tag and content; ends at what is none.
pub(super) struct Elements<'a>(pub(super) &'a [u8]);

impl<'a> Elements<'a> {
    /// The content of the first element with this tag.
    pub(super) fn content(mut self, tag: u8) -> Option<&'a [u8]> {
        self.find(|(found, _)| *found == tag).map(|(_, content)| content)
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_from_a_certificate() {
        let names = ["A.example.com", "*.example.com", "127.0.0.1", "::1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let expected = ["a.example.com", "*.example.com", "127.0.0.1", "::1"];
        assert_eq!(names_of(made.cert.der()), expected);
    }

    #[test]
    fn no_cut_or_changed_certificate_does_harm() {
        let many: Vec<String> = (0..40).map(|n| format!("host-{n}.example.com")).collect();
        let made = rcgen::generate_simple_self_signed(many.clone()).unwrap();
        let der = made.cert.der();
        assert_eq!(names_of(der), many, "a length of two bytes");
        for end in 0..der.len() {
            names_of(&der[..end]);
            let mut changed = der.to_vec();
            changed[end] ^= 0xff;
            names_of(&changed);
            issued_as(&changed);
        }
    }

    #[test]
    fn what_its_issuer_knows_a_certificate_by_is_read_from_it() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(["a.test".to_owned()]).unwrap();
        params.serial_number = Some(vec![0x87, 0x65, 0x43, 0x21].into());
        assert_eq!(issued_as(params.self_signed(&key).unwrap().der()), None);
        params.use_authority_key_identifier_extension = true;
        let made = params.self_signed(&key).unwrap();
        let (issuer, serial) = issued_as(made.der()).unwrap();
        // RFC 9773 section 4.1: with the zero that says it is not negative.
        assert_eq!((issuer.len(), serial), (20, &[0x00, 0x87, 0x65, 0x43, 0x21][..]));
    }
}
