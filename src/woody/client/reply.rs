//! What a reply, or the lack of one, means.

use std::error::Error as _;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::pool;
use crate::wire::{Header, HeaderError, Limits, MessageType, Reader, Type};
use crate::woody::bodies::Bodies;
use crate::woody::error::{Class, Error};

const NO_REASON: &str = "This server does not implement the woody protocol ('woody.error-reason' header missing).";
const BAD_HEADERS: &str = "reason unknown due to bad woody.-error- headers";

/// No answer by the deadline.
pub(super) fn timed_out() -> Error {
    Error::external(Class::ResultUnknown, "timeout")
}

/// The request went out, or some of it, and no head of a reply came back.
pub(super) fn send_failed(error: &hyper::Error) -> Error {
    if error.is_parse() {
        return Error::unexpected("bad_request");
    }
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    let details = match cause {
        Some(cause) => pool::name(cause, "send failed"),
        None if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => "closed".to_owned(),
        None => error.to_string(),
    };
    Error::external(Class::ResultUnknown, details)
}

/// Any status but 200.
pub(super) fn refused(status: StatusCode, headers: &HeaderMap) -> Error {
    let details = match headers.get("woody.error-reason") {
        Some(reason) => String::from_utf8_lossy(reason.as_bytes()).into_owned(),
        None => NO_REASON.to_owned(),
    };
    let class = match status {
        StatusCode::SERVICE_UNAVAILABLE => Class::ResourceUnavailable,
        StatusCode::GATEWAY_TIMEOUT => Class::ResultUnknown,
        StatusCode::BAD_GATEWAY => match headers.get("woody.error-class") {
            None => Class::ResultUnexpected,
            Some(class) => match Class::parse(class.as_bytes()) {
                Some(class) => class,
                None => return Error::external(Class::ResultUnexpected, BAD_HEADERS),
            },
        },
        _ => Class::ResultUnexpected,
    };
    Error::external(class, details)
}

/// The whole body of a 200. Cut off in the middle, the result is unknown: the work was done, or may have been. One that is
/// too large, or larger than what is left for replies, is not read further than to where that shows.
pub(super) async fn collect(body: &mut Incoming, limit: usize, replies: &Arc<Bodies>) -> Result<Bytes, Error> {
    let too_large = || Error::unexpected(format!("reply larger than {limit} bytes"));
    let mut held = replies.hold();
    if let Some(claimed) = body.size_hint().exact() {
        if usize::try_from(claimed).map_or(true, |claimed| claimed > limit) {
            return Err(too_large());
        }
        held.expect(claimed).map_err(Error::overload)?;
    }
    let mut whole = Bytes::new();
    let mut parts = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let data = match frame.map(|frame| frame.into_data()) {
            Ok(Ok(data)) => data,
            Ok(Err(_)) => continue,
            Err(error) => return Err(Error::unknown(format!("parse http response body error: {error}"))),
        };
        if data.len() > limit - whole.len().max(parts.len()) {
            return Err(too_large());
        }
        held.grow(data.len()).map_err(Error::overload)?;
        if whole.is_empty() && parts.is_empty() {
            whole = data;
        } else {
            if parts.is_empty() {
                parts.extend_from_slice(&std::mem::take(&mut whole));
            }
            parts.extend_from_slice(&data);
        }
    }
    Ok(held.keep(if parts.is_empty() { whole } else { parts.freeze() }))
}

/// What stands behind a reply's envelope. The method's name is not looked at: no peer does.
pub(super) fn open(body: Bytes) -> Result<Bytes, Error> {
    if body.is_empty() {
        return Err(Error::unexpected("client error: empty reply"));
    }
    let mut reader = Reader::new(body.clone(), Limits::default());
    let header = Header::read(&mut reader).map_err(|error| match error {
        HeaderError::Type(_) => Error::unexpected(format!("client error: {error}")),
        _ => Error::unexpected(format!("client thrift error: {error}")),
    })?;
    match header.kind {
        MessageType::Reply if header.seqid == 0 => Ok(body.slice(reader.position()..)),
        MessageType::Reply => Err(Error::unexpected(format!("client thrift error: bad sequence id {}", header.seqid))),
        MessageType::Exception => Err(Error::external(
            Class::ResultUnexpected,
            format!(
                "server violated thrift protocol: sent TApplicationException ({}) with http code 200",
                application_exception(&mut reader)
            ),
        )),
        MessageType::Call | MessageType::Oneway => {
            Err(Error::unexpected("client error: the reply is no reply but a call"))
        }
    }
}

/// `{1: string message, 2: i32 type}`, as far as it can be read.
fn application_exception(reader: &mut Reader) -> String {
    let mut text = "unknown exception".to_owned();
    while let Ok(Some((kind, id))) = reader.field() {
        if (kind, id) == (Type::String, 1) {
            match reader.string() {
                Ok(message) => text = String::from_utf8_lossy(&message).into_owned(),
                Err(_) => break,
            }
        } else if reader.skip(kind).is_err() {
            break;
        }
    }
    text
}
