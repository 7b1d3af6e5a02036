//! What programs say at their end, as figures.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

/// Figures of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Run {
    /// Packets, requests or connections that were begun.
    pub sent: f64,
    /// Those that arrived, or were answered.
    pub done: f64,
    /// How many failed.
    pub failed: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// The line of JSON of `ctraffic` and `kahttp`.
pub fn traffic(said: &str) -> anyhow::Result<Run> {
    let json = last_json(said)?;
    let number = |key: &str| json[key].as_f64().with_context(|| format!("no {key} in {json}"));
    Ok(Run {
        sent: number("Sent")?,
        done: number("Received")?,
        failed: number("FailedConnections")? + number("FailedConnects")?,
        seconds: number("Duration")? / 1e9,
    })
}

/// The line of JSON of `mconnect`. What was not begun in time has not failed here: there are more
/// connections to make than can be.
pub fn mconnect(said: &str) -> anyhow::Result<Run> {
    let json = last_json(said)?;
    let hosts = json["hosts"].as_object().with_context(|| format!("no hosts in {json}"))?;
    let done = hosts.values().filter_map(Value::as_f64).sum();
    let duration = json["duration"].as_f64().with_context(|| format!("no duration in {json}"))?;
    Ok(Run { sent: done, done, failed: 0.0, seconds: duration / 1e9 })
}

/// `wrk`: `N requests in T`, and errors if there were any.
pub fn wrk(said: &str) -> anyhow::Result<Run> {
    let read = || {
        let line = said.lines().find(|line| line.contains(" requests in "))?;
        let (count, rest) = line.trim().split_once(" requests in ")?;
        let done = count.parse().ok()?;
        let seconds = humane_seconds(rest.split(',').next()?)?;
        // connect 0, read 3, write 0, timeout 1
        let errors = said.lines().find_map(|line| line.trim().strip_prefix("Socket errors: "));
        let failed = errors.map_or(0.0, |errors| numbers(errors).sum());
        Some(Run { sent: done, done, failed, seconds })
    };
    read().with_context(|| unreadable("wrk", said))
}

/// A UDP client of `iperf` with the server's report: packets sent, and lost of those that the server
/// knows.
pub fn iperf_udp(said: &str) -> anyhow::Result<Run> {
    let read = || {
        let sent = said.lines().find_map(|line| line.split_once("] Sent "))?.1;
        let sent: f64 = sent.split_whitespace().next()?.parse().ok()?;
        let client = said.lines().find(|line| line.contains(" sec ") && !line.contains('%'))?;
        let seconds = interval(client)?;
        // … 0/1003 (0%); a sum of several streams would come last.
        let server = said.lines().rfind(|line| line.contains("%)"))?;
        let (before, _) = server.rsplit_once(" (")?;
        let (lost, total) = before.rsplit_once('/')?;
        let lost: f64 = lost.split_whitespace().last()?.parse().ok()?;
        let total: f64 = total.trim().parse().ok()?;
        Some(Run { sent, done: total - lost, failed: 0.0, seconds })
    };
    read().with_context(|| unreadable("iperf", said))
}

/// A TCP client of `iperf` with `-y C`: bytes that were sent on all streams, and bits per second of
/// each added up.
pub fn iperf_tcp(said: &str) -> anyhow::Result<f64> {
    let rate = |line: &str| -> Option<f64> {
        let fields: Vec<&str> = line.split(',').collect();
        (fields.len() >= 9).then(|| fields[8].parse().ok())?
    };
    let rates: Vec<f64> = said.lines().filter_map(rate).collect();
    (!rates.is_empty()).then(|| rates.iter().sum()).with_context(|| unreadable("iperf", said))
}

/// `hping3`: packets transmitted. It does not say how long it took.
pub fn hping3(said: &str) -> anyhow::Result<f64> {
    let line = said.lines().find_map(|line| line.split_once(" packets transmitted"));
    line.and_then(|(count, _)| count.trim().parse().ok())
        .with_context(|| unreadable("hping3", said))
}

/// As a program wants it that knows whole seconds only: not less, and at least one.
pub fn whole_seconds(duration: Duration) -> u64 {
    let begun = u64::from(duration.subsec_nanos() > 0);
    (duration.as_secs() + begun).max(1)
}

fn last_json(said: &str) -> anyhow::Result<Value> {
    let line = said.lines().rfind(|line| line.starts_with('{'));
    let line = line.with_context(|| unreadable("the generator", said))?;
    serde_json::from_str(line).with_context(|| format!("read {line}"))
}

fn unreadable(program: &str, said: &str) -> String {
    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing");
    format!("{program} said: {last}")
}

/// `1.10s`, `500.00ms` or `1.02m`.
fn humane_seconds(text: &str) -> Option<f64> {
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0)];
    let (number, unit) =
        units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    Some(number.parse::<f64>().ok()? * unit)
}

/// The length of `[  1] 0.0000-1.0011 sec`.
fn interval(line: &str) -> Option<f64> {
    let (_, behind) = line.split_once(']')?;
    let (from, to) = behind.split_whitespace().next()?.split_once('-')?;
    Some(to.parse::<f64>().ok()? - from.parse::<f64>().ok()?)
}

fn numbers(text: &str) -> impl Iterator<Item = f64> {
    text.split([' ', ',']).filter_map(|word| word.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_speak_json() {
        let said = "2026 ctraffic: no answer (3 times)\n{\"Duration\":2000000000,\"FailedConnections\":2,\"Sent\":20,\
                    \"Received\":18,\"FailedConnects\":1}\n";
        let expected = Run { sent: 20.0, done: 18.0, failed: 3.0, seconds: 2.0 };
        assert_eq!(traffic(said).unwrap(), expected);
        let said = "{\"hosts\":{\"a\":5,\"b\":7},\"failed_connects\":88,\"duration\":500000000}\n";
        let expected = Run { sent: 12.0, done: 12.0, failed: 0.0, seconds: 0.5 };
        assert_eq!(mconnect(said).unwrap(), expected);
        let error = traffic("ctraffic: connect: refused\n").unwrap_err();
        assert_eq!(error.to_string(), "the generator said: ctraffic: connect: refused");
    }

    #[test]
    fn wrk_with_and_without_errors() {
        let said = "Running 1s test @ http://10.0.0.2/\n  44700 requests in 1.10s, 14.37MB read\nRequests/sec:  40663.50\n";
        let expected = Run { sent: 44_700.0, done: 44_700.0, failed: 0.0, seconds: 1.1 };
        assert_eq!(wrk(said).unwrap(), expected);
        let said = "  9 requests in 500.00ms, 1MB read\n  Socket errors: connect 1, read 3, write 0, timeout 2\n";
        let expected = Run { sent: 9.0, done: 9.0, failed: 6.0, seconds: 0.5 };
        assert_eq!(wrk(said).unwrap(), expected);
        assert!(wrk("unable to connect").is_err());
    }

    #[test]
    fn iperf_by_udp_and_tcp() {
        let said = "[ ID] Interval       Transfer     Bandwidth\n\
                    [  1] 0.0000-1.0011 sec   125 KBytes  1.03 Mbits/sec\n\
                    [  1] Sent 1004 datagrams\n[  1] Server Report:\n\
                    [ ID] Interval       Transfer     Bandwidth        Jitter   Lost/Total Datagrams\n\
                    [  1] 0.0000-1.0013 sec   125 KBytes  1.03 Mbits/sec   0.000 ms 3/1003 (0.3%)\n";
        let run = iperf_udp(said).unwrap();
        assert_eq!((run.sent, run.done), (1_004.0, 1_000.0));
        assert!((run.seconds - 1.0011).abs() < 1e-9);
        assert!(iperf_udp("connect failed: Connection refused").is_err());
        let said = "19700101000000,10.0.0.1,57992,10.0.0.2,5002,4,0.0-1.0,386793532,3000000000\n\
                    19700101000000,10.0.0.1,57990,10.0.0.2,5002,3,0.0-1.0,377225276,2000000000\n";
        assert_eq!(iperf_tcp(said).unwrap(), 5e9);
        assert!(iperf_tcp("").is_err());
    }

    #[test]
    fn hping3_counts_packets() {
        let said = "\n--- 10.0.0.2 hping statistic ---\n914 packets transmitted, 0 packets received, 100% packet loss\n";
        assert_eq!(hping3(said).unwrap(), 914.0);
    }

    #[test]
    fn wrk_knows_whole_seconds_only() {
        assert_eq!(whole_seconds(Duration::from_millis(200)), 1);
        assert_eq!(whole_seconds(Duration::from_millis(2_500)), 3);
    }
}
