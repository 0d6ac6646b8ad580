//! What it costs to choose an instance, by the size of its group: the table at rest, and while a new
//! one is put in its place all the time.
//!
//! `cargo bench -p host --bench balance`. A choice is counted as in flight and dropped at once, as
//! it is for every request. Instructions per choice: run the bench's program twice under
//! `valgrind --tool=callgrind` with another `--measurement-time`, and divide the difference of the
//! instructions by that of the iterations in criterion's `sample.json`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a bench has nothing to do but end when it cannot measure"
)]
#![allow(missing_docs, reason = "criterion's macros make functions without documentation")]

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use host::{
    config,
    discovery::{Directory, Groups, Instance},
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
};

fn groups(size: usize) -> Arc<Groups> {
    let instance = |number: usize| {
        let url = format!("http://10.0.{}.{}:8080", number / 256, number % 256);
        let (name, version, labels) = Default::default();
        let (id, url) = (url.clone(), url.try_into().expect("a base URL"));
        Arc::new(Instance { id, name, version, url, labels })
    };
    // A group among others.
    let group = |name: &str| (name.to_owned(), (0..size).map(instance).collect());
    Arc::new(["billing", "greeter", "manager", "storage-proxy"].map(group).into())
}

/// Follows the table on a thread of its own, as the host does beside those that serve.
fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).build().expect("a runtime")
}

fn choice(criterion: &mut Criterion) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let mut group = criterion.benchmark_group("choice");
    for size in [1, 2, 10, 100, 1000, 10_000] {
        let (_sender, receiver) = watch::channel(groups(size));
        let directory = Directory::new(receiver, &config::Client::default());
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| black_box(directory.choose("manager", &[])).is_ok());
        });
    }
    group.finish();
}

fn choice_while_the_table_changes(criterion: &mut Criterion) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let (sender, receiver) = watch::channel(groups(10_000));
    let directory = Directory::new(receiver, &config::Client::default());
    let tables = [groups(9999), groups(10_000)];
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for table in tables.iter().cycle() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                sender.send_replace(Arc::clone(table));
                // A table takes a few milliseconds; the rest of a core is for what is measured.
                thread::park_timeout(Duration::from_millis(20));
            }
        });
        criterion.bench_function("choice of 10000 while the table changes", |bencher| {
            bencher.iter(|| black_box(directory.choose("manager", &[])).is_ok());
        });
        is_over.store(true, Ordering::Relaxed);
    });
}

criterion_group!(balance, choice, choice_while_the_table_changes);
criterion_main!(balance);
