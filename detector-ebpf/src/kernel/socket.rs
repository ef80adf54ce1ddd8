//! `struct socket` and `struct sock`: the ends of a connection.

use detector_common::{offsets::ABSENT, record::Peer};

use super::{
    offsets::*,
    pointer::{File, Ptr, Sock, kind},
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

impl Sock {
    /// Returns the inode number of the network namespace, if both ends of a connection have the same IP address and
    /// are therefore in this namespace: the kernel takes no packet from elsewhere that has an own address as its source
    /// (`fib_validate_source`, net/ipv4/fib_frontend.c), and with IPv6, the answer to one does not leave the namespace.
    #[inline(always)]
    pub fn only_network(self) -> Option<u32> {
        let common: Ptr<kind::SockCommon> = self.after(&OFF_SOCK_COMMON);
        let is_same = match common.read(&OFF_SOCK_FAMILY) {
            Peer::INET => common.read::<u32>(&OFF_SOCK_ADDRESS) == common.read(&OFF_SOCK_OWN_ADDRESS),
            Peer::INET6 => {
                let (other, own) = (OFF_SOCK_ADDRESS_V6.load(), OFF_SOCK_OWN_ADDRESS_V6.load());
                common.read_at::<u64>(other) == common.read_at(own)
                    && common.read_at::<u64>(other.wrapping_add(8)) == common.read_at(own.wrapping_add(8))
            }
            _ => false,
        };
        is_same.then(|| common.follow::<kind::Network>(&OFF_SOCK_NETWORK).read(&OFF_NET_INUM))
    }
}
