//! The bytes of a metadata blob (PROTOCOL 9).

use std::sync::Arc;

use super::{MAX_REGIONS, Metadata, MetadataSecret, RegionDescription};
use crate::region::Rights;
use crate::transport::MemoryKind;
use crate::wire::WireError;
use crate::wire::codec::{Reader, Wire, Writer};

/// The first four bytes of every blob.
const MAGIC: [u8; 4] = *b"KVXM";

/// The blob's version. A change that extensions cannot carry raises it.
const VERSION: u16 = 1;

/// A blob's bytes at most: all regions, and as much again as a handshake for the rest.
const MAX_BLOB: usize = MAX_REGIONS * RegionDescription::LEN + 4096;

/// The number of the extension that carries the secret.
const SECRET: u16 = 1;

/// Bytes of the checksum at the end.
const CRC_LEN: usize = 4;

pub(super) fn encode(metadata: &Metadata) -> Result<Vec<u8>, WireError> {
    let mut blob = Vec::new();
    let mut w = Writer::new("metadata blob", &mut blob, MAX_BLOB - CRC_LEN);
    w.bytes(&MAGIC);
    w.u16(VERSION);
    w.u16(0);
    w.put(&metadata.engine);
    w.put(&metadata.incarnation);
    w.short_text("engine name", &metadata.name);
    w.put(&metadata.addresses);
    w.list("regions", &metadata.regions, MAX_REGIONS, |w, region| w.put(region));
    if let Some(secret) = &metadata.secret {
        w.extension(SECRET, |w| w.bytes(secret.as_bytes()));
    }
    w.finish()?;
    blob.extend(crc32c::crc32c(&blob).to_le_bytes());
    Ok(blob)
}

pub(super) fn decode(blob: &[u8]) -> Result<Metadata, WireError> {
    let mut reader = Reader::new("metadata blob", blob);
    let r = &mut reader;
    if r.array("metadata blob")? != MAGIC {
        return Err(WireError::Magic { what: "metadata blob" });
    }
    let version = r.u16("metadata version")?;
    if version != VERSION {
        let value = version.into();
        return Err(WireError::Unknown { what: "metadata version", value });
    }
    check_crc(blob, u32::from_le_bytes(r.tail("metadata checksum")?))?;

    r.reserved::<2>("metadata blob, reserved field")?;
    let mut metadata = Metadata {
        engine: r.get()?,
        incarnation: r.get()?,
        name: Arc::from(r.short_text("engine name")?),
        addresses: r.get()?,
        regions: r.list("regions", RegionDescription::LEN, MAX_REGIONS, Reader::get)?,
        secret: None,
    };
    reader.finish_with(|number, value| match number {
        SECRET => {
            metadata.secret = Some(MetadataSecret::new(value.array("metadata secret")?));
            Ok(true)
        }
        _ => Ok(false),
    })?;
    Ok(metadata)
}

fn check_crc(blob: &[u8], found: u32) -> Result<(), WireError> {
    let covered = blob.split_last_chunk::<CRC_LEN>().map_or(blob, |(covered, _)| covered);
    let expected = crc32c::crc32c(covered);
    if found != expected {
        return Err(WireError::Checksum { what: "metadata blob", expected, found });
    }
    Ok(())
}

impl RegionDescription {
    /// Bytes of one on the wire.
    pub(in crate::wire) const LEN: usize = 46;
}

impl Wire for RegionDescription {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.put(&self.id);
        writer.put(&self.key);
        writer.u64(self.base);
        writer.u64(self.len);
        writer.u8(self.rights.bits());
        writer.put(&self.kind);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let (id, key) = (reader.get()?, reader.get()?);
        let (base, len) = (reader.u64("region base")?, reader.u64("region length")?);
        if len == 0 || base.checked_add(len).is_none() {
            return Err(WireError::Value { what: "region length", value: len });
        }
        let bits = reader.u8("region rights")?;
        let rights = Rights::from_bits(bits)
            .ok_or(WireError::Unknown { what: "region rights", value: bits.into() })?;
        Ok(Self { id, key, base, len, rights, kind: reader.get()? })
    }
}

/// A byte for the kind and a u32 for the device's ordinal, 0 for the host.
impl Wire for MemoryKind {
    fn write(&self, writer: &mut Writer<'_>) {
        let (code, ordinal) = match self {
            Self::Host => (0, 0),
            Self::Cuda(ordinal) => (1, *ordinal),
        };
        writer.u8(code);
        writer.u32(ordinal);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match (reader.u8("memory kind")?, reader.u32("memory device")?) {
            (0, 0) => Ok(Self::Host),
            (0, ordinal) => Err(WireError::Value { what: "memory device", value: ordinal.into() }),
            (1, ordinal) => Ok(Self::Cuda(ordinal)),
            (code, _) => Err(WireError::Unknown { what: "memory kind", value: code.into() }),
        }
    }
}
