//! What is measured, and for how long: the command line.

use std::{env, time::Duration};

/// A part of the output, by the word that asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// `start`: starts, idle memory, sizes.
    Start,
    /// `throughput`: the groups of paired rounds.
    Throughput,
    /// `faults`: collectors that fail, for long.
    Faults,
    /// `instructions`: callgrind.
    Instructions,
    /// `spans`: what a span costs, without HTTP.
    Spans,
    /// `inside`: what events and spans of `tracing` cost.
    Inside,
}

impl Part {
    const ALL: [(&str, Self); 6] = [
        ("start", Self::Start),
        ("throughput", Self::Throughput),
        ("faults", Self::Faults),
        ("instructions", Self::Instructions),
        ("spans", Self::Spans),
        ("inside", Self::Inside),
    ];
}

/// How much is measured.
pub(crate) struct Plan {
    parts: Vec<Part>,
    /// Of groups and arms, those whose names contain this.
    pub(crate) only: Option<String>,
    /// How many functions of each arm are listed.
    pub(crate) top: Option<usize>,
    /// How often every arm of the first group has its turn; half as often in the others.
    pub(crate) rounds: usize,
    /// How long one turn counts, after a warm-up.
    pub(crate) window: Duration,
    /// How often a host is started.
    pub(crate) starts: usize,
    /// How long a collector fails.
    pub(crate) fault: Duration,
}

impl Plan {
    const FULL: Self = Self {
        parts: Vec::new(),
        only: None,
        top: None,
        rounds: 12,
        window: Duration::from_millis(600),
        starts: 20,
        fault: Duration::from_secs(60),
    };
    const QUICK: Self = Self {
        rounds: 3,
        window: Duration::from_millis(250),
        starts: 5,
        fault: Duration::from_secs(2),
        parts: Vec::new(),
        only: None,
        top: None,
    };

    /// All parts where none is named. Words that mean nothing are cargo's `--bench`, or meant for the
    /// criterion benches beside this one.
    pub(crate) fn of_the_command_line() -> Self {
        let words: Vec<String> = env::args().skip(1).collect();
        let is_given = |word: &str| words.iter().any(|it| it == word);
        let value = |word: &str| words.get(words.iter().position(|it| it == word)? + 1).cloned();
        let named = Part::ALL.iter().filter(|(word, _)| is_given(word)).map(|(_, part)| *part);
        let plan = if is_given("--quick") { Self::QUICK } else { Self::FULL };
        Self {
            parts: named.collect(),
            only: value("--only"),
            top: value("--top").and_then(|count| count.parse().ok()),
            ..plan
        }
    }

    /// Whether the part is asked for.
    pub(crate) fn has(&self, part: Part) -> bool {
        self.parts.is_empty() || self.parts.contains(&part)
    }

    /// Whether everything is asked for.
    pub(crate) const fn is_whole(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether this group or arm is asked for.
    pub(crate) fn is_meant(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }
}
