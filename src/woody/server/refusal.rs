//! Every reply that is not a result, to the letter.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_LENGTH};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;

use crate::wire::HeaderError;
use crate::woody::bodies::Exhausted;
use crate::woody::deadline::BadDeadline;
use crate::woody::error::{Class, Error, reason};

pub(super) static ERROR_CLASS: HeaderName = HeaderName::from_static("woody.error-class");
pub(super) static ERROR_REASON: HeaderName = HeaderName::from_static("woody.error-reason");

/// Why a request gets no result.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Not even HTTP as it should be. No woody headers; the connection closes.
    Bare(StatusCode),
    /// No such path. No woody headers.
    NotFound,
    Method(Method),
    ContentType(Vec<u8>),
    Accept(Vec<u8>),
    Ids,
    Deadline(BadDeadline),
    DeadlineReached,
    /// No place is left; the connection closes.
    TooMany,
    /// No room is left for its body.
    Overload(Exhausted),
    BodyTooLarge(usize),
    BodyBroken(String),
    BodyEmpty,
    Envelope(HeaderError),
    Multiplexed,
    UnknownFunction(Bytes),
    Failed(Error),
}

// === impl Refusal ===

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Bare(status) => *status,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Accept(_) => StatusCode::NOT_ACCEPTABLE,
            Self::DeadlineReached | Self::TooMany | Self::Overload(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Ids
            | Self::Deadline(_)
            | Self::BodyTooLarge(_)
            | Self::BodyBroken(_)
            | Self::BodyEmpty
            | Self::Envelope(_)
            | Self::Multiplexed
            | Self::UnknownFunction(_) => StatusCode::BAD_REQUEST,
            Self::Failed(error) => error.status(),
        }
    }

    pub(super) fn response(self) -> Response<Full<Bytes>> {
        let status = self.status();
        let mut response = Response::new(Full::default());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        // In answer to HEAD too, where nobody else would write it.
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let (class, text) = match self {
            Self::Bare(_) => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
                return response;
            }
            Self::NotFound => return response,
            Self::Method(method) => {
                headers.insert(ALLOW, HeaderValue::from_static("POST"));
                (Class::ResultUnexpected, format!("wrong method: {method}").into())
            }
            Self::ContentType(value) => (Class::ResultUnexpected, [b"wrong content type: ", &value[..]].concat()),
            Self::Accept(value) => (Class::ResultUnexpected, [b"wrong client accept: ", &value[..]].concat()),
            Self::Ids => (Class::ResultUnexpected, "bad woody. id header".into()),
            Self::Deadline(bad) => (Class::ResultUnexpected, format!("bad woody.deadline header: {bad}").into()),
            Self::DeadlineReached => (Class::ResourceUnavailable, "deadline reached".into()),
            Self::TooMany => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
                (Class::ResourceUnavailable, "too many connections".into())
            }
            Self::Overload(exhausted) => (Class::ResourceUnavailable, exhausted.to_string().into()),
            Self::BodyTooLarge(limit) => {
                let text = format!("body larger than {limit} bytes (woody_server.max_body_size)");
                (Class::ResultUnexpected, text.into())
            }
            Self::BodyBroken(why) => (Class::ResultUnexpected, format!("body not readable: {why}").into()),
            Self::BodyEmpty => (Class::ResultUnexpected, "body empty".into()),
            Self::Envelope(error) => (Class::ResultUnexpected, error.to_string().into()),
            Self::Multiplexed => (Class::ResultUnexpected, "thrift: multiplexing (not supported)".into()),
            Self::UnknownFunction(name) => {
                (Class::ResultUnexpected, [b"thrift: unknown function: ", &name[..]].concat())
            }
            Self::Failed(error) => (error.class, error.details.into_bytes()),
        };
        headers.insert(ERROR_CLASS.clone(), HeaderValue::from_static(class.as_str()));
        headers.insert(ERROR_REASON.clone(), reason(text));
        response
    }
}
