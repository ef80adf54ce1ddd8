//! The journal of systemd: an entry for each line, in the native protocol (JOURNAL_NATIVE_PROTOCOL.md of systemd). Its
//! fields come in a datagram or, if they are too many bytes for one, in a sealed file in memory.
//!
//! The journal does not say what it has taken, but its socket is a queue in the kernel that outlives journald.

use std::io::{self, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::time::timeout;

use super::connection::STUCK;
use super::receiver::{Failure, Item, Refusal};
use super::syslog::level;
use crate::finding::{Container, Line, Text};
use crate::output::terminal;

/// The socket of journald.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";
/// The facility authpriv of syslog.
const FACILITY: &str = "10";

/// A journal.
pub(super) struct Journal {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Journal {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, socket: None }
    }

    /// Sends the entries of lines. Returns those that cannot be entries.
    pub(super) async fn send(&mut self, items: &[Item<'_>]) -> Result<Vec<Refusal>, Failure> {
        let result = self.try_to_send(items).await;
        if result.is_err() {
            self.socket = None;
        }
        result
    }

    async fn try_to_send(&mut self, items: &[Item<'_>]) -> Result<Vec<Refusal>, Failure> {
        let socket = match &self.socket {
            Some(socket) => socket,
            None => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(&self.path)?;
                self.socket.insert(socket)
            }
        };
        let mut refused = Vec::new();
        for (nth, item) in items.iter().enumerate() {
            match entry(item.line, &item.text) {
                Ok(entry) => timeout(STUCK, send(socket, &entry)).await.map_err(|_| Failure::silent(STUCK))??,
                Err(why) => refused.push(Refusal { nth, why }),
            }
        }
        Ok(refused)
    }
}

async fn send(socket: &UnixDatagram, entry: &[u8]) -> io::Result<()> {
    match socket.send(entry).await {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => send_file(socket, entry).await,
        sent => sent.map(drop),
    }
}

/// Sends an entry that is too long for a datagram.
async fn send_file(socket: &UnixDatagram, entry: &[u8]) -> io::Result<()> {
    let file = memfd_create("detector-line", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = std::fs::File::from(file);
    file.write_all(entry)?;
    let file = OwnedFd::from(file);
    // journald maps only what cannot become shorter.
    fcntl_add_seals(&file, SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE)?;
    let files = [file.as_fd()];
    let send = || {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&files));
        Ok(sendmsg(socket, &[IoSlice::new(&[])], &mut control, SendFlags::NOSIGNAL)?)
    };
    socket.async_io(Interest::WRITABLE, send).await.map(drop)
}

/// Makes the entry of a line, whose text can have another format than the line.
fn entry(line: &[u8], text: &[u8]) -> Result<Vec<u8>, String> {
    let told: Line = serde_json::from_slice(line).map_err(|error| format!("it cannot be read: {error}"))?;
    let mut entry = Entry(Vec::with_capacity(text.len() + 512));
    let (severity, container) = match &told {
        Line::Finding(finding) => {
            entry.add("MESSAGE", &finding.message);
            entry.add("DETECTOR_FINDING", finding.finding.name());
            entry.add("DETECTOR_SEVERITY", finding.severity.name());
            entry.add("DETECTOR_ID", &finding.id);
            entry.add("DETECTOR_REVISION", finding.revision.to_string());
            if let Some(session) = &finding.session {
                entry.add("DETECTOR_SESSION", session);
            }
            (Some(finding.severity), finding.container.as_ref())
        }
        Line::Notice(notice) => {
            entry.add("MESSAGE", terminal::sentence(notice));
            entry.add("DETECTOR_EVENT", notice.event.name());
            (None, None)
        }
    };
    let event = if let Line::Notice(notice) = &told { Some(notice.event.name()) } else { None };
    entry.add("PRIORITY", (level(severity, event) as u8).to_string());
    entry.add("SYSLOG_FACILITY", FACILITY);
    entry.add("SYSLOG_IDENTIFIER", "detector");
    if let Some(Container { id, name, image, .. }) = container {
        // The names that the engines' own entries have.
        entry.add_text("CONTAINER_ID_FULL", id.as_ref());
        entry.add_text("CONTAINER_NAME", name.as_ref());
        entry.add_text("IMAGE_NAME", image.as_ref().and_then(|image| image.name.as_ref()));
    }
    entry.add("DETECTOR_LINE", text);
    Ok(entry.0)
}

/// The fields of an entry.
struct Entry(Vec<u8>);

impl Entry {
    /// Adds a field. It has its length before it, so that it can have any bytes.
    fn add(&mut self, name: &str, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        self.0.extend_from_slice(name.as_bytes());
        self.0.push(b'\n');
        self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }

    fn add_text(&mut self, name: &str, value: Option<&Text>) {
        if let Some(value) = value {
            self.add(name, value.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};
    use std::os::unix::net;

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    use super::*;
    use crate::detect::samples;
    use crate::finding::{Loss, Notice, NoticeEvent};
    use crate::output::json;

    /// The fields of an entry, read as journald does.
    fn fields(mut entry: &[u8]) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        while !entry.is_empty() {
            let (name, rest) = entry.split_at(entry.iter().position(|byte| *byte == b'\n').expect("it has a name"));
            let (length, rest) = rest[1..].split_at(8);
            let length = u64::from_le_bytes(length.try_into().expect("they are eight")) as usize;
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it is text");
            fields.push((text(name), text(&rest[..length])));
            assert_eq!(rest[length], b'\n');
            entry = &rest[length + 1..];
        }
        fields
    }

    #[test]
    fn every_line_is_an_entry() {
        let loss = Notice::now("node-1".into(), NoticeEvent::loss(Loss::Exec, 1));
        for line in samples::session(b"\xff sh\n").into_iter().chain([Line::Notice(loss)]) {
            let line = json::line(&line);
            let line = line.trim_ascii_end();
            let fields = fields(&entry(line, line).expect("it is one"));
            let get = |name: &str| fields.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
            assert_eq!(get("DETECTOR_LINE").map(str::as_bytes), Some(line));
            assert!(get("MESSAGE").is_some_and(|message| !message.is_empty()), "{fields:?}");
            assert!(get("DETECTOR_FINDING").is_some() != get("DETECTOR_EVENT").is_some());
            assert!(get("PRIORITY").is_some_and(|level| (2..=6).contains(&level.parse().expect("it is one"))));
        }
        assert!(entry(b"{}", b"{}").expect_err("it is no line").starts_with("it cannot be read: "));
    }

    #[test]
    fn a_value_cannot_be_taken_for_another_field() {
        let mut entry = Entry(Vec::new());
        entry.add("MESSAGE", "a\nPRIORITY=0\nb");
        assert_eq!(fields(&entry.0), [("MESSAGE".to_owned(), "a\nPRIORITY=0\nb".to_owned())]);
    }

    #[tokio::test]
    async fn an_entry_that_is_too_long_for_a_datagram_is_a_sealed_file() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("socket");
        let receiver = net::UnixDatagram::bind(&path).expect("nothing is there");
        let mut journal = Journal::at(path);
        let line = json::line(&samples::session(b"sh")[0]);
        let line = line.trim_ascii_end();
        let text = vec![b'x'; 1 << 20];
        let items = [Item { line, text: line.into() }, Item { line, text: text.as_slice().into() }];
        assert!(journal.send(&items).await.expect("it is there").is_empty());

        let mut datagram = vec![0; 1 << 16];
        let length = receiver.recv(&mut datagram).expect("it was sent");
        assert_eq!(fields(&datagram[..length]), fields(&entry(line, line).expect("it is one")));
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = recvmsg(&receiver, &mut [], &mut control, RecvFlags::empty()).expect("it was sent");
        assert_eq!(received.bytes, 0);
        let file = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut files) => files.next(),
            _ => None,
        });
        let mut file = std::fs::File::from(file.expect("there is a file"));
        let mut bytes = Vec::new();
        file.rewind().expect("it is a file");
        file.read_to_end(&mut bytes).expect("it can be read");
        assert!(fields(&bytes).iter().any(|(name, value)| name == "DETECTOR_LINE" && value.len() == 1 << 20));
        file.set_len(0).expect_err("it is sealed");
    }
}
