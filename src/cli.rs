//! Arguments as typed by the user. What they mean is decided in `config`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "\
Exit codes:
  0  fine
  1  different or unhealthy
  2  usage error, or failed
  3  weir does not answer
  4  the kernel refused";

/// IPVS-backed virtual servers for the Services of a Kubernetes cluster: one agent per node.
#[derive(Debug, Parser)]
#[command(name = "weir", version, max_term_width = 100, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Program this node, and keep it programmed, until told to stop
    ///
    /// Puts each cluster IP on a dummy device, sets up IPVS virtual servers with the Services' endpoints as real servers, and
    /// follows changes of the manifests. SIGTERM ends it and leaves the kernel as it is; SIGHUP reads the manifests again.
    Run(RunArgs),
    /// Show what a running weir programs, with the connections of each real server
    ///
    /// Exits with 0 if all is well, 1 if not, 3 if weir does not answer; the kernel is shown all the same.
    Status(StatusArgs),
    /// Print the desired state, computed from manifests; touches nothing
    ///
    /// Exits with 0 if every object can be honoured in full, 1 if there is a finding (what is wrong and what was done instead, on
    /// standard error or in the JSON), 2 if a manifest cannot be read.
    Render(RenderArgs),
    /// Print what differs between the desired state and this kernel, as a plan; changes nothing
    ///
    /// The desired state comes from --manifests, or else from the running weir. Exits with 0 if nothing
    /// differs, 1 if something does, 3 if the running weir was asked and does not answer.
    Diff(DiffArgs),
    /// Remove everything that weir owns on this node
    ///
    /// Prints what it removes. Exits with 0 if nothing of weir's is left, 4 if the kernel refused a part or a weir still runs.
    Cleanup(CleanupArgs),
    /// Print the version
    Version,
}

/// `weir run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Files and directories of Kubernetes objects, as YAML or JSON; - is standard input
    ///
    /// Services, slices of endpoints, Endpoints and Nodes are read, all other kinds skipped.
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    pub manifests: Vec<PathBuf>,
    /// How long an endpoint that leaves may keep its connections, such as 90s, 10m or 2h
    ///
    /// A TCP or SCTP endpoint that leaves gets no new connections. It is removed when it has none left, or after this time, which
    /// cuts what is left. UDP endpoints are removed at once.
    #[arg(long, value_name = "TIME", default_value = "10m")]
    pub drain_timeout: String,
    /// How long it takes to look at every virtual server again, for what others changed: 1s to 24h
    #[arg(long, value_name = "TIME", default_value = "60s")]
    pub audit_cycle: String,
    /// This node.
    #[command(flatten)]
    pub node: NodeArgs,
    /// This host.
    #[command(flatten)]
    pub host: HostArgs,
    /// Logging.
    #[command(flatten)]
    pub log: LogArgs,
}

/// `weir status`
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Only the header, without the table of virtual servers
    #[arg(long)]
    pub brief: bool,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: StatusOutput,
    /// This host.
    #[command(flatten)]
    pub host: HostArgs,
}

/// `weir render`
#[derive(Debug, Args)]
pub struct RenderArgs {
    /// Files and directories of Kubernetes objects, as YAML or JSON; - is standard input
    ///
    /// Services, slices of endpoints, Endpoints and Nodes are read, all other kinds skipped.
    #[arg(long, value_name = "PATH", num_args = 1.., required = true)]
    pub manifests: Vec<PathBuf>,
    /// How to print it
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: RenderOutput,
    /// The packet rules.
    #[command(flatten)]
    pub packets: PacketArgs,
    /// This node.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// `weir diff`
#[derive(Debug, Args)]
pub struct DiffArgs {
    /// Files and directories to compute the desired state from; without them the running weir is asked
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub manifests: Vec<PathBuf>,
    /// This node.
    #[command(flatten)]
    pub node: NodeArgs,
    /// This host.
    #[command(flatten)]
    pub host: HostArgs,
}

/// `weir cleanup`
#[derive(Debug, Args)]
pub struct CleanupArgs {
    /// This host.
    #[command(flatten)]
    pub host: HostArgs,
}

/// Settings about the node as the cluster knows it.
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// The name of this node in the cluster [default: the host name]
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    pub node_name: Option<String>,
}

/// Settings about the host.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// The directory of the control socket and of the record of what weir owns
    #[arg(long, value_name = "DIR", default_value = "/run/weir")]
    pub run_dir: PathBuf,
    /// The dummy device that carries the VIPs
    ///
    /// Software that picks a node's addresses skips names that begin with "dummy".
    #[arg(long, value_name = "NAME", default_value = "dummy-weir0")]
    pub device: String,
}

/// Settings about packets.
#[derive(Debug, Args)]
pub struct PacketArgs {
    /// Ranges of the cluster's pods, of either family: clients outside them are masqueraded [default: the Node's podCIDRs]
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub cluster_cidr: Vec<String>,
    /// The bit of the packet mark that means "masquerade", 0 to 31
    #[arg(long, value_name = "BIT", default_value_t = 14, value_parser = clap::value_parser!(u8).range(0..=31))]
    pub masquerade_bit: u8,
}

/// Settings about logging.
#[derive(Debug, Args)]
pub struct LogArgs {
    /// What to log to standard error: error, warn, info, debug or trace, also per module, such as `weir::reconcile=debug`
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "WEIR_LOG")]
    pub log_level: String,
    /// How to log
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// `weir render -o`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RenderOutput {
    /// For people
    Table,
    /// For programs
    Json,
    /// Lines as `ipvsadm -Sn` prints them
    Ipvsadm,
    /// The packet rules, a file for `nft -f`
    Nft,
}

/// `weir status -o`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StatusOutput {
    /// For people
    Table,
    /// For programs
    Json,
}

/// `weir run --log-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line an event, for people
    Text,
    /// One JSON object an event
    Json,
}
