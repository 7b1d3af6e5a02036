//! The demo: a load balancer at work, every figure measured while one looks on.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::address::{FAMILIES, Family, NodeId};
use crate::backend::Backend;
use crate::bins::Bins;
use crate::cli::DemoArgs;
use crate::cluster::Cluster;
use crate::flow::{self, Flow, TRANSPORTS, Transport};
use crate::holder::Holder;
use crate::lab::{Lab, Shape};
use crate::mconnect::{Answers, Connections};
use crate::order::Order;
use crate::packet::Extras;
use crate::shell;
use crate::style::{Colour, Style, bar};
use crate::trace::{Moves, Trace, tally};

const CONNECTIONS: u32 = 1000;

/// Half of them IPv4, half IPv6.
const FLOWS: u16 = 1000;

const REMOVED: NodeId = NodeId::VM_003;

pub fn run(holder: &Holder, args: &DemoArgs) -> Result<ExitCode> {
    let bins = Bins::find(args.bin_dir.as_deref())?;
    let style = Style::of_stdout();
    let start = Instant::now();
    let order = Order::of_test(&Shape::STANDARD.layout(), bins.dir(), Backend::Namespaces)?;
    let cluster = Cluster::start(holder.folder(), &order, |_| {}).context("start cluster")?;
    let mut lab = Lab::new(Arc::new(cluster), bins);
    lab.prepare(Shape::STANDARD)?;
    heading(style, &format!("A cluster of 6 nodes, up in {:.1} s", start.elapsed().as_secs_f64()));
    print_picture(style);
    let demo = Demo { style };
    let shown = demo.start_service(&mut lab).and_then(|()| {
        if args.shell {
            heading(style, "Look around");
            print!("{}", shell::hints());
            return shell::open(&lab);
        }
        demo.show(&lab)?;
        let seconds = start.elapsed().as_secs_f64();
        println!("\nDone in {seconds:.0} s. To look around by hand: {}", style.bold("make shell"));
        Ok(())
    });
    if shown.is_err()
        && let Some(tail) = lab.lb_log_tail(20)
    {
        println!("\n  the end of lb's log:\n    {}", tail.replace('\n', "\n    "));
    }
    shown.map(|()| ExitCode::SUCCESS)
}

struct Demo {
    style: Style,
}

impl Demo {
    fn start_service(&self, lab: &mut Lab) -> Result<()> {
        heading(self.style, "On the router: a table of four targets, and lb");
        lab.start_servers()?;
        lab.queue(&["--queue-num", crate::lab::QUEUE])?;
        self.shm_tool(lab, &["init"])?;
        self.shm_tool(lab, &["activate", "1", "2", "3", "4"])?;
        let lb = ["--queue", crate::lab::QUEUE];
        self.command(&format!("lb {}", lb.join(" ")));
        lab.start_lb(&lb)?;
        self.shm_tool(lab, &["show"])
    }

    fn show(&self, lab: &Lab) -> Result<()> {
        let per_kind = format!("Who answers {CONNECTIONS} connections, from many addresses");
        heading(self.style, &per_kind);
        for transport in TRANSPORTS {
            for family in FAMILIES {
                self.spread(lab, family, transport, &[])?;
            }
        }
        self.removal(lab)?;
        heading(self.style, "The counters: received = marked + held + dropped");
        self.shm_tool(lab, &["stats"])?;
        match lab.stats()?.imbalance() {
            None => Ok(()),
            Some(imbalance) => bail!("check counters: {imbalance}"),
        }
    }

    fn removal(&self, lab: &Lab) -> Result<()> {
        let style = self.style;
        heading(style, &format!("Taking {REMOVED} away, with {FLOWS} flows before and after"));
        let trace = Trace::of_marks(lab.cluster.router()?)?;
        let flows: Vec<Flow> = FAMILIES
            .into_iter()
            .flat_map(|family| flow::list(family, Transport::Udp, FLOWS / 2))
            .collect();
        let before = marks(lab, &trace, &flows)?;
        let number = REMOVED.number().to_string();
        self.shm_tool(lab, &["deactivate", &number])?;
        let without = marks(lab, &trace, &flows)?;
        let moves = Moves::between(&before, &without, REMOVED.number().into());
        for (mark, count) in tally(&before) {
            let now = tally(&without).get(&mark).copied().unwrap_or(0);
            println!("  mark {mark}  {count:4} flows before, {now:4} after");
        }
        println!(
            "  {} of {} flows of {REMOVED} moved, as they must;",
            style.paint(Colour::Yellow, &(moves.of_removed - moves.stale).to_string()),
            moves.of_removed,
        );
        println!(
            "  {} of {} flows of the others moved as well.",
            style.paint(Colour::Green, &moves.of_others.to_string()),
            moves.flows - moves.of_removed,
        );
        if moves.stale > 0 || moves.of_others * 100 > moves.flows {
            bail!("remove {REMOVED}: not only its flows moved: {moves:?}");
        }
        self.spread(lab, Family::V4, Transport::Tcp, &[REMOVED])?;

        heading(style, &format!("Bringing {REMOVED} back"));
        self.shm_tool(lab, &["activate", &number])?;
        let again = marks(lab, &trace, &flows)?;
        let same = before.iter().filter(|(flow, mark)| again.get(flow) == Some(mark)).count();
        println!(
            "  {} of {} flows are where they were at first.",
            style.paint(Colour::Green, &same.to_string()),
            flows.len()
        );
        if same != flows.len() {
            bail!("bring {REMOVED} back: {} flows are elsewhere", flows.len() - same);
        }
        Ok(())
    }

    /// Connects and shows who answered; fails when it were not all servers but those `without`.
    fn spread(
        &self,
        lab: &Lab,
        family: Family,
        transport: Transport,
        without: &[NodeId],
    ) -> Result<()> {
        let connections = Connections { family, transport, count: CONNECTIONS, seconds: 15 };
        let answers = lab.connect(connections)?;
        println!("\n  {} {family}", self.style.bold(&transport.to_string().to_uppercase()));
        self.print_answers(lab, &answers);
        let servers: Vec<String> = lab
            .cluster
            .servers()
            .filter(|server| !without.contains(server))
            .map(|server| server.to_string())
            .collect();
        if answers.failed > 0 || !answers.hosts.keys().eq(&servers) {
            bail!(
                "connect over {transport} {family}: {} failed, answers of {:?}",
                answers.failed,
                answers.hosts.keys()
            );
        }
        Ok(())
    }

    fn print_answers(&self, lab: &Lab, answers: &Answers) {
        let most = answers.hosts.values().max().copied().unwrap_or(0);
        for server in lab.cluster.servers() {
            let count = answers.hosts.get(&server.to_string()).copied().unwrap_or(0);
            let bar = self.style.paint(Colour::Green, &bar(count, most, 40));
            println!("{}", format!("    {server} {count:5}  {bar}").trim_end());
        }
    }

    /// Shows a command and what it prints.
    fn shm_tool(&self, lab: &Lab, words: &[&str]) -> Result<()> {
        self.command(&format!("shm-tool {}", words.join(" ")));
        for line in lab.table(words)?.lines() {
            println!("{}", format!("    {line}").trim_end());
        }
        Ok(())
    }

    fn command(&self, command: &str) {
        println!("  {} {}", self.style.paint(Colour::Red, "vm-201#"), self.style.bold(command));
    }
}

fn heading(style: Style, text: &str) {
    println!("\n{}", style.bold(&style.paint(Colour::Cyan, &format!("== {text}"))));
}

fn marks(lab: &Lab, trace: &Trace, flows: &[Flow]) -> Result<BTreeMap<Flow, u32>> {
    trace.clear()?;
    lab.send_flows(flows, Extras::None)?;
    trace.wait_for(flows.len()).context("trace flows")
}

fn print_picture(style: Style) {
    let tester = style.paint(Colour::Blue, "vm-221 tester");
    let router = style.paint(Colour::Red, "vm-201 router");
    let servers = style.paint(Colour::Green, "vm-001 .. vm-004 servers");
    print!(
        "
  {tester}                   {router}                 {servers}
  20.0.0.0/16                     NFQUEUE 2 <-> lb              each owns the VIP
  1000::1:20.0.0.0/112  --- 1 ->  2: mark N           --- 3 ->  10.0.0.0 and 1000::
        ^                         table N: server N                 |
        |                                                           |
        +------------------------ plain routing  <------------- 4 --+
           192.168.2.0/24                      192.168.1.0/24
           1000::1:192.168.2.0/120             1000::1:192.168.1.0/120

  1  The tester sends to the VIP. A rule puts the packet into queue 2.
  2  lb hashes addresses and ports, finds mark N in the table and hands the packet back with it.
  3  The kernel routes by the mark: table N leads to server N.
  4  The server answers from the VIP; the answer does not meet lb (direct server return).
"
    );
}
