//! By which means this kernel does what is wanted of it. That is found out by trying: the mirror tries with the
//! rules themselves, `lb --check` with the same rules where no packet comes.

use lb_core::table::Config;
use lb_sys::nft::{NftError, TableFamily};
use thiserror::Error;

use crate::args::RuleSettings;
use crate::express::Ways;
use crate::rules::{QueueBy, Table, Wanted};

/// What is asked of the kernel: all that is wanted, until it refuses some of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Means {
    wanted: Wanted,
    by: QueueBy,
    fast: bool,
    express: bool,
}

/// What the kernel does not do, and what comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Lack {
    /// nftables' own expression; the target of iptables does the same.
    #[error("the target NFQUEUE queues")]
    Queue,
    /// A limit, without which all INITs would go to the queue.
    #[error("INITs of SCTP are not counted")]
    Inits,
    /// Sets whose elements count.
    #[error("targets are not counted")]
    Counters,
    /// Whatever the rules of a device need.
    #[error("no express plane, the fast plane does its work")]
    Express,
    /// Whatever else the rules need.
    #[error("no fast plane, the queue does all the work")]
    Fast,
}

impl Lack {
    /// With what the kernel said.
    pub fn because(self, cause: &NftError) -> String {
        format!("{self}: this kernel refuses: {cause}")
    }
}

/// Slots beyond which the map would need more memory (about 100 bytes a slot) than it is worth.
pub const MOST_SLOTS: u32 = 1 << 21;

/// Why there is no fast plane for a table of this size, if so.
pub fn too_large(config: &Config) -> Option<String> {
    let slots = config.slots;
    (slots > MOST_SLOTS)
        .then(|| format!("{}: the table has {slots} slots, more than {MOST_SLOTS}", Lack::Fast))
}

impl Means {
    /// Nothing was refused yet.
    pub fn new(rules: &RuleSettings) -> Self {
        Means {
            wanted: rules.wanted.clone(),
            by: QueueBy::Expression,
            fast: rules.fast,
            express: !rules.express.is_empty(),
        }
    }

    /// What the rules are to do.
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// How packets come to the queue.
    pub fn by(&self) -> QueueBy {
        self.by
    }

    /// Whether there is to be a fast plane.
    pub fn fast(&self) -> bool {
        self.fast
    }

    /// Whether there is to be an express plane.
    pub fn express(&self) -> bool {
        self.express
    }

    /// The rules; with a table's configuration those of the planes in the kernel.
    pub fn tables(&self, config: Option<&Config>, ways: &Ways) -> Vec<Table> {
        let config = config.filter(|_| self.fast);
        let express = config.filter(|_| self.express);
        let express = express.map(|config| ways.table(&self.wanted, config));
        [Table::new(&self.wanted, self.by, config)].into_iter().chain(express).collect()
    }

    /// Gives up what the kernel refused of these rules, if there is another way; says what that was.
    pub fn do_without(&mut self, cause: &NftError) -> Option<Lack> {
        if let Some(lack) = self.queue_otherwise(cause) {
            return Some(lack);
        }
        let (is_refused, step) = match cause {
            // Neither is the kernel's lack.
            NftError::NotPermitted | NftError::Busy(_) => return None,
            NftError::Refused { expression, .. } => (true, expression.as_deref()),
            NftError::Io { .. } | NftError::NoAnswer(_) => (false, None),
        };
        match step {
            Some("queue" | "target") => None,
            Some("limit") if self.wanted.show_inits => {
                self.wanted.show_inits = false;
                Some(Lack::Inits)
            }
            _ if self.express && cause.is_about(TableFamily::Netdev) => {
                self.express = false;
                Some(Lack::Express)
            }
            None | Some("lookup") if self.fast && self.wanted.count_targets && is_refused => {
                self.wanted.count_targets = false;
                Some(Lack::Counters)
            }
            _ if self.fast => {
                (self.fast, self.express) = (false, false);
                Some(Lack::Fast)
            }
            _ => None,
        }
    }

    /// Gives up nftables' own means to queue, if that is what was refused. It may be found out late, when its
    /// module is taken away.
    pub fn queue_otherwise(&mut self, cause: &NftError) -> Option<Lack> {
        let is_it = self.by == QueueBy::Expression && cause.expression() == Some("queue");
        is_it.then(|| {
            self.by = QueueBy::Target;
            Lack::Queue
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_sys::nft::{Expression, Queues};
    use std::io;

    fn means(fast: bool, express: bool) -> Means {
        let wanted = Wanted {
            vips: vec!["10.0.0.0/24".parse().unwrap(), "1000::".parse().unwrap()],
            devices: vec!["eth2".into()],
            local: false,
            notrack: true,
            queues: Queues { first: 2, count: 1, bypass: false },
            mark_mask: u32::MAX,
            count_targets: true,
            show_inits: true,
        };
        let express = express.then(|| "eth2".to_owned()).into_iter().collect();
        Means::new(&RuleSettings { wanted, fast, express })
    }

    fn refused(what: &str, expression: Option<&str>, family: TableFamily) -> NftError {
        NftError::Refused {
            what: what.into(),
            expression: expression.map(String::from),
            family: Some(family),
            cause: io::ErrorKind::NotFound.into(),
            said: None,
        }
    }

    /// A kernel without some steps of rules, or without sets that count.
    fn commit(tables: &[Table], lacks: &[&str]) -> Result<(), NftError> {
        for table in tables {
            if table.targets.is_some() && lacks.contains(&"counting set") {
                return Err(refused("add set targets", None, table.family));
            }
            let rules = table.chains.iter().flat_map(|chain| &chain.rules);
            let mut steps = rules.flat_map(|rule| &rule.expressions).map(Expression::name);
            if let Some(step) = steps.find(|step| lacks.contains(step)) {
                return Err(refused("add rule 'a rule'", Some(step), table.family));
            }
        }
        Ok(())
    }

    /// What is given up until such a kernel takes the rules, and what is left; the last refusal if it never does.
    fn settle(mut means: Means, lacks: &[&str]) -> (Vec<Lack>, Result<Means, String>) {
        let mut given_up = Vec::new();
        loop {
            let tables = means.tables(Some(&Config::default()), &Ways::default());
            let Err(cause) = commit(&tables, lacks) else { return (given_up, Ok(means)) };
            match means.do_without(&cause) {
                Some(lack) => given_up.push(lack),
                None => return (given_up, Err(cause.to_string())),
            }
        }
    }

    #[test]
    fn a_kernel_that_has_all_does_all() {
        for (fast, express) in [(false, false), (true, false), (true, true)] {
            let all = means(fast, express);
            assert_eq!(settle(all.clone(), &[]), (vec![], Ok(all)));
        }
    }

    #[test]
    fn only_what_is_missing_is_given_up() {
        use Lack::{Counters, Express, Fast, Inits, Queue};
        for (lacks, given_up) in [
            (&["queue"][..], &[Queue][..]),
            (&["limit"], &[Inits]),
            (&["counting set"], &[Counters]),
            (&["fwd"], &[Express]),
            (&["hash"], &[Fast]),
            // It might be that of the counters.
            (&["lookup"], &[Counters, Fast]),
            (&["queue", "limit", "counting set", "fwd"], &[Counters, Queue, Inits, Express]),
        ] {
            let (found, left) = settle(means(true, true), lacks);
            let left = left.unwrap();
            assert_eq!(found, given_up, "{lacks:?}");
            let gone = |lack| given_up.contains(&lack);
            assert_eq!(left.by() == QueueBy::Target, gone(Queue), "{lacks:?}");
            assert_eq!(left.fast(), !gone(Fast), "{lacks:?}");
            assert_eq!(left.express(), !gone(Fast) && !gone(Express), "{lacks:?}");
        }
    }

    #[test]
    fn without_any_means_to_queue_there_is_no_way() {
        let (given_up, left) = settle(means(true, false), &["queue", "target"]);
        assert_eq!(given_up, [Lack::Queue]);
        assert!(left.unwrap_err().contains("'target'"));
    }

    #[test]
    fn what_is_not_the_kernels_lack_takes_nothing_away() {
        let all = means(true, true);
        for cause in [NftError::NotPermitted, NftError::Busy("read a table")] {
            let mut means = all.clone();
            assert_eq!((means.do_without(&cause), &means), (None, &all), "{cause}");
        }
        // A transaction that is too long to send is one without a map.
        let cause = io::ErrorKind::OutOfMemory.into();
        let cause = NftError::Io { operation: "commit a transaction", cause };
        assert_eq!(all.clone().do_without(&cause), Some(Lack::Fast));
        assert_eq!(means(false, false).do_without(&cause), None);
    }

    #[test]
    fn a_lack_is_told_with_its_cause() {
        let cause = refused("add rule 'IPv4 INITs'", Some("limit"), TableFamily::Inet);
        let told = Lack::Inits.because(&cause);
        assert!(
            told.starts_with(
                "INITs of SCTP are not counted: this kernel refuses: add rule 'IPv4 INITs', its 'limit' part: "
            ),
            "{told}"
        );
    }

    #[test]
    fn a_table_may_be_too_large() {
        let of = |slots| too_large(&Config { slots, ..Config::default() });
        assert_eq!(of(MOST_SLOTS), None);
        assert_eq!(
            of(MOST_SLOTS + 1).unwrap(),
            "no fast plane, the queue does all the work: the table has 2097153 slots, more than 2097152"
        );
    }
}
