use std::net::SocketAddr;

use clap::{Args, ValueEnum};
use lb_core::key::{Key, KeyModes};
use lb_core::target::Mark;
use lb_core::wire::ip::Addresses;
use lb_core::wire::protocol;
use lb_sys::shm::Folder;
use serde_json::json;

use crate::args::{JsonArg, TableArg, exit_codes};
use crate::columns::{Align, aligned};
use crate::error::Error;
use crate::output::{print, print_json};
use crate::verb::read;

/// Tell which target a packet would meet
///
/// Prints the hash of the packet's key, the slot, and the mark that the slot holds. With SCTP hashed
/// by ports the addresses make no difference. For SCTP in UDP, give the ports of SCTP.
#[derive(Debug, Args)]
#[command(after_help = concat!(
    "Examples:
  shm-tool lookup --src 192.0.2.1:4000 --dst 10.0.0.0:80
  shm-tool lookup --src [2001:db8::1]:4000 --dst [1000::]:80 --proto udp

",
    exit_codes!(reading)
))]
pub struct Lookup {
    #[command(flatten)]
    table: TableArg,
    /// Source of the packet, ADDRESS:PORT or [IPV6]:PORT
    #[arg(long, value_name = "A:P", value_parser = endpoint)]
    src: SocketAddr,
    /// Destination of the packet
    #[arg(long, value_name = "A:P", value_parser = endpoint)]
    dst: SocketAddr,
    /// Protocol of the packet [default: tcp]
    #[arg(long, default_value = "tcp", hide_default_value = true, ignore_case = true)]
    proto: Protocol,
    #[command(flatten)]
    format: JsonArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Lookup {
    pub fn run(&self, folder: &Folder) -> Result<(), Error> {
        let snapshot = read(folder, &self.table.name)?;
        let config = &snapshot.config;
        let hash = self.key(&config.modes)?.hash(config.seed);
        let slot = hash.slot(config.slots);
        let mark = snapshot.slots.get(slot.0 as usize).copied();
        let mark = mark.and_then(Mark::new);
        if self.format.json {
            let mark = mark.map(Mark::get);
            return print_json(&json!({ "hash": hash.0, "slot": slot.0, "mark": mark }));
        }
        let mark = mark.map_or("none: no target is active".into(), |mark| mark.to_string());
        let rows = [("hash", hash.to_string()), ("slot", slot.0.to_string()), ("mark", mark)];
        let rows = rows.map(|(label, value)| vec![label.to_string(), value]);
        print(aligned(&rows, &[Align::Left, Align::Left]))
    }

    fn key(&self, modes: &KeyModes) -> Result<Key, Error> {
        let port = self.dst.port();
        let protocol = match self.proto {
            Protocol::Udp if modes.sctp_encap.contains(port) => {
                return Err(Error::SctpInUdp { table: self.table.name.clone(), port });
            }
            Protocol::Tcp => protocol::TCP,
            Protocol::Udp => protocol::UDP,
            Protocol::Sctp => protocol::SCTP,
        };
        let ports = joined([self.src.port().to_be_bytes(), self.dst.port().to_be_bytes()]);
        let key = |addresses| Key::transport(addresses, protocol, ports, modes);
        match (self.src, self.dst) {
            (SocketAddr::V4(src), SocketAddr::V4(dst)) => {
                let both = joined([src.ip().octets(), dst.ip().octets()]);
                Ok(key(Addresses::V4(&both)))
            }
            (SocketAddr::V6(src), SocketAddr::V6(dst)) => {
                let both = joined([src.ip().octets(), dst.ip().octets()]);
                Ok(key(Addresses::V6(&both)))
            }
            _ => Err(Error::Usage {
                verb: "lookup",
                problem: "--src and --dst are of different families: one is IPv4, the other IPv6",
            }),
        }
    }
}

/// Two parts as one array of their bytes.
fn joined<const PART: usize, const BOTH: usize>(parts: [[u8; PART]; 2]) -> [u8; BOTH] {
    const { assert!(BOTH == 2 * PART) };
    std::array::from_fn(|i| parts[i / PART][i % PART])
}

fn endpoint(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "not of the form ADDRESS:PORT or [IPV6]:PORT")
}
