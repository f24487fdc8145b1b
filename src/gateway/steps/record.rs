//! What is told of a request, once: one sample, one line.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::response::Response;
use http::HeaderValue;

use super::MODE;
use crate::error::{Reason, Refused};
use crate::gateway::answer::OURS;
use crate::gateway::call::{Call, REQUEST_ID};
use crate::gateway::{Both, Gateway};
use crate::telemetry::{Finished, Report, observed};

/// Puts the call's id and the gateway's mode on the answer; counts it and writes its line once it has been sent or
/// given up.
pub(in crate::gateway) fn record(
    plane: Arc<Both>,
    call: Arc<Call>,
    line: String,
    response: Response,
) -> Response {
    let gateway = &plane.gateway;
    let (mut parts, body) = response.into_parts();
    parts.headers.reserve(OURS); // all at once is less work than one by one
    parts.headers.insert(REQUEST_ID, call.request_id.header());
    parts.headers.insert(MODE, HeaderValue::from_static(mode_of(gateway, &call)));
    call.write_notes(&mut parts.headers);
    let status = parts.status.as_u16();
    let refused = parts.extensions.get::<Refused>().map(|refused| refused.0);
    if let Some(reason) = refused {
        gateway.parts.metrics.refused(call.tenant(), reason);
    }
    // What is our own may wait on purpose; that is no overhead. Nor is the time that a body takes to stream.
    let waited = Duration::from_micros(call.upstream_micros.load(Ordering::Relaxed));
    let overhead = (!call.own).then(|| call.began.elapsed().saturating_sub(waited));
    let then =
        move |report: Report| tell(&plane, &call, &line, &Ending { status, overhead, refused, report });
    Response::from_parts(parts, observed(body, then))
}

/// Counts a request that was given up before there was an answer, and writes its line.
pub(in crate::gateway) fn record_unanswered(plane: &Both, call: &Call, line: &str) {
    let status = if std::thread::panicking() { BROKEN } else { CLIENT_GONE };
    let ending = Ending { status, overhead: None, refused: None, report: Report::default() };
    tell(plane, call, line, &ending);
}

/// What stands for the status of a request that nobody waited for; nginx says so, too.
const CLIENT_GONE: u16 = 499;
/// The same where the gateway itself broke.
const BROKEN: u16 = 500;

/// What became of a request.
struct Ending {
    status: u16,
    overhead: Option<Duration>,
    refused: Option<Reason>,
    report: Report,
}

fn tell(plane: &Both, call: &Call, line: &str, ending: &Ending) {
    let gateway = &plane.gateway;
    let Ending { status, overhead, refused, report } = *ending;
    let took = call.began.elapsed();
    // A file that a client brought may look like an envelope, and means nothing.
    let code = report.code.filter(|_| !call.own);
    gateway.parts.metrics.request_finished(&Finished {
        tenant: call.tenant(),
        operation: call.operation,
        mode: mode_of(gateway, call),
        status,
        code,
        took,
        overhead,
    });
    let duration_ms = (took.as_secs_f64() * 1e6).round() / 1e3; // to the microsecond
    tracing::info!(
        request.id = call.request_id(),
        tenant = call.tenant(),
        operation = call.operation,
        status,
        code,
        bytes = report.bytes,
        complete = report.complete,
        duration_ms,
        refused = refused.map(Reason::name),
        "{line}",
    );
}

/// The mode in which a request is answered.
fn mode_of(gateway: &Gateway, call: &Call) -> &'static str {
    call.member.get().map_or(gateway.parts.mode, |member| member.mode).as_str()
}
