//! Where a run's connections come from: the flags `-srccidr`, `-srcfile` and
//! `-seed`, which all tools share.

use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, SocketAddr};

use thiserror::Error;

use crate::source::{Cidr, SourceAddresses};

/// The flags as given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFlags {
    pub srccidr: Option<Cidr>,
    pub srcfile: String,
    pub seed: i64,
}

/// The source of each connection, by its number.
#[derive(Clone, Debug)]
pub enum Sources {
    /// The kernel chooses.
    Any,
    Subnet(SourceAddresses),
    /// Each connection takes the next one.
    List(Vec<SocketAddr>),
}

/// Why there is no source address.
#[derive(Debug, Error)]
pub enum SourceError {
    #[error("read source addresses {0}: {1}")]
    Read(String, std::io::Error),
    #[error("read source addresses {0}: line {1}: {2:?} is no address")]
    Line(String, usize, String),
    #[error("source address {0}: not of the family of {1}")]
    Family(SocketAddr, SocketAddr),
    #[error("Ran out of source addresses")]
    RanOut,
}

/// Declares the flags in a tool's table; `$sources` leads to its
/// [`SourceFlags`].
#[macro_export]
macro_rules! source_flags {
    ($sources:ident: $($other:expr),* $(,)?) => {
        &[
            $($other,)*
            $crate::flags::Flag {
                name: "srccidr",
                value: "CIDR",
                help: "Connect from random addresses of this subnet",
                slot: |args| &mut args.$sources.srccidr,
            },
            $crate::flags::Flag {
                name: "srcfile",
                value: "FILE",
                help: "Connect from the addresses in this file, one a line: ADDRESS or ADDRESS:PORT",
                slot: |args| &mut args.$sources.srcfile,
            },
            $crate::flags::Flag {
                name: "seed",
                value: "N",
                help: "Makes the source addresses repeatable; 0 = new ones each time",
                slot: |args| &mut args.$sources.seed,
            },
        ]
    };
}

impl SourceFlags {
    /// `-srccidr` goes before `-srcfile`.
    pub fn open(&self) -> Result<Sources, SourceError> {
        if let Some(subnet) = self.srccidr {
            return Ok(Sources::Subnet(SourceAddresses::new(subnet, self.seed())));
        }
        match self.srcfile.as_str() {
            "" => Ok(Sources::Any),
            path => {
                let text = fs::read_to_string(path)
                    .map_err(|error| SourceError::Read(path.to_owned(), error))?;
                let list = list(&text).map_err(|(line, text)| {
                    SourceError::Line(path.to_owned(), line, text.to_owned())
                })?;
                Ok(Sources::List(list))
            }
        }
    }

    /// The seed of a run, drawn if none is given.
    pub fn seed(&self) -> u64 {
        match self.seed {
            // Keyed by the operating system's randomness: runs that start at
            // the same moment on many hosts still differ.
            0 => RandomState::new().hash_one(()),
            seed => seed.cast_unsigned(),
        }
    }
}

impl Sources {
    /// What connection number `number` to `target` is to be bound to.
    pub fn address(
        &self,
        number: u64,
        target: SocketAddr,
    ) -> Result<Option<SocketAddr>, SourceError> {
        match self {
            Sources::Any => Ok(None),
            Sources::Subnet(subnet) => Ok(Some(subnet.socket_address(number, target))),
            Sources::List(list) => {
                let source = usize::try_from(number).ok().and_then(|number| list.get(number));
                match *source.ok_or(SourceError::RanOut)? {
                    source if source.is_ipv4() == target.is_ipv4() => Ok(Some(source)),
                    source => Err(SourceError::Family(source, target)),
                }
            }
        }
    }
}

/// The addresses up to an empty line, or the line that is none.
fn list(text: &str) -> Result<Vec<SocketAddr>, (usize, &str)> {
    let lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    lines.enumerate().map(|(index, line)| address(line).ok_or((index + 1, line))).collect()
}

/// `ADDRESS`, `ADDRESS:PORT`, `[IPV6]` or `[IPV6]:PORT`.
fn address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Some(address);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    bare.unwrap_or(text).parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_list_holds_addresses_with_and_without_ports() {
        let text = "10.0.0.1\n10.0.0.2:4000\n [1000::1]\n[1000::2]:4000\n1000::3\n";
        let shown: Vec<_> = list(text).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["10.0.0.1:0", "10.0.0.2:4000", "[1000::1]:0", "[1000::2]:4000", "[1000::3]:0"]
        );
    }

    #[test]
    fn a_list_ends_at_an_empty_line() {
        assert_eq!(list("10.0.0.1\n\n10.0.0.2\n").unwrap().len(), 1);
        assert_eq!(list("").unwrap().len(), 0);
    }

    #[test]
    fn a_bad_line_is_named() {
        assert_eq!(list("10.0.0.1\n10.0.0\n"), Err((2, "10.0.0")));
        for text in ["[10.0.0.1", "[::1", "::1]", "10.0.0.1:x", "10.0.0.1:65536", "host"] {
            assert_eq!(address(text), None, "{text}");
        }
    }

    #[test]
    fn connections_take_lines_in_turn_until_there_are_none() {
        let sources = Sources::List(list("10.0.0.1\n10.0.0.2:7").unwrap());
        let to = target("10.0.0.9:5003");
        assert_eq!(sources.address(0, to).unwrap(), Some(target("10.0.0.1:0")));
        assert_eq!(sources.address(1, to).unwrap(), Some(target("10.0.0.2:7")));
        assert_eq!(sources.address(2, to).unwrap_err().to_string(), "Ran out of source addresses");
        assert_eq!(
            sources.address(0, target("[::1]:5003")).unwrap_err().to_string(),
            "source address 10.0.0.1:0: not of the family of [::1]:5003"
        );
    }

    #[test]
    fn a_subnet_goes_before_a_file() {
        let flags = SourceFlags {
            srccidr: Some("10.0.0.1/32".parse().unwrap()),
            srcfile: "/nowhere".to_owned(),
            seed: 0,
        };
        let sources = flags.open().unwrap();
        let to = target("10.0.0.9:5003");
        assert_eq!(sources.address(5, to).unwrap(), Some(target("10.0.0.1:0")));
        let error = SourceFlags { srccidr: None, ..flags }.open().unwrap_err().to_string();
        assert!(error.starts_with("read source addresses /nowhere: No such file"), "{error}");
    }

    #[test]
    fn a_seed_repeats_the_sources_and_its_absence_does_not() {
        let sources = |seed| {
            let subnet = Some("::/0".parse().unwrap());
            let sources =
                SourceFlags { srccidr: subnet, seed, ..SourceFlags::default() }.open().unwrap();
            (0..4).map(|i| sources.address(i, target("[::1]:1")).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(sources(7), sources(7));
        assert_ne!(sources(7), sources(8));
        assert_ne!(sources(7), sources(-7));
        assert_ne!(sources(0), sources(0));
    }
}
