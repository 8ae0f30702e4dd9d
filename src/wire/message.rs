//! The envelope of a message: version, type, method name, sequence number.

use bytes::Bytes;

use super::codec::{Error, Reader, Writer};

const VERSION: u32 = 0x8001_0000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageType {
    Call = 1,
    Reply = 2,
    Exception = 3,
    Oneway = 4,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub kind: MessageType,
    /// The method's name as raw bytes.
    pub name: Bytes,
    /// Echoed in the reply as it came.
    pub seqid: i32,
}

/// Why an envelope was refused. The texts are what the peers know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    #[error("thrift: no binary protocol version")]
    NotStrict,
    #[error("thrift: bad binary protocol version: {0}")]
    Version(i32),
    #[error("thrift: unknown message type: {0}")]
    Type(u8),
    #[error("thrift decode error: {0}")]
    Malformed(#[from] Error),
}

// === impl Header ===

impl Header {
    pub fn read(reader: &mut Reader) -> Result<Self, HeaderError> {
        let word = reader.i32()?;
        if word >= 0 {
            return Err(HeaderError::NotStrict);
        }
        // Only the upper half is the version: peers ignore the byte above the message type.
        if word as u32 & 0xffff_0000 != VERSION {
            return Err(HeaderError::Version(word));
        }
        let kind = match word as u8 {
            1 => MessageType::Call,
            2 => MessageType::Reply,
            3 => MessageType::Exception,
            4 => MessageType::Oneway,
            other => return Err(HeaderError::Type(other)),
        };
        Ok(Self { kind, name: reader.string()?, seqid: reader.i32()? })
    }

    pub fn write(kind: MessageType, name: &[u8], seqid: i32, writer: &mut Writer) {
        writer.i32((VERSION | kind as u32) as i32);
        writer.string(name);
        writer.i32(seqid);
    }
}
