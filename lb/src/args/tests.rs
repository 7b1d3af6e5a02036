//! Command lines, and what they mean.

use super::*;
use clap::CommandFactory;
use lb_core::frag::FragConfig;
use lb_core::target::Mark;
use std::time::Duration;

use crate::fragments::FragSettings;
use crate::rules::Wanted;

fn settings(line: &str) -> Result<Settings, String> {
    let args = Args::try_parse_from(std::iter::once("lb").chain(line.split_whitespace()))
        .map_err(|error| error.to_string())?;
    Settings::try_from(args).map_err(String::from)
}

#[test]
fn the_command_line_is_consistent() {
    Args::command().debug_assert();
}

#[test]
fn defaults() {
    let settings = settings("").unwrap();
    assert_eq!(settings.table.to_string(), "markway");
    assert_eq!(settings.instance, settings.table);
    assert_eq!(settings.queues, 2..=2);
    assert_eq!((settings.queue_length, settings.receive_buffer), (1024, 8 << 20));
    assert_eq!(settings.mark_mask, u32::MAX);
    let FragSettings { tun, table, copy_range, tier } = settings.fragments;
    assert_eq!((tun, copy_range, tier), (None, 512, None));
    let expected = FragConfig { held: 0, held_per_source: 0, ..FragConfig::default() };
    assert_eq!(FragConfig { held_bytes: 1500, ..table }, expected);
    assert_eq!(settings.gather, Duration::from_micros(100));
    assert_eq!(settings.skew_period, Some(Duration::from_secs(60)));
    assert_eq!((settings.no_targets_mark, settings.fail_open), (None, false));
}

#[test]
fn what_is_given_is_meant() {
    let settings = settings(
        "--shm t --instance i --queue 4:7 --receive-buffer 512k --mark-mask 0xff \
         --no-targets-mark 0x7f --fail-open --gather 0 --skew-period 0",
    )
    .unwrap();
    assert_eq!(
        (settings.table.to_string(), settings.instance.to_string()),
        ("t".into(), "i".into())
    );
    assert_eq!(settings.queues, 4..=7);
    assert_eq!((settings.receive_buffer, settings.mark_mask), (512 << 10, 0xff));
    assert_eq!(settings.no_targets_mark.map(Mark::get), Some(0x7f));
    assert!(settings.fail_open && settings.gather.is_zero());
    assert_eq!(settings.skew_period, None);
}

#[test]
fn rules_are_as_wanted() {
    assert_eq!(settings("").unwrap().rules, None);
    let line = "--vip 10.0.0.0/24 1000:: 10.0.0.7 --device eth1 eth2 --fast --queue 0:3 \
                --no-consumer accept --notrack --local --mark-mask 0xff \
                --count-targets off";
    let rules = settings(line).unwrap().rules.unwrap();
    let Wanted { vips, devices, local, notrack, queues, mark_mask, count_targets, show_inits } =
        rules.wanted;
    let vips: Vec<String> = vips.iter().map(Cidr::to_string).collect();
    assert_eq!(vips, ["10.0.0.0/24", "1000::/128"]);
    assert_eq!(devices, ["eth1", "eth2"]);
    assert!(rules.fast && local && notrack && !count_targets && show_inits);
    assert_eq!((queues.first, queues.count, queues.bypass), (0, 4, true));
    assert_eq!(mark_mask, 0xff);
    let devices = |line| settings(line).unwrap().rules.unwrap().wanted.devices;
    assert_eq!(devices("--vip 1000:: --device eth1 --tun frag0"), ["eth1", "frag0"]);
    assert_eq!(devices("--vip 1000:: --device b a b frag0 --tun frag0"), ["b", "a", "frag0"]);
    assert!(devices("--vip 1000:: --tun frag0").is_empty(), "all devices");
    let rules = settings("--vip 1000::").unwrap().rules.unwrap();
    assert!(!rules.fast && !rules.wanted.queues.bypass && !rules.wanted.notrack);
    assert!(rules.wanted.count_targets);
    assert_eq!(settings("--status --json").unwrap().action, Action::Status { json: true });
    assert_eq!(settings("--check --vip 1000::").unwrap().action, Action::Check { json: false });
    assert_eq!(settings("--down --instance a").unwrap().action, Action::Down);
}

#[test]
fn fragments_are_held_whole() {
    let fragments = settings("--tun frag0").unwrap().fragments;
    assert_eq!((fragments.table, fragments.copy_range), (FragConfig::default(), 1500));
    let line = "--tun frag0 --copy-range 9000 --frag-entries 7 --frag-held 100 --frag-ttl 50";
    let FragSettings { tun, table, copy_range, tier: _ } = settings(line).unwrap().fragments;
    assert_eq!((tun.unwrap().to_string(), copy_range), ("frag0".into(), 9000));
    assert_eq!((table.entries, table.held, table.held_bytes), (7, 100, 9000));
    assert_eq!(table.ttl, Duration::from_millis(50));
    for line in ["--tier-shm routers", "--lbshm routers"] {
        let tier = settings(line).unwrap().fragments.tier;
        assert_eq!(tier.map(|name| name.to_string()), Some("routers".into()));
    }
}

#[test]
fn what_cannot_be_is_refused() {
    for (line, complaint) in [
        ("--queue 3:2", "the first queue is above the last"),
        ("--queue 0:64", "more than 64 queues"),
        ("--queue 65536", "0 to 65535"),
        ("--queue x", "0 to 65535"),
        ("--mark-mask 0", "no bit"),
        ("--mark-mask 0xff --no-targets-mark 0x100", "outside --mark-mask"),
        ("--no-targets-mark 0xffffffff", "not a mark"),
        ("--no-targets-mark -1", "unexpected argument"),
        ("--receive-buffer 3G", "not a size"),
        ("--receive-buffer 4096M", "beyond 2 GiB"),
        ("--copy-range 63", "63 is not in 64..=65535"),
        ("--queue-length 0", "0 is not in 1.."),
        ("--gather 10001", "10001 is not in"),
        ("--skew-period 86401", "86401 is not in"),
        ("--tun a/b", "not the name of a device"),
        ("--tun a --copy-range 1279", "with --tun whole packets are needed"),
        ("--frag-held 5", "--tun"),
        ("--tun a --frag-held 0", "0 is not in 1.."),
        ("--frag-entries 0", "0 is not in 1.."),
        ("--frag-ttl 0", "0 is not in 1.."),
        ("--shm a/b", "is not a name"),
        ("--log loud", "invalid value"),
        ("--user 0", "root"),
        ("--user no-such-user", "there is no user"),
        ("extra", "unexpected argument"),
        ("--fast", "--vip"),
        ("--vip 10.0.0.1 --device a --express", "--fast"),
        ("--vip 10.0.0.1 --fast --express", "--device"),
        (
            "--vip 10.0.0.1 10.0.0.3 10.0.0.5 10.0.0.7 --device a b c d e --fast --express",
            "16 pairs",
        ),
        ("--local", "--vip"),
        ("--vip", "a value is required"),
        ("--vip 10.0.0.1/24", "did you mean 10.0.0.0/24?"),
        ("--vip 10.0.0.1 --device a/b", "not the name of a device"),
        ("--vip 10.0.0.1 --device ..", "not the name of a device"),
        ("--vip 10.0.0.1 --no-consumer pass", "invalid value"),
        ("--vip 10.0.0.1 --down", "cannot be used with"),
        ("--down --status", "cannot be used with"),
        ("--json", "--status"),
        ("--check --status", "cannot be used with"),
    ] {
        let error = settings(line).unwrap_err();
        assert!(error.contains(complaint), "{line}: {error}");
    }
}
