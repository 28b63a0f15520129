//! Why a handshake was refused, as a number with details (PROTOCOL 3.7).

use super::{AuthMethod, Reject};
use crate::error::HandshakeError;
use crate::wire::WireError;
use crate::wire::codec::{Reader, Wire, Writer};

/// The name of a method that is not known here.
const UNKNOWN_METHOD: &str = "a method that is not known here";

/// The listener writes its own point of view.
impl Wire for Reject {
    fn write(&self, writer: &mut Writer<'_>) {
        writer.u16(code(&self.reason));
        match &self.reason {
            HandshakeError::Version { ours_min, ours_max, theirs_min, theirs_max } => {
                for version in [ours_min, ours_max, theirs_min, theirs_max] {
                    writer.u16(*version);
                }
            }
            HandshakeError::Method { ours, theirs } => {
                for method in [ours, theirs] {
                    writer.u8(AuthMethod::from_name(method).map_or(u8::MAX, AuthMethod::code));
                }
            }
            HandshakeError::WrongEngine { expected, found } => {
                writer.put(expected);
                writer.put(found);
            }
            _ => {}
        }
    }

    /// The dialer reads it from the other end: what is "ours" there is "theirs" here. The details
    /// of a reason that this version does not know stay unread.
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let reason = match reader.u16("reject code")? {
            1 => HandshakeError::NotKvx,
            2 => HandshakeError::Malformed(WireError::Reported),
            3 => HandshakeError::Version {
                theirs_min: reader.u16("reject, versions")?,
                theirs_max: reader.u16("reject, versions")?,
                ours_min: reader.u16("reject, versions")?,
                ours_max: reader.u16("reject, versions")?,
            },
            4 => HandshakeError::Method { theirs: method(reader)?, ours: method(reader)? },
            5 => HandshakeError::WrongKey,
            6 => HandshakeError::WrongEngine { expected: reader.get()?, found: reader.get()? },
            7 => HandshakeError::SameEngine,
            8 => HandshakeError::Duplicate,
            9 => HandshakeError::NameTaken,
            10 => HandshakeError::NoControl,
            11 => HandshakeError::Busy,
            12 => HandshakeError::ShuttingDown,
            13 => HandshakeError::Ended,
            14 => HandshakeError::Timeout,
            code => {
                reader.skip();
                let value = code.into();
                HandshakeError::Malformed(WireError::Unknown { what: "reject code", value })
            }
        };
        Ok(Self { reason })
    }
}

fn code(reason: &HandshakeError) -> u16 {
    match reason {
        HandshakeError::NotKvx => 1,
        HandshakeError::Malformed(_) => 2,
        HandshakeError::Version { .. } => 3,
        HandshakeError::Method { .. } => 4,
        HandshakeError::WrongKey => 5,
        HandshakeError::WrongEngine { .. } => 6,
        HandshakeError::SameEngine => 7,
        HandshakeError::Duplicate => 8,
        HandshakeError::NameTaken => 9,
        HandshakeError::NoControl => 10,
        HandshakeError::Busy => 11,
        HandshakeError::ShuttingDown => 12,
        HandshakeError::Ended => 13,
        HandshakeError::Timeout => 14,
    }
}

fn method(reader: &mut Reader<'_>) -> Result<&'static str, WireError> {
    let code = reader.u8("reject, methods")?;
    Ok(AuthMethod::from_code(code).map_or(UNKNOWN_METHOD, AuthMethod::name))
}
