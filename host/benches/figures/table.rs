//! A Markdown table of figures and their targets.

use std::fmt;

/// One figure.
#[derive(Default)]
pub(crate) struct Row {
    figure: String,
    target: String,
    measured: String,
    holds: &'static str,
    range: String,
}

impl Row {
    /// A figure of which nothing is known yet.
    pub(crate) fn new(figure: impl Into<String>) -> Self {
        Self { figure: figure.into(), ..Self::default() }
    }

    /// The measured value and its unit.
    pub(crate) fn measured(self, measured: impl Into<String>) -> Self {
        Self { measured: measured.into(), ..self }
    }

    /// What the value should be, and whether it is.
    pub(crate) fn target(self, target: impl Into<String>, holds: bool) -> Self {
        Self { target: target.into(), holds: if holds { "yes" } else { "**no**" }, ..self }
    }

    /// The least and the greatest single measurement.
    pub(crate) fn range(self, range: impl Into<String>) -> Self {
        Self { range: range.into(), ..self }
    }
}

/// All figures, in the order in which they were pushed.
#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

impl Table {
    pub(crate) fn push(&mut self, row: Row) {
        self.0.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| figure | target | measured | holds | min .. max |")?;
        writeln!(f, "| --- | --- | --- | --- | --- |")?;
        self.0.iter().try_for_each(|row| {
            let Row { figure, target, measured, holds, range } = row;
            writeln!(f, "| {figure} | {target} | {measured} | {holds} | {range} |")
        })
    }
}
