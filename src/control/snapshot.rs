//! The snapshot: what the control plane publishes and boxes go by, also when it is gone.
//!
//! Immutable and numbered; swapped whole. It is sent as one line, `tidegate-snapshot 1 SIGNATURE`,
//! and behind it the JSON as it was signed (Ed25519): nothing has to be written the same way twice,
//! and anybody can read it. One that does not verify, is too large or goes back is refused. What
//! it holds is secret, as keys are: it is for enrolled boxes alone.

use std::collections::{BTreeMap, BTreeSet};
use std::error;
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::registry::appliance::is_name;
use super::registry::fleet::Fleet;
use crate::limits::{
    APPLIANCES_MAX, KEY_FILE_BYTES_MAX, KEY_FILES_BYTES_MAX, KEY_FILES_MAX, REVOKED_MAX,
    SNAPSHOT_BYTES_MAX, SNAPSHOT_KEYS_MAX,
};

/// What boxes go by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Which one it is.
    pub number: Number,
    /// When it was made, in seconds since 1970.
    pub made_at: u64,
    /// The appliances and how they were.
    pub fleet: Fleet,
    /// The text of each key file, by its name.
    pub keys: BTreeMap<String, String>,
    /// Certificates that are not to be believed although they have not ended.
    pub revoked: BTreeSet<Serial>,
}

/// Which snapshot: the greater one is the later one. The epoch is raised by who restores the state
/// of a control plane from a backup, whose counter has fallen behind.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Number {
    /// Counts restorations.
    pub epoch: u64,
    /// Counts snapshots.
    pub counter: u64,
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.counter)
    }
}

impl FromStr for Number {
    type Err = SnapshotError;

    fn from_str(text: &str) -> Result<Number, SnapshotError> {
        let number = |text: &str| {
            let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse().ok().filter(|_| is_plain)
        };
        let (epoch, counter) = text.split_once('.').ok_or(SnapshotError::NoNumber)?;
        match (number(epoch), number(counter)) {
            (Some(epoch), Some(counter)) => Ok(Number { epoch, counter }),
            _ => Err(SnapshotError::NoNumber),
        }
    }
}

/// The serial number of a certificate: its bytes, in lower-case hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Serial(String);

impl Serial {
    /// Of a certificate's bytes; none of more than RFC 5280 lets it have.
    pub fn of(bytes: &[u8]) -> Option<Serial> {
        let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        (1..=SERIAL_BYTES_MAX).contains(&bytes.len()).then_some(Serial(hex))
    }

    /// Its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Serial {
    type Error = SnapshotError;

    fn try_from(text: String) -> Result<Serial, SnapshotError> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let fits = (2..=2 * SERIAL_BYTES_MAX).contains(&text.len()) && text.len().is_multiple_of(2);
        match fits && text.bytes().all(is_digit) {
            true => Ok(Serial(text)),
            false => Err(SnapshotError::NoSerial { text }),
        }
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a snapshot is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotError {
    /// It has more bytes than any may.
    TooLarge {
        /// How many.
        bytes: usize,
    },
    /// It does not begin as a snapshot does.
    NoSnapshot,
    /// No key that is believed has signed it.
    Unverified,
    /// It is signed and yet none that this version understands.
    Content {
        /// What is wrong with it.
        what: String,
    },
    /// A later one is held.
    GoesBack {
        /// The one that is held.
        held: Number,
        /// The one that was offered.
        offered: Number,
    },
    /// A number is written `EPOCH.COUNTER`.
    NoNumber,
    /// A serial number is written otherwise.
    NoSerial {
        /// What was written.
        text: String,
    },
    /// What it should be verified by is no key.
    NoKey,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SnapshotError::TooLarge { bytes } => {
                write!(f, "a snapshot of {bytes} bytes: {SNAPSHOT_BYTES_MAX} are the most")
            }
            SnapshotError::NoSnapshot => {
                write!(f, "it is no snapshot: it does not begin with `{MAGIC} SIGNATURE`")
            }
            SnapshotError::Unverified => {
                write!(f, "the snapshot is signed by no key that this box believes")
            }
            SnapshotError::Content { what } => {
                write!(f, "the snapshot says what is not understood here: {what}")
            }
            SnapshotError::GoesBack { held, offered } => write!(
                f,
                "the snapshot goes back: {offered} is offered and {held} is held; where the \
                 control plane was restored from a backup, `tidegate control raise-epoch` there"
            ),
            SnapshotError::NoNumber => write!(f, "write a snapshot's number as EPOCH.COUNTER"),
            SnapshotError::NoSerial { text } => {
                write!(f, "{text:?} is no serial number: write it in lower-case hexadecimal")
            }
            SnapshotError::NoKey => {
                write!(f, "1 to {SNAPSHOT_KEYS_MAX} Ed25519 public keys in base64 are wanted")
            }
        }
    }
}

impl error::Error for SnapshotError {}

impl Snapshot {
    /// Signs it: the bytes that are sent.
    ///
    /// # Errors
    /// It would be too large, or no box would take it.
    pub fn sign(&self, key: &SigningKey) -> Result<Vec<u8>, SnapshotError> {
        self.check()?;
        let json = serde_json::to_vec(self).expect("text and numbers can be written as JSON");
        signed(&json, key)
    }

    /// Whether it may be put in the place of `held`: it is a later one.
    ///
    /// # Errors
    /// It is not.
    pub fn follows(&self, held: Number) -> Result<(), SnapshotError> {
        match self.number > held {
            true => Ok(()),
            false => Err(SnapshotError::GoesBack { held, offered: self.number }),
        }
    }

    /// What no type says of it.
    fn check(&self) -> Result<(), SnapshotError> {
        let wrong = |what: String| Err(SnapshotError::Content { what });
        let members = self.fleet.members();
        if members.len() > APPLIANCES_MAX {
            return wrong(format!("it has more than {APPLIANCES_MAX} appliances"));
        }
        // They are in the order of their names.
        let twice =
            members.windows(2).find(|two| two[0].appliance.name() == two[1].appliance.name());
        if let Some(twice) = twice {
            return wrong(format!("two appliances are called `{}`", twice[0].appliance.name()));
        }
        let pathways: BTreeSet<_> = members.iter().map(|one| one.appliance.pathway()).collect();
        if pathways.len() < members.len() {
            return wrong("two appliances have one pathway".to_owned());
        }
        if let Some(name) = self.keys.keys().find(|name| !is_name(name)) {
            return wrong(format!("no key file can be called {name:?}"));
        }
        let bytes: usize = self.keys.values().map(String::len).sum();
        let is_large = self.keys.values().any(|text| text.len() > KEY_FILE_BYTES_MAX);
        if is_large || self.keys.len() > KEY_FILES_MAX || bytes > KEY_FILES_BYTES_MAX {
            return wrong("its keys are too many".to_owned());
        }
        if self.revoked.len() > REVOKED_MAX {
            return wrong(format!("it revokes more than {REVOKED_MAX} certificates"));
        }
        Ok(())
    }
}

/// A snapshot as it is sent and kept.
pub struct Signed;

impl Signed {
    /// The snapshot in these bytes, if one of `keys` has signed it.
    ///
    /// # Errors
    /// They are none, or none that is believed.
    pub fn open(bytes: &[u8], keys: &PublicKeys) -> Result<Snapshot, SnapshotError> {
        if bytes.len() > SNAPSHOT_BYTES_MAX {
            return Err(SnapshotError::TooLarge { bytes: bytes.len() });
        }
        let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
        let (Some(line), Some(json)) = (parts.next(), parts.next()) else {
            return Err(SnapshotError::NoSnapshot);
        };
        let signature =
            line.strip_prefix(MAGIC.as_bytes()).and_then(|rest| rest.strip_prefix(b" "));
        let signature = signature.and_then(|text| STANDARD.decode(text).ok());
        let signature = signature.ok_or(SnapshotError::NoSnapshot)?;
        if !keys.verify(MAGIC, json, &signature) {
            return Err(SnapshotError::Unverified);
        }
        let content = |error: serde_json::Error| SnapshotError::Content { what: error.to_string() };
        let snapshot: Snapshot = serde_json::from_slice(json).map_err(content)?;
        snapshot.check()?;
        Ok(snapshot)
    }
}

fn signed(json: &[u8], key: &SigningKey) -> Result<Vec<u8>, SnapshotError> {
    let signature = key.sign(MAGIC, json);
    let bytes = [MAGIC.as_bytes(), b" ", signature.as_bytes(), b"\n", json].concat();
    match bytes.len() <= SNAPSHOT_BYTES_MAX {
        true => Ok(bytes),
        false => Err(SnapshotError::TooLarge { bytes: bytes.len() }),
    }
}

/// An order to number snapshots in another epoch from now on. It is signed by the key that signs
/// snapshots: who can write into a state alone cannot have boxes forget what they hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochOrder {
    /// The epoch to come.
    pub epoch: u64,
    /// When it was given, in seconds since 1970.
    pub made_at: u64,
    signature: String,
}

impl EpochOrder {
    /// Gives one.
    pub fn sign(epoch: u64, made_at: u64, key: &SigningKey) -> EpochOrder {
        let signature = key.sign(EPOCH_MAGIC, format!("{epoch} {made_at}").as_bytes());
        EpochOrder { epoch, made_at, signature }
    }

    /// Whether one of `keys` has given it.
    pub fn is_of(&self, keys: &PublicKeys) -> bool {
        let text = format!("{} {}", self.epoch, self.made_at);
        let signature = STANDARD.decode(&self.signature);
        signature.is_ok_and(|it| keys.verify(EPOCH_MAGIC, text.as_bytes(), &it))
    }
}

/// What snapshots are signed by.
pub struct SigningKey(Ed25519KeyPair);

impl SigningKey {
    /// A new one, and how it is kept: PKCS #8, in DER.
    pub fn generate() -> (SigningKey, Vec<u8>) {
        let pair = Ed25519KeyPair::generate().expect("there is randomness");
        let kept = pair.to_pkcs8v1().expect("a key that was made can be written");
        (SigningKey(pair), kept.as_ref().to_vec())
    }

    /// One that was kept.
    pub fn of_pkcs8(der: &[u8]) -> Option<SigningKey> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).ok().map(SigningKey)
    }

    /// What it is verified by, in base64.
    pub fn public(&self) -> String {
        STANDARD.encode(self.0.public_key())
    }

    fn sign(&self, context: &str, text: &[u8]) -> String {
        STANDARD.encode(self.0.sign(&in_context(context, text)))
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(..)")
    }
}

/// The keys that are believed, whichever of them has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKeys(Vec<[u8; KEY_BYTES]>);

impl PublicKeys {
    /// Of what they are in base64.
    ///
    /// # Errors
    /// One is no key, there are none, or too many.
    pub fn of<S: AsRef<str>>(texts: &[S]) -> Result<PublicKeys, SnapshotError> {
        let key = |text: &S| STANDARD.decode(text.as_ref()).ok()?.try_into().ok();
        let keys: Option<Vec<_>> = texts.iter().map(key).collect();
        let keys = keys.filter(|keys| (1..=SNAPSHOT_KEYS_MAX).contains(&keys.len()));
        keys.map(PublicKeys).ok_or(SnapshotError::NoKey)
    }

    fn verify(&self, context: &str, text: &[u8], signature: &[u8]) -> bool {
        let text = in_context(context, text);
        let has_signed = |key: &[u8; KEY_BYTES]| {
            UnparsedPublicKey::new(&ED25519, key).verify(&text, signature).is_ok()
        };
        self.0.iter().any(has_signed)
    }
}

/// What is signed as one thing is never another.
fn in_context(context: &str, text: &[u8]) -> Vec<u8> {
    [context.as_bytes(), b"\n", text].concat()
}

/// What a snapshot begins with. Another number: another shape.
const MAGIC: &str = "tidegate-snapshot 1";
const EPOCH_MAGIC: &str = "tidegate-epoch 1";
const KEY_BYTES: usize = 32;
/// RFC 5280 section 4.1.2.2.
const SERIAL_BYTES_MAX: usize = 20;

/// What the fuzz target runs: bytes that are signed, and bytes as they are. No panic comes out, and
/// what is opened is opened again as it was when it is signed once more.
#[doc(hidden)]
pub fn fuzz(bytes: &[u8]) {
    let key = SigningKey::of_pkcs8(FUZZ_KEY).expect("it is a key");
    let keys = PublicKeys::of(&[key.public()]).expect("it has a public one");
    let _ = Signed::open(bytes, &keys);
    let Ok(signed) = signed(bytes, &key) else { return };
    let Ok(snapshot) = Signed::open(&signed, &keys) else { return };
    let again = snapshot.sign(&key).map(|bytes| Signed::open(&bytes, &keys));
    assert!(matches!(again, Ok(Ok(again)) if again == snapshot));
}

/// Nobody's: RFC 8410 section 10.3.
const FUZZ_KEY: &[u8] = &[
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    0xd4, 0xee, 0x72, 0xdb, 0xf9, 0x13, 0x58, 0x4a, 0xd5, 0xb6, 0xd8, 0xf1, 0xf7, 0x69, 0xf8, 0xad,
    0x3a, 0xfe, 0x7c, 0x28, 0xcb, 0xf1, 0xd4, 0xfb, 0xe0, 0x97, 0xa8, 0x8f, 0x44, 0x75, 0x58, 0x42,
];

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::*;
    use crate::control::registry::tests::appliance;
    use crate::control::registry::{Registry, Rules};
    use crate::message::fuzz::tests::seeds;

    type Changed<'a> = &'a dyn Fn(&mut serde_json::Value);

    fn snapshot(epoch: u64, counter: u64) -> Snapshot {
        let now = Instant::now();
        let mut registry = Registry::new(Rules::default());
        for name in ["edge-1", "edge-2"] {
            registry.register(appliance(name), now).unwrap();
        }
        Snapshot {
            number: Number { epoch, counter },
            made_at: 1_790_000_000,
            fleet: registry.fleet(now),
            keys: BTreeMap::from([("film".to_owned(), "{\"a\":{\"keys\":[]}}".to_owned())]),
            revoked: BTreeSet::from([Serial::of(&[0, 0xab]).unwrap()]),
        }
    }

    fn keys_of(key: &SigningKey) -> PublicKeys {
        PublicKeys::of(&[key.public()]).unwrap()
    }

    #[test]
    fn what_was_signed_is_opened_as_it_was_and_one_changed_byte_is_not() {
        let (key, kept) = SigningKey::generate();
        let snapshot = snapshot(1, 7);
        let bytes = snapshot.sign(&key).unwrap();
        let again = SigningKey::of_pkcs8(&kept).unwrap();
        assert_eq!(Signed::open(&bytes, &keys_of(&again)), Ok(snapshot));

        let ways = (0..bytes.len()).map(|at| {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            changed
        });
        let cut = (0..bytes.len()).map(|at| bytes[..at].to_vec());
        let keys = keys_of(&key);
        for changed in ways.chain(cut).chain([[&bytes[..], b" "].concat()]) {
            let error = Signed::open(&changed, &keys).unwrap_err();
            let expected = [SnapshotError::NoSnapshot, SnapshotError::Unverified];
            assert!(expected.contains(&error), "{error}");
        }
    }

    #[test]
    fn only_a_key_that_is_believed_counts_and_one_of_several_does() {
        let [(one, _), (other, _), (third, _)] = [(); 3].map(|()| SigningKey::generate());
        let bytes = snapshot(1, 1).sign(&one).unwrap();
        assert_eq!(Signed::open(&bytes, &keys_of(&other)), Err(SnapshotError::Unverified));
        let both = PublicKeys::of(&[third.public(), one.public()]).unwrap();
        assert!(Signed::open(&bytes, &both).is_ok());
        for wrong in [vec![], vec!["".to_owned()], vec![one.public(); SNAPSHOT_KEYS_MAX + 1]] {
            assert_eq!(PublicKeys::of(&wrong), Err(SnapshotError::NoKey));
        }
    }

    #[test]
    fn one_that_goes_back_is_refused_until_the_epoch_is_raised() {
        for (held, offered, may) in [
            ((1, 4), (1, 5), true),
            ((1, 4), (1, 4), false),
            ((1, 4), (1, 3), false),
            ((2, 1), (1, 9), false),
            ((1, 9), (2, 1), true),
            ((0, 0), (1, 1), true),
        ] {
            let held = Number { epoch: held.0, counter: held.1 };
            let offered = snapshot(offered.0, offered.1);
            assert_eq!(offered.follows(held).is_ok(), may, "{held} {}", offered.number);
        }
    }

    #[test]
    fn an_order_to_raise_the_epoch_is_no_snapshot_and_is_believed_of_the_key_alone() {
        let [(key, _), (other, _)] = [(); 2].map(|()| SigningKey::generate());
        let order = EpochOrder::sign(2, 1_790_000_000, &key);
        assert!(order.is_of(&keys_of(&key)) && !order.is_of(&keys_of(&other)));
        assert!(!EpochOrder { epoch: 3, ..order.clone() }.is_of(&keys_of(&key)));
        let text = format!("{MAGIC} {}\n2 1790000000", order.signature);
        let opened = Signed::open(text.as_bytes(), &keys_of(&key));
        assert_eq!(opened, Err(SnapshotError::Unverified));
    }

    #[test]
    fn what_is_signed_and_yet_no_snapshot_is_refused() {
        let (key, _) = SigningKey::generate();
        let whole = serde_json::to_value(snapshot(1, 1)).unwrap();
        let with = |change: &dyn Fn(&mut serde_json::Value)| {
            let mut value = whole.clone();
            change(&mut value);
            let bytes = signed(&serde_json::to_vec(&value).unwrap(), &key).unwrap();
            Signed::open(&bytes, &keys_of(&key))
        };
        assert!(with(&|_| {}).is_ok());
        assert!(with(&|value| value["later"] = 1.into()).is_ok(), "a later version says more");
        let of_one = with(&|value| value["fleet"][0]["appliance"]["later"] = 1.into());
        assert_eq!(of_one, Ok(snapshot(1, 1)), "of an appliance too");
        let changes: [(Changed<'_>, &str); 6] = [
            (&|value| value["number"]["epoch"] = (-1).into(), "invalid value"),
            (&|value| value["fleet"][1] = value["fleet"][0].clone(), "two appliances are called"),
            (
                &|value| {
                    value["fleet"][1]["appliance"]["pathway"] =
                        value["fleet"][0]["appliance"]["pathway"].clone();
                },
                "one pathway",
            ),
            (&|value| value["keys"]["../x"] = "{}".into(), "no key file can be called"),
            (&|value| value["revoked"][0] = "AB".into(), "no serial number"),
            (&|value| value["keys"]["a"] = "x".repeat(KEY_FILE_BYTES_MAX + 1).into(), "too many"),
        ];
        for (change, says) in changes {
            let error = with(change).unwrap_err().to_string();
            assert!(error.contains(says) && error.lines().count() == 1, "{error}");
        }
        let large = vec![b' '; SNAPSHOT_BYTES_MAX + 1];
        let error = Signed::open(&large, &keys_of(&key)).unwrap_err();
        assert_eq!(error, SnapshotError::TooLarge { bytes: SNAPSHOT_BYTES_MAX + 1 });
    }

    #[test]
    fn a_number_is_read_as_it_is_written() {
        let number = Number { epoch: 2, counter: u64::MAX };
        assert_eq!(number.to_string().parse(), Ok(number));
        for wrong in
            ["", "1", "1.", ".1", "1.2.3", "+1.2", "1.-2", "1. 2", "99999999999999999999.1"]
        {
            assert_eq!(wrong.parse::<Number>(), Err(SnapshotError::NoNumber), "{wrong}");
        }
    }

    #[test]
    fn the_seeds_keep_the_promises() {
        seeds("snapshot", 4).iter().for_each(|seed| fuzz(seed));
    }

    proptest! {
        #[test]
        fn no_bytes_break_a_promise(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            fuzz(&bytes);
        }
    }
}
