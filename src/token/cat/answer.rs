//! What is answered to who does not meet a claim, where the token says so (CTA-5007 section 4.9.1):
//! a status and headers, which may end in a token that is made for the occasion.

use coset::cbor::Value;
use http::{HeaderName, HeaderValue, header};

use super::cbor::{Map, int, map, seconds, whole, written};
use super::cose;
use super::denied::Denied;
use super::named::{parsed, plain};
use super::names::{CLAIMS, DATA, ISSUED, ISSUER, name_of};
use crate::limits::TOKEN_LIST_MAX;
use crate::token::key::Key;
use crate::token::key_file::Keys;

/// An answer in the place of the usual one.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The claim it is for.
    claim: i64,
    fields: Vec<(HeaderName, Field)>,
    /// The key that tokens in it are signed with; left out: the one its issuer signs with.
    key: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Field {
    Plain(HeaderValue),
    /// A prefix, and what the token behind it says.
    Minted(String, Map),
}

/// All answers of a token, by the claims they are for.
///
/// # Errors
/// [`Denied::Answer`]: one is none that could be given.
pub(super) fn answers(claim: &Value) -> Result<Vec<(i64, Answer)>, Denied> {
    let all = map(claim).filter(|all| all.len() <= TOKEN_LIST_MAX).ok_or(Denied::Answer)?;
    let answers = all.iter().map(|(claim, value)| {
        let claim = int(claim)?;
        Some((claim, answer(claim, value.as_array()?)?))
    });
    answers.collect::<Option<_>>().ok_or(Denied::Answer)
}

impl Answer {
    /// Its headers. `said` is what the token says whose bearer gets this, `issuer` who issued it.
    /// `None`: a token is to be in them and cannot be signed.
    pub(super) fn fields(
        &self,
        said: &Map,
        issuer: &str,
        now: f64,
        keys: &Keys,
    ) -> Option<Vec<(HeaderName, HeaderValue)>> {
        let field = |(name, field): &(HeaderName, Field)| {
            let value = match field {
                Field::Plain(value) => value.clone(),
                Field::Minted(prefix, claims) => {
                    let key = self.key(issuer, keys)?;
                    let claims = self.filled(claims, said, key, now);
                    let token = cose::signed(written(&Value::Map(claims)), key)?;
                    HeaderValue::from_str(&[prefix.as_str(), &token].concat()).ok()?
                }
            };
            Some((name.clone(), value))
        };
        self.fields.iter().map(field).collect()
    }

    /// Nobody's key but its issuer's.
    fn key<'a>(&self, issuer: &str, keys: &'a Keys) -> Option<&'a Key> {
        match &self.key {
            None => keys.renewal(issuer),
            Some(id) => {
                let mut could = keys.all(Some(id)).filter(|key| key.issuer() == issuer);
                could.find(|key| key.has_private())
            }
        }
    }

    /// What is left open is told: who issues it and when, which claim was not met, and else what
    /// the token said.
    fn filled(&self, claims: &Map, said: &Map, key: &Key, now: f64) -> Map {
        let failed = || name_of(&CLAIMS, self.claim).map(Value::from);
        let value = |label: &Value, value: &Value| match (value, int(label)) {
            (Value::Null, Some(ISSUER)) => Some(key.issuer().into()),
            (Value::Null, Some(ISSUED)) => Some(seconds(now)),
            (Value::Null, Some(DATA)) => failed(),
            (Value::Null, _) => {
                said.iter().find(|(key, _)| key == label).map(|(_, value)| value.clone())
            }
            _ => Some(value.clone()),
        };
        let claims = claims.iter();
        claims.filter_map(|(label, one)| Some((label.clone(), value(label, one)?))).collect()
    }
}

fn answer(claim: i64, parts: &[Value]) -> Option<Answer> {
    let (status, fields, key) = match parts {
        [status] => (status, None, None),
        [status, fields] => (status, Some(fields), None),
        [status, fields, key] => (status, Some(fields), Some(key)),
        _ => return None,
    };
    // What is no refusal, nor tells where else to go, would let in.
    let status = u16::try_from(whole(status)?).ok().filter(|it| (300..600).contains(it))?;
    let fields = fields.map_or(Some(&[][..]), |fields| map(fields).map(Vec::as_slice))?;
    if fields.len() > TOKEN_LIST_MAX || status == 304 {
        return None;
    }
    let key = match key {
        None | Some(Value::Null) => None,
        Some(Value::Bytes(id)) => Some(String::from_utf8(id.clone()).ok()?),
        Some(id) => Some(id.as_text()?.to_owned()),
    };
    let fields = fields.iter().map(|(name, value)| {
        let name = HeaderName::from_bytes(name.as_text()?.as_bytes()).ok()?;
        (!FRAMING.contains(&name)).then_some((name, field(value)?))
    });
    Some(Answer { status, claim, fields: fields.collect::<Option<_>>()?, key })
}

fn field(value: &Value) -> Option<Field> {
    let sound = |text: &str| HeaderValue::from_str(text).ok();
    match value {
        Value::Text(text) => sound(text).map(Field::Plain),
        Value::Array(parts) => {
            let [Value::Text(prefix), claims] = &parts[..] else { return None };
            sound(prefix)?;
            let claims = map(claims)?;
            // Some write it as JSON is written, with names.
            let claims = match claims.iter().all(|(key, _)| key.is_text()) {
                true => parsed(plain(&Value::Map(claims.clone())).as_object()?).ok()?,
                false => claims.clone(),
            };
            Some(Field::Minted(prefix.clone(), claims))
        }
        _ => None,
    }
}

/// What says how long an answer is and what becomes of the connection is ours to say.
pub(super) const FRAMING: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::DATE,
];
