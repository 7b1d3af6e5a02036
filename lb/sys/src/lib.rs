//! The system as Markway needs it: shared memory, netfilter queues, nftables, devices, signals, capabilities. Unsafe
//! code lives here and nowhere else; what a packet means is `lb-core`'s business.

#![warn(missing_docs)]

pub mod capability;
pub mod device;
mod netlink;
pub mod nfqueue;
pub mod nft;
pub mod privilege;
pub mod random;
pub mod route;
pub mod shm;
pub mod syscall_filter;
pub mod tun;
pub mod wait;
