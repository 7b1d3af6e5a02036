//! HTTP requests on connections that stay.

use std::process::Command;
use std::time::Duration;

use anyhow::ensure;

use super::bed::{Bed, Both, Generator, SERVER};
use super::pace::PORT;
use super::said::Run;
use super::{Case, Extent, entrants, said};
use crate::side_by_side::cases::{figures, in_turns};
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Column, Comparison, Figures};

/// Clients, each with a connection.
pub const CLIENTS: u32 = 50;
const TLS_PORT: u16 = 5443;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Tls,
    Http2,
}

pub fn run(bed: &Bed, extent: Extent) -> anyhow::Result<CaseResults> {
    let all = [
        (Generator::Kahttp, "HTTP/1.1", Kind::Plain),
        (Generator::Wrk, "HTTP/1.1", Kind::Plain),
        (Generator::Kahttp, "TLS", Kind::Tls),
        (Generator::Wrk, "TLS", Kind::Tls),
        (Generator::Kahttp, "HTTP/2", Kind::Http2),
    ];
    let entrants = entrants(bed, &all);
    let case = name(Case::Requests);
    let measured = in_turns(bed, &case, extent.rounds, &entrants, |entrant| {
        ask(bed, entrant.alternative, entrant.setting, extent.duration)
    })?;
    Ok(CaseResults {
        name: case,
        what: format!(
            "HTTP requests as fast as they are answered, on {CLIENTS} connections, to a kahttp server. wrk, too, has one \
             thread. What the client costs tells more than the rate: the server is the same and has its share of \
             the processors."
        ),
        columns: columns("request"),
        comparisons: comparisons("request"),
        rows: measured.rows,
        notes: measured.notes,
    })
}

/// `wrk` as it is run everywhere here.
pub fn wrk(bed: &Bed, scheme: &str, time: Duration) -> Command {
    let port = if scheme == "https" { TLS_PORT } else { PORT };
    let seconds = said::whole_seconds(time);
    bed.command(
        Generator::Wrk,
        &format!("-t1 -c{CLIENTS} -d{seconds}s {scheme}://{SERVER}:{port}/"),
    )
}

/// The server that all of them ask.
pub fn server(bed: &Bed) -> Command {
    let flags =
        format!("-server -address 0.0.0.0:{PORT} -https_addr 0.0.0.0:{TLS_PORT} -https_selfsigned");
    bed.command(Generator::Kahttp, &flags)
}

fn ask(bed: &Bed, generator: Generator, kind: Kind, time: Duration) -> anyhow::Result<Figures> {
    let network = bed.network()?;
    let (scheme, port) = match kind {
        Kind::Tls => ("https", TLS_PORT),
        Kind::Plain | Kind::Http2 => ("http", PORT),
    };
    let client = match generator {
        Generator::Wrk => wrk(bed, scheme, time),
        _ => {
            let http2 = if kind == Kind::Http2 { "-http2" } else { "" };
            let seconds = time.as_secs_f64();
            let flags = format!(
                "{http2} -address {scheme}://{SERVER}:{port}/ -nclients {CLIENTS} -rate 1000000 -timeout {seconds}s"
            );
            bed.command(generator, &flags)
        }
    };
    let both = network.run_both(server(bed), port, client, time)?;
    let run = match generator {
        Generator::Wrk => said::wrk(&both.said)?,
        _ => said::traffic(&both.said)?,
    };
    for_each(run, &both)
}

/// What each of many costs.
pub fn for_each(run: Run, both: &Both) -> anyhow::Result<Figures> {
    ensure!(run.done > 0.0, "nothing was answered");
    Ok(figures([
        ("rate", run.done / run.seconds),
        ("client", both.client_cpu.as_secs_f64() * 1e6 / run.done),
        ("server", both.server_cpu.as_secs_f64() * 1e6 / run.done),
        ("failed", run.failed),
    ]))
}

/// The columns of that.
pub fn columns(one: &str) -> Vec<Column> {
    vec![
        Column::plotted("rate", &format!("{one}s/s"), 0),
        Column::plotted("client", &format!("client, µs/{one}"), 1),
        Column::new("server", &format!("server, µs/{one}"), 1),
        Column::new("failed", "failed", 0),
    ]
}

/// Against `wrk`.
pub fn comparisons(one: &str) -> Vec<Comparison> {
    vec![
        Comparison::ratio("rate", &format!("{one}s/s"), "wrk"),
        Comparison::ratio("client", "client", "wrk"),
    ]
}
