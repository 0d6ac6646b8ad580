//! Files for exports over TLS.

use std::path::{Path, PathBuf};

use plugin_api::PluginError;

use super::{parse, read::Reader};

/// Whom exports to an `https` endpoint trust, and what they show of themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tls {
    /// The authorities that are trusted, in place of the system's.
    pub(crate) ca: Option<File>,
    /// The plugin's certificate, and behind it those that lead to its root.
    pub(crate) cert: Option<File>,
    /// The certificate's private key.
    pub(crate) key: Option<File>,
}

/// A file, and who names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// The setting.
    pub(crate) setting: &'static str,
    /// The variable, where no setting does.
    pub(crate) variable: Option<String>,
    /// Where it is.
    pub(crate) path: PathBuf,
}

impl Tls {
    /// Lets relative paths of settings start at `folder`; those of variables start at the working
    /// directory.
    pub(super) fn start_paths_at(&mut self, folder: &Path) {
        let files = [&mut self.ca, &mut self.cert, &mut self.key].into_iter().flatten();
        for file in files.filter(|file| file.variable.is_none()) {
            file.path = folder.join(&file.path);
        }
    }
}

impl File {
    /// Says what is wrong with it.
    pub(crate) fn wrong(&self, reason: impl std::fmt::Display) -> PluginError {
        let variable = self.variable.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        let message = format_args!("{variable}{}: {reason}", self.path.display());
        PluginError::setting(self.setting, message)
    }
}

/// Reads `tls`. Where it lacks a key, the variables of that key stand in.
pub(super) fn read<E: Fn(&str) -> Option<String>>(
    reader: &mut Reader<'_, E>,
) -> Result<Tls, PluginError> {
    let value = reader.setting("tls");
    let mut tls = Tls {
        ca: by_variable(reader, "tls.ca", "CERTIFICATE"),
        cert: by_variable(reader, "tls.cert", "CLIENT_CERTIFICATE"),
        key: by_variable(reader, "tls.key", "CLIENT_KEY"),
    };
    let Some(value) = value else { return Ok(tls) };
    for (key, path) in parse::texts("tls", &value)? {
        let (place, setting) = match key {
            "ca" => (&mut tls.ca, "tls.ca"),
            "cert" => (&mut tls.cert, "tls.cert"),
            "key" => (&mut tls.key, "tls.key"),
            _ => return Err(PluginError::setting(&format!("tls.{key}"), "unknown setting")),
        };
        *place = Some(File { setting, variable: None, path: path.into() });
    }
    Ok(tls)
}

fn by_variable<E: Fn(&str) -> Option<String>>(
    reader: &Reader<'_, E>,
    setting: &'static str,
    what: &str,
) -> Option<File> {
    ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"].into_iter().find_map(|start| {
        let variable = reader.signal.variable(&format!("{start}{what}"))?;
        let path = reader.variable(&variable)?.trim().into();
        Some(File { setting, variable: Some(variable), path })
    })
}
