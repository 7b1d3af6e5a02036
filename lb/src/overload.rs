//! What the kernel loses before a worker sees it: counted always, told whenever somebody looks.

use std::sync::atomic::Ordering::Relaxed;

use lb_sys::nfqueue::{KernelCounters, KernelQueues};
use tracing::warn;

use crate::worker::Losses;

/// Reads the kernel's counters of our queues.
pub struct Overload<'a> {
    kernel: Option<KernelQueues>,
    queues: Vec<Watched<'a>>,
    /// Whether it was told that they cannot be read.
    told_unreadable: bool,
}

/// One queue with what was said about it.
struct Watched<'a> {
    number: u16,
    losses: &'a Losses,
    told: Lost,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lost {
    queue: u64,
    socket: u64,
}

impl<'a> Overload<'a> {
    /// Watches these queues.
    pub fn new(kernel: Option<KernelQueues>, numbers: &[u16], losses: &'a [Losses]) -> Self {
        let watched = |(&number, losses)| Watched { number, losses, told: Lost::default() };
        let queues = numbers.iter().zip(losses).map(watched).collect();
        Overload { kernel, queues, told_unreadable: false }
    }

    /// Reads the counters, and warns of what was lost since the last warning.
    pub fn look(&mut self) {
        let all = self.read();
        let complaints: Vec<String> =
            self.queues.iter_mut().filter_map(|queue| queue.complaint(&all)).collect();
        if !complaints.is_empty() {
            warn!("packets lost before they could be decided: {}", complaints.join("; "));
        }
    }

    /// Reads the counters.
    pub fn read(&mut self) -> Vec<KernelCounters> {
        let all = match self.kernel.as_mut().map(KernelQueues::read) {
            None => Vec::new(), // Told at start.
            Some(Ok(all)) => {
                self.told_unreadable = false;
                all
            }
            Some(Err(error)) => {
                if !std::mem::replace(&mut self.told_unreadable, true) {
                    warn!(
                        "what the kernel loses is not counted for the moment: read its list of queues: {error}"
                    );
                }
                Vec::new()
            }
        };
        for queue in &self.queues {
            if let Some(kernel) = all.iter().find(|kernel| kernel.queue == queue.number) {
                queue.losses.queue.store(kernel.queue_drops, Relaxed);
                queue.losses.socket.store(kernel.socket_drops, Relaxed);
            }
        }
        all
    }
}

impl Watched<'_> {
    fn complaint(&mut self, all: &[KernelCounters]) -> Option<String> {
        let kernel = all.iter().find(|kernel| kernel.queue == self.number)?;
        let now = Lost { queue: kernel.queue_drops, socket: kernel.socket_drops };
        let lost = Lost {
            queue: now.queue.saturating_sub(self.told.queue),
            socket: now.socket.saturating_sub(self.told.socket),
        };
        self.told = now;
        let mut causes = Vec::new();
        if lost.queue > 0 {
            let waiting = kernel.waiting;
            causes.push(format!(
                "{} because the queue was full, {waiting} wait now (raise --queue-length, add queues)",
                lost.queue
            ));
        }
        if lost.socket > 0 {
            causes.push(format!(
                "{} because the socket's buffer was full (raise --receive-buffer)",
                lost.socket
            ));
        }
        (!causes.is_empty()).then(|| format!("queue {}: {}", self.number, causes.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(queue_drops: u64, socket_drops: u64) -> [KernelCounters; 1] {
        [KernelCounters { queue: 2, port: 1, waiting: 9, queue_drops, socket_drops }]
    }

    #[test]
    fn what_is_new_is_told_with_its_cause() {
        let losses = Losses::default();
        let mut watched = Watched { number: 2, losses: &losses, told: Lost::default() };
        assert_eq!(watched.complaint(&kernel(0, 0)), None);
        assert_eq!(
            watched.complaint(&kernel(5, 7)).unwrap(),
            "queue 2: 5 because the queue was full, 9 wait now (raise --queue-length, add queues), \
             7 because the socket's buffer was full (raise --receive-buffer)"
        );
        assert_eq!(watched.complaint(&kernel(5, 7)), None);
        let told = watched.complaint(&kernel(5, 8)).unwrap();
        assert!(told.starts_with("queue 2: 1 because the socket's buffer"), "{told}");
        assert_eq!(watched.complaint(&[]), None);
    }
}
