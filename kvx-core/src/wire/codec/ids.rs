//! How ids, keys and addresses stand on the wire, wherever they occur.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Reader, Wire, Writer};
use crate::error::Refusal;
use crate::id::{
    Association, EngineId, GrantId, Incarnation, LaneId, RegionId, Room, SessionKey, Slot,
    TransferId,
};
use crate::region::RegionKey;
use crate::time::Time;
use crate::wire::{MAX_ADDRESSES, WireError};

/// Ids of 16 bytes.
macro_rules! byte_ids {
    ($($type:ident: $what:literal),*) => {$(
        impl Wire for $type {
            fn write(&self, writer: &mut Writer<'_>) {
                writer.bytes(&self.0);
            }

            fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
                reader.array($what).map(Self)
            }
        }
    )*};
}

/// Numbers that are never 0, so that 0 stands for none.
macro_rules! counted_ids {
    ($($type:ident: $what:literal),*) => {$(
        impl Wire for $type {
            fn write(&self, writer: &mut Writer<'_>) {
                match self.0 {
                    0 => writer.fail(WireError::Value { what: $what, value: 0 }),
                    id => writer.u64(id),
                }
            }

            fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
                reader.get::<Option<Self>>()?.ok_or(WireError::Value { what: $what, value: 0 })
            }
        }

        impl Wire for Option<$type> {
            fn write(&self, writer: &mut Writer<'_>) {
                match self {
                    Some(id) => writer.put(id),
                    None => writer.u64(0),
                }
            }

            fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
                reader.u64($what).map(|id| Some(id).filter(|id| *id != 0).map($type))
            }
        }
    )*};
}

byte_ids!(EngineId: "engine id", Incarnation: "incarnation");
counted_ids!(Association: "association", TransferId: "transfer", GrantId: "grant");

impl Wire for LaneId {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.u32(self.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        reader.u32("lane").map(Self)
    }
}

impl Wire for Slot {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.u32(self.0);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        reader.u32("slot").map(Self)
    }
}

impl Wire for RegionId {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.u64(self.to_bits());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        reader.u64("region").map(Self::from_bits)
    }
}

impl Wire for RegionKey {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.bytes(self.as_bytes());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        reader.array("region key").map(Self::new)
    }
}

impl Wire for Time {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.u64(self.as_nanos());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        reader.u64("time").map(Self::from_nanos)
    }
}

impl Wire for Refusal {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.u16(self.code());
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let code = reader.u16("refusal")?;
        Self::from_code(code).ok_or(WireError::Unknown { what: "refusal", value: code.into() })
    }
}

impl Wire for SessionKey {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.u64(self.room.0);
        writer.u32(self.attempt);
        writer.u32(self.sender_rank);
        writer.u32(self.receiver_rank);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            room: Room(reader.u64("room")?),
            attempt: reader.u32("attempt")?,
            sender_rank: reader.u32("sender rank")?,
            receiver_rank: reader.u32("receiver rank")?,
        })
    }
}

/// At most [`MAX_ADDRESSES`] addresses behind their number in a byte. Flow labels and scopes of
/// IPv6 mean nothing on another host and stay behind.
impl Wire for Vec<SocketAddr> {
    fn write(&self, writer: &mut Writer<'_>) {
        let what = "addresses";
        let limit = MAX_ADDRESSES as u64;
        match u8::try_from(self.len()).ok().filter(|_| self.len() <= MAX_ADDRESSES) {
            Some(count) => writer.u8(count),
            None => writer.fail(WireError::Limit { what, value: self.len() as u64, limit }),
        }
        for address in self.iter().take(MAX_ADDRESSES) {
            match address.ip() {
                IpAddr::V4(ip) => {
                    writer.u8(4);
                    writer.bytes(&ip.octets());
                }
                IpAddr::V6(ip) => {
                    writer.u8(6);
                    writer.bytes(&ip.octets());
                }
            }
            writer.u16(address.port());
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let what = "addresses";
        let count = usize::from(reader.u8(what)?);
        if count > MAX_ADDRESSES {
            let (value, limit) = (count as u64, MAX_ADDRESSES as u64);
            return Err(WireError::Limit { what, value, limit });
        }
        let mut addresses = Vec::new();
        for _ in 0..count {
            let ip: IpAddr = match reader.u8("address family")? {
                4 => Ipv4Addr::from(reader.array::<4>("address")?).into(),
                6 => Ipv6Addr::from(reader.array::<16>("address")?).into(),
                other => {
                    return Err(WireError::Unknown { what: "address family", value: other.into() });
                }
            };
            addresses.push(SocketAddr::new(ip, reader.u16("port")?));
        }
        Ok(addresses)
    }
}
