//! The modules that are pure or only hold data know nothing of the outside: no runtime, cluster client, netlink, file, socket,
//! environment or clock, and none of the modules that do. This is the price of one package instead of several.
//!
//! It reads the text: imports with their groups spelt out, and paths in the code. Comments and test modules do not count.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The modules, by file or directory under `src`. A directory counts with all it holds.
const PURE: [&str; 15] = [
    "model.rs",
    "model",
    "store.rs",
    "store",
    "resolve.rs",
    "resolve",
    "arbitrate.rs",
    "arbitrate",
    "drain.rs",
    "ownership.rs",
    "diff.rs",
    "plan.rs",
    "pipeline.rs",
    // The packet rules as values; the socket beside them is not pure.
    "nft/model.rs",
    "nft/rules.rs",
];

/// Paths that none of them may name, and what begins with them.
const FORBIDDEN: [&str; 35] = [
    "tokio",
    "kube",
    "k8s_openapi",
    "netlink_sys",
    "netlink_packet_core",
    "netlink_packet_generic",
    "netlink_packet_route",
    "netlink_packet_netfilter",
    "rtnetlink",
    "rustix",
    "nix",
    "libc",
    "tracing",
    "std::fs",
    "std::env",
    "std::io",
    "std::os",
    "std::process",
    "std::thread",
    "std::sync::mpsc",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "ipvs::Client",
    "ipvs::client",
    "ipvs::netlink",
    "ipvs::message",
    "ipvs::proc",
    "crate::source::manifests",
    "crate::source::parse",
    "crate::dataplane::fake",
    "crate::dataplane::kernel",
    "crate::dataplane::addresses",
];
/// Of the crate itself, what a pure module may name: each other, the events of a source, and plain values of the dataplane.
const ALLOWED_OF_THE_CRATE: [&str; 20] = [
    "model",
    "store",
    "resolve",
    "arbitrate",
    "ownership",
    "diff",
    "plan",
    "pipeline",
    "drain",
    "nft::model",
    "nft::rules",
    "error_chain",
    "source::Change",
    "source::Event",
    "dataplane::Device",
    "dataplane::Observed",
    "dataplane::ObservedRealServer",
    "dataplane::ObservedVirtualServer",
    "dataplane::StepError",
    "dataplane::VipBinding",
];

/// The paths that a module names, groups spelt out: `use a::{b, c::{self, d}}` names `a::b`, `a::c`, `a::c::d`.
fn paths(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let code = code(text);
    let mut rest = code.as_str();
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || c == '_') {
        rest = &rest[start..];
        let end = end_of_path(rest);
        let path = &rest[..end];
        rest = &rest[end..];
        if let Some(prefix) = path.strip_suffix("::")
            && let Some(group) = rest.strip_prefix('{')
        {
            let (inside, after) = group.split_at(end_of_group(group));
            for path in members(inside) {
                found.push(format!("{prefix}::{path}").replace("::self", ""));
            }
            rest = after;
        } else if path.contains("::") {
            // What follows `::` may be the star of an import or the types of a call.
            let star = if rest.starts_with('*') { "::*" } else { "" };
            found.push(format!("{}{star}", path.trim_end_matches(':')));
        }
    }
    found
}

/// The text without comments, without blanks around `::` and in groups, and without what follows the first test module.
fn code(text: &str) -> String {
    let production = text.split("#[cfg(test)]").next().unwrap_or_default();
    let mut code = String::new();
    for line in production.lines() {
        code.push_str(line.split("//").next().unwrap_or_default().trim());
        code.push('\n');
    }
    code.replace("::\n", "::").replace("\n::", "::")
}

fn end_of_path(text: &str) -> usize {
    text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))
        .unwrap_or(text.len())
}

/// Where the brace that closes this group stands.
fn end_of_group(text: &str) -> usize {
    let mut depth = 1;
    for (index, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return index;
        }
    }
    text.len()
}

/// The paths in a group.
fn members(group: &str) -> Vec<String> {
    let mut members = Vec::new();
    let mut rest = group.trim_start_matches([',', ' ', '\n']);
    while !rest.is_empty() {
        let end = end_of_path(rest);
        let path = &rest[..end];
        rest = &rest[end..];
        if let Some(inner) = rest.strip_prefix('{') {
            let (inside, after) = inner.split_at(end_of_group(inner));
            let prefix = path.trim_end_matches(':');
            members.extend(members_of(prefix, inside));
            rest = after.strip_prefix('}').unwrap_or(after);
        } else if end > 0 {
            members.push(path.to_owned());
        }
        // What is left before the next member: a comma, blanks, `as name`.
        rest = rest.find(',').map_or("", |comma| &rest[comma..]);
        rest = rest.trim_start_matches([',', ' ', '\n']);
    }
    members
}

fn members_of(prefix: &str, group: &str) -> Vec<String> {
    let members = members(group).into_iter();
    members
        .map(|member| format!("{prefix}::{member}"))
        .collect()
}

fn begins_with(path: &str, with: &str) -> bool {
    path.strip_prefix(with)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// What a pure module names and must not.
fn violations(text: &str) -> Vec<String> {
    let mut violations: Vec<String> = paths(text)
        .into_iter()
        .filter(|path| {
            let forbidden = FORBIDDEN
                .iter()
                .any(|forbidden| begins_with(path, forbidden));
            let inside = path.strip_prefix("crate::").is_some_and(|path| {
                !ALLOWED_OF_THE_CRATE
                    .iter()
                    .any(|allowed| begins_with(path, allowed))
            });
            forbidden || inside || path.ends_with("::*")
        })
        .collect();
    violations.sort();
    violations.dedup();
    violations
}

fn rust_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path)? {
        files.extend(rust_files(&entry?.path())?);
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "rs"));
    files.sort();
    Ok(files)
}

#[test]
fn pure_modules_know_nothing_of_the_outside() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = 0;
    let mut wrong = Vec::new();
    for file in PURE
        .iter()
        .flat_map(|module| rust_files(&src.join(module)).unwrap())
    {
        files += 1;
        let text = fs::read_to_string(&file).unwrap();
        for path in violations(&text) {
            wrong.push(format!("{} names {path}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(files >= 13, "only {files} files were read");
}

#[test]
fn the_check_finds_what_is_planted() {
    for (planted, named) in [
        ("use tokio::sync::mpsc;", "tokio::sync::mpsc"),
        ("use std::{fmt, fs};", "std::fs"),
        (
            "use std::{fmt, net::{IpAddr, UdpSocket}};",
            "std::net::UdpSocket",
        ),
        (
            "use std::net::{\n    IpAddr,\n    TcpStream,\n};",
            "std::net::TcpStream",
        ),
        (
            "use std::time::{self, Duration, Instant as Now};",
            "std::time::Instant",
        ),
        ("use ipvs::{Client, Family};", "ipvs::Client"),
        ("use ipvs::netlink::Transport;", "ipvs::netlink::Transport"),
        ("fn f() { std::env::var(\"A\"); }", "std::env::var"),
        (
            "let now = std::time::SystemTime::now();",
            "std::time::SystemTime::now",
        ),
        (
            "use crate::dataplane::{Observed, kernel::LinuxKernel};",
            "crate::dataplane::kernel::LinuxKernel",
        ),
        (
            "use crate::dataplane::record::{Record};",
            "crate::dataplane::record::Record",
        ),
        (
            "use crate::dataplane::{self, Observed};",
            "crate::dataplane",
        ),
        ("use crate::config::Config;", "crate::config::Config"),
        (
            "fn f(_: crate::reconcile::Pass) {}",
            "crate::reconcile::Pass",
        ),
        ("use rustix::process;", "rustix::process"),
        ("use kube::Api;", "kube::Api"),
        ("use crate::model::*;", "crate::model::*"),
    ] {
        assert_eq!(violations(planted), [named], "{planted}");
    }
}

#[test]
fn the_check_lets_pass_what_is_allowed() {
    for allowed in [
        "use std::collections::{BTreeMap, BTreeSet};\nuse std::net::{IpAddr, Ipv4Addr};",
        "use std::time::Duration;",
        "use crate::dataplane::{Device, Observed, VipBinding};",
        "use crate::source::{Change, Event};",
        "use ipvs::{RealServerKey, VirtualServerKey};",
        "//! Not like tokio::spawn, std::fs or crate::config.",
        "#[cfg(test)]\nmod tests { use std::fs; }",
        "use super::fake_news;",
    ] {
        assert_eq!(violations(allowed), Vec::<String>::new(), "{allowed}");
    }
}
