//! What makes the kernel load a module.

use std::process;

use super::expression::{Expression, Queues};
use super::message::TableFamily;
use super::object::{Rule, TableId};
use super::{Nft, NftError, Transaction};

impl Nft {
    /// Lets the kernel load the target NFQUEUE, if it is a module. It does not when it meets the target in a table for
    /// both versions of IP, where it has no name for it.
    pub fn load_queue_target(&mut self) -> Result<(), NftError> {
        const CHAIN: &str = "nobody-comes-here";
        let name = format!("markway-load-{}", process::id());
        let mut transaction = Transaction::new(&TableId { family: TableFamily::Ip, name });
        transaction.add_table("lets the kernel load a module for lb of Markway");
        transaction.add_chain(CHAIN, None);
        let target = Expression::QueueTarget(Queues { first: 0, count: 1, bypass: true });
        let rule = Rule { comment: "to a queue".into(), expressions: vec![target] };
        transaction.add_rule(CHAIN, &rule);
        transaction.delete_table();
        self.commit(transaction)
    }
}
