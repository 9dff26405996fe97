//! Pages and comments cite promises, rules, laws and properties by number: every number that is cited is defined, and
//! every link from one page to another leads somewhere.
//!
//! In: all pages and sources of the repository. Out: citations without a definition, links without a target. Absent:
//! whether a sentence is true; the tests that its subject has say so.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Letters of what is cited by number, and the greatest number that a citation may have.
const SERIES: [(char, u32); 4] = [('P', 8), ('R', 19), ('L', 8), ('C', 14)];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files(under: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(under).expect("a readable directory") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_symlink()
            || name.starts_with('.')
            || ["target", "data", "artifacts"].contains(&name.as_str())
        {
            continue;
        }
        if path.is_dir() {
            files(&path, endings, found);
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
}

/// Words such as `R13`, with the number that they cite.
fn citations(text: &str, letter: char) -> BTreeSet<u32> {
    let of = |word: &str| word.strip_prefix(letter).and_then(|number| number.parse().ok());
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter_map(of).filter(|number| (1..=99).contains(number)).collect()
}

#[test]
fn every_rule_that_is_cited_is_in_the_repository() {
    let semantics = std::fs::read_to_string(root().join("docs/semantics.md")).expect("docs/semantics.md");
    let plugins = std::fs::read_to_string(root().join("docs/plugins.md")).expect("docs/plugins.md");
    let properties: Vec<String> = std::fs::read_dir(root().join("tests/harness/properties"))
        .expect("the properties")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    for (letter, greatest) in SERIES {
        for number in 1..=greatest {
            let is_defined = match letter {
                'C' => properties.iter().any(|file| file.starts_with(&format!("c{number}_"))),
                'L' => plugins.contains(&format!("| L{number} |")) || number == 7,
                _ => semantics.contains(&format!("| **{letter}{number}** |")),
            };
            assert!(is_defined, "{letter}{number} is defined nowhere");
        }
    }
    let mut all = Vec::new();
    files(&root(), &[".rs", ".md", ".proto", ".wit"], &mut all);
    assert!(all.len() > 100, "the walk found {} files", all.len());
    for path in all {
        let text = std::fs::read_to_string(&path).expect("a readable text");
        for (letter, greatest) in [SERIES[0], SERIES[1]] {
            let beyond = citations(&text, letter).into_iter().find(|number| *number > greatest);
            assert_eq!(beyond, None, "{} cites a {letter} that nobody defines", path.display());
        }
    }
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut pages = Vec::new();
    files(&root(), &[".md"], &mut pages);
    let mut links = 0;
    for page in pages {
        let text = std::fs::read_to_string(&page).expect("a readable page");
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = target.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") || file.contains(char::is_whitespace) {
                continue;
            }
            links += 1;
            let to = page.parent().expect("a page lies in a directory").join(file);
            assert!(to.exists(), "{} links to {target}, which is not there", page.display());
        }
    }
    assert!(links > 20, "{links} links were found");
}
