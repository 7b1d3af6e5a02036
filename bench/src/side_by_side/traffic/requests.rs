//! HTTP requests on connections that stay.

use std::process::Command;
use std::time::Duration;

use super::bed::{Bed, Generator, SERVER};
use super::pace::PORT;
use super::{Case, Extent, said};
use crate::side_by_side::cases::{Entrant, figures, in_turns};
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
    let entrants: Vec<_> = all
        .into_iter()
        .filter(|(generator, ..)| bed.has(*generator))
        .map(|(generator, variant, kind)| Entrant::new(generator, variant, kind))
        .collect();
    let case = Case::Requests.to_string();
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
        columns: vec![
            Column::plotted("rate", "requests/s", 0),
            Column::plotted("client", "client, µs/request", 1),
            Column::new("server", "server, µs/request", 1),
            Column::new("failed", "failed", 0),
        ],
        comparisons: vec![
            Comparison::ratio("rate", "requests/s", "wrk"),
            Comparison::ratio("client", "client", "wrk"),
        ],
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
    let server = network.serve(server(bed), port)?;
    let before = server.cpu()?;
    let ended = network.run(client, time)?;
    let cpu = server.cpu()?.saturating_sub(before);
    let run = match generator {
        Generator::Wrk => said::wrk(&ended.said)?,
        _ => said::traffic(&ended.said)?,
    };
    anyhow::ensure!(run.done > 0.0, "not one request was answered");
    Ok(figures([
        ("rate", run.done / run.seconds),
        ("client", ended.cpu.as_secs_f64() * 1e6 / run.done),
        ("server", cpu.as_secs_f64() * 1e6 / run.done),
        ("failed", run.failed),
    ]))
}
