//! A host that opens a file somebody dropped next to it is never brought down by that file, and says
//! in one line what is wrong with it.
//!
//! Each test is a row of one table, in a process of its own: what is wrong, what the host says, how
//! it ends, and that it serves where it goes on.

mod files;
mod moody;
mod mutations;
mod older_minor;
mod running;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use harness::{Config, HostProcess, Output, free, run_as, wait::until};
use libtest_mimic::Trial;

/// How long the host may take to say what is wrong, on a machine that has nothing else to do.
const AT_ONCE: Duration = Duration::from_secs(1);

/// All rows.
pub(crate) fn trials() -> Vec<Trial> {
    [files::trials(), older_minor::trials(), running::trials(), mutations::trials()]
        .into_iter()
        .flatten()
        .collect()
}

fn row<F>(name: &str, test: impl FnOnce() -> F + Send + 'static) -> Trial
where
    F: Future<Output: harness::Verdict> + 'static,
{
    harness::trial(&format!("boundary::{name}"), test)
}

/// A host without a plugin: it answers `/`, and `/up` by a call to itself.
fn config() -> Config {
    Config::new()
        .respond("/", 200, "as before")
        .group("itself", Config::OWN_URL)
        .forward_as("/up", "itself", "/")
}

/// The host has started at once, and serves.
async fn answers(host: &HostProcess) {
    let line = async || host.lines_with(&["ready", "took="]).pop();
    let took = until("the line of a start", line).await;
    let took = took.rsplit_once("took=").expect("its end").1;
    assert!(took.ends_with("ms") || took.ends_with("µs"), "longer than {AT_ONCE:?}: {took}");
    serves(host).await;
}

/// The host answers, its own calls included, as it does without a plugin.
async fn serves(host: &HostProcess) {
    for path in ["/", "/up"] {
        let answer = host.get(path).send().await;
        assert_eq!((answer.status, answer.text()), (200, "as before"));
    }
}

/// Runs the host to its end, and sees that it takes no time.
async fn run_at_once(
    user: Option<u32>,
    folder: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Output {
    // Another process may have the machine for a while, but not three times in a row.
    for _ in 0..3 {
        let start = Instant::now();
        let output = run_as(user, folder, arguments, environment).await;
        if start.elapsed() < AT_ONCE {
            return output;
        }
    }
    panic!("took longer than {AT_ONCE:?}, three times: {arguments:?}")
}

/// Starts a host that is expected to end by itself, and to log nothing but what is wrong.
async fn start(user: Option<u32>, config: Config, environment: &[(&str, &str)]) -> Output {
    let folder = open_folder();
    let file = folder.path().join("host.toml");
    let [public, admin] = free().map(|address| address.to_string());
    let config = config.set("server.listen", public).set("admin.listen", admin);
    fs::write(&file, config.set("log.level", "error").text()).unwrap();
    run_at_once(user, folder.path(), &["--config", file.to_str().unwrap()], environment).await
}

/// A temporary folder that other users may look into.
fn open_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    mode(folder.path(), 0o755);
    folder
}

fn mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// The one line with which the host ended.
fn last_words(output: &Output) -> &str {
    let lines: Vec<_> = output.stderr.lines().filter(|line| line.starts_with("host: ")).collect();
    let [line] = lines[..] else { panic!("not one line: {output:?}") };
    line
}
