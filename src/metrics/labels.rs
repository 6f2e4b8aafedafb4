//! The closed vocabulary of label values: every series is known before the first request.
//!
//! A label is an enum, so no path, host, viewer or error text can ever become one, and a count is
//! found by its index instead of by hashing strings. Pairs of labels are labels too.

use prometheus::proto;

/// What a count is told apart by: a closed set of values, or several of them together.
pub trait Labels: Copy + 'static {
    /// How many values there are.
    const COUNT: usize;

    /// This value's place among `COUNT`.
    fn index(self) -> usize;

    /// The value at `index`, which is below `COUNT`.
    fn at(index: usize) -> Self;

    /// Appends label names and the value's words, in a fixed order.
    fn append_to(self, pairs: &mut Vec<(&'static str, &'static str)>);
}

/// No labels: one series.
impl Labels for () {
    const COUNT: usize = 1;

    fn index(self) -> usize {
        0
    }

    fn at(_index: usize) {}

    fn append_to(self, _pairs: &mut Vec<(&'static str, &'static str)>) {}
}

impl<A: Labels, B: Labels> Labels for (A, B) {
    const COUNT: usize = A::COUNT * B::COUNT;

    fn index(self) -> usize {
        self.0.index() * B::COUNT + self.1.index()
    }

    fn at(index: usize) -> (A, B) {
        (A::at(index / B::COUNT), B::at(index % B::COUNT))
    }

    fn append_to(self, pairs: &mut Vec<(&'static str, &'static str)>) {
        self.0.append_to(pairs);
        self.1.append_to(pairs);
    }
}

/// Defines enums whose variants are the values of one label: `ALL`, `label()` and [`Labels`].
macro_rules! closed_labels {
    ($(
        $(#[$doc:meta])*
        $name:ident($label:literal) {
            $( $(#[$variant_doc:meta])* $variant:ident = $word:literal, )+
        }
    )+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $( $(#[$variant_doc])* $variant, )+ }

        impl $name {
            /// Every value, in the order of their indices.
            pub const ALL: &'static [$name] = &[ $( $name::$variant, )+ ];

            /// The label's value, as metrics and documents write it.
            pub fn label(self) -> &'static str {
                match self { $( $name::$variant => $word, )+ }
            }
        }

        impl Labels for $name {
            const COUNT: usize = $name::ALL.len();

            fn index(self) -> usize {
                self as usize
            }

            fn at(index: usize) -> $name {
                $name::ALL[index]
            }

            fn append_to(self, pairs: &mut Vec<(&'static str, &'static str)>) {
                pairs.push(($label, self.label()));
            }
        }
    )+};
}

mod tokens;
pub use tokens::{Barred, CatShown, Shown};

closed_labels! {
    /// The HTTP version of a viewer's connection.
    Protocol("protocol") {
        /// HTTP/1.0 and HTTP/1.1.
        Http1 = "http1",
        /// HTTP/2.
        Http2 = "http2",
    }

    /// Whether a viewer's connection is encrypted.
    Scheme("scheme") {
        /// Cleartext.
        Plain = "plain",
        /// TLS.
        Tls = "tls",
    }

    /// A request's method.
    Method("method") {
        /// GET.
        Get = "get",
        /// HEAD.
        Head = "head",
        /// Any other.
        Other = "other",
    }

    /// The first digit of a response's status.
    StatusClass("status") {
        /// 200 to 299.
        Success = "2xx",
        /// 300 to 399.
        Redirection = "3xx",
        /// 400 to 499.
        ClientError = "4xx",
        /// 500 to 599.
        ServerError = "5xx",
        /// Anything else an origin may say.
        Other = "other",
    }

    /// Where the bytes of a response body came from.
    Tier("tier") {
        /// Held in ram before the request.
        Ram = "ram",
        /// Read from the ssd tier for this request.
        Ssd = "ssd",
        /// Brought by a fill run since the request came.
        Fill = "fill",
        /// Passed from the origin without being kept.
        Pass = "pass",
    }

    /// What the look-up of a request's object and bytes found.
    Lookup("result") {
        /// All of it, fresh, the first of its bytes in ram.
        Hit = "hit",
        /// All of it, fresh, the first of its bytes on an ssd.
        HitSsd = "hit_ssd",
        /// None of it.
        Miss = "miss",
        /// Some of the bytes asked for.
        Partial = "partial",
        /// A stale answer the origin said is still good.
        Revalidated = "revalidated",
        /// A fill run that was under way for someone else.
        Collapsed = "collapsed",
        /// The memory that this object may not be shared.
        Uncacheable = "uncacheable",
        /// Answered with what is stale: its origin failed, or is slow.
        Stale = "stale",
    }

    /// Why a viewer asks here, by the decision of steering that he comes by.
    Cause("cause") {
        /// No appliance would be better for him, or has what he asks for.
        Content = "content",
        /// A better one is ill, full, near its limit, starting or leaving.
        Health = "health",
        /// No route of his is known where others have some, or a better one cannot be his.
        Route = "route",
        /// He comes without a decision, by one for another appliance or an old one, or his player
        /// left the appliance that was the best.
        Viewer = "viewer",
    }

    /// Whether the cache had what he asks for.
    Cached("cache") {
        /// All of it.
        Hit = "hit",
        /// Not all of it.
        Miss = "miss",
        /// It may not be kept.
        Uncacheable = "uncacheable",
    }

    /// How the wait for a first byte was spent.
    Wait("result") {
        /// The first byte was in ram.
        Hit = "hit",
        /// The first byte had to be read from an ssd.
        Ssd = "ssd",
        /// The first byte had to come from the origin.
        Miss = "miss",
    }

    /// How a body's sending ended.
    BodyEnd("outcome") {
        /// The last byte was handed to the connection.
        Complete = "complete",
        /// The viewer left first.
        ClientLeft = "client_left",
        /// An error after the head was sent.
        CutShort = "cut_short",
    }

    /// How a fill run ended.
    RunEnd("outcome") {
        /// It brought what it was started for.
        Complete = "complete",
        /// It stopped at a block border because everyone had gone.
        Parked = "parked",
        /// The origin failed it, after retries.
        Failed = "failed",
        /// The origin's object turned out to be another version.
        Changed = "changed",
    }

    /// Why a request was refused before anything was looked up.
    Refused("reason") {
        /// A line does not end with CR LF.
        LineEnd = "line_end",
        /// Its first line is malformed.
        StartLine = "start_line",
        /// A field goes on in the next line, or its name or value is malformed.
        Field = "field",
        /// How long its body is can be read in two ways.
        Framing = "framing",
        /// Another method than is answered.
        Method = "method",
        /// Its target is too long.
        TargetLength = "target_length",
        /// It has too many fields.
        Fields = "fields",
        /// It has a body.
        Body = "body",
        /// It expects what is not done.
        Expectation = "expectation",
        /// Its target is none.
        Target = "target",
        /// It names no host, or several, or what is none.
        Host = "host",
        /// No site has its host.
        Misdirected = "misdirected",
        /// It has been here before.
        Loop = "loop",
        /// The operator drains the appliance.
        Draining = "draining",
    }

    /// What a player says that it asks for (CMCD `ot`).
    ObjectType("object_type") {
        /// A manifest or playlist.
        Manifest = "m",
        /// Audio.
        Audio = "a",
        /// Video.
        Video = "v",
        /// Both in one.
        Muxed = "av",
        /// An initialisation segment.
        Init = "i",
        /// Captions or subtitles.
        Captions = "c",
        /// Timed text in ISO BMFF.
        TimedText = "tt",
        /// A key, a licence or a certificate.
        Key = "k",
        /// Something else.
        Other = "o",
        /// It does not say.
        None = "none",
    }

    /// What became of the object that a player will ask for next.
    Prefetch("outcome") {
        /// It is being brought.
        Started = "started",
        /// It is known already, or somebody asks.
        Known = "known",
        /// There are too many of this viewer, or of all.
        Limited = "limited",
        /// There is no room, and who waits comes first.
        Busy = "busy",
        /// It is none of this site, or it is not to be asked for.
        Refused = "refused",
    }

    /// What an origin did wrong.
    OriginError("kind") {
        /// No connection, or no TLS session.
        Connect = "connect",
        /// No first byte in time.
        TimeoutFirstByte = "timeout_first_byte",
        /// No progress for too long.
        TimeoutProgress = "timeout_progress",
        /// It closed before the end.
        Closed = "closed",
        /// Another range than was asked for, or more bytes than its head promised.
        BadRange = "bad_range",
        /// Bytes that are not those its digest is of.
        BadDigest = "bad_digest",
        /// Another validator than the version's.
        Changed = "changed",
        /// A status or a redirect that cannot be used; also no memory, run or connection for it.
        Status = "status",
    }
}

impl Method {
    /// The label of a request's method.
    pub fn of(method: &http::Method) -> Method {
        match *method {
            http::Method::GET => Method::Get,
            http::Method::HEAD => Method::Head,
            _ => Method::Other,
        }
    }
}

impl ObjectType {
    /// The type of that word; `None` is one too.
    pub fn of(word: Option<&str>) -> ObjectType {
        let told = ObjectType::ALL.iter().find(|kind| Some(kind.label()) == word);
        told.copied().unwrap_or(ObjectType::None)
    }
}

impl StatusClass {
    /// The class of a response's status.
    pub fn of(status: http::StatusCode) -> StatusClass {
        match status.as_u16() / 100 {
            2 => StatusClass::Success,
            3 => StatusClass::Redirection,
            4 => StatusClass::ClientError,
            5 => StatusClass::ServerError,
            _ => StatusClass::Other,
        }
    }
}

/// Names and values, as they are told.
pub(super) fn pairs(labels: &[(&str, &str)]) -> Vec<proto::LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn every_value<L: Labels>() -> Vec<Vec<(&'static str, &'static str)>> {
        let value = |index| {
            assert_eq!(L::at(index).index(), index);
            let mut pairs = Vec::new();
            L::at(index).append_to(&mut pairs);
            pairs
        };
        (0..L::COUNT).map(value).collect()
    }

    #[test]
    fn each_value_has_a_place_and_words_of_its_own() {
        let values = every_value::<((Protocol, Scheme), (Method, StatusClass))>();
        assert_eq!(values.len(), 2 * 2 * 3 * 5);
        let unique: std::collections::HashSet<_> = values.iter().collect();
        assert_eq!(unique.len(), values.len());
        assert_eq!(
            values[0],
            [("protocol", "http1"), ("scheme", "plain"), ("method", "get"), ("status", "2xx")]
        );
        assert_eq!(every_value::<()>(), [vec![]]);
        assert_eq!(every_value::<OriginError>().len(), 8);
    }

    #[test]
    fn methods_and_statuses_from_outside_fall_into_the_closed_set() {
        let method = |name: &str| Method::of(&http::Method::from_bytes(name.as_bytes()).unwrap());
        assert_eq!(method("GET"), Method::Get);
        assert_eq!(method("HEAD"), Method::Head);
        assert_eq!(method("get"), Method::Other);
        assert_eq!(ObjectType::of(Some("av")), ObjectType::Muxed);
        assert_eq!([None, Some("x")].map(ObjectType::of), [ObjectType::None; 2]);
        let class = |code| StatusClass::of(http::StatusCode::from_u16(code).unwrap()).label();
        for (code, expected) in
            [(101, "other"), (206, "2xx"), (304, "3xx"), (416, "4xx"), (503, "5xx"), (999, "other")]
        {
            assert_eq!(class(code), expected, "{code}");
        }
    }
}
