//! What callgrind wrote: instructions and allocations, by thread and function.

use std::{cmp::Reverse, collections::HashMap, fs, io, path::Path};

/// The functions of the C library that every allocation ends in.
const ALLOCATORS: [&str; 5] = ["malloc", "calloc", "realloc", "aligned_alloc", "posix_memalign"];

/// What a program did between two moments.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    /// The busiest first.
    pub(crate) threads: Vec<Thread>,
    /// Calls of an allocator.
    pub(crate) allocations: u64,
}

/// What a thread did.
#[derive(Debug, Default)]
pub(crate) struct Thread {
    pub(crate) instructions: u64,
    /// Instructions of each function itself.
    functions: HashMap<String, u64>,
}

impl Profile {
    /// Sums up the files of one dump: one for each thread, `PREFIX-01` and so on.
    ///
    /// # Errors
    /// When there is none, or one is not callgrind's.
    pub(crate) fn read(prefix: &Path) -> io::Result<Self> {
        let mut profile = Self::default();
        for thread in 1.. {
            let mut name = prefix.as_os_str().to_owned();
            name.push(format!("-{thread:02}"));
            match fs::read_to_string(name) {
                Ok(text) => profile.add(&text)?,
                // Numbers of threads that have ended are free again, so there is no gap but the end.
                Err(error) if thread > 1 && error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        profile.threads.sort_by_key(|thread| Reverse(thread.instructions));
        Ok(profile)
    }

    pub(crate) fn instructions(&self) -> u64 {
        self.threads.iter().map(|thread| thread.instructions).sum()
    }

    /// The thread that ran a function whose name ends like this.
    pub(crate) fn thread_of(&self, function: &str) -> Option<&Thread> {
        let runs = |thread: &&Thread| thread.functions.keys().any(|name| name.ends_with(function));
        self.threads.iter().find(runs)
    }

    /// The functions with the most instructions of their own.
    pub(crate) fn top(&self, count: usize) -> Vec<(&str, u64)> {
        let mut sums = HashMap::<_, u64>::new();
        for (name, own) in self.threads.iter().flat_map(|thread| &thread.functions) {
            *sums.entry(&**name).or_default() += own;
        }
        let mut all: Vec<_> = sums.into_iter().collect();
        all.sort_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(other.0)));
        all.truncate(count);
        all
    }

    /// Adds one thread. The format: "Callgrind Format Specification" of valgrind's manual.
    fn add(&mut self, text: &str) -> io::Result<()> {
        let mut names = Names::default();
        let (mut function, mut called) = ("", "");
        let mut is_call = false;
        let mut thread = Thread::default();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = names.full(name);
            } else if let Some(name) = line.strip_prefix("cfn=") {
                called = names.full(name);
            } else if let Some(calls) = line.strip_prefix("calls=") {
                // The next line is what the call cost, which the called function has too.
                is_call = true;
                if ALLOCATORS.contains(&called) {
                    self.allocations += number(calls.split(' ').next(), line)?;
                }
            } else if line.starts_with(is_position) && !std::mem::take(&mut is_call) {
                let own = number(line.split(' ').nth(1), line)?;
                thread.instructions += own;
                *thread.functions.entry(function.to_owned()).or_default() += own;
            }
        }
        self.threads.push(thread);
        Ok(())
    }
}

/// Names are written once, behind a number in parentheses that stands for them from then on.
#[derive(Default)]
struct Names<'a>(HashMap<&'a str, &'a str>);

impl<'a> Names<'a> {
    fn full(&mut self, text: &'a str) -> &'a str {
        match text.split_once(' ') {
            Some((number, name)) if number.starts_with('(') => {
                self.0.insert(number, name);
                name
            }
            _ => self.0.get(text).copied().unwrap_or(text),
        }
    }
}

/// Whether a line begins with that of the source, be it relative.
fn is_position(first: char) -> bool {
    first.is_ascii_digit() || "+-*".contains(first)
}

fn number(text: Option<&str>, line: &str) -> io::Result<u64> {
    let wrong = || io::Error::other(format!("not a line of callgrind's: {line}"));
    text.and_then(|text| text.parse().ok()).ok_or_else(wrong)
}
