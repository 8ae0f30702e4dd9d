//! The exceptions that the interface declares.

use bytes::Bytes;

use super::codec::{Error, Reader, Wire, Writer};
use super::value::Value;
use crate::thrift_struct;

thrift_struct! {
    pub struct NamespaceNotFound {}
    pub struct MachineNotFound {}
    pub struct MachineAlreadyExists {}
    pub struct MachineFailed {}
    pub struct MachineAlreadyWorking {}
    pub struct EventNotFound {}
    pub struct EventSinkNotFound {}
    pub struct RepairFailed {
        1 => reason: required Value,
    }
    pub struct InvalidRequest {
        1 => errors: required Vec<Bytes>,
    }
}

/// Any of them. The name is what `woody.error-reason` carries.
#[derive(Clone, Debug, PartialEq)]
pub enum Exception {
    NamespaceNotFound,
    MachineNotFound,
    MachineAlreadyExists,
    MachineFailed,
    MachineAlreadyWorking,
    EventNotFound,
    EventSinkNotFound,
    RepairFailed(Value),
    InvalidRequest(Vec<Bytes>),
}

// === impl Exception ===

impl Exception {
    pub fn name(&self) -> &'static str {
        match self {
            Self::NamespaceNotFound => "NamespaceNotFound",
            Self::MachineNotFound => "MachineNotFound",
            Self::MachineAlreadyExists => "MachineAlreadyExists",
            Self::MachineFailed => "MachineFailed",
            Self::MachineAlreadyWorking => "MachineAlreadyWorking",
            Self::EventNotFound => "EventNotFound",
            Self::EventSinkNotFound => "EventSinkNotFound",
            Self::RepairFailed(_) => "RepairFailed",
            Self::InvalidRequest(_) => "InvalidRequest",
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        match self {
            Self::RepairFailed(reason) => RepairFailed { reason: reason.clone() }.write(writer),
            Self::InvalidRequest(errors) => InvalidRequest { errors: errors.clone() }.write(writer),
            _ => writer.stop(),
        }
    }

    /// Reads the exception that a method declares by `name`.
    pub(super) fn read(name: &str, reader: &mut Reader) -> Result<Self, Error> {
        if name == "RepairFailed" {
            return Ok(Self::RepairFailed(RepairFailed::read(reader)?.reason));
        }
        if name == "InvalidRequest" {
            return Ok(Self::InvalidRequest(InvalidRequest::read(reader)?.errors));
        }
        NamespaceNotFound::read(reader)?;
        Ok(match name {
            "NamespaceNotFound" => Self::NamespaceNotFound,
            "MachineNotFound" => Self::MachineNotFound,
            "MachineAlreadyExists" => Self::MachineAlreadyExists,
            "MachineFailed" => Self::MachineFailed,
            "MachineAlreadyWorking" => Self::MachineAlreadyWorking,
            "EventNotFound" => Self::EventNotFound,
            "EventSinkNotFound" => Self::EventSinkNotFound,
            _ => return Err(Error::Union { of: "exception", found: "none that is known" }),
        })
    }
}
