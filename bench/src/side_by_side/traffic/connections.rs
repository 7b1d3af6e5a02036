//! Connections that are made, used once and closed.

use std::process::Command;
use std::time::Duration;

use super::bed::{Bed, Generator, SERVER};
use super::pace::PORT;
use super::requests::{CLIENTS, wrk};
use super::{Case, Extent, said};
use crate::side_by_side::cases::{Entrant, figures, in_turns};
use crate::side_by_side::results::{CaseResults, Column, Comparison, Figures};

/// More than anybody can make in the time.
const MANY: u32 = 100_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
    Http,
}

pub fn run(bed: &Bed, extent: Extent) -> anyhow::Result<CaseResults> {
    let all = [
        (Generator::Mconnect, "TCP", Protocol::Tcp),
        (Generator::Mconnect, "UDP", Protocol::Udp),
        (Generator::Kahttp, "HTTP", Protocol::Http),
        (Generator::Wrk, "HTTP", Protocol::Http),
    ];
    let entrants: Vec<_> = all
        .into_iter()
        .filter(|(generator, ..)| bed.has(*generator))
        .map(|(generator, variant, protocol)| Entrant::new(generator, variant, protocol))
        .collect();
    let case = Case::Connections.to_string();
    let measured = in_turns(bed, &case, extent.rounds, &entrants, |entrant| {
        connect(bed, entrant.alternative, entrant.setting, extent.duration)
    })?;
    Ok(CaseResults {
        name: case,
        what: format!(
            "Connections that are made, get one answer and are closed, as fast as it goes. mconnect: 64 at a time, \
             closed by a reset (UDP: a socket, a question and its answer). HTTP: {CLIENTS} clients with a \
             connection for each request; kahttp -disable_ka, wrk with Connection: close; both ask kahttp."
        ),
        columns: vec![
            Column::plotted("rate", "connections/s", 0),
            Column::plotted("client", "client, µs/connection", 1),
            Column::new("server", "server, µs/connection", 1),
            Column::new("failed", "failed", 0),
        ],
        comparisons: vec![
            Comparison::ratio("rate", "connections/s", "wrk"),
            Comparison::ratio("client", "client", "wrk"),
        ],
        rows: measured.rows,
        notes: measured.notes,
    })
}

fn connect(
    bed: &Bed,
    generator: Generator,
    protocol: Protocol,
    time: Duration,
) -> anyhow::Result<Figures> {
    let network = bed.network()?;
    let seconds = time.as_secs_f64();
    let server = match protocol {
        Protocol::Http => {
            bed.command(Generator::Kahttp, &format!("-server -address 0.0.0.0:{PORT}"))
        }
        Protocol::Tcp | Protocol::Udp => {
            bed.command(Generator::Mconnect, &format!("-server -udp -address 0.0.0.0:{PORT}"))
        }
    };
    let client: Command = match generator {
        Generator::Wrk => {
            let mut command = wrk(bed, "http", time);
            command.args(["-H", "Connection: close"]);
            command
        }
        Generator::Kahttp => bed.command(
            generator,
            &format!(
                "-address http://{SERVER}:{PORT}/ -disable_ka -nclients {CLIENTS} -rate 1000000 -timeout {seconds}s"
            ),
        ),
        _ => {
            let udp = if protocol == Protocol::Udp { "-udp" } else { "" };
            let flags = format!(
                "{udp} -address {SERVER}:{PORT} -nconn {MANY} -timeout {seconds}s -output json"
            );
            bed.command(generator, &flags)
        }
    };
    let server = network.serve(server, PORT)?;
    let before = server.cpu()?;
    let ended = network.run(client, time)?;
    let cpu = server.cpu()?.saturating_sub(before);
    let run = match generator {
        Generator::Wrk => said::wrk(&ended.said)?,
        Generator::Kahttp => said::traffic(&ended.said)?,
        _ => said::mconnect(&ended.said)?,
    };
    anyhow::ensure!(run.done > 0.0, "not one connection was answered");
    Ok(figures([
        ("rate", run.done / run.seconds),
        ("client", ended.cpu.as_secs_f64() * 1e6 / run.done),
        ("server", cpu.as_secs_f64() * 1e6 / run.done),
        ("failed", run.failed),
    ]))
}
