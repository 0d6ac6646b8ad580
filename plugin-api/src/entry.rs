//! What a host does with the one symbol of a library: from its address to a checked [`PluginRootRef`].
//!
//! The order is: abi_stable's own header, this contract's version, the layout of every type, the
//! table of functions. Each step has its own error, each names both sides, and nothing of the
//! plugin's own code runs before the last step.

use std::fmt;

use abi_stable::{
    StableAbi,
    abi_stability::abi_checking::{AbiInstabilityErrors, check_layout_compatibility},
    library::{
        __call_root_module_loader, AbiHeader, AbiHeaderRef, CheckTypeLayout, LibHeader,
        ROOT_MODULE_LOADER_NAME_WITH_NUL, RootModuleResult,
    },
    prefix_type::PrefixTypeTrait,
    sabi_types::VersionNumber,
    type_layout::TLFieldOrFunction,
};

use crate::{
    adapter,
    plugin::{Plugin, PluginRoot, PluginRootRef, VERSION},
};

/// The name of the symbol, with the NUL that a loader wants.
pub const SYMBOL: &str = ROOT_MODULE_LOADER_NAME_WITH_NUL;

/// The symbol's address, as a host gets it from a loader.
pub type Entry = AbiHeaderRef;

/// What stands at that address in a plugin's library; [`export_plugin!`](crate::export_plugin) puts
/// it there.
pub type Header = LibHeader;

/// The header of the plugin `P`; `UNWINDS` says whether its library is built so that a panic can be
/// caught, which only the library's own crate can tell.
#[must_use]
#[allow(unsafe_code, reason = "abi_stable's safe form names abi_stable in the plugin's own crate")]
pub const fn header<P: Plugin, const UNWINDS: bool>() -> Header {
    // SAFETY: `load` gives a root of the very type that is named here.
    unsafe {
        LibHeader::from_constructor::<PluginRootRef>(load::<P, UNWINDS>, CheckTypeLayout::Yes)
    }
}

/// Called by the host after the layout check; a panic in it comes back as an error.
extern "C" fn load<P: Plugin, const UNWINDS: bool>() -> RootModuleResult {
    __call_root_module_loader(root_of::<P, UNWINDS>)
}

fn root_of<P: Plugin, const UNWINDS: bool>() -> PluginRootRef {
    PluginRoot { info: adapter::info::<P, UNWINDS>, create: adapter::create::<P> }
        .leak_into_prefix()
}

/// Why a library that has the symbol is no plugin for this host.
#[derive(Debug)]
pub enum EntryError {
    /// The symbol is something else, or was made by another abi_stable.
    Header {
        /// abi_stable's version in the library, where there is one to see.
        found: Option<(u32, u32)>,
    },
    /// Built for another major version of this contract.
    Version {
        /// The version in the library.
        found: String,
    },
    /// Same major version, but a type has another layout.
    Layout {
        /// The version in the library.
        found: String,
        /// The first place that differs, and how.
        first: String,
        /// abi_stable's whole report: many kilobytes over hundreds of lines.
        report: String,
    },
    /// The library's entry function failed or panicked.
    Entry {
        /// What it said.
        message: String,
    },
}

impl fmt::Display for EntryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AbiHeader { abi_major, abi_minor, .. } = AbiHeader::VALUE;
        match self {
            Self::Header { found: Some((major, minor)) } => write!(
                f,
                "built with abi_stable {major}.{minor}, this host needs {abi_major}.{abi_minor}"
            ),
            Self::Header { found: None } => {
                f.write_str("not a plugin for this host (its entry symbol is something else)")
            }
            Self::Version { found } => {
                write!(f, "built for plugin-api {found}, this host supports {}", supported())
            }
            Self::Layout { found, first, .. } => write!(
                f,
                "built for plugin-api {found}, this host has {VERSION}, but their layouts differ, \
                 first at {first}"
            ),
            Self::Entry { message } => write!(f, "its entry function failed: {message}"),
        }
    }
}

impl std::error::Error for EntryError {}

/// The versions of this contract that a host built with this crate loads.
fn supported() -> String {
    let major = VERSION.split('.').next().unwrap_or(VERSION);
    format!("{major}.x")
}

/// Checks the library behind `entry` and returns its table of functions.
///
/// The library must stay loaded for the rest of the process, also when this fails: the layout check
/// keeps pointers into it.
///
/// # Errors
/// Why this library cannot be used, see [`EntryError`].
pub fn open(entry: Entry) -> Result<PluginRootRef, EntryError> {
    let header = entry.upgrade().map_err(|_| EntryError::Header { found: abi_stable_of(entry) })?;
    let order = check_version(header)?;
    check_layout(header, order)?;
    root(header)
}

/// abi_stable's version in the library, if its magic says that it is one.
fn abi_stable_of(entry: Entry) -> Option<(u32, u32)> {
    let same_magic = entry.magic_string == AbiHeader::VALUE.magic_string;
    same_magic.then_some((entry.abi_major, entry.abi_minor))
}

/// abi_stable's names for what stands between an object and its methods.
const WRAPPERS: [&str; 5] = ["0", "field_0", "obj", "vtable", "__returns"];

/// Which side has the older minor version.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Older {
    Host,
    Plugin,
}

fn check_version(header: &LibHeader) -> Result<Older, EntryError> {
    let strings = header.version_strings();
    let unlike = || EntryError::Version { found: strings.version.to_string() };
    let found = VersionNumber::new(strings).map_err(|_| unlike())?;
    let own = VersionNumber::new(abi_stable::package_version_strings!()).map_err(|_| unlike())?;
    if found.major != own.major {
        return Err(unlike());
    }
    Ok(if found.minor < own.minor { Older::Plugin } else { Older::Host })
}

/// abi_stable wants the first side's items to be a subset of the second's, so the older one goes
/// first. The other way round it would refuse an older plugin that is in order.
fn check_layout(header: &LibHeader, older: Older) -> Result<(), EntryError> {
    let host = PluginRootRef::LAYOUT;
    let differs = |first, report| {
        let found = header.version_strings().version.to_string();
        Err(EntryError::Layout { found, first, report })
    };
    let Some(plugin) = header.layout() else {
        return differs("the start: the library has none".to_owned(), String::new());
    };
    let (first, second, names) = match older {
        Older::Host => (host, plugin, ["host", "plugin"]),
        Older::Plugin => (plugin, host, ["plugin", "host"]),
    };
    match check_layout_compatibility(first, second) {
        Ok(()) => Ok(()),
        Err(errors) => differs(first_difference(&errors, names), errors.to_string()),
    }
}

/// The innermost place of the first difference, `Type.field`, and what each side has there.
fn first_difference(errors: &AbiInstabilityErrors, [first, second]: [&str; 2]) -> String {
    // An error without a kind only leads to one that has.
    let Some(error) = errors.errors.iter().find(|error| !error.errs.is_empty()) else {
        return "an unnamed place".to_owned();
    };
    let place = error.stack_trace.iter().map(|place| name(&place.expected));
    let mut place: Vec<&str> = place.filter(|name| !WRAPPERS.contains(name)).collect();
    place.dedup();
    // abi_stable has the words for each kind of difference in its report only.
    let report = error.to_string();
    let mut kinds = report.split("\nError:").skip(1);
    let field = kinds.clone().find(|kind| kind.starts_with("unexpected field"));
    let what = field.or_else(|| kinds.next()).unwrap_or("other");
    let what = match what
        .split_once("Expected:")
        .map(|(kind, sides)| (kind, sides.split_once("Found:")))
    {
        Some((kind, Some((expected, found)))) => {
            format!("{}: {first} {}, {second} {}", kind.trim(), side(expected), side(found))
        }
        _ => side(what),
    };
    format!("{} ({what})", place.join("."))
}

/// What one side has, as far as it fits in the one line that an operator reads.
fn side(text: &str) -> String {
    let text = words(text.split("size:").next().unwrap_or(text));
    text.chars().take(100).collect()
}

fn name(place: &TLFieldOrFunction) -> &'static str {
    match place {
        TLFieldOrFunction::Field(field) => field.name(),
        TLFieldOrFunction::Function(function) => function.name.as_str(),
    }
}

#[allow(unsafe_code, reason = "abi_stable repeats the whole layout check in the safe form")]
fn root(header: &LibHeader) -> Result<PluginRootRef, EntryError> {
    // SAFETY: `check_layout` has just compared the library's root with this very type.
    unsafe { header.unchecked_layout::<PluginRootRef>() }
        .map_err(|error| EntryError::Entry { message: one_line(&error) })
}

fn one_line(error: &impl fmt::Display) -> String {
    words(&error.to_string())
}

fn words(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exported_name_is_the_one_that_a_host_looks_for() {
        assert_eq!(SYMBOL, "_1as_0lib_1header_0root_bmodule_bloader\0");
    }
}
