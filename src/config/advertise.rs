//! What peers are told to reach an engine at: from the option and the bound address to a list of
//! socket addresses.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use kvx_core::error::{Cause, Invalid};

use super::Config;

/// An address or an interface that peers are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advertise {
    /// This address at the bound port.
    Ip(IpAddr),
    /// This address at this port, for engines behind a port mapping.
    Socket(SocketAddr),
    /// Every address of the interface of this name, at the bound port.
    Interface(String),
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Socket(address));
        }
        // What the kernel lets an interface be called (dev_valid_name in net/core/dev.c), less
        // what can only be a mistyped address.
        let name = !text.is_empty()
            && text.len() < 16
            && text != "."
            && text != ".."
            && !text.contains(|c: char| c.is_whitespace() || c == '/' || c == ':')
            && text.contains(|c: char| !c.is_ascii_digit() && c != '.');
        if name {
            return Ok(Self::Interface(text.to_owned()));
        }
        Err("expected a list of ip, ip:port, [v6]:port or interface names".to_owned())
    }
}

impl fmt::Display for Advertise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Socket(address) => address.fmt(f),
            Self::Interface(name) => f.write_str(name),
        }
    }
}

/// Addresses told to a peer at most, as [`kvx_core::wire::handshake::Identity`] carries them.
const MAX_ADDRESSES: usize = 16;

impl Config {
    /// The addresses that peers are told of an engine that listens on `bound`, best first: at
    /// least 1, at most 16, each once.
    ///
    /// # Errors
    /// [`Invalid::Field`] for an interface that has no address; [`Cause::Io`] when the system does
    /// not list its interfaces.
    pub(crate) fn advertised(&self, bound: SocketAddr) -> Result<Vec<SocketAddr>, Cause> {
        let interfaces = || -> Result<Vec<InterfaceAddress>, Cause> {
            let listed = if_addrs::get_if_addrs();
            Ok(listed
                .map_err(|error: io::Error| Cause::io("list network interfaces", error))?
                .into_iter()
                .filter(|interface| interface.is_oper_up())
                .map(|interface| InterfaceAddress { ip: interface.ip(), name: interface.name })
                .collect())
        };
        resolve(&self.advertise, bound, interfaces)
    }
}

/// An address of an interface that is up.
#[derive(Clone, Debug)]
struct InterfaceAddress {
    name: String,
    ip: IpAddr,
}

fn resolve(
    advertise: &[Advertise],
    bound: SocketAddr,
    interfaces: impl Fn() -> Result<Vec<InterfaceAddress>, Cause>,
) -> Result<Vec<SocketAddr>, Cause> {
    let at_port = |ip| SocketAddr::new(ip, bound.port());
    let mut addresses = Vec::new();
    for entry in advertise {
        match entry {
            Advertise::Ip(ip) => addresses.push(at_port(*ip)),
            Advertise::Socket(address) => addresses.push(*address),
            Advertise::Interface(name) => {
                let before = addresses.len();
                let all = interfaces()?.into_iter().filter(|entry| entry.name == *name);
                let usable = all.map(|entry| entry.ip).filter(|ip| is_reachable(*ip, bound));
                addresses.extend(usable.map(at_port));
                if addresses.len() == before {
                    let why = format!("interface {name} is not up or has no usable address");
                    return Err(Invalid::Field { field: "advertise", why }.into());
                }
            }
        }
    }
    if advertise.is_empty() && !bound.ip().is_unspecified() {
        addresses.push(bound);
    } else if advertise.is_empty() {
        let all = interfaces()?.into_iter().map(|entry| entry.ip);
        let usable = all.filter(|ip| is_reachable(*ip, bound) && !ip.is_loopback());
        // Loopback has to fit in too.
        addresses.extend(usable.map(at_port).take(MAX_ADDRESSES - 1));
        addresses.push(at_port(match bound.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        }));
    }
    let mut unique = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    unique.truncate(MAX_ADDRESSES);
    Ok(unique)
}

/// Whether peers can make use of an address of this host when the engine listens on `bound`. A
/// link-local address means something only together with the peer's own interface.
fn is_reachable(ip: IpAddr, bound: SocketAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    // A socket bound to [::] takes both families.
    let family = bound.is_ipv6() || ip.is_ipv4();
    family && !link_local
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Result<Vec<InterfaceAddress>, Cause> {
        let address = |name: &str, ip: &str| InterfaceAddress {
            name: name.to_owned(),
            ip: ip.parse().unwrap(),
        };
        Ok(vec![
            address("lo", "127.0.0.1"),
            address("eth0", "10.0.0.7"),
            address("ib0", "192.168.1.7"),
            address("lo", "::1"),
            address("eth0", "fd00::7"),
            address("eth0", "fe80::7"),
        ])
    }

    fn resolved(advertise: &str, bound: &str) -> String {
        let parse = |text: &str| text.parse::<Advertise>().unwrap();
        let entries: Vec<_> =
            advertise.split(',').filter(|text| !text.is_empty()).map(parse).collect();
        let addresses = resolve(&entries, bound.parse().unwrap(), host).unwrap();
        addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn without_the_option_peers_are_told_the_bound_address() {
        assert_eq!(resolved("", "10.0.0.7:80"), "10.0.0.7:80");
        assert_eq!(resolved("", "127.0.0.1:80"), "127.0.0.1:80");
    }

    #[test]
    fn of_an_unspecified_address_peers_are_told_every_interface_and_loopback_last() {
        assert_eq!(resolved("", "0.0.0.0:80"), "10.0.0.7:80 192.168.1.7:80 127.0.0.1:80");
        assert_eq!(resolved("", "[::]:80"), "10.0.0.7:80 192.168.1.7:80 [fd00::7]:80 [::1]:80");
    }

    #[test]
    fn entries_are_told_in_their_order_each_once() {
        assert_eq!(
            resolved("ib0,192.0.2.1,192.0.2.1:81,ib0", "0.0.0.0:80"),
            "192.168.1.7:80 192.0.2.1:80 192.0.2.1:81"
        );
        assert_eq!(resolved("eth0", "[::]:80"), "10.0.0.7:80 [fd00::7]:80");
        assert_eq!(resolved("[fd00::9]:5,fd00::9", "[::]:80"), "[fd00::9]:5 [fd00::9]:80");
    }

    #[test]
    fn an_interface_without_addresses_is_an_error_that_names_it() {
        let entries = [Advertise::Interface("eth9".to_owned())];
        let error = resolve(&entries, "0.0.0.0:80".parse().unwrap(), host).unwrap_err();
        let expected = "advertise: interface eth9 is not up or has no usable address";
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn a_host_of_many_addresses_tells_16_and_loopback_is_among_them() {
        let many = || -> Result<_, Cause> {
            let ip = |n| IpAddr::from([10, 0, 0, n]);
            Ok((0..40).map(|n| InterfaceAddress { name: "e".to_owned(), ip: ip(n) }).collect())
        };
        let addresses = resolve(&[], "0.0.0.0:80".parse().unwrap(), many).unwrap();
        assert_eq!(addresses.len(), 16);
        assert_eq!(addresses[15], "127.0.0.1:80".parse().unwrap());
    }

    #[test]
    fn this_host_has_loopback() {
        let config = Config::default().advertise([Advertise::Interface("lo".to_owned())]);
        let addresses = config.advertised("0.0.0.0:80".parse().unwrap()).unwrap();
        assert_eq!(addresses, ["127.0.0.1:80".parse().unwrap()]);
    }
}
