//! The arrows between the rooms, as cargo sees them.

use harness::artifacts::cargo;

trials![the_host_does_not_know_opentelemetry, the_contract_knows_no_runtime,];

/// The names of all packages that `package` is built from.
fn tree(package: &str) -> Vec<String> {
    let arguments = ["tree", "-p", package, "-e", "normal,build", "--target", "all"];
    let output = cargo().args(arguments).args(["--prefix", "none", "--format", "{p}"]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

async fn the_host_does_not_know_opentelemetry() {
    let names = tree("host");
    assert!(names.iter().any(|name| name == "hyper"), "{names:?}");
    let known: Vec<_> = names.iter().filter(|name| name.contains("opentelemetry")).collect();
    assert!(known.is_empty(), "{known:?}");
}

async fn the_contract_knows_no_runtime() {
    let names = tree("plugin-api");
    assert!(names.iter().any(|name| name == "abi_stable"), "{names:?}");
    for stranger in ["tokio", "hyper", "http", "tower", "tracing", "opentelemetry"] {
        assert!(!names.iter().any(|name| name == stranger), "{stranger} in {names:?}");
    }
}
