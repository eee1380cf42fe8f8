//! Contents of the records with a fixed layout, and their numbers (FastCGI 1.0, 4.2, 5.1, 5.5, 8).
//!
//! Each type has `LEN`, `from_bytes` and `to_bytes`. Each content is eight bytes, and any eight
//! bytes are a valid content.

use std::fmt;

/// The task of the application in a request (FastCGI 1.0, 6).
///
/// `FCGI_FILTER` (6.4) is missing, because no web server sends this role. A request for a filter is
/// refused with [`ProtocolStatus::UnknownRole`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// `FCGI_RESPONDER`: the application answers a request, as a CGI program does (6.2).
    Responder,
    /// `FCGI_AUTHORIZER`: the application allows a request, or responds with the reason for refusal
    /// (6.3). An authorizer gets parameters and no request body. A response with status 200 allows
    /// the request, and its `Variable-` headers become variables of the request.
    Authorizer,
}

/// Bits of `FCGI_BEGIN_REQUEST` (FastCGI 1.0, 5.1). Undefined bits are kept and ignored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(
    /// The byte on the wire.
    pub u8,
);

/// Content of `FCGI_BEGIN_REQUEST` (FastCGI 1.0, 5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeginRequest {
    /// Number of the role, which may be unknown; see [`BeginRequest::role`].
    pub role_number: u16,
    /// Does the connection stay open after the request?
    pub flags: Flags,
}

/// How a request ended (FastCGI 1.0, 5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProtocolStatus {
    /// `FCGI_REQUEST_COMPLETE`: the request ended normally.
    RequestComplete,
    /// `FCGI_CANT_MPX_CONN`: refused, because another request on the same connection is still
    /// active.
    CantMpxConn,
    /// `FCGI_OVERLOADED`: refused, because the application lacks a resource.
    Overloaded,
    /// `FCGI_UNKNOWN_ROLE`: refused, because the application does not support the role.
    UnknownRole,
    /// A number that this version of the protocol does not define.
    Other(u8),
}

/// Content of `FCGI_END_REQUEST` (FastCGI 1.0, 5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndRequest {
    /// The status with which a CGI program would have exited (6.2); 0 is success.
    pub app_status: u32,
    /// How the request ended.
    pub protocol_status: ProtocolStatus,
}

/// Content of `FCGI_UNKNOWN_TYPE` (FastCGI 1.0, 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownType {
    /// The unknown record type.
    pub record_type: u8,
}

impl Role {
    /// The role with this number; `None` if the number is unknown.
    pub const fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Responder),
            2 => Some(Self::Authorizer),
            _ => None,
        }
    }

    /// The number of the role on the wire.
    pub const fn to_number(self) -> u16 {
        match self {
            Self::Responder => 1,
            Self::Authorizer => 2,
        }
    }

    /// Does the role get a request body on `FCGI_STDIN`?
    pub const fn has_stdin(self) -> bool {
        matches!(self, Self::Responder)
    }
}

impl Flags {
    /// `FCGI_KEEP_CONN`: the application leaves the connection open after the request.
    pub const KEEP_CONN: Self = Self(1);

    /// Is `FCGI_KEEP_CONN` set? If not, the application closes the connection after the request.
    pub const fn keep_connection(self) -> bool {
        self.0 & Self::KEEP_CONN.0 != 0
    }
}

impl BeginRequest {
    /// Length of the content in bytes.
    pub const LEN: usize = 8;

    /// Content of a request for `role`, with `FCGI_KEEP_CONN` if `keep_connection` is true.
    pub const fn new(role: Role, keep_connection: bool) -> Self {
        let flags = if keep_connection { Flags::KEEP_CONN } else { Flags(0) };
        Self { role_number: role.to_number(), flags }
    }

    /// The role, if its number is known.
    pub const fn role(&self) -> Option<Role> {
        Role::from_number(self.role_number)
    }

    /// Reads the content. The reserved bytes may hold anything.
    pub const fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let [role1, role0, flags, ..] = *bytes;
        Self { role_number: u16::from_be_bytes([role1, role0]), flags: Flags(flags) }
    }

    /// The content on the wire.
    pub const fn to_bytes(&self) -> [u8; Self::LEN] {
        let [role1, role0] = self.role_number.to_be_bytes();
        [role1, role0, self.flags.0, 0, 0, 0, 0, 0]
    }
}

impl ProtocolStatus {
    /// The status with this number; [`ProtocolStatus::Other`] if the protocol does not define it.
    pub const fn from_byte(number: u8) -> Self {
        match number {
            0 => Self::RequestComplete,
            1 => Self::CantMpxConn,
            2 => Self::Overloaded,
            3 => Self::UnknownRole,
            other => Self::Other(other),
        }
    }

    /// The number of the status on the wire.
    pub const fn to_byte(self) -> u8 {
        match self {
            Self::RequestComplete => 0,
            Self::CantMpxConn => 1,
            Self::Overloaded => 2,
            Self::UnknownRole => 3,
            Self::Other(number) => number,
        }
    }
}

impl fmt::Display for ProtocolStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestComplete => f.write_str("FCGI_REQUEST_COMPLETE"),
            Self::CantMpxConn => f.write_str("FCGI_CANT_MPX_CONN"),
            Self::Overloaded => f.write_str("FCGI_OVERLOADED"),
            Self::UnknownRole => f.write_str("FCGI_UNKNOWN_ROLE"),
            Self::Other(number) => write!(f, "status {number}"),
        }
    }
}

impl EndRequest {
    /// Length of the content in bytes.
    pub const LEN: usize = 8;

    /// Reads the content. The reserved bytes may hold anything.
    pub const fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let [status3, status2, status1, status0, protocol_status, ..] = *bytes;
        Self {
            app_status: u32::from_be_bytes([status3, status2, status1, status0]),
            protocol_status: ProtocolStatus::from_byte(protocol_status),
        }
    }

    /// The content on the wire.
    pub const fn to_bytes(&self) -> [u8; Self::LEN] {
        let [status3, status2, status1, status0] = self.app_status.to_be_bytes();
        [status3, status2, status1, status0, self.protocol_status.to_byte(), 0, 0, 0]
    }
}

impl UnknownType {
    /// Length of the content in bytes.
    pub const LEN: usize = 8;

    /// Reads the content. The reserved bytes may hold anything.
    pub const fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        let [record_type, ..] = *bytes;
        Self { record_type }
    }

    /// The content on the wire.
    pub const fn to_bytes(&self) -> [u8; Self::LEN] {
        [self.record_type, 0, 0, 0, 0, 0, 0, 0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f22_begin_request_is_role_flags_and_five_reserved_bytes() {
        let body = BeginRequest::new(Role::Authorizer, true);
        assert_eq!(body.to_bytes(), [0, 2, 1, 0, 0, 0, 0, 0]);
        assert_eq!(BeginRequest::from_bytes(&[0, 2, 1, 9, 9, 9, 9, 9]), body);
        assert_eq!(BeginRequest::from_bytes(&[1, 1, 0, 0, 0, 0, 0, 0]).role_number, 0x0101);
    }

    #[test]
    fn f18_keep_conn_is_the_lowest_bit_and_the_others_mean_nothing() {
        assert!(Flags(0xff).keep_connection());
        assert!(!Flags(0xfe).keep_connection());
    }

    #[test]
    fn f23_responder_and_authorizer_are_known_and_no_other_number_is() {
        for number in 0..=0xffff {
            assert_eq!(Role::from_number(number).is_some(), (1..=2).contains(&number));
            assert!(Role::from_number(number).is_none_or(|role| role.to_number() == number));
        }
    }

    #[test]
    fn f29_end_request_is_app_status_protocol_status_and_three_reserved_bytes() {
        let body =
            EndRequest { app_status: 0x0102_0304, protocol_status: ProtocolStatus::Overloaded };
        assert_eq!(body.to_bytes(), [1, 2, 3, 4, 2, 0, 0, 0]);
        assert_eq!(EndRequest::from_bytes(&[1, 2, 3, 4, 2, 9, 9, 9]), body);
        // The status of the third example in the specification's appendix B.
        let failed =
            EndRequest { app_status: 938, protocol_status: ProtocolStatus::RequestComplete };
        assert_eq!(failed.to_bytes(), [0, 0, 3, 0xaa, 0, 0, 0, 0]);
    }

    #[test]
    fn f29_every_protocol_status_comes_back_as_it_went() {
        for number in 0..=0xff {
            assert_eq!(ProtocolStatus::from_byte(number).to_byte(), number);
        }
    }

    #[test]
    fn f21_unknown_type_is_the_type_and_seven_reserved_bytes() {
        let body = UnknownType { record_type: 200 };
        assert_eq!(body.to_bytes(), [200, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(UnknownType::from_bytes(&[200, 1, 2, 3, 4, 5, 6, 7]), body);
    }
}
