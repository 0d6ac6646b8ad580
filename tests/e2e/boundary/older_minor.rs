//! The real plugin of 1.0.0 in the whole host of today, which asks it for what it does not have.

use std::process::Command;

use harness::{
    HostProcess, Variant,
    artifacts::{plugin_noop, plugin_of_older_minor},
    wait::until,
};
use libtest_mimic::Trial;
use serde_json::json;

use super::{
    answers, config,
    moody::{Moody, upgrade},
    open_folder, row, run_at_once,
};

pub(super) fn trials() -> Vec<Trial> {
    vec![
        row("older minor", it_loads_with_new_items_at_their_defaults),
        row("older minor: a function of the root", a_function_that_its_root_lacks_is_absent),
    ]
}

async fn it_loads_with_new_items_at_their_defaults() {
    let library = plugin_of_older_minor().display().to_string();
    let folder = open_folder();
    let described = run_at_once(None, folder.path(), &["plugin", &library], &[]).await;
    assert_eq!((described.code, described.stderr.as_str()), (0, ""), "{described:?}");
    for line in ["abi       1.0.0", "offers    server layer, client layer"] {
        assert!(described.stdout.lines().any(|found| found == line), "{described:?}");
    }

    let upstream = Moody::start().await;
    let config = upstream.behind(config().plugin(&library).set("otel.required", true));
    let host = HostProcess::start(config).await;
    let told = async || host.lines_with(&["INFO", "(abi 1.0.0)", &library]).pop();
    until("the line that tells what is loaded", told).await;

    answers(&host).await;
    let plain = host.get("/upstream/plain").send().await;
    assert_eq!((plain.status, plain.text()), (200, "well"));
    assert_eq!(host.get("/upstream/cut").send().await.status, 200);
    upgrade(host.public()).await;

    // What answers() asks for is four exchanges. Each call upstream is one, and so is its cause.
    let ends = 4 + 3 + upstream.calls();
    let plugin = until("every end to be counted", async || {
        let plugin = host.plugin().await;
        (plugin["status"]["ends"].as_u64()? >= ends).then_some(plugin)
    })
    .await;
    assert_eq!(plugin["status"], json!({ "ends": ends }), "once each: {plugin}");
    assert_eq!((&plugin["abi"], &plugin["panics"]), (&json!("1.0.0"), &json!(0)), "{plugin}");
    assert_eq!(plugin["state"], "running", "{plugin}");
    assert_eq!(upstream.named(), upstream.calls(), "not all calls carry the header");
    let output = host.stop().await;
    assert_eq!((output.code, output.stderr.matches("panic").count()), (0, 0), "{output:?}");
}

/// A host of the next version, which has one function more in its table.
async fn a_function_that_its_root_lacks_is_absent() {
    for (library, version) in [(plugin_noop(), "1.1.0"), (plugin_of_older_minor(), "1.0.0")] {
        let output = Command::new(Variant::NEWER_MINOR.loader()).arg(library).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let expected = format!("1.2.0 loads {version}: function None, method 42\n");
        assert_eq!(text, expected, "{output:?}");
        assert!(output.status.success(), "{output:?}");
    }
}
