//! A server that runs under valgrind's callgrind, which counts its instructions.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{machine::Core, profile::Profile, server::Server};

/// Where the counts of one server go.
pub(crate) struct Callgrind {
    file: PathBuf,
    dumps: usize,
}

impl Callgrind {
    /// For a server of this name; one for each server.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        Self { file: folder.join(name), dumps: 0 }
    }

    /// Whether it is installed.
    pub(crate) fn is_installed() -> bool {
        let mut valgrind = Command::new("valgrind");
        valgrind.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        valgrind.status().is_ok_and(|status| status.success())
    }

    /// What a program's command line begins with. One core, so that it starts one worker thread.
    pub(crate) fn prefix(&self) -> Vec<OsString> {
        let option = |name: &str, file: &Path| {
            let mut option = OsString::from(name);
            option.push(file);
            option
        };
        let mut words = Core::Server.prefix();
        words.extend(["valgrind", "--tool=callgrind", "--separate-threads=yes"].map(Into::into));
        words.push(option("--callgrind-out-file=", &self.file));
        words.push(option("--log-file=", &self.file.with_extension("valgrind")));
        words
    }

    /// What the server did since the last dump.
    ///
    /// # Errors
    /// When valgrind does not answer.
    pub(crate) fn dump(&mut self, server: &Server) -> io::Result<Profile> {
        let mut vgdb = Command::new("vgdb");
        vgdb.arg(format!("--pid={}", server.pid())).args(["--wait=10", "dump"]);
        let output = vgdb.stdin(Stdio::null()).output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        self.dumps += 1;
        Profile::read(&self.file.with_extension(self.dumps.to_string()))
    }
}
