//! Exchanges that are cut at every point where they can be, by the thousand: each span is closed
//! once, and nothing is left of any of them.

use std::{
    collections::{BTreeMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use harness::{
    Collector, Config, HostProcess, Skipped, SpanKind,
    wait::{until, within},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

trials![
    ten_thousand_cancelled_requests_leave_ten_thousand_closed_spans,
    cancelled_requests_leave_no_span_alive,
];

const REQUESTS: usize = 10_000;
const AT_ONCE: usize = 32;

/// Where an exchange is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The client goes before the response's head: the upstream never answers.
    BeforeTheHead,
    /// The client goes in the middle of its own body.
    InTheUpload,
    /// The client goes when it has seen the first byte of the response's body.
    InTheBody,
    /// The upstream goes in the middle of the response's body.
    Upstream,
}

impl Cut {
    const ALL: [Self; 4] =
        [Self::BeforeTheHead, Self::InTheUpload, Self::InTheBody, Self::Upstream];

    const fn path(self) -> &'static str {
        match self {
            Self::BeforeTheHead => "/cut/silent",
            Self::InTheUpload => "/cut/upload",
            Self::InTheBody => "/cut/endless",
            Self::Upstream => "/cut/short",
        }
    }

    /// Makes a request, which has this `number`, and has it cut.
    async fn make(self, number: usize, host: SocketAddr, upstream: &Shaky) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(host).await?;
        let length = if self == Self::InTheUpload { "content-length: 1000\r\n" } else { "" };
        let method = if self == Self::InTheUpload { "POST" } else { "GET" };
        let path = self.path();
        let head = format!("{method} {path}?{number} HTTP/1.1\r\nhost: here\r\n{length}\r\n");
        stream.write_all(head.as_bytes()).await?;
        match self {
            Self::BeforeTheHead => upstream.wait_for(number).await,
            Self::InTheUpload => {
                stream.write_all(&[b'x'; 100]).await?;
                upstream.wait_for(number).await;
            }
            Self::InTheBody => read_to_body(&mut stream).await?,
            Self::Upstream => {
                let mut answer = Vec::new();
                // A reset is as good an end as a close.
                let _ = stream.read_to_end(&mut answer).await;
            }
        }
        Ok(())
    }
}

/// Reads to the first byte after the empty line.
async fn read_to_body(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut answer = Vec::new();
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") || answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await?);
    }
    Ok(())
}

/// An upstream that does as the path says, and never ends an exchange well.
struct Shaky {
    address: SocketAddr,
    /// The numbers of the requests that have come.
    numbers: watch::Sender<HashSet<usize>>,
}

impl Shaky {
    async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let numbers = watch::Sender::new(HashSet::new());
        let sink = numbers.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(misbehave(stream, sink.clone()));
            }
        });
        Self { address, numbers }
    }

    async fn wait_for(&self, number: usize) {
        let mut numbers = self.numbers.subscribe();
        let arrival = numbers.wait_for(|numbers| numbers.contains(&number));
        within("a request upstream", arrival).await.expect("the upstream has the other end");
    }
}

async fn misbehave(
    mut stream: TcpStream,
    numbers: watch::Sender<HashSet<usize>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let number = head.split(['?', ' ']).nth(2).and_then(|number| number.parse::<usize>().ok());
    numbers.send_modify(|numbers| numbers.extend(number));
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nfirst";
    if head.contains(Cut::InTheBody.path()) {
        stream.write_all(answer).await?;
    } else if head.contains(Cut::Upstream.path()) {
        return stream.write_all(answer).await;
    }
    // Open until the host closes.
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.map(drop)
}

async fn traced_host(collector: &Collector, upstream: &Shaky) -> HostProcess {
    let config = Config::new()
        .group("upstream", format!("http://{}", upstream.address))
        .forward("/cut/{how}", "upstream")
        .traced(&collector.grpc_endpoint(), "grpc");
    HostProcess::start(config).await
}

async fn cancel(count: usize, host: &HostProcess, upstream: &Arc<Shaky>) {
    let mut workers = JoinSet::new();
    for first in 0..AT_ONCE {
        let (address, upstream) = (host.public(), Arc::clone(upstream));
        workers.spawn(async move {
            for number in (first..count).step_by(AT_ONCE) {
                let cut = Cut::ALL[number % Cut::ALL.len()];
                let made = cut.make(number, address, &upstream).await;
                made.unwrap_or_else(|error| panic!("{cut:?}: {error}"));
            }
        });
    }
    workers.join_all().await;
}

/// The counters of the plugin, once they stand still and say that all is over.
async fn settled(host: &HostProcess, requests: usize) -> Value {
    until("every exchange to be over", async || {
        let spans = host.plugin().await["status"]["spans"].clone();
        let count = |name: &str| spans[name].as_u64().unwrap();
        let over = count("exported") + count("dropped");
        // A SERVER span each; a CLIENT span only where the host got so far.
        let all = count("started") >= requests as u64 && count("started") == over;
        all.then_some(spans)
    })
    .await
}

async fn ten_thousand_cancelled_requests_leave_ten_thousand_closed_spans() {
    let (collector, upstream) = (Collector::start().await, Arc::new(Shaky::start().await));
    let host = traced_host(&collector, &upstream).await;
    cancel(REQUESTS, &host, &upstream).await;

    let counts = settled(&host, REQUESTS).await;
    assert_eq!(counts["dropped"], 0, "the queue has room for all: {counts}");
    assert_eq!(counts["sampled"], counts["started"], "{counts}");
    let exported = usize::try_from(counts["exported"].as_u64().unwrap()).unwrap();
    let spans = collector.wait_for("all that is exported", |all| all.len() >= exported).await;
    assert_eq!(spans.len(), exported);
    let ids: HashSet<_> = spans.iter().map(|span| &span.span_id).collect();
    assert_eq!(ids.len(), spans.len(), "a span is closed once");

    let servers = spans.iter().filter(|span| span.kind == SpanKind::Server);
    let mut cuts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for span in servers.clone() {
        let path = span.attribute("url.path").as_str().unwrap();
        let reason = span.attribute("exchange.end_reason").as_str().unwrap();
        *cuts.entry((path, reason)).or_default() += 1;
    }
    assert_eq!(servers.count(), REQUESTS, "{cuts:?}");
    let each = REQUESTS / Cut::ALL.len();
    for (cut, reason) in [
        (Cut::BeforeTheHead, "client gone"),
        (Cut::InTheUpload, "client gone"),
        (Cut::InTheBody, "client gone"),
        (Cut::Upstream, "upstream gone"),
    ] {
        assert_eq!(cuts.get(&(cut.path(), reason)), Some(&each), "{cut:?}: {cuts:?}");
    }
    assert_eq!(host.stop().await.code, 0);
}

async fn cancelled_requests_leave_no_span_alive() -> Result<(), Skipped> {
    let (collector, upstream) = (Collector::start().await, Arc::new(Shaky::start().await));
    let host = traced_host(&collector, &upstream).await;
    let live = host.plugin().await.pointer("/status/spans/live").cloned();
    let Some(live) = live else {
        return Err(Skipped::impossible("the plugin does not tell how many spans are alive"));
    };
    assert_eq!(live, 0);
    let mut open = TcpStream::connect(host.public()).await.unwrap();
    let head = format!("GET {}?400 HTTP/1.1\r\nhost: here\r\n\r\n", Cut::BeforeTheHead.path());
    open.write_all(head.as_bytes()).await.unwrap();
    upstream.wait_for(400).await;
    let is_alive = async |count: u64| {
        until(&format!("{count} spans to be alive"), async || {
            let plugin = host.plugin().await;
            (plugin["status"]["spans"]["live"] == count).then_some(())
        })
        .await;
    };
    is_alive(2).await;
    drop(open);
    is_alive(0).await;
    cancel(400, &host, &upstream).await;
    is_alive(0).await;
    settled(&host, 401).await;
    Ok(())
}
