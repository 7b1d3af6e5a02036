//! What a run came to, in a line.

use std::fmt::Write;

use lb_core::counters::{Counter, Counts};

/// One line over all queues.
pub fn of(queues: &[Counts]) -> String {
    let sum = Counts::sum(queues);
    let mut line = format!(
        "ended: received {}, marked {}, held {}, dropped {}",
        sum.get(Counter::Received),
        sum.get(Counter::Marked),
        sum.get(Counter::Held),
        sum.dropped_sum(),
    );
    let reasons = sum.dropped().filter(|(_, number)| *number > 0);
    let reasons: Vec<String> = reasons.map(|(name, number)| format!("{name} {number}")).collect();
    if !reasons.is_empty() {
        // Writing to a String cannot fail.
        let _ = write!(line, " ({})", reasons.join(", "));
    }
    for (counter, name) in [
        (Counter::KernelQueueDrops, "lost to a full queue"),
        (Counter::SocketDrops, "lost to a full socket buffer"),
        (Counter::ReceiveErrors, "receive errors"),
        (Counter::SendErrors, "send errors"),
        (Counter::VerdictsRefused, "verdicts refused"),
        (Counter::HeldInjected, "held fragments sent round"),
        (Counter::HeldUnsent, "held fragments not sent"),
    ] {
        match sum.get(counter) {
            0 => {}
            number => {
                let _ = write!(line, ", {name} {number}");
            }
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_core::walk::{Class, Decision, Reason, Walked};

    #[test]
    fn what_did_not_happen_is_not_mentioned() {
        let mut counts = Counts::default();
        let line = of(&[counts]);
        assert_eq!(line, "ended: received 0, marked 0, held 0, dropped 0");
        let decision = Decision::Drop(Reason::NoTarget);
        counts.record(Walked { class: Class::Tcp, decision });
        counts.add(Counter::SocketDrops, 3);
        assert_eq!(
            of(&[counts, counts]),
            "ended: received 2, marked 0, held 0, dropped 2 (no_target 2), \
             lost to a full socket buffer 6"
        );
    }
}
