//! The bodies of control messages, type by type (PROTOCOL 4.3).

use bytes::Bytes;

use super::{
    DirectoryEntry, Grant, MAX_BODY, MAX_GRANT_BLOCKS, MAX_GRANT_SLOTS, MAX_LISTED_REGIONS,
    MAX_NOTIFY_PART, MAX_OPEN_REGIONS, MAX_PAYLOAD, MAX_REASON, MAX_SLOTS_CLOSED, Message,
    OpenRegion, RankKey, RegionOpened,
};
use crate::error::Refusal;
use crate::id::Slot;
use crate::layout::Layout;
use crate::wire::WireError;
use crate::wire::codec::{Reader, Wire, Writer};
use crate::wire::metadata::RegionDescription;

pub(super) fn encode(message: &Message, out: &mut Vec<u8>) -> Result<(), WireError> {
    let mut w = Writer::new(message.name(), out, MAX_BODY);
    match message {
        Message::Resume { own, peer } => {
            w.put(own);
            w.put(peer);
        }
        Message::Acknowledge | Message::Goodbye | Message::ListRegions => {}
        Message::Heartbeat { time } => w.put(time),
        Message::HeartbeatReply { echo, time } => {
            w.put(echo);
            w.put(time);
        }
        Message::OpenRegions(regions) => {
            w.list("regions to open", regions, MAX_OPEN_REGIONS, |w, region| w.put(region));
        }
        Message::RegionsOpened(regions) => {
            w.list("opened regions", regions, MAX_OPEN_REGIONS, |w, region| w.put(region));
        }
        Message::SlotsClosed(slots) => {
            w.column("closed slots", slots, MAX_SLOTS_CLOSED, |slot| slot.0);
        }
        Message::LaneRetired { lane, processed } => {
            w.put(lane);
            w.u64(*processed);
        }
        Message::Refused { lane, frame, transfer, refusal } => {
            w.put(lane);
            w.u64(*frame);
            w.put(transfer);
            w.put(refusal);
        }
        Message::ReadFailed { transfer, refusal } => {
            w.put(transfer);
            w.put(refusal);
        }
        Message::Cancel { transfer } | Message::Fenced { transfer } => w.put(transfer),
        Message::Notify { after, more, bytes } => {
            let what = "notification part that more follow";
            check_part(what, *more, bytes.len()).unwrap_or_else(|error| w.fail(error));
            w.put(after);
            w.u8((*more).into());
            w.blob("notification part", bytes, MAX_NOTIFY_PART);
        }
        Message::NotificationCredit { consumed } => w.u64(*consumed),
        Message::Grant(grant) => w.put(&**grant),
        Message::GrantBlocks { grant, blocks } => {
            w.put(grant);
            w.column("block ids", blocks, MAX_GRANT_BLOCKS, |block| *block);
        }
        Message::Layers { transfer, grant, first, count } => {
            check_range("layers", *first, *count).unwrap_or_else(|error| w.fail(error));
            w.put(transfer);
            w.put(grant);
            w.u32(*first);
            w.u32(*count);
        }
        Message::SessionEnd { grant, writes, payload } => {
            w.put(grant);
            w.u64(*writes);
            w.blob("session payload", payload, MAX_PAYLOAD);
        }
        Message::SessionAbort { session, grant, by_receiver, reason } => {
            w.put(session);
            w.put(grant);
            w.u8((*by_receiver).into());
            w.blob("abort reason", reason.as_bytes(), MAX_REASON);
        }
        Message::DirectoryPut { rank, entry } => {
            w.put(rank);
            w.put(entry);
        }
        Message::DirectoryGet { request, rank, wait_ms } => {
            w.u64(*request);
            w.put(rank);
            w.u32(*wait_ms);
        }
        Message::DirectoryAnswer { request, entry } => {
            w.u64(*request);
            w.u8(entry.is_some().into());
            if let Some(entry) = entry {
                w.put(entry);
            }
        }
        Message::ReadExpired { transfer, first, count } => {
            check_range("expired runs", *first, *count).unwrap_or_else(|error| w.fail(error));
            w.put(transfer);
            w.u32(*first);
            w.u32(*count);
        }
        Message::RegionsListed { more, regions } => {
            let what = "listed regions that more follow";
            check_part(what, *more, regions.len()).unwrap_or_else(|error| w.fail(error));
            w.u8((*more).into());
            w.list("listed regions", regions, MAX_LISTED_REGIONS, |w, region| w.put(region));
        }
    }
    w.finish()
}

pub(super) fn decode(kind: u16, body: &Bytes) -> Result<Message, WireError> {
    let unknown = WireError::Unknown { what: "message type", value: kind.into() };
    let what = Message::name_of(kind).ok_or(unknown)?;
    if body.len() > MAX_BODY {
        let (value, limit) = (body.len() as u64, MAX_BODY as u64);
        return Err(WireError::Limit { what, value, limit });
    }
    let mut reader = Reader::new(what, body);
    let r = &mut reader;
    let message = match kind {
        1 => Message::Resume { own: r.get()?, peer: r.get()? },
        2 => Message::Heartbeat { time: r.get()? },
        3 => Message::HeartbeatReply { echo: r.get()?, time: r.get()? },
        4 => Message::Acknowledge,
        5 => Message::Goodbye,
        16 => Message::OpenRegions(r.list(
            "regions to open",
            OpenRegion::LEN,
            MAX_OPEN_REGIONS,
            Reader::get,
        )?),
        17 => Message::RegionsOpened(r.list(
            "opened regions",
            RegionOpened::LEN,
            MAX_OPEN_REGIONS,
            Reader::get,
        )?),
        18 => Message::SlotsClosed(r.column("closed slots", MAX_SLOTS_CLOSED, Slot)?),
        19 => Message::LaneRetired { lane: r.get()?, processed: r.u64("processed frames")? },
        20 => Message::Refused {
            lane: r.get()?,
            frame: r.u64("refused frame")?,
            transfer: r.get()?,
            refusal: r.get()?,
        },
        21 => Message::ReadFailed { transfer: r.get()?, refusal: r.get()? },
        22 => Message::Cancel { transfer: r.get()? },
        23 => Message::Fenced { transfer: r.get()? },
        24 => read_notify(r, body)?,
        25 => Message::NotificationCredit { consumed: r.u64("consumed notification bytes")? },
        26 => Message::Grant(Box::new(r.get()?)),
        27 => Message::GrantBlocks {
            grant: r.get()?,
            blocks: r.column("block ids", MAX_GRANT_BLOCKS, |block| block)?,
        },
        28 => read_layers(r)?,
        29 => Message::SessionEnd {
            grant: r.get()?,
            writes: r.u64("session writes")?,
            payload: keep(body, r.blob("session payload", MAX_PAYLOAD)?),
        },
        30 => Message::SessionAbort {
            session: r.get()?,
            grant: r.get()?,
            by_receiver: r.flag("aborting side")?,
            reason: read_reason(r)?,
        },
        31 => Message::DirectoryPut { rank: r.get()?, entry: r.get()? },
        32 => Message::DirectoryGet {
            request: r.u64("directory request")?,
            rank: r.get()?,
            wait_ms: r.u32("directory wait")?,
        },
        33 => Message::DirectoryAnswer {
            request: r.u64("directory request")?,
            entry: if r.flag("directory answer")? { Some(r.get()?) } else { None },
        },
        34 => read_expired(r)?,
        35 => Message::ListRegions,
        36 => read_listed(r)?,
        _ => return Err(unknown),
    };
    reader.finish_extended()?;
    Ok(message)
}

fn read_notify(r: &mut Reader<'_>, body: &Bytes) -> Result<Message, WireError> {
    let after = r.get()?;
    let more = r.flag("notification continues")?;
    let bytes = keep(body, r.blob("notification part", MAX_NOTIFY_PART)?);
    check_part("notification part that more follow", more, bytes.len())?;
    Ok(Message::Notify { after, more, bytes })
}

fn read_listed(r: &mut Reader<'_>) -> Result<Message, WireError> {
    let more = r.flag("list of regions continues")?;
    let regions =
        r.list("listed regions", RegionDescription::LEN, MAX_LISTED_REGIONS, Reader::get)?;
    check_part("listed regions that more follow", more, regions.len())?;
    Ok(Message::RegionsListed { more, regions })
}

/// Bytes of a body besides the part of it that is kept, at most: more is not kept with it.
const MAX_BESIDE: usize = 64;

/// A part of a body, without a copy where little stands beside it. Extensions that nobody knows may
/// make a body a thousand times as long as its part, and whoever keeps the part must not keep them.
fn keep(body: &Bytes, part: &[u8]) -> Bytes {
    if body.len() - part.len() > MAX_BESIDE {
        return Bytes::copy_from_slice(part);
    }
    body.slice_ref(part)
}

/// An empty part that more follow costs nothing of what bounds the whole: a peer could send them
/// for ever.
fn check_part(what: &'static str, more: bool, len: usize) -> Result<(), WireError> {
    if more && len == 0 {
        return Err(WireError::Value { what, value: 0 });
    }
    Ok(())
}

fn read_layers(r: &mut Reader<'_>) -> Result<Message, WireError> {
    let (transfer, grant) = (r.get()?, r.get()?);
    let (first, count) = (r.u32("first layer")?, r.u32("layers")?);
    check_range("layers", first, count)?;
    Ok(Message::Layers { transfer, grant, first, count })
}

fn read_expired(r: &mut Reader<'_>) -> Result<Message, WireError> {
    let transfer = r.get()?;
    let (first, count) = (r.u32("first expired run")?, r.u32("expired runs")?);
    check_range("expired runs", first, count)?;
    Ok(Message::ReadExpired { transfer, first, count })
}

fn check_range(what: &'static str, first: u32, count: u32) -> Result<(), WireError> {
    if count == 0 || first.checked_add(count).is_none() {
        return Err(WireError::Value { what, value: count.into() });
    }
    Ok(())
}

fn read_reason(r: &mut Reader<'_>) -> Result<String, WireError> {
    let what = "abort reason";
    let bytes = r.blob(what, MAX_REASON)?;
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| WireError::Utf8 { what })
}

impl OpenRegion {
    const LEN: usize = 24;
}

impl Wire for OpenRegion {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.put(&self.region);
        writer.put(&self.key);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { region: reader.get()?, key: reader.get()? })
    }
}

impl RegionOpened {
    const LEN: usize = 14;
}

/// A refusal of 0 stands for none; a refused region's slot is 0.
impl Wire for RegionOpened {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.put(&self.region);
        writer.put(&self.slot.unwrap_or(Slot(0)));
        writer.u16(self.slot.err().map_or(0, Refusal::code));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let region = reader.get()?;
        let slot: Slot = reader.get()?;
        let code = reader.u16("refusal")?;
        let slot = match Refusal::from_code(code) {
            None if code == 0 => Ok(slot),
            None => {
                return Err(WireError::Unknown { what: "refusal", value: code.into() });
            }
            Some(refusal) if slot == Slot(0) => Err(refusal),
            Some(_) => {
                let value = slot.0.into();
                return Err(WireError::Value { what: "slot of a refused region", value });
            }
        };
        Ok(Self { region, slot })
    }
}

impl Wire for Grant {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.put(&self.grant);
        writer.put(&self.session);
        writer.u32(self.tokens);
        writer.u32(self.total_blocks);
        check_pools(&self.layout, &self.slots).unwrap_or_else(|error| writer.fail(error));
        writer.part(|writer| writer.put(&self.layout));
        writer.column("slots of a grant", &self.slots, MAX_GRANT_SLOTS, |slot| slot.0);
        writer.column("block ids", &self.blocks, MAX_GRANT_BLOCKS, |block| *block);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let grant = reader.get()?;
        let session = reader.get()?;
        let tokens = reader.u32("tokens of a grant")?;
        let total_blocks = reader.u32("blocks of a grant")?;
        let mut part = reader.part("layout")?;
        let layout: Layout = part.get()?;
        part.finish_extended()?;
        let slots = reader.column("slots of a grant", MAX_GRANT_SLOTS, Slot)?;
        check_pools(&layout, &slots)?;
        let blocks = reader.column("block ids", MAX_GRANT_BLOCKS, |block| block)?;
        if blocks.len() > total_blocks as usize {
            let (value, limit) = (blocks.len() as u64, total_blocks.into());
            return Err(WireError::Limit { what: "block ids", value, limit });
        }
        Ok(Self { grant, session, layout, slots, tokens, total_blocks, blocks })
    }
}

/// Every pool lies in a region that has a slot: the sender's frames name it by that.
fn check_pools(layout: &Layout, slots: &[Slot]) -> Result<(), WireError> {
    let beyond = layout.pools.iter().find(|pool| pool.region as usize >= slots.len());
    beyond.map_or(Ok(()), |pool| {
        Err(WireError::Value { what: "region of a pool", value: pool.region.into() })
    })
}

impl Wire for RankKey {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.short_text("instance", &self.instance);
        writer.u32(self.dp);
        writer.u32(self.pp);
        writer.u32(self.tp);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            instance: reader.short_text("instance")?.to_owned(),
            dp: reader.u32("data-parallel rank")?,
            pp: reader.u32("pipeline-parallel rank")?,
            tp: reader.u32("tensor-parallel rank")?,
        })
    }
}

impl Wire for DirectoryEntry {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.put(&self.engine);
        writer.put(&self.addresses);
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { engine: reader.get()?, addresses: reader.get()? })
    }
}
