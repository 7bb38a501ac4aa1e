//! The messages of the generic netlink family `IPVS`.

/// Bytes or values that make no IPVS message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// An attribute that must be there is missing.
    #[error("the attribute {0} is missing")]
    Missing(&'static str),
    /// An attribute has a value that means nothing.
    #[error("the attribute {attribute} has the impossible value {value}")]
    Impossible {
        /// The kernel's name of the attribute.
        attribute: &'static str,
        /// The value, as text.
        value: String,
    },
}
