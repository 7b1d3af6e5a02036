//! The addresses that a user types: `HOST:PORT`, `[IPV6]:PORT`, `:PORT`.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _};

use thiserror::Error;

use crate::source::Cidr;

/// Why a text gives no address.
#[derive(Debug, Error)]
pub enum AddressError {
    #[error("address {0:?}: not of the form HOST:PORT or [IPV6]:PORT")]
    Form(String),
    #[error("address {0:?}: {1:?} is not a port")]
    Port(String, String),
    #[error("resolve {0:?}: {1}")]
    Resolve(String, io::Error),
    #[error("resolve {0:?}: no address")]
    Nothing(String),
    #[error("address {0:?}: not of the family of the source addresses {1}")]
    Family(String, Cidr),
}

/// The address to listen on. Without a host that is `[::]`: any address of
/// both families.
pub fn to_listen_on(text: &str) -> Result<SocketAddr, AddressError> {
    let (host, port) = split(text)?;
    match host {
        "" => Ok((Ipv6Addr::UNSPECIFIED, port).into()),
        host => resolve(host, port)?.next().ok_or_else(|| AddressError::Nothing(host.to_owned())),
    }
}

/// The address to connect to, of the family of the source addresses if there
/// are any. Without a host that is this machine.
pub fn to_connect_to(text: &str, sources: Option<Cidr>) -> Result<SocketAddr, AddressError> {
    let (host, port) = split(text)?;
    let mut found: Vec<SocketAddr> = match host {
        "" => vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()],
        host => resolve(host, port)?.collect(),
    };
    if found.is_empty() {
        return Err(AddressError::Nothing(host.to_owned()));
    }
    if let Some(cidr) = sources {
        found.retain(|address| address.is_ipv4() == cidr.is_ipv4());
        if found.is_empty() {
            return Err(AddressError::Family(text.to_owned(), cidr));
        }
    }
    Ok(found[0])
}

/// The host without its brackets, and the port.
fn split(text: &str) -> Result<(&str, u16), AddressError> {
    let form = || AddressError::Form(text.to_owned());
    let (host, port) = text.rsplit_once(':').ok_or_else(form)?;
    let host = match host.strip_prefix('[') {
        Some(host) => host.strip_suffix(']').ok_or_else(form)?,
        // `::1:5001` could mean two things.
        None if host.contains([':', ']']) => return Err(form()),
        None => host,
    };
    match port.parse() {
        Ok(number) if !port.starts_with('+') => Ok((host, number)),
        _ => Err(AddressError::Port(text.to_owned(), port.to_owned())),
    }
}

fn resolve(host: &str, port: u16) -> Result<impl Iterator<Item = SocketAddr>, AddressError> {
    (host, port).to_socket_addrs().map_err(|error| AddressError::Resolve(host.to_owned(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(text: &str, sources: &str) -> Result<String, String> {
        let sources = (!sources.is_empty()).then(|| sources.parse().unwrap());
        to_connect_to(text, sources)
            .map(|address| address.to_string())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn literal_addresses() {
        for text in ["10.0.0.0:5001", "[1000::1]:5001", "[::1]:0"] {
            assert_eq!(connect(text, ""), Ok(text.to_owned()));
            assert_eq!(to_listen_on(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn no_host_means_any_address_or_this_machine() {
        assert_eq!(to_listen_on(":5001").unwrap().to_string(), "[::]:5001");
        assert_eq!(connect(":5001", "").unwrap(), "127.0.0.1:5001");
        assert_eq!(connect(":5001", "::/0").unwrap(), "[::1]:5001");
    }

    #[test]
    fn the_family_is_that_of_the_sources() {
        assert_eq!(connect("[1000::1]:5001", "1000::/64").unwrap(), "[1000::1]:5001");
        assert_eq!(
            connect("10.0.0.0:5001", "1000::/64").unwrap_err(),
            "address \"10.0.0.0:5001\": not of the family of the source addresses 1000::/64"
        );
    }

    #[test]
    fn malformed_addresses_are_named() {
        let form = "not of the form HOST:PORT or [IPV6]:PORT";
        for text in ["", "10.0.0.0", "::1:5001", "[::1:5001", "::1]:5001", "[::1]"] {
            let error = connect(text, "").unwrap_err();
            assert_eq!(error, format!("address {text:?}: {form}"));
        }
        for (text, port) in [
            ("10.0.0.0:", ""),
            ("10.0.0.0:65536", "65536"),
            ("10.0.0.0:+1", "+1"),
            ("10.0.0.0:http", "http"),
        ] {
            let error = connect(text, "").unwrap_err();
            assert_eq!(error, format!("address {text:?}: {port:?} is not a port"));
        }
    }
}
