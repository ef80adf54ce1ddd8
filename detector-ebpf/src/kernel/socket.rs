//! `struct socket` and `struct sock`: the other end of a connection.

use detector_common::{offsets::ABSENT, record::Peer};

use super::{
    offsets::*,
    pointer::{File, Ptr, kind},
};

impl File {
    /// Describes the other end of the connection, if the file is a socket.
    #[inline(always)]
    pub(super) fn describe_peer(self, out: &mut Peer) {
        if !self.inode().is_socket() {
            *out = Peer::NONE;
            return;
        }
        let socket: Ptr<kind::Socket> = self.follow(&OFF_FILE_PRIVATE);
        let sock: Ptr<kind::Sock> = socket.follow(&OFF_SOCKET_SK);
        let common: Ptr<kind::SockCommon> = if sock.is_null() { Ptr::NULL } else { sock.after(&OFF_SOCK_COMMON) };
        out.family = common.read(&OFF_SOCK_FAMILY);
        out.port = common.read(&OFF_SOCK_PORT);
        out.reserved = 0;
        let address = match OFF_SOCK_ADDRESS_V6.load() {
            at if out.family == Peer::INET6 && at != ABSENT => at,
            _ => OFF_SOCK_ADDRESS.load(),
        };
        out.address = common.read_at(address);
    }
}
