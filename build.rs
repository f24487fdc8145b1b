//! Lists the files of `fixtures/catalogue` and `fixtures/models`, so that the library can compile them in.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("fixtures");
    let mut files = Vec::new();
    for folder in ["catalogue", "models"] {
        collect(&root.join(folder), &mut files);
    }
    files.sort();
    let mut code = String::from("&[\n");
    for file in &files {
        let name = file.strip_prefix(&root).expect("it was found below").to_string_lossy().replace('\\', "/");
        let place = format!("concat!(env!(\"CARGO_MANIFEST_DIR\"), {:?})", format!("/fixtures/{name}"));
        writeln!(code, "    ({name:?}, include_str!({place})),").expect("into a string");
    }
    code.push_str("]\n");
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets it"));
    fs::write(out.join("fixtures.rs"), code).expect("OUT_DIR is writable");
    println!("cargo::rerun-if-changed=fixtures");
    // Checkouts that share a target folder have lists of their own.
    println!("cargo::rerun-if-env-changed=PWD");
    // Not named as settings are: cargo sets it for what it runs, too.
    println!("cargo::rerun-if-env-changed=BUILD_COMMIT");
    println!("cargo::rustc-env=BUILD_COMMIT={}", env::var("BUILD_COMMIT").unwrap_or_else(|_| commit()));
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
}

/// The commit that is built, or `unknown` outside of a checkout.
fn commit() -> String {
    let git = std::process::Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    if Path::new(".git/logs/HEAD").exists() {
        println!("cargo::rerun-if-changed=.git/logs/HEAD");
    }
    git.ok()
        .filter(|output| output.status.success())
        .map_or_else(|| "unknown".into(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
