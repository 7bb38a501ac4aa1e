//! Every output of the program, with its exit code, against `golden/NAME.txt`. Nothing here touches the host: a weir that runs is a
//! socket of the test, and commands that change the kernel are those that end before they reach it.
//!
//! `WEIR_BLESS=1 cargo test -p weir --test cli` writes the golden files anew; what changed is then seen in the diff of the commit.
//! In them VERSION is the package's version and DIR a directory of the test's own.

use std::collections::BTreeSet;
use std::error::Error;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use clap::{CommandFactory as _, ValueEnum as _};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use serde_json::Value;
use weir::cli::{Cli, NodeArgs, RenderOutput, StatusOutput};
use weir::config;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How long a command may take to ask the socket.
const PATIENCE: Duration = Duration::from_secs(30);

/// A command line and what it meets.
struct Case {
    /// Also the golden file's. The part before the first `_` is the group.
    name: &'static str,
    /// As typed, with words apart at spaces. DIR is the test's own directory.
    args: &'static str,
    meets: Meets,
}

/// What stands around a command.
#[derive(Debug, Clone, Copy)]
enum Meets {
    /// An empty directory.
    Nothing,
    /// `NODE_NAME` in the environment.
    NodeName(&'static str),
    /// A file of `tests/cli/manifests` on standard input.
    Stdin(&'static str),
    /// On the socket in DIR/run, somebody who expects this word and answers with a file of `tests/cli/answers`.
    Answer(&'static str, &'static str),
    /// Another weir that holds the lock of DIR/run.
    Lock,
    /// A file where the run directory should be.
    FileInTheWay,
}

const fn case(name: &'static str, args: &'static str, meets: Meets) -> Case {
    Case { name, args, meets }
}

const CASES: &[Case] = &[
    case("help_weir", "--help", Meets::Nothing),
    case("help_run", "run --help", Meets::Nothing),
    case("help_status", "status --help", Meets::Nothing),
    case("help_render", "render --help", Meets::Nothing),
    case("help_diff", "diff --help", Meets::Nothing),
    case("help_cleanup", "cleanup --help", Meets::Nothing),
    case("help_version", "version --help", Meets::Nothing),
    case("version", "version", Meets::Nothing),
    case("version_flag", "--version", Meets::Nothing),
    // The tutorial.
    case(
        "render_tutorial_table",
        "render --manifests examples/tutorial --node-name ubuntu0",
        Meets::Nothing,
    ),
    case(
        "render_tutorial_json",
        "render --manifests examples/tutorial --node-name ubuntu0 -o json",
        Meets::Nothing,
    ),
    case(
        "render_tutorial_ipvsadm",
        "render --manifests examples/tutorial --node-name ubuntu0 -o ipvsadm",
        Meets::Nothing,
    ),
    case(
        "render_tutorial_nft",
        "render --manifests examples/tutorial --node-name ubuntu0 -o nft --cluster-cidr 10.244.0.0/16,2001:db8:244::/48",
        Meets::Nothing,
    ),
    // Families, protocols, affinity.
    case(
        "render_dual_table",
        "render --manifests tests/cli/manifests/policies.yaml --node-name node-b",
        Meets::Nothing,
    ),
    case(
        "render_dual_json",
        "render --manifests tests/cli/manifests/policies.yaml --node-name node-b -o json",
        Meets::Nothing,
    ),
    // Findings: the rest is served.
    case(
        "render_findings_table",
        "render --manifests tests/cli/manifests/findings.yaml tests/cli/manifests/again.yaml --node-name node-a",
        Meets::Nothing,
    ),
    case(
        "render_findings_json",
        "render --manifests tests/cli/manifests/findings.yaml tests/cli/manifests/again.yaml --node-name node-a -o json",
        Meets::Nothing,
    ),
    case(
        "render_findings_ipvsadm",
        "render --manifests tests/cli/manifests/findings.yaml tests/cli/manifests/again.yaml --node-name node-a -o ipvsadm",
        Meets::Nothing,
    ),
    // Failed reads.
    case(
        "render_broken_yaml",
        "render --manifests tests/cli/manifests/broken.yaml --node-name node-a",
        Meets::Nothing,
    ),
    case(
        "render_broken_json",
        "render --manifests tests/cli/manifests/broken.json --node-name node-a -o json",
        Meets::Nothing,
    ),
    case(
        "render_broken_beside_good",
        "render --manifests examples/tutorial tests/cli/manifests/broken.yaml --node-name node-a -o ipvsadm",
        Meets::Nothing,
    ),
    case(
        "render_no_manifest",
        "render --manifests tests/cli/manifests/text.yaml --node-name node-a",
        Meets::Nothing,
    ),
    case(
        "render_blank",
        "render --manifests tests/cli/manifests/blank.yaml --node-name node-a",
        Meets::Nothing,
    ),
    case(
        "render_absent",
        "render --manifests DIR/absent.yaml --node-name node-a",
        Meets::Nothing,
    ),
    case(
        "render_empty_directory",
        "render --manifests DIR --node-name node-a",
        Meets::Nothing,
    ),
    case(
        "render_no_objects",
        "render --manifests tests/cli/manifests/nothing.yaml --node-name node-a",
        Meets::Nothing,
    ),
    // Standard input.
    case(
        "render_stdin",
        "render --manifests - --node-name node-a -o ipvsadm",
        Meets::Stdin("policies.yaml"),
    ),
    case(
        "render_stdin_findings",
        "render --manifests - --node-name node-a -o ipvsadm",
        Meets::Stdin("findings.yaml"),
    ),
    case(
        "render_stdin_broken",
        "render --manifests - --node-name node-a -o ipvsadm",
        Meets::Stdin("broken.yaml"),
    ),
    // The node's name.
    case(
        "render_node_from_environment",
        "render --manifests tests/cli/manifests/policies.yaml -o ipvsadm",
        Meets::NodeName("node-a"),
    ),
    case(
        "render_node_from_flag_over_environment",
        "render --manifests tests/cli/manifests/policies.yaml -o ipvsadm --node-name Node-B",
        Meets::NodeName("node-a"),
    ),
    case(
        "render_node_unknown",
        "render --manifests tests/cli/manifests/policies.yaml -o ipvsadm --node-name node-c",
        Meets::Nothing,
    ),
    // Usage errors.
    case("usage_nothing", "", Meets::Nothing),
    case("usage_unknown_command", "rendre", Meets::Nothing),
    case(
        "usage_unknown_flag",
        "render --manifests a.yaml --nodename a",
        Meets::Nothing,
    ),
    case(
        "usage_cluster_cidr",
        "render --manifests examples/tutorial --cluster-cidr 10.244.0.0/99",
        Meets::Nothing,
    ),
    case(
        "usage_masquerade_bit",
        "render --manifests examples/tutorial --masquerade-bit 32",
        Meets::Nothing,
    ),
    case(
        "usage_unknown_format",
        "render --manifests a.yaml -o yaml",
        Meets::Nothing,
    ),
    case(
        "usage_render_without_manifests",
        "render --node-name node-a",
        Meets::Nothing,
    ),
    case(
        "usage_run_without_manifests",
        "run --node-name node-a --run-dir DIR/run",
        Meets::Nothing,
    ),
    case(
        "usage_status_device",
        "status --device dummy/weir --run-dir DIR/run",
        Meets::Nothing,
    ),
    case(
        "usage_run_device",
        "run --manifests examples/tutorial --device a-device-name-too-long --run-dir DIR/run",
        Meets::Nothing,
    ),
    case(
        "usage_node_name",
        "render --manifests examples/tutorial --node-name node_a",
        Meets::Nothing,
    ),
    case(
        "usage_node_name_empty",
        "render --manifests examples/tutorial",
        Meets::NodeName(""),
    ),
    case(
        "usage_log_level",
        "run --manifests examples/tutorial --log-level verbose --run-dir DIR/run",
        Meets::Nothing,
    ),
    case(
        "usage_run_broken_manifest",
        "run --manifests tests/cli/manifests/broken.yaml --node-name node-a --run-dir DIR/run",
        Meets::Nothing,
    ),
    case(
        "usage_diff_broken_manifest",
        "diff --manifests tests/cli/manifests/broken.yaml --node-name node-a --run-dir DIR/run",
        Meets::Nothing,
    ),
    // A weir that runs, and one that should.
    case(
        "status_converged_table",
        "status --run-dir DIR/run",
        Meets::Answer("status", "converged.json"),
    ),
    case(
        "status_converged_brief",
        "status --brief --run-dir DIR/run",
        Meets::Answer("status", "converged.json"),
    ),
    case(
        "status_converged_json",
        "status -o json --run-dir DIR/run",
        Meets::Answer("status", "converged.json"),
    ),
    case(
        "status_degraded_table",
        "status --run-dir DIR/run",
        Meets::Answer("status", "degraded.json"),
    ),
    case(
        "status_waiting_and_blind_table",
        "status --run-dir DIR/run",
        Meets::Answer("status", "blind.json"),
    ),
    case(
        "status_waiting_and_blind_json",
        "status -o json --run-dir DIR/run",
        Meets::Answer("status", "blind.json"),
    ),
    case("diff_nobody_runs", "diff --run-dir DIR/run", Meets::Nothing),
    case(
        "diff_garbage",
        "diff --run-dir DIR/run",
        Meets::Answer("desired", "garbage.json"),
    ),
    case(
        "diff_silence",
        "diff --run-dir DIR/run",
        Meets::Answer("desired", "silence.json"),
    ),
    case(
        "diff_other_version",
        "diff --run-dir DIR/run",
        Meets::Answer("desired", "other-version.json"),
    ),
    // Locks.
    case("lock_cleanup", "cleanup --run-dir DIR/run", Meets::Lock),
    case(
        "lock_run",
        "run --manifests examples/tutorial --node-name ubuntu0 --run-dir DIR/run",
        Meets::Lock,
    ),
    case(
        "lock_file_in_the_way",
        "cleanup --run-dir DIR/run",
        Meets::FileInTheWay,
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program in the package's directory, with an environment that is known.
fn weir(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command
        .args(args)
        .current_dir(root())
        .env_clear()
        .env("COLUMNS", "100")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Case {
    fn run(&self) -> Result<(Output, PathBuf)> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().to_owned();
        let run_dir = path.join("run");
        let typed = self
            .args
            .replace("DIR", path.to_str().ok_or("the path is no text")?);
        let mut command = weir(&typed.split_whitespace().collect::<Vec<_>>());
        let output = match self.meets {
            Meets::Nothing => command.output()?,
            Meets::NodeName(name) => command.env("NODE_NAME", name).output()?,
            Meets::Stdin(file) => {
                let file = File::open(root().join("tests/cli/manifests").join(file))?;
                command.stdin(file).output()?
            }
            Meets::Answer(question, file) => {
                fs::create_dir(&run_dir)?;
                let listener = UnixListener::bind(run_dir.join("weir.sock"))?;
                set_socket_timeout(&listener, Timeout::Recv, Some(PATIENCE))?;
                let child = command.spawn()?;
                let (mut client, _) = listener.accept()?;
                let mut asked = String::new();
                client.read_to_string(&mut asked)?;
                assert_eq!(asked, question, "{}", self.name);
                client.write_all(&fs::read(root().join("tests/cli/answers").join(file))?)?;
                drop(client);
                child.wait_with_output()?
            }
            Meets::Lock => {
                fs::create_dir(&run_dir)?;
                let lock = File::create(run_dir.join("lock"))?;
                lock.lock()?;
                command.output()?
            }
            Meets::FileInTheWay => {
                fs::write(&run_dir, "")?;
                command.output()?
            }
        };
        Ok((output, path))
    }

    /// What the golden file should hold.
    fn transcript(&self, output: &Output, directory: &Path) -> Result<String> {
        let directory = directory.to_str().ok_or("the path is no text")?;
        let normal = |bytes: &[u8]| -> Result<String> {
            let text = String::from_utf8(bytes.to_vec())?;
            Ok(text
                .replace(directory, "DIR")
                .replace(env!("CARGO_PKG_VERSION"), "VERSION"))
        };
        let around = match self.meets {
            Meets::Nothing | Meets::Answer(..) | Meets::Lock | Meets::FileInTheWay => String::new(),
            Meets::NodeName(name) => format!("NODE_NAME={name} "),
            Meets::Stdin(file) => format!("< tests/cli/manifests/{file} "),
        };
        let command = format!("{around}weir {}", self.args);
        Ok(format!(
            "$ {}\n--- exit {}\n--- stdout\n{}--- stderr\n{}",
            command.trim_end(),
            exit_code(output)?,
            normal(&output.stdout)?,
            normal(&output.stderr)?
        ))
    }
}

fn exit_code(output: &Output) -> Result<i32> {
    output
        .status
        .code()
        .ok_or_else(|| format!("ended by {}", output.status).into())
}

fn golden(name: &str) -> PathBuf {
    root().join("tests/golden").join(format!("{name}.txt"))
}

fn blessing() -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "a switch of these tests, not of the program"
    )]
    std::env::var_os("WEIR_BLESS").is_some_and(|value| value == "1")
}

/// Runs the cases of a group; tells all that differ at once.
fn check(group: &str) -> Result<()> {
    let mut different = Vec::new();
    let own = |case: &&Case| case.name.split('_').next() == Some(group);
    for case in CASES.iter().filter(own) {
        let (output, directory) = case.run()?;
        check_streams(case, &output)?;
        let found = case.transcript(&output, &directory)?;
        let path = golden(case.name);
        if blessing() {
            fs::write(&path, &found)?;
            continue;
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        if found != expected {
            different.push(format!(
                "=== {}, expected\n{expected}=== found\n{found}",
                path.display()
            ));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
    Ok(())
}

/// What holds of every command: a failure leaves standard output empty, and standard error holds messages only.
fn check_streams(case: &Case, output: &Output) -> Result<()> {
    let code = exit_code(output)?;
    if code == 2 || code == 4 {
        assert_eq!(output.stdout, b"", "{}", case.name);
    }
    let messages = String::from_utf8(output.stderr.clone())?;
    // The argument parser has its own wording, over several lines.
    let is_from_parser = messages.starts_with("error: ") || case.args.is_empty();
    for line in messages.lines().filter(|_| !is_from_parser) {
        assert!(
            ["weir: ", "finding: ", "note: "]
                .iter()
                .any(|prefix| line.starts_with(prefix)),
            "{}: {line:?}",
            case.name
        );
    }
    Ok(())
}

#[test]
fn help_is_as_its_golden_files() -> Result<()> {
    check("help")
}

#[test]
fn version_is_as_its_golden_files() -> Result<()> {
    check("version")
}

#[test]
fn render_is_as_its_golden_files() -> Result<()> {
    check("render")
}

#[test]
fn usage_errors_are_as_their_golden_files() -> Result<()> {
    check("usage")
}

#[test]
fn status_of_a_running_weir_is_as_its_golden_files() -> Result<()> {
    check("status")
}

#[test]
fn diff_against_a_running_weir_is_as_its_golden_files() -> Result<()> {
    check("diff")
}

#[test]
fn refused_locks_are_as_their_golden_files() -> Result<()> {
    check("lock")
}

#[test]
fn every_command_format_and_exit_code_has_a_golden_file() -> Result<()> {
    let names: BTreeSet<&str> = CASES.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), CASES.len(), "a name is there twice");
    let groups = [
        "help", "version", "render", "usage", "status", "diff", "lock",
    ];
    for name in &names {
        let group = name.split('_').next().unwrap_or_default();
        assert!(groups.contains(&group), "nothing checks {name}");
    }
    for command in Cli::command().get_subcommands() {
        let name = format!("help_{}", command.get_name());
        assert!(names.contains(name.as_str()), "{name}");
    }
    let formats = |values: &[Option<clap::builder::PossibleValue>]| -> Vec<String> {
        values
            .iter()
            .flatten()
            .map(|value| value.get_name().to_owned())
            .collect()
    };
    let render = RenderOutput::value_variants()
        .iter()
        .map(RenderOutput::to_possible_value);
    for format in formats(&render.collect::<Vec<_>>()) {
        let name = format!("render_tutorial_{format}");
        assert!(names.contains(name.as_str()), "{name}");
    }
    let status = StatusOutput::value_variants()
        .iter()
        .map(StatusOutput::to_possible_value);
    for format in formats(&status.collect::<Vec<_>>()) {
        let name = format!("status_converged_{format}");
        assert!(names.contains(name.as_str()), "{name}");
    }
    if blessing() {
        return Ok(());
    }
    let mut codes = BTreeSet::new();
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(root().join("tests/golden"))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        let code = text
            .lines()
            .find_map(|line| line.strip_prefix("--- exit "))
            .ok_or_else(|| format!("{} names no exit code", path.display()))?;
        codes.insert(code.to_owned());
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        files.insert(stem.ok_or("the path is no text")?.to_owned());
    }
    assert_eq!(files, names.iter().map(ToString::to_string).collect());
    assert_eq!(codes, ["0", "1", "2", "3", "4"].map(String::from).into());
    Ok(())
}

/// Whether the kernel can be read depends on the host, so this has no golden file.
#[test]
fn status_with_nobody_running_says_down_and_what_it_knows_of_the_kernel() -> Result<()> {
    for (meets, problem) in [
        (Meets::Nothing, "no weir runs with --run-dir "),
        (
            Meets::Answer("status", "silence.json"),
            "weir does not answer on ",
        ),
        (Meets::Answer("status", "garbage.json"), "weir answered on "),
    ] {
        let table = case("", "status --run-dir DIR/run", meets).run()?.0;
        assert_eq!(exit_code(&table)?, 3);
        let stderr = String::from_utf8(table.stderr)?;
        assert!(stderr.starts_with(&format!("weir: {problem}")), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        let stdout = String::from_utf8(table.stdout)?;
        let mut lines = stdout.lines();
        assert_eq!(lines.next(), Some("State       down"));
        assert!(
            lines
                .next()
                .is_some_and(|line| line.trim_start().starts_with(problem)),
            "{stdout}"
        );
        let is_known = !stdout.contains("\nServers     unknown\n");
        assert_eq!(stdout.contains("below is what the kernel does"), is_known);
        assert_eq!(stdout.contains("the kernel has no IPVS"), !is_known);

        let json = case("", "status -o json --run-dir DIR/run", meets).run()?.0;
        assert_eq!(exit_code(&json)?, 3);
        let document: Value = serde_json::from_slice(&json.stdout)?;
        assert_eq!(document["apiVersion"], "weir/v1");
        assert_eq!(document["state"], "down");
        assert_eq!(document["virtualServers"].is_array(), is_known);
        assert_eq!(document["virtualServers"].is_null(), !is_known);
    }
    Ok(())
}

#[test]
fn without_any_node_name_the_host_name_counts() -> Result<()> {
    let args = ["render", "--manifests", "examples/tutorial", "-o", "json"];
    let found = weir(&args).output()?;
    match config::node_name(NodeArgs { node_name: None }) {
        Ok(name) => {
            let expected = weir(&[&args[..], &["--node-name", &name]].concat()).output()?;
            assert_eq!(found, expected);
            assert_eq!(exit_code(&found)?, 0);
        }
        Err(error) => {
            assert_eq!(exit_code(&found)?, 2);
            assert_eq!(String::from_utf8(found.stderr)?, format!("weir: {error}\n"));
        }
    }
    Ok(())
}

#[test]
fn a_closed_pipe_is_success() -> Result<()> {
    let tutorial = "render --manifests examples/tutorial --node-name ubuntu0";
    for args in [
        tutorial.to_owned(),
        format!("{tutorial} -o json"),
        format!("{tutorial} -o ipvsadm"),
        "version".to_owned(),
        "--version".to_owned(),
        "--help".to_owned(),
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        for closed in ["stdout", "stderr", "both"] {
            let (reader, writer) = std::io::pipe()?;
            drop(reader);
            let mut command = weir(&args);
            if closed != "stderr" {
                command.stdout(writer.try_clone()?);
            }
            if closed != "stdout" {
                command.stderr(writer);
            }
            let output = command.output()?;
            assert_eq!(exit_code(&output)?, 0, "{args:?} {closed}: {output:?}");
        }
    }
    Ok(())
}

#[test]
fn a_full_disk_is_a_failure_that_is_named() -> Result<()> {
    let output = weir(&["version"])
        .stdout(File::create("/dev/full")?)
        .output()?;
    assert_eq!(exit_code(&output)?, 2);
    let stderr = String::from_utf8(output.stderr)?;
    assert!(
        stderr.starts_with("weir: cannot write to standard output: "),
        "{stderr}"
    );
    Ok(())
}

/// Commands that only look leave nothing behind.
#[test]
fn looking_writes_nothing() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let run_dir = directory.path().join("run");
    let run_dir = run_dir.to_str().ok_or("the path is no text")?;
    for args in [
        &["status", "--run-dir", run_dir][..],
        &["diff", "--run-dir", run_dir],
    ] {
        assert_eq!(exit_code(&weir(args).output()?)?, 3);
    }
    assert_eq!(fs::read_dir(directory.path())?.count(), 0);
    Ok(())
}
