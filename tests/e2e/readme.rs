//! What the README says shows a feature is there.

use std::{collections::BTreeSet, fs, path::Path};

use harness::artifacts::workspace;

trials![whatever_shows_a_feature_exists,];

/// The rows of the table of features: what is said, and what shows it.
fn rows(readme: &str) -> Vec<(&str, &str)> {
    let (_, section) = readme.split_once("\n## What its tracing does\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.skip(2).map(|row| row.rsplit_once(" | ").unwrap()).collect()
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The names of all functions in `folder` and below.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, names);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(path).unwrap();
            let found =
                source.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
            names.extend(found.map(str::to_owned));
        }
    }
}

async fn whatever_shows_a_feature_exists() {
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let rows = rows(&readme);
    assert!(rows.len() > 20, "{rows:?}");
    let mut names = BTreeSet::new();
    for room in ["host", "plugin-api", "plugin-otel", "tests"] {
        functions(&workspace().join(room), &mut names);
    }
    for (feature, shown) in rows {
        assert_ne!(quoted(shown).count(), 0, "nothing shows: {feature}");
        for named in quoted(shown) {
            let is_test = named.matches('_').count() > 2 && names.contains(named);
            let is_path = [workspace().join(named), workspace().join("tests").join(named)]
                .iter()
                .any(|path| path.exists());
            let is_bench = named.starts_with("cargo bench ");
            assert!(is_test || is_path || is_bench, "there is no {named}, which shows: {feature}");
        }
    }
}
