//! This cluster and this kernel give this plan. A scenario is a directory in `tests/scenarios` whose name is a sentence:
//! `cluster.yaml` as the source of manifests reads it, `kernel.txt` as `support::kernel_text` describes it, and `plan.txt`, what
//! `weir diff` would print, written from the specification.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use weir::arbitrate::Desired;
use weir::diff::{Basis, Scope, diff};
use weir::drain::{BootTime, Clock, DEFAULT_TIMEOUT, Draining};
use weir::pipeline::Pipeline;
use weir::resolve::Settings;
use weir::source::manifests::Manifests;

#[expect(dead_code, reason = "each test binary uses a part of it")]
mod support;

use support::kernel_text;

const FILES: [&str; 3] = ["cluster.yaml", "kernel.txt", "plan.txt"];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn names_in(directory: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// What manifests ask for on our node.
fn desired(manifests: &Path) -> Result<Desired, Box<dyn std::error::Error>> {
    let mut pipeline = Pipeline::new(support::OWN_NODE, Settings::default());
    pipeline.apply(Manifests::new(vec![manifests.to_owned()]).load()?);
    if !pipeline.waiting_for().is_empty() {
        return Err(format!("waiting for {:?}", pipeline.waiting_for()).into());
    }
    Ok(pipeline.desired().clone())
}

fn plan(scenario: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let text = fs::read_to_string(scenario.join("kernel.txt"))?;
    let (observed, ownership) = kernel_text::kernel(&text)?;
    let desired = desired(&scenario.join("cluster.yaml"))?;
    let basis = Basis {
        desired: &desired,
        observed: &observed,
        ownership: &ownership,
        draining: &Draining::default(),
        clock: Clock {
            now: BootTime(Duration::from_secs(1_000)),
            timeout: DEFAULT_TIMEOUT,
        },
    };
    Ok(diff(basis, Scope::Everything).to_string())
}

#[test]
fn each_scenario_gives_its_plan() {
    let names = names_in(&directory()).unwrap();
    assert!(names.len() >= 15, "only {} scenarios", names.len());
    let mut wrong = Vec::new();
    for name in names {
        let scenario = directory().join(&name);
        assert_eq!(names_in(&scenario).unwrap(), FILES, "{name}");
        let expected = fs::read_to_string(scenario.join("plan.txt")).unwrap();
        let plan = plan(&scenario).unwrap_or_else(|error| format!("no plan: {error}\n"));
        if plan != expected {
            wrong.push(format!("{name}\nexpected:\n{expected}is:\n{plan}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_scenario_of_the_tutorial_is_the_tutorial() {
    let scenario = directory().join("the_tutorial_on_an_empty_kernel/cluster.yaml");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tutorial");
    assert_eq!(desired(&scenario).unwrap(), desired(&examples).unwrap());
}

#[test]
fn a_kernel_that_makes_no_sense_is_refused() {
    for line in [
        "device sideways",
        "vip 192.0.2",
        "-A -t 192.0.2.10:80",
        "-A -s rr",
        "-A -t 192.0.2.10:80 -s rr -z",
        "-a -t 192.0.2.10:80 -r 198.51.100.1:8080 -m -w 1",
        "recorded 192.0.2.10:80",
    ] {
        assert!(kernel_text::kernel(line).is_err(), "{line}");
    }
}
