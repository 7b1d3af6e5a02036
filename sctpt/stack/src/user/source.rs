//! Which address a packet is sent from.
//!
//! Every path of an association has its own source: the one with which the routing table would send to
//! the peer's address, if the socket is bound to it, else the one at which this peer's packets arrive. The
//! library itself takes the same address for all paths in IPv4, and leaves it to the kernel otherwise.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::heartbeats;
use crate::route;

/// How long a route is believed in.
const ROUTE_LIFE: Duration = Duration::from_secs(2);
/// Peers' addresses that are remembered; beyond, all are forgotten.
const REMEMBERED: usize = 65_536;

/// Addresses of one socket and of those accepted from it; empty stands for all of this host.
#[derive(Debug)]
pub(super) struct Binding {
    port: u16,
    addresses: Arc<[IpAddr]>,
}

type Memory<K, V> = LazyLock<RwLock<HashMap<K, V>>>;

/// All bindings of this process by port.
static BINDINGS: Memory<u16, Vec<Arc<[IpAddr]>>> = Memory::new(RwLock::default);
/// Bindings with several addresses of a family: where there is none, arrivals need not be remembered.
static MULTIHOMED: AtomicUsize = AtomicUsize::new(0);
/// The address that the kernel would send from, and until when that is believed.
static ROUTES: Memory<IpAddr, (Option<IpAddr>, Instant)> = Memory::new(RwLock::default);
/// From a peer's address and SCTP port to the address of this host at which it was last heard. Another
/// association of the same peer may be with another address.
static ARRIVALS: Memory<SocketAddr, IpAddr> = Memory::new(RwLock::default);

impl Binding {
    pub fn new(port: u16, addresses: Vec<IpAddr>) -> Self {
        let binding = Binding { port, addresses: addresses.into() };
        let mut bindings = BINDINGS.write().unwrap_or_else(PoisonError::into_inner);
        bindings.entry(port).or_default().push(Arc::clone(&binding.addresses));
        MULTIHOMED.fetch_add(usize::from(binding.is_multihomed()), Ordering::Relaxed);
        binding
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    fn is_multihomed(&self) -> bool {
        let v4 = self.addresses.iter().filter(|address| address.is_ipv4()).count();
        v4 > 1 || self.addresses.len() - v4 > 1
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        let mut bindings = BINDINGS.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = bindings.get_mut(&self.port) {
            if let Some(index) = list.iter().position(|entry| Arc::ptr_eq(entry, &self.addresses)) {
                list.swap_remove(index);
            }
            if list.is_empty() {
                bindings.remove(&self.port);
                heartbeats::forget_port(self.port);
            }
        }
        MULTIHOMED.fetch_sub(usize::from(self.is_multihomed()), Ordering::Relaxed);
    }
}

/// Whether a socket of this process has the port.
pub(super) fn is_bound(port: u16) -> bool {
    BINDINGS.read().unwrap_or_else(PoisonError::into_inner).contains_key(&port)
}

/// Where a packet from this port to this peer should come from; none: leave it as it is. `chosen` is what
/// the library would take, if that is known.
pub(super) fn choose(port: u16, to: SocketAddr, chosen: Option<Ipv4Addr>) -> Option<IpAddr> {
    let addresses = addresses(port, chosen.map(IpAddr::V4))?;
    let mut candidates = addresses.iter().filter(|address| address.is_ipv4() == to.is_ipv4());
    let first = *candidates.next()?;
    if candidates.next().is_none() {
        return Some(first);
    }
    let bound = |address: &IpAddr| addresses.contains(address);
    by_route(to.ip()).filter(bound).or_else(|| arrival(to).filter(bound))
}

/// The addresses of the socket with this port. Where several sockets share it, the one that has `chosen`;
/// none if that does not tell, or if the socket is bound to no address.
fn addresses(port: u16, chosen: Option<IpAddr>) -> Option<Arc<[IpAddr]>> {
    let bindings = BINDINGS.read().unwrap_or_else(PoisonError::into_inner);
    let list = bindings.get(&port)?;
    let found = match chosen {
        Some(chosen) => list.iter().find(|entry| entry.contains(&chosen))?,
        None => {
            let first = list.first()?;
            list.iter().all(|entry| entry == first).then_some(first)?
        }
    };
    Some(Arc::clone(found))
}

/// Remembers where a peer's packet arrived. In IPv4 the library itself answers from there, so that only
/// sockets with several addresses need to know.
pub(super) fn arrived(from: SocketAddr, at: IpAddr) {
    let wanted = from.is_ipv6() || MULTIHOMED.load(Ordering::Relaxed) > 0;
    if wanted && arrival(from) != Some(at) {
        remember(&ARRIVALS, from, at);
    }
}

/// Where the peer's packets arrive.
pub(super) fn arrival(from: SocketAddr) -> Option<IpAddr> {
    ARRIVALS.read().unwrap_or_else(PoisonError::into_inner).get(&from).copied()
}

/// The address that the routing table gives for sending to `to`.
fn by_route(to: IpAddr) -> Option<IpAddr> {
    let now = Instant::now();
    let known = ROUTES.read().unwrap_or_else(PoisonError::into_inner).get(&to).copied();
    if let Some((source, until)) = known
        && now < until
    {
        return source;
    }
    let source = route::source(to).ok();
    remember(&ROUTES, to, (source, now + ROUTE_LIFE));
    source
}

fn remember<K: Eq + Hash, V>(memory: &RwLock<HashMap<K, V>>, key: K, value: V) {
    let mut memory = memory.write().unwrap_or_else(PoisonError::into_inner);
    if memory.len() >= REMEMBERED {
        memory.clear();
    }
    memory.insert(key, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    fn at(socket: &str) -> SocketAddr {
        socket.parse().unwrap()
    }

    #[test]
    fn the_source_is_one_of_the_socket_s() {
        let binding = Binding::new(9, vec![ip("192.0.2.1"), ip("127.0.0.1"), ip("2001:db8::1")]);
        let lib = Some([192, 0, 2, 1].into());
        // The routing table says so.
        assert_eq!(choose(9, at("127.0.0.9:7"), lib), Some(ip("127.0.0.1")));
        // There is only one.
        assert_eq!(choose(9, at("[2001:db8::2]:7"), None), Some(ip("2001:db8::1")));
        // The routing table does not know the bound ones, but the peer has been heard.
        assert_eq!(choose(9, at("127.0.0.8:7"), Some([127, 0, 0, 8].into())), None);
        let other = Binding::new(10, vec![ip("192.0.2.1"), ip("192.0.2.2")]);
        assert_eq!(choose(10, at("127.0.0.7:7"), lib), None);
        arrived(at("127.0.0.7:7"), ip("192.0.2.2"));
        assert_eq!(choose(10, at("127.0.0.7:7"), lib), Some(ip("192.0.2.2")));
        assert!(is_bound(9) && is_bound(10) && !is_bound(11));
        // Another association of the same peer.
        assert_eq!(choose(10, at("127.0.0.7:8"), lib), None);
        arrived(at("[fd00::7]:7"), ip("2001:db8::1"));
        arrived(at("[fd00::7]:8"), ip("2001:db8::2"));
        assert_eq!(arrival(at("[fd00::7]:7")), Some(ip("2001:db8::1")));
        drop((binding, other));
        assert!(!is_bound(9) && !is_bound(10));
        assert_eq!(choose(9, at("127.0.0.9:7"), lib), None);
    }
}
