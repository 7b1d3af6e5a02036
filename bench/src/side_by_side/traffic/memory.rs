//! Memory of a connection.

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;

use super::bed::{Bed, Generator, SERVER};
use super::pace::PORT;
use super::requests::server as http_server;
use super::{Case, Extent, entrants};
use crate::side_by_side::cases::{figures, in_turns};
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Column};

/// What a program needs with these is not counted to the others.
const FEW: u32 = 10;
/// How long all connections may take until they stand.
const PATIENCE: Duration = Duration::from_secs(30);
/// Packets or requests a second on each connection, and on all of them: the more, the sooner each has
/// been used, and has allocated what it needs.
const RATE: f64 = 4.0;
const RATE_OF_ALL: f64 = 5_000.0;
/// The longest that clients run.
const RUN: &str = "100s";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tcp,
    Udp,
    Http,
    Tls,
}

pub fn run(bed: &Bed, extent: Extent) -> anyhow::Result<CaseResults> {
    let all = [
        (Generator::Ctraffic, "TCP", Kind::Tcp),
        (Generator::Ctraffic, "UDP", Kind::Udp),
        (Generator::Mconnect, "TCP", Kind::Tcp),
        (Generator::Kahttp, "HTTP/1.1", Kind::Http),
        (Generator::Wrk, "HTTP/1.1", Kind::Http),
        (Generator::Kahttp, "TLS", Kind::Tls),
        (Generator::Wrk, "TLS", Kind::Tls),
    ];
    let entrants = entrants(bed, &all);
    let case = name(Case::Memory);
    let many = extent.connections;
    let measured = in_turns(bed, &case, extent.rounds, &entrants, |entrant| {
        let (generator, kind) = (entrant.alternative, entrant.setting);
        let few = own_memory(bed, generator, kind, FEW)?;
        let all = own_memory(bed, generator, kind, many)?;
        let each = |all: u64, few: u64| (all as f64 - few as f64) / f64::from(many - FEW);
        Ok(figures([
            ("client", each(all.client, few.client)),
            ("server", each(all.server, few.server)),
            ("clients", all.client as f64 / 1024.0),
            ("servers", all.server as f64 / 1024.0),
        ]))
    })?;
    Ok(CaseResults {
        name: case,
        what: format!(
            "Memory of the programs themselves (RssAnon) while {many} connections stand and are used, less that with \
             {FEW}, for each connection. The kernel's memory of a socket is not in it. wrk asks a kahttp server, as \
             fast as it can, while ours ask {RATE_OF_ALL} times a second at most, each connection once at least."
        ),
        columns: vec![
            Column::plotted("client", "client, KiB/connection", 2),
            Column::plotted("server", "server, KiB/connection", 2),
            Column::new("clients", "client, MiB", 1),
            Column::new("servers", "server, MiB", 1),
        ],
        comparisons: Vec::new(),
        rows: measured.rows,
        notes: measured.notes,
    })
}

/// In KiB.
struct Own {
    client: u64,
    server: u64,
}

fn own_memory(
    bed: &Bed,
    generator: Generator,
    kind: Kind,
    connections: u32,
) -> anyhow::Result<Own> {
    let network = bed.network()?;
    let server = match kind {
        Kind::Http | Kind::Tls => http_server(bed),
        Kind::Tcp | Kind::Udp => {
            bed.command(generator, &format!("-server -udp -address 0.0.0.0:{PORT}"))
        }
    };
    let server = network.serve(server, PORT)?;
    let mut client = network.start(client(bed, generator, kind, connections))?;
    let mut open = 0;
    let stand = network.until(PATIENCE, || {
        if let Some(status) = client.ended()? {
            anyhow::bail!("{generator} ended ({status}) with {open} of {connections} connections");
        }
        open = network.sockets_in_use()?;
        Ok(open >= connections.into())
    })?;
    ensure!(stand, "only {open} of {connections} connections stand after {PATIENCE:?}");
    network.pause(Duration::from_secs_f64(1.5 / rate(connections)))?;
    Ok(Own { client: client.memory()?.anonymous, server: server.memory()?.anonymous })
}

/// Packets or requests a second on each connection.
fn rate(connections: u32) -> f64 {
    RATE.min(RATE_OF_ALL / f64::from(connections))
}

fn client(bed: &Bed, generator: Generator, kind: Kind, connections: u32) -> Command {
    let rate = f64::from(connections) * rate(connections);
    let flags = match (generator, kind) {
        (Generator::Ctraffic, _) => {
            let udp = if kind == Kind::Udp { "-udp" } else { "" };
            // Packets of 1 KB.
            format!(
                "{udp} -address {SERVER}:{PORT} -nconn {connections} -rate {rate} -timeout {RUN}"
            )
        }
        (Generator::Mconnect, _) => {
            format!("-keep -address {SERVER}:{PORT} -nconn {connections} -timeout {RUN}")
        }
        (Generator::Wrk, Kind::Tls) => {
            format!("-t1 -c{connections} -d{RUN} https://{SERVER}:5443/")
        }
        (Generator::Wrk, _) => format!("-t1 -c{connections} -d{RUN} http://{SERVER}:{PORT}/"),
        (_, Kind::Tls) => format!(
            "-address https://{SERVER}:5443/ -nclients {connections} -rate {rate} -timeout {RUN}"
        ),
        _ => format!(
            "-address http://{SERVER}:{PORT}/ -nclients {connections} -rate {rate} -timeout {RUN}"
        ),
    };
    bed.command(generator, &flags)
}
