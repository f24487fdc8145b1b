//! The simulator as an upstream.

use axum::body::Body;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};

use super::{About, Upstream, UpstreamError};
use crate::sim::{Owner, Sim};

/// Answers by simulation; it is always there.
pub struct Simulated(pub Sim);

impl Upstream for Simulated {
    fn send(
        &self,
        request: Request<Body>,
        about: About,
    ) -> BoxFuture<'_, Result<Response<Body>, UpstreamError>> {
        self.0.answer(request, about.tenant.map(Owner)).map(Ok).boxed()
    }
}
