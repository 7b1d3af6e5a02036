//! Which addresses the ends of an association tell each other.
//!
//! Both stacks leave private IPv4 addresses out of an association that begins over an address of wider scope (IPv6,
//! or public IPv4), at either end: the peer may not be in the same private network. So the two would lack paths that
//! their user asked for. The way to have them is to begin over a private address.

use std::net::IpAddr;

use crate::Addresses;

/// The order in which a stack is to try them: a private IPv4 address first, if there is one.
pub(crate) fn narrowest_first(remote: &Addresses) -> Addresses {
    let mut remote = remote.clone();
    if let Some(index) = remote.addresses.iter().position(is_private) {
        remote.addresses[..=index].rotate_right(1);
    }
    remote
}

/// As both stacks see it: the library takes 172.32.0.0/16 for private, too.
fn is_private(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_private() || v4.octets().starts_with(&[172, 32]),
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_address_comes_first_and_the_others_as_they_are() {
        for (given, expected) in [
            ("10.0.0.1,1000::1", "10.0.0.1,1000::1"),
            ("1000::1,10.0.0.1", "10.0.0.1,1000::1"),
            (
                "1000::1,192.0.2.1,172.16.0.1,192.168.0.1",
                "172.16.0.1,1000::1,192.0.2.1,192.168.0.1",
            ),
            ("192.0.2.1,172.32.0.1", "172.32.0.1,192.0.2.1"),
            ("1000::1,192.0.2.1", "1000::1,192.0.2.1"),
            ("1000::1", "1000::1"),
        ] {
            let parse = |list| Addresses::parse(list, 6000).unwrap();
            assert_eq!(narrowest_first(&parse(given)), parse(expected));
        }
    }
}
