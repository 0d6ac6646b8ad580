//! The configurations of the hosts that are measured.

use std::{net::SocketAddr, path::Path};

/// The path that is asked for.
pub(crate) const PATH: &str = "/hello";

/// What every host has; `upstream` is where it forwards to. A log of JSON lines can be read back.
fn common(upstream: SocketAddr) -> String {
    format!(
        "log.format = \"json\"\n\
         discovery.static = {{ upstream = [\"http://{upstream}\"] }}\n\
         route = [{{ path = \"{PATH}\", service = \"upstream\" }}]\n"
    )
}

/// A host that answers by itself.
pub(crate) fn upstream() -> String {
    format!("route = [{{ path = \"{PATH}\", respond = {{ body = \"ok\\n\" }} }}]\n")
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

/// A forwarding host that is traced, its spans sent to `collector` over gRPC.
pub(crate) fn traced(
    upstream: SocketAddr,
    plugin: &Path,
    collector: SocketAddr,
    sampler: &str,
) -> String {
    // What a run leaves in the queue is to be gone before the next one counts.
    let own = format!(
        "enabled = true\nrequired = true\nendpoint = \"http://{collector}\"\n\
         sampler = \"{sampler}\"\nschedule-delay = \"100ms\""
    );
    otel(upstream, plugin, &own)
}

fn otel(upstream: SocketAddr, plugin: &Path, own: &str) -> String {
    format!("{}[otel]\nlibrary = \"{}\"\n{own}\n", common(upstream), plugin.display())
}
