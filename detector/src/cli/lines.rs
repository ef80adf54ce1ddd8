//! Files with lines that the detector has written, which gzip can have compressed.
//!
//! They are decompressed while they are read, so a file that grows a thousandfold needs no more memory than any other.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use super::failure::{Exit, Failure};

/// How files begin that gzip has made.
const GZIP: &[u8] = b"\x1f\x8b";
/// How files begin that other programs have made, and what decompresses them.
const OTHERS: [(&[u8], &str); 3] = [(b"\x28\xb5\x2f\xfd", "zstdcat"), (b"\xfd7zXZ", "xzcat"), (b"BZh", "bzcat")];

/// The name of a file in messages; `-` is standard input.
pub(super) fn name(path: &Path) -> String {
    if is_input(path) { "standard input".to_owned() } else { path.display().to_string() }
}

/// Opens a file, or standard input.
pub(super) fn open(path: &Path) -> Result<Box<dyn BufRead>, Failure> {
    if is_input(path) {
        return decompressed(io::stdin().lock(), path);
    }
    let file = File::open(path)
        .map_err(|error| failed(path, format_args!("{error}; give a file with lines that this user may read")))?;
    decompressed(BufReader::new(file), path)
}

fn is_input(path: &Path) -> bool {
    path == Path::new("-")
}

fn decompressed(mut bytes: impl BufRead + 'static, path: &Path) -> Result<Box<dyn BufRead>, Failure> {
    let start =
        bytes.fill_buf().map_err(|error| failed(path, format_args!("cannot read it: {error}; check the file")))?;
    if let Some((_, program)) = OTHERS.iter().find(|(magic, _)| start.starts_with(magic)) {
        let why = format_args!("it is compressed; give what `{program}` makes of it as standard input (`-`)");
        return Err(failed(path, why));
    }
    let is_compressed = start.starts_with(GZIP);
    Ok(if is_compressed { Box::new(BufReader::new(MultiGzDecoder::new(bytes))) } else { Box::new(bytes) })
}

/// Says why a file is of no use.
pub(super) fn failed(path: &Path, why: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Failure, format_args!("{}: {why}", name(path)))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn a_file_is_read_as_it_was_before_it_was_compressed() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("log");
        let compressed = |text: &str| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(text.as_bytes()).expect("it is memory");
            encoder.finish().expect("it is memory")
        };
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).expect("it is ours");
            let mut text = String::new();
            open(&path).map(|mut lines| lines.read_to_string(&mut text)).map_err(|failure| failure.message)??;
            Ok::<_, Box<dyn std::error::Error>>(text)
        };
        assert_eq!(read(b"a\nb\n").expect("it is text"), "a\nb\n");
        assert_eq!(read(b"").expect("it is text"), "");
        assert_eq!(read(&[compressed("a\n"), compressed("b\n")].concat()).expect("it is gzip"), "a\nb\n");
        assert!(read(&compressed("a\n")[..8]).is_err(), "it is cut");
        let other = read(b"BZh9").expect_err("it is another format").to_string();
        assert!(other.ends_with("give what `bzcat` makes of it as standard input (`-`)"), "{other}");
    }
}
