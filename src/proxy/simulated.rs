//! The simulator as an upstream.

use axum::body::Body;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, Response};

use super::{Upstream, UpstreamError};
use crate::sim::Sim;

/// Answers by simulation; it is always there.
pub struct Simulated(pub Sim);

impl Upstream for Simulated {
    fn send(&self, request: Request<Body>) -> BoxFuture<'_, Result<Response<Body>, UpstreamError>> {
        self.0.answer(request).map(Ok).boxed()
    }
}
