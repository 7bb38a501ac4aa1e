//! The end of every run: what ran, how long it took, what it covered, what failed.

use std::collections::{BTreeMap, BTreeSet};

use super::results::{Cover, Results, Tier, Verdict};

/// Prints all of it; the last line is always `N passed, N failed`.
pub(crate) fn print(results: &Results) {
    println!("\n== steps");
    for step in &results.steps {
        let word = if step.failure.is_none() {
            "ok"
        } else {
            "FAILED"
        };
        println!(
            "   {:<44} {:>8.1} s  {word}",
            step.name,
            step.elapsed.as_secs_f64()
        );
    }
    print_tiers(results);
    print_coverage(results);
    print_failures(results);
    println!("\n{} passed, {} failed", results.passed(), results.failed());
}

fn print_tiers(results: &Results) {
    if results.runs.is_empty() {
        return;
    }
    println!(
        "\n== tiers\n   {:<12} {:<7} {:>10} {:>8} {:>8}",
        "tier", "kernel", "time", "passed", "failed"
    );
    for run in &results.runs {
        let of_run = |passed| {
            let own = |id: &super::results::TestId| id.tier == run.tier && id.kernel == run.kernel;
            results
                .tests
                .iter()
                .filter(|test| own(&test.id) && test.passed() == passed)
                .count()
        };
        let kernel = run.kernel.map_or("-", crate::vm::kernel::Kernel::name);
        let (tier, seconds) = (run.tier, run.elapsed.as_secs_f64());
        println!(
            "   {tier:<12} {kernel:<7} {seconds:>8.1} s {:>8} {:>8}",
            of_run(true),
            of_run(false)
        );
        for note in &run.notes {
            println!("      {note}");
        }
    }
}

/// Number of passed tests by tier, kernel, family and protocol. A test that covers several is counted in each.
fn print_coverage(results: &Results) {
    let mut counts: BTreeMap<(Tier, &str, Cover), usize> = BTreeMap::new();
    for test in results.tests.iter().filter(|test| test.passed()) {
        let covers = if test.covers.is_empty() {
            vec![Cover::none()]
        } else {
            test.covers.clone()
        };
        for cover in covers {
            *counts
                .entry((test.id.tier, test.id.kernel_name(), cover))
                .or_default() += 1;
        }
    }
    if counts.is_empty() {
        return;
    }
    println!(
        "\n== covered\n   {:<12} {:<7} {:<7} {:<9} {:>6}",
        "tier", "kernel", "family", "protocol", "tests"
    );
    for ((tier, kernel, cover), count) in &counts {
        println!(
            "   {tier:<12} {kernel:<7} {:<7} {:<9} {count:>6}",
            cover.family, cover.protocol
        );
    }
}

fn print_failures(results: &Results) {
    let mut told = BTreeSet::new();
    for step in &results.steps {
        if let Some(failure) = &step.failure {
            println!("\n== FAILED: {}\n{failure}", step.name);
        }
    }
    for test in &results.tests {
        if let Verdict::Failed(output) = &test.verdict {
            println!(
                "\n== FAILED: {} {} {}",
                test.id.tier,
                test.id.kernel_name(),
                test.id.name
            );
            // One dead guest fails many tests for the same reason.
            if told.insert(output) {
                println!("{}", output.trim_end());
            } else {
                println!("(as above)");
            }
        }
    }
}
