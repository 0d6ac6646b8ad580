//! The configurations of the hosts that are measured.

use std::{net::SocketAddr, path::Path};

/// A path that is forwarded, to three bytes.
pub(crate) const FORWARDED: &str = "/hello";

/// A path that is forwarded, to [`LARGE_BODY`] bytes.
pub(crate) const LARGE: &str = "/large";

/// A path that the host answers by itself.
pub(crate) const HERE: &str = "/here";

/// The bytes of a large body.
const LARGE_BODY: usize = 1 << 20;

/// What every host has; `upstream` is where it forwards to. A log of JSON lines can be read back.
fn common(upstream: SocketAddr) -> String {
    format!(
        "log.format = \"json\"\n\
         discovery.static = {{ upstream = [\"http://{upstream}\"] }}\n\
         route = [\n\
         {{ path = \"{FORWARDED}\", service = \"upstream\" }},\n\
         {{ path = \"{LARGE}\", service = \"upstream\" }},\n\
         {{ path = \"{HERE}\", respond = {{ body = \"ok\\n\" }} }},\n\
         ]\n"
    )
}

/// Keys of a plugin that is loaded.
const LOADED: &str = "enabled = true\nrequired = true\n";

/// A host that answers by itself.
pub(crate) fn upstream() -> String {
    let large = "x".repeat(LARGE_BODY);
    format!(
        "route = [\n\
         {{ path = \"{FORWARDED}\", respond = {{ body = \"ok\\n\" }} }},\n\
         {{ path = \"{LARGE}\", respond = {{ body = \"{large}\" }} }},\n\
         ]\n"
    )
}

/// A forwarding host without any word of a plugin.
pub(crate) fn plain(upstream: SocketAddr) -> String {
    common(upstream)
}

/// A forwarding host whose plugin is there and switched off.
pub(crate) fn disabled(upstream: SocketAddr, plugin: &Path) -> String {
    otel(upstream, plugin, "enabled = false")
}

/// A forwarding host whose plugin is not there.
pub(crate) fn missing(upstream: SocketAddr) -> String {
    otel(upstream, Path::new("./no-such-library.so"), "enabled = true")
}

/// A forwarding host that is traced, its spans sent to `collector`; `own` has further keys.
pub(crate) fn traced(
    upstream: SocketAddr,
    plugin: &Path,
    collector: SocketAddr,
    own: &str,
) -> String {
    let own = format!("{LOADED}endpoint = \"http://{collector}\"\n{own}");
    otel(upstream, plugin, &own)
}

/// A forwarding host whose plugin has no settings.
pub(crate) fn loaded(upstream: SocketAddr, plugin: &Path) -> String {
    otel(upstream, plugin, LOADED)
}

/// Keys of [`traced`]: the share of traces that is recorded.
pub(crate) fn sampled(ratio: &str) -> String {
    format!("sampler = \"parentbased_traceidratio\"\nsampler-arg = {ratio}")
}

fn otel(upstream: SocketAddr, plugin: &Path, own: &str) -> String {
    format!("{}[otel]\nlibrary = \"{}\"\n{own}\n", common(upstream), plugin.display())
}
