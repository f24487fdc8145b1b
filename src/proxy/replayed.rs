//! A recording as an upstream. Time, callbacks and the control API are those of a sandbox.

use std::sync::Arc;

use axum::body::Body;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt as _;

use super::{About, Upstream, UpstreamError, World};
use crate::record::{Answer, Library, Progress};
use crate::sim::{Letter, Owner, Sim};

/// Answers from a recording, and calls back from it.
pub struct Replayed {
    /// Where clients have their clock.
    pub sim: Sim,
    /// What is answered.
    pub library: Arc<Library>,
}

impl Replayed {
    async fn answer(&self, request: Request<Body>, about: About) -> Result<Response<Body>, UpstreamError> {
        let (parts, body) = request.into_parts();
        let body = read(body, about.streams).await?;
        let seen = body.clone().unwrap_or_default();
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let asking = self.library.read(&parts.method, target, body);
        let otherwise = self.library.is_open(&asking).then_some("");
        let owner = about.tenant.map(Owner);
        let witness = self.sim.witness(&parts, &seen, otherwise, owner.as_ref());
        let played = self.sim.host(
            &parts.headers,
            otherwise,
            owner.as_ref(),
            |progress: &mut Progress, now| match self.library.play(progress, &asking, now) {
                Ok(played) => {
                    let letters = played.callbacks.into_iter().map(|callback| Letter {
                        task: callback.task,
                        url: callback.url,
                        body: callback.body,
                        after: callback.after,
                    });
                    (Ok(played.answer), letters.collect())
                }
                Err(error) => (Err(UpstreamError::NotRecorded(error.to_string())), Vec::new()),
            },
        );
        match played {
            Some(answer) => answer.map(|answer| match witness {
                Some(witness) => witness.answered(response(answer)),
                None => response(answer),
            }),
            // Without a key the real API says one and the same to all.
            None => Ok(self.sim.answer(Request::from_parts(parts, Body::empty()), None).await),
        }
    }
}

/// The body; of one that streams it is only seen to it that it comes to its end.
async fn read(mut body: Body, streams: bool) -> Result<Option<bytes::Bytes>, UpstreamError> {
    let broken = |error: axum::Error| UpstreamError::of_body(&error);
    if !streams {
        return Ok(Some(body.collect().await.map_err(broken)?.to_bytes()));
    }
    while let Some(frame) = body.frame().await {
        frame.map_err(broken)?;
    }
    Ok(None)
}

fn response(answer: Answer) -> Response<Body> {
    let mut response = Response::new(answer.body.map_or_else(Body::empty, Body::from));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

impl Upstream for Replayed {
    fn send(
        &self,
        request: Request<Body>,
        about: About,
    ) -> BoxFuture<'_, Result<Response<Body>, UpstreamError>> {
        self.answer(request, about).boxed()
    }

    fn world(&self, headers: &HeaderMap, tenant: Option<&Arc<str>>) -> Option<World> {
        let owner = tenant.map(|tenant| Owner(Arc::clone(tenant)));
        let (name, now) = self.sim.world(headers, owner.as_ref());
        Some(World { name, now })
    }
}
