//! Connections that are opened when needed and kept for the next request.
//!
//! A connection belongs to whoever uses it: the future that waits for an answer, and then the answer's body, drive it, and
//! put it back when all has been read. So nothing has to be handed from task to task, and a request that is given up ends
//! its connection with it. HTTP/2, which carries many requests at once, is `shared`. Each lane has its own
//! connections, since a socket is best used where it is waited for.

mod bell;
mod line;
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
use futures_util::future::BoxFuture;
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
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};
use tower::{Service as _, ServiceExt as _};

use bell::Bell;
use line::Line;
use shared::{Place, Shared};

use super::destination::path;
use super::{Deadline, Destination, Error};
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
    /// How often it was looked for what is kept for too long: the clock of those that nobody uses.
    rounds: u32,
    /// Somebody is going to look after those that are kept for too long.
    is_swept: bool,
}

/// Connections to a host, and whose turn it is to open one.
#[derive(Default)]
struct Kept {
    /// Those that nobody uses, and since which round. The one that was used last is the last.
    idle: Vec<(Link, u32)>,
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
    bell: Bell,
    /// Where it leads.
    host: Destination,
    /// Rings when an answer is late. It is set anew for each, since to put one off takes next to nothing.
    alarm: Option<Pin<Box<Sleep>>>,
}

/// What moves the bytes; nothing once it is over. What waits in it for its turn is given back when it goes.
struct Connection(Option<Box<http1::Connection<Line, Body>>>);

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

/// Why there is no answer.
enum Failed {
    /// The connection is of no use any more. With the request, where it has not been sent.
    Unsent(Box<Unsent>),
    /// It did not come in time.
    Late,
}

/// What hyper says of a request that it could not send, with the request where nothing of it has gone out.
type Unsent = TrySendError<Request<Body>>;

impl From<Unsent> for Failed {
    fn from(unsent: Unsent) -> Self {
        Self::Unsent(Box::new(unsent))
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Unsent(mut unsent) => {
                unsent.take_message().map_or_else(|| unsent.into_error().into(), |_| Self::Closed)
            }
            Failed::Late => Self::Late,
        }
    }
}

impl Pools {
    pub(super) fn new(
        connector: HttpsConnector<HttpConnector>,
        connect_timeout: Duration,
        idle_timeout: Duration,
    ) -> Self {
        let lane = || Arc::new(Lane { idle_timeout, state: Mutex::default() });
        Self { connector, connect_timeout, ping: shared::PING, lanes: PerLane::new(lane) }
    }

    /// Sends `request` to `host`, and waits for the head of the answer as long as `deadline` allows. Of the request's
    /// address path and query count.
    ///
    /// A kept connection is given it at once, and sends it when this is first polled, so that this future need not carry it.
    pub(super) fn send<'p>(
        &'p self,
        host: &'p Destination,
        request: Request<Body>,
        deadline: Deadline,
    ) -> impl Future<Output = Result<Response<Body>, Error>> + Send + use<'p> {
        let lane = self.lanes.here();
        let sent = match lane.kept(host) {
            Some(way) => Ok(way.send(lane, host, request, deadline.until)),
            None => Err(Box::new(request)),
        };
        async move {
            let unsent = match sent {
                Ok(sending) => match sending.await {
                    Ok(answer) => return Ok(answer),
                    Err(failed) => Box::new(lane.take_back(host, failed, deadline.sent)?),
                },
                Err(request) => request,
            };
            self.send_later(lane, host, unsent, deadline.until).boxed().await
        }
    }

    /// Sends a request over a new connection, or one that was kept meanwhile, and waits `until` then.
    async fn send_later(
        &self,
        lane: &Arc<Lane>,
        host: &Destination,
        request: Box<Request<Body>>,
        until: Option<Instant>,
    ) -> Result<Response<Body>, Error> {
        in_time(self.send_anew(lane, host, request), until).await.unwrap_or(Err(Error::Late))
    }

    async fn send_anew(
        &self,
        lane: &Arc<Lane>,
        host: &Destination,
        mut request: Box<Request<Body>>,
    ) -> Result<Response<Body>, Error> {
        loop {
            let (way, is_new) = match lane.kept(host) {
                Some(way) => (way, false),
                None => self.open(lane, host).await?,
            };
            let now = Instant::now();
            match way.send(lane, host, *request, None).await {
                Ok(answer) => return Ok(answer),
                Err(failed) if is_new => return Err(failed.into()),
                Err(failed) => *request = lane.take_back(host, failed, now)?,
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
        let (sender, connection) = http1::handshake(Line::new(stream)).await.map_err(unready)?;
        let connection = Connection(Some(Box::new(connection)));
        Ok(Fresh::Link(Link { sender, connection, bell: Bell::new(), host: host.clone(), alarm: None }))
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

impl Way {
    /// Sends `request` to `host`, and waits `until` then.
    fn send<'l>(
        self,
        lane: &'l Arc<Lane>,
        host: &'l Destination,
        request: Request<Body>,
        until: Option<Instant>,
    ) -> Sending<'l> {
        match self {
            Self::Link(link) => Sending::Link(lane, link.exchange(request, until)),
            Self::Place(place) => {
                let sending = in_time(place.send(host, request), until);
                let sent = sending.map(|sent| sent.ok_or(Failed::Late)?.map_err(Failed::from));
                Sending::Place(sent.boxed())
            }
        }
    }
}

/// What `work` gives, `until` then; `None` if that was not enough.
async fn in_time<T>(work: impl Future<Output = T>, until: Option<Instant>) -> Option<T> {
    match until {
        Some(until) => timeout_at(until, work).await.ok(),
        None => Some(work.await),
    }
}

/// A request on its way. Gives the answer, or what has become of the request.
enum Sending<'l> {
    Link(&'l Arc<Lane>, Exchange),
    Place(BoxFuture<'l, Result<Response<Body>, Failed>>),
}

impl Future for Sending<'_> {
    type Output = Result<Response<Body>, Failed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Link(lane, exchange) => {
                let answer = ready!(Pin::new(exchange).poll(context));
                Poll::Ready(answer.map(|answer| lane.receive(answer)))
            }
            Self::Place(answer) => answer.as_mut().poll(context),
        }
    }
}

impl Link {
    /// Sends `request` to where it leads, and waits `until` then.
    fn exchange(mut self, mut request: Request<Body>, until: Option<Instant>) -> Exchange {
        if !request.headers().contains_key(HOST) {
            request.headers_mut().insert(HOST, self.host.header().clone());
        }
        if request.uri().authority().is_some() {
            *request.uri_mut() = path(request.uri()).into();
        }
        // Whatever comes out at this end has been put in by the connection, which has the waker; and as it has none, it must
        // not be told to wait for the sake of others.
        let sender = &mut self.sender;
        let answer = unconstrained(self.bell.muffled(|| sender.try_send_request(request)));
        if let Some(until) = until {
            match &mut self.alarm {
                Some(alarm) => alarm.as_mut().reset(until),
                None => self.alarm = Some(Box::pin(sleep_until(until))),
            }
        }
        Exchange { answer: Box::pin(answer), link: Some(self), is_bounded: until.is_some() }
    }

    /// Ready when it is the time for which the alarm is set; whoever has driven the connection is woken then.
    fn poll_late(&mut self) -> Poll<()> {
        let Some(alarm) = &mut self.alarm else { return Poll::Pending };
        alarm.as_mut().poll(&mut Context::from_waker(self.bell.waker()))
    }

    /// Moves what can be moved, on behalf of the task that waits.
    fn drive(&mut self, context: &Context<'_>) {
        self.connection.drive(&mut self.bell.context(context));
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
    /// It is given up when the alarm rings.
    is_bounded: bool,
}

impl Future for Exchange {
    type Output = Result<(Response<Incoming>, Link), Failed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { answer, link, is_bounded } = &mut *self;
        if let Some(link) = link {
            link.drive(context);
        }
        match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(answer)) => {
                let link = link.take().expect("it is polled until then");
                Poll::Ready(Ok((answer, link)))
            }
            Poll::Ready(Err(unsent)) => Poll::Ready(Err(unsent.into())),
            Poll::Pending => match link {
                Some(link) if *is_bounded => link.poll_late().map(|()| Err(Failed::Late)),
                _ => Poll::Pending,
            },
        }
    }
}

/// The body of an answer, and the connection that it comes over.
struct Answer {
    incoming: Incoming,
    /// Until all of it has come.
    link: Option<Link>,
    /// Why there is no more of it.
    broken: Option<hyper::Error>,
    lane: Arc<Lane>,
}

/// So many pieces of a body that nobody cares for are read, so that the connection is free.
const AT_ITS_END: u32 = 4;

/// What has come so far. Nobody has to be woken: what comes is put in by the connection, which is driven by whoever asks.
fn come(incoming: &mut Incoming) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    Pin::new(incoming).poll_frame(&mut Context::from_waker(Waker::noop()))
}

impl Answer {
    /// What has come before the connection is driven, if it has to be.
    fn come_first(&mut self) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { incoming, link, .. } = self;
        let Some(link) = link else { return come(incoming) };
        link.bell.muffled(|| come(incoming))
    }

    /// All has come: the connection is free.
    fn give_back(&mut self) {
        if let Some(link) = self.link.take() {
            self.lane.put(link);
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
        let mut polled = self.come_first();
        if polled.is_pending()
            && let Some(link) = &mut self.link
        {
            link.drive(context);
            polled = come(&mut self.incoming);
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
        // The connection goes on when what has come is taken; of more than a little the rest is not worth it. Servers ask for
        // nothing after trailers, so all of it may be here.
        for _ in 0..AT_ITS_END {
            link.connection.drive(&mut Context::from_waker(Waker::noop()));
            match come(&mut self.incoming) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(None) => return self.give_back(),
                _ if self.incoming.is_end_stream() => return self.give_back(),
                _ => return,
            }
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

    /// A request that a kept connection to `host` did not take any more, since it had been closed.
    ///
    /// # Errors
    /// The request may have been taken.
    fn take_back(&self, host: &Destination, failed: Failed, sent: Instant) -> Result<Request<Body>, Error> {
        let Failed::Unsent(mut unsent) = failed else { return Err(failed.into()) };
        if let Some(request) = unsent.take_message() {
            return Ok(request);
        }
        let error = unsent.into_error();
        if sent.elapsed() > AT_ONCE || !is_closed(&error) {
            return Err(error.into());
        }
        self.forget(host);
        Err(Error::Stale(error))
    }

    /// An answer, whose body gives back the connection that it comes over.
    fn receive(self: &Arc<Self>, (answer, link): (Response<Incoming>, Link)) -> Response<Body> {
        answer.map(|incoming| {
            if incoming.is_end_stream() {
                self.put(link);
                return Body::empty();
            }
            Body::new(Answer { incoming, link: Some(link), broken: None, lane: Arc::clone(self) })
        })
    }

    /// Keeps `link` for the next request, if it can take one.
    fn put(self: &Arc<Self>, mut link: Link) {
        if !link.is_ready() {
            return;
        }
        link.bell.forget();
        let mut state = self.state();
        let round = state.rounds;
        if let Some(kept) = state.hosts.get_mut(&link.host) {
            kept.idle.push((link, round));
        } else {
            state.hosts.entry(link.host.clone()).or_default().idle.push((link, round));
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
        let mut state = self.state();
        let mut old = Vec::new();
        state.rounds = state.rounds.wrapping_add(1);
        let round = state.rounds;
        state.hosts.retain(|_, kept| {
            // The first of the rounds had begun already.
            let is_old = |since: u32| round.wrapping_sub(since) > ROUNDS;
            let fresh = kept.idle.partition_point(|(_, since)| is_old(*since));
            old.extend(kept.idle.drain(..fresh));
            kept.shared.retain(|shared| !shared.is_closed() && shared.used().elapsed() < self.idle_timeout);
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

/// How often it is looked in the time that connections are kept.
const ROUNDS: u32 = 4;

/// Sweeps a pool until nothing is left in it.
async fn sweep(lane: Weak<Lane>, idle_timeout: Duration) {
    let pause = (idle_timeout / ROUNDS).max(Duration::from_millis(10));
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
