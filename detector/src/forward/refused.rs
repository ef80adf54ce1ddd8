//! The lines that a receiver will never take: they are kept in a file beside the cursor, so that nobody waits for them
//! and they are not lost.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// How large the file can become. Then it replaces the older one.
const LARGEST: u64 = 8 << 20;

/// The file of a forwarder.
#[derive(Debug)]
pub(super) struct RefusedLines(PathBuf);

impl RefusedLines {
    /// That of the forwarder with this name.
    pub(super) fn of(folder: &Path, forwarder: &str) -> Self {
        Self(folder.join(format!("{forwarder}.refused")))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Keeps a line, which is without its line feed.
    pub(super) fn keep(&self, line: &[u8]) -> io::Result<()> {
        if fs::metadata(&self.0).is_ok_and(|file| file.len() + line.len() as u64 >= LARGEST) {
            fs::rename(&self.0, self.0.with_extension("refused.old"))?;
        }
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
        options.open(&self.0)?.write_all(&[line, b"\n"].concat())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn lines_are_kept_up_to_a_size() {
        let folder = tempfile::tempdir().expect("a directory");
        let refused = RefusedLines::of(folder.path(), "siem");
        for line in [&b"a"[..], b"b"] {
            refused.keep(line).expect("there is room");
        }
        assert_eq!(fs::read(refused.path()).expect("it is there"), b"a\nb\n");
        assert_eq!(fs::metadata(refused.path()).expect("it is there").mode() & 0o777, 0o600);
        let long = vec![b'x'; LARGEST as usize / 4];
        (0..20).for_each(|_| refused.keep(&long).expect("there is room"));
        let sizes = ["siem.refused", "siem.refused.old"]
            .map(|name| fs::metadata(folder.path().join(name)).expect("it is there").len());
        assert!(sizes.iter().all(|size| (1..=LARGEST).contains(size)), "{sizes:?}");
        assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 2);
    }
}
