//! What the documents say is there, is there.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use machinegun::config;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of all functions of the workspace.
fn functions() -> HashSet<String> {
    let mut files = Vec::new();
    for folder in ["src", "tests", "compat-tests"] {
        sources(&root().join(folder), &mut files);
    }
    let mut names = HashSet::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a source");
        for after in text.split("fn ").skip(1) {
            let end = after.find(|it: char| !it.is_alphanumeric() && it != '_').unwrap_or(after.len());
            names.insert(after[..end].to_owned());
        }
    }
    names
}

/// Every row of a document's tables ends with the tests that show what it says, or says why there is none yet. Returns
/// how many rows there are.
fn rows_with_tests(document: &str, columns: std::ops::RangeInclusive<usize>) -> usize {
    let functions = functions();
    let mut rows = 0;
    for line in read(document).lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert!(columns.contains(&cells.len()), "{document}: {line}");
        assert!(cells.iter().all(|cell| !cell.is_empty()), "{document}: {line}");
        let tests = cells[cells.len() - 1];
        if ["test", "tests"].contains(&tests) {
            continue;
        }
        rows += 1;
        if tests.starts_with("later: ") {
            continue;
        }
        for name in tests.split(", ") {
            let name = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'));
            let name = name.unwrap_or_else(|| panic!("{document}: neither a test nor `later: ...`: {tests}"));
            assert!(functions.contains(name), "{document}: no test is called {name}: {line}");
        }
    }
    rows
}

#[test]
fn every_test_that_the_differences_name_is_there() {
    let rows = rows_with_tests("docs/differences.md", 4..=4);
    assert!(rows > 40, "{rows} rows: is the table still a table?");
}

/// What the source asks of DynamoDB, by the SDK's names.
const OPERATIONS: [(&str, &[&str]); 10] = [
    ("get_item", &["GetItem"]),
    ("put_item", &["PutItem"]),
    ("update_item", &["UpdateItem"]),
    ("delete_item", &["DeleteItem"]),
    ("batch_write_item", &["BatchWriteItem"]),
    // A transaction takes the rights of its parts.
    ("transact_write_items", &["ConditionCheckItem", "PutItem"]),
    ("query", &["Query"]),
    ("describe_table", &["DescribeTable"]),
    ("create_table", &["CreateTable"]),
    // Of Alternator's tables alone, which know no such rights.
    ("list_tags_of_resource", &[]),
];

/// The actions that a policy allows.
fn allowed(path: &str) -> Vec<String> {
    let policy: serde_json::Value = serde_json::from_str(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let statements = policy["Statement"].as_array().expect("statements");
    assert!(statements.iter().all(|it| it["Effect"] == "Allow"), "{path}");
    let actions = statements.iter().flat_map(|it| it["Action"].as_array().expect("actions"));
    let mut actions: Vec<_> = actions.map(|it| it.as_str().expect("an action").to_owned()).collect();
    actions.sort();
    actions
}

#[test]
fn the_policies_allow_what_the_source_asks_of_dynamodb_and_nothing_else() {
    let mut files = Vec::new();
    sources(&root().join("src/storage/dynamodb"), &mut files);
    let text: String = files.iter().map(|file| std::fs::read_to_string(file).expect("a source")).collect();
    // Whatever else is called on a client is an operation that the policies don't know of.
    for client in ["calls", "commits"] {
        for call in text.split(&format!("{client}\n")).skip(1).map(str::trim_start).chain(text.split(client).skip(1)) {
            let Some(call) = call.strip_prefix('.') else { continue };
            let name = call.split('(').next().unwrap_or_default();
            // The end of a sentence.
            if !name.chars().all(|it| it.is_ascii_lowercase() || it == '_') {
                continue;
            }
            assert!(OPERATIONS.iter().any(|(operation, _)| *operation == name), "{name} is in no policy");
        }
    }
    let needs = |unless: &str| {
        let used = OPERATIONS.iter().filter(|(name, _)| *name != unless);
        for (name, _) in used.clone() {
            assert!(text.contains(&format!(".{name}()")), "{name} is not called any more");
        }
        let mut actions: Vec<_> =
            used.flat_map(|(_, actions)| actions.iter().map(|action| format!("dynamodb:{action}"))).collect();
        actions.sort();
        actions.dedup();
        actions
    };
    assert_eq!(allowed("deploy/iam-policy.json"), needs("create_table"));
    let mut both = [needs("create_table"), vec!["dynamodb:CreateTable".to_owned()]].concat();
    both.sort();
    assert_eq!(allowed("deploy/iam-policy-create.json"), both);
}

#[test]
fn every_test_that_the_scenarios_name_is_there() {
    let rows = rows_with_tests("docs/scenarios.md", 2..=3);
    assert!(rows > 50, "{rows} rows: are the tables still tables?");
}

/// Every document that the project ships.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder of documents") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            documents(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

#[test]
fn every_file_that_a_document_names_is_there() {
    let mut files = vec![root().join("README.md"), root().join("CHANGELOG.md"), root().join("compat-tests/README.md")];
    documents(&root().join("docs"), &mut files);
    let mut links = 0;
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        for target in text.split("](").skip(1) {
            let target = target.split(')').next().expect("a link ends");
            if target.starts_with("https://") {
                continue;
            }
            links += 1;
            let path = target.split('#').next().expect("a path before the heading");
            let there = file.parent().expect("a folder").join(path).exists();
            assert!(there, "{} names {target}, which is not there", file.display());
        }
    }
    assert!(links > 10, "{links} links");
}

#[test]
fn every_metric_that_the_runbooks_name_is_there() {
    let mut files = Vec::new();
    sources(&root().join("src/telemetry"), &mut files);
    let metrics: String = files.iter().map(|file| std::fs::read_to_string(file).expect("a source")).collect();
    for (runbook, least) in [("docs/swap.md", 8), ("docs/operate.md", 2)] {
        let mut names = 0;
        for word in read(runbook).split('`').skip(1).step_by(2) {
            let name = word.split('{').next().expect("a name before its labels");
            if !["mg_", "machinegun_"].iter().any(|prefix| name.starts_with(prefix)) {
                continue;
            }
            names += 1;
            assert!(metrics.contains(&format!("\"{name}\"")), "{runbook} watches {name}, which is no metric");
        }
        assert!(names > least, "{runbook}: {names} names");
    }
}

#[test]
fn the_settings_that_the_readme_shows_have_the_defaults_that_it_says() {
    let least = "storage: {type: embedded, path: p}\nnamespaces: {<ns>: {processor: {url: 'http://p/'}}}\n";
    let (settings, report) = config::parse(least, &|_| None).expect("a file without errors");
    let described: Value = yaml_serde::from_str(&config::describe(&settings, &report)).expect("YAML");
    let readme = read("README.md");
    let (_, section) = readme.split_once("### The settings that matter").expect("the section");
    let (section, _) = section.split_once("\n### ").expect("its end");
    let mut compared = 0;
    for line in section.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [key, default, _] = cells[..] else { panic!("no row of three: {line}") };
        let pointer = format!("/{}", key.trim_matches('`').replace('.', "/"));
        let value = described.pointer(&pointer);
        match value {
            // A list or map is told in words, and what is not set is not described.
            None => assert!(default.starts_with("none"), "{key} has no default that is shown"),
            Some(Value::Object(_)) => {}
            Some(_) if default.starts_with("none: mandatory") => {}
            Some(value) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                assert_eq!(text, default, "{key}");
                compared += 1;
            }
        }
    }
    assert!(compared >= 7, "{compared} settings");
}

#[test]
fn what_ci_runs_is_taken_out_of_the_readme() {
    let ci = read(".ci/run");
    for part in [".ci/readme tests", ".ci/readme follow", "deploy/check.sh"] {
        assert!(ci.contains(part), ".ci/run does not run {part}");
    }
    // Two commands are all that a newcomer needs.
    let readme = read("README.md");
    for command in ["cargo run --release -- demo", "cargo test --workspace --locked"] {
        assert!(readme.lines().any(|line| line == command), "README.md has no line that is exactly `{command}`");
    }
}
