//! The server: HTTP/1.1 and HTTP/2, plain and over TLS.

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, header};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use traffic::{process, tcp};

use crate::page::{self, HOST_HEADER};
use crate::tls::{self, Identity};
use crate::{SERVER_NAME, termination};

pub struct Settings {
    pub address: SocketAddr,
    pub tls: Option<(SocketAddr, Identity)>,
    pub keep_alive: bool,
    /// Requests with such a path are logged.
    pub logged_prefix: Option<String>,
}

/// Serves until SIGTERM or SIGINT.
pub async fn run(settings: &Settings) -> anyhow::Result<()> {
    let host_name = process::host_name().context("get the host name")?;
    let plain = listen(settings.address, "")?;
    let tls = match &settings.tls {
        Some((address, identity)) => {
            let config = tls::server_config(identity, &host_name)?;
            Some((listen(*address, "TLS ")?, TlsAcceptor::from(Arc::new(config))))
        }
        None => None,
    };
    let site = Rc::new(Site {
        name: format!("{SERVER_NAME}@{host_name}"),
        keep_alive: settings.keep_alive,
        logged_prefix: settings.logged_prefix.clone(),
    });
    let tasks = LocalSet::new();
    tasks.spawn_local(accept(plain, None, site.clone()));
    if let Some((listener, acceptor)) = tls {
        tasks.spawn_local(accept(listener, Some(acceptor), site));
    }
    tasks.run_until(termination()).await.context("watch for signals")
}

/// The limit of a handshake, of a request's header, and of being idle.
const LIMIT: Duration = Duration::from_secs(10);

/// How long nothing is accepted after that failed, as it does when there are
/// no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

struct Site {
    /// Program, version and host.
    name: String,
    keep_alive: bool,
    logged_prefix: Option<String>,
}

fn listen(address: SocketAddr, kind: &str) -> anyhow::Result<TcpListener> {
    let context = || format!("listen on {kind}{address}");
    let listener: StdListener = tcp::listen(address).with_context(context)?;
    let bound = listener.local_addr().with_context(context)?;
    let listener = TcpListener::from_std(listener).with_context(context)?;
    process::log(format_args!("Listen on {kind}address; {bound}"));
    Ok(listener)
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, site: Rc<Site>) {
    loop {
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                process::log(format_args!("kahttp: accept: {error}"));
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (tls, site) = (tls.clone(), site.clone());
        spawn_local(async move {
            let Some(acceptor) = tls else {
                return serve(stream, remote, None, site).await;
            };
            // A handshake that fails is the client's to notice.
            if let Ok(Ok(stream)) = timeout(LIMIT, acceptor.accept(stream)).await {
                let peer = stream.get_ref().1.peer_certificates().map_or(0, <[_]>::len);
                serve(stream, remote, Some(peer), site).await;
            }
        });
    }
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    remote: SocketAddr,
    peer_certificates: Option<usize>,
    site: Rc<Site>,
) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = site.answer(&request, remote, peer_certificates);
        async { Ok::<_, Infallible>(answer) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(LIMIT).keep_alive(site.keep_alive);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(LIMIT).keep_alive_timeout(LIMIT);
    // How a connection ends is the client's to notice, too.
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

impl Site {
    fn answer(
        &self,
        request: &Request<Incoming>,
        remote: SocketAddr,
        peer_certificates: Option<usize>,
    ) -> Response<Full<Bytes>> {
        let path = page::path(request);
        if self.logged_prefix.as_ref().is_some_and(|prefix| path.starts_with(prefix)) {
            let host = page::host(request);
            process::log(format_args!("{}; {host}{path} from {remote}", now()));
        }
        let page = page::page(request, remote, peer_certificates, &self.name);
        let mut response = Response::new(Full::new(Bytes::from(page)));
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        // A host name that HTTP cannot carry is left to the page.
        if let Ok(name) = header::HeaderValue::from_str(&self.name) {
            headers.insert(HOST_HEADER, name);
        }
        response
    }
}

/// `YYYY-MM-DD HH:MM:SS`, UTC.
fn now() -> String {
    let stamp = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    stamp.trim_end_matches('Z').replace('T', " ")
}
