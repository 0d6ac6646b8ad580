//! plugin-api as it might be: copies of it with a change, and a plugin built against each.
//!
//! The copies are in the target directory, so that cargo builds each once, and shares with them what
//! they have in common with the original.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use toml::{Table, Value};

use crate::artifacts::{self, workspace};

/// A file below `plugin-api/src`, what is in it, and what is there instead.
type Edit = (&'static str, &'static str, &'static str);

/// A plugin-api that differs from the real one.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    name: &'static str,
    version: &'static str,
    edits: &'static [Edit],
}

impl Variant {
    /// The next minor version: a method with a default and a function are appended.
    pub const NEWER_MINOR: Self = Self {
        name: "newer_minor",
        version: "1.2.0",
        edits: &[
            // The accessor of an optional function is unsafe code of abi_stable's.
            ("lib.rs", "#![deny(unsafe_code)]", ""),
            (
                "abi.rs",
                "}

/// [`Host`](crate::Host), as it crosses.",
                "    /// New.
                 fn answer(&self) -> u64 {
                     42
                 }
}

/// [`Host`](crate::Host), as it crosses.",
            ),
            (
                "plugin.rs",
                "pub create: extern \"C\" fn(RStr<'_>, HostObject) -> RResult<PluginObject, PluginError>,",
                "pub create: extern \"C\" fn(RStr<'_>, HostObject) -> RResult<PluginObject, PluginError>,
                 /// New.
                 #[sabi(missing_field(option))]
                 pub answer: extern \"C\" fn() -> u64,",
            ),
            (
                "entry.rs",
                "create: adapter::create::<P> }",
                "create: adapter::create::<P>, answer }",
            ),
            (
                "entry.rs",
                "fn root_of<",
                "extern \"C\" fn answer() -> u64 {
                     42
                 }

                 fn root_of<",
            ),
        ],
    };

    /// A private field has another type of the same size.
    pub const CHANGED_FIELD: Self = Self {
        name: "changed_field",
        version: "1.1.0",
        edits: &[("context.rs", "reserved: u32,", "reserved: i32,")],
    };

    /// A method returns something else.
    pub const CHANGED_SIGNATURE: Self = Self {
        name: "changed_signature",
        version: "1.1.0",
        edits: &[
            ("abi.rs", "fn panics(&self) -> u64;", "fn panics(&self) -> i64;"),
            (
                "adapter.rs",
                "fn panics(&self) -> u64 {\n        guard::panics()",
                "fn panics(&self) -> i64 {\n        guard::panics() as i64",
            ),
        ],
    };

    /// A method is gone.
    pub const REMOVED_METHOD: Self = Self {
        name: "removed_method",
        version: "1.1.0",
        edits: &[
            ("abi.rs", "fn check(&self, timeout_millis: u64) -> RResult<(), PluginError>;", ""),
            ("abi.rs", "    /// [`Plugin::check`](crate::Plugin::check)\n", ""),
            (
                "adapter.rs",
                "self.call(|| RErr(panicked(\"check\")), |plugin| plugin.check(timeout).into())\n    }",
                "",
            ),
            (
                "adapter.rs",
                "fn check(&self, timeout_millis: u64) -> RResult<(), PluginError> {\n        let timeout = Duration::from_millis(timeout_millis);",
                "",
            ),
        ],
    };

    /// The smallest plugin, built against this plugin-api.
    #[must_use]
    pub fn plugin(self) -> PathBuf {
        self.example(self.name)
    }

    /// A program that loads plugins with this plugin-api, `fixtures/next_host.rs`. Only
    /// [`Variant::NEWER_MINOR`] has what it uses.
    #[must_use]
    pub fn loader(self) -> PathBuf {
        self.example("next_host")
    }

    fn example(self, name: &str) -> PathBuf {
        // One after the other: they write the same files.
        static BUILDING: Mutex<()> = Mutex::new(());
        let _building = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
        let built = artifacts::build_at(&self.copy(), &["--example", name]);
        built.get(name).unwrap_or_else(|| panic!("no {name}: {built:?}")).clone()
    }

    /// A workspace with the changed plugin-api, and the versions of the real one's dependencies.
    fn copy(self) -> PathBuf {
        let folder = artifacts::target().join("variants").join(self.name);
        let mut manifest: Table = toml::from_str(&read("Cargo.toml")).expect("TOML");
        let tables = manifest.get_mut("workspace").and_then(Value::as_table_mut);
        let tables = tables.expect("a workspace");
        // Its folder in the workspace is all that cargo tells packages of one target directory by.
        tables.insert("members".into(), vec![self.name].into());
        let dependencies = tables.get_mut("dependencies").and_then(Value::as_table_mut);
        dependencies.expect("dependencies").remove("plugin-api");
        tables.remove("default-members");
        let profile = manifest.get_mut("profile").and_then(|profiles| profiles.get_mut("dev"));
        profile.and_then(Value::as_table_mut).expect("a profile").remove("package");
        write(&folder.join("Cargo.toml"), &manifest.to_string());
        write(&folder.join("Cargo.lock"), &read("Cargo.lock"));

        let package = folder.join(self.name);
        let mut manifest: Table = toml::from_str(&read("plugin-api/Cargo.toml")).expect("TOML");
        let mut example = Table::new();
        example.insert("name".into(), self.name.into());
        example.insert("crate-type".into(), vec!["cdylib"].into());
        manifest.insert("example".into(), vec![example].into());
        let about = manifest.get_mut("package").and_then(Value::as_table_mut);
        about.expect("a package").insert("version".into(), self.version.into());
        write(&package.join("Cargo.toml"), &manifest.to_string());
        write(&package.join("build.rs"), &read("plugin-api/build.rs"));
        let plugin = package.join("examples").join(self.name).with_extension("rs");
        write(&plugin, &read("plugin-api/examples/noop.rs"));
        write(&package.join("examples/next_host.rs"), &read("tests/fixtures/next_host.rs"));
        for file in
            fs::read_dir(workspace().join("plugin-api/src")).expect("plugin-api has sources")
        {
            let name = file.expect("a readable folder").file_name().into_string().expect("UTF-8");
            let mut text = read(&format!("plugin-api/src/{name}"));
            for (_, old, new) in self.edits.iter().filter(|(file, ..)| *file == name) {
                assert_eq!(text.matches(old).count(), 1, "{name} has changed: adapt {self:?}");
                text = text.replace(old, new);
            }
            write(&package.join("src").join(name), &text);
        }
        folder
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(workspace().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Leaves a file alone that is right: cargo looks at times.
fn write(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|found| found == text) {
        return;
    }
    fs::create_dir_all(path.parent().expect("a file in a folder")).expect("a writable folder");
    fs::write(path, text).expect("a writable folder");
}
