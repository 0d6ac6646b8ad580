//! A library with a few bytes flipped where the dynamic loader believes every number.

use std::{fs, ops::Range, path::Path, process::Command};

use harness::{artifacts::plugin_noop, run};
use libtest_mimic::Trial;

use super::{last_words, open_folder, row};

const MUTATIONS: u64 = 2_500;
/// Another number is another set of mutations.
const SEED: u64 = 0x0b5e_55ed;

pub(super) fn trials() -> Vec<Trial> {
    vec![row("bytes flipped in the ELF header", no_mutation_of_the_headers_kills_the_host)]
}

/// A library, and where its ELF header, its program headers and its section headers are.
struct Original {
    bytes: Vec<u8>,
    headers: [Range<usize>; 3],
}

impl Original {
    /// The smallest plugin, without its symbols, so that writing it takes no time.
    fn in_folder(folder: &Path) -> Self {
        let stripped = folder.join("liboriginal.so");
        let status = Command::new("strip").arg("-o").args([&stripped, &plugin_noop()]).status();
        assert!(status.expect("strip comes with the C compiler").success());
        let bytes = fs::read(stripped).unwrap();
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let half = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
        let table = |start: usize, size: usize, count: usize| {
            let start = usize::try_from(word(start)).unwrap();
            start..start + usize::from(half(size)) * usize::from(half(count))
        };
        let headers = [0..64, table(32, 54, 56), table(40, 58, 60)];
        Self { bytes, headers }
    }

    /// Changes one to three bytes, always the same for the same number.
    fn mutation(&self, number: u64) -> (Vec<u8>, Vec<(usize, u8)>) {
        let mut random = Random(SEED ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut bytes = self.bytes.clone();
        let changes = (0..=random.below(3)).map(|_| {
            let headers = &self.headers[random.below(3)];
            let at = headers.start + random.below(headers.len());
            let value = match random.below(4) {
                0 => bytes[at] ^ (1 << random.below(8)),
                1 => 0,
                2 => 0xff,
                _ => u8::try_from(random.below(256)).unwrap(),
            };
            bytes[at] = value;
            (at, value)
        });
        let changes = changes.collect();
        (bytes, changes)
    }
}

/// The generator `SplitMix64`.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).unwrap()
    }
}

async fn no_mutation_of_the_headers_kills_the_host() {
    let folder = open_folder();
    let original = Original::in_folder(folder.path());
    let worker = async |first| {
        let library = folder.path().join(format!("libmutation{first}.so"));
        let mut refused = 0;
        for number in (first..MUTATIONS).step_by(3) {
            let (bytes, changes) = original.mutation(number);
            fs::write(&library, bytes).unwrap();
            let mutation = format!("mutation {number}: {changes:x?}");
            refused += u64::from(is_refused(&library, &mutation).await);
        }
        refused
    };
    let refused = tokio::join!(worker(0), worker(1), worker(2));
    let refused = refused.0 + refused.1 + refused.2;
    assert!(refused > MUTATIONS / 2, "only {refused} were refused: is it the headers that change?");
}

/// Whether the host refuses the library, in one line. Where it finds nothing wrong with it, the
/// library is started and its layers are asked for as well: damage may show in the first call.
async fn is_refused(library: &Path, mutation: &str) -> bool {
    let folder = library.parent().unwrap();
    let path = library.to_str().unwrap();
    let output = run(folder, &["plugin", path], &[]).await;
    if output.code == 65 {
        let is_one_line = output.stderr.len() == last_words(&output).len() + 1;
        assert!(is_one_line, "{mutation}: {output:?}");
        return true;
    }
    assert_eq!((output.code, &*output.stderr), (0, ""), "{mutation}: {output:?}");
    let otel = [
        ("HOST_OTEL__ENABLED", "true"),
        ("HOST_OTEL__REQUIRED", "true"),
        ("HOST_OTEL__LIBRARY", path),
    ];
    let output = run(folder, &["check"], &otel).await;
    assert_eq!(output.code, 0, "{mutation}: {output:?}");
    assert!(output.stdout.contains("server stack: noop"), "{mutation}: {output:?}");
    false
}
