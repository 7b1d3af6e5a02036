//! The command line, and the settings that it stands for.

use std::env;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use hyper::Uri;
use traffic::fail_on::FailOn;
use traffic::flags::{CommandLine, Flag};
use traffic::sources::SourceFlags;
use traffic::{address, source_flags};

use crate::tls::Identity;
use crate::{client, server};

pub const COMMAND_LINE: CommandLine<Args> = CommandLine {
    program: "kahttp",
    summary: "\
Asks an HTTP server again and again on connections that are kept, and counts
what fails and who answers. With -server it is the server.

The client prints one line of JSON when it ends, also when SIGTERM or SIGINT end
it. Its exit code is 0 even if all requests failed; -fail-on changes that to 3.",
    flags: source_flags![
        sources:
        Flag {
            name: "address",
            value: "URL|HOST:PORT",
            help: "Client: what to get. Server: where to listen, no default",
            slot: |args| &mut args.address,
        },
        Flag {
            name: "server",
            value: "",
            help: "Be the server",
            slot: |args| &mut args.server,
        },
        Flag {
            name: "nclients",
            value: "N",
            help: "Clients, each with a connection of its own",
            slot: |args| &mut args.nclients,
        },
        Flag {
            name: "rate",
            value: "N",
            help: "Requests a second of all clients together",
            slot: |args| &mut args.rate,
        },
        Flag {
            name: "timeout",
            value: "DURATION",
            help: "Time to run",
            slot: |args| &mut args.timeout,
        },
        Flag {
            name: "monitor",
            value: "",
            help: "Show the progress on stderr each second",
            slot: |args| &mut args.monitor,
        },
        Flag {
            name: "disable_ka",
            value: "",
            help: "No keep-alive: a connection for each request",
            slot: |args| &mut args.disable_ka,
        },
        Flag {
            name: "http2",
            value: "",
            help: "Client: HTTP/2 and nothing else",
            slot: |args| &mut args.http2,
        },
        Flag {
            name: "host_stats",
            value: "",
            help: "Client: count the hosts that answer",
            slot: |args| &mut args.host_stats,
        },
        Flag {
            name: "fail-on",
            value: "lost,failed,dropped",
            help: "Client: exit with 3 if any of these happened",
            slot: |args| &mut args.fail_on,
        },
        Flag {
            name: "https_addr",
            value: "HOST:PORT",
            help: "Server: where to listen for TLS",
            slot: |args| &mut args.https_addr,
        },
        Flag {
            name: "https_cert",
            value: "FILE",
            help: "Server: certificate in PEM form; the default is in KAHTTP_CERT",
            slot: |args| &mut args.https_cert,
        },
        Flag {
            name: "https_key",
            value: "FILE",
            help: "Server: its key in PEM form; the default is in KAHTTP_KEY",
            slot: |args| &mut args.https_key,
        },
        Flag {
            name: "https_selfsigned",
            value: "",
            help: "Server: TLS with a certificate that is made at start",
            slot: |args| &mut args.https_selfsigned,
        },
        Flag {
            name: "log-access",
            value: "PREFIX",
            help: "Server: log requests whose path begins like this; the default is in LOG_ACCESS",
            slot: |args| &mut args.log_access,
        },
    ],
    operands: None,
};

/// The flags as given.
pub struct Args {
    address: String,
    server: bool,
    nclients: NonZeroU32,
    rate: f64,
    timeout: Duration,
    monitor: bool,
    disable_ka: bool,
    http2: bool,
    host_stats: bool,
    fail_on: FailOn,
    https_addr: String,
    https_cert: String,
    https_key: String,
    https_selfsigned: bool,
    log_access: String,
    sources: SourceFlags,
}

/// What there is to do.
pub enum Task {
    Serve(server::Settings),
    Ask(client::Settings, FailOn),
}

impl Default for Args {
    fn default() -> Self {
        let variable = |name| env::var(name).unwrap_or_default();
        Self {
            address: String::new(),
            server: false,
            nclients: NonZeroU32::MIN,
            rate: 10.0,
            timeout: Duration::from_secs(10),
            monitor: false,
            disable_ka: false,
            http2: false,
            host_stats: false,
            fail_on: FailOn::default(),
            https_addr: ":5443".to_owned(),
            https_cert: variable("KAHTTP_CERT"),
            https_key: variable("KAHTTP_KEY"),
            https_selfsigned: false,
            log_access: variable("LOG_ACCESS"),
            sources: SourceFlags::default(),
        }
    }
}

const DEFAULT_URL: &str = "http://127.0.0.1:5080/";

impl Args {
    pub fn into_task(self) -> anyhow::Result<Task> {
        match self.server {
            true => self.into_server().map(Task::Serve),
            false => {
                let fail_on = self.fail_on;
                Ok(Task::Ask(self.into_client()?, fail_on))
            }
        }
    }

    fn into_server(self) -> anyhow::Result<server::Settings> {
        ensure!(!self.address.is_empty(), "serve: needs -address");
        let identity = match (self.https_cert.is_empty(), self.https_key.is_empty()) {
            (false, false) => Some(Identity::Files {
                certificate: PathBuf::from(self.https_cert),
                key: PathBuf::from(self.https_key),
            }),
            _ if self.https_selfsigned => Some(Identity::MadeAtStart),
            _ => None,
        };
        let tls = match identity {
            Some(identity) => Some((address::to_listen_on(&self.https_addr)?, identity)),
            None => None,
        };
        Ok(server::Settings {
            address: address::to_listen_on(&self.address)?,
            tls,
            keep_alive: !self.disable_ka,
            logged_prefix: (!self.log_access.is_empty()).then_some(self.log_access),
        })
    }

    fn into_client(self) -> anyhow::Result<client::Settings> {
        ensure!(self.rate > 0.0 && self.rate.is_finite(), "rate {}: no rate above 0", self.rate);
        let url = match self.address.as_str() {
            "" => DEFAULT_URL,
            url => url,
        };
        let uri: Uri = url.parse().with_context(|| format!("address {url:?}"))?;
        let (tls, default_port) = match uri.scheme_str() {
            Some("http") => (false, 80),
            Some("https") => (true, 443),
            _ => bail!("address {url:?}: neither http:// nor https://"),
        };
        let host = uri.host().unwrap_or_default().to_owned();
        let port = uri.port_u16().unwrap_or(default_port);
        Ok(client::Settings {
            target: address::to_connect_to(&format!("{host}:{port}"), self.sources.srccidr)?,
            host,
            uri,
            tls,
            http2: self.http2,
            keep_alive: !self.disable_ka,
            clients: self.nclients,
            rate: self.rate,
            time: self.timeout,
            monitor: self.monitor,
            host_stats: self.host_stats,
            seed: self.sources.seed(),
            sources: self.sources.open()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use traffic::flags::Request;

    use super::*;

    fn task(arguments: &[&str]) -> Result<Task, String> {
        let Ok(Request::Run(args)) = COMMAND_LINE.parse(arguments) else {
            panic!("{arguments:?}");
        };
        args.into_task().map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_url_says_where_and_how() {
        for (url, target, tls) in [
            ("http://10.0.0.0/", "10.0.0.0:80", false),
            ("https://10.0.0.0/x?y", "10.0.0.0:443", true),
            ("https://[1000::1]:8443", "[1000::1]:8443", true),
            ("http://[::1]:8080/", "[::1]:8080", false),
        ] {
            let Ok(Task::Ask(settings, _)) = task(&["-address", url]) else {
                panic!("{url}");
            };
            assert_eq!(settings.target.to_string(), target);
            assert_eq!(settings.tls, tls);
        }
        assert!(matches!(task(&["-rate=5"]), Ok(Task::Ask(..))));
    }

    #[test]
    fn bad_values_are_named() {
        for (arguments, message) in [
            (&["-server"][..], "serve: needs -address"),
            (&["-rate=0"], "rate 0: no rate above 0"),
            (&["-address=ftp://x/"], "address \"ftp://x/\": neither http:// nor https://"),
            (&["-address=10.0.0.1:80"], "address \"10.0.0.1:80\": neither http:// nor https://"),
        ] {
            assert_eq!(task(arguments).err().as_deref(), Some(message), "{arguments:?}");
        }
    }
}
