//! Passing a request on to another server of the same services, and its answer back, both as they came.

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, DATE, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, SERVER, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::Full;

use super::pool::Peer;
use super::{Client, reply};
use crate::woody::error::{Class, Error};
use crate::woody::server::Original;

/// What belongs to one connection or one server, and not to the message.
static OF_CONNECTION: [HeaderName; 12] = [
    CONNECTION,
    CONTENT_LENGTH,
    DATE,
    EXPECT,
    HOST,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    SERVER,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

// === impl Client: relaying ===

impl Client {
    /// Passes a request on to the server at `authority` (`host:port`): the same path, body and headers, and `mark`
    /// beside them. Whatever is answered is the answer, by `deadline` (unix milliseconds).
    ///
    /// An error of the class [`Class::ResourceUnavailable`] says that nothing was sent, any other that the request may
    /// have been worked off.
    pub async fn relay(
        &self,
        authority: &str,
        original: &Original,
        mark: (HeaderName, HeaderValue),
        deadline: i64,
    ) -> Result<Response<Bytes>, Error> {
        let now = self.clock.now();
        if now >= deadline {
            return Err(Error::unavailable("deadline reached"));
        }
        let url = Uri::builder().scheme("http").authority(authority).path_and_query("/").build();
        let peer = Peer::of(&url.map_err(|error| Error::unavailable(format!("no address, {authority}: {error}")))?)?;
        let mut request = Request::new(Full::new(original.body.clone()));
        *request.method_mut() = Method::POST;
        if let Some(path) = original.uri.path_and_query() {
            *request.uri_mut() = path.clone().into();
        }
        let headers = request.headers_mut();
        *headers = of_message(&original.headers);
        headers.insert(HOST, peer.host.clone());
        headers.insert(mark.0, mark.1);

        let (connection, answer) = self.send(&peer, request, now, deadline).await.map_err(maybe_done)?;
        let (parts, mut body) = answer.into_parts();
        let whole = reply::collect(&mut body, self.max_response_size, &self.replies);
        let whole = self.clock.timeout_at(deadline, whole).await.unwrap_or_else(|_| Err(reply::timed_out()));
        // It was worked off, whatever kept its answer from coming through: a bound of ours too.
        let body = whole.map_err(|error| Error { class: Class::ResultUnknown, ..error })?;
        self.pool.checkin(connection);
        let mut response = Response::new(body);
        *response.status_mut() = parts.status;
        *response.headers_mut() = of_message(&parts.headers);
        Ok(response)
    }
}

/// What is not surely undone may be done, however the exchange broke.
fn maybe_done(error: Error) -> Error {
    match error.class {
        Class::ResourceUnavailable => error,
        Class::ResultUnexpected | Class::ResultUnknown => Error { class: Class::ResultUnknown, ..error },
    }
}

fn of_message(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(headers.len() + 2);
    // What `connection` names is of the connection too.
    let named = |name: &HeaderName| {
        let values = headers.get_all(CONNECTION).into_iter();
        let mut names = values.flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
        names.any(|it| it.trim_ascii().eq_ignore_ascii_case(name.as_str().as_bytes()))
    };
    for (name, value) in headers {
        if !OF_CONNECTION.contains(name) && *name != KEEP_ALIVE && !named(name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}
