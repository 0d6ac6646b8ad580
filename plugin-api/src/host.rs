//! What the host offers a plugin.

use std::fmt;

use abi_stable::{
    StableAbi,
    std_types::{RArc, RStr, RString},
};

use crate::{
    abi::HostObject,
    adapter::{LentVisitor, lend_visitor},
    metrics::Visit,
};

/// How serious a log line is: the levels of `tracing`, least serious first.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Level(u32);

impl Level {
    /// Very fine detail.
    pub const TRACE: Self = Self(1);
    /// Detail for whoever looks for a fault.
    pub const DEBUG: Self = Self(2);
    /// The normal course of things.
    pub const INFO: Self = Self(3);
    /// Something an operator should look at; work goes on.
    pub const WARN: Self = Self(4);
    /// Something failed.
    pub const ERROR: Self = Self(5);
}

/// Who the host is: the instance that service discovery knows.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The service group, OpenTelemetry's `service.name`.
    pub group: RString,
    /// The instance's name, as the operator gave it.
    pub name: RString,
    /// A fresh UUID for each process, OpenTelemetry's `service.instance.id`.
    pub id: RString,
    /// The service's version, OpenTelemetry's `service.version`.
    pub version: RString,
}

/// The host, as the plugin sees it. Cheap to clone; usable from any thread until shutdown ends.
#[derive(Clone)]
pub struct Host(RArc<HostObject>);

impl Host {
    /// The host behind an object made by [`host_object`](crate::adapter::host_object); tests of a
    /// plugin start here.
    #[must_use]
    pub fn new(object: HostObject) -> Self {
        Self(RArc::new(object))
    }

    /// Writes a line to the host's log.
    ///
    /// `target` names the part that speaks (a module path). The host limits the rate: lines past it
    /// are counted and the count is logged.
    pub fn log(&self, level: Level, target: &str, message: &str) {
        self.0.log(level, RStr::from_str(target), RStr::from_str(message));
    }

    /// Who the host is.
    #[must_use]
    pub fn service(&self) -> Service {
        self.0.service()
    }

    /// Shows every metric that the host has now: of its requests, its calls and its process. Meant
    /// for a thread of the plugin's own, every now and then; a host older than 1.1.0 shows none.
    pub fn metrics(&self, visit: Visit<'_>) {
        self.0.metrics(lend_visitor(&mut LentVisitor(visit)));
    }

    /// The folder that relative paths in settings start at: the one of the configuration file. Empty
    /// (the working directory) where there is no file, and in a host older than 1.1.0.
    #[must_use]
    pub fn folder(&self) -> RString {
        self.0.folder()
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Host")
    }
}
