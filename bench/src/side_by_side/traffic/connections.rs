//! Connections that are made, used once and closed.

use std::process::Command;
use std::time::Duration;

use super::bed::{Bed, Generator, SERVER};
use super::pace::PORT;
use super::requests::{CLIENTS, columns, comparisons, for_each, wrk};
use super::{Case, Extent, entrants, said};
use crate::side_by_side::cases::in_turns;
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Figures};

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
    let entrants = entrants(bed, &all);
    let case = name(Case::Connections);
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
        columns: columns("connection"),
        comparisons: comparisons("connection"),
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
    let both = network.run_both(server, PORT, client, time)?;
    let run = match generator {
        Generator::Wrk => said::wrk(&both.said)?,
        Generator::Kahttp => said::traffic(&both.said)?,
        _ => said::mconnect(&both.said)?,
    };
    for_each(run, &both)
}
