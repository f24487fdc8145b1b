//! Connections that are opened when needed and kept for the next request.
//!
//! A connection belongs to whoever uses it: the future that waits for an answer, and then the answer's body, drive it, and
//! put it back when all has been read. So nothing has to be handed from task to task, and a request that is given up ends
//! its connection with it. HTTP/2, which carries many requests at once, is `shared`. Each lane has its own
//! connections, since a socket is best used where it is waited for.

mod shared;

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::header::HOST;
use http::{Request, Response, Uri};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connection as _, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio::time::{Instant, timeout};
use tower::{Service as _, ServiceExt as _};

use shared::{Place, Shared};

use super::destination::path;
use super::{Destination, Error};
use crate::background::{self, PerLane};

/// A pool for each lane, and one for all others.
pub(super) struct Pools {
    connector: HttpsConnector<HttpConnector>,
    /// How long it may take until a connection can be used, TLS and all.
    connect_timeout: Duration,
    ping: Duration,
    lanes: PerLane<Arc<Lane>>,
}

/// The pool of one lane.
struct Lane {
    idle_timeout: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    hosts: HashMap<Destination, Kept, ahash::RandomState>,
    /// Somebody is going to look after those that are kept for too long.
    is_swept: bool,
}

/// Connections to a host, and whose turn it is to open one.
#[derive(Default)]
struct Kept {
    /// Those that nobody uses. The one that was used last is the last.
    idle: Vec<(Link, Instant)>,
    /// Those that many can use.
    shared: Vec<Shared>,
    /// Held by whoever opens another one of those, which others wait for rather than open one each.
    opening: Option<Arc<Opening>>,
}

/// Whether the last attempt at a connection that many can use went well.
type Opening = tokio::sync::Mutex<bool>;

type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// A connection for one request at a time, with both of its ends.
struct Link {
    sender: http1::SendRequest<Body>,
    connection: Connection,
    /// Where it leads.
    host: Destination,
}

/// What moves the bytes; nothing once it is over. What waits in it for its turn is given back when it goes.
struct Connection(Option<Box<http1::Connection<Stream, Body>>>);

impl Connection {
    /// Moves what can be moved.
    fn drive(&mut self, context: &mut Context<'_>) {
        if let Some(connection) = &mut self.0
            && Pin::new(&mut **connection).poll(context).is_ready()
        {
            self.0 = None;
        }
    }
}

/// Why there is no answer, and the request where it has not been sent.
type Unsent = TrySendError<Request<Body>>;

impl Pools {
    pub(super) fn new(
        connector: HttpsConnector<HttpConnector>,
        connect_timeout: Duration,
        idle_timeout: Duration,
    ) -> Self {
        let lane = || Arc::new(Lane { idle_timeout, state: Mutex::default() });
        Self { connector, connect_timeout, ping: shared::PING, lanes: PerLane::new(lane) }
    }

    /// Sends `request` to `host` and waits for the head of the answer. Of the request's address path and query count.
    #[expect(clippy::manual_async_fn, reason = "an async function has room for what it is given twice")]
    pub(super) fn send(
        &self,
        host: &Destination,
        mut request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, Error>> + Send {
        async move {
            let lane = self.lanes.here();
            loop {
                let (way, is_new) = match lane.kept(host) {
                    Some(way) => (way, false),
                    None => Box::pin(self.open(lane, host)).await?,
                };
                let began = Instant::now();
                let answer = match way {
                    Way::Link(link) => link.exchange(request).await.map(|got| lane.receive(got)),
                    Way::Place(place) => place.send(host, request).boxed().await,
                };
                let mut unsent = match answer {
                    Ok(answer) => return Ok(answer),
                    Err(unsent) => unsent,
                };
                match unsent.take_message() {
                    Some(_) if is_new => return Err(Error::Closed),
                    Some(given_back) => request = given_back, // the other end had closed it
                    None => {
                        let error = unsent.into_error();
                        if is_new || began.elapsed() > AT_ONCE || !is_closed(&error) {
                            return Err(error.into());
                        }
                        lane.forget(host);
                        return Err(Error::Stale(error));
                    }
                }
            }
        }
    }

    /// A new connection to `host`, or what somebody else has opened meanwhile; says which.
    async fn open(&self, lane: &Arc<Lane>, host: &Destination) -> Result<(Way, bool), Error> {
        let mut turn = None;
        if let Some(opening) = lane.opening(host) {
            let (went_well, has_waited) = match Arc::clone(&opening).try_lock_owned() {
                Ok(turn) => (turn, false),
                Err(_) => (opening.lock_owned().await, true),
            };
            if let Some(way) = lane.kept(host) {
                return Ok((way, false));
            }
            // Where somebody else has failed, those who waited for it all try at once, or the last would wait for long.
            turn = (*went_well || !has_waited).then_some(went_well);
        }
        if let Some(went_well) = &mut turn {
            **went_well = false;
        }
        let connected = timeout(self.connect_timeout, self.connect(host)).await;
        match connected.map_err(|late| Error::Connect(late.into()))?? {
            Fresh::Link(link) => {
                lane.let_all_open(host);
                Ok((Way::Link(link), true))
            }
            Fresh::Shared(mut shared) => {
                let place = shared.take().ok_or(Error::Closed)?;
                lane.share(host, shared);
                if let Some(went_well) = &mut turn {
                    **went_well = true;
                }
                Ok((Way::Place(place), true))
            }
        }
    }

    async fn connect(&self, host: &Destination) -> Result<Fresh, Error> {
        let mut connector = self.connector.clone();
        let uri = host.address(&Uri::from_static("/"));
        let stream =
            connector.ready().await.map_err(Error::Connect)?.call(uri).await.map_err(Error::Connect)?;
        // Until it is agreed how to speak, no request has been sent.
        let unready = |error: hyper::Error| Error::Connect(error.into());
        if stream.connected().is_negotiated_h2() {
            return Ok(Fresh::Shared(Shared::open(stream, self.ping).await.map_err(unready)?));
        }
        let (sender, connection) = http1::handshake(stream).await.map_err(unready)?;
        let connection = Connection(Some(Box::new(connection)));
        Ok(Fresh::Link(Link { sender, connection, host: host.clone() }))
    }
}

/// A kept connection that is closed so soon after a request was sent over it had been closed before, or at that moment.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Whether the other end has closed the connection and not answered. Over TLS few say goodbye.
fn is_closed(error: &hyper::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected, UnexpectedEof};
    let is_end = |cause: &io::Error| {
        matches!(
            cause.kind(),
            BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected | UnexpectedEof
        )
    };
    let cause = std::error::Error::source(error);
    let of_socket = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    let of_many = cause.and_then(|cause| cause.downcast_ref::<h2::Error>()).and_then(h2::Error::get_io);
    error.is_incomplete_message() || of_socket.or(of_many).is_some_and(is_end)
}

/// A connection that was opened just now.
enum Fresh {
    Link(Link),
    Shared(Shared),
}

/// What a request can be sent over.
enum Way {
    Link(Link),
    Place(Place),
}

impl Link {
    /// Sends `request` to where it leads.
    fn exchange(mut self, mut request: Request<Body>) -> Exchange {
        if !request.headers().contains_key(HOST) {
            request.headers_mut().insert(HOST, self.host.header().clone());
        }
        if request.uri().authority().is_some() {
            *request.uri_mut() = path(request.uri()).into();
        }
        // Whatever comes out at this end has been put in by the connection, which has the waker; and as it has none, it must
        // not be told to wait for the sake of others.
        let answer = unconstrained(self.sender.try_send_request(request));
        Exchange { answer: Box::pin(answer), link: Some(self) }
    }

    /// Whether another request can be sent.
    fn is_ready(&mut self) -> bool {
        if !self.sender.is_ready() {
            // It may have something left to do, such as to see that all has been read.
            self.connection.drive(&mut Context::from_waker(Waker::noop()));
        }
        self.sender.is_ready()
    }
}

/// A request that is being sent over a connection. Gives the head of its answer, and the connection.
struct Exchange {
    answer: Pin<Box<dyn Future<Output = Result<Response<Incoming>, Unsent>> + Send>>,
    link: Option<Link>,
}

impl Future for Exchange {
    type Output = Result<(Response<Incoming>, Link), Unsent>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(link) = &mut self.link {
            link.connection.drive(context);
        }
        let answer = ready!(self.answer.as_mut().poll(&mut Context::from_waker(Waker::noop())));
        Poll::Ready(answer.map(|answer| (answer, self.link.take().expect("it is polled until then"))))
    }
}

/// The body of an answer, and the connection that it comes over.
struct Answer {
    incoming: Incoming,
    /// Until all of it has come.
    link: Option<Link>,
    /// Why there is no more of it.
    broken: Option<hyper::Error>,
    lane: Weak<Lane>,
}

impl Answer {
    fn come(&mut self) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        // Nobody has to be woken: what comes is put in by the connection, which is polled below.
        Pin::new(&mut self.incoming).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    /// All has come: the connection is free.
    fn give_back(&mut self) {
        if let (Some(link), Some(lane)) = (self.link.take(), self.lane.upgrade()) {
            lane.put(link);
        }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let mut polled = self.come();
        if polled.is_pending()
            && let Some(link) = &mut self.link
        {
            link.connection.drive(context);
            polled = self.come();
        }
        match polled {
            Poll::Ready(Some(Err(error))) => {
                // What came before it may have come just now, and is to be passed on first.
                self.link = None;
                self.broken = Some(error);
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Poll::Ready(None) => self.give_back(),
            Poll::Ready(Some(Ok(_))) if self.incoming.is_end_stream() => self.give_back(),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for Answer {
    /// Who does not care for a body need not lose the connection, where all of it is here already.
    fn drop(&mut self) {
        let Some(link) = &mut self.link else { return };
        link.connection.drive(&mut Context::from_waker(Waker::noop()));
        while matches!(self.come(), Poll::Ready(Some(Ok(_)))) {}
        if self.incoming.is_end_stream() {
            self.give_back();
        }
    }
}

impl Lane {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is to send a request to `host` over: the connection that was used last, or a place on one.
    fn kept(&self, host: &Destination) -> Option<Way> {
        let mut state = self.state();
        let kept = state.hosts.get_mut(host)?;
        let place = kept.shared.iter_mut().find_map(Shared::take).map(Way::Place);
        place.or_else(|| kept.idle.pop().map(|(link, _)| Way::Link(link)))
    }

    /// Who wants another connection to `host` takes turns, where many can use one.
    fn opening(&self, host: &Destination) -> Option<Arc<Opening>> {
        self.state().hosts.get(host)?.opening.clone()
    }

    /// Each of the connections to `host` serves one request at a time.
    fn let_all_open(&self, host: &Destination) {
        if let Some(kept) = self.state().hosts.get_mut(host) {
            kept.opening = None;
        }
    }

    /// Closes the connections to `host` that nobody uses: they were kept as long as one that had been closed.
    fn forget(&self, host: &Destination) {
        let mut state = self.state();
        let idle = state.hosts.get_mut(host).map(|kept| std::mem::take(&mut kept.idle));
        drop(state);
        drop(idle);
    }

    /// An answer, whose body gives back the connection that it comes over.
    fn receive(self: &Arc<Self>, (answer, link): (Response<Incoming>, Link)) -> Response<Body> {
        answer.map(|incoming| {
            if incoming.is_end_stream() {
                self.put(link);
                return Body::empty();
            }
            Body::new(Answer { incoming, link: Some(link), broken: None, lane: Arc::downgrade(self) })
        })
    }

    /// Keeps `link` for the next request, if it can take one.
    fn put(self: &Arc<Self>, mut link: Link) {
        if !link.is_ready() {
            return;
        }
        let mut state = self.state();
        let now = Instant::now();
        if let Some(kept) = state.hosts.get_mut(&link.host) {
            kept.idle.push((link, now));
        } else {
            state.hosts.entry(link.host.clone()).or_default().idle.push((link, now));
        }
        self.have_swept(&mut state);
    }

    /// Lets others use a connection, too, unless there is room on another.
    fn share(self: &Arc<Self>, host: &Destination, shared: Shared) {
        let mut state = self.state();
        let kept = state.hosts.entry(host.clone()).or_default();
        kept.opening.get_or_insert_default();
        kept.shared.retain(|shared| !shared.is_closed());
        if !kept.shared.iter().any(Shared::has_room) {
            kept.shared.push(shared);
        }
        self.have_swept(&mut state);
    }

    /// Sees to it that what is kept is not kept for ever.
    fn have_swept(self: &Arc<Self>, state: &mut State) {
        if !std::mem::replace(&mut state.is_swept, true) {
            background::spawn(sweep(Arc::downgrade(self), self.idle_timeout));
        }
    }

    /// Closes connections that were kept for too long; gives those that remain. One for many requests ends when the last of
    /// them has its answer.
    fn sweep(&self) -> usize {
        let now = Instant::now();
        let mut state = self.state();
        let mut old = Vec::new();
        let is_old = |since: &Instant| now.duration_since(*since) >= self.idle_timeout;
        state.hosts.retain(|_, kept| {
            let fresh = kept.idle.partition_point(|(_, since)| is_old(since));
            old.extend(kept.idle.drain(..fresh));
            kept.shared.retain(|shared| !shared.is_closed() && !is_old(&shared.used()));
            !kept.idle.is_empty() || !kept.shared.is_empty()
        });
        let left = state.hosts.values().map(|kept| kept.idle.len() + kept.shared.len()).sum();
        state.is_swept = left > 0;
        drop(state);
        // Closing takes a while, and nobody has to wait for it.
        drop(old);
        left
    }
}

/// Sweeps a pool until nothing is left in it.
async fn sweep(lane: Weak<Lane>, idle_timeout: Duration) {
    let pause = (idle_timeout / 4).max(Duration::from_millis(10));
    loop {
        tokio::time::sleep(pause).await;
        let Some(lane) = lane.upgrade() else { return };
        if lane.sweep() == 0 {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
