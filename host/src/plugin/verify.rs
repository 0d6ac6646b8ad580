//! Checks of a file before it is loaded: loading runs its code, so trust is decided here.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
};

use object::{
    Endianness, FileKind,
    elf::{self, FileHeader64},
    read::elf::{FileHeader as _, ProgramHeader as _},
};
use rustix::process::{getegid, geteuid};
use sha2::{Digest, Sha256};

/// The machine that this host was built for, as ELF numbers it.
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = elf::EM_X86_64;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = elf::EM_AARCH64;

/// Opens `path` and checks that it is a regular file which nobody else may change. What is checked
/// afterwards, and loaded in the end, is the descriptor that this returns.
pub(super) fn open(path: &Path) -> Result<File, String> {
    let before = path.metadata().map_err(|error| unreadable(&error))?;
    // Opening a FIFO would wait for a writer.
    regular(&before)?;
    let file = File::open(path).map_err(|error| unreadable(&error))?;
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

/// Reads the whole file; the hash and the ELF check are of these bytes.
pub(super) fn read(file: &mut File) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    Ok(bytes)
}

/// The SHA-256 in lower-case hex; refused when another one is wanted.
pub(super) fn checksum(bytes: &[u8], wanted: Option<&str>) -> Result<String, String> {
    let found: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    match wanted {
        Some(wanted) if !wanted.eq_ignore_ascii_case(&found) => {
            Err(format!("checksum mismatch: wanted sha256 {wanted}, found {found}"))
        }
        _ => Ok(found),
    }
}

/// Whether the loader can map the file: it kills the process where a segment is cut off.
pub(super) fn elf(bytes: &[u8]) -> Result<(), String> {
    let not_elf = || "not an ELF shared library".to_owned();
    match FileKind::parse(bytes) {
        Ok(FileKind::Elf64) => {}
        Ok(FileKind::Elf32) => return Err("built for 32 bits, this host has 64".to_owned()),
        _ => return Err(not_elf()),
    }
    let header = FileHeader64::<Endianness>::parse(bytes).map_err(|_| not_elf())?;
    let endian = header.endian().map_err(|_| not_elf())?;
    let machine = header.e_machine(endian);
    if machine != MACHINE || header.is_big_endian() {
        return Err(format!("built for another machine (ELF {machine}, this host is {MACHINE})"));
    }
    if header.e_type(endian) != elf::ET_DYN {
        return Err("an ELF file, but not a shared library".to_owned());
    }
    segments(header, endian, bytes)?;
    sections(header, endian, bytes)
}

fn segments(
    header: &FileHeader64<Endianness>,
    endian: Endianness,
    bytes: &[u8],
) -> Result<(), String> {
    let cut = || "truncated: its program headers are cut off".to_owned();
    let headers = header.program_headers(endian, bytes).map_err(|_| cut())?;
    for segment in headers {
        let (offset, length) = segment.file_range(endian);
        inside(offset, length, bytes)?;
    }
    let mapped = headers.iter().any(|segment| segment.p_type(endian) == elf::PT_LOAD);
    if mapped { Ok(()) } else { Err("broken: it has no segment to load".to_owned()) }
}

/// The section table is not loaded, but it stands at the very end: without it the file is cut.
fn sections(
    header: &FileHeader64<Endianness>,
    endian: Endianness,
    bytes: &[u8],
) -> Result<(), String> {
    let length = u64::from(header.e_shnum(endian)) * u64::from(header.e_shentsize(endian));
    inside(header.e_shoff(endian), length, bytes)
}

fn inside(offset: u64, length: u64, bytes: &[u8]) -> Result<(), String> {
    let has = bytes.len() as u64;
    match offset.checked_add(length) {
        Some(end) if end <= has => Ok(()),
        Some(end) => Err(format!("truncated: needs {end} bytes, has {has}")),
        None => Err("broken: a part of it ends beyond all numbers".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_bytes() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    #[test]
    fn a_cut_library_is_refused_wherever_it_is_cut() {
        let whole = own_bytes();
        for percent in [0, 1, 10, 50, 90, 97, 99] {
            let cut = &whole[..whole.len() * percent / 100];
            assert!(elf(cut).is_err(), "{percent} %");
        }
    }

    #[test]
    fn text_is_no_library() {
        for text in [&b""[..], b"\x7fELF", b"#!/bin/sh\necho hello, this is longer than a header\n"]
        {
            assert_eq!(elf(text).unwrap_err(), "not an ELF shared library");
        }
    }

    #[test]
    fn another_checksum_is_refused_and_letter_case_does_not_matter() {
        let sum = checksum(b"abc", None).unwrap();
        assert!(sum.starts_with("ba7816bf"));
        assert!(checksum(b"abc", Some(&sum.to_uppercase())).is_ok());
        assert!(checksum(b"abd", Some(&sum)).unwrap_err().contains("checksum mismatch"));
    }
}
