//! weir: an IPVS-backed virtual server manager for Kubernetes.
//!
//! ```text
//! source ──► store ──► resolve ──► arbitrate ──► diff ──► plan ──► dataplane ──► report ──► status
//!  async               pure        pure          pure     value    blocking
//! ```

pub mod model;
pub mod source;
