//! The kernel's refusal of one message.

use std::fmt;
use std::io;

/// The kernel's refusal of one message.
///
/// Printed as `No such file or directory (ENOENT, 2)`, followed by the kernel's own words where it has any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The errno, positive.
    pub errno: i32,
    /// The kernel's own words (`NLMSGERR_ATTR_MSG`, since Linux 4.12). IPVS has none, nftables and routes often do.
    pub text: Option<String>,
}

impl Rejection {
    /// `EPERM` or `EACCES`.
    pub(crate) fn is_permission(&self) -> bool {
        matches!(self.errno, 1 | 13)
    }

    /// The name of the errno, for those that netlink is known to answer with.
    fn name(&self) -> Option<&'static str> {
        NAMES
            .iter()
            .find(|(errno, _)| *errno == self.errno)
            .map(|(_, name)| *name)
    }
}

impl std::error::Error for Rejection {}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = io::Error::from_raw_os_error(self.errno).to_string();
        let message = message
            .split_once(" (os error")
            .map_or(message.as_str(), |(text, _)| text);
        match self.name() {
            Some(name) => write!(f, "{message} ({name}, {})", self.errno)?,
            None => write!(f, "{message} ({})", self.errno)?,
        }
        match &self.text {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

/// `asm-generic/errno.h`; the same on every architecture that Rust's Linux targets with IPVS have, but MIPS and SPARC, which
/// differ above 34.
const NAMES: [(i32, &str); 41] = [
    (1, "EPERM"),
    (2, "ENOENT"),
    (3, "ESRCH"),
    (4, "EINTR"),
    (5, "EIO"),
    (7, "E2BIG"),
    (11, "EAGAIN"),
    (12, "ENOMEM"),
    (13, "EACCES"),
    (14, "EFAULT"),
    (16, "EBUSY"),
    (17, "EEXIST"),
    (19, "ENODEV"),
    (20, "ENOTDIR"),
    (21, "EISDIR"),
    (22, "EINVAL"),
    (23, "ENFILE"),
    (24, "EMFILE"),
    (27, "EFBIG"),
    (28, "ENOSPC"),
    (34, "ERANGE"),
    (36, "ENAMETOOLONG"),
    (40, "ELOOP"),
    (75, "EOVERFLOW"),
    (85, "ERESTART"),
    (90, "EMSGSIZE"),
    (92, "ENOPROTOOPT"),
    (93, "EPROTONOSUPPORT"),
    (95, "EOPNOTSUPP"),
    (97, "EAFNOSUPPORT"),
    (98, "EADDRINUSE"),
    (99, "EADDRNOTAVAIL"),
    (100, "ENETDOWN"),
    (101, "ENETUNREACH"),
    (105, "ENOBUFS"),
    (106, "EISCONN"),
    (107, "ENOTCONN"),
    (110, "ETIMEDOUT"),
    (111, "ECONNREFUSED"),
    (113, "EHOSTUNREACH"),
    (114, "EALREADY"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_prints_text_name_and_number() {
        let mut rejection = Rejection {
            errno: 2,
            text: None,
        };
        assert_eq!(
            rejection.to_string(),
            "No such file or directory (ENOENT, 2)"
        );
        rejection.text = Some("no such chain".into());
        assert_eq!(
            rejection.to_string(),
            "No such file or directory (ENOENT, 2): no such chain"
        );
        rejection = Rejection {
            errno: 39,
            text: None,
        };
        assert_eq!(rejection.to_string(), "Directory not empty (39)");
    }
}
