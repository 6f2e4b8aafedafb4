//! How the control plane answers: what is said, and by which status who asked is refused.

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;
use serde_json::Value;

use crate::control::asking::{JSON, Said, refusal};
use crate::control::issuer::IssuerError;
use crate::control::registry::RegistryError;
use crate::control::snapshot::SnapshotError;
use crate::control::state::StateError;

/// What is answered where all is well.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) content_type: HeaderValue,
    pub(super) body: Bytes,
}

impl Reply {
    pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Reply {
        let mut body = serde_json::to_vec(value).expect("text and numbers can be written as JSON");
        body.push(b'\n');
        Reply { status, content_type: JSON, body: body.into() }
    }

    pub(super) fn nothing() -> Reply {
        Reply { status: StatusCode::NO_CONTENT, content_type: JSON, body: Bytes::new() }
    }
}

/// What is sent.
pub(super) fn response(answered: Result<Reply, Said>) -> Response<Full<Bytes>> {
    let refused = |(status, value): Said| {
        let mut reply = Reply::json(status, &value);
        reply.status = status;
        reply
    };
    let allowed = match &answered {
        Err((StatusCode::METHOD_NOT_ALLOWED, value)) => allow(value),
        _ => None,
    };
    let Reply { status, content_type, body } = answered.unwrap_or_else(refused);
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let fields = response.headers_mut();
    fields.insert(CONTENT_TYPE, content_type);
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    fields.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    match status {
        StatusCode::UNAUTHORIZED => {
            drop(fields.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")));
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            drop(fields.insert(RETRY_AFTER, HeaderValue::from_static("1")));
        }
        _ => allowed.into_iter().for_each(|allowed| drop(fields.insert(ALLOW, allowed))),
    }
    response
}

/// The methods that a refusal names.
fn allow(refusal: &Value) -> Option<HeaderValue> {
    let methods = refusal["error"].as_str()?.strip_prefix("send ")?.replace(" or ", ", ");
    HeaderValue::from_str(&methods).ok()
}

/// How who asked for what a state cannot do is refused.
pub(super) fn of_state(error: StateError) -> Said {
    let status = match &error {
        StateError::NoCode | StateError::Revoked => StatusCode::FORBIDDEN,
        StateError::Unknown { .. } => StatusCode::NOT_FOUND,
        StateError::PathwayTaken { .. } | StateError::EpochTooLate { .. } => StatusCode::CONFLICT,
        StateError::Full { .. } | StateError::NotEmpty | StateError::EpochGoesBack { .. } => {
            StatusCode::CONFLICT
        }
        StateError::Contended
        | StateError::Away { .. }
        | StateError::Gone { .. }
        | StateError::Importing => StatusCode::SERVICE_UNAVAILABLE,
        StateError::InUse { .. } | StateError::Broken { .. } | StateError::Malformed { .. } => {
            tracing::error!("{error}");
            let text = "the state of the control plane cannot be used: its log says why";
            return refusal(StatusCode::INTERNAL_SERVER_ERROR, text);
        }
    };
    refusal(status, &error.to_string())
}

pub(super) fn of_registry(error: &RegistryError) -> Said {
    let status = match error {
        RegistryError::Unknown { .. } => StatusCode::NOT_FOUND,
        RegistryError::PathwayTaken { .. } | RegistryError::Full => StatusCode::CONFLICT,
    };
    refusal(status, &error.to_string())
}

pub(super) fn of_issuer(error: &IssuerError) -> Said {
    let status = match error {
        IssuerError::Request(_) => StatusCode::BAD_REQUEST,
        IssuerError::Clock { .. } => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    if status != StatusCode::BAD_REQUEST {
        tracing::error!("{error}");
    }
    refusal(status, &error.to_string())
}

pub(super) fn of_snapshot(error: &SnapshotError) -> Said {
    refusal(StatusCode::CONFLICT, &error.to_string())
}
