//! The bytes of handshake messages (PROTOCOL 3.1 to 3.4).

use std::sync::Arc;

use super::{
    AuthMethod, Confirm, Features, HANDSHAKE_PREFIX_LEN, HandshakeKind, HandshakeMessage, Hello,
    Identity, LaneChallenge, LaneHello, LaneProof, MAC_LEN, MAGIC, MAX_HANDSHAKE, Mac, Mark, Nonce,
    Reject, Welcome,
};
use crate::id::EngineId;
use crate::transport::{Operations, TransportOffer};
use crate::wire::codec::{Reader, Wire, Writer};
use crate::wire::{MAX_TRANSPORTS, WireError};

/// Bytes of a body at most.
const MAX_BODY: usize = MAX_HANDSHAKE - HANDSHAKE_PREFIX_LEN;

/// The number of Confirm's extension that carries its mark.
const MARK: u16 = 1;

pub(super) fn encode(message: &HandshakeMessage) -> Result<Vec<u8>, WireError> {
    framed(message.kind(), |w| match message {
        HandshakeMessage::Hello(hello) => w.put(hello),
        HandshakeMessage::Welcome(welcome) => {
            write_welcome(welcome, w);
            w.bytes(&welcome.mac);
        }
        HandshakeMessage::Confirm(confirm) => {
            w.put(&confirm.time);
            if let Some(mark) = &confirm.mark {
                w.extension(MARK, |w| w.put(mark));
            }
            w.bytes(&confirm.mac);
        }
        HandshakeMessage::LaneHello(hello) => w.put(hello),
        HandshakeMessage::LaneChallenge(challenge) => {
            w.bytes(&challenge.nonce);
            w.bytes(&challenge.mac);
        }
        HandshakeMessage::LaneProof(proof) => w.bytes(&proof.mac),
        HandshakeMessage::Reject(reject) => w.put(reject),
    })
}

pub(super) fn encode_without_mac(welcome: &Welcome) -> Result<Vec<u8>, WireError> {
    let mut bytes = framed(HandshakeKind::Welcome, |w| {
        write_welcome(welcome, w);
        w.bytes(&[0; MAC_LEN]);
    })?;
    bytes.truncate(bytes.len() - MAC_LEN);
    Ok(bytes)
}

/// A prefix, the body that `body` writes, and the body's length in the prefix.
fn framed(kind: HandshakeKind, body: impl FnOnce(&mut Writer<'_>)) -> Result<Vec<u8>, WireError> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(kind.name(), &mut bytes, MAX_HANDSHAKE);
    writer.bytes(&MAGIC);
    writer.u8(kind.code());
    writer.u8(0);
    writer.u16(0);
    body(&mut writer);
    writer.finish()?;
    // At most MAX_HANDSHAKE.
    let len = (bytes.len() - HANDSHAKE_PREFIX_LEN) as u16;
    bytes[HANDSHAKE_PREFIX_LEN - 2..HANDSHAKE_PREFIX_LEN].copy_from_slice(&len.to_le_bytes());
    Ok(bytes)
}

pub(super) fn decode_prefix(
    prefix: &[u8; HANDSHAKE_PREFIX_LEN],
) -> Result<(HandshakeKind, usize), WireError> {
    let mut reader = Reader::new("handshake prefix", prefix);
    if reader.array::<4>("handshake magic")? != MAGIC {
        return Err(WireError::Magic { what: "handshake" });
    }
    let code = reader.u8("handshake message type")?;
    let kind = HandshakeKind::from_code(code)
        .ok_or(WireError::Unknown { what: "handshake message type", value: code.into() })?;
    reader.reserved::<1>("handshake prefix, reserved field")?;
    let len = usize::from(reader.u16("handshake message length")?);
    reader.finish()?;
    check_body(kind, len)?;
    Ok((kind, len))
}

pub(super) fn decode(kind: HandshakeKind, body: &[u8]) -> Result<HandshakeMessage, WireError> {
    check_body(kind, body.len())?;
    let mut reader = Reader::new(kind.name(), body);
    let r = &mut reader;
    let message = match kind {
        HandshakeKind::Hello => HandshakeMessage::Hello(r.get()?),
        HandshakeKind::Welcome => {
            let mac: Mac = r.tail("proof")?;
            HandshakeMessage::Welcome(read_welcome(r, mac)?)
        }
        HandshakeKind::Confirm => {
            let mac = r.tail("proof")?;
            let mut confirm = Confirm { time: r.get()?, mark: None, mac };
            reader.finish_with(|number, value| match number {
                MARK => {
                    confirm.mark = Some(value.get()?);
                    Ok(true)
                }
                _ => Ok(false),
            })?;
            return Ok(HandshakeMessage::Confirm(confirm));
        }
        HandshakeKind::LaneHello => HandshakeMessage::LaneHello(r.get()?),
        HandshakeKind::LaneChallenge => {
            let mac = r.tail("proof")?;
            HandshakeMessage::LaneChallenge(LaneChallenge { nonce: r.array("nonce")?, mac })
        }
        HandshakeKind::LaneProof => {
            HandshakeMessage::LaneProof(LaneProof { mac: r.tail("proof")? })
        }
        HandshakeKind::Reject => HandshakeMessage::Reject(r.get::<Reject>()?),
    };
    reader.finish_extended()?;
    Ok(message)
}

fn check_body(kind: HandshakeKind, len: usize) -> Result<(), WireError> {
    if len > MAX_BODY {
        let (what, value, limit) = (kind.name(), len as u64, MAX_BODY as u64);
        return Err(WireError::Limit { what, value, limit });
    }
    Ok(())
}

/// Its layout is the same in every version, or versions could not be agreed on.
impl Wire for Hello {
    fn write(&self, writer: &mut Writer<'_>) {
        check_versions(self.version_min, self.version_max).unwrap_or_else(|e| writer.fail(e));
        writer.u16(self.version_min);
        writer.u16(self.version_max);
        writer.u64(self.features.bits());
        writer.u8(self.auth.code());
        writer.u8(self.expected.is_some().into());
        writer.put(&self.expected.unwrap_or(EngineId([0; 16])));
        writer.bytes(&self.nonce);
        writer.put(&self.identity);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let (version_min, version_max) =
            (reader.u16("oldest version")?, reader.u16("newest version")?);
        check_versions(version_min, version_max)?;
        let features = Features::from_bits_retain(reader.u64("features")?);
        let code = reader.u8("authentication method")?;
        let auth = AuthMethod::from_code(code)
            .ok_or(WireError::Unknown { what: "authentication method", value: code.into() })?;
        let expects = reader.flag("expected engine")?;
        let expected = if expects {
            Some(reader.get()?)
        } else {
            reader.reserved::<16>("expected engine")?;
            None
        };
        let nonce: Nonce = reader.array("nonce")?;
        let identity = reader.get()?;
        Ok(Self { version_min, version_max, features, auth, identity, expected, nonce })
    }
}

fn check_versions(min: u16, max: u16) -> Result<(), WireError> {
    if min == 0 || min > max {
        return Err(WireError::Value { what: "oldest version", value: min.into() });
    }
    Ok(())
}

fn write_welcome(welcome: &Welcome, writer: &mut Writer<'_>) {
    writer.u16(welcome.version);
    writer.u64(welcome.features.bits());
    writer.bytes(&welcome.nonce);
    writer.put(&welcome.identity);
}

fn read_welcome(reader: &mut Reader<'_>, mac: Mac) -> Result<Welcome, WireError> {
    Ok(Welcome {
        version: reader.u16("version")?,
        features: Features::from_bits_retain(reader.u64("features")?),
        nonce: reader.array("nonce")?,
        identity: reader.get()?,
        mac,
    })
}

impl Wire for Identity {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.put(&self.engine);
        writer.put(&self.incarnation);
        writer.put(&self.time);
        writer.u64(self.notification_window);
        writer.short_text("engine name", &self.name);
        writer.put(&self.addresses);
        match u8::try_from(self.transports.len()) {
            Ok(count) if self.transports.len() <= MAX_TRANSPORTS => writer.u8(count),
            _ => writer.fail(too_many_transports(self.transports.len())),
        }
        for offer in self.transports.iter().take(MAX_TRANSPORTS) {
            writer.u8(offer.code);
            writer.u16(offer.operations.bits());
        }
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            engine: reader.get()?,
            incarnation: reader.get()?,
            time: reader.get()?,
            notification_window: reader.u64("notification window")?,
            name: Arc::from(reader.short_text("engine name")?),
            addresses: reader.get()?,
            transports: read_transports(reader)?,
        })
    }
}

/// Transports and operations that are not known here are kept: they are never chosen.
fn read_transports(reader: &mut Reader<'_>) -> Result<Vec<TransportOffer>, WireError> {
    let count = usize::from(reader.u8("transports")?);
    if count > MAX_TRANSPORTS {
        return Err(too_many_transports(count));
    }
    let mut offers = Vec::new();
    for _ in 0..count {
        let code = reader.u8("transport")?;
        let operations = Operations::from_bits_retain(reader.u16("transport operations")?);
        offers.push(TransportOffer { code, operations });
    }
    Ok(offers)
}

fn too_many_transports(count: usize) -> WireError {
    let (value, limit) = (count as u64, MAX_TRANSPORTS as u64);
    WireError::Limit { what: "transports", value, limit }
}

impl Wire for Mark {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.put(&self.association);
        writer.bytes(&self.own);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { association: reader.get()?, own: reader.array("proof of the own metadata")? })
    }
}

impl Wire for LaneHello {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.put(&self.engine);
        writer.put(&self.association);
        writer.put(&self.peer_association);
        writer.put(&self.lane);
        writer.u8(self.transport);
        writer.bytes(&self.nonce);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            engine: reader.get()?,
            association: reader.get()?,
            peer_association: reader.get()?,
            lane: reader.get()?,
            transport: reader.u8("transport")?,
            nonce: reader.array("nonce")?,
        })
    }
}
