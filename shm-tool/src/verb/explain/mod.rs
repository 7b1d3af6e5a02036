mod explanation;
mod fields;
mod headers;
mod hex;

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use lb_core::counters::{Counter, Counts};
use lb_core::frag::{FragConfig, Fragments, Secret};
use lb_core::table::Table;
use lb_core::target::Mark;
use lb_core::tier::Tier;
use lb_core::walk::Policy;
use lb_core::wire::Packet;
use lb_sys::shm::{Folder, MappedTable, Name};
use serde_json::{Value, json};

use self::explanation::Explanation;
use self::fields::{Endpoint, Fields, Protocol};
use crate::args::{JsonArg, TableArg, exit_codes, mark};
use crate::capture::Capture;
use crate::error::Error;
use crate::output::{print, print_json};
use crate::settings::joined;

/// Explain what lb decides about a packet, and why
///
/// The packet is given by its fields, as hex, or in a capture file. Its headers, key, hash and slot
/// are those of lb itself, and so is the reason if it is dropped. Packets of a capture that are not IP
/// are told and passed over; its fragments follow the first of their datagram if that came before.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("packet").required(true).args(["src", "hex", "pcap"]), after_help = concat!(
    "Examples:
  shm-tool explain --src 192.0.2.1:4000 --dst 10.0.0.0:80
  shm-tool explain --src 192.0.2.1 --dst 10.0.0.0 --proto icmp --id 7
  shm-tool explain --hex '45 00 00 1c 00 00 00 00 40 11 ...'
  tcpdump -U -i eth0 -w - 'dst net 10.0.0.0/24' | shm-tool explain --pcap -
  shm-tool explain --pcap FILE --json | jq -c 'select(.dropped) | [.packet, .dropped]'

",
    exit_codes!("explained, also if the packet is dropped", "not explained")
))]
pub struct Explain {
    #[command(flatten)]
    table: TableArg,
    /// Source: ADDRESS:PORT or [IPV6]:PORT; without a port for protocols that have none
    #[arg(long, value_name = "A:P", requires = "dst")]
    src: Option<Endpoint>,
    /// Destination
    #[arg(long, value_name = "A:P", requires = "src")]
    dst: Option<Endpoint>,
    /// Protocol: tcp, udp, sctp, icmp (an echo, also for IPv6) or a number [default: tcp]
    #[arg(long, requires = "src")]
    proto: Option<Protocol>,
    /// Identifier of an ICMP echo
    #[arg(long, value_name = "N", requires = "proto")]
    id: Option<u16>,
    /// The packet in hexadecimal digits from the IP header on, - for stdin; spaces and colons do no harm
    #[arg(long, value_name = "DIGITS")]
    hex: Option<String>,
    /// Each packet of a capture file, pcap or pcapng, - for stdin
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Bytes of each packet that are looked at, as of lb
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 512,
        value_parser = clap::value_parser!(u16).range(64..)
    )]
    copy_range: u16,
    /// Mark of packets while no target is active, as of lb [default: such packets are dropped]
    #[arg(long, value_name = "MARK", value_parser = mark)]
    no_targets_mark: Option<Mark>,
    /// The table of a tier of routers, as of lb: which of them handles a fragment
    #[arg(long, value_name = "NAME", alias = "lbshm")]
    tier_shm: Option<Name>,
    #[command(flatten)]
    format: JsonArg,
}

impl Explain {
    pub fn run(&self, folder: &Folder) -> Result<(), Error> {
        let name = &self.table.name;
        let mapped = MappedTable::open(folder, name)?;
        let table = sound(&mapped, name)?;
        let of_tier = self.tier_shm.as_ref().map(|name| MappedTable::open(folder, name));
        let of_tier = of_tier.transpose()?;
        let tier = match (&of_tier, &self.tier_shm) {
            (Some(mapped), Some(name)) => Some(
                Tier::new(sound(mapped, name)?)
                    .map_err(|cause| Error::Tier { table: name.clone(), cause })?,
            ),
            _ => None,
        };
        let tables = Tables { table, tier };

        if let Some(path) = &self.pcap {
            return self.capture(path, &tables);
        }
        let bytes = match (&self.hex, self.src, self.dst) {
            (Some(digits), _, _) => hex::packet(digits)?,
            (None, Some(src), Some(dst)) => self.fields(src, dst, &tables.table)?.packet(),
            _ => return Err(usage("--src and --dst, --hex or --pcap is needed")),
        };
        let explanation = self.explain(Packet::whole(&bytes), &tables, &mut fragments(1));
        match self.format.json {
            true => print_json(&Value::Object(explanation.json())),
            false => print(explanation.text()),
        }
    }

    fn fields(&self, src: Endpoint, dst: Endpoint, table: &Table<'_>) -> Result<Fields, Error> {
        let protocol = self.proto.unwrap_or(Protocol::TCP);
        let fields = Fields::new(src, dst, protocol, self.id).map_err(usage)?;
        // There would be no SCTP inside.
        match fields.udp_destination() {
            Some(port) if table.config().modes.sctp_encap.contains(port) => {
                Err(Error::SctpInUdp { table: self.table.name.clone(), port })
            }
            _ => Ok(fields),
        }
    }

    /// What lb, which is given so many bytes of it, decides about a packet.
    fn explain(
        &self,
        packet: Packet<'_>,
        tables: &Tables<'_>,
        fragments: &mut Fragments,
    ) -> Explanation {
        let copied = packet.bytes().len().min(self.copy_range.into());
        let packet = Packet::copied(&packet.bytes()[..copied], packet.full_len());
        let policy = Policy { no_targets_mark: self.no_targets_mark };
        Explanation::of(packet, tables, &policy, fragments)
    }

    fn capture(&self, path: &Path, tables: &Tables<'_>) -> Result<(), Error> {
        let (path, reader): (&Path, Box<dyn Read>) = if path.as_os_str() == "-" {
            (Path::new("stdin"), Box::new(io::stdin().lock()))
        } else {
            let file = File::open(path);
            (path, Box::new(file.map_err(|cause| Error::Read { path: path.into(), cause })?))
        };
        let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
        let explained = self.packets(path, reader, tables, &mut out);
        // What was explained before an error is shown.
        let flushed = out.flush().map_err(Error::Output);
        explained.and(flushed)
    }

    fn packets(
        &self,
        path: &Path,
        reader: impl Read,
        tables: &Tables<'_>,
        out: &mut impl Write,
    ) -> Result<(), Error> {
        let malformed = |cause| Error::Capture { path: path.into(), cause };
        let mut capture = Capture::open(reader).map_err(malformed)?;
        let mut summary = Summary::default();
        let mut fragments = fragments(FragConfig::default().entries);
        for number in 1u64.. {
            if capture.is_drained() {
                out.flush().map_err(Error::Output)?;
            }
            let Some(frame) = capture.next().map_err(malformed)? else {
                break;
            };
            let head =
                json!({ "packet": number, "offset": frame.offset, "length": frame.full_len });
            let line = match frame.ip() {
                Err(skipped) => {
                    summary.skipped += 1;
                    match self.format.json {
                        true => with(head, [("skipped".into(), json!(skipped.to_string()))]),
                        false => format!("{number}: {skipped}\n"),
                    }
                }
                Ok(packet) => {
                    let explanation = self.explain(packet, tables, &mut fragments);
                    summary.counts.record(explanation.walked);
                    match self.format.json {
                        true => with(head, explanation.json()),
                        false => format!("{number}: {}", explanation.short_text()),
                    }
                }
            };
            out.write_all(line.as_bytes()).map_err(Error::Output)?;
        }
        match self.format.json {
            true => Ok(()),
            false => out.write_all(summary.text().as_bytes()).map_err(Error::Output),
        }
    }
}

/// What decides about packets.
struct Tables<'m> {
    table: Table<'m>,
    tier: Option<Tier<'m>>,
}

/// The view of a table of which all was checked.
fn sound<'m>(mapped: &'m MappedTable, name: &Name) -> Result<Table<'m>, Error> {
    let checked = || {
        mapped.snapshot()?;
        mapped.table()
    };
    checked().map_err(|cause| Error::Table { table: name.clone(), cause })
}

/// What `lb` remembers of datagrams when it holds nothing.
fn fragments(entries: u32) -> Fragments {
    let config = FragConfig { entries, held: 0, ..FragConfig::default() };
    // The packets were chosen by who explains them: there is nobody to hide the hash from.
    Fragments::new(config, Secret([0; 2]))
}

/// A line of JSON: the head with more behind.
fn with(head: Value, more: impl IntoIterator<Item = (String, Value)>) -> String {
    let Value::Object(mut line) = head else {
        return String::new();
    };
    line.extend(more);
    format!("{}\n", Value::Object(line))
}

fn usage(problem: &'static str) -> Error {
    Error::Usage { verb: "explain", problem }
}

#[derive(Default)]
struct Summary {
    counts: Counts,
    skipped: u64,
}

impl Summary {
    fn text(&self) -> String {
        let counts = &self.counts;
        let received = counts.get(Counter::Received);
        let reasons: Vec<String> = counts
            .dropped()
            .filter(|(_, number)| *number > 0)
            .map(|(reason, number)| format!("{number} {reason}"))
            .collect();
        let reasons = match reasons[..] {
            [] => String::new(),
            _ => format!(" ({})", joined(&reasons)),
        };
        format!(
            "{} packets: {} marked, {} dropped{reasons}, {} passed over\n",
            received + self.skipped,
            counts.get(Counter::Marked),
            counts.dropped_sum(),
            self.skipped
        )
    }
}
