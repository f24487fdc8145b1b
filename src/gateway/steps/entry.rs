//! Who may come in: keys, permissions, addresses.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::Request;
use http::header::{AUTHORIZATION, HeaderName};
use http::request::Parts as Head;
use http::{HeaderMap, HeaderValue, Uri};

use crate::error::{ApiError, Reason};
use crate::gateway::Gateway;
use crate::gateway::call::Call;
use crate::gateway::server::Peer;
use crate::ids::Secret;
use crate::sim::Owner as Caller;
use crate::wire;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
const GOOGLE_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Finds the tenant by its key. The key goes on in `Authorization` alone, wherever it came from.
pub(in crate::gateway) fn authenticate(
    gateway: &Gateway,
    call: &Call,
    request: &mut Request,
) -> Result<(), ApiError> {
    let key = api_key(request.headers(), request.uri());
    let member = key.as_ref().and_then(|key| gateway.member_with(key, call.now));
    if member.is_none() && !gateway.parts.open {
        return Err(unknown_key());
    }
    if let Some(member) = member {
        let _ = call.member.set(member);
    }
    authorize(request.headers_mut(), key.as_ref());
    Ok(())
}

fn unknown_key() -> ApiError {
    let what = "this gateway does not know your key: send one of its own as `Authorization: Bearer <key>`";
    ApiError::new(Reason::Unauthorized, what)
}

/// Whether a request that has waited may still go on: its key may have been revoked meanwhile, or have expired, or what it asks
/// for may not be allowed any more.
pub(in crate::gateway) fn still_permitted(
    gateway: &Gateway,
    call: &Call,
    parts: &Head,
) -> Result<(), ApiError> {
    let key = api_key(&parts.headers, &parts.uri);
    let member = key.and_then(|key| gateway.member_with(&key, gateway.parts.clock.now()));
    let member = member.filter(|member| *member.label == *call.tenant()).ok_or_else(unknown_key)?;
    if member.may_call(call.index, call.operation) { Ok(()) } else { Err(not_allowed(call)) }
}

fn not_allowed(call: &Call) -> ApiError {
    ApiError::new(Reason::Forbidden, format!("this key may not use {}", call.operation))
}

/// Lets `Authorization` say what the key is, and nothing else.
fn authorize(headers: &mut HeaderMap, key: Option<&Secret>) {
    let Some(key) = key else {
        headers.remove(AUTHORIZATION);
        return;
    };
    let says_so =
        |value: &HeaderValue| value.as_bytes().strip_prefix(b"Bearer ") == Some(key.expose().as_bytes());
    let says_it_alone = {
        let mut said = wire::values(headers, AUTHORIZATION);
        said.next().is_some_and(says_so) && said.next().is_none()
    };
    if says_it_alone && let Some(value) = headers.get_mut(AUTHORIZATION) {
        value.set_sensitive(true);
    } else if let Ok(mut value) = HeaderValue::try_from(format!("Bearer {}", key.expose())) {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    } else {
        headers.remove(AUTHORIZATION);
    }
}

/// As [`authenticate`], for what is kiegate's own: results and inboxes are open to whoever knows their address.
pub(in crate::gateway) fn authenticate_own(
    gateway: &Gateway,
    call: &Call,
    request: &mut Request,
) -> Result<(), ApiError> {
    if is_open_to_all(request.uri()) {
        return Ok(());
    }
    authenticate(gateway, call, request)?;
    let Some(member) = call.member.get() else { return Ok(()) };
    if !member.tenant.may_come_from(|| address(gateway, call, request)) {
        return Err(ApiError::new(Reason::Forbidden, NOT_FROM_THERE));
    }
    request.extensions_mut().insert(Caller(Arc::clone(&member.label)));
    Ok(())
}

/// Whether no key is asked for: of results and of inboxes.
pub(super) fn is_open_to_all(uri: &Uri) -> bool {
    let path = uri.path();
    path.starts_with("/_media/") || path.strip_prefix("/_mock/inbox/").is_some_and(|rest| rest.contains('/'))
}

/// The key of a request: from `Authorization: Bearer`, `x-api-key`, `x-goog-api-key` or `?key=`.
fn api_key(headers: &HeaderMap, uri: &Uri) -> Option<Secret> {
    let text = |name| wire::values(headers, name).next().and_then(|value| value.to_str().ok());
    let bearer = || {
        let (scheme, key) = text(AUTHORIZATION)?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
    };
    let in_query = || {
        let key = uri.query()?.split('&').find_map(|pair| pair.strip_prefix("key="))?;
        // Clients that take it for a value encode it, and others do not: a `+` is one.
        percent_encoding::percent_decode_str(key).decode_utf8().ok()
    };
    let in_headers = bearer().or_else(|| text(API_KEY)).or_else(|| text(GOOGLE_KEY)).map(Cow::Borrowed);
    let key = in_headers.or_else(in_query)?;
    (!key.is_empty()).then(|| Secret::new(&*key))
}

const NOT_FROM_THERE: &str = "this key may not be used from your address";

/// Refuses what the tenant may not do, as far as that can be said before the body is here: paths that are no operation
/// where the gateway does not forward them, operations that are not allowed, addresses that it may not come from.
pub(in crate::gateway) fn permit(gateway: &Gateway, call: &Call, request: &Request) -> Result<(), ApiError> {
    let forbidden = |what: &str| Err(ApiError::new(Reason::Forbidden, what));
    if call.index.is_none() && !gateway.parts.forward_unknown {
        return forbidden("this gateway forwards known operations only (unknown_paths = \"deny\")");
    }
    let Some(member) = call.member.get() else { return Ok(()) };
    if !member.tenant.may_come_from(|| address(gateway, call, request)) {
        return forbidden(NOT_FROM_THERE);
    }
    if !member.may_call(call.index, call.operation) {
        return Err(not_allowed(call));
    }
    Ok(())
}

/// Where a request comes from: the peer, or, where that is a proxy which is believed, what the last proxy that is not says.
fn address(gateway: &Gateway, call: &Call, request: &Request) -> Option<IpAddr> {
    let trusted = |address: &IpAddr| gateway.parts.trusted_proxies.iter().any(|net| net.contains(*address));
    let Peer(peer) = call.peer?;
    if !trusted(&peer) {
        return Some(peer);
    }
    let told = wire::values(request.headers(), FORWARDED_FOR);
    let told = told.flat_map(|value| value.to_str().unwrap_or("?").split(',')).map(str::trim);
    // Source: RFC 9110, 5.6.1 (lists may have elements that are empty).
    let told: Vec<&str> = told.filter(|hop| !hop.is_empty()).collect();
    let mut address = peer;
    for hop in told.iter().rev() {
        // What cannot be read is nobody's address.
        address = hop_address(hop)?.to_canonical();
        if !trusted(&address) {
            break;
        }
    }
    Some(address)
}

/// The address of a hop. Some proxies tell the port as well, or put brackets around what has colons.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    bare.parse().or_else(|_| hop.parse().map(|hop: SocketAddr| hop.ip())).ok()
}
