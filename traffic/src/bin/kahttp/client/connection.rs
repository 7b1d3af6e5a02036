//! A connection to the server, and a request on it.

use std::io;
use std::net::TcpStream as StdStream;

use anyhow::Context as _;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::{CONNECTION, HOST, HeaderValue, USER_AGENT};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use traffic::sources::SourceError;
use traffic::tcp;

use super::Settings;
use crate::page::{HOST_HEADER, host_of};
use crate::tls;

pub enum Connection {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

pub struct Answer {
    /// Status 200.
    pub is_ok: bool,
    /// Who answered.
    pub host: Option<String>,
}

/// Why there is no connection.
pub enum DialError {
    Source(SourceError),
    NotHttp2,
    Other(anyhow::Error),
}

impl Connection {
    pub async fn dial(
        settings: &Settings,
        connector: Option<&TlsConnector>,
        number: u64,
    ) -> Result<Self, DialError> {
        let socket = socket(settings, number)?;
        let stream = socket.connect(settings.target).await?;
        stream.set_nodelay(true)?;
        let Some(connector) = connector else {
            return Self::begin(stream, settings.http2).await;
        };
        let host = settings.host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).context("use the host for TLS")?;
        let stream = connector.connect(name, stream).await.context("TLS")?;
        let is_http2 = tls::is_http2(stream.get_ref().1.alpn_protocol());
        if settings.http2 && !is_http2 {
            return Err(DialError::NotHttp2);
        }
        Self::begin(stream, is_http2).await
    }

    async fn begin(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        is_http2: bool,
    ) -> Result<Self, DialError> {
        let io = TokioIo::new(stream);
        if is_http2 {
            let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await?;
            spawn_local(driver);
            Ok(Self::Http2(sender))
        } else {
            let (sender, driver) = http1::handshake(io).await?;
            spawn_local(driver);
            Ok(Self::Http1(sender))
        }
    }

    /// Whether the server has not closed it, as far as is known.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Http1(sender) => !sender.is_closed(),
            Self::Http2(sender) => !sender.is_closed(),
        }
    }

    /// Makes a request and reads the whole answer.
    pub async fn ask(&mut self, settings: &Settings) -> anyhow::Result<Answer> {
        let request = request(settings, matches!(self, Self::Http2(_)))?;
        let response = match self {
            Self::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Self::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        let answer =
            Answer { is_ok: response.status() == StatusCode::OK, host: answering_host(&response) };
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame.context("read the body")?;
        }
        Ok(answer)
    }
}

fn socket(settings: &Settings, number: u64) -> Result<TcpSocket, DialError> {
    let target = settings.target;
    let socket = Socket::new(Domain::for_address(target), Type::STREAM.nonblocking(), None)?;
    if let Some(source) = settings.sources.address(number, target)? {
        tcp::bind_source(&socket, source)?;
    }
    Ok(TcpSocket::from_std_stream(StdStream::from(socket)))
}

fn request(settings: &Settings, is_http2: bool) -> anyhow::Result<Request<Empty<Bytes>>> {
    let uri = &settings.uri;
    let mut request = Request::new(Empty::new());
    let headers = request.headers_mut();
    headers.insert(USER_AGENT, HeaderValue::from_static("kahttp"));
    if is_http2 {
        *request.uri_mut() = uri.clone();
    } else {
        // A server is told the host, and the path alone.
        let host = uri.authority().map_or("", |authority| authority.as_str());
        headers.insert(HOST, HeaderValue::from_str(host).context("use the host")?);
        if !settings.keep_alive {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().context("use the path")?;
    }
    Ok(request)
}

fn answering_host(response: &Response<Incoming>) -> Option<String> {
    let value = response.headers().get(HOST_HEADER)?;
    Some(host_of(&String::from_utf8_lossy(value.as_bytes())).to_owned())
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        DialError::Other(error.into())
    }
}

impl From<hyper::Error> for DialError {
    fn from(error: hyper::Error) -> Self {
        DialError::Other(error.into())
    }
}

impl From<anyhow::Error> for DialError {
    fn from(error: anyhow::Error) -> Self {
        DialError::Other(error)
    }
}
