//! From sockets to requests: the accept loop of a plane, bounds on what a connection may do, graceful shutdown.
//!
//! hyper speaks HTTP on a connection as long as something is said there. When nothing is for a while, it is taken off
//! again with its buffers, and only the socket is left to wait (`Visit::rest`): of ten thousand open connections few
//! have something to say at any time.

mod arriving;
mod desk;
mod lent;
mod patient;
mod socket;

use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use http::Request;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use desk::Desk;
use lent::Leases;
use patient::Patient;
use socket::{Guarded, Phase, Socket};

use super::Answering;
use super::tls::Tls;
use crate::background::{self, Lanes};
use crate::telemetry::Metrics;

/// What a connection may do.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The largest request head, in bytes.
    pub head: usize,
    /// How long a head may take from its first byte to its last, and a TLS handshake altogether.
    pub head_timeout: Duration,
    /// How long a connection may lie idle between requests, and a client may read nothing of what there is for it.
    pub idle_timeout: Duration,
}

/// What answers the requests of a plane.
pub type Answer = Arc<dyn Fn(Request<Body>, Peer) -> Answering + Send + Sync>;

/// The address of whoever opened a connection, be it a client or a proxy before it. An IPv4 address that came over an IPv6
/// socket is given as IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// One of the two listeners.
pub struct Plane {
    /// `data` or `admin`.
    pub name: &'static str,
    /// Where it listens.
    pub listener: TcpListener,
    /// What it identifies itself with; absent: cleartext.
    pub tls: Option<Arc<Tls>>,
    /// Where connections are served; absent: on the runtime that accepts them.
    pub lanes: Option<Arc<Lanes>>,
    /// What answers.
    pub answer: Answer,
    /// What connections may do.
    pub bounds: Bounds,
    /// Counts connections.
    pub metrics: Arc<Metrics>,
}

/// Serves `plane` until `stop` comes, then lets requests under way end; gives up on them when `grace` has passed.
pub async fn serve(plane: Plane, stop: impl Future<Output = ()>, grace: Duration) {
    let Plane { name, listener, tls, lanes, answer, bounds, metrics } = plane;
    let reception = Arc::new(Reception { name, tls, answer, bounds, metrics });
    let (tell, stopping) = watch::channel(());
    tokio::pin!(stop);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    let (reception, stopping) = (Arc::clone(&reception), stopping.clone());
                    let visit = Visit { reception, stopping, stops: false };
                    visit.begin(socket, peer, lanes.as_deref());
                }
                Err(error) => {
                    // Out of descriptors, mostly: others will close.
                    tracing::warn!(plane = name, "cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            },
            () = &mut stop => break,
        }
    }
    drop((listener, stopping));
    let _ = tell.send(());
    if tokio::time::timeout(grace, tell.closed()).await.is_err() {
        tracing::warn!(plane = name, "requests were still under way after {grace:?} and are cut off");
    }
}

/// What all connections of a plane have in common.
struct Reception {
    name: &'static str,
    tls: Option<Arc<Tls>>,
    answer: Answer,
    bounds: Bounds,
    metrics: Arc<Metrics>,
}

/// One connection, from its acceptance to its end.
struct Visit {
    reception: Arc<Reception>,
    /// Told when no further request is to be taken; the sender waits until all visits are over.
    stopping: watch::Receiver<()>,
    /// It was told.
    stops: bool,
}

impl Visit {
    /// Serves `socket` in the background, on one of `lanes` if there are any.
    fn begin(self, socket: TcpStream, peer: SocketAddr, lanes: Option<&Lanes>) {
        // Failing that, answers are a little late.
        let _ = socket.set_nodelay(true);
        let peer = Peer(peer.ip().to_canonical());
        let Some(lanes) = lanes else {
            drop(background::spawn(self.welcome(socket, peer)));
            return;
        };
        // A socket belongs to the runtime that waits for it, so it moves house.
        let Ok(socket) = socket.into_std() else { return };
        lanes.spawn(async move {
            match TcpStream::from_std(socket) {
                Ok(socket) => self.welcome(socket, peer).await,
                Err(error) => tracing::warn!("cannot serve a connection: {error}"),
            }
        });
    }

    /// Serves, after a handshake where that is asked for.
    async fn welcome(self, socket: TcpStream, peer: Peer) {
        let _counted = self.reception.metrics.connection(self.reception.name);
        let socket = Patient::new(socket, self.reception.bounds.idle_timeout);
        match &self.reception.tls {
            None => self.serve(socket, peer).await,
            Some(tls) => {
                // On its own, so that a connection without it does not take the room.
                let acceptor = tls.acceptor();
                Box::pin(self.shake_hands(acceptor, socket, peer)).await;
            }
        }
    }

    async fn shake_hands(mut self, acceptor: TlsAcceptor, socket: Patient, peer: Peer) {
        let plane = self.reception.name;
        let patience = self.reception.bounds.head_timeout;
        let shaken = tokio::select! {
            shaken = tokio::time::timeout(patience, acceptor.accept(socket)) => shaken,
            _ = self.stopping.changed() => return,
        };
        match shaken {
            Ok(Ok(stream)) => Box::pin(self.serve(stream, peer)).await,
            Ok(Err(error)) => tracing::debug!(plane, "TLS handshake: {error}"),
            Err(_) => tracing::debug!(plane, "TLS handshake: not done within {patience:?}"),
        }
    }

    /// Answers the requests that come over `socket`, until it ends or the plane stops.
    async fn serve<S: Socket>(mut self, mut socket: S, peer: Peer) {
        let answer = Arc::clone(&self.reception.answer);
        let Some((protocol, mut said)) = self.greet(&mut socket).await else { return };
        if protocol == Protocol::Http2 {
            let leases = Some(Arc::default());
            let desk = Desk { answer, peer, phase: Arc::new(Phase::at(Phase::MANY)), leases };
            return Box::pin(self.serve_many(socket, said, desk)).await;
        }
        let desk = Desk { answer, peer, phase: Arc::new(Phase::at(Phase::HEAD)), leases: None };
        while let Some(silent) = self.converse(socket, said, &desk).await {
            socket = silent;
            said = Bytes::new();
            if !self.rest(socket.tcp()).await {
                // So that TLS ends as it should; whether anybody hears it makes no difference.
                let _ = socket.shutdown().await;
                return;
            }
        }
    }

    /// The protocol that the client speaks, and what it has said so far; `None` if it says nothing in time.
    ///
    /// Source: RFC 9113, 3.4 (what a client of HTTP/2 sends first).
    async fn greet(&mut self, socket: &mut impl Socket) -> Option<(Protocol, Bytes)> {
        const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        // All of most first requests.
        let mut said = BytesMut::with_capacity(1024);
        let Bounds { head_timeout, idle_timeout, .. } = self.reception.bounds;
        let mut patience = idle_timeout;
        loop {
            let read = tokio::select! {
                biased;
                read = tokio::time::timeout(patience, socket.read_buf(&mut said)) => read,
                _ = self.stopping.changed() => return None,
            };
            match read {
                Ok(Ok(read)) if read > 0 => patience = head_timeout,
                _ => return None,
            }
            if said.starts_with(PREFACE) {
                return Some((Protocol::Http2, said.freeze()));
            }
            if !PREFACE.starts_with(&said) {
                return Some((Protocol::Http1, said.freeze()));
            }
        }
    }

    /// Speaks HTTP/1 over `socket`, of which `said` has been read already. Gives it back when nothing was said for a while;
    /// `None` when the connection is over.
    async fn converse<S: Socket>(&mut self, mut socket: S, mut said: Bytes, desk: &Desk) -> Option<S> {
        let Bounds { head, head_timeout, .. } = self.reception.bounds;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(head);
        loop {
            desk.phase.set(if said.is_empty() { Phase::IDLE } else { Phase::HEAD });
            let guarded = Guarded::new(socket, said, Arc::clone(&desk.phase), head_timeout);
            let mut connection = Box::new(builder.serve_connection(TokioIo::new(guarded), desk.clone()));
            let left = self.listen(&mut connection, &desk.phase).await;
            if left == Left::Broken {
                return None;
            }
            let parts = connection.into_parts();
            socket = parts.io.into_inner().into_inner();
            said = parts.read_buf;
            if left == Left::Ended {
                // A head that was not understood, or another request behind the last one, may still be coming as well.
                if desk.phase.is_spoken_to() || !said.is_empty() {
                    self.part(socket).await;
                }
                return None;
            }
            if said.is_empty() {
                return Some(socket);
            }
        }
    }

    /// Lets `connection` go on until nothing is said any more, or it is over; says how it was left.
    async fn listen<S: Socket>(
        &mut self,
        connection: &mut http1::Connection<TokioIo<Guarded<S>>, Desk>,
        phase: &Phase,
    ) -> Left {
        let idle_timeout = self.reception.bounds.idle_timeout;
        let pause = silence(idle_timeout);
        let mut silent_for = Duration::ZERO;
        let mut requests = phase.requests();
        let ended = loop {
            // Looked at when it has something to say, and not with each request: all connections share what it waits for.
            let mut interrupted = FuturesOrdered::from_iter([async {
                tokio::time::timeout(pause, self.stopping.changed()).await.is_ok()
            }]);
            let is_stopping = tokio::select! {
                biased;
                ended = &mut *connection => break ended,
                is_stopping = interrupted.next() => is_stopping == Some(true),
            };
            if is_stopping {
                self.stops = true;
                Pin::new(&mut *connection).graceful_shutdown();
                break (&mut *connection).await;
            }
            let is_silent = phase.get() == Phase::IDLE && phase.requests() == requests;
            requests = phase.requests();
            silent_for = if is_silent { silent_for + pause } else { Duration::ZERO };
            if is_silent && phase.is_between_requests() {
                return Left::Silent;
            }
            // Something of a body never came: there is nothing more to come that could be understood.
            if silent_for >= idle_timeout {
                return Left::Broken;
            }
            phase.doubt();
        };
        // Who sends what is no request is told so.
        let is_told = ended.as_ref().map_or_else(hyper::Error::is_parse, |()| true);
        self.note_end(ended);
        if is_told { Left::Ended } else { Left::Broken }
    }

    /// Hears out a client that is still sending when the last answer has been sent: if its bytes met with a closed socket, it would
    /// not hear the answer.
    ///
    /// Source: RFC 9112, 9.6 (how to close without a reset that takes the answer away).
    async fn part(&mut self, mut socket: impl Socket) {
        let read_on = async {
            let mut unheard = vec![0; 16 * 1024];
            while let Ok(Ok(1..)) = tokio::time::timeout(LINGER_FOR_MORE, socket.read(&mut unheard)).await {}
        };
        let most = if self.stops { LINGER_IN_THE_END } else { LINGER };
        tokio::select! {
            _ = tokio::time::timeout(most, read_on) => {}
            _ = self.stopping.changed() => {}
        }
    }

    /// Waits for the next request, with nothing but the socket; says whether there may be one.
    async fn rest(&mut self, socket: &TcpStream) -> bool {
        let idle_timeout = self.reception.bounds.idle_timeout;
        tokio::select! {
            biased;
            readable = socket.readable() => readable.is_ok(),
            _ = self.stopping.changed() => false,
            () = tokio::time::sleep(idle_timeout.saturating_sub(silence(idle_timeout))) => false,
        }
    }

    /// Speaks HTTP/2 over `socket`, until it ends, the plane stops, or no request has been under way for a while: clients may
    /// answer pings for ever.
    async fn serve_many<S: Socket>(mut self, socket: S, said: Bytes, desk: Desk) {
        let Bounds { head, head_timeout, idle_timeout } = self.reception.bounds;
        let (phase, leases) = (Arc::clone(&desk.phase), desk.leases.clone().unwrap_or_default());
        let guarded = Guarded::new(socket, said, Arc::clone(&phase), head_timeout);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX))
            .keep_alive_interval(idle_timeout);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(guarded), desk));
        // Looked at when it has something to say, and not with each request.
        let mut interrupted = FuturesOrdered::from_iter([self.until_unused(&phase, &leases)]);
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => ended,
            _ = interrupted.next() => {
                connection.as_mut().graceful_shutdown();
                // A client may keep a request open, or make another one, for as long as it likes.
                tokio::time::timeout(idle_timeout * GOODBYE, connection).await.unwrap_or(Ok(()))
            }
        };
        drop(interrupted);
        self.note_end(ended);
    }

    /// Waits until no request has been under way for at least as long as a connection may lie idle, or the plane stops. Takes
    /// answers back meanwhile of which their client takes no more.
    async fn until_unused(&mut self, phase: &Phase, leases: &Leases) {
        let idle_timeout = self.reception.bounds.idle_timeout;
        let pause = idle_timeout / 4;
        let mut requests = phase.requests();
        let mut silent_for = Duration::ZERO;
        // The first pause may have begun in the midst of a request.
        while silent_for <= idle_timeout {
            if tokio::time::timeout(pause, self.stopping.changed()).await.is_ok() {
                return;
            }
            leases.take_back();
            let is_silent = !phase.has_requests() && phase.requests() == requests;
            requests = phase.requests();
            silent_for = if is_silent { silent_for + pause } else { Duration::ZERO };
        }
    }

    fn note_end(&self, ended: hyper::Result<()>) {
        if let Err(error) = ended {
            tracing::debug!(plane = self.reception.name, "connection: {error}");
        }
    }
}

/// So many idle times a connection that carries many requests has to come to its end once it has been told to.
const GOODBYE: u32 = 4;
/// How long the rest of a request is read that has been answered already.
const LINGER: Duration = Duration::from_secs(30);
/// How long each piece of it may take to come.
const LINGER_FOR_MORE: Duration = Duration::from_secs(5);
/// How long the rest of a request is read where the plane stops and waits for this.
const LINGER_IN_THE_END: Duration = Duration::from_secs(1);

/// How a connection was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Left {
    /// Nothing was said for a while.
    Silent,
    /// Nothing more is going to be said.
    Ended,
    /// It is of no use any more.
    Broken,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// After so long without a word a connection is left alone with its socket.
fn silence(idle_timeout: Duration) -> Duration {
    Duration::from_millis(500).min(idle_timeout / 4)
}

#[cfg(test)]
mod tests;
