//! The real plugin of 1.0.0 in the whole host of today, which asks it for what it does not have.

use std::{
    net::SocketAddr,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use harness::{
    HostProcess, Variant,
    artifacts::{plugin_noop, plugin_of_older_minor},
    wait::{until, within},
};
use libtest_mimic::Trial;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::{answers, config, open_folder, row, run_at_once};

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
    let config = config()
        .plugin(&library)
        .set("otel.required", true)
        .group("upstream", format!("http://{}", upstream.address))
        .forward("/upstream/{what}", "upstream");
    let host = HostProcess::start(config).await;
    assert_eq!(host.lines_with(&["INFO", "(abi 1.0.0)", &library]).len(), 1, "{}", host.stderr());

    answers(&host).await;
    let plain = host.get("/upstream/plain").send().await;
    assert_eq!((plain.status, plain.text()), (200, "well"));
    // Whether the host makes another attempt and opens tunnels is not what is asked here: whatever
    // it does, this plugin bears it.
    let retried = host.get("/upstream/cut-at-first").send().await;
    assert!([200, 502].contains(&retried.status), "{retried:?}");
    upgrade(host.public()).await;

    // What answers() asks for is four exchanges. Each call upstream is one, and so is its cause.
    let ends = 4 + 3 + upstream.calls.load(Ordering::Relaxed);
    let plugin = until("every end to be counted", async || {
        let plugin = host.plugin().await;
        (plugin["status"]["ends"].as_u64()? >= ends).then_some(plugin)
    })
    .await;
    assert_eq!(plugin["status"], json!({ "ends": ends }), "once each: {plugin}");
    assert_eq!((&plugin["abi"], &plugin["panics"]), (&json!("1.0.0"), &json!(0)), "{plugin}");
    assert_eq!(plugin["state"], "running", "{plugin}");
    let calls = upstream.calls.load(Ordering::Relaxed);
    assert_eq!(upstream.named.load(Ordering::Relaxed), calls, "not all calls carry the header");
    let output = host.stop().await;
    assert_eq!((output.code, output.stderr.matches("panic").count()), (0, 0), "{output:?}");
}

/// Asks for another protocol, and uses it if that is granted.
async fn upgrade(host: SocketAddr) {
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = b"GET /upstream/upgrade HTTP/1.1\r\nhost: here\r\nconnection: upgrade\r\n\
        upgrade: echo\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let head = within("an answer to an upgrade", read_head(&mut stream)).await.unwrap();
    if head.starts_with("HTTP/1.1 200") {
        return;
    }
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    within("an echo through the tunnel", stream.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"ping");
}

/// A service that answers well, cuts the first of some connections, and grants upgrades.
struct Moody {
    address: SocketAddr,
    calls: Arc<AtomicU64>,
    /// Those that carry the header of the plugin.
    named: Arc<AtomicU64>,
}

impl Moody {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (calls, named) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let moody = Self { address, calls: Arc::clone(&calls), named: Arc::clone(&named) };
        tokio::spawn(async move {
            let mut cuts = 0;
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(head) = read_head(&mut stream).await else { continue };
                calls.fetch_add(1, Ordering::Relaxed);
                let is_named = head.contains("x-older-minor: 1.0.0\r\n");
                named.fetch_add(is_named.into(), Ordering::Relaxed);
                if head.contains("/cut-at-first") && cuts == 0 {
                    cuts += 1;
                } else {
                    tokio::spawn(answer(stream, head.contains("upgrade: echo")));
                }
            }
        });
        moody
    }
}

async fn answer(mut stream: TcpStream, upgrades: bool) -> std::io::Result<()> {
    if !upgrades {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nwell";
        return stream.write_all(answer).await;
    }
    let answer =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(answer).await?;
    let (mut reader, mut writer) = stream.split();
    tokio::io::copy(&mut reader, &mut writer).await.map(drop)
}

/// Reads to the empty line.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
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
