//! Boundaries that the compiler does not hold: which module may speak of which.
//!
//! ARCHITECTURE.md says why. A line here names a module, and the words that its sources must not contain.

use std::fs;
use std::path::{Path, PathBuf};

/// Module (a file and the folder of its name), and the paths that it must not use.
const MUST_NOT_KNOW: [(&str, &[&str]); 21] = [
    ("ids", &["crate::"]),
    ("clock", &["crate::"]),
    ("background", &["crate::"]),
    ("wire", &["crate::"]),
    ("media", &["crate::sim", "crate::catalogue", "crate::gateway", "axum", "http::"]),
    ("catalogue", &["crate::sim", "crate::gateway", "crate::config", "crate::proxy", "axum", "tokio"]),
    (
        "sim",
        &[
            "crate::gateway",
            "crate::proxy",
            "crate::tenants",
            "crate::config",
            "crate::admin",
            "crate::telemetry",
            "crate::outbound",
        ],
    ),
    (
        "openapi",
        &[
            "crate::sim",
            "crate::gateway",
            "crate::config",
            "crate::proxy",
            "crate::tenants",
            "crate::telemetry",
            "tokio",
        ],
    ),
    ("config", &["crate::sim", "crate::gateway", "crate::proxy", "tokio", "axum", "std::net::Tcp"]),
    (
        "limits",
        &[
            "crate::gateway",
            "crate::proxy",
            "crate::sim",
            "crate::catalogue",
            "crate::tenants",
            "axum",
            "http::",
        ],
    ),
    (
        "store",
        &["crate::gateway", "crate::proxy", "crate::sim", "crate::catalogue", "crate::tenants", "axum"],
    ),
    (
        "cache",
        &[
            "crate::gateway",
            "crate::proxy",
            "crate::sim",
            "crate::catalogue",
            "crate::tenants",
            "axum",
            "http::",
        ],
    ),
    ("tasks", &["crate::gateway", "crate::proxy", "crate::sim", "crate::cache", "crate::tenants", "axum"]),
    ("tenants", &["crate::gateway", "crate::proxy", "crate::sim", "axum", "http::"]),
    ("proxy", &["crate::tenants", "crate::gateway", "crate::admin"]),
    (
        "record",
        &[
            "crate::sim",
            "crate::gateway",
            "crate::proxy",
            "crate::tenants",
            "crate::config",
            "crate::outbound",
            "crate::telemetry",
            "axum",
        ],
    ),
    ("verify", &["crate::gateway", "crate::proxy", "crate::tenants", "crate::config", "crate::outbound"]),
    ("error", &["crate::sim", "crate::gateway", "crate::config", "crate::proxy"]),
    ("telemetry", &["crate::gateway", "crate::proxy", "crate::admin", "crate::tenants"]),
    ("admin", &["crate::gateway", "crate::sim", "crate::proxy", "crate::catalogue"]),
    ("testing", &["crate::admin", "crate::proxy", "crate::limits", "crate::cache", "crate::tasks"]),
];

/// Names of families: mechanisms are code, families are data.
const FAMILIES: [&str; 9] =
    ["runway", "aleph", "luma", "veo", "gpt4o", "midjourney", "suno", "kling", "seedream"];

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The lines of code of a module with their places: no comments, no tests.
fn code_of(module: &str) -> Vec<(String, String)> {
    let mut files = vec![PathBuf::from(format!("src/{module}.rs"))];
    sources(Path::new(&format!("src/{module}")), &mut files);
    let mut lines = Vec::new();
    for file in files.iter().filter(|file| file.file_stem().is_none_or(|stem| stem != "tests")) {
        let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let numbered = code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
        lines.extend(
            numbered.map(|(number, line)| (format!("{}:{}", file.display(), number + 1), line.to_owned())),
        );
    }
    lines
}

#[test]
fn no_module_knows_what_it_must_not_know() {
    let mut broken = Vec::new();
    for (module, words) in MUST_NOT_KNOW {
        for (place, line) in code_of(module) {
            broken.extend(
                words
                    .iter()
                    .filter(|word| line.contains(*word))
                    .map(|word| format!("{place}: {word}: {line}")),
            );
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn no_code_names_a_family() {
    let modules = [
        "catalogue",
        "sim",
        "gateway",
        "proxy",
        "telemetry",
        "wire",
        "app",
        "error",
        "openapi",
        "tasks",
        "store",
        "limits",
        "testing",
        "record",
        "verify",
    ];
    let mut named = Vec::new();
    for (place, line) in modules.iter().flat_map(|module| code_of(module)) {
        let lower = line.to_lowercase();
        named.extend(
            FAMILIES.iter().filter(|family| lower.contains(*family)).map(|_| format!("{place}: {line}")),
        );
    }
    assert!(named.is_empty(), "{}", named.join("\n"));
}

#[test]
fn every_module_says_what_it_owns() {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    let silent: Vec<_> = files
        .iter()
        .filter(|file| !fs::read_to_string(file).is_ok_and(|text| text.starts_with("//! ")))
        .collect();
    assert!(silent.is_empty(), "{silent:?}");
}
