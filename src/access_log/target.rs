//! What was asked for, as far as logs may tell it.

use std::borrow::Cow;

use crate::object::ObjectKey;

/// What was asked for, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// An object: its path and canonical query are logged.
    Object(&'a ObjectKey),
    /// An object whose query may hold a secret, a signature perhaps: the names of its parameters
    /// are logged, their values are not.
    Discreet(&'a ObjectKey),
    /// A path that led to no object; anything from a `?` on is left out.
    Path(&'a str),
}

impl<'a> Target<'a> {
    /// What may be told of it.
    pub fn as_logged(self) -> Cow<'a, str> {
        match self {
            Target::Object(key) => key.target().into(),
            Target::Discreet(key) => without_values(key.target()),
            Target::Path(path) => path.split('?').next().unwrap_or_default().into(),
        }
    }
}

/// `/a?b=1&c` -> `/a?b=`; what has no name is left out.
fn without_values(target: &str) -> Cow<'_, str> {
    let Some((path, query)) = target.split_once('?') else { return target.into() };
    let mut logged = format!("{path}?");
    let named = query.split('&').filter_map(|parameter| parameter.split_once('='));
    for (number, (name, _)) in named.enumerate() {
        logged.push_str(if number == 0 { "" } else { "&" });
        logged.push_str(name);
        logged.push('=');
    }
    logged.into()
}
