//! What the server answers: the request as it saw it.

use std::fmt::Write as _;
use std::net::SocketAddr;

use hyper::body::Body as _;
use hyper::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use hyper::{Request, body};

/// Who answers, as clients read it: all behind the `@`.
pub const HOST_HEADER: &str = "X-Kahttp-Server-Host";

/// The page for a request.
pub fn page(
    request: &Request<body::Incoming>,
    remote: SocketAddr,
    peer_certificates: Option<usize>,
    server_host: &str,
) -> String {
    let header = |name| {
        let value = request.headers().get(name);
        value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let length = match request.body().size_hint().exact() {
        Some(length) => length.to_string(),
        None => header(CONTENT_LENGTH).unwrap_or_else(|| "-1".to_owned()),
    };
    let encoding = header(TRANSFER_ENCODING).unwrap_or_default();
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}: {value}");
    };
    line("Method", request.method().as_str());
    line("URL", &path(request));
    line("Proto", &format!("{:?}", request.version()));
    line("ContentLength", &length);
    line("TransferEncoding", &encoding);
    line("Host", &host(request));
    line("RemoteAddr", &remote.to_string());
    line("RequestURI", &path(request));
    if let Some(count) = peer_certificates {
        line("Tls-nPeerCertificates", &count.to_string());
    }
    line(HOST_HEADER, server_host);
    for (name, value) in request.headers() {
        line(name.as_str(), &String::from_utf8_lossy(value.as_bytes()));
    }
    text
}

/// The host that is asked for; HTTP/2 has it in the URI.
pub fn host<B>(request: &Request<B>) -> String {
    match (request.headers().get(HOST), request.uri().authority()) {
        (Some(host), _) => String::from_utf8_lossy(host.as_bytes()).into_owned(),
        (None, Some(authority)) => authority.to_string(),
        (None, None) => String::new(),
    }
}

/// The path with its query.
pub fn path<B>(request: &Request<B>) -> String {
    request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned()
}

/// The host in the value of [`HOST_HEADER`].
pub fn host_of(value: &str) -> &str {
    value.split_once('@').map_or(value, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_stands_behind_the_at() {
        assert_eq!(host_of("Kahttp/1.0@vm-001"), "vm-001");
        assert_eq!(host_of("vm-001"), "vm-001");
    }

    #[test]
    fn the_host_is_in_the_header_or_in_the_uri() {
        let request = |uri: &str| Request::builder().uri(uri);
        let with_header = request("/x").header(HOST, "a:1").body(()).unwrap();
        assert_eq!(host(&with_header), "a:1");
        let http2 = request("http://b:2/x?y").body(()).unwrap();
        assert_eq!((host(&http2).as_str(), path(&http2).as_str()), ("b:2", "/x?y"));
    }
}
