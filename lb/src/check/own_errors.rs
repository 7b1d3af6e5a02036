//! Whether ICMP errors of this machine itself reach the target that they are for: to a virtual address it complains
//! of answers that are too long for a link of its own.

use std::net::IpAddr;

use lb_sys::device::{self, Devices};
use lb_sys::route::{NoHop, Routes};

use super::{Finding, Level};
use crate::args::{RuleSettings, Settings};
use crate::cidr::Cidr;

const CHECK: &str = "own errors";

/// With rules by `lb`: those of others are theirs to judge.
pub fn findings(settings: &Settings) -> Vec<Finding> {
    let Some(RuleSettings { wanted, .. }) = &settings.rules else { return Vec::new() };
    if !wanted.local {
        let tun = settings.fragments.tun.as_ref().map(ToString::to_string);
        return lengths(tun.as_deref()).as_deref().and_then(unmarked).into_iter().collect();
    }
    let mut routes = match Routes::open() {
        Ok(routes) => routes,
        Err(error) => {
            let what = format!("routing could not be asked: {error}");
            return vec![Finding::new(CHECK, Level::Note, what, "")];
        }
    };
    let ask = |to| routes.has_route(to).unwrap_or(Err(NoHop::Odd));
    routed(&wanted.vips, ask)
}

/// How long packets may be, by device that is up.
fn lengths(tun: Option<&str>) -> Option<Vec<(String, u32)>> {
    let devices = Devices::open().ok()?;
    let names = device::list().ok()?.into_iter();
    let names = names.filter(|name| name != "lo" && Some(name.as_str()) != tun);
    let up = names.filter(|name| devices.is_up(name).unwrap_or(false));
    Some(up.filter_map(|name| devices.mtu(&name).ok().map(|mtu| (name, mtu))).collect())
}

/// Without `--local` it matters where a link is narrower than another.
fn unmarked(lengths: &[(String, u32)]) -> Option<Finding> {
    let (narrow, least) = lengths.iter().min_by_key(|(_, mtu)| *mtu)?;
    let (wide, most) = lengths.iter().max_by_key(|(_, mtu)| *mtu)?;
    (least < most).then(|| {
        let what = format!(
            "{narrow} takes {least} bytes and {wide} {most}: if answers of targets come in by {wide} and leave by \
             {narrow}, the 'too big' that this machine itself sends to a virtual address meets no rule"
        );
        Finding::new(CHECK, Level::Note, what, "--local, with a route to the virtual addresses")
    })
}

/// With `--local` the rules are there; but the kernel sends nothing for which it finds no route first.
fn routed(vips: &[Cidr], mut ask: impl FnMut(IpAddr) -> Result<(), NoHop>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for vip in vips {
        if let Err(why) = ask(vip.first()) {
            let what = format!(
                "no route to {vip} ({why}): this machine sends nothing there, ICMP errors about answers included"
            );
            let advice = format!("ip route add {vip} via ADDRESS-OF-A-TARGET; any route will do");
            findings.push(Finding::new(CHECK, Level::Warning, what, advice));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "there are routes to the virtual addresses"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_virtual_address_without_a_route_is_told() {
        let vips: Vec<Cidr> =
            ["10.0.0.0/24", "1000::/128"].map(|vip| vip.parse().unwrap()).to_vec();
        let found = |v4, v6| {
            let ask = |to: IpAddr| if to.is_ipv4() { v4 } else { v6 };
            let findings = routed(&vips, ask).into_iter();
            findings.map(|finding| (finding.level, finding.advice)).collect::<Vec<_>>()
        };
        assert_eq!(found(Ok(()), Ok(())), [(Level::Ok, String::new())]);
        let advice = "ip route add 1000::/128 via ADDRESS-OF-A-TARGET; any route will do";
        assert_eq!(found(Ok(()), Err(NoHop::Odd)), [(Level::Warning, advice.into())]);
        assert_eq!(found(Err(NoHop::Odd), Err(NoHop::Odd)).len(), 2);
    }

    #[test]
    fn a_narrow_link_is_noted() {
        let told = |lengths: &[(&str, u32)]| {
            let lengths: Vec<_> =
                lengths.iter().map(|(name, mtu)| ((*name).into(), *mtu)).collect();
            unmarked(&lengths).map(|finding| (finding.level, finding.what))
        };
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[("eth1", 1500), ("eth2", 1500)]), None);
        let (level, what) = told(&[("eth1", 1500), ("eth2", 1300), ("eth3", 1500)]).unwrap();
        assert_eq!(level, Level::Note);
        assert!(what.starts_with("eth2 takes 1300 bytes and eth3 1500: "), "{what}");
    }
}
