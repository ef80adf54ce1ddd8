//! Sockets on which containers begin to listen.
//!
//! `security_socket_listen(struct socket *sock, int backlog)` (security/security.c, 5.10 to 7.3) is called by listen(2)
//! and its equivalent in io_uring before the socket listens (`__sys_listen`, net/socket.c).

use aya_ebpf::{macros::kprobe, programs::ProbeContext};

use crate::{container, kernel::Task};

#[kprobe]
fn socket_listen(_: ProbeContext) -> u32 {
    container::report_listening(Task::current());
    0
}
