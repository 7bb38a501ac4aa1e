//! What `weir status` shows: how things stand, and every virtual server of the kernel with the Service it stands for.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;

use comfy_table::{Cell, CellAlignment, Table, presets};
use ipvs::VirtualServerKey;
use ipvs::proc::{Entry, Subject};
use serde::{Deserialize, Serialize};

use crate::arbitrate::{Desired, DesiredVirtualServer};
use crate::document::{API_VERSION, origin_text};
use crate::drain::Server;
use crate::model::Problems;
use crate::model::finding::{FindingDocument, NoteDocument};

/// How weir stands with its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The cluster has not been read whole yet; nothing is programmed until it is.
    Waiting,
    /// The kernel is as it should be.
    Converged,
    /// Something could not be read or done; it is retried.
    Degraded,
    /// weir does not run here.
    Down,
}

impl State {
    /// The word that the table and the JSON show.
    pub fn word(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Converged => "converged",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// What `weir status -o json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDocument {
    /// [`API_VERSION`].
    pub api_version: String,
    /// The node's name; empty while weir is down.
    pub node: String,
    /// How weir stands with its node.
    pub state: State,
    /// Why it is not `converged`, a line each.
    pub reasons: Vec<String>,
    /// The dummy device that carries the VIPs.
    pub device: String,
    /// Addresses on that device; `None` if they could not be read.
    pub vips: Option<Vec<IpAddr>>,
    /// The last pass that had something to do; absent before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_pass: Option<PassDocument>,
    /// Everything IPVS holds here, by family, protocol, address, port; `None` if it could not be read.
    pub virtual_servers: Option<Vec<VirtualServerStatus>>,
    /// Objects that could not be honoured in full.
    pub findings: Vec<FindingDocument>,
    /// What is right but may surprise.
    pub notes: Vec<NoteDocument>,
}

/// A pass, as status shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PassDocument {
    /// When it ended, RFC 3339.
    pub time: String,
    /// Operations that the kernel did.
    pub operations: usize,
    /// Operations that failed.
    pub failed: usize,
    /// Milliseconds from the first waiting event to the kernel's last acknowledgement.
    pub milliseconds: u64,
}

/// What a virtual server is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// A Service's frontend.
    Service,
    /// No longer wanted: its real servers drain.
    Draining,
    /// weir's own, without real servers: it keeps the kernel's IPVS hooks registered.
    Inert,
    /// Not weir's, or no longer wanted, or nobody knows: weir is down, or has not read the cluster yet.
    Other,
}

/// A virtual server of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualServerStatus {
    /// The virtual address; of a firewall mark, its number.
    pub address: String,
    /// The port; 0 is every port, or a firewall mark.
    pub port: u16,
    /// `TCP`, `UDP`, `SCTP`, or `FWM` for a firewall mark.
    pub protocol: String,
    /// `namespace/name`; empty if it is no Service's.
    pub service: String,
    /// The Service port's name; empty if it has none.
    pub port_name: String,
    /// What it is there for.
    pub purpose: Purpose,
    /// The kernel's name of the scheduler.
    pub scheduler: String,
    /// Where the address is bound; absent if weir has not made it local.
    pub vip: Option<VipDocument>,
    /// Its real servers.
    pub real_servers: Vec<RealServerStatus>,
}

/// Where a VIP is bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VipDocument {
    /// The device.
    pub device: String,
    /// `address`: as an address on the device.
    pub mode: String,
}

/// A real server of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RealServerStatus {
    /// The endpoint's address.
    pub address: IpAddr,
    /// The endpoint's port.
    pub port: u16,
    /// Its share of new connections; 0 takes none.
    pub weight: u32,
    /// Established connections.
    pub active: u32,
    /// Other connections; every UDP flow.
    pub inactive: u32,
    /// Whether it is no longer wanted and waits for its connections to end.
    pub draining: bool,
}

/// What is known beside the kernel's own table.
#[derive(Debug, Clone)]
pub struct Context<'a> {
    /// The node's name.
    pub node: &'a str,
    /// How weir stands with its node.
    pub state: State,
    /// Why it is not converged.
    pub reasons: Vec<String>,
    /// The dummy device.
    pub device: &'a str,
    /// Addresses on that device; `None` if they could not be read.
    pub vips: Option<BTreeSet<IpAddr>>,
    /// The last pass that had something to do.
    pub last_pass: Option<PassDocument>,
    /// What should be; `None` while weir is down or has not read the cluster whole.
    pub desired: Option<&'a Desired>,
    /// Real servers that drain.
    pub draining: BTreeSet<Server>,
    /// Findings and notes.
    pub problems: &'a Problems,
}

impl StatusDocument {
    /// Joins the kernel's table, `None` if it could not be read, with what is known beside it.
    pub fn new(context: Context<'_>, entries: Option<Vec<Entry>>) -> Self {
        let virtual_servers = entries.map(|mut entries| {
            entries.sort_by_key(|entry| order(entry.subject));
            entries
                .iter()
                .map(|entry| virtual_server(&context, entry))
                .collect()
        });
        Self {
            api_version: API_VERSION.to_owned(),
            node: context.node.to_owned(),
            state: context.state,
            virtual_servers,
            reasons: context.reasons,
            device: context.device.to_owned(),
            vips: context.vips.map(|vips| vips.into_iter().collect()),
            last_pass: context.last_pass,
            findings: context
                .problems
                .findings
                .iter()
                .map(FindingDocument::from)
                .collect(),
            notes: context
                .problems
                .notes
                .iter()
                .map(NoteDocument::from)
                .collect(),
        }
    }

    /// The header and, unless it is to be brief, the table.
    pub fn table(&self, brief: bool) -> String {
        let mut text = self.header();
        match self.virtual_servers.as_deref() {
            Some(servers @ [_, ..]) if !brief => {
                // Writing to a String cannot fail.
                let written = write!(text, "\n{}\n", trimmed(&self.rows(servers)));
                debug_assert!(written.is_ok());
            }
            _ => {}
        }
        text
    }

    fn header(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str| {
            let written = writeln!(text, "{name:<12}{value}");
            debug_assert!(written.is_ok());
        };
        if self.state != State::Down {
            line("Node", &self.node);
        }
        line("State", self.state.word());
        for reason in &self.reasons {
            line("", reason);
        }
        line("Servers", &self.totals());
        let vips = self
            .vips
            .as_ref()
            .map_or_else(|| "unknown".to_owned(), |vips| vips.len().to_string());
        line("VIPs", &format!("{vips} on {}", self.device));
        if let Some(pass) = &self.last_pass {
            let failed = if pass.failed == 0 {
                String::new()
            } else {
                format!(", {} failed", pass.failed)
            };
            let operations = if pass.operations == 1 {
                "1 operation".to_owned()
            } else {
                format!("{} operations", pass.operations)
            };
            line(
                "Last change",
                &format!(
                    "{}, {operations}{failed}, {} ms",
                    pass.time, pass.milliseconds
                ),
            );
        }
        if self.state != State::Down {
            line("Findings", &self.findings.len().to_string());
            for finding in &self.findings {
                let field = if finding.field.is_empty() {
                    String::new()
                } else {
                    format!("{}: ", finding.field)
                };
                line(
                    "",
                    &format!(
                        "{}: {field}{}; {}",
                        finding.object, finding.problem, finding.consequence
                    ),
                );
            }
            let where_to_read = if self.notes.is_empty() {
                ""
            } else {
                ", shown by -o json"
            };
            line("Notes", &format!("{}{where_to_read}", self.notes.len()));
        }
        text
    }

    fn totals(&self) -> String {
        let Some(servers) = &self.virtual_servers else {
            return "unknown".to_owned();
        };
        let real: usize = servers.iter().map(|server| server.real_servers.len()).sum();
        let all = servers.iter().flat_map(|server| &server.real_servers);
        let (active, inactive) = all.fold((0_u64, 0_u64), |(active, inactive), server| {
            (
                active + u64::from(server.active),
                inactive + u64::from(server.inactive),
            )
        });
        format!(
            "{} virtual, {real} real; connections {active} active, {inactive} inactive",
            servers.len()
        )
    }

    fn rows(&self, servers: &[VirtualServerStatus]) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header([
            "PROTOCOL",
            "SERVER",
            "SCHEDULER",
            "SERVICE",
            "PORT",
            "WEIGHT",
            "ACTIVE",
            "INACTIVE",
            "",
        ]);
        for server in servers {
            let service = match server.purpose {
                Purpose::Service => server.service.as_str(),
                Purpose::Draining => "(goes when its connections end)",
                Purpose::Inert => "(inert: keeps IPVS's hooks)",
                Purpose::Other => match self.state {
                    State::Waiting | State::Down => "",
                    State::Converged | State::Degraded => "(not from a Service)",
                },
            };
            table.add_row([
                server.protocol.clone(),
                socket_text(&server.address, server.port),
                server.scheduler.clone(),
                service.to_owned(),
                server.port_name.clone(),
            ]);
            for real in &server.real_servers {
                let draining = if real.draining { "draining" } else { "" };
                table.add_row([
                    Cell::new(""),
                    Cell::new(format!("-> {}", SocketAddr::new(real.address, real.port))),
                    Cell::new(""),
                    Cell::new(""),
                    Cell::new(""),
                    number(real.weight),
                    number(real.active),
                    number(real.inactive),
                    Cell::new(draining),
                ]);
            }
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        table
    }
}

/// A table without spaces at the ends of its lines.
pub fn trimmed(table: &Table) -> String {
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// A number in a table.
pub fn number(value: u32) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}

fn socket_text(address: &str, port: u16) -> String {
    match address.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, port).to_string(),
        Err(_) => address.to_owned(),
    }
}

fn order(subject: Subject) -> (Option<NonZeroU32>, Option<VirtualServerKey>) {
    match subject {
        Subject::Address(key) => (None, Some(key)),
        Subject::Mark(mark) => (Some(mark), None),
    }
}

fn virtual_server(context: &Context<'_>, entry: &Entry) -> VirtualServerStatus {
    let base = VirtualServerStatus {
        address: String::new(),
        port: 0,
        protocol: "FWM".to_owned(),
        service: String::new(),
        port_name: String::new(),
        purpose: Purpose::Other,
        scheduler: entry.scheduler.name().to_owned(),
        vip: None,
        real_servers: Vec::new(),
    };
    match entry.subject {
        Subject::Address(
            key @ VirtualServerKey::Address {
                address,
                port,
                protocol,
            },
        ) => {
            let wanted = context
                .desired
                .and_then(|desired| desired.virtual_servers.get(&key));
            let (service, port_name) =
                origin_text(wanted.and_then(|wanted| wanted.origin.as_ref()));
            VirtualServerStatus {
                address: address.to_string(),
                port,
                protocol: protocol.to_string(),
                service,
                port_name,
                purpose: purpose(context, wanted, &key),
                vip: vip(context, address),
                real_servers: real_servers(context, entry, Some(key)),
                ..base
            }
        }
        Subject::Address(VirtualServerKey::Mark { mark, .. }) | Subject::Mark(mark) => {
            VirtualServerStatus {
                address: mark.to_string(),
                real_servers: real_servers(context, entry, None),
                ..base
            }
        }
    }
}

fn purpose(
    context: &Context<'_>,
    wanted: Option<&DesiredVirtualServer>,
    key: &VirtualServerKey,
) -> Purpose {
    match wanted {
        Some(wanted) if wanted.origin.is_some() => Purpose::Service,
        _ if crate::arbitrate::inert().any(|inert| inert == *key) => Purpose::Inert,
        None if context.draining.iter().any(|(of, _)| of == key) => Purpose::Draining,
        _ => Purpose::Other,
    }
}

fn vip(context: &Context<'_>, address: IpAddr) -> Option<VipDocument> {
    let vips = context.vips.as_ref()?;
    vips.contains(&address).then(|| VipDocument {
        device: context.device.to_owned(),
        mode: "address".to_owned(),
    })
}

fn real_servers(
    context: &Context<'_>,
    entry: &Entry,
    of: Option<VirtualServerKey>,
) -> Vec<RealServerStatus> {
    let mut servers: Vec<_> = entry
        .real_servers
        .iter()
        .map(|server| RealServerStatus {
            address: server.key.address,
            port: server.key.port,
            weight: server.weight.0,
            active: server.active,
            inactive: server.inactive,
            draining: of.is_some_and(|of| context.draining.contains(&(of, server.key))),
        })
        .collect();
    servers.sort_by_key(|server| (server.address, server.port));
    servers
}

#[cfg(test)]
mod tests;
