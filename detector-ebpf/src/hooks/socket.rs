//! Sockets on which containers begin to listen, and connections that they accept.
//!
//! `security_socket_listen(struct socket *sock, int backlog)` (security/security.c, 5.10 to 7.3) is called by listen(2)
//! and its equivalent in io_uring before the socket listens (`__sys_listen`, net/socket.c).
//!
//! `security_sock_graft(struct sock *sk, struct socket *parent)` (security/security.c, 5.10 to 7.3) is called by
//! accept(2), accept4(2) and their equivalent in io_uring with the socket of the new connection, before the process has
//! it (`sock_graft`, include/net/sock.h, called by `inet_accept`, net/ipv4/af_inet.c, by `unix_accept`,
//! net/unix/af_unix.c, and by other families).

use aya_ebpf::{macros::kprobe, programs::ProbeContext};

use super::argument;
use crate::{container, kernel::Task};

#[kprobe]
fn socket_listen(_: ProbeContext) -> u32 {
    container::report_listening(Task::current());
    0
}

#[kprobe]
fn sock_graft(ctx: ProbeContext) -> u32 {
    if !container::is_clearly_elsewhere()
        && let Some(sock) = argument(&ctx, 0)
    {
        container::report_accepting(Task::current(), sock);
    }
    0
}
