//! Bounded reading and writing of little-endian fields: what every format here is made of.
//! No format is described here.

mod ids;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub(crate) use reader::Reader;
pub(crate) use writer::Writer;

use crate::wire::WireError;

/// The bit of a tag that says: whoever does not know this extension must not go on
/// (PROTOCOL 2.2).
const REQUIRED: u16 = 0x8000;

/// Bytes of an extension before its value: tag, reserved, length.
const EXTENSION_HEADER_LEN: usize = 8;

/// What can be written to and read from the wire.
pub(crate) trait Wire: Sized {
    /// Appends the value. Failures stay in the writer until [`Writer::finish`].
    fn write(&self, writer: &mut Writer<'_>);

    /// Takes a value off the front.
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError>;
}
