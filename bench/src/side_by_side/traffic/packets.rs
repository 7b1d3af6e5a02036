//! Small UDP packets as fast as they can be sent.

use std::process::Command;
use std::time::Duration;

use super::bed::{Bed, Generator, SERVER, SINK_PORT};
use super::pace::{PAYLOAD, PORT};
use super::{Case, Extent, entrants, said};
use crate::side_by_side::cases::{figures, in_turns};
use crate::side_by_side::output::name;
use crate::side_by_side::results::{CaseResults, Column, Comparison, Figures};

pub fn run(bed: &Bed, extent: Extent) -> anyhow::Result<CaseResults> {
    let generators = [Generator::Ctraffic, Generator::Iperf, Generator::Hping3];
    let entrants = entrants(bed, &generators.map(|generator| (generator, "", ())));
    let case = name(Case::Packets);
    let measured = in_turns(bed, &case, extent.rounds, &entrants, |entrant| {
        send(bed, entrant.alternative, extent.duration)
    })?;
    Ok(CaseResults {
        name: case,
        what: format!(
            "UDP with {PAYLOAD} bytes, as fast as it goes, client and server on the same CPUs. ctraffic: 100 \
             connections; its server answers each packet, so twice as many pass the network as were sent. iperf: one \
             stream, which its server only counts. hping3 --flood: raw packets to a kernel that drops them."
        ),
        columns: vec![
            Column::new("sent", "sent/s", 0),
            Column::new("arrived", "arrived/s", 0),
            Column::new("lost", "lost, %", 2),
            Column::plotted("passed", "passed the network/s", 0),
            Column::plotted("cpu", "client and server, µs/packet that passed", 2),
        ],
        comparisons: ["iperf", "hping3"]
            .iter()
            .flat_map(|to| {
                [Comparison::ratio("passed", "passed", to), Comparison::ratio("cpu", "CPU", to)]
            })
            .collect(),
        rows: measured.rows,
        notes: measured.notes,
    })
}

fn send(bed: &Bed, generator: Generator, time: Duration) -> anyhow::Result<Figures> {
    let network = bed.network()?;
    let seconds = time.as_secs_f64();
    if generator == Generator::Hping3 {
        let flags = format!(
            "-s INT {seconds} hping3 -q --flood --udp -p {SINK_PORT} -d {PAYLOAD} {SERVER}"
        );
        let mut command = Command::new("timeout");
        command.args(flags.split_whitespace());
        let ended = network.run(command, time)?;
        let (sent, arrived) = (said::hping3(&ended.said)?, network.sunk()? as f64);
        return Ok(of_run(sent, arrived, sent, seconds, ended.cpu));
    }
    let (server, flags) = match generator {
        Generator::Iperf => (
            format!("-s -u -p {PORT}"),
            // More than anybody can send.
            format!("-u -c {SERVER} -p {PORT} -b 100g -l {PAYLOAD} -t {seconds}"),
        ),
        _ => (
            format!("-server -udp -address 0.0.0.0:{PORT}"),
            format!(
                "-udp -address {SERVER}:{PORT} -nconn 100 -window 4 -rate 1000000 -psize {PAYLOAD} -timeout {seconds}s"
            ),
        ),
    };
    let [server, client] = [server, flags].map(|flags| bed.command(generator, &flags));
    let both = network.run_both(server, PORT, client, time)?;
    let (run, passed) = match generator {
        Generator::Iperf => {
            let run = said::iperf_udp(&both.said)?;
            (run, run.sent)
        }
        _ => {
            let run = said::traffic(&both.said)?;
            (run, run.sent + run.done)
        }
    };
    Ok(of_run(run.sent, run.done, passed, run.seconds, both.cpu()))
}

fn of_run(sent: f64, arrived: f64, passed: f64, seconds: f64, cpu: Duration) -> Figures {
    figures([
        ("sent", sent / seconds),
        ("arrived", arrived / seconds),
        ("lost", 100.0 * (sent - arrived).max(0.0) / sent),
        ("passed", passed / seconds),
        ("cpu", cpu.as_secs_f64() * 1e6 / passed),
    ])
}
