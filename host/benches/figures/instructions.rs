//! Instructions and allocations of a forwarded request, counted by callgrind.

use std::{
    fmt,
    io::{self, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use crate::{
    callgrind::Callgrind,
    exchange,
    plan::Plan,
    profile::Profile,
    programs::Programs,
    scene::FORWARDED,
    server::{self, Server},
    sink::Sink,
    subject::{
        ALL, NONE, Protocol,
        Subject::{self, Bare, Disabled, Nginx, Noop, Peer, Plain, Sampled, Stack},
    },
};

/// How many connections ask at once.
const CONNECTIONS: usize = 4;

/// Requests of each connection before anything is counted, and while it is.
const WARM_UP: usize = 100;
const COUNTED: usize = 500;

/// An answer that takes longer never comes.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long spans wait for their batch. Under valgrind a program is some fifty times slower: batches are
/// as large as those of [`server::DELAY`] are without it.
const DELAY: Duration = Duration::from_secs(5);

/// What is left to export has gone when no export came for this long.
const SETTLED: Duration = DELAY.saturating_add(Duration::from_secs(1));

/// The arms of which a change of the host or the plugin is seen.
pub(crate) const OWN: [Subject; 8] = [
    Bare,
    Plain,
    Disabled,
    Noop,
    NONE,
    Sampled("0.01", Protocol::Grpc),
    ALL,
    Sampled("1", Protocol::Http),
];

/// What others do for the same.
pub(crate) const PEERS: [Subject; 8] = [
    Stack,
    Peer("tower", "0"),
    Peer("tower", "1"),
    Peer("axum", "0"),
    Peer("axum", "1"),
    Peer("sdk", "0"),
    Peer("sdk", "1"),
    Nginx,
];

/// What callgrind counted for each subject.
pub(crate) struct Instructions(Vec<(Subject, Profile)>);

impl Instructions {
    /// Measures those of `subjects` that are meant; one that cannot be is a line.
    pub(crate) fn measure(programs: &mut Programs<'_>, subjects: &[Subject], plan: &Plan) -> Self {
        let mut measured = Vec::new();
        if !Callgrind::is_installed() {
            println!(
                "Instructions are left out: valgrind is not installed (apt-get install valgrind)."
            );
            return Self(measured);
        }
        for (number, subject) in subjects.iter().enumerate() {
            if !plan.is_meant(&subject.to_string()) {
                continue;
            }
            let callgrind = Callgrind::new(programs.folder.path(), &format!("arm{number}"));
            let delay = format!("{}={}", server::DELAY_VARIABLE, DELAY.as_millis());
            programs.prefix = [vec!["env".into(), delay.into()], callgrind.prefix()].concat();
            let counted = subject
                .start(programs)
                .and_then(|(server, sink)| measure(&server, callgrind, sink.as_ref()));
            match counted {
                Ok(profile) => measured.push((*subject, profile)),
                Err(error) => println!("{subject} is left out: {error}\n"),
            }
        }
        Self(measured)
    }

    /// Instructions and allocations of one request.
    pub(crate) fn of(&self, subject: Subject) -> Option<(f64, f64)> {
        let (_, profile) = self.0.iter().find(|(it, _)| *it == subject)?;
        Some((each(profile.instructions()), each(profile.allocations)))
    }

    /// The functions of each subject with the most instructions of their own.
    pub(crate) fn print_top(&self, count: usize) {
        for (subject, profile) in &self.0 {
            println!("\n{subject}: instructions of a function itself, for each request\n");
            for (function, own) in profile.top(count) {
                println!("{:9.1}  {function}", each(own));
            }
        }
    }
}

impl fmt::Display for Instructions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| a forwarded request | instructions | to the host without | to the bare forwarder | \
            busiest thread | other threads | allocations |"
        )?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- |")?;
        let more = |all: f64, beside| {
            self.of(beside).map_or_else(String::new, |(beside, _)| {
                format!("{:+.0} ({:+.1} %)", all - beside, 100.0 * (all / beside - 1.0))
            })
        };
        self.0.iter().try_for_each(|(subject, profile)| {
            let (all, allocations) = (each(profile.instructions()), each(profile.allocations));
            let busiest = each(profile.threads.first().map_or(0, |thread| thread.instructions));
            let (plain, bare) = (more(all, Plain), more(all, Bare));
            let others = all - busiest;
            write!(f, "| {subject} | {all:.0} | {plain} | {bare} | ")?;
            writeln!(f, "{busiest:.0} | {others:.0} | {allocations:.2} |")
        })
    }
}

/// From when all is warm until the last span has gone.
fn measure(server: &Server, mut callgrind: Callgrind, sink: Option<&Sink>) -> io::Result<Profile> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(server.address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        connections.push(stream);
    }
    ask(&mut connections, WARM_UP)?;
    settle(sink);
    callgrind.dump(server)?;
    ask(&mut connections, COUNTED)?;
    settle(sink);
    callgrind.dump(server)
}

/// Every connection asks, then every answer is read, so that each run does the same.
fn ask(connections: &mut [TcpStream], times: usize) -> io::Result<()> {
    let request = exchange::request(FORWARDED);
    let mut answer = Vec::new();
    for _ in 0..times {
        for stream in &mut *connections {
            stream.write_all(request.as_bytes())?;
        }
        for stream in &mut *connections {
            answer.clear();
            while !exchange::is_whole(&answer)? {
                let mut part = [0; 4096];
                match stream.read(&mut part)? {
                    0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    length => answer.extend_from_slice(&part[..length]),
                }
            }
        }
    }
    Ok(())
}

fn settle(sink: Option<&Sink>) {
    let Some(sink) = sink else { return };
    let exported = || sink.spans();
    let (mut spans, mut since) = (exported(), Instant::now());
    while since.elapsed() < SETTLED {
        thread::park_timeout(SETTLED / 20);
        if exported() != spans {
            (spans, since) = (exported(), Instant::now());
        }
    }
}

/// Of one request.
fn each(count: u64) -> f64 {
    count as f64 / (CONNECTIONS * COUNTED) as f64
}
