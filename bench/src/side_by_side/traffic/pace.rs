//! Packets that are sent, beside those that were asked for.

use std::time::Duration;

use super::bed::{Bed, Generator, Network, SERVER, SINK_PORT};
use super::{Case, Extent, said};
use crate::side_by_side::cases::{Entrant, figures, in_turns};
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Column};
use crate::side_by_side::table::grouped;

/// Bytes of a packet's payload.
pub const PAYLOAD: u32 = 128;
pub const PORT: u16 = 5003;

/// What is asked for.
const RATES: [u32; 3] = [10, 1_000, 100_000];
/// The most for HTTP, where each question has a whole answer.
const MOST_REQUESTS: u32 = 10_000;

pub fn run(bed: &Bed, extent: Extent) -> anyhow::Result<CaseResults> {
    let mut entrants = Vec::new();
    for rate in RATES {
        let of = |generator, rate: u32| {
            let variant = format!("{}/s", grouped(rate.into(), 0));
            Entrant::new(generator, variant, rate)
        };
        entrants.push(of(Generator::Ctraffic, rate));
        entrants.push(of(Generator::Kahttp, rate.min(MOST_REQUESTS)));
        let rivals = [Generator::Iperf, Generator::Hping3];
        entrants.extend(
            rivals.into_iter().filter(|rival| bed.has(*rival)).map(|rival| of(rival, rate)),
        );
    }
    let case = name(Case::Pace);
    let time = extent.pace_duration;
    let measured = in_turns(bed, &case, extent.rounds, &entrants, |entrant| {
        let network = bed.network()?;
        let rate = entrant.setting;
        let (sent, cpu) = send(bed, &network, entrant.alternative, rate, time)?;
        let asked = f64::from(rate) * time.as_secs_f64();
        Ok(figures([
            ("sent", sent),
            ("error", 100.0 * (sent - asked).abs() / asked),
            ("cpu", 100.0 * cpu.as_secs_f64() / time.as_secs_f64()),
        ]))
    })?;
    Ok(CaseResults {
        name: case,
        what: format!(
            "Packets (kahttp: requests) that were sent in {} s, beside what was asked for. The promise: less \
             than 1 % off. ctraffic and iperf send UDP with {PAYLOAD} bytes to their own servers; ctraffic has an \
             answer to each, and drops what is overdue, on 1, 10 and 100 connections. hping3 sends the same to a \
             kernel that drops it, at the interval that it is told.",
            time.as_secs_f64()
        ),
        columns: vec![
            Column::new("sent", "sent", 0),
            Column::plotted("error", "off by, %", 2),
            Column::new("cpu", "client, % of a core", 1),
        ],
        comparisons: Vec::new(),
        rows: measured.rows,
        notes: measured.notes,
    })
}

/// Packets sent, and the client's processor time.
fn send(
    bed: &Bed,
    network: &Network<'_>,
    generator: Generator,
    rate: u32,
    time: Duration,
) -> anyhow::Result<(f64, Duration)> {
    let seconds = time.as_secs_f64();
    match generator {
        Generator::Kahttp => {
            let server = format!("-server -address 0.0.0.0:{PORT}");
            let _server = network.serve(bed.command(generator, &server), PORT)?;
            let clients = (rate / 100).clamp(1, 50);
            let flags = format!(
                "-address http://{SERVER}:{PORT}/ -nclients {clients} -rate {rate} -timeout {seconds}s"
            );
            let ended = network.run(bed.command(generator, &flags), time)?;
            Ok((said::traffic(&ended.said)?.sent, ended.cpu))
        }
        Generator::Iperf => {
            let _server =
                network.serve(bed.command(generator, &format!("-s -u -p {PORT}")), PORT)?;
            let flags = format!("-u -c {SERVER} -p {PORT} -b {rate}pps -l {PAYLOAD} -t {seconds}");
            let ended = network.run(bed.command(generator, &flags), time)?;
            Ok((said::iperf_udp(&ended.said)?.sent, ended.cpu))
        }
        Generator::Hping3 => {
            let micros = 1_000_000 / rate;
            let flags = format!(
                "-s INT {seconds} hping3 -q -i u{micros} --udp -p {SINK_PORT} -d {PAYLOAD} {SERVER}"
            );
            let mut command = std::process::Command::new("timeout");
            command.args(flags.split_whitespace());
            let ended = network.run(command, time)?;
            Ok((said::hping3(&ended.said)?, ended.cpu))
        }
        Generator::Ctraffic | Generator::Mconnect | Generator::Wrk => {
            let server = format!("-server -udp -address 0.0.0.0:{PORT}");
            let _server = network.serve(bed.command(generator, &server), PORT)?;
            let kilobytes = f64::from(rate) * f64::from(PAYLOAD) / 1024.0;
            let connections = (rate / 100).clamp(1, 100);
            let flags = format!(
                "-udp -address {SERVER}:{PORT} -nconn {connections} -rate {kilobytes} -psize {PAYLOAD} \
                 -timeout {seconds}s"
            );
            let ended = network.run(bed.command(generator, &flags), time)?;
            Ok((said::traffic(&ended.said)?.sent, ended.cpu))
        }
    }
}
