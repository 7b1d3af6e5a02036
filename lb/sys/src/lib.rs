//! The system as Markway needs it: shared memory, netfilter queues, signals, capabilities. Unsafe
//! code lives here and nowhere else; what a packet means is `lb-core`'s business.

#![warn(missing_docs)]

pub mod capability;
pub mod nfqueue;
pub mod privilege;
pub mod shm;
pub mod syscall_filter;
pub mod tcp_info;
pub mod wait;
