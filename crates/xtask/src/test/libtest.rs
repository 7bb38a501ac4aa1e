//! Reading what Rust's test harness prints, run with `--show-output`: a line for each test, then what each of them wrote.

use std::collections::BTreeMap;

/// What the harness said of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    Ok,
    Failed,
    Ignored,
}

/// A test in the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reported {
    pub(crate) said: Said,
    pub(crate) output: String,
}

/// The names in the answer to `--list --format terse`.
pub(crate) fn listed(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| line.strip_suffix(": test"))
        .map(str::to_owned)
        .collect()
}

/// The tests in the output of a run, by name.
pub(crate) fn read(text: &str) -> BTreeMap<String, Reported> {
    let mut tests: BTreeMap<String, Reported> = BTreeMap::new();
    let mut section: Option<String> = None;
    for line in text.lines() {
        if let Some(name) = line
            .strip_prefix("---- ")
            .and_then(|rest| rest.strip_suffix(" stdout ----"))
        {
            section = Some(name.to_owned());
        } else if ends_section(line) {
            section = None;
        } else if let Some(name) = &section {
            if let Some(test) = tests.get_mut(name) {
                test.output.push_str(line);
                test.output.push('\n');
            }
        } else if let Some((name, said)) = verdict(line) {
            tests.insert(
                name,
                Reported {
                    said,
                    output: String::new(),
                },
            );
        }
    }
    tests
}

/// Headings between and after what the tests wrote. A test that prints one of them cuts its own output short, no more.
fn ends_section(line: &str) -> bool {
    line == "failures:" || line == "successes:" || line.starts_with("test result: ")
}

/// `test NAME ... ok`, `FAILED` or `ignored, why`; a name of a test that should panic has that behind it.
fn verdict(line: &str) -> Option<(String, Said)> {
    let (name, said) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let said = match said {
        "ok" => Said::Ok,
        "FAILED" => Said::Failed,
        other if other == "ignored" || other.starts_with("ignored,") => Said::Ignored,
        _ => return None,
    };
    let name = name.strip_suffix(" - should panic").unwrap_or(name);
    Some((name.to_owned(), said))
}

/// A name of a documentation test without the line it stands on, which changes with every edit above it.
pub(crate) fn without_line(name: &str) -> String {
    match name.split_once(" (line ") {
        Some((before, after)) => {
            let rest = after.split_once(')').map_or("", |(_, rest)| rest);
            format!("{before}{rest}")
        }
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "
running 4 tests
test a::passes ... ok
test a::panics - should panic ... ok
test b ... FAILED
test c ... ignored, needs root

successes:

---- a::passes stdout ----
::covers ipv4 tcp
test nobody ... ok

successes:
    a::passes
    a::panics

failures:

---- b stdout ----

thread 'b' (7) panicked at src/lib.rs:1:2:
assertion failed


failures:
    b

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s
";

    #[test]
    fn each_test_gets_its_verdict_and_its_output() {
        let tests = read(OUTPUT);
        let said: Vec<(&str, Said)> = tests
            .iter()
            .map(|(name, test)| (name.as_str(), test.said))
            .collect();
        let expected = [
            ("a::panics", Said::Ok),
            ("a::passes", Said::Ok),
            ("b", Said::Failed),
            ("c", Said::Ignored),
        ];
        assert_eq!(said, expected);
        assert!(tests["a::passes"].output.contains("::covers ipv4 tcp\n"));
        assert!(tests["b"].output.contains("assertion failed"));
        assert!(!tests["b"].output.contains("test result"));
    }

    #[test]
    fn only_tests_are_listed() {
        assert_eq!(
            listed("a::b: test\nc: benchmark\n\n2 tests, 1 benchmark\nd: test\n"),
            ["a::b", "d"]
        );
    }

    #[test]
    fn the_line_of_an_example_is_no_part_of_its_name() {
        let cases = [
            ("src/lib.rs - Client (line 12)", "src/lib.rs - Client"),
            (
                "src/lib.rs - (line 3) - compile fail",
                "src/lib.rs - - compile fail",
            ),
            ("tests::plain", "tests::plain"),
        ];
        for (name, expected) in cases {
            assert_eq!(without_line(name), expected);
        }
    }
}
