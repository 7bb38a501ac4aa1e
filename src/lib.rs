//! weir: an IPVS-backed virtual server manager for Kubernetes.
//!
//! ```text
//! source ──► store ──► resolve ──► arbitrate ──► diff ──► plan ──► dataplane ──► report ──► status
//!  async               pure        pure          pure     value    blocking
//! ```

pub mod arbitrate;
pub mod cli;
pub mod commands;
pub mod config;
pub mod control;
pub mod dataplane;
pub mod diff;
pub mod document;
pub mod drain;
pub mod lock;
pub mod model;
pub mod nft;
pub mod ownership;
pub mod pipeline;
pub mod plan;
pub mod reconcile;
pub mod resolve;
pub mod source;
pub mod stats;
pub mod status;
pub mod store;
pub mod telemetry;

/// An error with everything behind it, on one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
