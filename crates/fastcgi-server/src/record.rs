//! Records, which make up all bytes of a connection (FastCGI 1.0, 3.3 and 8).
//!
//! This module has the header only. `bodies`, `pairs` and the two connections interpret the
//! content.

use std::{error, fmt, num::NonZeroU16};

/// The version of the protocol that every record names in its first byte (FastCGI 1.0, 8:
/// `FCGI_VERSION_1`).
pub const VERSION_1: u8 = 1;

/// The request id of management records on the wire (FastCGI 1.0, 3.3 and 8:
/// `FCGI_NULL_REQUEST_ID`).
///
/// [`Header`] has `None` for this id, so that no application record can be written with the id 0.
pub const NULL_REQUEST_ID: u16 = 0;

/// Maximum length of a record's content in bytes (FastCGI 1.0, 3.3).
pub const MAX_CONTENT: usize = 0xffff;

/// Maximum length of a record's padding in bytes (FastCGI 1.0, 3.3).
pub const MAX_PADDING: usize = 0xff;

/// Identifies a request on its connection: a number from 1 to 65535, which the web server may reuse
/// (FastCGI 1.0, 3.3, "Managing Request IDs").
pub type RequestId = NonZeroU16;

/// The type of a record (FastCGI 1.0, 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordType {
    /// `FCGI_BEGIN_REQUEST`: the web server starts a request (5.1).
    BeginRequest,
    /// `FCGI_ABORT_REQUEST`: the web server aborts a request (5.4).
    AbortRequest,
    /// `FCGI_END_REQUEST`: the application has ended or refused a request (5.5).
    EndRequest,
    /// `FCGI_PARAMS`: stream of name-value pairs to the application (5.2).
    Params,
    /// `FCGI_STDIN`: stream of the request's body to the application (5.3).
    Stdin,
    /// `FCGI_STDOUT`: stream of the response to the web server (5.3).
    Stdout,
    /// `FCGI_STDERR`: stream of messages to the web server's log (5.3).
    Stderr,
    /// `FCGI_DATA`: stream of a filter's file (5.3, 6.4), which [`Connection`](crate::Connection)
    /// ignores.
    Data,
    /// `FCGI_GET_VALUES`: the web server asks for the application's limits (4.1).
    GetValues,
    /// `FCGI_GET_VALUES_RESULT`: the response to `FCGI_GET_VALUES` (4.1).
    GetValuesResult,
    /// `FCGI_UNKNOWN_TYPE`: the application does not know a management record's type (4.2).
    UnknownType,
    /// A number that this version of the protocol does not define.
    Other(u8),
}

/// The first eight bytes of a record (FastCGI 1.0, 3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The type of the record.
    pub record_type: RecordType,
    /// The request of the record; `None` in a management record, which belongs to no request.
    pub request_id: Option<RequestId>,
    /// Length of the content after the header in bytes.
    pub content_length: u16,
    /// Length of the padding after the content in bytes.
    pub padding_length: u8,
}

/// A record has another protocol version than [`VERSION_1`].
///
/// Another version may have another layout of records, so no later byte can be read. Close the
/// connection and log the reason (FastCGI 1.0, 3.3 and 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownVersion(
    /// The version of the record.
    pub u8,
);

impl RecordType {
    /// The name that the specification gives the type; `None` for [`RecordType::Other`].
    pub const fn name(self) -> Option<&'static str> {
        Some(match self {
            Self::BeginRequest => "FCGI_BEGIN_REQUEST",
            Self::AbortRequest => "FCGI_ABORT_REQUEST",
            Self::EndRequest => "FCGI_END_REQUEST",
            Self::Params => "FCGI_PARAMS",
            Self::Stdin => "FCGI_STDIN",
            Self::Stdout => "FCGI_STDOUT",
            Self::Stderr => "FCGI_STDERR",
            Self::Data => "FCGI_DATA",
            Self::GetValues => "FCGI_GET_VALUES",
            Self::GetValuesResult => "FCGI_GET_VALUES_RESULT",
            Self::UnknownType => "FCGI_UNKNOWN_TYPE",
            Self::Other(_) => return None,
        })
    }

    /// The number of the type on the wire.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::BeginRequest => 1,
            Self::AbortRequest => 2,
            Self::EndRequest => 3,
            Self::Params => 4,
            Self::Stdin => 5,
            Self::Stdout => 6,
            Self::Stderr => 7,
            Self::Data => 8,
            Self::GetValues => 9,
            Self::GetValuesResult => 10,
            Self::UnknownType => 11,
            Self::Other(number) => number,
        }
    }

    /// The type with this number; [`RecordType::Other`] if the protocol does not define it.
    pub const fn from_byte(number: u8) -> Self {
        match number {
            1 => Self::BeginRequest,
            2 => Self::AbortRequest,
            3 => Self::EndRequest,
            4 => Self::Params,
            5 => Self::Stdin,
            6 => Self::Stdout,
            7 => Self::Stderr,
            8 => Self::Data,
            9 => Self::GetValues,
            10 => Self::GetValuesResult,
            11 => Self::UnknownType,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type {}", self.to_byte()),
        }
    }
}

impl Header {
    /// Length of a header in bytes (FastCGI 1.0, 8: `FCGI_HEADER_LEN`).
    pub const LEN: usize = 8;

    /// Header of a record without padding.
    pub const fn new(
        record_type: RecordType,
        request_id: Option<RequestId>,
        content_length: u16,
    ) -> Self {
        Self { record_type, request_id, content_length, padding_length: 0 }
    }

    /// Reads a header. The reserved byte may hold anything.
    ///
    /// # Errors
    ///
    /// [`UnknownVersion`] if the first byte is not [`VERSION_1`].
    pub const fn from_bytes(bytes: &[u8; Self::LEN]) -> Result<Self, UnknownVersion> {
        let [version, record_type, id1, id0, length1, length0, padding_length, _reserved] = *bytes;
        if version != VERSION_1 {
            return Err(UnknownVersion(version));
        }
        Ok(Self {
            record_type: RecordType::from_byte(record_type),
            request_id: RequestId::new(u16::from_be_bytes([id1, id0])),
            content_length: u16::from_be_bytes([length1, length0]),
            padding_length,
        })
    }

    /// The header on the wire.
    pub const fn to_bytes(&self) -> [u8; Self::LEN] {
        let [id1, id0] = match self.request_id {
            Some(id) => id.get().to_be_bytes(),
            None => NULL_REQUEST_ID.to_be_bytes(),
        };
        let [length1, length0] = self.content_length.to_be_bytes();
        [VERSION_1, self.record_type.to_byte(), id1, id0, length1, length0, self.padding_length, 0]
    }
}

impl fmt::Display for UnknownVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "a record of protocol version `{}` where only version `{VERSION_1}` is known",
            self.0
        )
    }
}

impl error::Error for UnknownVersion {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f06_a_header_is_version_type_id_content_length_padding_length_reserved() {
        let header = Header {
            record_type: RecordType::Stdin,
            request_id: RequestId::new(0x0102),
            content_length: 0x0304,
            padding_length: 5,
        };
        assert_eq!(header.to_bytes(), [1, 5, 1, 2, 3, 4, 5, 0]);
        assert_eq!(Header::from_bytes(&[1, 5, 1, 2, 3, 4, 5, 0xff]), Ok(header));
    }

    #[test]
    fn f06_lengths_reach_from_nothing_to_65535_and_255() {
        for (content_length, padding_length) in [(0, 0), (0xffff, 0xff)] {
            let header = Header {
                record_type: RecordType::Params,
                request_id: RequestId::new(1),
                content_length,
                padding_length,
            };
            assert_eq!(Header::from_bytes(&header.to_bytes()), Ok(header));
        }
    }

    #[test]
    fn f09_any_other_version_is_refused_by_its_number() {
        for version in (0..=0xff).filter(|version| *version != VERSION_1) {
            assert_eq!(
                Header::from_bytes(&[version, 1, 0, 1, 0, 8, 0, 0]),
                Err(UnknownVersion(version))
            );
        }
        assert_eq!(
            UnknownVersion(71).to_string(),
            "a record of protocol version `71` where only version `1` is known"
        );
    }

    #[test]
    fn f12_every_id_from_1_to_65535_comes_back_as_it_went() {
        for id in 1..=0xffff {
            let header = Header::new(RecordType::Stdout, RequestId::new(id), 0);
            assert_eq!(
                Header::from_bytes(&header.to_bytes()).map(|read| read.request_id),
                Ok(RequestId::new(id))
            );
        }
    }

    #[test]
    fn f13_id_0_is_the_id_of_no_request() {
        let header = Header::new(RecordType::GetValues, None, 0);
        assert_eq!(header.to_bytes(), [1, 9, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Header::from_bytes(&header.to_bytes()).map(|read| read.request_id), Ok(None));
    }

    #[test]
    fn every_type_has_its_number_and_only_the_eleven_have_names() {
        for number in 0..=0xff {
            let record_type = RecordType::from_byte(number);
            assert_eq!(record_type.to_byte(), number);
            assert_eq!(record_type.name().is_some(), (1..=11).contains(&number));
        }
        assert_eq!(RecordType::Stdin.to_string(), "FCGI_STDIN");
        assert_eq!(RecordType::Other(122).to_string(), "type 122");
    }
}
