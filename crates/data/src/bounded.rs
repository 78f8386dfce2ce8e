//! Plain files of a bounded size: those that a folder of somebody else may hold under a name that we know.
//!
//! A pipe in their place would wait for ever, a device such as `/dev/zero` would never end.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Opens a plain file; returns it with its size in bytes. Links are followed.
///
/// # Errors
/// If there is none, it is no plain file, or it cannot be opened.
pub fn open(path: &Path) -> io::Result<(File, u64)> {
    // Before it is opened: a pipe would wait for a writer.
    check(&path.metadata()?)?;
    let file = File::open(path)?;
    let found = file.metadata()?;
    check(&found)?;
    Ok((file, found.len()))
}

/// Reads a plain file of at most `most` bytes.
///
/// # Errors
/// As [`open`], and if the file is larger.
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let (file, size) = open(path)?;
    let too_large = || io::Error::other(format!("it is larger than {most} bytes, the most that it may have"));
    if size > most {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    // It may grow while it is read.
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most { Err(too_large()) } else { Ok(bytes) }
}

/// As [`read`], of a text in UTF-8.
///
/// # Errors
/// As [`read`], and if it is no UTF-8.
pub fn read_text(path: &Path, most: u64) -> io::Result<String> {
    String::from_utf8(read(path, most)?).map_err(|_| io::Error::other("it is not UTF-8 text"))
}

fn check(found: &std::fs::Metadata) -> io::Result<()> {
    if found.is_file() { Ok(()) } else { Err(io::Error::other("it is no plain file")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "four").unwrap();
        assert_eq!(read_text(&path, 4).unwrap(), "four");
        assert!(read(&path, 3).unwrap_err().to_string().contains("3 bytes"));
        std::fs::write(&path, [0xff]).unwrap();
        assert!(read_text(&path, 4).unwrap_err().to_string().contains("UTF-8"));
        assert_eq!(read(&folder.path().join("none"), 4).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[test]
    fn folders_devices_and_pipes_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (link, pipe) = (folder.path().join("link"), folder.path().join("pipe"));
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [folder.path(), &link, &pipe] {
            let message = read(path, 4).unwrap_err().to_string();
            assert!(message.contains("no plain file"), "{}: {message}", path.display());
        }
    }
}
