//! Lines of an appliance, for as long as they come.

use std::ops::ControlFlow;

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, Full};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use crate::cli::Failure;
use crate::cli::admin::{
    ANSWER_BYTES_MAX, ANSWER_WITHIN, Answer, answered, connected, runtime, sent, silent, stranger,
};

/// Has `line` read each line of what comes, until it has seen enough or somebody presses Ctrl-C.
/// What is no such answer is told whole.
pub(super) fn lines(
    addresses: &[String],
    request: &Request<Full<Bytes>>,
    mut line: impl FnMut(&str) -> ControlFlow<Result<(), Failure>>,
) -> Result<Option<Answer>, Failure> {
    runtime()?.block_on(async {
        let (stream, address) = connected(addresses).await?;
        let asking = timeout(ANSWER_WITHIN, sent(stream, address, request.clone()));
        let asked = asking.await.map_err(|_| silent(address, "no answer in time"))?;
        let (response, _connection) = asked.map_err(|what| stranger(address, &what))?;
        if response.headers().get(CONTENT_TYPE).is_none_or(|of| of != LINES) {
            let answer = answered(response, address).await;
            return answer.map(Some).map_err(|what| stranger(address, &what));
        }
        let mut body = response.into_body();
        let failed = |error| Failure::Failed(format!("cannot listen for Ctrl-C: {error}"));
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let mut waiting = Vec::new();
        loop {
            let frame = tokio::select! {
                _ = interrupt.recv() => return Ok(None),
                frame = body.frame() => frame,
            };
            let Some(Ok(frame)) = frame else {
                let text = format!("the appliance at {address} tells no more: it has ended");
                return Err(Failure::Failed(text));
            };
            waiting.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            while let Some(end) = waiting.iter().position(|byte| *byte == b'\n') {
                let whole: Vec<u8> = waiting.drain(..=end).collect();
                if let ControlFlow::Break(done) = line(&String::from_utf8_lossy(&whole)) {
                    return done.map(|()| None);
                }
            }
            if waiting.len() > ANSWER_BYTES_MAX {
                return Err(stranger(address, "its answer has no lines"));
            }
        }
    })
}

/// A text as it stands in a query.
pub(in crate::cli) fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
            char::from(byte).to_string()
        }
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Lines of JSON.
const LINES: &str = "application/x-ndjson";
