//! `weir render`: the desired state from manifests. Touches nothing.

use std::fmt::Write as _;

use comfy_table::{Cell, Table, presets};

use crate::cli::{RenderArgs, RenderOutput};
use crate::commands::{Exit, Outcome, print, say};
use crate::config::{self, PacketConfig};
use crate::document::{self, RenderDocument};
use crate::nft;
use crate::pipeline::Pipeline;
use crate::resolve::Settings;
use crate::source::manifests::Manifests;
use crate::status::{number, trimmed};

/// Runs the command.
///
/// # Errors
/// When a manifest cannot be read.
pub fn render(args: RenderArgs) -> Outcome {
    let node_name = config::node_name(args.node)?;
    let packets = PacketConfig::try_from(args.packets)?;
    let settings = Settings {
        cluster_cidrs: packets.cluster_cidrs,
        ..Settings::default()
    };
    let mut pipeline = Pipeline::new(&node_name, settings);
    pipeline.apply(Manifests::new(args.manifests).load()?);
    let problems = pipeline.problems();
    let document = RenderDocument::new(pipeline.desired(), &problems);
    match args.output {
        RenderOutput::Nft => print(&nft::text::render(
            &pipeline.nft_settings(packets.mark),
            &pipeline.desired().wishes.elements(),
        ))?,
        RenderOutput::Ipvsadm => print(&document::ipvsadm(pipeline.desired()))?,
        RenderOutput::Json => print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?,
        RenderOutput::Table => print(&table(&document))?,
    }
    if args.output != RenderOutput::Json {
        for note in &problems.notes {
            say(&format!("note: {note}"));
        }
        for finding in &problems.findings {
            say(&format!("finding: {finding}"));
        }
    }
    Ok(if problems.findings.is_empty() {
        Exit::Fine
    } else {
        Exit::Different
    })
}

fn table(document: &RenderDocument) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "PROTOCOL",
        "SERVER",
        "SCHEDULER",
        "SERVICE",
        "PORT",
        "WEIGHT",
    ]);
    for server in &document.virtual_servers {
        let service = if server.service.is_empty() {
            "(inert: keeps IPVS's hooks)"
        } else {
            server.service.as_str()
        };
        let mut scheduler = server.scheduler.clone();
        for flag in &server.scheduler_flags {
            scheduler.push(' ');
            scheduler.push_str(flag);
        }
        if let Some(seconds) = server.persistence_seconds {
            // Writing to a String cannot fail.
            let written = write!(scheduler, ", sticky {seconds} s");
            debug_assert!(written.is_ok());
        }
        table.add_row([
            server.protocol.clone(),
            std::net::SocketAddr::new(server.address, server.port).to_string(),
            scheduler,
            service.to_owned(),
            server.port_name.clone(),
        ]);
        for real in &server.real_servers {
            table.add_row([
                Cell::new(""),
                Cell::new(format!(
                    "-> {}",
                    std::net::SocketAddr::new(real.address, real.port)
                )),
                Cell::new(""),
                Cell::new(""),
                Cell::new(""),
                number(real.weight),
            ]);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let vips: Vec<_> = document.vips.iter().map(ToString::to_string).collect();
    let vips = if vips.is_empty() {
        "none".to_owned()
    } else {
        vips.join(", ")
    };
    format!("{}\n\nVIPs: {vips}\n", trimmed(&table))
}
