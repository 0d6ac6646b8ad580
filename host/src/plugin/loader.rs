//! From a path to a checked library, and from there to a running plugin.
//!
//! The order: path rule, file checks, checksum, ELF, `dlopen` of the very descriptor that was
//! checked, abi_stable's header, version, layout, `info`, `create`. A library is never unloaded.

use std::{
    env,
    fs::File,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use libloading::os::unix::{self, RTLD_LOCAL, RTLD_NOW};
use object::ReadCache;
use plugin_api::{
    ErrorKind, PluginInfo, PluginRootRef,
    adapter::host_object,
    entry::{self, Entry, EntryError},
};

use super::{LoadError, Plugin, PluginFacts, elf, services::Services, verify};
use crate::{Identity, config::Settings, metrics::Metrics};

/// Never unloaded: abi_stable keeps pointers into a library, and so may a thread's destructors.
const RTLD_NODELETE: i32 = 0x1000;

/// A library that was opened and checked; nothing in it is started yet.
#[derive(Debug)]
pub struct Library {
    pub(super) info: PluginInfo,
    pub(super) path: PathBuf,
    pub(super) sha256: String,
    root: Root,
}

impl Library {
    pub(super) fn facts(&self) -> PluginFacts<'_> {
        PluginFacts { info: self.info, path: &self.path, sha256: &self.sha256 }
    }
}

struct Root(PluginRootRef);

impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Root")
    }
}

/// Loads the configured plugin and starts it.
///
/// # Errors
/// Whatever is wrong with the file or with its settings.
pub(crate) fn load(
    settings: &Settings,
    identity: &Identity,
    metrics: Arc<Metrics>,
) -> Result<Plugin, LoadError> {
    let config = &settings.config().otel;
    let path = resolve(&config.library, settings.folder())?;
    let library = open(&path, config.sha256.as_deref())?;
    settings.check_plugin_keys(library.info.settings()).map_err(LoadError::Setting)?;
    let folder = settings.folder().display().to_string();
    let host = host_object(Services::new(identity.into(), folder, metrics));
    let created = (library.root.0.create())(settings.plugin_json().as_str().into(), host);
    let object = created.into_result().map_err(|error| match error.kind() {
        ErrorKind::SETTING => LoadError::Setting(settings.plugin_error(&error)),
        _ => LoadError::File { path: library.path.clone(), reason: error.to_string() },
    })?;
    Ok(Plugin { library, object, stopped: false.into() })
}

/// A bare name is next to the binary, a path starts at the configuration file's folder. There is no
/// search.
fn resolve(library: &str, folder: &Path) -> Result<PathBuf, LoadError> {
    if library.contains('/') {
        let path = folder.join(library);
        return Ok(std::path::absolute(&path).unwrap_or(path));
    }
    let binary = env::current_exe().map_err(LoadError::OwnPlace)?;
    Ok(binary.with_file_name(library))
}

/// Opens and checks the library at `path`.
pub(super) fn open(path: &Path, sha256: Option<&str>) -> Result<Library, LoadError> {
    let refused = |reason| LoadError::File { path: path.to_owned(), reason };
    let (file, sha256) = verified(path, sha256).map_err(refused)?;
    let entry = symbol(&file).map_err(refused)?;
    let root = entry::open(entry).map_err(|error| refused(one_line(&error)))?;
    let info = (root.info())();
    if !info.unwinds() {
        return Err(refused(
            "built with panic = \"abort\": a panic in it would end the host".into(),
        ));
    }
    Ok(Library { info, path: path.to_owned(), sha256, root: Root(root) })
}

fn verified(path: &Path, sha256: Option<&str>) -> Result<(File, String), String> {
    let file = verify::open(path)?;
    let sha256 = verify::checksum(&file, sha256)?;
    elf::check(&ReadCache::new(&file))?;
    Ok((file, sha256))
}

/// The layout report has hundreds of lines; it goes to the debug log.
fn one_line(error: &EntryError) -> String {
    if let EntryError::Layout { report, .. } = error {
        tracing::debug!("{report}");
    }
    error.to_string()
}

/// Loads the file behind the descriptor that was checked, not whatever its path names by now.
#[allow(unsafe_code, reason = "loading a library runs its code; there is no safe form")]
fn symbol(file: &File) -> Result<Entry, String> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE;
    // SAFETY: the library's constructors run here. The operator named the file, nobody but root
    // and the service itself can have written it, and all of its segments are inside the file.
    let library = unsafe { unix::Library::open(Some(&path), flags) };
    let library = library.map_err(|error| reason(&error, &path))?;
    // SAFETY: `Entry` is a pointer to the symbol, which `plugin_api::entry::open` reads no further
    // than its magic before it trusts it. The library is never unloaded, so it stays valid.
    let entry = unsafe { library.get::<Entry>(entry::SYMBOL.as_bytes()) };
    let entry = entry.map(|symbol| *symbol);
    // Closing it would do nothing but count, because of `RTLD_NODELETE`.
    std::mem::forget(library);
    entry.map_err(|_| "not a plugin for this host (its entry symbol is missing)".to_owned())
}

/// libloading keeps the loader's own words in the error's source. They name the file by the
/// descriptor's path, which would mislead whoever reads it.
fn reason(error: &libloading::Error, path: &str) -> String {
    let source = std::error::Error::source(error).map(ToString::to_string);
    let text = source.unwrap_or_else(|| error.to_string());
    let text = text.strip_prefix(&format!("{path}: ")).unwrap_or(&text);
    format!("cannot be loaded: {}", text.replace(path, "the library"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A library that this process has loaded already: a copy of it changes nothing.
    fn some_library() -> PathBuf {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let paths = maps.lines().filter_map(|line| Some(line.split_at(line.find('/')?).1));
        paths.into_iter().find(|path| path.contains("libgcc_s")).unwrap().into()
    }

    #[test]
    fn the_file_that_was_checked_is_the_one_that_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("libplugin.so");
        fs::copy(some_library(), &path).unwrap();
        let checked = verify::open(&path).unwrap();
        let other = folder.path().join("libother.so");
        fs::write(&other, "no library at all").unwrap();
        fs::rename(other, &path).unwrap();
        let loaded = symbol(&checked).err().unwrap();
        assert_eq!(loaded, "not a plugin for this host (its entry symbol is missing)");
        let other = symbol(&verify::open(&path).unwrap()).err().unwrap();
        assert!(other.starts_with("cannot be loaded: "), "{other}");
    }
}
