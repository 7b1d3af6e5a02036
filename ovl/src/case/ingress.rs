//! What packets for the virtual addresses come in by, and what else the router does with them.

use anyhow::{Context, Result, bail};

use super::fast_plane::{VIPS, check_plane, end, packets, status};
use super::machines::ON_MACHINES;
use super::{Case, check};
use crate::address::FAMILIES;
use crate::flow::TRANSPORTS;
use crate::lab::{Lab, QUEUE};
use crate::mconnect::Connections;
use crate::node::Node;

pub const CASES: &[Case] = &[
    Case {
        name: "ingress-vlan",
        about: "lb serves what comes in by a vlan device, in each plane",
        run: |lab| serves_by(lab, "vlan id 7", VLAN_LINK, "in0"),
        ..ON_MACHINES
    },
    Case {
        name: "ingress-macvlan",
        about: "the same by a macvlan device",
        run: |lab| serves_by(lab, "macvlan mode bridge", PLAIN_LINK, "in0"),
        ..ON_MACHINES
    },
    Case {
        name: "ingress-ipvlan",
        about: "the same beside an ipvlan device: what is not for its own addresses comes in by its parent",
        run: |lab| serves_by(lab, "ipvlan mode l2", PLAIN_LINK, "eth2"),
        ..ON_MACHINES
    },
    Case {
        name: "ingress-nat",
        about: "lb serves on a router that follows connections and hides their sources",
        run: serves_behind_nat,
        ..ON_MACHINES
    },
    Case {
        name: "ingress-nat-express",
        about: "rules, conntrack and NAT of others see nothing of the express plane but answers",
        run: express_is_not_seen,
        ..ON_MACHINES
    },
];

const VLAN_LINK: &str = "ip link add link eth1 name out0 type vlan id 7";

/// The tester's end where frames need nothing special.
const PLAIN_LINK: &str = "ip link add link eth1 name out0 type macvlan mode bridge";

/// What follows a connection keeps a place for it: a small machine has a thousand.
const CONNECTIONS: u32 = 50;

/// The parent of a device must not answer for its addresses, or packets come in by the parent.
fn serves_by(lab: &mut Lab, kind: &str, tester_link: &str, device: &str) -> Result<()> {
    let (router, tester) = (lab.cluster.router()?, lab.cluster.tester()?);
    router.script(&format!(
        "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore
         ip link add link eth2 name in0 type {kind}
         ip address add 172.16.0.1/24 dev in0
         ip address add fd00:16::1/64 dev in0 nodad
         ip link set in0 up"
    ))?;
    let mut script = format!(
        "{tester_link}
         ip address add 172.16.0.2/24 dev out0
         ip address add fd00:16::2/64 dev out0 nodad
         ip link set out0 up\n"
    );
    for (family, gateway) in FAMILIES.into_iter().zip(["172.16.0.1", "fd00:16::1"]) {
        let (ip, vip) = (family.ip(), family.vip_prefix());
        script.push_str(&format!("{ip} route replace {vip} via {gateway}\n"));
    }
    tester.script(&script)?;
    let planes = [
        ("slow", &["--device", device][..]),
        ("fast", &["--device", device, "--fast"]),
        ("express", &["--device", device, "--fast", "--express"]),
    ];
    let served = serves_in(lab, &planes, |_, _| Ok(()));
    // Others have the same machines.
    lab.cluster.tester()?.script("ip link del out0")?;
    lab.cluster
        .router()?
        .script("ip link del in0\necho 0 >/proc/sys/net/ipv4/conf/all/arp_ignore")?;
    served
}

fn serves_behind_nat(lab: &mut Lab) -> Result<()> {
    let rules = "table inet hide {
        chain leaving {
            type nat hook postrouting priority 100;
            oifname \"eth1\" meta mark != 0 counter masquerade
        }
    }";
    let router = lab.cluster.router()?;
    router.entry().run_with_input(&["nft", "-f", "-"], rules)?.success()?;
    serves_in(lab, &[("slow", &[]), ("fast", &["--fast"])], |_, _| Ok(()))?;
    let router = lab.cluster.router()?;
    let listing = router.run(&["nft", "list", "table", "inet", "hide"])?.success()?;
    let hidden = !listing.contains("counter packets 0 ") && listing.contains("counter packets");
    check(hidden, "connections whose source was hidden", listing)
}

/// In the fast plane they see everything, so that they would see it in the express plane, too.
fn express_is_not_seen(lab: &mut Lab) -> Result<()> {
    let rules = "table inet beside {
        counter asked { }
        counter hidden { }
        counter strange { }
        chain coming {
            type filter hook prerouting priority -150;
            meta l4proto { tcp, udp } ip daddr 10.0.0.0 counter name asked
            meta l4proto { tcp, udp } ip6 daddr 1000:: counter name asked
        }
        chain leaving {
            type nat hook postrouting priority 100;
            oifname \"eth1\" meta mark != 0 counter name hidden masquerade
        }
        chain answers {
            type filter hook forward priority 0;
            iifname \"eth1\" meta l4proto tcp ct state invalid counter name strange
        }
    }";
    let router = lab.cluster.router()?;
    router.entry().run_with_input(&["nft", "-f", "-"], rules)?.success()?;
    let planes = [
        ("express", &["--device", "eth2", "--fast", "--express"][..]),
        ("fast", &["--device", "eth2", "--fast"]),
    ];
    serves_in(lab, &planes, |lab, plane| {
        let router = lab.cluster.router()?;
        let [asked, hidden, strange] =
            ["asked", "hidden", "strange"].map(|name| counted(router, name));
        let (asked, hidden, strange) = (asked?, hidden?, strange?);
        let is_seen = match plane {
            // Each family's connections begin with an answer to something that nobody has seen.
            "express" => asked == 0 && hidden == 0 && strange >= u64::from(2 * CONNECTIONS),
            _ => asked >= u64::from(4 * CONNECTIONS) && hidden >= u64::from(4 * CONNECTIONS),
        };
        check(
            is_seen,
            "in the express plane nothing but strange answers, in the fast plane all",
            format!("{plane}: {asked} packets asked, {hidden} were hidden, {strange} are strange"),
        )
    })
}

/// The packets of a counter of those rules.
fn counted(router: &Node, name: &str) -> Result<u64> {
    let listing = router.run(&["nft", "list", "counter", "inet", "beside", name])?.success()?;
    let mut words = listing.split_whitespace().skip_while(|word| *word != "packets").skip(1);
    let number = words.next().and_then(|word| word.parse().ok());
    number.with_context(|| format!("read counter {name}: {listing}"))
}

/// Connections of all kinds are answered in each of these planes, and go by it. Then `look` is asked.
fn serves_in(
    lab: &mut Lab,
    planes: &[(&str, &[&str])],
    look: impl Fn(&Lab, &str) -> Result<()>,
) -> Result<()> {
    lab.start_servers()?;
    lab.table(&["init"])?;
    lab.activate_all()?;
    for (plane, options) in planes {
        lab.start_lb(&[&["--queue", QUEUE], &VIPS[..], options].concat())?;
        check_plane(lab, plane)?;
        for family in FAMILIES {
            for transport in TRANSPORTS {
                let connections =
                    Connections { family, transport, count: CONNECTIONS, seconds: 10 };
                let answers = lab.connect(connections)?;
                check(
                    answers.failed == 0 && answers.unevenness(2, 90).is_none(),
                    format!("{plane} plane: {family} {transport} answered by both servers"),
                    format!("{answers:?}"),
                )?;
            }
        }
        let status = status(lab)?;
        let counter = match *plane {
            "slow" => "queued",
            "fast" | "express" => plane,
            other => bail!("read plane {other}: there is none"),
        };
        check(
            packets(&status, counter).with_context(|| format!("{plane} plane"))?
                >= u64::from(2 * CONNECTIONS),
            format!("packets in the {plane} plane"),
            status,
        )?;
        look(lab, plane)?;
        end(lab)?;
        lab.cluster.router()?.run(&["lb", "--down"])?.success()?;
    }
    Ok(())
}
