//! Whether a peer may be on this host, by the addresses of its connection. Whether it is, and what of
//! its memory is within reach, a lane finds out.

use std::net::{SocketAddr, UdpSocket};

/// Whether the other side of a connection, at `peer`, may be on this host. Without this a peer of
/// another host would cost lanes that lead nowhere.
///
/// A container with a network of its own counts as another host, and so does one behind a relay of
/// another; of those behind a relay of this one it shows later.
pub(super) fn is_near(own: SocketAddr, peer: SocketAddr) -> bool {
    let (own_ip, ip) = (own.ip().to_canonical(), peer.ip().to_canonical());
    ip == own_ip || ip.is_loopback() || is_own(peer)
}

/// Whether this host has the address: one of several may be dialed from another of them, for the
/// kernel takes the first of their network (ip-address(8), secondary addresses). Only those can be
/// bound.
fn is_own(mut address: SocketAddr) -> bool {
    address.set_port(0);
    UdpSocket::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(own: &str, peer: &str) -> bool {
        is_near(own.parse().unwrap(), peer.parse().unwrap())
    }

    #[test]
    fn the_same_address_and_loopback_are_near() {
        assert!(near("192.0.2.1:5000", "192.0.2.1:6000"));
        assert!(near("[::ffff:192.0.2.1]:5000", "192.0.2.1:6000"));
        assert!(near("127.0.0.1:5000", "127.0.0.2:6000"));
        assert!(near("[::ffff:127.0.0.1]:5000", "[::ffff:127.0.0.2]:6000"));
        assert!(near("[::1]:5000", "[::1]:6000"));
    }

    #[test]
    fn any_address_of_this_host_is_near_from_any_other() {
        for own in if_addrs::get_if_addrs().unwrap() {
            let link_local =
                matches!(own.ip(), std::net::IpAddr::V6(ip) if ip.is_unicast_link_local());
            // Those are bound with their interface, which a connection's address names.
            if !link_local {
                assert!(
                    is_near("192.0.2.1:5000".parse().unwrap(), (own.ip(), 6000).into()),
                    "{own:?}"
                );
            }
        }
    }

    /// Addresses for documentation (RFC 5737, RFC 3849), which no host has.
    #[test]
    fn another_hosts_address_is_not() {
        assert!(!near("203.0.113.1:5000", "203.0.113.2:6000"));
        assert!(!near("[2001:db8::1]:5000", "[2001:db8::2]:6000"));
        assert!(!near("127.0.0.1:5000", "203.0.113.1:6000"));
    }
}
