//! The simulator as an upstream.

use std::sync::{Arc, OnceLock};

use axum::body::Body;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;

use super::headers::strip_private;
use super::{About, Upstream, UpstreamError, World, fault_of_body};
use crate::sim::{Owner, Sim};

const OUTCOME: HeaderName = HeaderName::from_static("x-mock-outcome");

/// Answers by simulation; it is always there.
pub struct Simulated(pub Sim);

impl Upstream for Simulated {
    fn send(
        &self,
        request: Request<Body>,
        about: About,
    ) -> BoxFuture<'_, Result<Response<Body>, UpstreamError>> {
        let owner = about.tenant.map(Owner);
        if !about.streams {
            return self.0.answer(request, owner).map(Ok).boxed();
        }
        let broken = Arc::new(OnceLock::new());
        let request = request.map(|body| watched(body, Arc::clone(&broken)));
        async move {
            let answer = self.0.answer(request, owner).await;
            // What the simulator makes of half a body is not what the client is to hear.
            broken.get().copied().map_or(Ok(answer), |fault: Fault| Err(fault.into()))
        }
        .boxed()
    }

    fn world(&self, headers: &HeaderMap, tenant: Option<&Arc<str>>) -> Option<World> {
        let owner = tenant.map(|tenant| Owner(Arc::clone(tenant)));
        let (name, now) = self.0.world(headers, owner.as_ref());
        Some(World { name, now })
    }
}

/// Answers where a request names what is not the caller's: by a simulation that knows no task but those which came of such
/// requests, each tenant's apart. What the caller wishes of a simulator is not heard.
pub struct Nowhere(pub Sim);

impl Upstream for Nowhere {
    fn send(
        &self,
        mut request: Request<Body>,
        about: About,
    ) -> BoxFuture<'_, Result<Response<Body>, UpstreamError>> {
        strip_private(request.headers_mut());
        // A wish that wishes nothing stands before any in a prompt.
        request.headers_mut().insert(OUTCOME, HeaderValue::from_static(""));
        let world = format!("Bearer nowhere-{}", about.tenant.as_deref().unwrap_or_default());
        if let Ok(world) = HeaderValue::from_str(&world) {
            request.headers_mut().insert(AUTHORIZATION, world);
        }
        self.0.answer(request, None).map(Ok).boxed()
    }
}

/// Why a body broke off.
#[derive(Clone, Copy, Debug)]
enum Fault {
    TooLarge,
    Timeout,
    Broken,
}

impl From<Fault> for UpstreamError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::TooLarge => Self::BodyTooLarge,
            Fault::Timeout => Self::BodyTimeout,
            Fault::Broken => Self::BodyBroken,
        }
    }
}

/// `body`, and a note of why it broke off if it did.
fn watched(body: Body, broken: Arc<OnceLock<Fault>>) -> Body {
    Body::new(body.map_err(move |error| {
        let fault = match fault_of_body(&error) {
            Some(UpstreamError::BodyTooLarge) => Fault::TooLarge,
            Some(UpstreamError::BodyTimeout) => Fault::Timeout,
            _ => Fault::Broken,
        };
        let _ = broken.set(fault);
        error
    }))
}
