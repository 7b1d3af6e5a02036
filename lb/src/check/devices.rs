//! What the devices by which packets come in do to them.

use lb_sys::device::{self, Devices, SettingError};

use super::{Finding, Level};
use crate::args::Settings;

/// Features that join packets, with what comes of it.
const JOINING: [(&str, &str); 3] = [
    ("rx-lro", "joins received packets in a way that a router cannot undo"),
    (
        "rx-gro-list",
        "joins UDP packets of a flow, which are then decided, counted and dropped as one",
    ),
    (
        "rx-udp-gro-forwarding",
        "joins UDP packets of a flow, which are then decided, counted and dropped as one",
    ),
];

const SOURCE_CHECK: &str = "source check";

pub fn findings(settings: &Settings) -> Vec<Finding> {
    match Devices::open().and_then(|devices| Ok((device::list()?, devices))) {
        Ok((all, devices)) => looked_at(settings, &all, &devices),
        Err(error) => {
            let what = format!("devices could not be looked at: {error}");
            vec![Finding::new("devices", Level::Note, what, "")]
        }
    }
}

fn looked_at(settings: &Settings, all: &[String], devices: &Devices) -> Vec<Finding> {
    let tun = settings.fragments.tun.as_ref().map(ToString::to_string);
    let wanted: Vec<&String> = settings
        .rules
        .iter()
        .flat_map(|rules| &rules.wanted.devices)
        .filter(|name| Some(*name) != tun.as_ref())
        .collect();
    // Those by which packets may come in.
    let names: Vec<&str> = all
        .iter()
        .filter(|name| match wanted[..] {
            [] => {
                *name != "lo" && Some(*name) != tun.as_ref() && devices.is_up(name).unwrap_or(false)
            }
            _ => wanted.contains(name),
        })
        .map(String::as_str)
        .collect();
    let longest_held = tun.as_ref().map(|_| settings.fragments.copy_range);
    let mut findings: Vec<Finding> = wanted
        .iter()
        .filter(|name| !all.contains(name))
        .map(|name| {
            let advice = "no packet is balanced that comes in otherwise, until there is";
            Finding::new("devices", Level::Warning, format!("there is no device {name}"), advice)
        })
        .collect();
    for name in &names {
        match devices.features(name) {
            Ok(features) => {
                let on = JOINING.iter().filter(|(feature, _)| features.contains(*feature));
                findings.extend(on.map(|(feature, effect)| {
                    let what = format!("{name}: the offload {feature} {effect}");
                    let advice = format!("ethtool -K {name} {feature} off");
                    Finding::new("offloads", Level::Warning, what, advice)
                }));
            }
            Err(error) => {
                let what = format!("{name}: offloads could not be read: {error}");
                findings.push(Finding::new("offloads", Level::Note, what, ""));
            }
        }
        if let (Ok(mtu), Some(longest)) = (devices.mtu(name), longest_held) {
            findings.extend(too_long_to_hold(name, mtu, longest));
        }
    }
    let checks = names.iter().map(|name| (*name, device::source_check(name))).collect();
    findings.extend(source_checks(device::source_check("all"), checks));
    for (check, what) in [
        ("offloads", "no device joins UDP packets"),
        (SOURCE_CHECK, "no device is strict about senders"),
    ] {
        if !findings.iter().any(|finding| finding.check == check) {
            findings.push(Finding::ok(check, format!("{what} ({})", names.join(", "))));
        }
    }
    findings
}

/// What is known of these settings, and which could not be read.
fn source_checks(
    all: Result<u8, SettingError>,
    devices: Vec<(&str, Result<u8, SettingError>)>,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut unknown = |error: SettingError| {
        let advice =
            "see to it that it is 0: else packets of senders to which other ways lead are dropped";
        findings.push(Finding::new(SOURCE_CHECK, Level::Warning, error.to_string(), advice));
    };
    let knows_all = all.is_ok();
    let all = all.map_err(&mut unknown).unwrap_or(0);
    let mut known = Vec::new();
    for (name, own) in devices {
        match own {
            Ok(own) => known.push((name, own)),
            // A device without IPv4 has no such setting.
            Err(error) if knows_all && error.is_missing() => {}
            Err(error) => unknown(error),
        }
    }
    findings.extend(source_check(all, &known));
    findings
}

/// Of two settings, that of all devices and a device's own, the larger counts; 1 is strict.
fn source_check(all: u8, devices: &[(&str, u8)]) -> Option<Finding> {
    const STRICT: u8 = 1;
    let strict: Vec<&(&str, u8)> =
        devices.iter().filter(|(_, own)| all.max(*own) == STRICT).collect();
    if strict.is_empty() {
        return None;
    }
    let names: Vec<&str> = strict.iter().map(|(name, _)| *name).collect();
    let own = strict.iter().filter(|(_, own)| *own == STRICT).map(|(name, _)| *name);
    let settings: Vec<String> = (all == STRICT)
        .then_some("all")
        .into_iter()
        .chain(own)
        .map(|name| format!("net/ipv4/conf/{name}/rp_filter=0"))
        .collect();
    let what = format!(
        "{}: rp_filter is strict: packets of senders to which other ways lead are dropped",
        names.join(", ")
    );
    let advice = format!("sysctl {}", settings.join(" "));
    Some(Finding::new(SOURCE_CHECK, Level::Warning, what, advice))
}

fn too_long_to_hold(name: &str, mtu: u32, longest: u32) -> Option<Finding> {
    (mtu > longest).then(|| {
        let what =
            format!("{name}: fragments of up to {mtu} bytes come in, and {longest} are held");
        Finding::new("copy range", Level::Warning, what, format!("--copy-range {mtu}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_setting_counts() {
        let advice = |all, devices: &[(&str, u8)]| {
            source_check(all, devices).map(|finding| finding.advice).unwrap_or_default()
        };
        assert_eq!(advice(0, &[("a", 0)]), "");
        assert_eq!(advice(1, &[("a", 0), ("b", 0)]), "sysctl net/ipv4/conf/all/rp_filter=0");
        assert_eq!(advice(0, &[("a", 1), ("b", 0)]), "sysctl net/ipv4/conf/a/rp_filter=0");
        assert_eq!(
            advice(1, &[("a", 1)]),
            "sysctl net/ipv4/conf/all/rp_filter=0 net/ipv4/conf/a/rp_filter=0"
        );
        assert_eq!(
            (advice(2, &[("a", 1)]), advice(1, &[("a", 2)])),
            ("".into(), "".into()),
            "loose"
        );
    }

    #[test]
    fn a_setting_that_cannot_be_read_is_told_with_its_file() {
        let missing = || device::source_check("no-such-dev");
        let found = |all, own| {
            let findings = source_checks(all, vec![("a", Ok(0)), ("b", own)]).into_iter();
            findings.map(|finding| (finding.level, finding.what)).collect::<Vec<_>>()
        };
        assert_eq!(found(Ok(0), Ok(0)), []);
        assert_eq!(found(Ok(0), missing()), [], "it has no IPv4");
        let told = found(missing(), missing());
        assert_eq!(told.len(), 2);
        for (level, what) in &told {
            assert!(what.contains("/conf/no-such-dev/rp_filter: "), "{what}");
            assert_eq!(*level, Level::Warning);
        }
        assert_eq!(found(missing(), Ok(1)).len(), 2, "what is known counts all the same");
    }

    #[test]
    fn fragments_must_fit() {
        assert_eq!(too_long_to_hold("eth1", 1500, 1500), None);
        assert_eq!(too_long_to_hold("eth1", 9000, 1500).unwrap().advice, "--copy-range 9000");
    }
}
