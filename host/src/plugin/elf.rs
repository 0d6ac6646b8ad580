//! Whether the dynamic loader can map a file: it believes every number in it.
//!
//! A number that is wrong ends the process with a signal inside `dlopen` or, worse, in the first
//! call. The segments, which the loader goes by, are therefore compared with the sections, which the
//! linker wrote independently: whoever damages one of them does not damage the other to match.

use std::ops::{Deref, Range};

use object::{
    Endianness, FileKind, ReadRef,
    elf::{self, FileHeader64},
    read::elf::{
        Dyn as _, FileHeader as _, ProgramHeader as _, SectionHeader as _, SectionTable, Sym as _,
    },
};
use plugin_api::entry::{self, Entry};

/// The machine that this host was built for, as ELF numbers it.
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = elf::EM_X86_64;
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = elf::EM_AARCH64;

/// The least page: segments of different access never share one.
const PAGE: u64 = 0x1000;
/// The read-only start of `.got.plt`, the rest of which is written to.
const GOT_HEADER: u64 = 24;
/// More than any library takes, and less than the loader would have to ask for in vain.
const MOST_MEMORY: u64 = 1 << 32;

type Header = FileHeader64<Endianness>;

/// Refuses whatever is not a shared library for this machine, whole, sound, with the entry symbol.
/// Reads the tables alone, which are a small part of a library.
pub(super) fn check<'a>(data: impl ReadRef<'a>) -> Result<(), String> {
    let header = header(data)?;
    let image = Image::read(header, data)?;
    image.check()?;
    image.check_entry(header)
}

fn header<'a>(data: impl ReadRef<'a>) -> Result<&'a Header, String> {
    let not_elf = || "not an ELF shared library".to_owned();
    match FileKind::parse(data) {
        Ok(FileKind::Elf64) => {}
        Ok(FileKind::Elf32) => return Err("built for 32 bits, this host has 64".to_owned()),
        _ => return Err(not_elf()),
    }
    let header = Header::parse(data).map_err(|_| not_elf())?;
    let endian = header.endian().map_err(|_| not_elf())?;
    let machine = header.e_machine(endian);
    if machine != MACHINE || header.is_big_endian() {
        return Err(format!("built for another machine (ELF {machine}, this host is {MACHINE})"));
    }
    if header.e_type(endian) != elf::ET_DYN {
        return Err("an ELF file, but not a shared library".to_owned());
    }
    Ok(header)
}

fn broken(what: &str) -> String {
    format!("broken: {what}")
}

/// `start..start + length`, where that is a number.
fn range(start: u64, length: u64) -> Result<Range<u64>, String> {
    let end = start.checked_add(length);
    end.map(|end| start..end).ok_or_else(|| broken("a part of it ends beyond all numbers"))
}

fn contains(outer: &Range<u64>, inner: &Range<u64>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

/// Bytes of the file and the addresses that they get; both tables are made of these.
struct Part {
    kind: u32,
    /// `PF_*` of a segment, `SHF_*` of a section.
    flags: u64,
    file: Range<u64>,
    /// Where the bytes of the file are in memory.
    content: Range<u64>,
    /// All of it in memory: the content, and zeros after it.
    memory: Range<u64>,
    align: u64,
}

impl Part {
    fn has(&self, flag: impl Into<u64>) -> bool {
        self.flags & flag.into() != 0
    }

    /// Whether `inner` gets the addresses that it would get as a piece of this segment.
    fn maps(&self, inner: &Self) -> bool {
        let distance = inner.memory.start.wrapping_sub(self.memory.start);
        contains(&self.memory, &inner.memory)
            && contains(&self.content, &inner.content)
            && inner.file.start.wrapping_sub(self.file.start) == distance
    }
}

/// Both tables of a file.
struct Image<R> {
    data: R,
    program_headers: Range<u64>,
    segments: Vec<Part>,
    /// Those that are loaded.
    sections: Vec<Part>,
}

impl<'a, R: ReadRef<'a>> Image<R> {
    fn read(header: &Header, data: R) -> Result<Self, String> {
        let endian = Endianness::Little;
        let length = data.len().unwrap_or(0);
        let phdrs =
            u64::from(header.e_phnum.get(endian)) * u64::from(header.e_phentsize.get(endian));
        let shdrs =
            u64::from(header.e_shnum.get(endian)) * u64::from(header.e_shentsize.get(endian));
        let program_headers = range(header.e_phoff.get(endian), phdrs)?;
        whole(&program_headers, length)?;
        whole(&range(header.e_shoff.get(endian), shdrs)?, length)?;
        let segments = header
            .program_headers(endian, data)
            .map_err(|_| broken("its program headers cannot be read"))?;
        let sections = header
            .section_headers(endian, data)
            .map_err(|_| broken("its section headers cannot be read"))?;
        let segments = segments.iter().map(|segment| {
            let (offset, length) = segment.file_range(endian);
            let (address, size) = (segment.p_vaddr(endian), segment.p_memsz(endian));
            Ok(Part {
                kind: segment.p_type(endian),
                flags: segment.p_flags(endian).into(),
                file: range(offset, length)?,
                content: range(address, length)?,
                memory: range(address, size)?,
                align: segment.p_align(endian),
            })
        });
        let sections = sections.iter().map(|section| {
            let (address, size) = (section.sh_addr(endian), section.sh_size(endian));
            let kind = section.sh_type(endian);
            let length = if kind == elf::SHT_NOBITS { 0 } else { size };
            Ok(Part {
                kind,
                flags: section.sh_flags(endian),
                file: range(section.sh_offset(endian), length)?,
                content: range(address, length)?,
                memory: range(address, size)?,
                align: section.sh_addralign(endian),
            })
        });
        let segments: Vec<Part> = segments.collect::<Result<_, String>>()?;
        let sections: Vec<Part> = sections.collect::<Result<_, String>>()?;
        for part in segments.iter().chain(&sections) {
            whole(&part.file, length)?;
        }
        let loaded = |part: &Part| part.has(elf::SHF_ALLOC) && !part.memory.is_empty();
        let sections = sections.into_iter().filter(loaded).collect();
        Ok(Self { data, program_headers, segments, sections })
    }

    fn check(&self) -> Result<(), String> {
        self.check_kind()?;
        self.check_loads()?;
        self.check_sections()?;
        self.check_views()?;
        self.check_dynamic()?;
        self.check_thread_locals()?;
        self.check_relro()?;
        self.check_unwinding()
    }

    fn of_kind(&self, kind: u32) -> impl Iterator<Item = &Part> {
        self.segments.iter().filter(move |segment| segment.kind == kind)
    }

    fn loads(&self) -> impl Iterator<Item = &Part> {
        self.of_kind(elf::PT_LOAD)
    }

    /// The segment of this kind, of which there may be one.
    fn only(&self, kind: u32, name: &str) -> Result<Option<&Part>, String> {
        let mut segments = self.of_kind(kind);
        let first = segments.next();
        if segments.next().is_some() {
            return Err(broken(&format!("it has two segments {name}")));
        }
        Ok(first)
    }

    fn check_kind(&self) -> Result<(), String> {
        if self.of_kind(elf::PT_INTERP).next().is_some() {
            return Err("an executable, wanted a shared library".to_owned());
        }
        let stack = self.only(elf::PT_GNU_STACK, "for the stack")?;
        if stack.is_none_or(|stack| stack.has(elf::PF_X)) {
            return Err("refused: it wants an executable stack".to_owned());
        }
        Ok(())
    }

    fn check_loads(&self) -> Result<(), String> {
        let mut lowest = None;
        let mut end = 0;
        for load in self.loads() {
            let sized = contains(&load.memory, &load.content);
            let aligned = load.align.is_power_of_two()
                && load.align >= PAGE
                && load.memory.start % load.align == load.file.start % load.align;
            if !sized || !aligned {
                return Err(broken("a segment has an impossible size or alignment"));
            }
            let start = load.memory.start - load.memory.start % PAGE;
            let lowest = *lowest.get_or_insert(start);
            if start < end || load.memory.end - lowest > MOST_MEMORY || load.align > MOST_MEMORY {
                return Err(broken("its segments overlap, are out of order or too large"));
            }
            end = load.memory.end.checked_next_multiple_of(PAGE).unwrap_or(u64::MAX);
        }
        if end == 0 { Err(broken("it has no segment to load")) } else { Ok(()) }
    }

    /// Every section must be where the segments put it, with the access that it needs.
    fn check_sections(&self) -> Result<(), String> {
        let misplaced = || broken("its segments and its sections contradict each other");
        if self.sections.is_empty() {
            return Err("stripped of its section table, which a plugin must have".to_owned());
        }
        for section in &self.sections {
            let empty = section.content.is_empty();
            if empty && section.has(elf::SHF_TLS) {
                continue;
            }
            let load = self.loads().find(|load| contains(&load.memory, &section.memory));
            let load = load.ok_or_else(misplaced)?;
            let placed =
                if empty { section.memory.start >= load.content.end } else { load.maps(section) };
            let access = load.has(elf::PF_R)
                && (load.has(elf::PF_W) || !section.has(elf::SHF_WRITE))
                && (load.has(elf::PF_X) || !section.has(elf::SHF_EXECINSTR));
            if !placed || !access {
                return Err(misplaced());
            }
        }
        Ok(())
    }

    /// Other segments name pieces of those that are loaded, from the start of a section on.
    fn check_views(&self) -> Result<(), String> {
        let views = [
            elf::PT_DYNAMIC,
            elf::PT_NOTE,
            elf::PT_TLS,
            elf::PT_GNU_EH_FRAME,
            elf::PT_GNU_PROPERTY,
            elf::PT_GNU_RELRO,
        ];
        for view in self.segments.iter().filter(|segment| views.contains(&segment.kind)) {
            // What is filled and what is zero has a meaning of its own for these two.
            let inside = match view.kind {
                elf::PT_TLS => true,
                elf::PT_GNU_RELRO => self.loads().any(|load| contains(&load.memory, &view.memory)),
                _ => self.loads().any(|load| load.maps(view)),
            };
            let starts = |section: &Part| {
                section.memory.start == view.memory.start && section.file.start == view.file.start
            };
            if !inside || !self.sections.iter().any(starts) {
                return Err(broken("a segment is not where its section is"));
            }
        }
        let headers = self.only(elf::PT_PHDR, "for the program headers")?;
        let right = |phdr: &Part| {
            phdr.file == self.program_headers && self.loads().any(|load| load.maps(phdr))
        };
        if headers.is_some_and(|phdr| !right(phdr)) {
            return Err(broken("its program headers are not where it says"));
        }
        Ok(())
    }

    fn check_dynamic(&self) -> Result<(), String> {
        let sections = self.sections.iter();
        let section = sections.clone().find(|section| section.kind == elf::SHT_DYNAMIC);
        let segment = self.only(elf::PT_DYNAMIC, "for dynamic linking")?;
        let (Some(segment), Some(section)) = (segment, section) else {
            return Err(broken("it has nothing for the dynamic linker"));
        };
        if segment.file != section.file || segment.memory != section.memory {
            return Err(broken("its dynamic section is not where it says"));
        }
        let length = section.file.end - section.file.start;
        let data = self.data.read_bytes_at(section.file.start, length).unwrap_or(&[]);
        let entries = object::slice_from_all_bytes::<elf::Dyn64<Endianness>>(data);
        let entries = entries.map_err(|()| broken("its dynamic section has an odd size"))?;
        let endian = Endianness::Little;
        let tags = || entries.iter().map(|entry| (entry.d_tag(endian), entry.d_val(endian)));
        if !tags().any(|(tag, _)| tag == u64::from(elf::DT_NULL)) {
            return Err(broken("its dynamic section has no end"));
        }
        for (tag, value) in tags().take_while(|(tag, _)| *tag != u64::from(elf::DT_NULL)) {
            let Ok(tag) = u32::try_from(tag) else { continue };
            let mapped = || self.loads().any(|load| load.memory.contains(&value));
            if ADDRESSES.contains(&tag) && !mapped() {
                return Err(broken("its dynamic section names an address outside of it"));
            }
            if tag == elf::DT_FLAGS_1 && value & u64::from(elf::DF_1_PIE) != 0 {
                return Err("an executable, wanted a shared library".to_owned());
            }
        }
        Ok(())
    }

    fn check_thread_locals(&self) -> Result<(), String> {
        let wrong = || broken("its thread-local segment contradicts its sections");
        let locals = || self.sections.iter().filter(|section| section.has(elf::SHF_TLS));
        let segment = self.only(elf::PT_TLS, "for thread-locals")?;
        let (Some(start), Some(end), Some(align)) = (
            locals().map(|section| section.memory.start).min(),
            locals().map(|section| section.memory.end).max(),
            locals().map(|section| section.align).max(),
        ) else {
            return if segment.is_none() { Ok(()) } else { Err(wrong()) };
        };
        let segment = segment.ok_or_else(wrong)?;
        let filled = locals().filter(|section| !section.content.is_empty());
        let filled = filled.map(|section| section.content.end).max().unwrap_or(start);
        let right = segment.memory.start == start
            && segment.content.end == filled
            && segment.align.is_power_of_two()
            && (align..=align.max(PAGE)).contains(&segment.align)
            // Linkers round the size up, or do not.
            && (end..end.saturating_add(segment.align)).contains(&segment.memory.end);
        if right { Ok(()) } else { Err(wrong()) }
    }

    /// The pages that become read-only must hold no section that stays writable.
    fn check_relro(&self) -> Result<(), String> {
        let Some(relro) = self.only(elf::PT_GNU_RELRO, "to be made read-only")? else {
            return Ok(());
        };
        let page = |address| address - address % PAGE;
        let pages = page(relro.memory.start)..page(relro.memory.end);
        let torn = |section: &Part| {
            let shared = section.memory.end.min(pages.end);
            let shared = shared.saturating_sub(section.memory.start.max(pages.start));
            shared > GOT_HEADER
                && section.has(elf::SHF_WRITE)
                && !(section.content.is_empty() && section.has(elf::SHF_TLS))
                && !contains(&relro.memory, &section.memory)
        };
        if self.sections.iter().any(torn) {
            return Err(broken("a section that is written to would become read-only"));
        }
        Ok(())
    }

    /// Without its table, a panic in the library ends the process.
    fn check_unwinding(&self) -> Result<(), String> {
        let table = self.only(elf::PT_GNU_EH_FRAME, "for unwinding")?;
        match table.and_then(|table| self.data.read_bytes_at(table.file.start, 1).ok()) {
            Some([1]) => Ok(()),
            _ => Err("a panic in it would end the host: it has no table for unwinding".to_owned()),
        }
    }

    /// The entry symbol must be data, and large enough for what is read before it is trusted.
    fn check_entry(&self, header: &Header) -> Result<(), String> {
        let endian = Endianness::Little;
        let unreadable = |_| broken("its symbol table cannot be read");
        let sections: SectionTable<'_, Header, R> =
            header.sections(endian, self.data).map_err(unreadable)?;
        let table = sections.symbols(endian, self.data, elf::SHT_DYNSYM).map_err(unreadable)?;
        let name = entry::SYMBOL.trim_end_matches('\0').as_bytes();
        let named = |symbol: &&elf::Sym64<Endianness>| {
            table.symbol_name(endian, symbol).is_ok_and(|found| found == name)
        };
        let symbol = table.iter().filter(|symbol| symbol.st_shndx(endian) != elf::SHN_UNDEF);
        let Some(symbol) = symbol.clone().find(named) else {
            return Err("not a plugin for this host (its entry symbol is missing)".to_owned());
        };
        let least = size_of::<<Entry as Deref>::Target>() as u64;
        let place = range(symbol.st_value(endian), least)?;
        let fits = symbol.st_type() == elf::STT_OBJECT
            && symbol.st_size(endian) >= least
            && symbol
                .st_value(endian)
                .is_multiple_of(align_of::<<Entry as Deref>::Target>() as u64)
            && self.loads().any(|load| contains(&load.memory, &place));
        if fits {
            return Ok(());
        }
        Err("not a plugin for this host (its entry symbol is something else)".to_owned())
    }
}

/// The dynamic linker follows these without a look at where they lead.
const ADDRESSES: [u32; 15] = [
    elf::DT_PLTGOT,
    elf::DT_HASH,
    elf::DT_GNU_HASH,
    elf::DT_STRTAB,
    elf::DT_SYMTAB,
    elf::DT_RELA,
    elf::DT_REL,
    elf::DT_JMPREL,
    elf::DT_INIT,
    elf::DT_FINI,
    elf::DT_INIT_ARRAY,
    elf::DT_FINI_ARRAY,
    elf::DT_VERSYM,
    elf::DT_VERDEF,
    elf::DT_VERNEED,
];

/// A library that is cut off kills the process when the missing page is touched.
fn whole(part: &Range<u64>, has: u64) -> Result<(), String> {
    if part.end <= has {
        return Ok(());
    }
    Err(format!("truncated: needs {} bytes, has {has}", part.end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A library that every Rust program is linked with.
    fn library() -> Vec<u8> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.contains("libgcc_s.so")).unwrap();
        std::fs::read(line.split_ascii_whitespace().last().unwrap()).unwrap()
    }

    fn sound(bytes: &[u8]) -> Result<(), String> {
        Image::read(header(bytes)?, bytes)?.check()
    }

    #[test]
    fn a_library_is_sound_but_no_plugin_without_the_entry_symbol() {
        assert_eq!(sound(&library()), Ok(()));
        assert!(check(&*library()).unwrap_err().contains("entry symbol is missing"));
    }

    #[test]
    fn a_cut_library_is_refused_wherever_it_is_cut() {
        let whole = library();
        for percent in [1, 10, 50, 90, 97, 99] {
            let cut = &whole[..whole.len() * percent / 100];
            let reason = sound(cut).unwrap_err();
            assert!(reason.starts_with("truncated: needs"), "{percent} %: {reason}");
        }
    }

    #[test]
    fn text_is_no_library() {
        let long = b"#!/bin/sh\necho hello, this is longer than a header\n";
        for text in [&b""[..], b"\x7fELF", long] {
            assert_eq!(check(text).unwrap_err(), "not an ELF shared library");
        }
    }

    #[test]
    fn a_program_is_no_library() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(check(&*own).unwrap_err(), "an executable, wanted a shared library");
    }
}
