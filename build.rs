//! Passes the revision and the version of the compiler to the crate, for `--version` and
//! `elements_exporter_build_info`.

use std::process::Command;

fn main() {
    // Packagers set this variable if they build without a Git repository.
    let revision = std::env::var("BUILD_REVISION")
        .ok()
        .or_else(|| output_of("git", &["rev-parse", "--short=12", "HEAD"]));
    let compiler = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let rustversion = output_of(&compiler, &["--version"])
        .and_then(|version| version.split_whitespace().nth(1).map(ToOwned::to_owned));
    for (name, value) in [("REVISION", revision), ("RUSTVERSION", rustversion)] {
        let value = value.unwrap_or_else(|| "unknown".to_owned());
        println!("cargo:rustc-env=ELEMENTS_EXPORTER_{name}={value}");
    }
    println!("cargo:rerun-if-env-changed=BUILD_REVISION");
    println!("cargo:rerun-if-changed=.git/logs/HEAD");
    println!("cargo:rerun-if-changed=build.rs");
}

fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let stdout = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !stdout.trim().is_empty()).then(|| stdout.trim().to_owned())
}
