//! A plugin's life: what its author writes, and what the library exports.

use std::time::Duration;

use abi_stable::{
    StableAbi,
    library::RootModule,
    package_version_strings,
    sabi_types::VersionStrings,
    std_types::{RResult, RSlice, RStr},
};

use crate::{
    abi::{HostObject, PluginObject, TelemetryObject},
    error::{ErrorKind, PluginError},
    host::Host,
    layer::{ClientLayer, ServerLayer},
    metrics::Visit,
};

/// The version of this contract, `major.minor.patch`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What an author writes: one type that implements this, named in
/// [`export_plugin!`](crate::export_plugin).
///
/// The host creates one value, asks it for its layers once, and keeps it until the process ends.
pub trait Plugin: Sized + Send + Sync + 'static {
    /// A short lower-case name; the host uses it for the layers in `GET /stack`.
    const NAME: &'static str;

    /// The plugin's own version: `env!("CARGO_PKG_VERSION")`.
    const VERSION: &'static str;

    /// Every setting that [`Plugin::create`] understands. The host refuses any other.
    const SETTINGS: &'static [Setting] = &[];

    /// Those of [`Plugin::SETTINGS`] that [`Plugin::reconfigure`] applies. Since 1.1.
    const LIVE_SETTINGS: &'static [&'static str] = &[];

    /// The part in incoming requests, or [`NoLayer`](crate::NoLayer).
    type ServerLayer: ServerLayer;

    /// The part in outgoing requests, or [`NoLayer`](crate::NoLayer).
    type ClientLayer: ClientLayer;

    /// Starts the plugin. Called once, on a host thread, before any request is accepted.
    ///
    /// `settings` is the plugin's table of the configuration as a JSON object; it may hold secrets
    /// and must not be logged. Threads and runtimes are made here, never in a constructor of the
    /// library, and stay the plugin's own.
    ///
    /// # Errors
    /// What is wrong, as the operator should read it. [`PluginError::setting`] names the key.
    fn create(settings: &str, host: Host) -> Result<Self, PluginError>;

    /// The layer for incoming requests; `None` when the settings switch it off. Called once.
    fn server_layer(&self) -> Option<Self::ServerLayer> {
        None
    }

    /// The layer for outgoing requests; `None` when the settings switch it off. Called once.
    fn client_layer(&self) -> Option<Self::ClientLayer> {
        None
    }

    /// How the plugin is. Called from any thread at any time; must not block.
    fn state(&self) -> State {
        State::RUNNING
    }

    /// The plugin's own part of `GET /plugins`, as JSON text. Called from any thread at any time.
    fn status(&self) -> String {
        "{}".to_owned()
    }

    /// Tries what the plugin depends on (its export endpoint, say), within `timeout`. Blocks; called
    /// by `host check`, never while requests are served.
    ///
    /// # Errors
    /// What cannot be reached, and why.
    fn check(&self, timeout: Duration) -> Result<(), PluginError> {
        let _ = timeout;
        Ok(())
    }

    /// Hands over everything that waits, within `timeout`. Blocks; never called in a request.
    ///
    /// # Errors
    /// What could not be handed over, and why.
    fn flush(&self, timeout: Duration) -> Result<(), PluginError> {
        let _ = timeout;
        Ok(())
    }

    /// Takes new settings while requests are served: checks the whole table as [`Plugin::create`]
    /// does, and applies those of [`Plugin::LIVE_SETTINGS`] from the next request on; all others
    /// wait for the next start. Where anything is wrong nothing is applied. Blocks; called from one
    /// thread at a time. Since 1.1: an older host never calls it.
    ///
    /// # Errors
    /// What is wrong, as for [`Plugin::create`].
    fn reconfigure(&self, settings: &str) -> Result<(), PluginError> {
        let _ = settings;
        Err(PluginError::new(ErrorKind::OTHER, "it takes no settings while it runs"))
    }

    /// Flushes, ends and joins the plugin's threads, within `timeout`. Blocks; called once, after
    /// the last request. Nothing is called afterwards but drops.
    ///
    /// # Errors
    /// What was lost, and why.
    fn shutdown(&self, timeout: Duration) -> Result<(), PluginError> {
        self.flush(timeout)
    }

    /// Shows what the plugin counts of itself, for the host's `GET /metrics`. Called from any
    /// thread at any time before the shutdown, never in a request; since 1.1.0.
    fn metrics(&self, visit: Visit<'_>) {
        let _ = visit;
    }

    /// What hears of the host's own spans and log lines, made by
    /// [`telemetry_object`](crate::adapter::telemetry_object); `None` when the plugin has no use for
    /// them. Called once; since 1.1.0.
    fn telemetry(&self) -> Option<TelemetryObject> {
        None
    }
}

/// One key of a plugin's table in the host's configuration.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct Setting {
    key: RStr<'static>,
    default: RStr<'static>,
    variable: RStr<'static>,
    meaning: RStr<'static>,
    secret: bool,
}

impl Setting {
    /// The setting `key` (kebab-case), its default as TOML text, and what it means in a few words.
    #[must_use]
    pub const fn new(key: &'static str, default: &'static str, meaning: &'static str) -> Self {
        Self {
            key: RStr::from_str(key),
            default: RStr::from_str(default),
            variable: RStr::from_str(""),
            meaning: RStr::from_str(meaning),
            secret: false,
        }
    }

    /// The same setting, read by the plugin from the first of these environment variables
    /// (separated by blanks) that is set, where the configuration says nothing.
    #[must_use]
    pub const fn or_variable(self, variables: &'static str) -> Self {
        Self { variable: RStr::from_str(variables), ..self }
    }

    /// The same setting, never printed.
    #[must_use]
    pub const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    /// The key, below the plugin's table.
    #[must_use]
    pub fn key(&self) -> &'static str {
        self.key.as_str()
    }

    /// The default, as TOML text.
    #[must_use]
    pub fn default_value(&self) -> &'static str {
        self.default.as_str()
    }

    /// The environment variables that stand in for the key, first one first.
    pub fn variables(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.variable.as_str().split_ascii_whitespace()
    }

    /// What the setting means.
    #[must_use]
    pub fn meaning(&self) -> &'static str {
        self.meaning.as_str()
    }

    /// Whether the value must not be printed.
    #[must_use]
    pub const fn is_secret(&self) -> bool {
        self.secret
    }
}

/// How a plugin is; an open set.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct State(u32);

impl State {
    /// All is well.
    pub const RUNNING: Self = Self(0);
    /// It works, but something it needs does not: spans wait for a collector that is away.
    pub const DEGRADED: Self = Self(1);
    /// It has given up; requests go on without it.
    pub const FAILED: Self = Self(2);
}

/// What a library says of itself before anything in it is started.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct PluginInfo {
    pub(crate) name: RStr<'static>,
    pub(crate) version: RStr<'static>,
    pub(crate) api_version: RStr<'static>,
    pub(crate) rustc: RStr<'static>,
    pub(crate) target: RStr<'static>,
    pub(crate) settings: RSlice<'static, Setting>,
    pub(crate) server_layer: bool,
    pub(crate) client_layer: bool,
    pub(crate) unwinds: bool,
    reserved: [u64; 4],
}

impl PluginInfo {
    /// What there is to say of the plugin `P`; `unwinds` is asked where the library is compiled.
    pub(crate) fn of<P: Plugin>(unwinds: bool) -> Self {
        Self {
            name: RStr::from_str(P::NAME),
            version: RStr::from_str(P::VERSION),
            api_version: RStr::from_str(VERSION),
            rustc: RStr::from_str(env!("PLUGIN_API_RUSTC")),
            target: RStr::from_str(env!("PLUGIN_API_TARGET")),
            settings: RSlice::from_slice(P::SETTINGS),
            server_layer: <P::ServerLayer as ServerLayer>::OFFERED,
            client_layer: <P::ClientLayer as ClientLayer>::OFFERED,
            unwinds,
            reserved: [0; 4],
        }
    }

    /// [`Plugin::NAME`].
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name.as_str()
    }

    /// [`Plugin::VERSION`].
    #[must_use]
    pub fn version(&self) -> &'static str {
        self.version.as_str()
    }

    /// The version of this contract that the plugin was built with.
    #[must_use]
    pub fn api_version(&self) -> &'static str {
        self.api_version.as_str()
    }

    /// What `rustc --version` said where the plugin was built.
    #[must_use]
    pub fn rustc(&self) -> &'static str {
        self.rustc.as_str()
    }

    /// The target triple that the plugin was built for.
    #[must_use]
    pub fn target(&self) -> &'static str {
        self.target.as_str()
    }

    /// [`Plugin::SETTINGS`].
    #[must_use]
    pub fn settings(&self) -> &'static [Setting] {
        self.settings.as_slice()
    }

    /// Whether plugins of this type have a layer for incoming requests.
    #[must_use]
    pub const fn offers_server_layer(&self) -> bool {
        self.server_layer
    }

    /// Whether plugins of this type have a layer for outgoing requests.
    #[must_use]
    pub const fn offers_client_layer(&self) -> bool {
        self.client_layer
    }

    /// Whether a panic in the plugin can be caught. With `panic = "abort"` it would end the host.
    #[must_use]
    pub const fn unwinds(&self) -> bool {
        self.unwinds
    }
}

/// The one symbol of a plugin library: a table of functions that a later minor version may extend
/// at its end. [`export_plugin!`](crate::export_plugin) makes it.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginRootRef)))]
#[sabi(missing_field(panic))]
#[allow(missing_debug_implementations, reason = "a table of functions has nothing to print")]
pub struct PluginRoot {
    /// What the library is; starts nothing.
    pub info: extern "C" fn() -> PluginInfo,
    /// [`Plugin::create`].
    #[sabi(last_prefix_field)]
    pub create: extern "C" fn(RStr<'_>, HostObject) -> RResult<PluginObject, PluginError>,
}

impl RootModule for PluginRootRef {
    abi_stable::declare_root_module_statics! {PluginRootRef}
    const BASE_NAME: &'static str = "plugin";
    const NAME: &'static str = "plugin";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

/// Exports a type that implements [`Plugin`] as this library's plugin.
///
/// ```
/// # use plugin_api::{Host, NoLayer, Plugin, PluginError};
/// struct Silent;
///
/// impl Plugin for Silent {
///     const NAME: &'static str = "silent";
///     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
///     type ServerLayer = NoLayer;
///     type ClientLayer = NoLayer;
///
///     fn create(_settings: &str, _host: Host) -> Result<Self, PluginError> {
///         Ok(Self)
///     }
/// }
///
/// plugin_api::export_plugin!(Silent);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty) => {
        const _: () = {
            // The name is `plugin_api::entry::SYMBOL`; an attribute takes no constant.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            static ENTRY: $crate::entry::Header =
                $crate::entry::header::<$plugin, { cfg!(panic = "unwind") }>();
        };
    };
}
