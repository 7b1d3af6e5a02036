//! What of libusrsctp 0.9.5 is used: declarations, structures and numbers of its `usrsctp.h`.

use libc::{c_char, c_int, c_uint, c_void, sockaddr_storage, socklen_t, ssize_t};

pub const IPPROTO_SCTP: c_int = 132;
pub const MSG_EOR: c_int = libc::MSG_EOR;
pub const MSG_NOTIFICATION: c_int = 0x2000;

pub const EVENT_READ: c_int = 1;
pub const EVENT_WRITE: c_int = 2;
pub const EVENT_ERROR: c_int = 4;

pub const BINDX_ADD_ADDR: c_int = 0x8001;
pub const RTOINFO: c_int = 0x1;
pub const ASSOCINFO: c_int = 0x2;
pub const INITMSG: c_int = 0x3;
pub const NODELAY: c_int = 0x4;
pub const PRIMARY_ADDR: c_int = 0x7;
pub const PEER_ADDR_PARAMS: c_int = 0xa;
pub const EVENT: c_int = 0x1e;
pub const RECVRCVINFO: c_int = 0x1f;
pub const REMOTE_UDP_ENCAPS_PORT: c_int = 0x24;
pub const GET_PEER_ADDR_INFO: c_int = 0x101;

pub const SPP_HB_ENABLE: u32 = 0x1;
pub const SPP_PMTUD_DISABLE: u32 = 0x10;
pub const SENDV_SNDINFO: c_uint = 1;
/// In `snd_flags`: abort the association.
pub const ABORT: u16 = 0x200;

/// `spinfo_state`.
pub const ACTIVE: i32 = 0x1;
pub const UNCONFIRMED: i32 = 0x200;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Initmsg {
    pub out_streams: u16,
    pub max_in_streams: u16,
    pub max_attempts: u16,
    pub max_timeout: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct RtoInfo {
    pub association: u32,
    pub initial: u32,
    pub max: u32,
    pub min: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct AssocParams {
    pub association: u32,
    pub peer_rwnd: u32,
    pub local_rwnd: u32,
    pub cookie_life: u32,
    pub max_retransmits: u16,
    pub peer_destinations: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct PeerAddrParams {
    pub address: sockaddr_storage,
    pub association: u32,
    pub heartbeat_interval: u32,
    pub path_mtu: u32,
    pub flags: u32,
    pub flow_label: u32,
    pub max_retransmits: u16,
    pub dscp: u8,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct PeerAddrInfo {
    pub address: sockaddr_storage,
    pub association: u32,
    pub state: i32,
    pub cwnd: u32,
    pub srtt: u32,
    pub rto: u32,
    pub mtu: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct SetPrimary {
    pub address: sockaddr_storage,
    pub association: u32,
    pub padding: [u8; 4],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct UdpEncaps {
    pub address: sockaddr_storage,
    pub association: u32,
    /// In network order.
    pub port: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Event {
    pub association: u32,
    pub kind: u16,
    pub on: u8,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct SndInfo {
    pub stream: u16,
    pub flags: u16,
    pub payload_protocol: u32,
    pub context: u32,
    pub association: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct RcvInfo {
    pub stream: u16,
    pub sequence: u16,
    pub flags: u16,
    pub payload_protocol: u32,
    pub tsn: u32,
    pub cumulative_tsn: u32,
    pub context: u32,
    pub association: u32,
}

/// A socket of the library.
#[repr(C)]
pub struct RawSocket {
    _private: [u8; 0],
}

pub type AskList = unsafe extern "C" fn(*mut RawSocket, u32, *mut *mut u8) -> c_int;
pub type FreeList = unsafe extern "C" fn(*mut u8);
pub type Upcall = unsafe extern "C" fn(*mut RawSocket, *mut c_void, c_int);

unsafe extern "C" {
    /// The last two may be null: an output for addresses that are no IP addresses, and a printer of messages.
    pub fn usrsctp_init(udp_port: u16, output: *const c_void, print: *const c_void);
    pub fn usrsctp_finish() -> c_int;
    pub fn usrsctp_socket(
        domain: c_int,
        kind: c_int,
        protocol: c_int,
        receive: *const c_void,
        send: *const c_void,
        threshold: u32,
        argument: *mut c_void,
    ) -> *mut RawSocket;
    pub fn usrsctp_setsockopt(
        socket: *mut RawSocket,
        level: c_int,
        name: c_int,
        value: *const c_void,
        length: socklen_t,
    ) -> c_int;
    pub fn usrsctp_getsockopt(
        socket: *mut RawSocket,
        level: c_int,
        name: c_int,
        value: *mut c_void,
        length: *mut socklen_t,
    ) -> c_int;
    pub fn usrsctp_getpaddrs(s: *mut RawSocket, association: u32, out: *mut *mut u8) -> c_int;
    pub fn usrsctp_freepaddrs(addresses: *mut u8);
    pub fn usrsctp_getladdrs(s: *mut RawSocket, association: u32, out: *mut *mut u8) -> c_int;
    pub fn usrsctp_freeladdrs(addresses: *mut u8);
    pub fn usrsctp_sendv(
        socket: *mut RawSocket,
        data: *const c_void,
        length: usize,
        to: *mut c_void,
        addresses: c_int,
        info: *mut c_void,
        info_length: socklen_t,
        info_type: c_uint,
        flags: c_int,
    ) -> ssize_t;
    pub fn usrsctp_recvv(
        socket: *mut RawSocket,
        buffer: *mut c_void,
        length: usize,
        from: *mut c_void,
        from_length: *mut socklen_t,
        info: *mut c_void,
        info_length: *mut socklen_t,
        info_type: *mut c_uint,
        flags: *mut c_int,
    ) -> ssize_t;
    pub fn usrsctp_bind(socket: *mut RawSocket, name: *mut c_void, length: socklen_t) -> c_int;
    pub fn usrsctp_bindx(s: *mut RawSocket, list: *mut u8, count: c_int, flags: c_int) -> c_int;
    pub fn usrsctp_listen(socket: *mut RawSocket, backlog: c_int) -> c_int;
    pub fn usrsctp_accept(
        socket: *mut RawSocket,
        address: *mut c_void,
        length: *mut socklen_t,
    ) -> *mut RawSocket;
    pub fn usrsctp_connectx(
        socket: *mut RawSocket,
        addresses: *const u8,
        count: c_int,
        association: *mut u32,
    ) -> c_int;
    pub fn usrsctp_close(socket: *mut RawSocket);
    pub fn usrsctp_shutdown(socket: *mut RawSocket, how: c_int) -> c_int;
    pub fn usrsctp_set_non_blocking(socket: *mut RawSocket, on: c_int) -> c_int;
    pub fn usrsctp_set_upcall(
        socket: *mut RawSocket,
        upcall: Option<Upcall>,
        argument: *mut c_void,
    ) -> c_int;
    pub fn usrsctp_get_events(socket: *mut RawSocket) -> c_int;
    /// Not in `usrsctp.h`, but the only way to tell of an address that came after the start. The result is of
    /// no use here. `interface` and `address` are copied.
    pub fn sctp_add_addr_to_vrf(
        vrf: u32,
        interface_handle: *const c_void,
        interface_index: u32,
        interface_type: u32,
        interface: *const c_char,
        address_handle: *const c_void,
        address: *const c_void,
        flags: u32,
        dynamic: c_int,
    ) -> *const c_void;
    pub fn usrsctp_sysctl_set_sctp_blackhole(value: u32) -> c_int;
    pub fn usrsctp_sysctl_set_sctp_no_csum_on_loopback(value: u32) -> c_int;
    pub fn usrsctp_sysctl_set_sctp_sendspace(value: u32) -> c_int;
    pub fn usrsctp_sysctl_set_sctp_recvspace(value: u32) -> c_int;
    pub fn usrsctp_tunable_set_sctp_hashtblsize(value: u32) -> c_int;
    pub fn usrsctp_tunable_set_sctp_pcbtblsize(value: u32) -> c_int;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// As the C compiler of x86-64 and arm64 lays out `usrsctp.h`.
    #[test]
    fn layouts_are_the_library_s() {
        assert_eq!(size_of::<Initmsg>(), 8);
        assert_eq!(size_of::<RtoInfo>(), 16);
        assert_eq!((size_of::<AssocParams>(), offset_of!(AssocParams, max_retransmits)), (20, 16));
        assert_eq!(size_of::<PeerAddrParams>(), 152);
        assert_eq!(offset_of!(PeerAddrParams, max_retransmits), 148);
        assert_eq!((size_of::<PeerAddrInfo>(), offset_of!(PeerAddrInfo, mtu)), (152, 148));
        assert_eq!((size_of::<SetPrimary>(), offset_of!(SetPrimary, association)), (136, 128));
        assert_eq!((size_of::<UdpEncaps>(), offset_of!(UdpEncaps, port)), (136, 132));
        assert_eq!((size_of::<Event>(), offset_of!(Event, on)), (8, 6));
        assert_eq!((size_of::<SndInfo>(), offset_of!(SndInfo, association)), (16, 12));
        assert_eq!((size_of::<RcvInfo>(), offset_of!(RcvInfo, tsn)), (28, 12));
    }
}
