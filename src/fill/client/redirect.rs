//! Where an origin sends us instead of an answer.

use http::header::LOCATION;
use http::uri::Scheme as UriScheme;
use http::{HeaderValue, Response, Uri};

use crate::fill::error::FillError;
use crate::site::Redirects;

/// Where a redirect that is followed points.
pub(super) fn followed<B>(redirects: Redirects, response: &Response<B>) -> Option<HeaderValue> {
    let is_one = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
    (is_one && redirects == Redirects::Follow)
        .then(|| response.headers().get(LOCATION).cloned())
        .flatten()
}

/// An absolute URI or an absolute path; anything else leads nowhere.
pub(super) fn resolve(base: &Uri, location: &HeaderValue) -> Result<Uri, FillError> {
    let text = String::from_utf8_lossy(location.as_bytes()).into_owned();
    let wrong = || FillError::Redirect { location: text.clone() };
    let uri = Uri::try_from(text.as_str()).map_err(|_| wrong())?;
    match (uri.scheme(), uri.authority()) {
        (Some(scheme), Some(_)) if [UriScheme::HTTP, UriScheme::HTTPS].contains(scheme) => Ok(uri),
        (None, None) if text.starts_with('/') => {
            let mut parts = base.clone().into_parts();
            parts.path_and_query = uri.path_and_query().cloned();
            Uri::from_parts(parts).map_err(|_| wrong())
        }
        _ => Err(wrong()),
    }
}
