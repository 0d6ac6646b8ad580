//! The figures that have a target, beside it.

use std::fmt;

use crate::{
    figure::Figure,
    group::Measured,
    instructions::Instructions,
    lineup::{ANSWERED_HERE, FORWARDED_REQUEST, PEERS},
    statistics::Spread,
    subject::{
        ALL, NONE,
        Subject::{self, Bare, Dead, Disabled, Missing, Nginx, Plain, Slow, Stack},
    },
    table::{Row, Table},
};

/// What was measured; what was not has no row.
pub(crate) struct Targets<'a> {
    pub(crate) measured: &'a [Measured],
    pub(crate) instructions: Option<&'a Instructions>,
}

impl Targets<'_> {
    fn figure(&self, title: &str, subject: Subject) -> Option<&Figure> {
        let group = self.measured.iter().find(|group| group.title == title)?;
        group.figures.iter().find(|figure| figure.subject == subject && !figure.is_again)
    }

    fn noise(&self) -> Option<&Figure> {
        let group = self.measured.iter().find(|group| group.title == FORWARDED_REQUEST)?;
        group.figures.iter().find(|figure| figure.is_again)
    }

    /// The rate over that of the yardstick, at least so much.
    fn rate(&self, table: &mut Table, title: &str, subject: Subject, least: f64) {
        let Some(figure) = self.figure(title, subject) else { return };
        let row = Row::new(format!("{title}: {subject}, requests/s to the host without"));
        let holds = figure.ratio.median >= least;
        table.push(spread(row, &figure.ratio, 3, "").target(format!(">= {least:.2}"), holds));
    }

    /// Switched off or absent: no difference but noise.
    fn absent(&self, table: &mut Table) {
        let Some(noise) = self.noise() else { return };
        for subject in [Missing, Disabled] {
            let Some(figure) = self.figure(FORWARDED_REQUEST, subject) else { continue };
            let holds = (noise.ratio.min..=noise.ratio.max).contains(&figure.ratio.median);
            let row = Row::new(format!("{subject}, requests/s to the host without"));
            let limit = format!("{} (the noise)", noise.ratio.range(2, ""));
            table.push(spread(row, &figure.ratio, 3, "").target(limit, holds));
        }
    }

    fn cost(&self, table: &mut Table) {
        let Some(figure) = self.figure(FORWARDED_REQUEST, ALL) else { return };
        let row = Row::new(format!("{ALL}, more CPU per request"));
        table
            .push(spread(row, &figure.more, 1, " µs").target("<= 2 µs", figure.more.median <= 2.0));
        let row = Row::new(format!("{ALL}, p99 to the host without"));
        table.push(spread(row, &figure.tail, 2, "").target("<= 1.3", figure.tail.median <= 1.3));
    }

    /// A collector that fails costs no more than one that works.
    fn faults(&self, table: &mut Table) {
        let Some(well) = self.figure(FORWARDED_REQUEST, ALL) else { return };
        for subject in [Dead, Slow] {
            let Some(figure) = self.figure(FORWARDED_REQUEST, subject) else { continue };
            let ratio = figure.ratio.median / well.ratio.median;
            // Within the noise of what both are compared with.
            let least = self.noise().map_or(0.95, |noise| noise.ratio.min);
            let row = Row::new(format!("{subject}, requests/s to {ALL}"));
            let target = format!(">= {least:.2} (the noise)");
            table.push(row.measured(format!("{ratio:.3}")).target(target, ratio >= least));
        }
    }

    /// A host without a plugin beside what was built without support for one.
    fn without_support(&self, table: &mut Table) {
        let (Some(stack), Some(noise)) = (self.figure(FORWARDED_REQUEST, Stack), self.noise())
        else {
            return;
        };
        let (ratio, least) = (1.0 / stack.ratio.median, noise.ratio.min);
        let row = Row::new(format!("{Plain}, requests/s to the {Stack}"));
        let target = format!(">= {least:.2} (the noise)");
        table.push(row.measured(format!("{ratio:.3}")).target(target, ratio >= least));
    }

    fn beside_nginx(&self, table: &mut Table) {
        let Some(nginx) = self.figure(FORWARDED_REQUEST, Nginx) else { return };
        let ratio = 1.0 / nginx.ratio.median;
        let row = Row::new("host, no plugin, requests/s to nginx");
        table.push(row.measured(format!("{ratio:.3}")).target(">= 0.95", ratio >= 0.95));
    }

    /// Beside the programs that others trace with: what each loses by it.
    fn beside_others(&self, table: &mut Table) {
        let pairs = [
            (Plain, ALL),
            (Bare, Subject::Peer("tower", "1")),
            (Bare, Subject::Peer("axum", "1")),
            (Bare, Subject::Peer("sdk", "1")),
            (Subject::Caddy(false), Subject::Caddy(true)),
            (Subject::Python(false), Subject::Python(true)),
        ];
        for (without, with) in pairs {
            let (Some(without), Some(with)) =
                (self.figure(PEERS, without), self.figure(PEERS, with))
            else {
                continue;
            };
            let ratio = with.ratio.median / without.ratio.median;
            let more = with.cpu.median - without.cpu.median;
            let row = Row::new(format!("{}, requests/s to itself without tracing", with.subject));
            table.push(row.measured(format!("{ratio:.3}, {more:+.1} µs CPU")));
        }
    }

    fn instructions(&self, table: &mut Table) {
        let Some(instructions) = self.instructions else { return };
        let Some((plain, plainly_allocated)) = instructions.of(Plain) else { return };
        let limits = [(Disabled, None, 0.0), (NONE, Some(7.0), 0.0), (ALL, Some(18.0), 2.0)];
        for (subject, limit, allocations) in limits {
            let Some((all, allocated)) = instructions.of(subject) else { continue };
            let percent = 100.0 * (all / plain - 1.0);
            // What is switched off differs by what callgrind itself varies.
            let limit = limit.unwrap_or(0.5);
            let row = Row::new(format!("{subject}, more instructions"));
            let row = row.measured(format!("{percent:+.1} %"));
            table.push(row.target(format!("<= {limit} %"), percent <= limit));
            let more = allocated - plainly_allocated;
            let row = Row::new(format!("{subject}, more allocations"));
            let row = row.measured(format!("{more:+.2}"));
            // A connection or a batch now and then is not one of a request.
            table.push(row.target(format!("<= {allocations}"), more <= allocations + 0.25));
        }
    }
}

impl fmt::Display for Targets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::default();
        self.without_support(&mut table);
        self.absent(&mut table);
        self.rate(&mut table, FORWARDED_REQUEST, NONE, 0.98);
        self.rate(&mut table, FORWARDED_REQUEST, ALL, 0.95);
        self.rate(&mut table, ANSWERED_HERE, ALL, 0.92);
        self.cost(&mut table);
        self.faults(&mut table);
        self.beside_nginx(&mut table);
        self.instructions(&mut table);
        self.beside_others(&mut table);
        table.fmt(f)
    }
}

fn spread(row: Row, spread: &Spread, decimals: usize, unit: &str) -> Row {
    row.measured(format!("{spread:.decimals$}{unit}")).range(spread.range(decimals, unit))
}
