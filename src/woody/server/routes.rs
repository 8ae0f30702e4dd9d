//! Which path leads where.

use std::sync::Arc;

use percent_encoding::percent_decode;

use super::{Plain, Service};

/// Where a path leads.
pub(super) enum Target {
    Service(Arc<dyn Service>),
    Plain(Arc<dyn Plain>),
}

/// A percent sign with no two hex digits behind it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadEscape;

#[derive(Default)]
pub(super) struct Routes {
    services: Vec<(String, Arc<dyn Service>)>,
    /// A path that ends in `/*` stands for everything below it.
    plain: Vec<(String, Arc<dyn Plain>)>,
}

// === impl Routes ===

impl Routes {
    pub(super) fn service(&mut self, path: String, service: Arc<dyn Service>) {
        self.services.push((path, service));
    }

    pub(super) fn plain(&mut self, path: String, plain: Arc<dyn Plain>) {
        self.plain.push((path, plain));
    }

    pub(super) fn find(&self, path: &str) -> Result<Option<Target>, BadEscape> {
        // Nearly every request names a route exactly as it was declared.
        if let Some((_, service)) = self.services.iter().find(|(route, _)| route == path) {
            return Ok(Some(Target::Service(service.clone())));
        }
        let segments = segments(path)?;
        let is = |route: &str| {
            let (route, open) = match route.strip_suffix("/*") {
                Some(route) => (route, true),
                None => (route, false),
            };
            let route = route.split('/').skip(1);
            let matched = route.clone().zip(&segments).filter(|(declared, segment)| declared.as_bytes() == *segment);
            let (matched, declared) = (matched.count(), route.count());
            matched == declared && (if open { segments.len() > declared } else { segments.len() == declared })
        };
        if let Some((_, plain)) = self.plain.iter().find(|(route, _)| is(route)) {
            return Ok(Some(Target::Plain(plain.clone())));
        }
        let service = self.services.iter().find(|(route, _)| is(route));
        Ok(service.map(|(_, service)| Target::Service(service.clone())))
    }
}

/// A path's segments: escapes decoded, dot segments resolved, one trailing slash ignored.
fn segments(path: &str) -> Result<Vec<Vec<u8>>, BadEscape> {
    let Some(path) = path.strip_prefix('/') else { return Ok(vec![path.into()]) };
    let mut segments = Vec::new();
    for segment in path.strip_suffix('/').unwrap_or(path).split('/') {
        let mut bytes = segment.bytes();
        while let Some(byte) = bytes.next() {
            let mut digit = || bytes.next().is_some_and(|byte| byte.is_ascii_hexdigit());
            if byte == b'%' && !(digit() && digit()) {
                return Err(BadEscape);
            }
        }
        match percent_decode(segment.as_bytes()).collect::<Vec<u8>>().as_slice() {
            b"." => {}
            b".." => drop(segments.pop()),
            decoded => segments.push(decoded.to_vec()),
        }
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_as_the_peers_know_it() {
        let joined = |path| segments(path).map(|segments| segments.join(&b"|"[..]));
        let table: [(&str, &[u8]); 10] = [
            ("/v1/svc", b"v1|svc"),
            ("/v1/svc/", b"v1|svc"),
            ("/v1/s%76c", b"v1|svc"),
            ("/v1/./x/../svc", b"v1|svc"),
            ("/../v1", b"v1"),
            ("/v1/svc//", b"v1|svc|"),
            ("//v1/svc", b"|v1|svc"),
            ("/v1%2Fsvc", b"v1/svc"),
            ("/", b""),
            ("*", b"*"),
        ];
        for (path, expected) in table {
            assert_eq!(joined(path).as_deref(), Ok(expected), "{path}");
        }
        for path in ["/v1/%zz", "/%", "/%4", "/a%4g"] {
            assert_eq!(joined(path), Err(BadEscape), "{path}");
        }
    }
}
