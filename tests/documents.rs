//! What the documents say is there, is there.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

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

#[test]
fn every_test_that_the_differences_name_is_there() {
    let functions = functions();
    let mut rows = 0;
    for line in read("docs/differences.md").lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), 4, "{line}");
        assert!(cells.iter().all(|cell| !cell.is_empty()), "{line}");
        let test = cells[3];
        if test == "test" {
            continue;
        }
        rows += 1;
        if test.starts_with("later: ") {
            continue;
        }
        for name in test.split(", ") {
            let name = name.strip_prefix('`').and_then(|name| name.strip_suffix('`'));
            let name = name.unwrap_or_else(|| panic!("neither a test nor `later: ...`: {test}"));
            assert!(functions.contains(name), "no test is called {name}: {line}");
        }
    }
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
fn every_file_that_the_readme_names_is_there() {
    let readme = read("README.md");
    let mut links = 0;
    for target in readme.split("](").skip(1) {
        let target = target.split(')').next().expect("a link ends");
        links += 1;
        assert!(root().join(target).exists(), "README.md names {target}, which is not there");
    }
    assert!(links > 5, "{links} links");
}

#[test]
fn the_readme_names_the_commands_that_are_tested() {
    let (readme, ci) = (read("README.md"), read(".ci/run"));
    for command in ["cargo run --release -- demo", "cargo test --workspace --locked"] {
        assert!(readme.lines().any(|line| line == command), "README.md has no line that is exactly `{command}`");
    }
    assert!(ci.contains("\"cargo test --workspace --locked\""));
}
