//! TCP streams as fast as they go.

use std::time::Duration;

use super::bed::{Bed, Generator, SERVER};
use super::pace::PORT;
use super::{Case, Extent, entrants, said};
use crate::side_by_side::cases::{figures, in_turns};
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Column, Comparison, Figures};

/// The longest packet of `ctraffic`.
const PACKET: u32 = 65_507;
const VARIANTS: [(&str, u32); 2] = [("1 stream", 1), ("4 streams", 4)];

pub fn run(bed: &Bed, extent: Extent) -> anyhow::Result<CaseResults> {
    let of = |(variant, streams)| {
        [Generator::Ctraffic, Generator::Iperf].map(|generator| (generator, variant, streams))
    };
    let entrants = entrants(bed, &VARIANTS.map(of).concat());
    let case = name(Case::Streams);
    let measured = in_turns(bed, &case, extent.rounds, &entrants, |entrant| {
        send(bed, entrant.alternative, entrant.setting, extent.duration)
    })?;
    Ok(CaseResults {
        name: case,
        what: format!(
            "TCP as fast as it goes. ctraffic: packets of {PACKET} bytes, 2 of a connection under way at a time, and \
             all of them come back: what passed in both directions. iperf sends one way."
        ),
        columns: vec![
            Column::plotted("gbit", "Gbit/s", 2),
            Column::new("cpu", "client and server, ms/Gbit", 1),
        ],
        comparisons: vec![
            Comparison::ratio("gbit", "Gbit/s", "iperf"),
            Comparison::ratio("cpu", "CPU", "iperf"),
        ],
        rows: measured.rows,
        notes: measured.notes,
    })
}

fn send(bed: &Bed, generator: Generator, streams: u32, time: Duration) -> anyhow::Result<Figures> {
    let network = bed.network()?;
    let seconds = time.as_secs_f64();
    let (server, flags) = match generator {
        Generator::Iperf => (
            format!("-s -p {PORT}"),
            format!("-c {SERVER} -p {PORT} -P {streams} -t {seconds} -y C"),
        ),
        _ => (
            format!("-server -address 0.0.0.0:{PORT}"),
            format!(
                "-address {SERVER}:{PORT} -nconn {streams} -window 2 -rate 100000000 -psize {PACKET} -timeout {seconds}s"
            ),
        ),
    };
    let [server, client] = [server, flags].map(|flags| bed.command(generator, &flags));
    let both = network.run_both(server, PORT, client, time)?;
    let bits = match generator {
        Generator::Iperf => said::iperf_tcp(&both.said)?,
        _ => {
            let run = said::traffic(&both.said)?;
            (run.sent + run.done) * f64::from(PACKET) * 8.0 / run.seconds
        }
    };
    let gbit = bits / 1e9;
    Ok(figures([("gbit", gbit), ("cpu", both.cpu().as_secs_f64() * 1e3 / (gbit * seconds))]))
}
