//! Text with places for what a path has matched: `/users/{id}`.

use std::borrow::Cow;

use matchit::Params;

/// Text, cut at its places.
#[derive(Debug, Clone)]
pub(super) struct Template(Vec<Part>);

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Param(String),
}

impl Template {
    /// Cuts `text` at `{name}` and `{*name}` for every name in `params`. Other braces are text.
    pub(super) fn new(text: &str, params: &[String]) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((start, end, name)) = next_place(rest, params) {
            if start > 0 {
                parts.push(Part::Text(rest[..start].to_owned()));
            }
            parts.push(Part::Param(name));
            rest = &rest[end..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Self(parts)
    }

    /// The text with every place filled by what `fill` makes of its value.
    pub(super) fn render(&self, params: &Params<'_, '_>, fill: fn(&str) -> Cow<'_, str>) -> String {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Param(name) => text.push_str(&fill(params.get(name).unwrap_or_default())),
            }
        }
        text
    }
}

/// The names of the places in a route's path.
pub(super) fn names(path: &str) -> Vec<String> {
    let opened = path.split('{').skip(1);
    opened
        .filter_map(|rest| rest.split_once('}'))
        .map(|(name, _)| name.trim_start_matches('*').to_owned())
        .collect()
}

fn next_place(text: &str, params: &[String]) -> Option<(usize, usize, String)> {
    let places = params.iter().flat_map(|name| {
        [format!("{{{name}}}"), format!("{{*{name}}}")].map(|place| (place, name))
    });
    places
        .filter_map(|(place, name)| {
            text.find(&place).map(|at| (at, at + place.len(), name.clone()))
        })
        .min()
}
