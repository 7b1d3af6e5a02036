//! What the rules of others do to fragments: put them together too early, or spread them over queues.

use std::fs;
use std::ops::RangeInclusive;

use lb_sys::nft::{Spread, Step, Survey, SurveyedRule};

use super::{Finding, Level};
use crate::args::Settings;
use crate::installed::table_name;

/// Where the kernel puts fragments together once somebody needs it.
const DEFRAGMENTATION: i32 = -400;

/// Steps of nftables that make the kernel track connections, and so put fragments together.
const TRACKING_STEPS: [&str; 8] =
    ["ct", "nat", "masq", "redir", "connlimit", "flow_offload", "synproxy", "tproxy"];

/// Matches and targets of iptables that do.
const TRACKING_OF_IPTABLES: [&str; 19] = [
    "conntrack",
    "state",
    "connmark",
    "connbytes",
    "connlabel",
    "helper",
    "cluster",
    "socket",
    "CT",
    "CONNMARK",
    "CONNSECMARK",
    "DNAT",
    "SNAT",
    "MASQUERADE",
    "REDIRECT",
    "NETMAP",
    "SYNPROXY",
    "TPROXY",
    "CLUSTERIP",
];

fn tracks(step: &Step) -> bool {
    let name = step.name.as_str();
    TRACKING_STEPS.contains(&name) || TRACKING_OF_IPTABLES.contains(&name)
}

pub fn findings(settings: &Settings, survey: &Survey) -> Vec<Finding> {
    let ours = table_name(&settings.instance);
    let others = Others { survey, ours: &ours };
    let mut findings = vec![others.reassembly(settings.rules.is_some(), tracked_connections())];
    findings.extend(others.queues(&settings.queues, settings.rules.is_some()));
    findings
}

/// How many connections the kernel tracks in this namespace.
fn tracked_connections() -> u64 {
    let count = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
    count.ok().and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

/// Everything but our own table.
struct Others<'a> {
    survey: &'a Survey,
    ours: &'a str,
}

impl Others<'_> {
    fn rules(&self) -> impl Iterator<Item = &SurveyedRule> {
        self.survey.rules.iter().filter(|rule| rule.table != self.ours)
    }

    fn reassembly(&self, own_rules: bool, tracked: u64) -> Finding {
        const CHECK: &str = "reassembly";
        let tracking = self.rules().find_map(|rule| {
            let step = rule.steps.iter().find(|step| tracks(step))?;
            Some(format!("'{}' in {}", step.name, place(rule)))
        });
        let cause = match (tracking, tracked) {
            (Some(rule), _) => rule,
            (None, 0) => {
                return Finding::ok(CHECK, "no rule makes the kernel put fragments together");
            }
            (None, tracked) => format!("connection tracking, which has {tracked} connections,"),
        };
        let what = format!("{cause} makes the kernel put fragments together at priority -400");
        if own_rules {
            return Finding::ok(CHECK, format!("{what}, after the rules of lb"));
        }
        if self.queued_before_it() {
            return Finding::ok(CHECK, format!("{what}, after a rule that queues"));
        }
        let advice = "let lb make the rules (--vip), or queue in a chain of nftables at hook prerouting, priority -450";
        Finding::new(CHECK, Level::Warning, format!("{what}, before packets are queued"), advice)
    }

    /// Whether somebody queues early enough: in a chain that packets enter then, or in one that such a chain of
    /// the same table may lead to.
    fn queued_before_it(&self) -> bool {
        let early = |rule: &SurveyedRule| {
            let mut of_table = self
                .survey
                .chains
                .iter()
                .filter(|chain| (chain.family, &chain.table) == (rule.family, &rule.table));
            let own = of_table.clone().find(|chain| chain.name == rule.chain);
            let is_early = |priority| priority < DEFRAGMENTATION;
            match own.and_then(|chain| chain.prerouting) {
                Some(priority) => is_early(priority),
                None => of_table.any(|chain| chain.prerouting.is_some_and(is_early)),
            }
        };
        self.rules().any(|rule| spreads(rule).next().is_some() && early(rule))
    }

    fn queues(&self, served: &RangeInclusive<u16>, own_rules: bool) -> Vec<Finding> {
        const CHECK: &str = "queues";
        let mut findings = Vec::new();
        for (rule, spread) in
            self.rules().flat_map(|rule| spreads(rule).map(move |one| (rule, one)))
        {
            let last = spread.first.saturating_add(spread.count.saturating_sub(1));
            if last < *served.start() || spread.first > *served.end() {
                continue; // Not for us.
            }
            let place = place(rule);
            if spread.first < *served.start() || last > *served.end() {
                let what = format!(
                    "{place} sends to queues {} to {last}, of which not all are served",
                    spread.first
                );
                findings.push(Finding::new(
                    CHECK,
                    Level::Warning,
                    what,
                    "serve all of them with --queue",
                ));
            }
            if spread.by_cpu && spread.count > 1 {
                let what = format!(
                    "{place} spreads packets over queues by processor, so fragments of one datagram may come to several: \
                     then all queues share one table of fragments, with a lock"
                );
                findings.push(Finding::new(
                    CHECK,
                    Level::Warning,
                    what,
                    "leave fanout (--queue-cpu-fanout) out",
                ));
            }
        }
        if findings.is_empty() {
            let what = match own_rules {
                true => "the rules of lb spread packets by addresses",
                false => "no rule of nftables spreads the fragments of a datagram",
            };
            findings.push(Finding::ok(CHECK, what));
        }
        findings
    }
}

fn spreads(rule: &SurveyedRule) -> impl Iterator<Item = Spread> {
    rule.steps.iter().filter_map(|step| step.spread)
}

fn place(rule: &SurveyedRule) -> String {
    format!("table {} {}, chain {}", rule.family.name(), rule.table, rule.chain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_sys::nft::{SurveyedChain, TableFamily};

    fn rule(table: &str, name: &str, spread: Option<Spread>) -> SurveyedRule {
        let steps = vec![Step { name: name.into(), spread }];
        SurveyedRule { family: TableFamily::Ip, table: table.into(), chain: "c".into(), steps }
    }

    fn queue(first: u16, count: u16, by_cpu: bool) -> SurveyedRule {
        rule("q", "NFQUEUE", Some(Spread { first, count, by_cpu }))
    }

    fn chain(priority: i32) -> SurveyedChain {
        let (table, name) = ("q".into(), "PREROUTING".into());
        SurveyedChain { family: TableFamily::Ip, table, name, prerouting: Some(priority) }
    }

    fn reassembly(rules: Vec<SurveyedRule>, priority: i32, own: bool, tracked: u64) -> Finding {
        let survey = Survey { chains: vec![chain(priority)], rules };
        Others { survey: &survey, ours: "ours" }.reassembly(own, tracked)
    }

    #[test]
    fn tracking_before_the_queue_is_told() {
        let ct = || rule("filter", "ct", None);
        let late = reassembly(vec![ct(), queue(2, 1, false)], -150, false, 0);
        assert_eq!(late.level, Level::Warning);
        assert!(late.what.starts_with("'ct' in table ip filter, chain c"), "{}", late.what);
        let early = reassembly(vec![ct(), queue(2, 1, false)], -450, false, 0);
        assert_eq!(early.level, Level::Ok);
        assert_eq!(reassembly(vec![ct()], -150, true, 0).level, Level::Ok);
        assert_eq!(reassembly(vec![queue(2, 1, false)], -150, false, 0).level, Level::Ok);
        assert_eq!(reassembly(vec![rule("ours", "ct", None)], -150, false, 0).level, Level::Ok);
        let tracked = reassembly(vec![], -150, false, 7);
        assert_eq!(tracked.level, Level::Warning);
        assert!(tracked.what.contains("7 connections"), "{}", tracked.what);
    }

    #[test]
    fn rules_that_do_not_fit_the_queues_are_told() {
        let told = |rules: Vec<SurveyedRule>, served| {
            let survey = Survey { chains: vec![], rules };
            let findings = Others { survey: &survey, ours: "ours" }.queues(&served, false);
            findings.into_iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        use Level::{Ok, Warning};
        assert_eq!(told(vec![queue(2, 2, false)], 2..=3), [Ok]);
        assert_eq!(told(vec![queue(2, 2, true)], 2..=3), [Warning]);
        assert_eq!(told(vec![queue(2, 1, true)], 2..=3), [Ok]);
        assert_eq!(told(vec![queue(2, 4, false)], 2..=3), [Warning]);
        assert_eq!(told(vec![queue(2, 4, true)], 2..=3), [Warning, Warning]);
        assert_eq!(told(vec![queue(7, 4, true)], 2..=3), [Ok]);
    }
}
