//! The layout of every type that crosses the boundary, as a text that is compared with the last one.
//!
//! Written into `layout.golden`, one paragraph for each type of the contract that a plugin's root
//! leads to. Types of abi_stable are named but not told: its version is pinned.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path};

use abi_stable::{
    StableAbi,
    type_layout::{TLData, TLField, TypeLayout},
};
use plugin_api::PluginRootRef;

const ADVICE: &str = "the layout of what crosses the boundary has changed. A minor version may only \
    append: a line that is new at the end of a paragraph, after the last field or method. Anything \
    else is a new major version (see `Versions` in the documentation of plugin-api). If it is meant, \
    say so in CHANGELOG.md and run `UPDATE_GOLDEN=1 cargo test -p plugin-api --test layout`.";

#[test]
fn the_layout_of_what_crosses_is_the_one_that_was_agreed() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layout.golden");
    let found = layout();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(golden, found).unwrap();
        return;
    }
    let agreed = fs::read_to_string(golden).unwrap();
    let lines = agreed.lines().zip(found.lines()).enumerate();
    let differs = lines.map(|(nth, (agreed, found))| (nth + 1, agreed, found));
    if let Some((nth, agreed, found)) = differs.into_iter().find(|(_, one, two)| one != two) {
        panic!("{ADVICE}\n\nline {nth}, agreed: {agreed}\nline {nth}, found:  {found}\n");
    }
    assert_eq!(agreed.lines().count(), found.lines().count(), "{ADVICE}");
}

fn layout() -> String {
    let mut types = BTreeSet::new();
    visit(PluginRootRef::LAYOUT, &mut Vec::new(), &mut types);
    types.into_iter().collect()
}

/// Adds the type and all that it leads to, by name.
fn visit(
    layout: &'static TypeLayout,
    seen: &mut Vec<&'static TypeLayout>,
    types: &mut BTreeSet<String>,
) {
    if seen
        .iter()
        .any(|one| std::ptr::eq(*one, layout) || one.get_utypeid() == layout.get_utypeid())
    {
        return;
    }
    seen.push(layout);
    if layout.package() == "plugin-api" {
        types.insert(paragraph(layout));
    }
    for nested in layout.shared_vars().type_layouts() {
        visit(nested(), seen, types);
    }
    if let Some(checks) = layout.extra_checks() {
        for nested in checks.nested_type_layouts().iter() {
            visit(nested, seen, types);
        }
    }
}

fn title(layout: &TypeLayout) -> String {
    format!("{} ({})", layout.full_type(), layout.mod_path())
}

fn paragraph(layout: &TypeLayout) -> String {
    let mut text = format!("{}\n", title(layout));
    let (size, align) = (layout.size(), layout.alignment());
    let _ = writeln!(text, "  size {size}, align {align}, {:?}", layout.repr_attr());
    match layout.data() {
        TLData::PrefixType(prefix) => {
            let _ = writeln!(text, "  first {} fields required", prefix.first_suffix_field);
            fields(&mut text, prefix.fields.iter());
        }
        TLData::Struct { fields: all } | TLData::Union { fields: all } => {
            fields(&mut text, all.iter());
        }
        other => {
            let _ = writeln!(text, "  {}", words(&other.to_string()));
        }
    }
    text.push('\n');
    text
}

fn fields(text: &mut String, all: impl Iterator<Item = TLField>) {
    for field in all {
        if !field.is_function() {
            let _ = writeln!(text, "  {}: {}", field.name(), spelled(field.layout()));
        }
        for function in field.function_range().iter() {
            let text_of = words(&function.to_string());
            let parameters = text_of.split("->").next().unwrap_or(&text_of);
            let answer = function.return_type_layout().map(|layout| spelled(layout()));
            let answer = answer.unwrap_or_default();
            let _ = writeln!(text, "  {}: {parameters} -> {answer}", field.name());
        }
    }
}

/// A type's name, with the types that it is made of where it is a container of abi_stable's.
fn spelled(layout: &TypeLayout) -> String {
    let name = words(&layout.full_type().to_string());
    let nested = layout.shared_vars().type_layouts().iter().map(|nested| nested());
    let nested: Vec<String> = match &*layout.package() {
        "abi_stable" => nested.map(|nested| words(&nested.full_type().to_string())).collect(),
        _ => Vec::new(),
    };
    if nested.is_empty() { name } else { format!("{name} of ({})", nested.join(", ")) }
}

fn words(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}
