//! The network that is measured: source, router and sink, each a namespace, joined by veth pairs.
//!
//! The source has 16 addresses and sends to 250 virtual ones. On the router they are routed plainly, or
//! queued and routed by the fwmark alone: a packet without a mark is lost. The sink owns the virtual
//! addresses, counts the load in the kernel and drops it there: a program that received it would take
//! the processor time that is to be measured.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use anyhow::Context;
use lb_sys::nfqueue::{KernelCounters, KernelQueues};

use super::namespace::Namespace;

/// The marks of the targets.
pub const MARKS: [u32; 4] = [101, 102, 103, 104];
/// What all marks have in common where there may be any number of targets.
pub const MARK_BIT: u32 = 0x1000;
/// The addresses that the source sends from.
pub const SOURCES: RangeInclusive<u8> = 1..=16;
/// The virtual addresses, by their last byte.
pub const VIPS: RangeInclusive<u8> = 1..=250;
/// UDP ports that the sink counts and drops.
pub const COUNTED_PORTS: RangeInclusive<u16> = 5000..=5015;

/// An address of the source.
pub fn source_address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 1, 0, last)
}

/// A virtual address.
pub fn vip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

/// How the router leads packets to the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// By a route.
    Plain,
    /// Through these queues, then by mark.
    Queues(RangeInclusive<u16>),
    /// By mark. Whoever sets it brings rules of its own.
    Marks,
    /// By mark as well, with one rule and one route for all marks that have [`MARK_BIT`].
    MarkBit,
}

/// The three namespaces.
#[derive(Debug)]
pub struct Lab {
    /// Sends.
    pub source: Namespace,
    /// Has the consumer.
    pub router: Namespace,
    /// Receives.
    pub sink: Namespace,
}

const SOURCE_MAC: &str = "02:00:00:00:01:01";
const ROUTER_MAC: [&str; 2] = ["02:00:00:00:02:01", "02:00:00:00:02:02"];
const SINK_MAC: &str = "02:00:00:00:03:01";

impl Lab {
    /// The router's device by which the load comes in.
    pub const INGRESS: &str = "source";

    /// Builds the network.
    pub fn new(way: &Way) -> anyhow::Result<Self> {
        let lab =
            Lab { source: Namespace::new()?, router: Namespace::new()?, sink: Namespace::new()? };
        for namespace in [&lab.source, &lab.router, &lab.sink] {
            for conf in ["all", "default"] {
                namespace.sysctl(&format!("ipv4/conf/{conf}/rp_filter"), "0")?;
                // Nothing but the test's packets. A kernel without IPv6 sends none anyway.
                let _ = namespace.sysctl(&format!("ipv6/conf/{conf}/disable_ipv6"), "1");
            }
        }
        lab.router.sysctl("ipv4/ip_forward", "1")?;
        lab.link().context("build the test network")?;
        lab.route(way).context("build the test network")?;
        Ok(lab)
    }

    fn link(&self) -> anyhow::Result<()> {
        let (source, sink) = (self.source.path(), self.sink.path());
        let [left, right] = ROUTER_MAC;
        self.router.ip(&[
            format!("link add source address {left} type veth peer name router address {SOURCE_MAC} netns {source}"),
            format!("link add sink address {right} type veth peer name router address {SINK_MAC} netns {sink}"),
            "link set source up".into(),
            "link set sink up".into(),
            "address add 192.168.1.2/24 dev source".into(),
            "address add 192.168.2.1/24 dev sink".into(),
        ])?;
        // Neighbours are permanent: no packet may be lost to address resolution.
        let mut lines = vec![
            "link set router up".into(),
            "address add 192.168.1.1/24 dev router".into(),
            format!("neighbour add 192.168.1.2 dev router lladdr {left} nud permanent"),
            "route add 10.0.0.0/24 via 192.168.1.2".into(),
        ];
        lines.extend(SOURCES.map(|last| format!("address add {}/32 dev lo", source_address(last))));
        self.source.ip(&lines)?;

        let mut lines = vec!["link set router up".into()];
        lines.extend(next_hops().map(|(hop, _)| format!("address add {hop}/24 dev router")));
        lines.push(format!("neighbour add 192.168.2.1 dev router lladdr {right} nud permanent"));
        lines.push("route add local 10.0.0.0/24 dev lo".into());
        lines.push("route add default via 192.168.2.1".into());
        self.sink.ip(&lines)?;
        let (first, last) = (COUNTED_PORTS.start(), COUNTED_PORTS.end());
        self.sink
            .iptables(&format!("-t mangle -A PREROUTING -p udp --dport {first}:{last} -j DROP"))?;
        self.sink.iptables("-t mangle -A PREROUTING -p sctp -j DROP")?;
        // Later fragments have no ports.
        self.sink.iptables("-t mangle -A PREROUTING -p udp -f -j DROP")?;
        Ok(())
    }

    fn route(&self, way: &Way) -> anyhow::Result<()> {
        let mut lines = vec![
            format!("neighbour add 192.168.1.1 dev source lladdr {SOURCE_MAC} nud permanent"),
            "route add 10.1.0.0/16 via 192.168.1.1".into(),
        ];
        for (hop, mark) in next_hops() {
            lines.push(format!("neighbour add {hop} dev sink lladdr {SINK_MAC} nud permanent"));
            let route = format!("route add default via {hop} table {mark}");
            match way {
                Way::Queues(_) | Way::Marks => {
                    lines.extend([route, format!("rule add fwmark {mark} lookup {mark}")]);
                }
                Way::MarkBit if mark == MARKS[0] => {
                    let rule = format!("rule add fwmark {MARK_BIT}/{MARK_BIT} lookup {mark}");
                    lines.extend([route, rule]);
                }
                Way::Plain if mark == MARKS[0] => {
                    lines.push(format!("route add 10.0.0.0/24 via {hop}"));
                }
                Way::MarkBit | Way::Plain => {}
            }
        }
        if *way != Way::Plain {
            lines.push("route add blackhole 10.0.0.0/24".into());
        }
        self.router.ip(&lines)?;
        if let Way::Queues(queues) = way {
            let queues = match (queues.start(), queues.end()) {
                (first, last) if first == last => format!("--queue-num {first}"),
                (first, last) => format!("--queue-balance {first}:{last}"),
            };
            let rule = format!("-t mangle -A PREROUTING -d 10.0.0.0/24 -j NFQUEUE {queues}");
            self.router.iptables(&rule)?;
        }
        Ok(())
    }

    /// Adds a target behind a link of its own, where packets with this mark go. It drops what arrives.
    pub fn add_target(&self, mark: u32) -> anyhow::Result<Namespace> {
        const ROUTER: &str = "02:00:00:00:02:03";
        const TARGET: &str = "02:00:00:00:03:02";
        let add = || -> anyhow::Result<Namespace> {
            let target = Namespace::new()?;
            let path = target.path();
            self.router.ip(&[
                format!("link add target address {ROUTER} type veth peer name router address {TARGET} netns {path}"),
                "link set target up".into(),
                "address add 192.168.3.1/24 dev target".into(),
                format!("neighbour add 192.168.3.2 dev target lladdr {TARGET} nud permanent"),
                format!("route add default via 192.168.3.2 table {mark}"),
                format!("rule add fwmark {mark} lookup {mark}"),
            ])?;
            // A kernel without IPv6 sends none anyway.
            let _ = target.sysctl("ipv6/conf/all/disable_ipv6", "1");
            target.ip(&["link set router up", "address add 192.168.3.2/24 dev router"])?;
            target.iptables("-t mangle -A PREROUTING -p udp -j DROP")?;
            Ok(target)
        };
        add().context("add a target to the test network")
    }

    /// Packets of the load that have reached the sink.
    pub fn delivered(&self) -> anyhow::Result<u64> {
        let listing = self.sink.iptables("-t mangle -nvxL PREROUTING")?;
        dropped_packets(&listing).context("iptables: no counter in its listing")
    }

    /// The kernel's queues on the router. Only the main thread may ask: the list is that of its
    /// namespace.
    pub fn queues(&self) -> anyhow::Result<Vec<KernelCounters>> {
        self.router.enter(|| {
            let open = || KernelQueues::open()?.read();
            open().context("read the kernel's list of queues; is nfnetlink_queue there?")
        })
    }
}

/// The targets' addresses, with the marks that lead there.
fn next_hops() -> impl Iterator<Item = (Ipv4Addr, u32)> {
    (11..).map(|last| Ipv4Addr::new(192, 168, 2, last)).zip(MARKS)
}

/// The counters of the rules that drop; none if there is no such rule.
pub fn dropped_packets(listing: &str) -> Option<u64> {
    let counters = listing.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let packets: u64 = fields.next()?.parse().ok()?;
        let (_bytes, target) = (fields.next()?, fields.next()?);
        (target == "DROP").then_some(packets)
    });
    counters.reduce(|sum, packets| sum + packets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counter_is_that_of_the_rule() {
        let listing = "\
Chain PREROUTING (policy ACCEPT 7 packets, 9 bytes)
    pkts      bytes target     prot opt in     out     source               destination
 4000123 256007872 DROP       17   --  *      *       0.0.0.0/0            0.0.0.0/0            udp dpts:5000:5015
      77        0 DROP       17   -f  *      *       0.0.0.0/0            0.0.0.0/0
";
        assert_eq!(dropped_packets(listing), Some(4_000_200));
        assert_eq!(dropped_packets("Chain PREROUTING (policy ACCEPT)\n"), None);
    }

    #[test]
    fn every_mark_has_a_next_hop_of_its_own() {
        let hops: Vec<_> = next_hops().collect();
        assert_eq!(hops.len(), MARKS.len());
        assert_eq!(hops[3], (Ipv4Addr::new(192, 168, 2, 14), 104));
    }
}
