//! The methods that are passed on to an origin, beside GET and HEAD, which are answered here.

use http::Method;
use http::header::HeaderValue;

/// What a rule lets through, in the order it was written. Empty: nothing.
///
/// Never GET and HEAD, which every rule answers, and never CONNECT, TRACE and PURGE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Methods {
    passed: Vec<Method>,
    allow: HeaderValue,
}

impl Methods {
    /// These.
    pub fn new(passed: Vec<Method>) -> Methods {
        let names: Vec<&str> =
            ANSWERED.into_iter().chain(passed.iter().map(Method::as_str)).collect();
        let allow = HeaderValue::from_str(&names.join(", "));
        Methods { passed, allow: allow.expect("methods are tokens, and tokens are a field value") }
    }

    /// Whether requests with this method are passed on.
    pub fn pass(&self, method: &Method) -> bool {
        self.passed.contains(method)
    }

    /// Those that are, as they are written.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.passed.iter().map(Method::as_str)
    }

    /// For `Allow`: these, and those that are answered anyway.
    pub fn allow(&self) -> &HeaderValue {
        &self.allow
    }
}

impl Default for Methods {
    fn default() -> Methods {
        Methods::new(Vec::new())
    }
}

/// By every rule.
const ANSWERED: [&str; 2] = ["GET", "HEAD"];
