//! What stands in a store: garbage, and a great many entries.

use std::fs;

use harness::{HostProcess, Kind, Skipped, Store, wait::until};

use super::{gateway, greeter, known, knows};

pub(super) async fn garbage_is_named_once(kind: Kind) -> Result<(), Skipped> {
    const GARBAGE: [(&str, &str); 6] = [
        ("services/greeter/bad-json", "{\"address\": "),
        ("services/greeter/user-info", r#"{"address": "me:pw@127.0.0.1:1"}"#),
        ("services/greeter/no-http", r#"{"address": "127.0.0.1:1", "protocol": "gopher"}"#),
        ("services/greeter/other-id", r#"{"address": "127.0.0.1:1", "id": "x"}"#),
        ("services/foreign", "x"),
        ("services/too/many/parts", r#"{"address": "127.0.0.1:1"}"#),
    ];
    let store = Store::start(kind).await?;
    let (before, later) = GARBAGE.split_at(3);
    for (path, value) in before {
        store.put(path, value).await;
    }
    let one = HostProcess::start(greeter(&store, "one")).await;
    let gateway = HostProcess::start(gateway(&store)).await;
    for (path, value) in later.iter().chain(&GARBAGE) {
        store.put(path, value).await;
    }
    let entry =
        |n: usize| (format!("services/many/{n}"), r#"{"address": "127.0.0.1:1"}"#.to_owned());
    for start in (0..10_000).step_by(100) {
        store.put_all(&(start..start + 100).map(entry).collect::<Vec<_>>()).await;
    }
    until("ten thousand entries to be known", async || {
        let services = gateway.ask("/services").await.json();
        (services["groups"]["many"].as_array()?.len() == 10_000).then_some(())
    })
    .await;
    // A host that starts now has all of it in its first snapshot.
    let late = HostProcess::start(super::gateway(&store)).await;
    for host in [&gateway, &late] {
        assert_eq!(host.get("/who").send().await.text(), "one");
        assert_eq!(known(host, "greeter").await.len(), 1);
        for (path, _) in GARBAGE {
            let lines = host.lines_with(&["WARN", &format!("{:?}", store.key(path))]);
            assert_eq!(lines.len(), 1, "{path}: {}", host.stderr());
        }
        assert!(!host.stderr().contains("pw@"), "{}", host.stderr());
    }
    drop(one);
    Ok(())
}

/// Each entry is another: nothing may be kept of one that is gone.
pub(super) async fn memory_is_flat_over_a_hundred_thousand_entries(
    kind: Kind,
) -> Result<(), Skipped> {
    const ROUND: usize = 10_000;
    let store = Store::start(kind).await?;
    let host = HostProcess::start(gateway(&store)).await;
    let mut figures = Vec::new();
    for round in 0..10 {
        for start in (round * ROUND..(round + 1) * ROUND).step_by(100) {
            let paths: Vec<String> =
                (start..start + 100).map(|n| format!("services/greeter/{n}")).collect();
            let value = |path: &String| (path.clone(), r#"{"address": "127.0.0.1:1"}"#.to_owned());
            store.put_all(&paths.iter().map(value).collect::<Vec<_>>()).await;
            store.remove_all(&paths).await;
        }
        // Whatever came before it has been seen with it.
        let name = format!("round-{round}");
        let last = format!(r#"{{"address": "127.0.0.1:1", "name": "{name}"}}"#);
        store.put("services/greeter/last", &last).await;
        knows(&host, "greeter", &[&name]).await;
        figures.push((resident_kib(host.id()), open_files(host.id())));
    }
    eprintln!("{kind:?}: KiB resident and open files, after each {ROUND} entries: {figures:?}");
    let (first, last) = (figures[1], figures[9]);
    // 80,000 entries that were kept would be 20 MiB.
    assert!(last.0 < first.0 + 5 * 1024, "{figures:?}");
    assert!(last.1 <= first.1 + 2, "{figures:?}");
    Ok(())
}

fn resident_kib(id: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn open_files(id: u32) -> usize {
    fs::read_dir(format!("/proc/{id}/fd")).unwrap().count()
}
