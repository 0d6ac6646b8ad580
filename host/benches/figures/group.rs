//! Arms that are asked the same thing: each has its turn between two turns of the yardstick.

use std::{fmt, io, time::Duration};

use crate::{
    arm::{Arm, ENOUGH, QUIET},
    figure::Figure,
    load::{self, Load, Run},
    programs::Programs,
    server::Server,
    statistics::Spread,
    subject::Subject,
};

/// What is asked of whom.
pub(crate) struct Group {
    pub(crate) title: &'static str,
    pub(crate) load: Load,
    pub(crate) rounds: usize,
    /// What the others are compared with, twice: the second process shows the noise.
    pub(crate) yardstick: Subject,
    pub(crate) subjects: Vec<Subject>,
}

/// What was measured in a group.
pub(crate) struct Measured {
    pub(crate) title: &'static str,
    pub(crate) figures: Vec<Figure>,
    /// What a reader has to know of it.
    notes: Vec<String>,
}

impl Group {
    /// Measures every arm; one that cannot be measured is a note.
    pub(crate) fn measure(
        &self,
        programs: &Programs<'_>,
        upstream: &Server,
        window: Duration,
    ) -> Measured {
        let mut notes = Vec::new();
        let mut arms = Vec::new();
        let yardstick = [(self.yardstick, false), (self.yardstick, true)];
        let others = self.subjects.iter().map(|subject| (*subject, false));
        for (subject, is_again) in yardstick.into_iter().chain(others) {
            match Arm::start(subject, is_again, programs) {
                Ok(arm) => arms.push(arm),
                Err(error) => notes.push(format!("{subject} is left out: {error}")),
            }
        }
        let turn = |arm: &Arm| load::run(&arm.server, upstream, &self.load, window);
        if arms.first().is_some_and(|first| first.subject == self.yardstick)
            && let Err(error) = self.take_turns(&mut arms, &turn)
        {
            notes.push(format!("The turns ended early, {} with {error}", self.yardstick));
        }
        for arm in &arms {
            notes.extend(arm.failure.as_ref().map(|it| format!("{} ended: {it}", arm.subject)));
        }
        let foreign = arms.iter().flat_map(|arm| &arm.turns).map(|turn| turn.run.foreign);
        let foreign: Vec<f64> = foreign.collect();
        if !foreign.is_empty() {
            notes.push(self.method(window, Spread::of(foreign).median));
        }
        let figures = arms.iter().filter_map(Figure::of).collect();
        Measured { title: self.title, figures, notes }
    }

    /// Every other round begins with another arm.
    fn take_turns(
        &self,
        arms: &mut [Arm],
        turn: &impl Fn(&Arm) -> io::Result<Run>,
    ) -> io::Result<()> {
        let [yardstick, arms @ ..] = arms else { return Ok(()) };
        let mut last = turn(yardstick)?;
        for round in 0..self.rounds {
            let first = round % arms.len().max(1);
            for index in (first..arms.len()).chain(0..first) {
                let arm = &mut arms[index];
                if arm.failure.is_some() {
                    continue;
                }
                match turn(arm) {
                    Ok(run) => {
                        let next = turn(yardstick)?;
                        arm.push(run, [last, next]);
                        yardstick.push(next, [next; 2]);
                        last = next;
                    }
                    Err(error) => arm.failure = Some(error),
                }
            }
        }
        Ok(())
    }

    fn method(&self, window: Duration, foreign: f64) -> String {
        let Load { path, connections, streams } = self.load;
        let streams = streams.map_or_else(String::new, |it| format!(" of {it} streams each"));
        format!(
            "`GET {path}`, {connections} connections{streams}, {} rounds of {window:?} an arm. Other \
             processes used {:.0} % of a core meanwhile (median). Turns with more than {:.0} % are \
             left out where at least {ENOUGH} remain.",
            self.rounds,
            100.0 * foreign,
            100.0 * QUIET
        )
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n### {}\n\n{}", self.title, Figure::HEAD)?;
        self.figures.iter().try_for_each(|figure| writeln!(f, "{figure}"))?;
        self.notes.iter().try_for_each(|note| writeln!(f, "\n{}", note.trim_end()))
    }
}
