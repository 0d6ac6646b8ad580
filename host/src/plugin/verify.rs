//! Checks of a file before it is loaded: loading runs its code, so trust is decided here.

use std::{
    fs::{File, Metadata},
    io::{self, BufReader, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use rustix::{
    fs::OFlags,
    process::{getegid, geteuid},
};
use sha2::{Digest, Sha256};

/// Opens `path` and checks that it is a regular file which nobody else may change. What is checked
/// afterwards, and loaded in the end, is the descriptor that this returns.
pub(super) fn open(path: &Path) -> Result<File, String> {
    // Opening a FIFO would otherwise wait for a writer.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path);
    let file = file.map_err(|error| unreadable(&error))?;
    let opened = file.metadata().map_err(|error| unreadable(&error))?;
    regular(&opened)?;
    owned(&opened, "the file")?;
    let real = path.canonicalize().map_err(|error| unreadable(&error))?;
    let folder = real.parent().unwrap_or(Path::new("/"));
    let folder = folder.metadata().map_err(|error| unreadable(&error))?;
    owned(&folder, "its folder")?;
    Ok(file)
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}

fn regular(found: &Metadata) -> Result<(), String> {
    if found.is_file() {
        return Ok(());
    }
    let found = if found.is_dir() { "a directory" } else { "a special file" };
    Err(format!("wanted a regular file, found {found}"))
}

/// Whoever may write the file may run code as this service. A group counts as others unless it is
/// root's or the service's own.
fn owned(found: &Metadata, what: &str) -> Result<(), String> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    if found.uid() != 0 && found.uid() != user {
        return Err(format!(
            "refused: {what} belongs to user {}, wanted root or user {user}",
            found.uid()
        ));
    }
    let by_group = found.mode() & 0o020 != 0 && found.gid() != 0 && found.gid() != group;
    if found.mode() & 0o002 != 0 || by_group {
        let mode = found.mode() & 0o7777;
        return Err(format!("refused: {what} is writable by others (mode {mode:04o})"));
    }
    Ok(())
}

/// The SHA-256 in lower-case hex; refused when another one is wanted.
pub(super) fn checksum(file: impl Read, wanted: Option<&str>) -> Result<String, String> {
    // Memory for the whole file would cost more than its hash.
    let mut file = BufReader::with_capacity(64 << 10, file);
    let mut hasher = Sha256::new();
    io::copy(&mut file, &mut hasher).map_err(|error| unreadable(&error))?;
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    match wanted {
        Some(wanted) if !wanted.eq_ignore_ascii_case(&found) => {
            Err(format!("checksum mismatch: wanted sha256 {wanted}, found {found}"))
        }
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_checksum_is_refused_and_letter_case_does_not_matter() {
        let sum = checksum(&b"abc"[..], None).unwrap();
        assert!(sum.starts_with("ba7816bf"));
        assert!(checksum(&b"abc"[..], Some(&sum.to_uppercase())).is_ok());
        assert!(checksum(&b"abd"[..], Some(&sum)).unwrap_err().contains("checksum mismatch"));
    }
}
