//! `weir status`: asks the running weir; shows the kernel alone when it is down.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipvs::proc::Entry;

use crate::cli::{StatusArgs, StatusOutput};
use crate::commands::{Exit, Outcome, print, say};
use crate::config::HostConfig;
use crate::control::{self, AskError, Question};
use crate::dataplane::addresses::Addresses;
use crate::model::Problems;
use crate::stats;
use crate::status::{Context, State, StatusDocument};

/// Runs the command.
///
/// # Errors
/// When the arguments cannot be.
pub fn status(args: StatusArgs) -> Outcome {
    let host = HostConfig::try_from(args.host)?;
    let (document, exit) = match control::ask::<StatusDocument>(&host.run_dir, Question::Status) {
        Ok(document) => {
            let exit = if document.state == State::Converged {
                Exit::Fine
            } else {
                Exit::Different
            };
            (document, exit)
        }
        Err(error) => {
            say(&format!("weir: {}", crate::error_chain(&error)));
            (kernel_alone(&host, &error), Exit::NoAnswer)
        }
    };
    match args.output {
        StatusOutput::Table => print(&document.table(args.brief))?,
        StatusOutput::Json => print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?,
    }
    Ok(exit)
}

/// What the kernel says when weir does not: forwarding goes on without us.
fn kernel_alone(host: &HostConfig, why: &AskError) -> StatusDocument {
    let mut reasons = vec![why.to_string()];
    let vips = match vips(&host.device) {
        Ok(vips) => Some(vips),
        Err(reason) => {
            reasons.push(reason);
            None
        }
    };
    let entries = match entries() {
        Ok(entries) => {
            reasons.push("below is what the kernel does meanwhile".to_owned());
            Some(entries)
        }
        Err(reason) => {
            reasons.push(reason);
            None
        }
    };
    let context = Context {
        node: "",
        state: State::Down,
        reasons,
        device: &host.device,
        vips,
        last_pass: None,
        desired: None,
        draining: BTreeSet::new(),
        problems: &Problems::default(),
    };
    StatusDocument::new(context, entries)
}

/// The kernel's table; without the right to ask IPVS what `/proc` tells, which anybody may read.
fn entries() -> Result<Vec<Entry>, String> {
    match ipvs::Client::open().and_then(|mut client| stats::table(&mut client)) {
        Ok(entries) => Ok(entries),
        Err(error) if error.is_permission() => {
            let text = ipvs::proc::read().map_err(|error| crate::error_chain(&error))?;
            ipvs::proc::parse(&text).map_err(|error| error.to_string())
        }
        Err(error) => Err(crate::error_chain(&error)),
    }
}

fn vips(device: &str) -> Result<BTreeSet<IpAddr>, String> {
    let mut addresses = Addresses::open().map_err(|error| crate::error_chain(&error))?;
    let link = addresses
        .link(device)
        .map_err(|error| crate::error_chain(&error))?;
    match link {
        Some(link) => addresses
            .addresses(&link)
            .map(|vips| vips.into_keys().collect())
            .map_err(|error| crate::error_chain(&error)),
        None => Ok(BTreeSet::new()),
    }
}
